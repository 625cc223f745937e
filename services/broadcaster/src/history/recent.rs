//! The last attempts of this replica: a bounded ring in memory, without bodies or URLs. Each attempt is handed on to the
//! history, which keeps it.

use crate::{
    history::attempt::{Attempt, Filter},
    metrics::HISTORY_DROPPED,
};
use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::mpsc;

/// Attempts in memory.
const ATTEMPTS_MAX: usize = 2_000;

/// The ring, and the channel to the history.
pub struct RecentAttempts {
    ring: Mutex<Ring>,
    replica: String,
    history: mpsc::Sender<Attempt>,
    written: AtomicU64,
}

#[derive(Default)]
struct Ring {
    count: u64,
    last: VecDeque<Attempt>,
}

impl RecentAttempts {
    /// An empty ring. The task that writes the history has the other end of the channel.
    pub fn new(history: mpsc::Sender<Attempt>) -> Self {
        let replica = uuid::Uuid::now_v7().simple().to_string().split_off(20);
        Self { ring: Mutex::default(), replica, history, written: AtomicU64::new(0) }
    }

    /// Adds one; its number is set here. Never waits.
    pub fn add(&self, mut attempt: Attempt) {
        let mut ring = self.lock();
        ring.count += 1;
        (attempt.n, attempt.replica) = (ring.count, self.replica.clone());
        // Sent in order under the lock: then one number says what the history has.
        if self.history.try_send(attempt.clone()).is_err() {
            HISTORY_DROPPED.inc(&[]);
        }
        if ring.last.len() == ATTEMPTS_MAX {
            ring.last.pop_front();
        }
        ring.last.push_back(attempt);
    }

    /// The history has everything up to this number.
    pub fn is_written(&self, n: u64) {
        self.written.fetch_max(n, Ordering::SeqCst);
    }

    /// The number of the last one.
    pub fn last_n(&self) -> u64 {
        self.lock().count
    }

    /// Attempts after a number, the oldest first.
    pub fn after(&self, after: u64, filter: &Filter, limit: usize) -> Vec<Attempt> {
        self.lock().last.iter().filter(|a| a.n > after && filter.takes(a)).take(limit).cloned().collect()
    }

    /// The newest, that one first.
    pub fn newest(&self, filter: &Filter, limit: usize) -> Vec<Attempt> {
        self.lock().last.iter().rev().filter(|a| filter.takes(a)).take(limit).cloned().collect()
    }

    /// Those that the history has not yet, the newest first.
    pub fn unwritten(&self, filter: &Filter, limit: usize) -> Vec<Attempt> {
        let written = self.written.load(Ordering::SeqCst);
        let ring = self.lock();
        let new = ring.last.iter().rev().take_while(|a| a.n > written);
        new.filter(|a| filter.takes(a)).take(limit).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn attempt(endpoint: &str) -> Attempt {
        Attempt {
            n: 0,
            replica: String::new(),
            at: Timestamp::UNIX_EPOCH,
            endpoint: endpoint.into(),
            webhook_id: "w".into(),
            subject: "s".into(),
            attempt: 1,
            outcome: "delivered".into(),
            status: Some(200),
            took_ms: 1.0,
            reason: "".into(),
            detail: String::new(),
            next_at: None,
        }
    }

    #[test]
    fn the_last_are_kept_read_from_a_place_and_handed_on() {
        let (history, mut handed) = mpsc::channel(ATTEMPTS_MAX);
        let log = RecentAttempts::new(history);
        (0..ATTEMPTS_MAX + 10).for_each(|n| log.add(attempt(if n % 2 == 0 { "a" } else { "b" })));
        let numbers = |found: Vec<Attempt>| found.iter().map(|a| a.n).collect::<Vec<_>>();
        let (all, a) = (Filter::default(), Filter { endpoint: Some("a".into()), ..Filter::default() });
        assert_eq!(numbers(log.after(0, &all, 1)), [11], "the first ones are gone");
        assert_eq!(numbers(log.newest(&all, 2)), [2010, 2009]);
        assert_eq!(numbers(log.newest(&a, 2)), [2009, 2007]);
        assert_eq!(numbers(log.after(2008, &all, 10)), [2009, 2010]);
        log.is_written(2008);
        log.is_written(5);
        assert_eq!(numbers(log.unwritten(&all, 10)), [2010, 2009]);
        assert_eq!(
            (log.last_n(), handed.try_recv().unwrap().n),
            (2010, 1),
            "a full way to the history holds nothing up"
        );
    }
}
