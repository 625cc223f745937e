//! Which queues have a consumer: the default one and those configured always, others once a worker announces them.
//!
//! The orchestrator, never a worker, creates consumers: a scaler that finds none reads nonsense, and
//! two workers would race. Submitters do not: a name that nobody serves would use one up.

use crate::app::App;
use crate::model::Presence;
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

/// Workers looked at.
pub const AGENTS_MAX: u32 = 1_000;
/// Between two tries.
const AGAIN: Duration = Duration::from_secs(1);

/// The queues that are to have a consumer. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct Lanes {
    max: usize,
    always: Arc<BTreeSet<Queue>>,
    known: Arc<Mutex<BTreeSet<Queue>>>,
    count: Arc<watch::Sender<u64>>,
}

impl Lanes {
    /// At most `max`; those that are configured are there from the start and stay.
    pub fn new(max: usize, always: impl IntoIterator<Item = Queue>) -> Self {
        let always: BTreeSet<Queue> = always.into_iter().collect();
        let known = Arc::new(Mutex::new(always.clone()));
        Self { max, always: Arc::new(always), known, count: Arc::new(watch::channel(0).0) }
    }

    /// Says that a worker serves a queue.
    pub fn note(&self, queue: &Queue) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(queue) {
            return;
        }
        if known.len() >= self.max {
            warn!(%queue, max = self.max, "too many queues (QUEUES_MAX): this one gets no consumer, and its workers wait");
            return;
        }
        known.insert(queue.clone());
        self.count.send_modify(|changes| *changes += 1);
    }

    /// Forgets all queues that are neither configured nor `wanted`: their consumers are no longer kept there.
    pub fn keep(&self, wanted: &BTreeSet<Queue>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|queue| wanted.contains(queue) || self.always.contains(queue));
    }

    /// All of them.
    pub fn all(&self) -> Vec<Queue> {
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
    // Workers that were here a moment ago find their consumers at once.
    if let Ok(agents) = app.store().agents(Some(&mission), None, AGENTS_MAX).await {
        let online = agents.iter().filter(|a| a.presence(Micros::now()) == Presence::Online);
        online.flat_map(|a| &a.queues).filter_map(|q| Queue::new(q).ok()).for_each(|q| lanes.note(&q));
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
        let queue = |name: &str| Queue::new(name).unwrap();
        let lanes = Lanes::new(16, [queue("configured")]);
        for n in 0..30 {
            lanes.note(&queue(&format!("q{n}")));
            lanes.note(&queue("q0"));
        }
        assert_eq!(lanes.all().len(), 16);
        lanes.keep(&[queue("q3")].into());
        assert_eq!(lanes.all(), [queue("configured"), queue("q3")]);
    }
}
