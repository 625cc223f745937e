//! Which queues have a consumer: the default one and those configured always, others once a worker announces them.
//!
//! The orchestrator, never a worker, creates consumers: a scaler that finds none reads nonsense, and two workers would
//! race. Submitters do not: a name without workers would use one up.

use agentforge_message_id::Queue;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tracing::warn;

/// Workers read in one page.
pub const AGENTS_MAX: u32 = 1_000;

/// The queues that are to have a consumer. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct QueueConsumers {
    max: usize,
    always: Arc<BTreeSet<Queue>>,
    known: Arc<Mutex<BTreeSet<Queue>>>,
    count: Arc<watch::Sender<u64>>,
}

impl QueueConsumers {
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
            warn!(%queue, max = self.max, "too many queues (QUEUES_MAX); no consumer for this one, its workers wait");
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

    /// Notifies of each new one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    /// The queues that are to have a consumer now, in the order of their names.
    pub fn queues(&self) -> Vec<Queue> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_bounded() {
        let queue = |name: &str| Queue::new(name).unwrap();
        let consumers = QueueConsumers::new(16, [queue("configured")]);
        for n in 0..30 {
            consumers.note(&queue(&format!("q{n}")));
            consumers.note(&queue("q0"));
        }
        assert_eq!(consumers.queues().len(), 16);
        consumers.keep(&[queue("q3")].into());
        assert_eq!(consumers.queues(), [queue("configured"), queue("q3")]);
    }
}
