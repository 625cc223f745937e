//! The queue: the window and the directory behind it, shared by those who find files and those who send
//! them.
//!
//! Finders are threads and wait for room; the sender is a task and is notified of arrivals. Nothing here
//! decides; the window's rules are in `window`.

pub mod hints;
pub mod open_files;
pub mod removals;
pub mod stuck;
pub mod window;

use crate::{
    directory::{Root, stamp::Stamp},
    names,
    queue::{
        hints::Hint,
        open_files::OpenFiles,
        removals::{Removal, SentFile},
        stuck::{Disposition, Known, Stuck, Summary},
        window::{Candidate, Offer, Window},
    },
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc::SyncSender,
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tracing::{info, warn};

/// What finders and sender share.
#[derive(Debug, Default)]
pub struct Queue {
    window: Mutex<Window>,
    room: Condvar,
    /// Rings when a file may be taken.
    pub arrived: Notify,
    root: RwLock<Option<Arc<Root>>>,
    hints: OnceLock<SyncSender<Hint>>,
    scan: Mutex<ScanWanted>,
    scan_wanted: Condvar,
    /// The first scan is over or has filled the window: the oldest file is known.
    opened: AtomicBool,
    /// Files that left the replay directory through us.
    removed: AtomicU64,
    /// Files that are known and rest until they are checked again.
    pub resting: AtomicU64,
    /// When the file among them was seen first that is known for longest.
    pub oldest_resting: Mutex<Option<Instant>>,
    /// Files in `.sent`.
    pub in_sent: AtomicU64,
    /// Those among them that could not be unlinked.
    pub stuck_in_sent: AtomicU64,
    /// Directories that inotify does not watch.
    pub unwatched: AtomicU64,
    left_alone: Mutex<LeftAlone>,
    stuck: Mutex<Stuck>,
    open_files: Mutex<OpenFiles>,
    /// Sidecars whose files are in `.sent`, by file.
    held_sidecars: Mutex<HashSet<(u64, u64)>>,
    removals: Mutex<(Vec<Removal>, Vec<SentFile>)>,
    depth: Mutex<Option<Census>>,
    stopping: AtomicBool,
}

/// What the scanner is asked for.
#[derive(Debug, Default)]
struct ScanWanted {
    /// Everything, not later than at this time.
    full: Option<Instant>,
    /// Directories that may have come with files inside.
    below: Vec<Box<[u8]>>,
}

/// What the scanner is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan {
    /// Read every directory, also those that were read before.
    Full,
    /// Read these directories.
    Below(Vec<Box<[u8]>>),
    /// The daemon stops.
    Stop,
}

/// The last count of all files.
#[derive(Debug, Default, Clone, Copy)]
struct Census {
    files: u64,
    /// How many had been removed when the count began.
    removed: u64,
}

/// What is left where it is, at the last count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LeftAlone {
    /// Hidden and unfinished names, symlinks, devices and the like. A directory among them counts as one.
    pub files: u64,
    /// Time since the last change of the oldest, seconds.
    pub oldest_age_s: f64,
    /// Files in `quarantine/`.
    pub quarantined: u64,
}

/// Directories that wait to be read; with more, everything is read.
const DIRECTORIES_MAX: usize = 256;

impl Queue {
    /// The directory, while there is one.
    pub fn root(&self) -> Option<Arc<Root>> {
        self.root.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the directory, or that it is unavailable.
    pub fn set_root(&self, root: Option<Arc<Root>>) {
        *self.root.write().unwrap_or_else(PoisonError::into_inner) = root;
        self.room.notify_all();
    }

    /// Offers a file that a scan found, waiting for room. `false` when the scan has to end: the directory
    /// was replaced, or the daemon stops.
    pub fn offer(&self, candidate: &Candidate, root: &Arc<Root>) -> bool {
        let mut window = self.window();
        loop {
            if self.is_stopping() || !self.root().is_some_and(|now| Arc::ptr_eq(&now, root)) {
                return false;
            }
            match window.offer(candidate.clone()) {
                Offer::Full => {
                    self.open();
                    window = self.room.wait(window).unwrap_or_else(PoisonError::into_inner);
                }
                Offer::Added => {
                    drop(window);
                    self.arrived.notify_one();
                    return true;
                }
                Offer::Known => return true,
            }
        }
    }

    /// Offers a file that an event reported. Without room it is left to a scan.
    pub fn hint(&self, candidate: Candidate) {
        let offer = self.window().hint(candidate);
        match offer {
            Offer::Added => self.arrived.notify_one(),
            Offer::Full => self.want_full_scan(),
            Offer::Known => {}
        }
    }

    /// Takes up to `max` files, the next to be sent first.
    pub fn take(&self, max: usize) -> Vec<Candidate> {
        let mut window = self.window();
        let taken: Vec<_> = std::iter::from_fn(|| window.take()).take(max).collect();
        // Half a window of room is worth a wake-up; waking for each file would cost more than the file.
        if window.waiting() < crate::queue::window::FILES_MAX / 2 && !taken.is_empty() {
            self.room.notify_all();
        }
        taken
    }

    /// Puts files back that could not be sent now.
    pub fn put_back(&self, candidates: impl IntoIterator<Item = Candidate>) {
        let mut window = self.window();
        candidates.into_iter().for_each(|candidate| window.put_back(candidate));
        drop(window);
        self.arrived.notify_one();
    }

    /// Is done with files, removed or not; a later scan may find them again. A name that an event reported
    /// meanwhile is checked once more.
    pub fn release<'a>(&self, names: impl IntoIterator<Item = &'a [u8]>) {
        let mut window = self.window();
        let hinted: Vec<_> = names.into_iter().filter_map(|name| Some((name, window.release(name)?))).collect();
        drop(window);
        for (name, found) in hinted {
            self.recheck_after(Candidate::new(name.into(), 0, found), Duration::ZERO);
        }
    }

    /// Checks a file again after a time.
    pub fn recheck_after(&self, candidate: Candidate, time: Duration) {
        let hint = Hint::Again(candidate, Instant::now() + time);
        if self.hints.get().is_none_or(|hints| hints.try_send(hint).is_err()) {
            self.want_full_scan_in(time);
        }
    }

    /// Where files go that have to be checked again; set once.
    pub fn set_hints(&self, hints: SyncSender<Hint>) {
        let _ = self.hints.set(hints);
    }

    /// Counts files that left the directory through us.
    pub fn count_removed(&self, files: u64) {
        self.removed.fetch_add(files, SeqCst);
    }

    /// How many files wait to be taken, and how many are known in all.
    pub fn known(&self) -> (usize, usize) {
        let window = self.window();
        (window.waiting(), window.known())
    }

    /// When the file was seen first that is known for longest.
    pub fn oldest(&self) -> Option<Instant> {
        let resting = *lock(&self.oldest_resting);
        [self.window().oldest(), resting].into_iter().flatten().min()
    }

    /// A file that is done with could not be removed: it is remembered, logged once, and tried again later.
    pub fn mark_stuck(&self, name: &[u8], stamp: Stamp, done: Disposition, error: &io::Error) {
        if lock(&self.stuck).add(name, stamp, done, error.to_string(), Instant::now()) {
            let file = names::encode(name);
            warn!(%error, file, "a delivered file cannot be removed; not sent again, removal is retried at growing intervals");
        }
    }

    /// A file is gone, perhaps one that could not be removed before.
    pub fn clear_stuck(&self, stamp: &Stamp) {
        let mut stuck = lock(&self.stuck);
        if !stuck.is_empty() && stuck.forget(stamp) {
            info!("all delivered files are removed");
        }
    }

    /// Whether this file is one that could not be removed. One whose removal is due is handed to the remover.
    pub fn is_done_with(&self, candidate: &Candidate, stamp: &Stamp) -> bool {
        let known = {
            let mut stuck = lock(&self.stuck);
            if stuck.is_empty() { Known::No } else { stuck.check(stamp, Instant::now()) }
        };
        let removal = match known {
            Known::No => return false,
            Known::Wait => return true,
            Known::Try(Disposition::Sent(hash), sent) => Removal::Sent(candidate.name.clone(), sent, hash, None),
            Known::Try(Disposition::Rejected, _) => {
                Removal::Quarantine(candidate.clone(), "as it was written down".to_owned())
            }
        };
        lock(&self.removals).0.push(removal);
        true
    }

    /// Whether no more files can be remembered that cannot be removed.
    pub fn is_full_of_stuck(&self) -> bool {
        lock(&self.stuck).is_full()
    }

    /// A scan that began then has read everything.
    pub fn scanned_all(&self, since: Instant) {
        if lock(&self.stuck).forget_unmet(since) {
            info!("all delivered files are gone");
        }
    }

    /// The files that could not be removed.
    pub fn stuck(&self) -> Summary {
        let summary = lock(&self.stuck).summary();
        Summary { files: summary.files + self.stuck_in_sent.load(SeqCst), ..summary }
    }

    /// A sidecar's file is in `.sent`: it is alone, and still not a file like others.
    pub fn hold_sidecar(&self, sidecar: &Stamp) {
        lock(&self.held_sidecars).insert((sidecar.dev, sidecar.ino));
    }

    /// The sidecar's file is gone, or back.
    pub fn release_sidecar(&self, sidecar: &Stamp) {
        lock(&self.held_sidecars).remove(&(sidecar.dev, sidecar.ino));
    }

    /// Whether [`Self::hold_sidecar`] was called for this sidecar.
    pub fn is_sidecar_held(&self, sidecar: &Stamp) -> bool {
        lock(&self.held_sidecars).contains(&(sidecar.dev, sidecar.ino))
    }

    /// Leaves files of `.sent` to the remover.
    pub fn adopt_sent(&self, left: Vec<SentFile>) {
        self.in_sent.fetch_add(left.len() as u64, SeqCst);
        lock(&self.removals).1.extend(left);
    }

    /// What the remover is to do in addition to what comes from the ledger.
    pub fn take_removals(&self) -> (Vec<Removal>, Vec<SentFile>) {
        std::mem::take(&mut *lock(&self.removals))
    }

    /// What is left where it is, at the last count.
    pub fn left_alone(&self) -> LeftAlone {
        *lock(&self.left_alone)
    }

    /// Sets what is left where it is, after a count.
    pub fn set_left_alone(&self, left: LeftAlone) {
        *lock(&self.left_alone) = left;
    }

    /// What is known of writers.
    pub fn open_files(&self) -> MutexGuard<'_, OpenFiles> {
        lock(&self.open_files)
    }

    /// A file is open for writing.
    pub fn found_open(&self, name: &[u8]) {
        self.open_files().found_open(name, Instant::now());
    }

    /// Begins a count of all files.
    pub fn census_begins(&self) -> u64 {
        self.removed.load(SeqCst)
    }

    /// Ends a count that began when so many had been removed.
    pub fn census_ends(&self, files: u64, removed: u64) {
        *lock(&self.depth) = Some(Census { files, removed });
    }

    /// Files that are not removed yet: the last count less what was removed since, and never less than
    /// what is known, so that 0 means drained. Before the first count it is no more than what is known.
    pub fn depth(&self) -> u64 {
        let census = lock(&self.depth).unwrap_or_default();
        let since = self.removed.load(SeqCst).saturating_sub(census.removed);
        let known = self.known().1 as u64 + self.resting.load(SeqCst);
        census.files.saturating_sub(since).max(known) + self.in_sent.load(SeqCst)
    }

    /// Whether all files were counted at least once.
    pub fn is_counted(&self) -> bool {
        lock(&self.depth).is_some()
    }

    /// Asks for everything to be read now.
    pub fn want_full_scan(&self) {
        self.want_full_scan_in(Duration::ZERO);
    }

    /// Asks for everything to be read not later than after a time.
    pub fn want_full_scan_in(&self, time: Duration) {
        let mut scan = self.scan.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now() + time;
        scan.full = Some(scan.full.map_or(at, |planned| planned.min(at)));
        self.scan_wanted.notify_all();
    }

    /// Asks for a directory to be read.
    pub fn want_scan_below(&self, dir: &[u8]) {
        let mut scan = self.scan.lock().unwrap_or_else(PoisonError::into_inner);
        match scan.below.len() {
            DIRECTORIES_MAX.. => scan.full = Some(Instant::now()),
            _ => scan.below.push(dir.into()),
        }
        self.scan_wanted.notify_all();
    }

    /// Waits for a reason to scan, at most until `by`, which is one itself.
    pub fn next_scan(&self, by: Instant) -> Scan {
        let mut scan = self.scan.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.is_stopping() {
                return Scan::Stop;
            }
            let due = scan.full.map_or(by, |at| at.min(by));
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                *scan = ScanWanted::default();
                return Scan::Full;
            }
            if !scan.below.is_empty() {
                return Scan::Below(std::mem::take(&mut scan.below));
            }
            scan = self.scan_wanted.wait_timeout(scan, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The oldest file is known: sending may begin.
    pub fn open(&self) {
        if !self.opened.swap(true, SeqCst) {
            self.arrived.notify_one();
        }
    }

    /// Whether [`Self::open`] was called.
    pub fn is_open(&self) -> bool {
        self.opened.load(SeqCst)
    }

    /// Ends every wait.
    pub fn stop(&self) {
        self.stopping.store(true, SeqCst);
        drop(self.window());
        self.room.notify_all();
        drop(self.scan.lock().unwrap_or_else(PoisonError::into_inner));
        self.scan_wanted.notify_all();
        self.arrived.notify_one();
    }

    /// Whether [`Self::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Sleeps unless stopped.
    pub fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        let mut scan = self.scan.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.is_stopping() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            scan = self.scan_wanted.wait_timeout(scan, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        lock(&self.window)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
