//! Who owes what: free slots, and messages asked for but not here yet. Pure.
//!
//! The rule it keeps: free + outstanding + handed out = granted. The server serves its open requests in
//! turn and a delivery does not say for which, so what is outstanding is one sum; a request's own end
//! (a status with the number unserved, or its time being over) takes the rest out of the sum.

use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// Open requests of one loop. The server keeps at most `max_waiting` for all workers of a consumer, and
/// slots that trickle back would otherwise make a request each.
const MAX_REQUESTS: usize = 8;
/// Free slots wait this long for others, so that many become one request.
const GATHER: Duration = Duration::from_millis(2);

struct Request {
    id: u64,
    batch: usize,
    /// When the server has certainly forgotten it.
    gone_at: Instant,
}

pub(super) struct Ledger {
    free: usize,
    outstanding: usize,
    requests: VecDeque<Request>,
    max_outstanding: usize,
    /// Since when free slots wait for company.
    gathering_since: Option<Instant>,
}

/// What to do about free slots.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask for this many now.
    Pull(usize),
    /// Look again then.
    At(Instant),
    /// Nothing to ask for until something else happens. `short_of_room`: reading a delivery changes that.
    Nothing { short_of_room: bool },
}

impl Ledger {
    pub(super) fn new(max_outstanding: usize) -> Self {
        Self { free: 0, outstanding: 0, requests: VecDeque::new(), max_outstanding, gathering_since: None }
    }

    pub(super) fn grant(&mut self, n: usize) {
        self.free = self.free.saturating_add(n);
    }

    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Decides with `queued` deliveries arrived and not read.
    pub(super) fn next(&mut self, now: Instant, queued: usize) -> Next {
        let room = self.max_outstanding.saturating_sub(self.outstanding + queued);
        let n = self.free.min(room);
        if n == 0 {
            self.gathering_since = None;
            return Next::Nothing { short_of_room: self.free > 0 };
        }
        if self.requests.len() >= MAX_REQUESTS {
            return match self.requests.front() {
                Some(oldest) => Next::At(oldest.gone_at),
                None => Next::Nothing { short_of_room: false },
            };
        }
        let due = *self.gathering_since.get_or_insert(now) + GATHER;
        let worth_it = n >= self.max_outstanding.div_ceil(4);
        if self.outstanding == 0 || worth_it || due <= now { Next::Pull(n) } else { Next::At(due) }
    }

    /// A request for `batch` messages went out; the server forgets it by `gone_at`.
    pub(super) fn requested(&mut self, id: u64, batch: usize, gone_at: Instant) {
        self.free -= batch;
        self.outstanding += batch;
        self.gathering_since = None;
        self.requests.push_back(Request { id, batch, gone_at });
    }

    /// A message arrived. `false` if it was not requested.
    pub(super) fn delivered(&mut self) -> bool {
        if self.outstanding == 0 {
            return false;
        }
        self.outstanding -= 1;
        self.settle();
        true
    }

    /// A message that came could not be used: its slot is free again.
    pub(super) fn give_back(&mut self) {
        self.free += 1;
    }

    /// A request is over with `unserved` messages not delivered. Unknown ids were accounted for already.
    pub(super) fn ended(&mut self, id: u64, unserved: usize) {
        let Some(at) = self.requests.iter().position(|r| r.id == id) else { return };
        let request = self.requests.remove(at).expect("the position was just found");
        self.release(unserved.min(request.batch));
    }

    /// Forgets requests whose time is over. `true` when more is outstanding than the others can bring:
    /// the word of an end was lost, and only a new subscription ([`lose_all`](Self::lose_all)) makes
    /// sure that nothing of it comes late.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        if self.requests.front().is_none_or(|oldest| oldest.gone_at > now) {
            return false;
        }
        self.requests.retain(|r| r.gone_at > now);
        self.outstanding > self.requests.iter().map(|r| r.batch).sum()
    }

    /// The subscription is gone: nothing of what was asked for can come.
    pub(super) fn lose_all(&mut self) {
        self.requests.clear();
        self.release(self.outstanding);
    }

    fn release(&mut self, n: usize) {
        let n = n.min(self.outstanding);
        self.outstanding -= n;
        self.free += n;
        self.settle();
    }

    fn settle(&mut self) {
        if self.outstanding == 0 {
            self.requests.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    const LATER: Duration = Duration::from_secs(30);

    #[test]
    fn asks_at_once_when_nothing_is_open_and_gathers_otherwise() {
        let now = Instant::now();
        let mut l = Ledger::new(100);
        l.grant(1);
        assert_eq!(l.next(now, 0), Next::Pull(1));
        l.requested(1, 1, now + LATER);
        assert_eq!(l.next(now, 0), Next::Nothing { short_of_room: false });
        l.grant(10);
        assert_eq!(l.next(now, 0), Next::At(now + GATHER));
        assert_eq!(l.next(now + GATHER, 0), Next::Pull(10));
        l.grant(15);
        assert_eq!(l.next(now, 0), Next::Pull(25), "a quarter of the capacity need not wait");
    }

    #[test]
    fn what_is_asked_for_and_queued_stays_below_the_maximum() {
        let now = Instant::now();
        let mut l = Ledger::new(10);
        l.grant(50);
        assert_eq!(l.next(now, 0), Next::Pull(10));
        l.requested(1, 10, now + LATER);
        for _ in 0..10 {
            assert!(l.delivered());
        }
        assert!(!l.delivered(), "an eleventh was not asked for");
        assert_eq!(l.next(now, 10), Next::Nothing { short_of_room: true });
        assert_eq!(l.next(now, 7), Next::Pull(3));
    }

    #[test]
    fn few_requests_are_open_even_if_slots_trickle_back() {
        let now = Instant::now();
        let mut l = Ledger::new(100);
        for id in 0..MAX_REQUESTS as u64 {
            l.grant(1);
            l.requested(id, 1, now + LATER);
        }
        l.grant(1);
        assert_eq!(l.next(now + GATHER * 9, 0), Next::At(now + LATER));
        (0..MAX_REQUESTS).for_each(|_| assert!(l.delivered()));
        assert_eq!(l.next(now, 0), Next::Pull(1), "served requests are not counted any more");
    }

    #[test]
    fn a_requests_end_frees_what_was_not_served() {
        let now = Instant::now();
        let mut l = Ledger::new(100);
        l.grant(30);
        l.requested(1, 10, now + LATER);
        l.requested(2, 20, now + LATER);
        (0..12).for_each(|_| assert!(l.delivered()));
        l.ended(1, 4);
        assert_eq!((l.free, l.outstanding), (4, 14));
        l.ended(1, 4);
        assert_eq!((l.free, l.outstanding), (4, 14), "told twice, counted once");
        l.ended(2, usize::MAX);
        assert_eq!((l.free, l.outstanding), (18, 0));
    }

    #[test]
    fn a_forgotten_request_is_noticed_when_its_time_is_over() {
        let now = Instant::now();
        let mut l = Ledger::new(100);
        l.grant(30);
        l.requested(1, 10, now + LATER);
        l.requested(2, 20, now + LATER * 2);
        assert!(!l.expire(now + LATER / 2));
        assert!(l.expire(now + LATER));
        l.ended(1, 10);
        assert_eq!((l.free, l.outstanding), (0, 30), "a late word about it changes nothing");
        l.lose_all();
        assert_eq!((l.free, l.outstanding), (30, 0));
    }

    #[test]
    fn a_served_request_that_is_over_is_no_loss() {
        let now = Instant::now();
        let mut l = Ledger::new(100);
        l.grant(30);
        l.requested(1, 10, now + LATER);
        l.requested(2, 20, now + LATER * 2);
        (0..10).for_each(|_| assert!(l.delivered()));
        assert!(!l.expire(now + LATER));
    }

    /// A server that serves, ends and forgets requests in any order: it must never owe more than the
    /// ledger says, and no slot may be made or lost.
    #[test]
    fn never_more_than_granted_whatever_happens() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut now = Instant::now();
            let (mut l, mut granted, mut handed_out, mut id) = (Ledger::new(rng.random_range(1..40)), 0, 0, 0);
            let mut server: Vec<(u64, usize, Instant)> = Vec::new();
            for _ in 0..400 {
                match rng.random_range(0..8) {
                    0 => {
                        let n = rng.random_range(0..10);
                        l.grant(n);
                        granted += n;
                    }
                    1 | 2 => {
                        if let Next::Pull(n) = l.next(now, 0) {
                            id += 1;
                            l.requested(id, n, now + LATER);
                            server.push((id, n, now + LATER));
                        }
                    }
                    3 | 4 if !server.is_empty() => {
                        let at = rng.random_range(0..server.len());
                        assert!(l.delivered(), "seed {seed}: the server served what nobody asked for");
                        handed_out += 1;
                        server[at].1 -= 1;
                        server.retain(|r| r.1 > 0);
                    }
                    5 if !server.is_empty() => {
                        let (id, unserved, _) = server.remove(rng.random_range(0..server.len()));
                        if rng.random_bool(0.7) {
                            l.ended(id, unserved);
                        }
                    }
                    6 if handed_out > 0 => {
                        handed_out -= 1;
                        l.grant(1);
                    }
                    _ => {
                        now += Duration::from_secs(rng.random_range(0..10));
                        server.retain(|r| r.2 > now);
                        if l.expire(now) {
                            l.lose_all();
                            server.clear();
                        }
                    }
                }
                let owed: usize = server.iter().map(|r| r.1).sum();
                assert!(
                    owed <= l.outstanding,
                    "seed {seed}: the server owes {owed}, the ledger says {}",
                    l.outstanding
                );
                assert_eq!(l.free + l.outstanding + handed_out, granted, "seed {seed}");
            }
            assert_eq!(l.outstanding > 0, l.expire(now + LATER * 2), "seed {seed}: slots were lost");
        }
    }
}
