//! Finding files by events: hints, so that a new file is sent at once and not at the next scan.
//!
//! Relies on notify for inotify. Each directory is watched on its own and before it is read, so that no
//! file falls between the two; `.sent` and `quarantine` are not watched. What events cannot tell, because
//! the kernel's queue or ours was full, is found by the scan that is asked for then.

use crate::{
    directory::stamp::Found,
    discovery::scan::{Look, look},
    names,
    queue::{Queue, window::Candidate},
};
use notify::{
    Config, Event, EventKind, EventKindMask, INotifyWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode},
};
use std::{
    collections::{BinaryHeap, HashSet},
    hash::{BuildHasher, RandomState},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    time::{Duration, Instant},
};
use tracing::{debug, warn};

/// Hints that wait to be looked at; with more, everything is scanned.
const HINTS: usize = 8192;
/// Files that are looked at again when they may have settled; with more, everything is scanned then.
const LATER_MAX: usize = 65_536;
/// How often the oldest file that rests is looked for.
const OLDEST_EVERY: Duration = Duration::from_millis(500);

/// The events that the kernel is asked for: a new name, by creation or rename, or a writer closed its file. Not that we
/// opened, moved and removed one, which would be three more events for each file.
const KINDS: EventKindMask = EventKindMask::CREATE.union(EventKindMask::MODIFY_NAME).union(EventKindMask::ACCESS_CLOSE);

/// The watches on directories.
pub struct Watches {
    watcher: Mutex<Option<INotifyWatcher>>,
    /// An unwatched directory was reported.
    told: AtomicBool,
}

/// The hints, to be looked at by [`run`].
pub struct Hints {
    from: Receiver<Hint>,
    queue: Arc<Queue>,
}

/// A reason to look at a file.
#[derive(Debug)]
pub enum Hint {
    /// Something happened at this path.
    At(PathBuf, Cause),
    /// Look at this again at that time.
    Again(Candidate, Instant),
}

/// What happened to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A file or directory was made.
    Made,
    /// A writer closed it.
    Closed,
    /// It was renamed to this.
    Renamed,
}

impl Cause {
    /// What that says about a file. One whose writer has closed it may be opened again.
    const fn found(self) -> Found {
        match self {
            Self::Made | Self::Closed => Found::Seen,
            Self::Renamed => Found::Renamed,
        }
    }
}

/// Starts to watch; no directory yet. Without inotify (its instances may be used up) scans do all.
pub fn start(queue: &Arc<Queue>) -> (Watches, Hints) {
    let (hints, from) = sync_channel(HINTS);
    queue.set_hints(hints.clone());
    let told = queue.clone();
    let handler = move |event: notify::Result<Event>| match event {
        Ok(event) if event.need_rescan() => {
            debug!("the kernel's queue of events overflowed; scanning everything");
            told.writing().events_lost();
            told.want_full_scan();
        }
        Ok(event) => {
            let Some(cause) = caused_by(event.kind) else { return };
            for path in event.paths {
                if hints.try_send(Hint::At(path, cause)).is_err() {
                    told.writing().events_lost();
                    told.want_full_scan();
                }
            }
        }
        Err(error) => {
            debug!(%error, "inotify failed; scanning everything");
            told.want_full_scan();
        }
    };
    let config = Config::default().with_follow_symlinks(false).with_event_kinds(KINDS);
    let watcher = INotifyWatcher::new(handler, config);
    let watcher = watcher.map_err(|error| warn!(%error, "no inotify; files are found only by scans")).ok();
    (Watches { watcher: Mutex::new(watcher), told: AtomicBool::new(false) }, Hints { from, queue: queue.clone() })
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
        // One that was removed since does not matter.
        let is_told = !dir.exists() || self.told.swap(true, Ordering::SeqCst);
        if !is_told {
            let dir = dir.display();
            warn!(%error, %dir, "directories are not watched; their files are found only by scans, see SYNC_RESCAN and fs.inotify.max_user_watches");
        }
        !dir.exists()
    }

    /// Every directory is watched: the next unwatched one is reported again.
    pub fn all_are_watched(&self) {
        self.told.store(false, Ordering::SeqCst);
    }
}

/// Handles the hints until the queue is stopped.
pub fn run(hints: &Hints, settle: Duration) {
    let (mut later, mut looked) = (Waiting::default(), Instant::now());
    // Also the longest time until a stop is noticed.
    const IDLE: Duration = Duration::from_millis(250);
    while !hints.queue.is_stopping() {
        let wait = later.next_due().map_or(IDLE, |due| due.saturating_duration_since(Instant::now()).min(IDLE));
        match hints.from.recv_timeout(wait) {
            Ok(Hint::At(path, cause)) => look_at(hints, &mut later, &path, cause, settle),
            Ok(Hint::Again(candidate, due)) => hold(hints, &mut later, candidate, due),
            Err(RecvTimeoutError::Timeout) => {}
            // The queue has a sender, so this cannot be; ending is right all the same.
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(candidate) = later.due(Instant::now()) {
            again(hints, &mut later, candidate, settle);
        }
        hints.queue.resting.store(later.by_due.len() as u64, Ordering::SeqCst);
        // It looks at every file that rests, which is too much for each event.
        if looked.elapsed() >= OLDEST_EVERY {
            looked = Instant::now();
            *hints.queue.oldest_resting.lock().unwrap_or_else(PoisonError::into_inner) = later.oldest();
        }
    }
}

fn look_at(hints: &Hints, later: &mut Waiting, path: &Path, cause: Cause, settle: Duration) {
    let Some(root) = hints.queue.root() else { return };
    let Ok(below) = path.strip_prefix(root.path()) else { return };
    let name: Box<[u8]> = below.as_os_str().as_bytes().into();
    if !names::is_taken(&name) {
        return;
    }
    let (dir, last) = names::split(&name);
    let Ok(parent) = root.parent(dir) else { return };
    match cause {
        Cause::Made => hints.queue.writing().made(&name),
        Cause::Closed | Cause::Renamed => hints.queue.writing().closed(&name),
    }
    match look(&hints.queue, &parent, last, name.clone(), cause.found(), settle) {
        Look::Take(candidate) => hints.queue.hint(candidate),
        Look::Wait(candidate, time) => hold(hints, later, candidate, Instant::now() + time),
        Look::Directory => {
            hints.queue.writing().closed(&name);
            if names::is_entered(&name) {
                hints.queue.want_scan_below(&name);
            }
        }
        Look::Nothing => {}
    }
}

fn again(hints: &Hints, later: &mut Waiting, waited: Candidate, settle: Duration) {
    let Some(root) = hints.queue.root() else { return };
    let (dir, last) = names::split(&waited.name);
    let Ok(parent) = root.parent(dir) else { return };
    let (attempts, seen) = (waited.attempts, waited.seen);
    match look(&hints.queue, &parent, last, waited.name.clone(), waited.found, settle) {
        Look::Take(candidate) => hints.queue.hint(Candidate { attempts, seen, ..candidate }),
        Look::Wait(candidate, time) => {
            hold(hints, later, Candidate { attempts, seen, ..candidate }, Instant::now() + time);
        }
        Look::Directory | Look::Nothing => {}
    }
}

fn hold(hints: &Hints, later: &mut Waiting, candidate: Candidate, due: Instant) {
    if !later.add(candidate, due) {
        hints.queue.want_full_scan_in(due.saturating_duration_since(Instant::now()));
    }
}

/// Files that have to rest first, each once, soonest first.
#[derive(Default)]
struct Waiting {
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

impl Waiting {
    /// `false` when there is no room.
    fn add(&mut self, candidate: Candidate, due: Instant) -> bool {
        if !self.known.insert(self.hasher.hash_one(&candidate.name)) {
            return true;
        }
        if self.by_due.len() >= LATER_MAX {
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
        assert_eq!(complete, [Found::Seen, Found::Seen, Found::Renamed]);
    }

    #[test]
    fn files_rest_once_each_and_the_soonest_comes_first() {
        let file = |name: &str| Candidate::new(name.as_bytes().into(), 0, Found::Seen);
        let now = Instant::now();
        let mut waiting = Waiting::default();
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
