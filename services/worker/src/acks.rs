//! Acknowledgements that travel together: the server confirms one for all, as it takes those of a connection in order.
//!
//! The first job that has one to send leads: it waits for what sends them with other traffic, then sends them all. The
//! others leave theirs here and are done.

use crate::keepalive::KeepAliveHold;
use agentforge_jetstream::{Settler, consume};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// From this many on they do not wait for traffic.
const MANY: usize = 256;

/// A delivery whose result is stored, with what is held until the server knows that.
pub(crate) struct Ack {
    settler: Settler,
    _keep_alive: KeepAliveHold,
    _room: Option<OwnedSemaphorePermit>,
    slot: Option<Box<dyn Send + Sync>>,
}

impl Ack {
    /// `slot` where there is no `room` in addition to the slots: then it is free only when this has been sent.
    pub(crate) fn new(
        settler: Settler,
        keep_alive: KeepAliveHold,
        room: Option<OwnedSemaphorePermit>,
        slot: Option<impl Send + Sync + 'static>,
    ) -> Self {
        let slot = slot.map(|slot| Box::new(slot) as Box<dyn Send + Sync>);
        Self { settler, _keep_alive: keep_alive, _room: room, slot }
    }
}

/// Those of one queue that wait. Bounded by the slots and the additional room.
#[derive(Default)]
pub(crate) struct Acks {
    waiting: Mutex<Vec<Ack>>,
    urgent: Notify,
}

impl Acks {
    fn waiting(&self) -> MutexGuard<'_, Vec<Ack>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one; whether the caller is to send those that have gathered.
    pub(crate) fn add(&self, ack: Ack) -> bool {
        let mut waiting = self.waiting();
        let is_urgent = ack.slot.is_some() || waiting.len() + 1 >= MANY;
        waiting.push(ack);
        if is_urgent {
            self.urgent.notify_one();
        }
        waiting.len() == 1
    }

    /// Waits until there is a reason not to wait for traffic.
    pub(crate) async fn urgent(&self) {
        self.urgent.notified().await;
    }

    /// Sends all that wait, the last one with a question. Says how many there were, and why they are not
    /// known to have arrived, if so.
    pub(crate) async fn send_all(&self, limit: Duration) -> (u64, Option<consume::Error>) {
        let acks = std::mem::take(&mut *self.waiting());
        let count = acks.len() as u64;
        let Some((last, others)) = acks.split_last() else { return (0, None) };
        for ack in others {
            if let Err(error) = ack.settler.ack().await {
                return (count, Some(error));
            }
        }
        (count, last.settler.ack_confirmed(limit).await.err())
    }
}
