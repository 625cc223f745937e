//! From the PubAck to the end of a file: the ledger first, then the file.
//!
//! A thread, so that the disk is never waited for by what sends. It gathers what was acknowledged, writes
//! it as one batch and syncs it once; only then is it told and handed to the removal.

use crate::{
    completion::remove::Remover,
    content::metadata::Told,
    delivery::publish::News,
    directory::stamp::Stamp,
    ledger::{Entry, Event, writer::Writer},
    names,
    outcome::{Hold, pause},
    progress::{Lane, Progress},
    queue::{Queue, removals::Removal, window::Candidate},
};
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
const GATHER: Duration = Duration::from_millis(10);
/// How long it gathers, at most: as long as the sync before it took, because a disk that is slow to sync is
/// busy with what is sent, and each sync makes it write that at once.
const GATHER_MAX: Duration = Duration::from_millis(50);
/// Lines of a batch.
const BATCH_MAX: usize = 2048;
/// What may wait for the ledger.
const WAITING_MAX: usize = 4096;
/// Batches on their way to the removal, which takes them up as they come while it has room.
const BATCHES_WAITING: usize = 4;

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
    /// Whether the stream had it already.
    pub news: News,
    /// What its writer told of it.
    pub told: Option<Arc<Told>>,
    /// How often it was published.
    pub attempts: u32,
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
    /// What the last batch took to be written and synced.
    took: Duration,
}

/// Makes desk, scribe and remover. They end, in this order, when the last desk is dropped.
pub fn start(
    writer: Writer,
    progress: &Arc<Progress>,
    queue: &Arc<Queue>,
    gate: Gate,
    linger: Duration,
) -> (Desk, Scribe, Remover) {
    let (work_in, work) = sync_channel(WAITING_MAX);
    let (written, to_remove) = sync_channel(BATCHES_WAITING);
    let room = Arc::new(Notify::new());
    gate.set(true, "writable");
    let (progress, queue) = (progress.clone(), queue.clone());
    let remover = Remover::new(to_remove, progress.clone(), queue.clone(), linger);
    let desk = Desk { work: work_in, room: room.clone() };
    (desk, Scribe { work, room, written, writer, progress, queue, gate, took: GATHER }, remover)
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
                    Work::Delivered(d) => self.progress.delivered(d.news, d.stamp.size),
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
        // Asleep, and not woken by every line that comes meanwhile.
        std::thread::sleep(self.took.clamp(GATHER, GATHER_MAX));
        batch.extend(self.work.try_iter().take(BATCH_MAX - 1));
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
            detail: d.told.as_ref().and_then(|told| told.problem.clone()),
            ..Entry::note(event(d.news), "")
        },
    }
}

const fn event(news: News) -> Event {
    match news {
        News::Stored => Event::Replayed,
        News::Recovered => Event::Recovered,
        News::Duplicate => Event::Duplicate,
    }
}
