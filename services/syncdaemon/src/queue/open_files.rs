//! Files that are still being written: those that events reported as created and not as closed, and those
//! that were found open.
//!
//! Pure, with the time given from outside. The first replaces the kernel where the kernel cannot be asked who
//! has a file open; the second is what is shown to people. Bounded; with more, nothing is claimed.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

/// Names that are kept of either kind.
const NAMES_MAX: usize = 65_536;
/// Open files whose names are shown.
const SHOWN_MAX: usize = 20;
/// An open file is checked again after this.
pub const RECHECK_INTERVAL: Duration = Duration::from_secs(2);
/// One that was not found open for this long is not any more.
const OPEN_EXPIRY: Duration = Duration::from_secs(10);

/// What is known of writers.
#[derive(Debug, Default)]
pub struct OpenFiles {
    made: HashMap<u64, ()>,
    open: HashMap<u64, Open>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Open {
    name: Box<[u8]>,
    last: Instant,
}

impl OpenFiles {
    /// An event reported that a file was made, which is when its writer has it open.
    pub fn made(&mut self, name: &[u8]) {
        if self.made.len() < NAMES_MAX {
            self.made.insert(self.hasher.hash_one(name), ());
        }
    }

    /// An event reported that a writer closed it, or that another file took its name.
    pub fn closed(&mut self, name: &[u8]) {
        let key = self.hasher.hash_one(name);
        self.made.remove(&key);
        self.open.remove(&key);
    }

    /// Whether a file was made and not closed, as far as events reported.
    pub fn is_made(&self, name: &[u8]) -> bool {
        !self.made.is_empty() && self.made.contains_key(&self.hasher.hash_one(name))
    }

    /// Events were lost: one may have reported that a file was closed.
    pub fn events_lost(&mut self) {
        self.made.clear();
    }

    /// A file was found open.
    pub fn found_open(&mut self, name: &[u8], now: Instant) {
        let key = self.hasher.hash_one(name);
        if self.open.len() < NAMES_MAX || self.open.contains_key(&key) {
            self.open.insert(key, Open { name: name.into(), last: now });
        }
    }

    /// How many files are open, and the names of some.
    pub fn open(&mut self, now: Instant) -> (u64, Vec<Box<[u8]>>) {
        self.open.retain(|_, open| now.saturating_duration_since(open.last) < OPEN_EXPIRY);
        (self.open.len() as u64, self.open.values().take(SHOWN_MAX).map(|open| open.name.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_written_until_it_is_closed() {
        let mut writing = OpenFiles::default();
        writing.made(b"a");
        writing.made(b"b");
        assert!(writing.is_made(b"a") && !writing.is_made(b"c"));
        writing.closed(b"a");
        assert!(!writing.is_made(b"a") && writing.is_made(b"b"));
        writing.events_lost();
        assert!(!writing.is_made(b"b"), "nobody knows");
    }

    #[test]
    fn an_open_file_is_told_of_until_it_is_not_found_open_any_more() {
        let (mut writing, start) = (OpenFiles::default(), Instant::now());
        writing.found_open(b"a", start);
        writing.found_open(b"b", start + OPEN_EXPIRY / 2);
        assert_eq!(writing.open(start + OPEN_EXPIRY / 2).0, 2);
        assert_eq!(writing.open(start + OPEN_EXPIRY), (1, vec![b"b"[..].into()]));
        writing.closed(b"b");
        assert_eq!(writing.open(start + OPEN_EXPIRY).0, 0);
    }
}
