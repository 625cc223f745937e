//! Which queues are paused: the database's word, as this process read it last.
//!
//! The relay asks it before a job leaves, so it is in memory, and costs one load of an atomic while no queue is paused.
//! What is in the stream already is held back by the server (`streams.rs`), which says here when that is so.

use crate::store::QueuePause;
use agentforge_message_id::Queue;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;

/// The relay's reason for a line that it holds.
pub(crate) const PAUSED: &str = "paused";

/// The paused queues of this mission. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    any: AtomicBool,
    known: RwLock<HashMap<String, QueuePause>>,
    /// Rises with each change of `known`.
    changes: watch::Sender<u64>,
    /// The change up to which the server holds back what is to be held back, and nothing else.
    in_effect: watch::Sender<u64>,
}

impl Pauses {
    /// Whether jobs of this queue are to wait.
    pub(crate) fn holds(&self, queue: &str) -> bool {
        self.0.any.load(Ordering::Acquire) && self.known().contains_key(queue)
    }

    fn known(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, QueuePause>> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pause of a queue.
    pub(crate) fn of(&self, queue: &Queue) -> Option<QueuePause> {
        if self.0.any.load(Ordering::Acquire) { self.known().get(queue.as_str()).cloned() } else { None }
    }

    /// The queues that are paused.
    pub(crate) fn queues(&self) -> BTreeSet<Queue> {
        self.known().values().map(|pause| pause.queue.clone()).collect()
    }

    /// Takes what the database says; gives back the queues that are not paused any more.
    pub(crate) fn set(&self, found: Vec<QueuePause>) -> Vec<Queue> {
        let found: HashMap<String, QueuePause> = found.into_iter().map(|p| (p.queue.to_string(), p)).collect();
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        if *known == found {
            return vec![];
        }
        let is_gone = |pause: &&QueuePause| !found.contains_key(pause.queue.as_str());
        let gone = known.values().filter(is_gone).map(|pause| pause.queue.clone()).collect();
        self.0.any.store(!found.is_empty(), Ordering::Release);
        *known = found;
        drop(known);
        self.0.changes.send_modify(|n| *n += 1);
        gone
    }

    /// Notifies of each change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The number of the last change.
    pub(crate) fn change(&self) -> u64 {
        *self.0.changes.borrow()
    }

    /// The server does as the database said at this change.
    pub(crate) fn set_in_effect(&self, change: u64) {
        self.0.in_effect.send_if_modified(|at| {
            let is_news = *at < change;
            *at = change.max(*at);
            is_news
        });
    }

    /// Whether the server does as the database says.
    pub(crate) fn is_in_effect(&self) -> bool {
        *self.0.in_effect.borrow() >= self.change()
    }

    /// Waits until the server does as the database says now, at most `most`.
    pub(crate) async fn take_effect(&self, most: Duration) {
        let (change, mut in_effect) = (self.change(), self.0.in_effect.subscribe());
        let _ = tokio::time::timeout(most, in_effect.wait_for(|at| *at >= change)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_message_id::Mission;
    use agentforge_proto::time::Micros;

    fn pause(queue: &str) -> QueuePause {
        let (mission, queue) = (Mission::new("dev").unwrap(), Queue::new(queue).unwrap());
        QueuePause { mission, queue, since: Micros(7), by: "ops".into() }
    }

    #[tokio::test]
    async fn a_change_is_in_effect_once_the_server_follows() {
        let pauses = Pauses::default();
        assert!(!pauses.holds("a") && pauses.is_in_effect() && pauses.set(vec![]).is_empty());
        assert!(pauses.set(vec![pause("a"), pause("b")]).is_empty());
        assert!(pauses.holds("a") && !pauses.holds("c") && !pauses.is_in_effect());
        pauses.take_effect(Duration::ZERO).await;
        assert!(!pauses.is_in_effect());
        pauses.set_in_effect(pauses.change());
        assert!(pauses.is_in_effect());
        // The same again changes nothing; what is gone is named.
        assert!(pauses.set(vec![pause("b"), pause("a")]).is_empty() && pauses.is_in_effect());
        assert_eq!(pauses.set(vec![pause("b")]), [Queue::new("a").unwrap()]);
        assert!(!pauses.holds("a") && pauses.holds("b"));
        assert_eq!(pauses.of(&Queue::new("b").unwrap()).unwrap().by, "ops");
    }
}
