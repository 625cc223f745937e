//! Objects that were needed on the server and not found, as reported by their users.
//!
//! Streams, consumers and buckets disappear under a connected client: an operator removes one, a tool recreates it.
//! Code that finds one missing notes it here, which wakes the owner of the topology to check.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Names kept at once. There are about ten streams and buckets; consumers are one a queue.
const NAMES_MAX: usize = 64;

/// The names of what is missing, each with the moment of the last complaint.
#[derive(Debug)]
pub struct Missing {
    names: Mutex<BTreeMap<String, Instant>>,
    told: watch::Sender<u64>,
}

impl Default for Missing {
    fn default() -> Self {
        Self { names: Mutex::default(), told: watch::Sender::new(0) }
    }
}

impl Missing {
    /// Says that `name` was wanted and is not there.
    pub fn note(&self, name: &str) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < NAMES_MAX || names.contains_key(name) {
            names.insert(name.to_owned(), Instant::now());
        }
        drop(names);
        self.told.send_modify(|n| *n += 1);
    }

    /// Says that `name` was found.
    pub fn found(&self, name: &str) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if !names.is_empty() {
            names.remove(name);
        }
    }

    /// The names reported missing within `age` and not found since.
    pub fn names(&self, age: Duration) -> Vec<String> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.retain(|_, at| at.elapsed() < age);
        names.keys().cloned().collect()
    }

    /// Changes with each complaint.
    pub fn reports(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_bounded_and_end_when_the_thing_is_found() {
        let missing = Missing::default();
        let reports = missing.reports();
        for n in 0..NAMES_MAX + 10 {
            missing.note(&format!("stream{n}"));
        }
        assert!(reports.has_changed().unwrap());
        assert_eq!(missing.names(Duration::from_secs(60)).len(), NAMES_MAX);
        missing.found("stream0");
        assert_eq!(missing.names(Duration::from_secs(60)).len(), NAMES_MAX - 1);
        assert!(missing.names(Duration::ZERO).is_empty());
    }
}
