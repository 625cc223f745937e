//! How the worker's slots are shared between its queues. Pure: events in, grants out.
//!
//! A granted slot cannot be taken back, so an idle queue must not sit on many. One queue gets all
//! slots. Of several, each keeps one slot, also while the jobs of others run for days, or
//! hold results that NATS refuses. A queue gets more only for messages that are known to wait, and
//! never more than its share of slots that nothing came for.

/// The slots of one worker.
#[derive(Debug)]
pub struct Pool {
    free: usize,
    share: usize,
    queues: Vec<QueueSlots>,
    first: usize,
}

#[derive(Debug, Default)]
struct QueueSlots {
    /// Granted, and nothing came yet.
    unread: usize,
    /// Taken by a message that is not settled.
    taken: usize,
    /// Messages that waited in the queue when the last one came.
    waiting: usize,
}

impl QueueSlots {
    fn has_none(&self) -> bool {
        self.unread + self.taken == 0
    }
}

impl Pool {
    /// `slots` for `queues` queues; at least one each, as the configuration checks.
    pub fn new(slots: usize, queues: usize) -> Self {
        Self {
            free: slots,
            share: (slots / queues.max(1)).max(1),
            queues: (0..queues).map(|_| QueueSlots::default()).collect(),
            first: 0,
        }
    }

    /// The first grants.
    pub fn begin(&mut self, grant: impl FnMut(usize, usize)) {
        self.deal(grant);
    }

    /// A message came on a queue, with so many waiting behind it.
    pub fn arrived(&mut self, queue: usize, waiting: u64, grant: impl FnMut(usize, usize)) {
        let queue = &mut self.queues[queue];
        queue.unread = queue.unread.saturating_sub(1);
        queue.taken += 1;
        queue.waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
        self.deal(grant);
    }

    /// A message of a queue was settled: its slot is free.
    pub fn settled(&mut self, queue: usize, grant: impl FnMut(usize, usize)) {
        let queue = &mut self.queues[queue];
        queue.taken = queue.taken.saturating_sub(1);
        self.free += 1;
        self.deal(grant);
    }

    /// Deals free slots in turn, so that no queue is always first.
    fn deal(&mut self, mut grant: impl FnMut(usize, usize)) {
        let count = self.queues.len();
        if count == 1 {
            let all = std::mem::take(&mut self.free);
            self.queues[0].unread += all;
            if all > 0 {
                grant(0, all);
            }
            return;
        }
        let mut passed = 0;
        while self.free > 0 && passed < count {
            let index = self.first % count;
            self.first = (self.first + 1) % count;
            let without = self.queues.iter().filter(|queue| queue.has_none()).count();
            let queue = &mut self.queues[index];
            let may_have_more = self.free > without && queue.unread < queue.waiting.saturating_add(1).min(self.share);
            if queue.has_none() || may_have_more {
                queue.unread += 1;
                self.free -= 1;
                passed = 0;
                grant(index, 1);
            } else {
                passed += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each queue was granted by one call.
    fn granted(queues: usize, call: impl FnOnce(&mut dyn FnMut(usize, usize))) -> Vec<usize> {
        let mut sums = vec![0; queues];
        call(&mut |queue, n| sums[queue] += n);
        sums
    }

    #[test]
    fn one_queue_gets_everything() {
        let mut pool = Pool::new(64, 1);
        assert_eq!(granted(1, |g| pool.begin(g)), [64]);
        assert_eq!(granted(1, |g| pool.arrived(0, 0, g)), [0]);
        assert_eq!(granted(1, |g| pool.settled(0, g)), [1]);
    }

    #[test]
    fn idle_queues_keep_one_slot_each() {
        let mut pool = Pool::new(64, 3);
        assert_eq!(granted(3, |g| pool.begin(g)), [1, 1, 1]);
    }

    #[test]
    fn a_busy_queue_grows_to_all_that_others_leave() {
        let mut pool = Pool::new(9, 3);
        pool.begin(|_, _| {});
        let mut running = 0;
        // Queue 0 has a long backlog and nothing finishes.
        let mut open = 1;
        while open > 0 {
            open -= 1;
            running += 1;
            open += granted(3, |g| pool.arrived(0, 1000, g))[0];
        }
        assert_eq!(running, 7, "9 slots less one for each idle queue");
    }

    #[test]
    fn a_queue_whose_jobs_never_end_leaves_each_other_queue_its_slot() {
        let mut pool = Pool::new(4, 2);
        let mut open = granted(2, |g| pool.begin(g));
        let add = |open: &mut Vec<usize>, sums: Vec<usize>| (0..2).for_each(|i| open[i] += sums[i]);
        // Queue 0 has a backlog and settles nothing; queue 1 runs one job after the other.
        for _ in 0..100 {
            for queue in [0, 1] {
                if open[queue] > 0 {
                    open[queue] -= 1;
                    let waiting = if queue == 0 { 1000 } else { 0 };
                    add(&mut open, granted(2, |g| pool.arrived(queue, waiting, g)));
                    if queue == 1 {
                        add(&mut open, granted(2, |g| pool.settled(1, g)));
                    }
                }
            }
            assert_eq!(open[1], 1, "it always has its slot again");
        }
        assert_eq!(pool.queues[0].taken, 3, "the other has all the rest");
    }

    #[test]
    fn two_busy_queues_share_evenly() {
        let mut pool = Pool::new(8, 2);
        let (mut open, mut running) = ([0; 2], [0usize; 2]);
        let note = |sums: Vec<usize>, open: &mut [usize; 2]| (0..2).for_each(|i| open[i] += sums[i]);
        note(granted(2, |g| pool.begin(g)), &mut open);
        for _ in 0..1000 {
            for queue in 0..2 {
                if open[queue] > 0 {
                    open[queue] -= 1;
                    running[queue] += 1;
                    note(granted(2, |g| pool.arrived(queue, 1000, g)), &mut open);
                }
            }
            // The queue that has more running finishes first.
            let queue = usize::from(running[1] > running[0]);
            running[queue] -= 1;
            note(granted(2, |g| pool.settled(queue, g)), &mut open);
            assert!(open[0] + open[1] + running[0] + running[1] <= 8);
        }
        assert!(running.iter().all(|n| *n >= 2), "{running:?}");
    }

    #[test]
    fn a_queue_that_lost_its_backlog_to_others_holds_no_more_than_its_share() {
        let mut pool = Pool::new(8, 2);
        pool.begin(|_, _| {});
        let sums = granted(2, |g| pool.arrived(0, 1000, g));
        assert_eq!(sums, [4, 0], "its share of what nothing came for");
    }
}
