//! Files that are done with and cannot be removed: remembered as they were, so that none is read, sent or
//! written down again, and checked less and less often.
//!
//! Pure, with the time given from outside. Bounded: with more, a file whose directory does not let us remove
//! it is left unsent (see `scan`).

use crate::directory::stamp::Stamp;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Files that are remembered.
pub const FILES_MAX: usize = 65_536;
/// Names that are kept to be shown.
const NAMES_MAX: usize = 20;
/// First pause between two tries to remove a file …
const PAUSE: Duration = Duration::from_secs(1);
/// … doubled up to this.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// What is done about a file but for its removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It was sent, and this is the hash of its content.
    Sent([u8; 32]),
    /// It can never be sent, which is written down.
    Rejected,
}

/// What is known of a file when it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it is new, or was changed since.
    No,
    /// It is not yet time to try again.
    Wait,
    /// Its removal is to be tried again, if it is still as it was then.
    Try(Disposition, Stamp),
}

#[derive(Debug)]
struct Entry {
    stamp: Stamp,
    done: Disposition,
    tries: u32,
    next: Instant,
    /// When a scan or a try met it last.
    met: Instant,
}

/// What is shown of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many files are stuck.
    pub files: u64,
    /// The first names.
    pub names: Vec<Box<[u8]>>,
    /// Why the last one could not be removed.
    pub reason: String,
}

/// A file's device and inode.
type Key = (u64, u64);

/// The files that were delivered and cannot be removed, by device and inode.
#[derive(Debug, Default)]
pub struct Stuck {
    by_file: HashMap<Key, Entry>,
    /// The first of them, by file.
    names: Vec<(Key, Box<[u8]>)>,
    reason: String,
}

impl Stuck {
    /// Remembers a file that could not be removed. Says whether it is the first one.
    pub fn add(&mut self, name: &[u8], stamp: Stamp, done: Disposition, reason: String, now: Instant) -> bool {
        self.reason = reason;
        let (key, is_first) = (key(&stamp), self.by_file.is_empty());
        let tries = match self.by_file.get(&key) {
            Some(before) if before.stamp == stamp => before.tries.saturating_add(1),
            None if self.is_full() => return false,
            _ => 1,
        };
        let pause = PAUSE.saturating_mul(1 << (tries - 1).min(16)).min(PAUSE_MAX);
        self.by_file.insert(key, Entry { stamp, done, tries, next: now + pause, met: now });
        if self.names.len() < NAMES_MAX && self.names.iter().all(|(known, _)| *known != key) {
            self.names.push((key, name.into()));
        }
        is_first
    }

    /// What is known of a file. One that has changed is forgotten; of one that was sent, new rights or attributes
    /// are a reason to try again, and the content shows whether it has changed.
    pub fn check(&mut self, stamp: &Stamp, now: Instant) -> Known {
        let Some(entry) = self.by_file.get_mut(&key(stamp)) else { return Known::No };
        let is_same = entry.stamp == *stamp;
        let is_still = entry.done != Disposition::Rejected && stamp.is_still(&entry.stamp);
        if !is_same && !is_still {
            self.forget(stamp);
            return Known::No;
        }
        entry.met = now;
        if is_same && entry.next > now {
            return Known::Wait;
        }
        // The caller tries now; should that come to nothing, the next scan after the pause does.
        entry.next = now + PAUSE_MAX;
        Known::Try(entry.done, entry.stamp)
    }

    /// A file is gone. Says whether it was the last one.
    pub fn forget(&mut self, stamp: &Stamp) -> bool {
        let key = key(stamp);
        self.names.retain(|(named, _)| *named != key);
        self.by_file.remove(&key).is_some() && self.by_file.is_empty()
    }

    /// A scan that began then has read everything: what it did not meet is gone. Says whether that was the rest.
    pub fn forget_unmet(&mut self, since: Instant) -> bool {
        let before = self.by_file.len();
        self.by_file.retain(|_, entry| entry.met >= since);
        let by_file = &self.by_file;
        self.names.retain(|(key, _)| by_file.contains_key(key));
        before > 0 && self.by_file.is_empty()
    }

    /// Whether no more can be remembered.
    pub fn is_full(&self) -> bool {
        self.by_file.len() >= FILES_MAX
    }

    /// Whether there is none, which is usual.
    pub fn is_empty(&self) -> bool {
        self.by_file.is_empty()
    }

    /// What to show.
    pub fn summary(&self) -> Summary {
        let names = self.names.iter().map(|(_, name)| name.clone()).collect();
        let reason = if self.is_empty() { String::new() } else { self.reason.clone() };
        Summary { files: self.by_file.len() as u64, names, reason }
    }
}

const fn key(stamp: &Stamp) -> (u64, u64) {
    (stamp.dev, stamp.ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn stamp(ino: u64, ctime_ns: i64) -> Stamp {
        Stamp { dev: 1, ino, size: 7, mtime_ns: 7, ctime_ns }
    }

    fn add(stuck: &mut Stuck, ino: u64, now: Instant) -> bool {
        stuck.add(format!("f{ino}").as_bytes(), stamp(ino, 1), Disposition::Sent([0; 32]), "no".to_owned(), now)
    }

    #[test]
    fn a_file_is_known_until_it_changes_and_tried_later_and_later() {
        let (mut stuck, start) = (Stuck::default(), Instant::now());
        assert!(add(&mut stuck, 1, start) && !add(&mut stuck, 2, start));
        let (mut now, mut pauses) = (start, Vec::new());
        for _ in 0..14 {
            let began = now;
            while stuck.check(&stamp(1, 1), now) == Known::Wait {
                now += Duration::from_millis(500);
            }
            pauses.push((now - began).as_secs());
            add(&mut stuck, 1, now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600, 600]);
        let sent = Disposition::Sent([0; 32]);
        assert_eq!(stuck.check(&stamp(1, 2), now), Known::Try(sent, stamp(1, 1)), "new rights, perhaps");
        stuck.add(b"f3", stamp(3, 1), Disposition::Rejected, "no".to_owned(), now);
        assert_eq!(stuck.check(&stamp(3, 2), now), Known::No, "perhaps it can be read now");
        assert_eq!(stuck.check(&Stamp { size: 8, ..stamp(1, 2) }, now), Known::No, "it was changed");
        assert_eq!(stuck.check(&stamp(1, 1), now), Known::No, "and is another one since");
        assert!(stuck.forget(&stamp(2, 1)) && stuck.is_empty());
    }

    #[test]
    fn what_a_scan_does_not_meet_is_gone_and_bounds_hold() {
        let (mut stuck, start) = (Stuck::default(), Instant::now());
        for ino in 0..FILES_MAX as u64 + 10 {
            add(&mut stuck, ino, start);
        }
        assert!(stuck.is_full());
        let summary = stuck.summary();
        assert_eq!((summary.files, summary.names.len(), &*summary.reason), (FILES_MAX as u64, NAMES_MAX, "no"));
        let scan = start + Duration::from_millis(1);
        stuck.check(&stamp(3, 1), scan);
        assert!(!stuck.forget_unmet(scan));
        assert_eq!((stuck.summary().files, stuck.summary().names), (1, vec![b"f3"[..].into()]));
        assert!(stuck.forget_unmet(scan + Duration::from_millis(1)));
        assert_eq!(stuck.summary(), Summary::default());
    }
}
