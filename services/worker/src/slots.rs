//! How the worker's slots are shared between its queues. Pure: events in, grants out.
//!
//! A granted slot cannot be taken back, so an idle queue must not sit on many. One queue gets all
//! slots. Of several, each keeps one slot out, more only for messages that are known to wait, and
//! never more than its share of slots that nothing came for: a busy queue therefore always has its
//! share, and what others leave.

/// The slots of one worker.
#[derive(Debug)]
pub struct Pool {
    free: usize,
    share: usize,
    lanes: Vec<Lane>,
    first: usize,
}

#[derive(Debug, Default)]
struct Lane {
    /// Granted, and nothing came yet.
    unread: usize,
    /// Messages that waited in the queue when the last one came.
    waiting: usize,
}

impl Pool {
    /// `slots` for `lanes` queues; at least one each, as the configuration checks.
    pub fn new(slots: usize, lanes: usize) -> Self {
        Self {
            free: slots,
            share: (slots / lanes.max(1)).max(1),
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            first: 0,
        }
    }

    /// The first grants.
    pub fn begin(&mut self, grant: impl FnMut(usize, usize)) {
        self.deal(grant);
    }

    /// A message came on a queue, with so many waiting behind it.
    pub fn arrived(&mut self, lane: usize, waiting: u64, grant: impl FnMut(usize, usize)) {
        let lane = &mut self.lanes[lane];
        lane.unread = lane.unread.saturating_sub(1);
        lane.waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
        self.deal(grant);
    }

    /// A message was settled: its slot is free.
    pub fn settled(&mut self, grant: impl FnMut(usize, usize)) {
        self.free += 1;
        self.deal(grant);
    }

    /// Deals free slots in turn, so that no queue is always first.
    fn deal(&mut self, mut grant: impl FnMut(usize, usize)) {
        let count = self.lanes.len();
        if count == 1 {
            let all = std::mem::take(&mut self.free);
            self.lanes[0].unread += all;
            if all > 0 {
                grant(0, all);
            }
            return;
        }
        let mut passed = 0;
        while self.free > 0 && passed < count {
            let index = self.first % count;
            self.first = (self.first + 1) % count;
            let lane = &mut self.lanes[index];
            if lane.unread < lane.waiting.saturating_add(1).min(self.share) {
                lane.unread += 1;
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

    /// What each lane was granted by one call.
    fn granted(lanes: usize, call: impl FnOnce(&mut dyn FnMut(usize, usize))) -> Vec<usize> {
        let mut sums = vec![0; lanes];
        call(&mut |lane, n| sums[lane] += n);
        sums
    }

    #[test]
    fn one_queue_gets_everything() {
        let mut pool = Pool::new(64, 1);
        assert_eq!(granted(1, |g| pool.begin(g)), [64]);
        assert_eq!(granted(1, |g| pool.arrived(0, 0, g)), [0]);
        assert_eq!(granted(1, |g| pool.settled(g)), [1]);
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
        // Lane 0 has a long backlog and nothing finishes.
        let mut open = 1;
        while open > 0 {
            open -= 1;
            running += 1;
            open += granted(3, |g| pool.arrived(0, 1000, g))[0];
        }
        assert_eq!(running, 7, "9 slots less one for each idle queue");
    }

    #[test]
    fn two_busy_queues_share_evenly() {
        let mut pool = Pool::new(8, 2);
        let (mut open, mut running) = ([0; 2], [0usize; 2]);
        let note = |sums: Vec<usize>, open: &mut [usize; 2]| (0..2).for_each(|i| open[i] += sums[i]);
        note(granted(2, |g| pool.begin(g)), &mut open);
        for _ in 0..1000 {
            for lane in 0..2 {
                if open[lane] > 0 {
                    open[lane] -= 1;
                    running[lane] += 1;
                    note(granted(2, |g| pool.arrived(lane, 1000, g)), &mut open);
                }
            }
            // The queue that has more running finishes first.
            let lane = usize::from(running[1] > running[0]);
            running[lane] -= 1;
            note(granted(2, |g| pool.settled(g)), &mut open);
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
