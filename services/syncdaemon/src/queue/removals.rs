//! Files on their way out: those that wait to be moved to `.sent`, and those in `.sent` that are checked once
//! more before they are unlinked. Pure, with the time given from outside.

use crate::{
    directory::{Root, stamp::Stamp},
    queue::window::Candidate,
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Weak,
    time::{Duration, Instant},
};

/// Files that may wait for their removal; with more, those that deliver wait.
pub const WAITING_MAX: usize = 32_768;
/// The removal gives way to sending for this long, at most. After a crash what waited is sent again, to be
/// known as duplicates.
const DEFERRAL_MAX: Duration = Duration::from_secs(5);

/// What is left to do when it is written down; many of these may wait.
#[derive(Debug)]
pub enum Removal {
    /// A file that was sent: its name, as it was sent, the hash of its content, and its sidecar as it was read.
    Sent(Box<[u8]>, Stamp, [u8; 32], Option<Box<Stamp>>),
    /// A file that goes to quarantine, and why.
    Quarantine(Candidate, String),
}

impl Removal {
    /// The file's name.
    pub fn name(&self) -> &[u8] {
        match self {
            Self::Sent(name, ..) => name,
            Self::Quarantine(candidate, _) => &candidate.name,
        }
    }
}

/// Written down and not removed yet, oldest first.
#[derive(Debug, Default)]
pub struct PendingRemovals {
    batches: VecDeque<(Instant, VecDeque<Removal>)>,
    files: usize,
}

impl PendingRemovals {
    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// How many wait.
    pub fn files(&self) -> usize {
        self.files
    }

    /// Adds a batch.
    pub fn push(&mut self, batch: Vec<Removal>, now: Instant) {
        if !batch.is_empty() {
            self.files += batch.len();
            self.batches.push_back((now, batch.into()));
        }
    }

    /// Whether the oldest are to be removed now, although files are being sent.
    pub fn is_due(&self, is_sending: bool, now: Instant) -> bool {
        let oldest = self.batches.front().is_some_and(|(since, _)| now.duration_since(*since) >= DEFERRAL_MAX);
        !is_sending || oldest || self.files >= WAITING_MAX
    }

    /// The oldest, at most `max`.
    pub fn take(&mut self, max: usize) -> Vec<Removal> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some((_, batch)) = self.batches.front_mut()
        {
            taken.extend(batch.drain(..batch.len().min(max - taken.len())));
            if batch.is_empty() {
                self.batches.pop_front();
            }
        }
        self.files -= taken.len();
        taken
    }
}

/// A file in `.sent`.
#[derive(Debug)]
pub struct SentFile {
    /// The name that it had.
    pub name: Box<[u8]>,
    /// The name that it has.
    pub sent_name: String,
    /// As it was when it was moved.
    pub stamp: Stamp,
    /// Its sidecar as it was read.
    pub sidecar: Option<Box<Stamp>>,
    /// When it is checked again.
    pub due: Instant,
    /// Whether it is checked late, because writers cannot be known here.
    pub lingers: bool,
    /// Tries to unlink it that failed.
    pub tries: u32,
    /// Where it is; gone with its directory.
    pub root: Weak<Root>,
}

impl PartialEq for SentFile {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}
impl Eq for SentFile {}
impl Ord for SentFile {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}
impl PartialOrd for SentFile {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The files in `.sent`, those that are due first before the others.
#[derive(Debug, Default)]
pub struct SentFiles {
    files: BinaryHeap<Reverse<SentFile>>,
    prompt: usize,
}

impl SentFiles {
    /// Adds a file that was delivered and could not be removed yet.
    pub fn push(&mut self, file: SentFile) {
        self.prompt += usize::from(!file.lingers);
        self.files.push(Reverse(file));
    }

    /// The next one that is due.
    pub fn take(&mut self, now: Instant) -> Option<SentFile> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(file) = self.files.pop()?;
        self.prompt -= usize::from(!file.lingers);
        Some(file)
    }

    /// When the next one is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.files.peek().map(|Reverse(file)| file.due)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether some are there whose end is worth waiting for.
    pub fn ends_soon(&self) -> bool {
        self.prompt > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { dev: 0, ino: 0, size: 0, mtime_ns: 0, ctime_ns: 0 };

    fn batch(names: &[usize]) -> Vec<Removal> {
        names.iter().map(|n| Removal::Sent(n.to_string().into_bytes().into(), STAMP, [0; 32], None)).collect()
    }

    #[test]
    fn the_removal_gives_way_to_sending_within_bounds() {
        let (mut waiting, now) = (PendingRemovals::default(), Instant::now());
        waiting.push(batch(&[1, 2, 3]), now);
        assert!(waiting.is_due(false, now), "nothing is sent");
        assert!(!waiting.is_due(true, now + DEFERRAL_MAX - Duration::from_millis(1)));
        assert!(waiting.is_due(true, now + DEFERRAL_MAX), "not for ever");
        waiting.push(batch(&(0..WAITING_MAX - 3).collect::<Vec<_>>()), now);
        assert!(waiting.is_due(true, now), "not for any number");
    }

    #[test]
    fn the_oldest_are_removed_first_across_batches() {
        let (mut waiting, now) = (PendingRemovals::default(), Instant::now());
        waiting.push(batch(&[1, 2, 3]), now);
        waiting.push(batch(&[4]), now + Duration::from_secs(1));
        waiting.push(batch(&[5, 6]), now + Duration::from_secs(2));
        let names = |taken: Vec<Removal>| taken.iter().map(|r| r.name().to_vec()).collect::<Vec<_>>();
        assert_eq!(names(waiting.take(2)), [b"1", b"2"]);
        assert!(waiting.is_due(true, now + DEFERRAL_MAX), "the rest of the first batch is as old as it");
        assert_eq!(names(waiting.take(3)), [b"3", b"4", b"5"]);
        assert_eq!((waiting.files, names(waiting.take(9)).len(), waiting.is_empty()), (1, 1, true));
    }

    #[test]
    fn files_leave_when_they_are_due() {
        let (mut exit, now) = (SentFiles::default(), Instant::now());
        for (seconds, lingers) in [(9, true), (1, false), (5, true)] {
            exit.push(SentFile {
                name: seconds.to_string().into_bytes().into(),
                sent_name: String::new(),
                stamp: STAMP,
                sidecar: None,
                due: now + Duration::from_secs(seconds),
                lingers,
                tries: 0,
                root: Weak::new(),
            });
        }
        assert!(exit.take(now).is_none() && exit.ends_soon());
        let later = now + Duration::from_secs(5);
        let names: Vec<_> = std::iter::from_fn(|| exit.take(later)).map(|file| file.name).collect();
        assert_eq!(names, [b"1"[..].into(), Box::<[u8]>::from(&b"5"[..])]);
        assert!(!exit.ends_soon() && exit.len() == 1);
    }
}
