//! Which queues have a consumer: made when a queue is first heard of, by a job or by a worker.
//!
//! The orchestrator, never a worker, creates consumers: a scaler that finds none reads nonsense, and
//! two workers would race. The number of queues is bounded; a job on a queue beyond it waits, visibly.

use crate::app::App;
use crate::reconcile::pause;
use agentforge_jetstream::{Nats, topology};
use agentforge_message_id::{Mission, Queue};
use agentforge_proto::time::Micros;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Queues of a mission that get a consumer, at most.
pub const QUEUES_MAX: usize = 256;
/// Between two tries.
const AGAIN: Duration = Duration::from_secs(1);

/// The queues heard of. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct Lanes {
    known: Arc<Mutex<BTreeSet<Queue>>>,
    count: Arc<watch::Sender<usize>>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { known: Arc::default(), count: Arc::new(watch::channel(0).0) }
    }
}

impl Lanes {
    /// Says that there is such a queue.
    pub fn note(&self, queue: &Queue) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(queue) {
            return;
        }
        if known.len() >= QUEUES_MAX {
            warn!(%queue, max = QUEUES_MAX, "too many queues: this one gets no consumer, and its jobs wait");
            return;
        }
        known.insert(queue.clone());
        self.count.send_replace(known.len());
    }

    /// All of them.
    fn all(&self) -> Vec<Queue> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Makes streams and the consumers of all known queues as they should be, again for each new queue;
/// `ready` turns true after the first time. Runs until `stop` fires.
///
/// # Errors
/// A stream or consumer that exists and cannot be made to fit.
pub async fn run(
    app: App,
    nats: Nats,
    settings: (topology::TopologyConfig, Mission),
    lanes: Lanes,
    ready: watch::Sender<bool>,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let (config, mission) = settings;
    if let Ok(depths) = app.store().depths(Micros::now()).await {
        depths.iter().filter(|d| d.mission == mission).for_each(|d| lanes.note(&d.queue));
    }
    let mut changed = lanes.count.subscribe();
    let mut connected = nats.connected();
    loop {
        tokio::select! {
            up = connected.wait_for(|c| *c) => { let _ = up?; }
            () = stop.cancelled() => return Ok(()),
        }
        changed.borrow_and_update();
        let plan = topology::plan(&config, &mission, &lanes.all());
        let ensured = tokio::select! {
            ensured = topology::ensure(nats.jetstream(), &plan) => ensured,
            () = stop.cancelled() => return Ok(()),
        };
        match ensured {
            Ok(report) => {
                if !report.created.is_empty() || !report.updated.is_empty() {
                    info!(created = ?report.created, updated = ?report.updated, "streams and consumers are as they should be");
                }
                ready.send_replace(true);
            }
            Err(e) if e.is_retryable() => {
                warn!(error = &e as &dyn std::error::Error, "streams and consumers are not there yet; trying again");
                if !pause(&stop, AGAIN).await {
                    return Ok(());
                }
                continue;
            }
            Err(e) => return Err(anyhow::Error::from(e).context("streams or consumers do not fit")),
        }
        tokio::select! {
            new = changed.changed() => new?,
            // A server that lost its data comes back without streams.
            lost = connected.wait_for(|c| !*c) => { let _ = lost?; }
            () = stop.cancelled() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_bounded() {
        let lanes = Lanes::default();
        for n in 0..QUEUES_MAX + 10 {
            lanes.note(&Queue::new(format!("q{n}")).unwrap());
            lanes.note(&Queue::new("q0").unwrap());
        }
        assert_eq!(lanes.all().len(), QUEUES_MAX);
    }
}
