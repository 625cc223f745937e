//! From the PubAck to the end of a file: the ledger first, then the file.
//!
//! Two threads, so that the disk is never waited for by what sends. The first gathers what was
//! acknowledged, writes it as one batch and syncs it once; the second moves, checks and unlinks those
//! files and syncs the directories once. Nothing is removed that is not in the synced ledger.

use crate::{
    dir::{self, Root},
    ledger::{Entry, Event, writer::Writer},
    names,
    outcome::{Hold, pause},
    progress::{Lane, Progress},
    queue::Queue,
    settle::{Found, Stamp},
    steps::{Step, reached},
    window::Candidate,
};
use agentforge_runtime::Gate;
use rustix::fs::{AtFlags, fsync, unlinkat};
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tracing::{debug, error, info, warn};

/// How long a batch gathers. Sending does not wait for it, and two syncs are the price of each batch.
const GATHER: Duration = Duration::from_millis(10);
/// Lines of a batch.
const BATCH_MAX: usize = 1024;
/// What may wait for the ledger.
const WAITING_MAX: usize = 4096;
/// Batches that may wait for the removal: freeing the blocks of a file takes longer than sending it, and a
/// burst shall not wait for that.
const BATCHES: usize = 64;
/// The removal's niceness: what is written down is safe, so it takes the time that is left over.
const REMOVER_NICE: i32 = 10;

/// What is to be written down and then done.
#[derive(Debug)]
pub enum Work {
    /// A file that the stream has: written down, then removed.
    Delivered(Delivered),
    /// A file that can never be sent: written down with the reason, then moved away.
    Never(Candidate, String),
    /// A line about no file.
    Note(Entry),
}

/// A file that the stream has.
#[derive(Debug)]
pub struct Delivered {
    /// Its name.
    pub name: Box<[u8]>,
    /// As it was sent.
    pub stamp: Stamp,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
    /// The id that it was published with.
    pub msg_id: String,
    /// The stream.
    pub stream: String,
    /// Its place there.
    pub seq: u64,
    /// The stream's domain.
    pub domain: Option<String>,
    /// The stream had it already.
    pub duplicate: bool,
    /// How often it was published.
    pub attempts: u32,
}

/// What is left to do when it is written down; many of these may wait.
#[derive(Debug)]
enum Removal {
    /// A file that was sent: its name, as it was sent, and the hash of its content.
    Sent(Box<[u8]>, Stamp, [u8; 32]),
    /// A file that goes to quarantine, and why.
    Never(Candidate, String),
}

impl Removal {
    fn of(work: Work) -> Option<Self> {
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

/// Where work is handed in.
#[derive(Clone)]
pub struct Desk {
    work: SyncSender<Work>,
    /// Rings when there is room again.
    room: Arc<Notify>,
}

impl Desk {
    /// Hands work in; gives it back when there is no room now.
    ///
    /// # Errors
    /// The work, to be handed in later.
    #[expect(clippy::result_large_err, reason = "the work itself comes back, and nothing is copied on success")]
    pub fn hand_in(&self, work: Work) -> Result<(), Work> {
        match self.work.try_send(work) {
            Ok(()) => Ok(()),
            // Disconnected: the ledger's thread has failed, which stops the service.
            Err(TrySendError::Full(work) | TrySendError::Disconnected(work)) => Err(work),
        }
    }

    /// Waits for room.
    pub async fn room(&self) {
        self.room.notified().await;
    }

    /// Hands work in, waiting for room.
    pub async fn deliver(&self, mut work: Work) {
        loop {
            match self.hand_in(work) {
                Ok(()) => return,
                Err(back) => work = back,
            }
            let _ = tokio::time::timeout(GATHER, self.room()).await;
        }
    }
}

/// The thread of the ledger, to be [`run`](Self::run).
pub struct Scribe {
    work: Receiver<Work>,
    room: Arc<Notify>,
    written: SyncSender<Vec<Removal>>,
    writer: Writer,
    progress: Arc<Progress>,
    queue: Arc<Queue>,
    gate: Gate,
}

/// The thread that removes, to be [`run`](Self::run).
pub struct Remover {
    written: Receiver<Vec<Removal>>,
    queue: Arc<Queue>,
    next: AtomicU64,
}

/// Makes desk, scribe and remover. They end, in this order, when the last desk is dropped.
pub fn start(writer: Writer, progress: &Arc<Progress>, queue: &Arc<Queue>, gate: Gate) -> (Desk, Scribe, Remover) {
    let (work_in, work) = sync_channel(WAITING_MAX);
    let (written, to_remove) = sync_channel(BATCHES);
    let room = Arc::new(Notify::new());
    gate.set(true, "writable");
    let (progress, queue) = (progress.clone(), queue.clone());
    let remover = Remover {
        written: to_remove,
        queue: queue.clone(),
        // Names in .sent are never used twice, also not by the next process.
        next: AtomicU64::new(u64::try_from(crate::scan::now_ns()).unwrap_or(0)),
    };
    let desk = Desk { work: work_in, room: room.clone() };
    (desk, Scribe { work, room, written, writer, progress, queue, gate }, remover)
}

impl Scribe {
    /// Writes until the last desk is dropped. A ledger that cannot be written is tried again until the
    /// service stops; what is not written then stays in the replay directory.
    pub fn run(mut self) {
        while let Some(batch) = self.gather() {
            let entries: Vec<Entry> = batch.iter().map(entry).collect();
            if !self.write(&entries) {
                return;
            }
            for work in &batch {
                match work {
                    Work::Delivered(d) => self.progress.delivered(d.duplicate, d.stamp.size),
                    Work::Never(..) => self.progress.quarantined(),
                    Work::Note(_) => {}
                }
            }
            let removals: Vec<_> = batch.into_iter().filter_map(Removal::of).collect();
            if !removals.is_empty() && self.written.send(removals).is_err() {
                return;
            }
        }
    }

    fn gather(&self) -> Option<Vec<Work>> {
        let mut batch = vec![self.work.recv().ok()?];
        let end = Instant::now() + GATHER;
        while batch.len() < BATCH_MAX {
            match self.work.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(work) => batch.push(work),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        self.room.notify_waiters();
        Some(batch)
    }

    /// `false` when it was given up.
    fn write(&mut self, entries: &[Entry]) -> bool {
        for failures in 1.. {
            match self.writer.append(entries) {
                Ok(()) => break,
                Err(error) => {
                    self.progress.ledger_works.store(false, Relaxed);
                    self.gate.set(false, format!("it cannot be written: {error}"));
                    self.progress.hold(Lane::Ledger, Some((Hold::Ledger, error.to_string())));
                    if failures == 1 {
                        error!(%error, "the ledger cannot be written; nothing is sent or removed until it can");
                    }
                }
            }
            if self.queue.is_stopping() {
                return false;
            }
            self.queue.pause(pause(failures));
        }
        self.progress.ledger_works.store(true, Relaxed);
        self.gate.set(true, "writable");
        self.progress.hold(Lane::Ledger, None);
        true
    }
}

fn entry(work: &Work) -> Entry {
    match work {
        Work::Note(entry) => entry.clone(),
        Work::Never(candidate, why) => Entry {
            file: Some(names::encode(&candidate.name)),
            attempts: Some(candidate.attempts),
            ..Entry::note(Event::Quarantined, why.as_str())
        },
        Work::Delivered(d) => Entry {
            file: Some(names::encode(&d.name)),
            bytes: Some(d.stamp.size),
            sha256: Some(d.sha256.clone()),
            msg_id: Some(d.msg_id.clone()),
            stream: Some(d.stream.clone()),
            seq: Some(d.seq),
            domain: d.domain.clone(),
            attempts: Some(d.attempts),
            detail: None,
            ..Entry::note(if d.duplicate { Event::Duplicate } else { Event::Replayed }, "")
        },
    }
}

impl Remover {
    /// Removes until the scribe has ended.
    pub fn run(self) {
        let me = rustix::thread::gettid();
        if let Err(error) = rustix::process::setpriority_process(Some(me), REMOVER_NICE) {
            debug!(%error, "the removal keeps its priority");
        }
        while let Ok(batch) = self.written.recv() {
            // Without a directory: what comes back with it is found, sent again, and known as a duplicate.
            if let Some(root) = self.queue.root() {
                self.remove(&root, &batch);
            }
            self.queue.let_go(batch.iter().map(Removal::name));
        }
    }

    fn remove(&self, root: &Root, batch: &[Removal]) {
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
        let sent_name = format!("{}.{:x}", hex::encode(hash), self.next.fetch_add(1, Relaxed));
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
