//! From the PubAck to the end of a file: the ledger first, then the file.
//!
//! A thread, so that the disk is never waited for by what sends. It gathers what was acknowledged, writes
//! it as one batch and syncs it once; only then is it counted and handed to the removal.

use crate::{
    completion::remove::Remover,
    content::metadata::FileMetadata,
    directory::stamp::Stamp,
    ledger::writer::Writer,
    names,
    outcome::{Hold, Novelty, pause},
    progress::{Pipeline, Progress},
    queue::{Queue, removals::Removal, window::Candidate},
};
use agentforge_ledger::{Entry, Event};
use agentforge_runtime::Gate;
use std::{
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tracing::error;

/// How long a batch gathers, at least. Sending does not wait for it, and two syncs are the price of each batch.
const BATCH_DELAY_MIN: Duration = Duration::from_millis(10);
/// How long it gathers, at most: as long as the sync before it took, because a disk that is slow to sync is
/// busy with what is sent, and each sync makes it write that at once.
const BATCH_DELAY_MAX: Duration = Duration::from_millis(50);
/// Lines of a batch.
const BATCH_MAX: usize = 2048;
/// What may wait for the ledger.
const WAITING_MAX: usize = 4096;
/// Batches on their way to the removal, which takes them up as they come while it has room.
const BATCHES_WAITING_MAX: usize = 4;

/// What is to be written down and then done.
#[derive(Debug)]
pub enum Record {
    /// A file that the stream has: written down, then removed.
    Delivered(Delivered),
    /// A file that can never be sent: written down with the reason, then moved away.
    Rejected(Candidate, String),
    /// A line about no file.
    Note(Entry),
}

/// A file that the stream has.
#[derive(Debug)]
pub struct Delivered {
    /// The file's name in the replay directory; bytes, as it need not be text.
    pub name: Box<[u8]>,
    /// As it was sent.
    pub stamp: Stamp,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
    /// The id that it was published with.
    pub msg_id: String,
    /// The name of the stream that acknowledged it.
    pub stream: String,
    /// Its place there.
    pub seq: u64,
    /// The stream's domain.
    pub domain: Option<String>,
    /// Whether the stream had it already.
    pub novelty: Novelty,
    /// What its writer says about it.
    pub metadata: Option<Arc<FileMetadata>>,
    /// How often it was published.
    pub attempts: u32,
}

/// Where records are handed to the committer.
#[derive(Clone)]
pub struct CommitHandle {
    records: SyncSender<Record>,
    /// Rings when there is room again.
    room: Arc<Notify>,
}

impl CommitHandle {
    /// Hands a record in; gives it back when there is no room now.
    ///
    /// # Errors
    /// The record, to be handed in later.
    #[expect(clippy::result_large_err, reason = "the work itself comes back, and nothing is copied on success")]
    pub fn try_record(&self, record: Record) -> Result<(), Record> {
        match self.records.try_send(record) {
            Ok(()) => Ok(()),
            // Disconnected: the ledger's thread has failed, which stops the service.
            Err(TrySendError::Full(record) | TrySendError::Disconnected(record)) => Err(record),
        }
    }

    /// Waits for room.
    pub async fn room(&self) {
        self.room.notified().await;
    }

    /// Hands a record in, waiting for room.
    pub async fn record(&self, mut record: Record) {
        loop {
            match self.try_record(record) {
                Ok(()) => return,
                Err(back) => record = back,
            }
            let _ = tokio::time::timeout(BATCH_DELAY_MIN, self.room()).await;
        }
    }
}

/// The thread of the ledger, to be [`run`](Self::run).
pub struct Committer {
    records: Receiver<Record>,
    room: Arc<Notify>,
    written: SyncSender<Vec<Removal>>,
    writer: Writer,
    progress: Arc<Progress>,
    queue: Arc<Queue>,
    gate: Gate,
    /// What the last batch took to be written and synced.
    took: Duration,
}

/// Makes handle, committer and remover. They end, in this order, when the last handle is dropped.
pub fn start(
    writer: Writer,
    progress: &Arc<Progress>,
    queue: &Arc<Queue>,
    gate: Gate,
    linger: Duration,
) -> (CommitHandle, Committer, Remover) {
    let (records_in, records) = sync_channel(WAITING_MAX);
    let (written, to_remove) = sync_channel(BATCHES_WAITING_MAX);
    let room = Arc::new(Notify::new());
    gate.set(true, "writable");
    let (progress, queue) = (progress.clone(), queue.clone());
    let remover = Remover::new(to_remove, progress.clone(), queue.clone(), linger);
    let commits = CommitHandle { records: records_in, room: room.clone() };
    (commits, Committer { records, room, written, writer, progress, queue, gate, took: BATCH_DELAY_MIN }, remover)
}

impl Committer {
    /// Writes until the last handle is dropped. A ledger that cannot be written is tried again until the
    /// service stops; what is not written then stays in the replay directory.
    pub fn run(mut self) {
        while let Some(batch) = self.gather() {
            let entries: Vec<Entry> = batch.iter().map(entry).collect();
            if !self.write(&entries) {
                return;
            }
            for record in &batch {
                match record {
                    Record::Delivered(d) => self.progress.delivered(d.novelty, d.stamp.size),
                    Record::Rejected(..) => self.progress.quarantined(),
                    Record::Note(_) => {}
                }
            }
            let removals: Vec<_> = batch.into_iter().filter_map(removal).collect();
            if !removals.is_empty() && self.written.send(removals).is_err() {
                return;
            }
        }
    }

    fn gather(&self) -> Option<Vec<Record>> {
        let mut batch = vec![self.records.recv().ok()?];
        // Asleep, and not woken by every line that comes meanwhile.
        std::thread::sleep(self.took.clamp(BATCH_DELAY_MIN, BATCH_DELAY_MAX));
        batch.extend(self.records.try_iter().take(BATCH_MAX - 1));
        self.room.notify_waiters();
        Some(batch)
    }

    /// `false` when it was given up.
    fn write(&mut self, entries: &[Entry]) -> bool {
        for failures in 1.. {
            let begun = Instant::now();
            match self.writer.append(entries) {
                Ok(()) => {
                    self.progress.ledger_ends_with(self.writer.end());
                    self.took = begun.elapsed();
                    break;
                }
                Err(error) => {
                    self.progress.ledger_works.store(false, Relaxed);
                    self.gate.set(false, format!("it cannot be written: {error}"));
                    self.progress.hold(Pipeline::Ledger, Some((Hold::Ledger, error.to_string())));
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
        self.progress.hold(Pipeline::Ledger, None);
        true
    }
}

fn entry(record: &Record) -> Entry {
    match record {
        Record::Note(entry) => entry.clone(),
        Record::Rejected(candidate, why) => Entry {
            file: Some(names::encode(&candidate.name)),
            attempts: Some(candidate.attempts),
            ..Entry::note(Event::Quarantined, why.as_str())
        },
        Record::Delivered(d) => Entry {
            file: Some(names::encode(&d.name)),
            bytes: Some(d.stamp.size),
            sha256: Some(d.sha256.clone()),
            msg_id: Some(d.msg_id.clone()),
            stream: Some(d.stream.clone()),
            seq: Some(d.seq),
            domain: d.domain.clone(),
            attempts: Some(d.attempts),
            detail: d.metadata.as_ref().and_then(|metadata| metadata.problem.clone()),
            ..Entry::note(event(d.novelty), "")
        },
    }
}

const fn event(novelty: Novelty) -> Event {
    match novelty {
        Novelty::New => Event::Replayed,
        Novelty::Recovered => Event::Recovered,
        Novelty::Duplicate => Event::Duplicate,
    }
}

/// What a record leaves to do once it is written down.
fn removal(record: Record) -> Option<Removal> {
    match record {
        Record::Delivered(d) => {
            let mut hash = [0; 32];
            hex::decode_to_slice(&d.sha256, &mut hash).expect("it was made of 32 bytes");
            let sidecar = d.metadata.and_then(|metadata| metadata.sidecar).map(Box::new);
            Some(Removal::Sent(d.name, d.stamp, hash, sidecar))
        }
        Record::Rejected(candidate, why) => Some(Removal::Quarantine(candidate, why)),
        Record::Note(_) => None,
    }
}
