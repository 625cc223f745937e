//! The window: the files that are known and may be sent next, oldest first, those of `priority/` before.
//!
//! Pure. It never holds more than its bounds, in files and in bytes of names, so that a million queued
//! files need no list of a million; what does not fit is found again by a scan. A file is in it, or on
//! its way out, at most once.

use crate::{directory::stamp::Arrival, names};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

/// Files in the window.
pub const FILES_MAX: usize = 65_536;
/// Bytes of their names together: long paths make the window shorter, not the memory larger.
pub const NAME_BYTES_MAX: usize = 8 << 20;
/// Hints may go over the bounds by this many files: a single new file does not wait for a scan.
const HINTS_OVER: usize = 4096;

/// A file that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its path below the replay directory.
    pub name: Box<[u8]>,
    /// Last modification, nanoseconds since 1970: the order.
    pub mtime_ns: i64,
    /// How it was found, for the rule of rest.
    pub found: Arrival,
    /// Tries that failed.
    pub attempts: u32,
    /// When it was seen first.
    pub seen: Instant,
}

impl Candidate {
    /// A file that is seen now.
    pub fn new(name: Box<[u8]>, mtime_ns: i64, found: Arrival) -> Self {
        Self { name, mtime_ns, found, attempts: 0, seen: Instant::now() }
    }
}

/// A candidate in its order.
#[derive(Debug, PartialEq, Eq)]
struct Ranked {
    is_priority: bool,
    candidate: Candidate,
}

impl From<Candidate> for Ranked {
    fn from(candidate: Candidate) -> Self {
        Self { is_priority: names::is_priority(&candidate.name), candidate }
    }
}

impl Ranked {
    /// What was written at the same moment goes by name: a clock ticks seldom compared with a burst of files.
    fn rank(&self) -> (bool, Reverse<i64>, Reverse<&[u8]>) {
        (self.is_priority, Reverse(self.candidate.mtime_ns), Reverse(&self.candidate.name))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It is in the window now.
    Added,
    /// It was known already.
    Known,
    /// There is no room.
    Full,
}

/// The files whose names are in memory now; the rest of a longer queue is found by later scans.
#[derive(Debug)]
pub struct Window {
    waiting: BinaryHeap<Ranked>,
    name_bytes: usize,
    /// Everything offered and not let go yet, in the window or on its way out, by a keyed hash of its name.
    ///  Two names with one hash would make one wait for the other, no more.
    known: HashMap<u64, Known>,
    hasher: RandomState,
    files_max: usize,
}

#[derive(Debug)]
struct Known {
    seen: Instant,
    /// An event reported the name meanwhile: another file may have taken it.
    hinted_again: Option<Arrival>,
}

impl Default for Window {
    fn default() -> Self {
        Self::with_room_for(FILES_MAX)
    }
}

impl Window {
    /// A window of another size.
    pub fn with_room_for(files_max: usize) -> Self {
        let (waiting, known) = (BinaryHeap::new(), HashMap::new());
        Self { waiting, name_bytes: 0, known, hasher: RandomState::new(), files_max }
    }

    /// Offers a file found by a scan.
    pub fn offer(&mut self, candidate: Candidate) -> Offer {
        let key = self.hasher.hash_one(&candidate.name);
        if self.known.contains_key(&key) { Offer::Known } else { self.add(key, candidate, 0) }
    }

    /// Offers a file that an event reported. One that is known is checked again when it is let go.
    pub fn hint(&mut self, candidate: Candidate) -> Offer {
        let key = self.hasher.hash_one(&candidate.name);
        if let Some(known) = self.known.get_mut(&key) {
            known.hinted_again = Some(candidate.found);
            return Offer::Known;
        }
        self.add(key, candidate, HINTS_OVER)
    }

    fn add(&mut self, key: u64, candidate: Candidate, over: usize) -> Offer {
        if self.waiting.len() >= self.files_max + over || self.name_bytes + candidate.name.len() > NAME_BYTES_MAX {
            return Offer::Full;
        }
        self.known.insert(key, Known { seen: candidate.seen, hinted_again: None });
        self.name_bytes += candidate.name.len();
        self.waiting.push(candidate.into());
        Offer::Added
    }

    /// The file to send next. It stays known until [`Self::release`].
    pub fn take(&mut self) -> Option<Candidate> {
        let Ranked { candidate, .. } = self.waiting.pop()?;
        self.name_bytes -= candidate.name.len();
        Some(candidate)
    }

    /// Puts one back that was taken and could not be sent now; bounded by what was taken.
    pub fn put_back(&mut self, candidate: Candidate) {
        self.name_bytes += candidate.name.len();
        self.waiting.push(candidate.into());
    }

    /// The file is done with: removed, gone, or left to a later scan. Gives how its name was found again
    /// in between, if it was: then it has to be checked.
    pub fn release(&mut self, name: &[u8]) -> Option<Arrival> {
        let key = self.hasher.hash_one(name);
        self.known.remove(&key)?.hinted_again
    }

    /// Files that may be sent next.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Files that wait or are on their way out.
    pub fn known(&self) -> usize {
        self.known.len()
    }

    /// When the known file was seen first that is known for longest.
    pub fn oldest(&self) -> Option<Instant> {
        self.known.values().map(|known| known.seen).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, mtime_ns: i64) -> Candidate {
        Candidate::new(name.as_bytes().into(), mtime_ns, Arrival::Seen)
    }

    fn drained(window: &mut Window) -> Vec<String> {
        std::iter::from_fn(|| window.take()).map(|c| String::from_utf8(c.name.into()).unwrap()).collect()
    }

    #[test]
    fn the_oldest_comes_first_and_priority_before_all() {
        let mut window = Window::default();
        let same = [("3", 40), ("1", 40), ("2", 40)];
        let others = [("b", 20), ("a", 10), ("priority/y", 99), ("c", 30), ("priority/x", 98), ("old", -5)];
        for (name, mtime) in same.into_iter().chain(others) {
            assert_eq!(window.offer(file(name, mtime)), Offer::Added);
        }
        assert_eq!(drained(&mut window), ["priority/x", "priority/y", "old", "a", "b", "c", "1", "2", "3"]);
    }

    #[test]
    fn a_file_is_known_until_it_is_let_go() {
        let mut window = Window::default();
        assert_eq!(window.offer(file("a", 1)), Offer::Added);
        assert_eq!(window.hint(file("a", 1)), Offer::Known);
        let taken = window.take().unwrap();
        let seen = taken.seen;
        assert_eq!(window.offer(file("a", 2)), Offer::Known, "it is on its way out");
        window.put_back(taken);
        assert_eq!((window.waiting(), window.known(), window.oldest()), (1, 1, Some(seen)));
        window.take().unwrap();
        assert_eq!(window.release(b"a"), Some(Arrival::Seen), "an event told of the name meanwhile");
        assert_eq!((window.known(), window.oldest()), (0, None));
        assert_eq!(window.offer(file("a", 2)), Offer::Added);
    }

    #[test]
    fn bounds_hold_for_scans_and_leave_some_room_for_hints() {
        let mut window = Window::with_room_for(2);
        assert_eq!(window.offer(file("a", 1)), Offer::Added);
        assert_eq!(window.offer(file("b", 2)), Offer::Added);
        assert_eq!(window.offer(file("c", 0)), Offer::Full);
        assert_eq!(window.hint(file("priority/c", 9)), Offer::Added);
        assert_eq!(drained(&mut window), ["priority/c", "a", "b"]);

        let mut window = Window::default();
        let long = |n: usize| file(&format!("{n}/{}", "x".repeat(NAME_BYTES_MAX / 4)), 1);
        assert_eq!((0..5).filter(|n| window.offer(long(*n)) == Offer::Added).count(), 3);
    }
}
