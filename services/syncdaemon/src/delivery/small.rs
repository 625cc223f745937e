//! Files that fit a message: taken from the window, read ahead, published side by side.
//!
//! One task that owns everything in flight. What cannot be sent now goes back to the window, and all
//! sending pauses with a growing pause; then one file goes first and the others follow when it arrived.

use crate::{
    completion::commit::{CommitHandle, Delivered, Record},
    content::{
        buffers::Buffers,
        read::{self, Fault, LoadedFile, Outcome, Rules},
    },
    delivery::publish::{FileIdentity, HubClient, PublishOutcome, StoredMessage},
    directory::stamp::Arrival,
    outcome::{Hold, pause},
    pace::{CongestionWindow, ack_limit},
    progress::{Pipeline, Progress},
    queue::{Queue, open_files, window::Candidate},
    steps::{Step, reached},
};
use agentforge_ledger::{Entry, Event};
use futures_util::{
    StreamExt,
    future::BoxFuture,
    stream::{FuturesOrdered, FuturesUnordered},
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinHandle, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How long the first scan may take before sending begins without knowing the oldest file.
const FIRST_SCAN_WAIT_MAX: Duration = Duration::from_millis(250);
/// How long sending waits at first for stream and bucket to be made sure of, before it tries without.
const STREAM_WAIT_MAX: Duration = Duration::from_secs(2);
/// Content in flight, and read ahead, in bytes: memory stays flat regardless of the files. Acknowledgements
/// come in bursts; what is read ahead is what can be sent while the readers catch up with one.
const FLIGHT_BYTES: usize = 16 << 20;
const AHEAD_BYTES: usize = 8 << 20;
/// Content in memory, read ahead or not written to the connection yet, with which no more is read.
const IN_USE_BYTES: usize = 16 << 20;
/// Batches that are read at once, and what one may hold.
const READERS: usize = 2;
const BATCH_FILES: usize = 32;
const BATCH_BYTES: usize = 2 << 20;
/// How long an answer may still be on its way after the hub answered something that was asked later.
const LATE_ACK_WAIT: Duration = Duration::from_secs(5);
/// Tries to read a file that cannot be read for a reason that may pass.
const READ_TRIES_MAX: u32 = 5;

/// Sends small files.
pub struct SmallSender {
    /// The client of the hub.
    pub hub: Arc<HubClient>,
    /// Where files come from.
    pub queue: Arc<Queue>,
    /// Where what was stored goes.
    pub commits: CommitHandle,
    /// For what others see.
    pub progress: Arc<Progress>,
    /// Where files go that are too large for a message.
    pub large: mpsc::Sender<Candidate>,
    /// Whether the hub answers.
    pub link: watch::Receiver<bool>,
    /// Whether stream and bucket were made sure of.
    pub bucket: watch::Receiver<bool>,
    /// Messages in flight, at most.
    pub max_inflight: usize,
    /// Largest file, and rest.
    pub rules: Rules,
}

/// Something that was published.
struct InFlight {
    identity: FileIdentity,
    candidate: Candidate,
    bytes: usize,
}

struct State {
    ready: VecDeque<LoadedFile>,
    ready_bytes: usize,
    in_flight: HashMap<u64, InFlight>,
    in_flight_bytes: usize,
    answers: FuturesUnordered<BoxFuture<'static, (u64, PublishOutcome)>>,
    /// In the order in which they were begun, which is the order of the window.
    reads: FuturesOrdered<JoinHandle<(Vec<Outcome>, Vec<Candidate>)>>,
    /// What contents are read into.
    buffers: Arc<Buffers>,
    room: CongestionWindow,
    next: u64,
    held: Option<Pause>,
    /// Bandwidth: nothing is sent before.
    not_before: Option<Instant>,
    /// What was in flight when the link came back is given up at this time.
    late_acks: Option<(Instant, u64)>,
    /// What the committer had no room for.
    unwritten: VecDeque<Record>,
    /// Large files that their sender had no room for.
    large: VecDeque<Candidate>,
}

struct Pause {
    failures: u32,
    until: Instant,
}

/// Large files that wait for their sender here; more are left to the next scan.
const LARGE_WAITING_MAX: usize = 4096;

impl SmallSender {
    /// Sends until `stop`; then waits until `deadline` for what is in flight.
    pub async fn run(self, stop: CancellationToken, deadline: impl Fn() -> Instant) {
        self.wait_open(&stop).await;
        let mut link = self.link.clone();
        let mut state = State {
            ready: VecDeque::new(),
            ready_bytes: 0,
            in_flight: HashMap::new(),
            in_flight_bytes: 0,
            answers: FuturesUnordered::new(),
            reads: FuturesOrdered::new(),
            buffers: Arc::default(),
            room: CongestionWindow::new(self.max_inflight),
            next: 0,
            held: None,
            not_before: None,
            late_acks: None,
            unwritten: VecDeque::new(),
            large: VecDeque::new(),
        };
        while !stop.is_cancelled() {
            self.try_record(&mut state);
            self.send_ready(&mut state);
            let may_read = self.read_ahead(&mut state);
            self.progress.in_flight.store(state.in_flight.len() as u64, Relaxed);
            let wake = state.wake();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some((id, end)) = state.answers.next(), if !state.answers.is_empty() => self.settle(&mut state, id, end),
                Some(read) = state.reads.next(), if !state.reads.is_empty() => self.take_read(&mut state, read),
                () = self.queue.arrived.notified(), if may_read => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.woken(&mut state),
                () = self.commits.room(), if !state.unwritten.is_empty() => {}
                Ok(permit) = self.large.reserve(), if !state.large.is_empty() => {
                    if let Some(candidate) = state.large.pop_front() {
                        permit.send(candidate);
                    }
                }
                Ok(()) = link.changed() => {
                    let is_up = *link.borrow_and_update();
                    link_changed(&mut state, is_up);
                }
            }
        }
        self.drain(state, deadline()).await;
    }

    async fn wait_open(&self, stop: &CancellationToken) {
        let opened = async {
            while !self.queue.is_open() {
                self.queue.arrived.notified().await;
            }
        };
        let mut bucket = self.bucket.clone();
        let ready = async {
            let _ = timeout(FIRST_SCAN_WAIT_MAX, opened).await;
            let _ = timeout(STREAM_WAIT_MAX, bucket.wait_for(|there| *there)).await;
        };
        tokio::select! {
            () = ready => {}
            () = stop.cancelled() => {}
        }
    }

    /// Waits for the acknowledgements of what is in flight; the rest stays in the replay directory.
    async fn drain(&self, mut state: State, deadline: Instant) {
        while let Ok(Some((id, end))) = tokio::time::timeout_at(deadline, state.answers.next()).await {
            self.settle(&mut state, id, end);
        }
        for record in state.unwritten {
            if tokio::time::timeout_at(deadline, self.commits.record(record)).await.is_err() {
                break;
            }
        }
        self.progress.in_flight.store(0, Relaxed);
    }

    fn send_ready(&self, state: &mut State) {
        state.not_before = None;
        while let Some(bytes) = state.ready.front().map(|file| file.content.len()) {
            let room = if state.held.is_some() { 1 } else { state.room.get().min(self.max_inflight) };
            let fits = state.in_flight.is_empty() || state.in_flight_bytes + bytes <= FLIGHT_BYTES;
            if !self.may_send(state) || state.in_flight.len() >= room || !fits {
                return;
            }
            let Some(file) = state.ready.pop_front() else { return };
            let (name, metadata) = (file.candidate.name.clone(), file.metadata.clone());
            let identity = FileIdentity { name, stamp: file.stamp, sha256: file.sha256.clone(), metadata };
            if let Err(wait) = self.hub.take_bandwidth(self.hub.cost(&identity, bytes)) {
                state.not_before = Some(Instant::now() + wait);
                state.ready.push_front(file);
                return;
            }
            state.ready_bytes -= bytes;
            state.in_flight_bytes += bytes;
            let (id, hub, content) = (state.next, self.hub.clone(), file.content);
            let (sent, limit) = (identity.clone(), ack_limit(state.in_flight_bytes));
            state.next += 1;
            state.answers.push(Box::pin(async move { (id, hub.deliver(&sent, content, false, limit).await) }));
            state.in_flight.insert(id, InFlight { identity, candidate: file.candidate, bytes });
        }
    }

    fn may_send(&self, state: &State) -> bool {
        let held = state.held.as_ref().is_some_and(|held| held.until > Instant::now());
        !held && state.unwritten.is_empty() && self.progress.ledger_works.load(Relaxed)
    }

    /// Begins to read what may be sent next. Says whether more would be read if there were more.
    fn read_ahead(&self, state: &mut State) -> bool {
        // Before the first connection it is unknown how large a message may be.
        if !self.hub.nats.is_connected() || !self.may_send(state) {
            return false;
        }
        let files_max = if state.held.is_some() { 1 } else { self.max_inflight };
        loop {
            let wanted = state.reads.len() < READERS
                && state.ready.len() + state.reads.len() * BATCH_FILES < files_max.max(BATCH_FILES)
                && state.ready_bytes < AHEAD_BYTES
                && (state.buffers.in_use() < IN_USE_BYTES || state.in_flight.is_empty())
                && !(state.held.is_some() && !(state.ready.is_empty() && state.reads.is_empty()));
            if !wanted {
                return false;
            }
            let batch = self.queue.take(BATCH_FILES.min(files_max));
            if batch.is_empty() {
                return true;
            }
            let Some(root) = self.queue.root() else {
                self.queue.release(batch.iter().map(|c| &*c.name));
                return true;
            };
            let rules = Rules { whole_max_bytes: self.hub.whole_max_bytes() as u64, ..self.rules };
            let buffers = state.buffers.clone();
            let queue = self.queue.clone();
            let read = move || read::read_batch(&root, batch, &rules, BATCH_BYTES, &buffers, &queue);
            state.reads.push_back(spawn_blocking(read));
        }
    }

    fn take_read(&self, state: &mut State, read: Result<(Vec<Outcome>, Vec<Candidate>), JoinError>) {
        let Ok((outcomes, left)) = read else {
            error!("a reader panicked; the next scan finds its files again");
            return;
        };
        if !left.is_empty() {
            self.queue.put_back(left);
        }
        for outcome in outcomes {
            match outcome {
                Outcome::Loaded(file) => {
                    state.ready_bytes += file.content.len();
                    state.ready.push_back(file);
                }
                Outcome::Large(candidate) if state.large.len() < LARGE_WAITING_MAX => state.large.push_back(candidate),
                Outcome::Large(candidate) => self.queue.release([&*candidate.name]),
                Outcome::Not(candidate, fault) => {
                    if let Some(record) = set_aside(&self.queue, candidate, fault) {
                        state.unwritten.push_back(record);
                    }
                }
            }
        }
    }

    fn settle(&self, state: &mut State, id: u64, end: PublishOutcome) {
        // Unknown: given up as a straggler; if it was stored after all, its repetition is a duplicate.
        let Some(message) = state.in_flight.remove(&id) else { return };
        state.in_flight_bytes -= message.bytes;
        match end {
            PublishOutcome::Stored(stored) => {
                reached(Step::Acknowledged);
                state.room.acknowledged();
                if state.held.take().is_some() && self.progress.hold(Pipeline::Small, None) {
                    info!("sending again");
                }
                state.unwritten.push_back(Record::Delivered(delivered(
                    &self.hub,
                    message.identity,
                    message.candidate,
                    stored,
                )));
                self.try_record(state);
            }
            // The stream takes less than the server: its limit is not ours to know before.
            PublishOutcome::TooLarge => state.large.push_back(message.candidate),
            PublishOutcome::Hold(hold, detail) => {
                self.progress.retried();
                state.room.timed_out();
                self.hold(state, hold, detail);
                self.queue.put_back([with_another_attempt(message.candidate)]);
            }
        }
    }

    fn hold(&self, state: &mut State, hold: Hold, detail: String) {
        let now = Instant::now();
        let failures = match &state.held {
            // What was sent together fails together, and counts once.
            Some(held) if held.until > now => return,
            Some(held) => held.failures.saturating_add(1),
            None => 1,
        };
        state.held = Some(Pause { failures, until: now + pause(failures) });
        if self.progress.hold(Pipeline::Small, Some((hold, detail.clone()))) {
            warn!(reason = hold.as_str(), detail, "sending paused; the files stay");
            // A link that is down has its own lines.
            if hold != Hold::Unavailable {
                let note = Entry::note(Event::Error, format!("{}: {detail}", hold.as_str()));
                state.unwritten.push_back(Record::Note(note));
            }
        }
    }

    fn try_record(&self, state: &mut State) {
        while let Some(record) = state.unwritten.pop_front() {
            if let Err(record) = self.commits.try_record(record) {
                state.unwritten.push_front(record);
                return;
            }
        }
    }

    fn woken(&self, state: &mut State) {
        let now = Instant::now();
        if let Some((_, last)) = state.late_acks.take_if(|(at, _)| *at <= now) {
            let lost: Vec<u64> = state.in_flight.keys().copied().filter(|id| *id <= last).collect();
            for id in lost {
                let end =
                    PublishOutcome::Hold(Hold::Unavailable, "the link broke before the acknowledgement".to_owned());
                self.settle(state, id, end);
            }
        }
    }
}

/// The link came or went.
fn link_changed(state: &mut State, is_up: bool) {
    if !is_up {
        return;
    }
    let now = Instant::now();
    if let Some(held) = &mut state.held {
        held.until = held.until.min(now + pause(1));
    }
    // The hub has answered a question that was asked after all this was sent.
    if let Some(last) = state.in_flight.keys().copied().max() {
        state.late_acks = Some((now + LATE_ACK_WAIT, last));
    }
}

impl State {
    /// When to check again although nothing happens.
    fn wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let held = self.held.as_ref().map(|held| held.until).filter(|until| *until > now);
        // While the ledger does not work its return is not signalled.
        let room = (!self.unwritten.is_empty()).then(|| now + Duration::from_millis(20));
        let late_acks = self.late_acks.map(|(at, _)| at);
        let idle = Some(now + Duration::from_millis(250));
        [held, room, late_acks, self.not_before, idle].into_iter().flatten().min()
    }
}

/// What to do about a file that is not sent now. A line for the ledger when it is given up.
pub fn set_aside(queue: &Queue, candidate: Candidate, fault: Fault) -> Option<Record> {
    let (candidate, time) = match fault {
        Fault::Rejected(why) => return Some(Record::Rejected(candidate, why)),
        Fault::Failed(e) if candidate.attempts >= READ_TRIES_MAX => {
            return Some(Record::Rejected(candidate, format!("it could not be read {READ_TRIES_MAX} times: {e}")));
        }
        Fault::Gone => {
            queue.release([&*candidate.name]);
            return None;
        }
        Fault::Failed(e) => {
            warn!(error = %e, file = crate::names::encode(&candidate.name), "a file cannot be read now");
            let candidate = with_another_attempt(candidate);
            let time = pause(candidate.attempts + 3);
            (candidate, time)
        }
        Fault::Changing(time) => (Candidate { found: Arrival::Seen, ..candidate }, time),
        Fault::Open => {
            queue.found_open(&candidate.name);
            (Candidate { found: Arrival::Seen, ..candidate }, open_files::RECHECK_INTERVAL)
        }
    };
    queue.release([&*candidate.name]);
    queue.recheck_after(candidate, time);
    None
}

fn with_another_attempt(candidate: Candidate) -> Candidate {
    Candidate { attempts: candidate.attempts.saturating_add(1), ..candidate }
}

/// A file that the stream has, as it is written down.
pub fn delivered(hub: &HubClient, identity: FileIdentity, candidate: Candidate, stored: StoredMessage) -> Delivered {
    Delivered {
        name: identity.name,
        stamp: identity.stamp,
        msg_id: hub.msg_id(&identity.sha256).as_str().to_owned(),
        sha256: identity.sha256,
        stream: stored.stream,
        seq: stored.seq,
        domain: stored.domain,
        novelty: stored.novelty,
        metadata: identity.metadata,
        attempts: candidate.attempts + 1,
    }
}
