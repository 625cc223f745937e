//! The last attempts of this replica, for people who look: a ring in memory, bounded, without bodies or URLs.

use jiff::Timestamp;
use serde::Serialize;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Attempts that are remembered.
const KEPT: usize = 2_000;

/// One attempt.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    /// Counts attempts of this process, from 1.
    pub n: u64,
    /// When it ended.
    pub at: Timestamp,
    /// The endpoint's name.
    pub endpoint: String,
    /// `webhook-id`.
    pub webhook_id: String,
    /// Where the event was published.
    pub subject: String,
    /// Which attempt, from 1; 0 for one that was none (set aside, or no JSON).
    pub attempt: u32,
    /// delivered, retried, dead, disabled or set_aside.
    pub outcome: &'static str,
    /// What the endpoint answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Of the request, milliseconds.
    pub took_ms: f64,
    /// Short name of what went wrong.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'static str,
    /// In words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
}

/// The ring.
#[derive(Default)]
pub struct DeliveryLog {
    ring: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    count: u64,
    last: VecDeque<Attempt>,
}

impl DeliveryLog {
    /// Adds one; its number is set here.
    pub fn add(&self, mut attempt: Attempt) {
        let mut ring = self.lock();
        ring.count += 1;
        attempt.n = ring.count;
        if ring.last.len() == KEPT {
            ring.last.pop_front();
        }
        ring.last.push_back(attempt);
    }

    /// Attempts after number `after`, oldest first; of more than `limit` the newest when `after` is `None`.
    pub fn read(&self, after: Option<u64>, endpoint: Option<&str>, limit: usize) -> Vec<Attempt> {
        let ring = self.lock();
        let fits = |a: &&Attempt| endpoint.is_none_or(|e| a.endpoint == e);
        match after {
            Some(after) => ring.last.iter().filter(|a| a.n > after).filter(fits).take(limit).cloned().collect(),
            None => {
                let mut newest: Vec<_> = ring.last.iter().rev().filter(fits).take(limit).cloned().collect();
                newest.reverse();
                newest
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(endpoint: &str) -> Attempt {
        Attempt {
            n: 0,
            at: Timestamp::UNIX_EPOCH,
            endpoint: endpoint.into(),
            webhook_id: "w".into(),
            subject: "s".into(),
            attempt: 1,
            outcome: "delivered",
            status: Some(200),
            took_ms: 1.0,
            reason: "",
            detail: String::new(),
            next_at: None,
        }
    }

    #[test]
    fn the_last_are_kept_and_read_from_a_place() {
        let log = DeliveryLog::default();
        (0..KEPT + 10).for_each(|n| log.add(attempt(if n % 2 == 0 { "a" } else { "b" })));
        let numbers = |after, endpoint, limit| log.read(after, endpoint, limit).iter().map(|a| a.n).collect::<Vec<_>>();
        assert_eq!(numbers(Some(0), None, 1), [11], "the first ones are gone");
        assert_eq!(numbers(None, None, 2), [2009, 2010]);
        assert_eq!(numbers(None, Some("a"), 2), [2007, 2009]);
        assert_eq!(numbers(Some(2008), None, 10), [2009, 2010]);
    }
}
