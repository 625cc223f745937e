//! The removal of what is in the synced ledger: moved out of sight, checked, unlinked, its directory synced.
//!
//! A thread of its own. Freeing the blocks of a file takes longer than sending it, so the removal gives way
//! to sending, within bounds of time and number; not by a lower priority, with which a busy machine would
//! let it fall behind until delivery waits for it. Never removes a file that is not the one that was sent.

use crate::{
    commit::Work,
    dir::{self, Root},
    names,
    progress::Progress,
    queue::Queue,
    settle::{Found, Stamp},
    steps::{Step, reached},
    window::Candidate,
};
use rustix::fs::{AtFlags, fsync, unlinkat};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};
use tracing::{error, info, warn};

/// Files that may wait for their removal; with more, those that deliver wait.
const WAITING_MAX: usize = 32_768;
/// The removal gives way to sending for this long, at most. After a crash what waited is sent again, to be
/// known as duplicates.
const GIVES_WAY: Duration = Duration::from_secs(5);
/// How often it looks whether files are still in flight.
const LOOKS_EVERY: Duration = Duration::from_millis(5);
/// Files that are removed with one sync of their directory.
const AT_ONCE: usize = 512;

/// What is left to do when it is written down; many of these may wait.
#[derive(Debug)]
pub enum Removal {
    /// A file that was sent: its name, as it was sent, and the hash of its content.
    Sent(Box<[u8]>, Stamp, [u8; 32]),
    /// A file that goes to quarantine, and why.
    Never(Candidate, String),
}

impl Removal {
    /// What a piece of work leaves to do.
    pub fn of(work: Work) -> Option<Self> {
        match work {
            Work::Delivered(d) => {
                let mut hash = [0; 32];
                hex::decode_to_slice(&d.sha256, &mut hash).expect("it was made of 32 bytes");
                Some(Self::Sent(d.name, d.stamp, hash))
            }
            Work::Never(candidate, why) => Some(Self::Never(candidate, why)),
            Work::Note(_) => None,
        }
    }

    fn name(&self) -> &[u8] {
        match self {
            Self::Sent(name, ..) => name,
            Self::Never(candidate, _) => &candidate.name,
        }
    }
}

/// The thread that removes, to be [`run`](Self::run).
pub struct Remover {
    written: Receiver<Vec<Removal>>,
    progress: Arc<Progress>,
    queue: Arc<Queue>,
    next: AtomicU64,
}

/// Written down and not removed yet, oldest first.
#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<(Instant, VecDeque<Removal>)>,
    files: usize,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    fn push(&mut self, batch: Vec<Removal>, now: Instant) {
        self.files += batch.len();
        self.batches.push_back((now, batch.into()));
    }

    /// Whether the oldest are to be removed now, although files are being sent.
    fn is_due(&self, is_sending: bool, now: Instant) -> bool {
        let oldest = self.batches.front().is_some_and(|(since, _)| now.duration_since(*since) >= GIVES_WAY);
        !is_sending || oldest || self.files >= WAITING_MAX
    }

    /// The oldest, at most `max`.
    fn take(&mut self, max: usize) -> Vec<Removal> {
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

impl Remover {
    /// Files of the ledger arrive by `written`.
    pub fn new(written: Receiver<Vec<Removal>>, progress: Arc<Progress>, queue: Arc<Queue>) -> Self {
        // Names in .sent are never used twice, also not by the next process.
        let next = AtomicU64::new(u64::try_from(crate::scan::now_ns()).unwrap_or(0));
        Self { written, progress, queue, next }
    }

    /// Removes until the ledger's thread has ended and nothing waits.
    pub fn run(self) {
        let mut waiting = Waiting::default();
        loop {
            let received = match (waiting.is_empty(), waiting.files < WAITING_MAX) {
                (true, _) => self.written.recv().map_err(|_| RecvTimeoutError::Disconnected),
                (false, true) => self.written.recv_timeout(LOOKS_EVERY),
                (false, false) => Err(RecvTimeoutError::Timeout),
            };
            let ended = matches!(received, Err(RecvTimeoutError::Disconnected));
            if let Ok(batch) = received {
                waiting.push(batch, Instant::now());
            }
            if ended && waiting.is_empty() {
                return;
            }
            let is_sending = self.progress.in_flight.load(Relaxed) > 0;
            if ended || waiting.is_due(is_sending, Instant::now()) {
                self.remove(&waiting.take(AT_ONCE));
            }
        }
    }

    fn remove(&self, batch: &[Removal]) {
        // Without a directory: what comes back with it is found, sent again, and known as a duplicate.
        if let Some(root) = self.queue.root() {
            self.remove_from(&root, batch);
        }
        self.queue.let_go(batch.iter().map(Removal::name));
    }

    fn remove_from(&self, root: &Root, batch: &[Removal]) {
        let mut by_dir: BTreeMap<&[u8], Vec<&Removal>> = BTreeMap::new();
        for removal in batch {
            by_dir.entry(names::split(removal.name()).0).or_default().push(removal);
        }
        let mut removed = 0;
        for (dir, removals) in by_dir {
            let Ok(parent) = root.parent(dir) else { continue };
            for removal in removals {
                removed += u64::from(match removal {
                    Removal::Sent(name, stamp, hash) => self.remove_one(root, &parent, name, stamp, hash),
                    Removal::Never(candidate, why) => quarantine(root, candidate, why),
                });
            }
            sync(&parent);
        }
        if removed > 0 {
            sync(root.sent());
            reached(Step::DirectorySynced);
            self.queue.count_removed(removed);
        }
    }

    /// Whether the file is gone from its place.
    fn remove_one(&self, root: &Root, parent: &dir::Parent<'_>, name: &[u8], stamp: &Stamp, hash: &[u8; 32]) -> bool {
        let last = names::split(name).1;
        let sent_name = format!("{}.{:x}", names::hex(hash), self.next.fetch_add(1, Relaxed));
        if let Err(error) = dir::move_to_sent(parent, last, root, &sent_name) {
            // Somebody else may have removed it, which is theirs to do.
            if error.kind() != io::ErrorKind::NotFound {
                warn!(%error, file = names::encode(name), "a sent file cannot be moved; it is sent again later");
            }
            return error.kind() == io::ErrorKind::NotFound;
        }
        reached(Step::Moved);
        let is_still = dir::look_in(root.sent(), sent_name.as_str()).is_ok_and(|(_, now)| now.is_still(stamp));
        if !is_still {
            self.give_back(root, &sent_name, name);
            return false;
        }
        reached(Step::Checked);
        if let Err(error) = unlinkat(root.sent(), sent_name.as_str(), AtFlags::empty()) {
            warn!(%error, file = names::encode(name), "a sent file cannot be unlinked; the next start tries again");
        }
        reached(Step::Unlinked);
        true
    }

    /// A writer has put other bytes under the name since it was read: they were not sent.
    fn give_back(&self, root: &Root, sent_name: &str, name: &[u8]) {
        match root.put(root.sent(), sent_name.as_bytes(), name) {
            Ok(name) => {
                info!(file = names::encode(&name), "a file was replaced after it was sent; the new one is sent too");
                self.queue.look_again(
                    Candidate { name: name.into(), mtime_ns: 0, found: Found::Seen, attempts: 0 },
                    Duration::from_millis(1),
                );
            }
            Err(error) => {
                error!(%error, file = names::encode(name), "a file waits in .sent for the next start");
            }
        }
    }
}

fn quarantine(root: &Root, candidate: &Candidate, why: &str) -> bool {
    let file = names::encode(&candidate.name);
    match root.quarantine(&candidate.name) {
        Ok(()) => {
            warn!(file, why, "a file can never be sent and is in quarantine");
            true
        }
        Err(error) => {
            error!(%error, file, why, "a file can never be sent and cannot be moved to quarantine");
            false
        }
    }
}

/// A directory that cannot be synced may bring a removed file back after a power loss; it is then sent
/// again and known as a duplicate.
fn sync(dir: impl std::os::fd::AsFd) {
    if let Err(error) = fsync(dir) {
        warn!(%error, "a directory cannot be synced");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(names: &[usize]) -> Vec<Removal> {
        let stamp = Stamp { dev: 0, ino: 0, size: 0, mtime_ns: 0, ctime_ns: 0 };
        names.iter().map(|n| Removal::Sent(n.to_string().into_bytes().into(), stamp, [0; 32])).collect()
    }

    #[test]
    fn the_removal_gives_way_to_sending_within_bounds() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.push(batch(&[1, 2, 3]), now);
        assert!(waiting.is_due(false, now), "nothing is sent");
        assert!(!waiting.is_due(true, now + GIVES_WAY - Duration::from_millis(1)));
        assert!(waiting.is_due(true, now + GIVES_WAY), "not for ever");
        waiting.push(batch(&(0..WAITING_MAX - 3).collect::<Vec<_>>()), now);
        assert!(waiting.is_due(true, now), "not for any number");
    }

    #[test]
    fn the_oldest_are_removed_first_across_batches() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.push(batch(&[1, 2, 3]), now);
        waiting.push(batch(&[4]), now + Duration::from_secs(1));
        waiting.push(batch(&[5, 6]), now + Duration::from_secs(2));
        let names = |taken: Vec<Removal>| taken.iter().map(|r| r.name().to_vec()).collect::<Vec<_>>();
        assert_eq!(names(waiting.take(2)), [b"1", b"2"]);
        assert!(waiting.is_due(true, now + GIVES_WAY), "the rest of the first batch is as old as it");
        assert_eq!(names(waiting.take(3)), [b"3", b"4", b"5"]);
        assert_eq!((waiting.files, names(waiting.take(9)).len(), waiting.is_empty()), (1, 1, true));
    }
}
