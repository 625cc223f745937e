//! How the work goes: what metrics, /readyz and /status show. Written by all parts, decided by none.

use crate::{
    metrics::Handles,
    names,
    outcome::{Hold, Novelty},
    pace::RateMeter,
    queue::{LeftAlone, Queue},
};
use agentforge_message_id::Site;
use agentforge_runtime::Gate;
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};
use tokio::sync::Notify;

/// What `/status` answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The name of the site.
    pub site: String,
    /// The replay directory.
    pub queue_dir: String,
    /// The ledger's directory.
    pub ledger_dir: String,
    /// Where messages go.
    pub subject: String,
    /// The hub's domain, where set.
    pub domain: Option<String>,
    /// Whether the hub (or, without one, the server) answers.
    pub link_up: bool,
    /// Files that are left where they are: unfinished or hidden by their names, or no files at all.
    #[serde(default)]
    pub left_alone: LeftAlone,
    /// Why nothing is sent now.
    pub held: Option<Held>,
    /// The same for large files, which are sent separately.
    pub large_held: Option<Held>,
    /// Files not removed yet.
    pub queue_depth: u64,
    /// Whether all of them were counted; before that the depth is what is known so far.
    #[serde(default)]
    pub counted: bool,
    /// Files that are done with and cannot be removed, and why the last of them cannot.
    #[serde(default)]
    pub stuck: FileSample,
    /// Files that wait because a process has them open for writing.
    #[serde(default)]
    pub open: FileSample,
    /// Messages without an acknowledgement.
    pub in_flight: u64,
    /// Time since the file was seen first that waits for longest, seconds.
    pub oldest_file_age_s: f64,
    /// Bits per second over the last 5 s.
    pub bandwidth_bps: f64,
    /// Files since the start that were stored.
    pub replayed: u64,
    /// Files since the start whose content was there.
    pub duplicates: u64,
    /// Files since the start that the stream had because this daemon sent them before it was stopped.
    #[serde(default)]
    pub recovered: u64,
    /// Files since the start that can never be sent.
    pub quarantined: u64,
    /// Publishes since the start that failed and were or will be repeated.
    pub retried: u64,
    /// Bytes delivered since the start.
    pub bytes: u64,
}

/// How many files, and which.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSample {
    /// How many files.
    pub files: u64,
    /// The names of the first twenty, percent-encoded.
    pub names: Vec<String>,
    /// Why, where there is something to say.
    pub reason: String,
}

/// Why nothing is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// `unavailable`, `full`, `refused`, `wrong_domain` or `ledger`.
    pub reason: String,
    /// The reason in words, for people.
    pub detail: String,
}

/// What is held each for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipeline {
    /// Files that fit a message.
    Small,
    /// Files that go in chunks.
    Large,
    /// Both, by the ledger.
    Ledger,
}

/// Counters and states of one daemon.
pub struct Progress {
    handles: Handles,
    gate: Gate,
    /// Shows whether delivered files can be removed.
    removal: Gate,
    held: Mutex<[Option<(Hold, String)>; 3]>,
    meter: Mutex<RateMeter>,
    bandwidth_bits: AtomicU64,
    sent_bytes: AtomicU64,
    replayed: AtomicU64,
    duplicates: AtomicU64,
    recovered: AtomicU64,
    quarantined: AtomicU64,
    retried: AtomicU64,
    bytes: AtomicU64,
    /// For how long the oldest file is known, at the last tick; milliseconds.
    oldest_ms: AtomicU64,
    /// Messages without an acknowledgement.
    pub in_flight: AtomicU64,
    /// Whether the hub answers.
    pub link_up: AtomicBool,
    /// Whether the ledger takes lines.
    pub ledger_works: AtomicBool,
    /// The hash of its newest line.
    ledger_end: Mutex<[u8; 32]>,
    /// Rings when a message found no stream.
    pub stream_missed: Notify,
}

impl Progress {
    /// Nothing has happened yet. `gate` shows whether delivery is held, `removal` whether what is delivered can be
    /// removed; both hold no readiness.
    pub fn new(site: &Site, gate: Gate, removal: Gate) -> Self {
        gate.set(true, "delivering");
        removal.set(true, REMOVAL_WORKS);
        Self {
            handles: Handles::new(site),
            gate,
            removal,
            held: Mutex::default(),
            meter: Mutex::default(),
            bandwidth_bits: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            recovered: AtomicU64::new(0),
            quarantined: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            oldest_ms: AtomicU64::new(0),
            link_up: AtomicBool::new(false),
            ledger_works: AtomicBool::new(true),
            ledger_end: Mutex::default(),
            stream_missed: Notify::new(),
        }
    }

    /// The ledger ends with this line now.
    pub fn ledger_ends_with(&self, hash: [u8; 32]) {
        *self.ledger_end.lock().unwrap_or_else(PoisonError::into_inner) = hash;
    }

    /// The hash of the ledger's newest line that is synced.
    pub fn ledger_end(&self) -> [u8; 32] {
        *self.ledger_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that went to the uplink.
    pub fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// A file is delivered and in the ledger.
    pub fn delivered(&self, novelty: Novelty, bytes: u64) {
        let (total, counter) = match novelty {
            Novelty::New => (&self.replayed, &self.handles.replayed),
            Novelty::Recovered => (&self.recovered, &self.handles.recovered),
            Novelty::Duplicate => (&self.duplicates, &self.handles.duplicate),
        };
        total.fetch_add(1, Relaxed);
        counter.increment(1);
        self.bytes.fetch_add(bytes, Relaxed);
        self.handles.bytes.increment(bytes);
    }

    /// A file can never be sent.
    pub fn quarantined(&self) {
        self.quarantined.fetch_add(1, Relaxed);
        self.handles.quarantined.increment(1);
    }

    /// A publish failed.
    pub fn retried(&self) {
        self.retried.fetch_add(1, Relaxed);
        self.handles.retried.increment(1);
    }

    /// A pipeline is held, or free. Says whether that is a change.
    pub fn hold(&self, lane: Pipeline, by: Option<(Hold, String)>) -> bool {
        let (is_new, shown) = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let kind = |h: &Option<(Hold, String)>| h.as_ref().map(|(hold, _)| *hold);
            let is_new = kind(&held[lane as usize]) != kind(&by);
            held[lane as usize] = by;
            (is_new, held.iter().rev().flatten().next().cloned())
        };
        if is_new {
            self.handles.held(shown.as_ref().map(|(hold, _)| *hold));
            match shown {
                Some((hold, detail)) => self.gate.set(false, format!("back-pressure ({}): {detail}", hold.as_str())),
                None => self.gate.set(true, "delivering"),
            }
        }
        is_new
    }

    /// Brings the gauges up to date; called at a steady pace.
    pub fn tick(&self, queue: &Queue) {
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        let bps = meter.rate_bps(self.sent_bytes.swap(0, Relaxed), Instant::now());
        self.bandwidth_bits.store(bps.to_bits(), Relaxed);
        self.handles.bandwidth.set(bps);
        if queue.is_counted() {
            self.handles.depth(queue.depth());
        }
        // It reads every known file, which is too much for each question.
        let age = queue.oldest().map_or(0, |seen| u64::try_from(seen.elapsed().as_millis()).unwrap_or(u64::MAX));
        self.oldest_ms.store(age, Relaxed);
        self.handles.oldest_age.set(self.oldest_age_s());
        let left = queue.left_alone();
        self.handles.left_alone.set(left.files as f64);
        self.handles.left_alone_age.set(left.oldest_age_s);
        self.handles.in_quarantine.set(left.quarantined as f64);
        self.handles.unwatched.set(queue.unwatched.load(Relaxed) as f64);
        self.handles.open.set(queue.open_files().open(Instant::now()).0 as f64);
        let stuck = stuck(queue);
        self.handles.stuck.set(stuck.files as f64);
        match stuck.files {
            0 => self.removal.set(true, REMOVAL_WORKS),
            n => {
                let (names, reason) = (stuck.names.join(", "), stuck.reason);
                let text = format!(
                    "{n} files that are done with cannot be removed and are not sent again: {reason} ({names})"
                );
                self.removal.set(false, text);
            }
        }
    }

    fn oldest_age_s(&self) -> f64 {
        self.oldest_ms.load(Relaxed) as f64 / 1e3
    }

    /// Fills in what is known here.
    pub fn fill(&self, status: &mut Status, queue: &Queue) {
        let shown = |held: &Option<(Hold, String)>| {
            held.as_ref().map(|(hold, detail)| Held { reason: hold.as_str().to_owned(), detail: detail.clone() })
        };
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ledger = &held[Pipeline::Ledger as usize];
        status.held = shown(if ledger.is_some() { ledger } else { &held[Pipeline::Small as usize] });
        status.large_held = shown(&held[Pipeline::Large as usize]);
        status.link_up = self.link_up.load(Relaxed);
        status.queue_depth = queue.depth();
        status.counted = queue.is_counted();
        status.stuck = stuck(queue);
        let (files, names) = queue.open_files().open(Instant::now());
        status.open =
            FileSample { files, names: names.iter().map(|name| names::encode(name)).collect(), reason: String::new() };
        status.in_flight = self.in_flight.load(Relaxed);
        status.oldest_file_age_s = self.oldest_age_s();
        status.bandwidth_bps = f64::from_bits(self.bandwidth_bits.load(Relaxed));
        status.replayed = self.replayed.load(Relaxed);
        status.duplicates = self.duplicates.load(Relaxed);
        status.recovered = self.recovered.load(Relaxed);
        status.left_alone = queue.left_alone();
        status.quarantined = self.quarantined.load(Relaxed);
        status.retried = self.retried.load(Relaxed);
        status.bytes = self.bytes.load(Relaxed);
    }
}

/// What the gate says while every delivered file goes.
const REMOVAL_WORKS: &str = "delivered files are removed";

fn stuck(queue: &Queue) -> FileSample {
    let found = queue.stuck();
    FileSample {
        files: found.files,
        names: found.names.iter().map(|name| names::encode(name)).collect(),
        reason: found.reason,
    }
}
