//! Counts what waits in the database, for back-pressure: what is due and cannot leave, and what is for later.
//!
//! Counted in memory as it comes and goes, and set right from the database every few seconds: a delayed job becomes
//! due without anybody's doing.

use crate::store::Waiting;
use agentforge_message_id::Queue;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Cheap to clone; all clones are the same counts.
#[derive(Clone, Debug)]
pub struct OutboxGauge(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    due: AtomicU64,
    later: AtomicU64,
    due_max: u64,
    later_max: u64,
    queues: Mutex<HashMap<Queue, u64>>,
    /// Rises with each job that comes or goes, and with each commit.
    changes: AtomicU64,
    /// Commits whose jobs may be in the store and not in these counts.
    under_way: AtomicU64,
}

impl OutboxGauge {
    /// Starts at zero; `set` it from the store.
    pub fn new(due_max: u64, later_max: u64) -> Self {
        let (due, later, queues, changes, under_way) = Default::default();
        Self(Arc::new(Counts { due, later, due_max, later_max, queues, changes, under_way }))
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<Queue, u64>> {
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bound on jobs that are due (OUTBOX_MAX).
    pub fn max(&self) -> u64 {
        self.0.due_max
    }
    /// Jobs that are due and not published.
    pub fn get(&self) -> u64 {
        self.0.due.load(Ordering::Relaxed)
    }
    /// Whether another that is due must wait outside.
    pub fn is_full(&self) -> bool {
        self.get() >= self.max()
    }
    /// Those of one queue.
    pub fn of(&self, queue: &Queue) -> u64 {
        self.queues().get(queue).copied().unwrap_or(0)
    }
    /// The bound on jobs that are for later (SCHEDULED_MAX).
    pub fn later_max(&self) -> u64 {
        self.0.later_max
    }
    /// Jobs with `run_at` ahead, and retries that wait.
    pub fn later(&self) -> u64 {
        self.0.later.load(Ordering::Relaxed)
    }

    /// A moment with which counts of the store can agree, if nothing changes until they are made: none while a commit is
    /// under way, as its jobs may be in the store and are not counted here before it has ended.
    pub fn moment(&self) -> Option<u64> {
        let moment = self.0.changes.load(Ordering::Acquire);
        (self.0.under_way.load(Ordering::Acquire) == 0).then_some(moment)
    }

    /// Whether nothing has changed since that moment.
    pub fn is_still(&self, moment: Option<u64>) -> bool {
        moment.is_some() && self.moment() == moment
    }

    /// A commit begins; it ends with [`Self::committed`], when its jobs are counted.
    pub(crate) fn begin_commit(&self) {
        self.0.under_way.fetch_add(1, Ordering::AcqRel);
        self.changed();
    }

    pub(crate) fn committed(&self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }

    fn changed(&self) {
        self.0.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes the store's counts.
    pub fn set(&self, waiting: Waiting) {
        let due = waiting.due.iter().map(|(_, n)| n).sum();
        self.0.due.store(due, Ordering::Relaxed);
        self.0.later.store(waiting.later, Ordering::Relaxed);
        *self.queues() = waiting.due.into_iter().collect();
    }

    pub(crate) fn add(&self, queue: &Queue) {
        self.changed();
        self.0.due.fetch_add(1, Ordering::Relaxed);
        let mut queues = self.queues();
        match queues.get_mut(queue) {
            Some(n) => *n += 1,
            None => _ = queues.insert(queue.clone(), 1),
        }
    }

    pub(crate) fn add_later(&self) {
        self.changed();
        self.0.later.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, queue: &Queue) {
        self.changed();
        let less = |n: u64| n.saturating_sub(1);
        let _ = self.0.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(less(n)));
        if let Some(n) = self.queues().get_mut(queue) {
            *n = less(*n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_later_takes_no_room_of_what_is_due() {
        let gauge = OutboxGauge::new(2, 3);
        let queue = Queue::default();
        (0..3).for_each(|_| gauge.add_later());
        assert!(!gauge.is_full() && gauge.later() >= gauge.later_max());
        (0..2).for_each(|_| gauge.add(&queue));
        assert!(gauge.is_full());
        assert_eq!(gauge.of(&queue), 2);
        (0..9).for_each(|_| gauge.sub(&queue));
        assert_eq!((gauge.get(), gauge.of(&queue)), (0, 0));
        gauge.set(Waiting { due: vec![(queue.clone(), 5)], later: 1 });
        assert_eq!((gauge.get(), gauge.of(&queue), gauge.later()), (5, 5, 1));
    }
    #[test]
    fn counts_of_the_store_are_of_no_moment_in_which_a_commit_is_under_way() {
        let gauge = OutboxGauge::new(2, 3);
        let quiet = gauge.moment();
        assert!(gauge.is_still(quiet));
        gauge.begin_commit();
        let during = gauge.moment();
        // Here the store has the job already.
        assert!(!gauge.is_still(quiet) && !gauge.is_still(during));
        gauge.add_later();
        gauge.committed();
        assert!(!gauge.is_still(quiet) && !gauge.is_still(during));
        assert!(gauge.is_still(gauge.moment()));
    }
}
