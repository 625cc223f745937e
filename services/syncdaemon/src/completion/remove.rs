//! The removal of what is in the synced ledger: checked, moved out of sight, checked again, unlinked, and the
//! directories synced.
//!
//! A thread of its own. Freeing the blocks of a file takes longer than sending it, so the removal gives way
//! to sending, within bounds of time and number; not by a lower priority, with which a busy machine would
//! let it fall behind until delivery waits for it. Never removes a file that is not the one that was sent, or
//! that is being written to.

use crate::{
    content::read::hash_large,
    directory::{
        self, Parent, Root,
        lease::{self, Writers},
        stamp::{Arrival, Stamp},
    },
    names,
    outcome::pause,
    progress::Progress,
    queue::{
        Queue, open_files,
        removals::{PendingRemovals, Removal, SentFile, SentFiles, WAITING_MAX},
        stuck::Disposition,
        window::Candidate,
    },
    steps::{Step, reached},
};
use agentforge_ledger::chain;
use rustix::fs::{AtFlags, fsync, unlinkat};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};
use tracing::{error, info, warn};

/// How often it checks whether files are still in flight.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The same while nothing waits.
const IDLE_WAIT_MAX: Duration = Duration::from_millis(250);
/// Files that are moved, or unlinked, with one sync of their directory.
const BATCH_MAX: usize = 512;
/// From the move to the last check, where the kernel knows writers: one that found the file by its name
/// before it was moved has opened it by then.
const RECHECK_DELAY: Duration = Duration::from_millis(5);

/// The thread that removes, to be [`run`](Self::run).
pub struct Remover {
    written: Receiver<Vec<Removal>>,
    progress: Arc<Progress>,
    queue: Arc<Queue>,
    /// From the move to the last check where writers cannot be known.
    linger: Duration,
    next: AtomicU64,
}

/// What a sent file in its place turned out to be.
enum Current {
    /// The file that was sent, as it is now. It may go; late, where writers cannot be known.
    Same { stamp: Stamp, lingers: bool },
    /// A process has it open for writing.
    Open,
    /// Another file, or other bytes.
    Changed,
    /// No file has the name any more.
    Gone,
}

impl Remover {
    /// Files of the ledger arrive by `written`.
    pub fn new(written: Receiver<Vec<Removal>>, progress: Arc<Progress>, queue: Arc<Queue>, linger: Duration) -> Self {
        // Names in .sent are never used twice, also not by the next process.
        let next = AtomicU64::new(u64::try_from(directory::now_ns()).unwrap_or(0));
        Self { written, progress, queue, linger, next }
    }

    /// Removes until the ledger's thread has ended and nothing waits. What lingers then is left in `.sent` to the
    /// next start.
    pub fn run(self) {
        let (mut waiting, mut sent_files) = (PendingRemovals::default(), SentFiles::default());
        loop {
            let received = if waiting.files().max(sent_files.len()) < WAITING_MAX {
                self.written.recv_timeout(wait(&waiting, &sent_files))
            } else {
                std::thread::sleep(POLL_INTERVAL);
                Err(RecvTimeoutError::Timeout)
            };
            let ended = matches!(received, Err(RecvTimeoutError::Disconnected));
            if let Ok(batch) = received {
                waiting.push(batch, Instant::now());
            }
            let (retried, left) = self.queue.take_removals();
            waiting.push(retried, Instant::now());
            left.into_iter().for_each(|file| sent_files.push(file));
            let is_sending = self.progress.in_flight.load(Relaxed) > 0;
            if !waiting.is_empty() && (ended || waiting.is_due(is_sending, Instant::now())) {
                self.move_out(&waiting.take(BATCH_MAX), &mut sent_files);
            }
            self.unlink_due(&mut sent_files);
            if ended && waiting.is_empty() {
                if !sent_files.ends_soon() {
                    return;
                }
                std::thread::sleep(POLL_INTERVAL);
            }
        }
    }

    /// Moves files to `.sent`, and those that can never be sent to quarantine.
    fn move_out(&self, batch: &[Removal], sent_files: &mut SentFiles) {
        // Without a directory: what comes back with it is found, sent again, and known as a duplicate.
        if let Some(root) = self.queue.root() {
            let mut by_dir: BTreeMap<&[u8], Vec<&Removal>> = BTreeMap::new();
            for removal in batch {
                by_dir.entry(names::split(removal.name()).0).or_default().push(removal);
            }
            for (dir, removals) in by_dir {
                let Ok(parent) = root.parent(dir) else { continue };
                let mut gone = 0;
                for removal in removals {
                    gone += u64::from(match removal {
                        Removal::Sent(name, stamp, hash, sidecar) => {
                            match self.move_one(&root, &parent, name, stamp, hash) {
                                Ok(file) => {
                                    if let Some(file) = file {
                                        if let Some(sidecar) = sidecar {
                                            self.queue.hold_sidecar(sidecar);
                                        }
                                        sent_files.push(SentFile { sidecar: sidecar.clone(), ..file });
                                    }
                                    true
                                }
                                Err(()) => false,
                            }
                        }
                        Removal::Quarantine(candidate, why) => self.quarantine(&root, candidate, why),
                    });
                }
                sync(&parent);
                self.queue.count_removed(gone);
            }
        }
        self.queue.release(batch.iter().map(Removal::name));
    }

    /// Moves a sent file to `.sent`. `Ok` when it is gone from its place, with what is there now.
    fn move_one(
        &self,
        root: &Arc<Root>,
        parent: &Parent<'_>,
        name: &[u8],
        sent: &Stamp,
        hash: &[u8; 32],
    ) -> Result<Option<SentFile>, ()> {
        let last = names::split(name).1;
        let (stamp, lingers) = match compare(root, parent, last, sent, hash) {
            Current::Same { stamp, lingers } => (stamp, lingers),
            Current::Gone => return Ok(None),
            Current::Open => {
                self.queue.found_open(name);
                self.recheck_after(name, open_files::RECHECK_INTERVAL);
                return Err(());
            }
            Current::Changed => {
                self.queue.clear_stuck(sent);
                info!(file = names::encode(name), "a file was changed after it was sent; sending the new version too");
                self.recheck_after(name, Duration::from_millis(1));
                return Err(());
            }
        };
        let sent_name = format!("{}.{:x}", chain::hex(hash), self.next.fetch_add(1, Relaxed));
        if let Err(error) = directory::move_to_sent(parent, last, root, &sent_name) {
            // Another program may have removed it, which it may do.
            if error.kind() == io::ErrorKind::NotFound {
                return Ok(None);
            }
            self.queue.mark_stuck(name, stamp, Disposition::Sent(*hash), &error);
            return Err(());
        }
        reached(Step::Moved);
        self.queue.clear_stuck(&stamp);
        match directory::stat_in(root.sent(), sent_name.as_str()) {
            Ok((_, now)) if now.is_still(&stamp) => {
                self.queue.in_sent.fetch_add(1, Relaxed);
                let due = Instant::now() + if lingers { self.linger } else { RECHECK_DELAY };
                let root = Arc::downgrade(root);
                let name = name.into();
                Ok(Some(SentFile { name, sent_name, stamp: now, sidecar: None, due, lingers, tries: 0, root }))
            }
            _ => {
                self.give_back(root, &sent_name, name);
                Err(())
            }
        }
    }

    /// Checks once more what is due in `.sent`, and unlinks it.
    fn unlink_due(&self, sent_files: &mut SentFiles) {
        let now = Instant::now();
        let mut unlinked: Option<Arc<Root>> = None;
        let due: Vec<_> = std::iter::from_fn(|| sent_files.take(now)).take(BATCH_MAX).collect();
        for file in due {
            let (root, sidecar) = (file.root.upgrade(), file.sidecar.clone());
            // Without a root it is gone with its directory, or left to the one that is opened next.
            if let Some(root) = root {
                if let Some(file) = self.unlink(&root, file) {
                    sent_files.push(file);
                    continue;
                }
                unlinked = Some(root);
            }
            self.queue.in_sent.fetch_sub(1, Relaxed);
            if let Some(sidecar) = sidecar {
                self.queue.release_sidecar(&sidecar);
            }
        }
        if let Some(root) = unlinked {
            sync(root.sent());
            reached(Step::DirectorySynced);
        }
    }

    /// Gives it back when it is to be tried again.
    fn unlink(&self, root: &Root, sent: SentFile) -> Option<SentFile> {
        let is_same = directory::open_in(root.sent(), sent.sent_name.as_bytes()).is_ok_and(|file| {
            // In this order: what a writer did that is gone by now shows in the stamp.
            let written = root.reports_writers() && lease::writers(&file) == Writers::Some;
            !written && directory::stamp_of(&file).is_ok_and(|now| now == sent.stamp)
        });
        if !is_same {
            self.give_back(root, &sent.sent_name, &sent.name);
            return None;
        }
        reached(Step::Checked);
        let unlinked = unlinkat(root.sent(), sent.sent_name.as_str(), AtFlags::empty());
        if sent.tries > 0 {
            self.queue.stuck_in_sent.fetch_sub(1, Relaxed);
        }
        if let Err(error) = unlinked {
            if sent.tries == 0 {
                let file = names::encode(&sent.name);
                warn!(%error, file, "a sent file cannot be unlinked; it stays in .sent, trying again later");
            }
            self.queue.stuck_in_sent.fetch_add(1, Relaxed);
            let tries = sent.tries.saturating_add(1);
            return Some(SentFile {
                tries,
                lingers: true,
                due: Instant::now() + pause(tries.saturating_add(4)),
                ..sent
            });
        }
        reached(Step::Unlinked);
        if let Some(sidecar) = &sent.sidecar {
            unlink_sidecar(root, &sent.name, sidecar);
        }
        None
    }

    /// A writer has put other bytes under the name since it was read, or writes now: they were not sent.
    fn give_back(&self, root: &Root, sent_name: &str, name: &[u8]) {
        match root.put(root.sent(), sent_name.as_bytes(), name) {
            Ok(name) => {
                info!(
                    file = names::encode(&name),
                    "a file was written to after it was sent; sending the new version too"
                );
                self.recheck_after(&name, Duration::from_millis(1));
            }
            Err(error) => {
                error!(%error, file = names::encode(name), "a file waits in .sent for the next start");
            }
        }
    }

    fn recheck_after(&self, name: &[u8], time: Duration) {
        self.queue.recheck_after(Candidate::new(name.into(), 0, Arrival::Seen), time);
    }

    fn quarantine(&self, root: &Root, candidate: &Candidate, why: &str) -> bool {
        let file = names::encode(&candidate.name);
        let stamp = root.stat(&candidate.name).map(|(_, stamp)| stamp);
        match (root.quarantine(&candidate.name), stamp) {
            (Ok(()), stamp) => {
                warn!(file, why, "a file can never be sent; moved to quarantine");
                if let Ok(stamp) = stamp {
                    self.queue.clear_stuck(&stamp);
                }
                true
            }
            (Err(error), Ok(stamp)) => {
                self.queue.mark_stuck(&candidate.name, stamp, Disposition::Rejected, &error);
                false
            }
            (Err(error), Err(_)) => {
                warn!(%error, file, why, "a file can never be sent; gone before it was moved to quarantine");
                false
            }
        }
    }
}

/// How long to wait for more.
fn wait(waiting: &PendingRemovals, sent_files: &SentFiles) -> Duration {
    if !waiting.is_empty() {
        return POLL_INTERVAL;
    }
    sent_files.next_due().map_or(IDLE_WAIT_MAX, |due| due.saturating_duration_since(Instant::now()).min(IDLE_WAIT_MAX))
}

/// Holds what has the name of a sent file against what was sent. A change time that is another one with the
/// content's old size and time means new rights or another link, or bytes that were put in with care: the
/// content decides.
fn compare(root: &Root, parent: &Parent<'_>, last: &[u8], sent: &Stamp, hash: &[u8; 32]) -> Current {
    let file = match directory::open_in(parent, last) {
        Ok(file) => File::from(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Current::Gone,
        // It was read before: it is another one now, or may not be read any more.
        Err(_) => {
            return match directory::stat_in(parent, last) {
                Ok((_, stamp)) if stamp == *sent => Current::Same { stamp, lingers: true },
                Ok(_) => Current::Changed,
                Err(_) => Current::Gone,
            };
        }
    };
    let writers = if root.reports_writers() { lease::writers(&file) } else { Writers::Unknown };
    if writers == Writers::Some {
        return Current::Open;
    }
    let lingers = writers == Writers::Unknown;
    match directory::stamp_of(&file) {
        Ok(stamp) if stamp == *sent => Current::Same { stamp, lingers },
        Ok(stamp) if stamp.is_still(sent) => {
            let content = hash_large(&file, stamp.size, || true);
            let is_same = content.is_ok_and(|content| content == chain::hex(hash));
            let rests = directory::stamp_of(&file).is_ok_and(|now| now == stamp);
            if is_same && rests { Current::Same { stamp, lingers } } else { Current::Changed }
        }
        _ => Current::Changed,
    }
}

/// A sidecar goes with its file. One that was rewritten since stays, and is sent as a file of its own
/// in time; so is one that a crash leaves here.
fn unlink_sidecar(root: &Root, name: &[u8], as_read: &Stamp) {
    let (dir, last) = names::split(name);
    let sidecar = names::sidecar_of(last);
    if let Ok(parent) = root.parent(dir)
        && directory::stat_in(&parent, sidecar.as_slice()).is_ok_and(|(_, now)| now == *as_read)
        && let Err(error) = unlinkat(&parent, sidecar.as_slice(), AtFlags::empty())
    {
        warn!(%error, file = names::encode(name), "a sidecar cannot be removed");
    }
}

/// A directory that cannot be synced may bring a removed file back after a power loss; it is then sent
/// again and known as a duplicate.
fn sync(dir: impl std::os::fd::AsFd) {
    if let Err(error) = fsync(dir) {
        warn!(%error, "a directory cannot be synced");
    }
}
