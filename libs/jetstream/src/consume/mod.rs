//! Consuming at one's own pace: pull what there is room for, hold no more, and never go silent.
//!
//! Owns the pull loop over `$JS.API.CONSUMER.MSG.NEXT`. The caller grants slots; requested and delivered messages never
//! add up to more than the slots granted, whichever part fails in between. A missed heartbeat, a reconnect or a deleted
//! consumer ends in a new subscription, never in silence. Settling is the caller's: a delivery that is dropped
//! unsettled is redelivered after the ack wait.

mod ack_info;
mod delivery;
mod ledger;
mod options;
mod pull_loop;
mod status;

pub use ack_info::AckInfo;
pub use delivery::{Delivery, Error, Settler};
pub use options::PullOptions;

use crate::nats::Nats;
use pull_loop::Shared;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// A consumer's messages, pulled as slots are granted.
///
/// [`next`](Self::next) uses one granted slot per delivery; grant it again when the work is done. Dropping the puller
/// hands back deliveries that were not taken.
pub struct Puller {
    deliveries: mpsc::Receiver<Delivery>,
    slots: Slots,
    bound: watch::Receiver<bool>,
    /// Not aborted on drop: the loop ends by itself once stopped, and hands back what it holds.
    task: JoinHandle<()>,
}

/// Grants slots to a [`Puller`] from anywhere. Cheap to clone.
#[derive(Clone)]
pub struct Slots {
    shared: Arc<Shared>,
}

impl Slots {
    /// Adds `n` free slots: the puller may hold that many messages more.
    pub fn grant(&self, n: usize) {
        self.shared.grant(n);
    }
}

impl Puller {
    /// Starts pulling from a durable consumer, which may not exist yet. Nothing is pulled before the
    /// first grant.
    pub fn start(nats: Nats, stream: impl Into<String>, consumer: impl Into<String>, options: PullOptions) -> Self {
        let options = options.within_limits();
        let (tx, deliveries) = mpsc::channel(options.max_outstanding);
        let (bound_tx, bound) = watch::channel(false);
        let shared = Arc::new(Shared::default());
        let run = pull_loop::run(nats, stream.into(), consumer.into(), options, shared.clone(), tx, bound_tx);
        let task = tokio::spawn(run);
        Self { deliveries, slots: Slots { shared }, bound, task }
    }

    /// Adds `n` free slots; see [`Slots::grant`].
    pub fn grant(&self, n: usize) {
        self.slots.grant(n);
    }

    /// A handle that grants slots.
    pub fn slots(&self) -> Slots {
        self.slots.clone()
    }

    /// The next delivery, which uses one slot. `None` after [`stop`](Self::stop), once everything that
    /// had arrived was read. Cancel safe.
    pub async fn next(&mut self) -> Option<Delivery> {
        let delivery = self.deliveries.recv().await;
        self.slots.shared.was_read();
        delivery
    }

    /// What has arrived already; for readers that take many at once.
    pub fn try_next(&mut self) -> Option<Delivery> {
        let delivery = self.deliveries.try_recv().ok()?;
        self.slots.shared.was_read();
        Some(delivery)
    }

    /// Asks for no more. What has arrived stays readable, and so does what arrives while the open
    /// requests are being ended (about 0.1 s); then [`next`](Self::next) gives `None`.
    pub fn stop(&self) {
        self.slots.shared.stop();
    }

    /// Whether the consumer exists and answers.
    pub fn bound(&self) -> watch::Receiver<bool> {
        self.bound.clone()
    }

    /// Time since the loop last took a turn. It takes one each second in every state, so a larger value
    /// means that the loop hangs.
    pub fn since_last_turn(&self) -> Duration {
        self.slots.shared.since_last_turn()
    }

    /// Whether the loop runs; once stopped, it ends.
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Drop for Puller {
    fn drop(&mut self) {
        self.stop();
        self.deliveries.close();
        let mut left = Vec::new();
        while let Ok(delivery) = self.deliveries.try_recv() {
            left.push(delivery);
        }
        if left.is_empty() {
            return;
        }
        // Without a runtime there is no connection either; the messages are redelivered after the ack wait.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                for delivery in left {
                    let _ = delivery.nak(None).await;
                }
            });
        }
    }
}
