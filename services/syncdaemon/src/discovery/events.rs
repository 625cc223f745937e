//! Finding files by events: hints, so that a new file is sent at once and not at the next scan.
//!
//! Relies on notify for inotify. Each directory is watched on its own and before it is read, so that no
//! file falls between the two; `.sent` and `quarantine` are not watched. What events cannot report, because
//! the kernel's queue or ours was full, is found by the scan that is asked for then.

use crate::{
    discovery::inspect::{Inspection, inspect},
    names,
    queue::{
        Queue,
        hints::{Cause, Hint},
        window::Candidate,
    },
};
use notify::{
    Config, Event, EventKind, EventKindMask, INotifyWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode},
};
use std::{
    collections::{BinaryHeap, HashSet},
    hash::{BuildHasher, RandomState},
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    time::{Duration, Instant},
};
use tracing::{debug, warn};

/// Hints that wait to be inspected; with more, everything is scanned.
const HINTS_MAX: usize = 8192;
/// Files that are checked again when they may have settled; with more, everything is scanned then.
const RESTING_MAX: usize = 65_536;
/// How often the oldest file that rests is searched for.
const OLDEST_INTERVAL: Duration = Duration::from_millis(500);

/// What the kernel is asked to report: a name came, by creation or rename, or a writer closed its file. Not that
/// we opened, moved and removed one, which would be three more events for each file.
const KINDS: EventKindMask = EventKindMask::CREATE.union(EventKindMask::MODIFY_NAME).union(EventKindMask::ACCESS_CLOSE);

/// The watches on directories.
pub struct Watches {
    watcher: Mutex<Option<INotifyWatcher>>,
    /// That one is not watched was reported.
    was_reported: AtomicBool,
}

/// The hints, to be inspected by [`run`].
pub struct Hints {
    from: Receiver<Hint>,
    queue: Arc<Queue>,
}

/// Starts to watch; no directory yet. Without inotify (its instances may be used up) scans do all.
pub fn start(queue: &Arc<Queue>) -> (Watches, Hints) {
    let (hints, from) = sync_channel(HINTS_MAX);
    queue.set_hints(hints.clone());
    let was_reported = queue.clone();
    let handler = move |event: notify::Result<Event>| match event {
        Ok(event) if event.need_rescan() => {
            debug!("the kernel's queue of events overflowed; scanning everything");
            was_reported.open_files().events_lost();
            was_reported.want_full_scan();
        }
        Ok(event) => {
            let Some(cause) = caused_by(event.kind) else { return };
            for path in event.paths {
                if hints.try_send(Hint::At(path, cause)).is_err() {
                    was_reported.open_files().events_lost();
                    was_reported.want_full_scan();
                }
            }
        }
        Err(error) => {
            debug!(%error, "inotify failed; scanning everything");
            was_reported.want_full_scan();
        }
    };
    let config = Config::default().with_follow_symlinks(false).with_event_kinds(KINDS);
    let watcher = INotifyWatcher::new(handler, config);
    let watcher = watcher.map_err(|error| warn!(%error, "no inotify; files are found only by scans")).ok();
    (
        Watches { watcher: Mutex::new(watcher), was_reported: AtomicBool::new(false) },
        Hints { from, queue: queue.clone() },
    )
}

/// What an event says about a file; `None` for events that bring none.
fn caused_by(kind: EventKind) -> Option<Cause> {
    match kind {
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Cause::Renamed),
        EventKind::Create(CreateKind::File | CreateKind::Folder | CreateKind::Any) => Some(Cause::Made),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Cause::Closed),
        _ => None,
    }
}

impl Watches {
    /// Watches a directory; harmless when it is watched already. Says whether it is watched now.
    pub fn watch(&self, dir: &Path) -> bool {
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watcher) = watcher.as_mut() else { return false };
        let Err(error) = watcher.watch(dir, RecursiveMode::NonRecursive) else { return true };
        debug!(%error, dir = %dir.display(), "directory not watched; scans find its files");
        // One that was removed since is not a loss.
        let is_reported = !dir.exists() || self.was_reported.swap(true, Ordering::SeqCst);
        if !is_reported {
            let dir = dir.display();
            warn!(%error, %dir, "directories are not watched; their files are found only by scans, see SYNC_RESCAN and fs.inotify.max_user_watches");
        }
        !dir.exists()
    }

    /// Every directory is watched: the next that is not is reported again.
    pub fn all_are_watched(&self) {
        self.was_reported.store(false, Ordering::SeqCst);
    }
}

/// Inspects what the hints name until the queue is stopped.
pub fn run(hints: &Hints, settle: Duration) {
    let (mut later, mut checked) = (RestingFiles::default(), Instant::now());
    // Also the longest time until a stop is noticed.
    const IDLE_WAIT_MAX: Duration = Duration::from_millis(250);
    while !hints.queue.is_stopping() {
        let wait = later
            .next_due()
            .map_or(IDLE_WAIT_MAX, |due| due.saturating_duration_since(Instant::now()).min(IDLE_WAIT_MAX));
        match hints.from.recv_timeout(wait) {
            Ok(Hint::At(path, cause)) => inspect_path(hints, &mut later, &path, cause, settle),
            Ok(Hint::Again(candidate, due)) => rest(hints, &mut later, candidate, due),
            Err(RecvTimeoutError::Timeout) => {}
            // The queue has a sender, so this cannot be; ending is right all the same.
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(candidate) = later.due(Instant::now()) {
            inspect_rested(hints, &mut later, candidate, settle);
        }
        hints.queue.resting.store(later.by_due.len() as u64, Ordering::SeqCst);
        // It reads every file that rests, which is too much for each event.
        if checked.elapsed() >= OLDEST_INTERVAL {
            checked = Instant::now();
            *hints.queue.oldest_resting.lock().unwrap_or_else(PoisonError::into_inner) = later.oldest();
        }
    }
}

fn inspect_path(hints: &Hints, later: &mut RestingFiles, path: &Path, cause: Cause, settle: Duration) {
    let Some(root) = hints.queue.root() else { return };
    let Ok(below) = path.strip_prefix(root.path()) else { return };
    let name: Box<[u8]> = below.as_os_str().as_bytes().into();
    if !names::is_taken(&name) {
        return;
    }
    let (dir, last) = names::split(&name);
    let Ok(parent) = root.parent(dir) else { return };
    match cause {
        Cause::Made => hints.queue.open_files().made(&name),
        Cause::Closed | Cause::Renamed => hints.queue.open_files().closed(&name),
    }
    match inspect(&hints.queue, &parent, last, name.clone(), cause.found(), settle) {
        Inspection::Ready(candidate) => hints.queue.hint(candidate),
        Inspection::Wait(candidate, time) => rest(hints, later, candidate, Instant::now() + time),
        Inspection::Directory => {
            hints.queue.open_files().closed(&name);
            if names::is_entered(&name) {
                hints.queue.want_scan_below(&name);
            }
        }
        Inspection::Ignored => {}
    }
}

fn inspect_rested(hints: &Hints, later: &mut RestingFiles, waited: Candidate, settle: Duration) {
    let Some(root) = hints.queue.root() else { return };
    let (dir, last) = names::split(&waited.name);
    let Ok(parent) = root.parent(dir) else { return };
    let (attempts, seen) = (waited.attempts, waited.seen);
    match inspect(&hints.queue, &parent, last, waited.name.clone(), waited.found, settle) {
        Inspection::Ready(candidate) => hints.queue.hint(Candidate { attempts, seen, ..candidate }),
        Inspection::Wait(candidate, time) => {
            rest(hints, later, Candidate { attempts, seen, ..candidate }, Instant::now() + time);
        }
        Inspection::Directory | Inspection::Ignored => {}
    }
}

fn rest(hints: &Hints, later: &mut RestingFiles, candidate: Candidate, due: Instant) {
    if !later.add(candidate, due) {
        hints.queue.want_full_scan_in(due.saturating_duration_since(Instant::now()));
    }
}

/// Files that have to rest first, each once, soonest first.
#[derive(Default)]
struct RestingFiles {
    by_due: BinaryHeap<Due>,
    known: HashSet<u64>,
    hasher: RandomState,
}

struct Due(std::cmp::Reverse<Instant>, Candidate);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Due {}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl RestingFiles {
    /// `false` when there is no room.
    fn add(&mut self, candidate: Candidate, due: Instant) -> bool {
        if !self.known.insert(self.hasher.hash_one(&candidate.name)) {
            return true;
        }
        if self.by_due.len() >= RESTING_MAX {
            self.known.remove(&self.hasher.hash_one(&candidate.name));
            return false;
        }
        self.by_due.push(Due(std::cmp::Reverse(due), candidate));
        true
    }

    /// When the file was seen first that is known for longest.
    fn oldest(&self) -> Option<Instant> {
        self.by_due.iter().map(|due| due.1.seen).min()
    }

    fn next_due(&self) -> Option<Instant> {
        self.by_due.peek().map(|due| due.0.0)
    }

    fn due(&mut self, now: Instant) -> Option<Candidate> {
        if self.next_due()? > now {
            return None;
        }
        let Due(_, candidate) = self.by_due.pop()?;
        self.known.remove(&self.hasher.hash_one(&candidate.name));
        Some(candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::stamp::Arrival;

    #[test]
    fn only_a_rename_is_complete_by_itself() {
        use notify::event::{DataChange, MetadataKind, RemoveKind};
        let cases = [
            (EventKind::Modify(ModifyKind::Name(RenameMode::To)), Some(Cause::Renamed)),
            (EventKind::Create(CreateKind::File), Some(Cause::Made)),
            (EventKind::Create(CreateKind::Folder), Some(Cause::Made)),
            (EventKind::Access(AccessKind::Close(AccessMode::Write)), Some(Cause::Closed)),
            (EventKind::Modify(ModifyKind::Name(RenameMode::From)), None),
            (EventKind::Modify(ModifyKind::Name(RenameMode::Both)), None),
            (EventKind::Modify(ModifyKind::Data(DataChange::Any)), None),
            (EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)), None),
            (EventKind::Access(AccessKind::Open(AccessMode::Any)), None),
            (EventKind::Remove(RemoveKind::File), None),
            (EventKind::Other, None),
        ];
        for (kind, expected) in cases {
            assert_eq!(caused_by(kind), expected, "{kind:?}");
        }
        let complete = [Cause::Made, Cause::Closed, Cause::Renamed].map(Cause::found);
        assert_eq!(complete, [Arrival::Seen, Arrival::Seen, Arrival::Renamed]);
    }

    #[test]
    fn files_rest_once_each_and_the_soonest_comes_first() {
        let file = |name: &str| Candidate::new(name.as_bytes().into(), 0, Arrival::Seen);
        let now = Instant::now();
        let mut waiting = RestingFiles::default();
        assert!(waiting.add(file("b"), now + Duration::from_secs(2)));
        assert!(waiting.add(file("a"), now + Duration::from_secs(1)));
        assert!(waiting.add(file("a"), now + Duration::from_secs(9)));
        assert!(waiting.due(now).is_none());
        let later = now + Duration::from_secs(3);
        let names: Vec<_> = std::iter::from_fn(|| waiting.due(later)).map(|c| c.name).collect();
        assert_eq!(names, [b"a"[..].into(), Box::<[u8]>::from(&b"b"[..])]);
        assert_eq!(waiting.next_due(), None);
    }
}
