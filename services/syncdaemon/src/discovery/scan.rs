//! Finding files by reading the directory: the truth, where events are hints.
//!
//! Two threads: the scanner offers files to the window and waits when it is full; the census only counts
//! them, so that the depth of a queue of a million is known although its list is not.

use crate::{
    directory::{
        self, Parent, Root, now_ns,
        stamp::Arrival,
        walk::{Visit, walk},
    },
    discovery::{
        events::Watches,
        inspect::{Inspection, inspect},
    },
    names,
    queue::{LeftAlone, Queue, Scan},
};
use std::{
    ffi::CStr,
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};
use tracing::{debug, warn};

/// Between two counts, at least: a fraction of what a person notices.
const COUNT_INTERVAL_MIN: Duration = Duration::from_secs(2);
/// A count may take this share of the time: a large tree is counted less often.
const COUNT_TIME_SHARE: u32 = 20;
/// Empty directories that are removed after one scan.
const EMPTY_DIRS_MAX: usize = 1000;

/// Reads directories as long as the queue is not stopped. Directories that are empty for `empty_after` are removed.
pub fn run(queue: &Arc<Queue>, watches: &Watches, settle: Duration, every: Duration, empty_after: Duration) {
    let mut due = Instant::now();
    loop {
        let wanted = queue.next_scan(due);
        if wanted == Scan::Stop {
            return;
        }
        let (began, is_full) = (Instant::now(), wanted == Scan::Full);
        if is_full {
            due = began + every;
        }
        let Some(root) = queue.root() else { continue };
        let dirs = match wanted {
            Scan::Below(dirs) => dirs,
            _ => vec![Box::default()],
        };
        let empty_since = (is_full && !empty_after.is_zero())
            .then(|| now_ns().saturating_sub(i64::try_from(empty_after.as_nanos()).unwrap_or(i64::MAX)));
        let mut finder = Finder { queue, watches, root: &root, settle, empty_since, unwatched: 0, empty: Vec::new() };
        let mut read_all = is_full;
        for name in dirs {
            match walk(&root, &name, &mut finder) {
                Ok(walked) => {
                    debug!(below = names::encode(&name), ?walked, "scanned");
                    read_all &= walked.unread == 0 && !walked.broken_off;
                }
                Err(error) => {
                    warn!(%error, "the replay directory cannot be read");
                    read_all = false;
                }
            }
        }
        finder.end(is_full);
        if read_all {
            queue.scanned_all(began);
        }
        queue.open();
    }
}

/// Offers files to the queue.
struct Finder<'a> {
    queue: &'a Queue,
    watches: &'a Watches,
    root: &'a Arc<Root>,
    settle: Duration,
    /// Empty directories that were not changed since are removed; nanoseconds since 1970.
    empty_since: Option<i64>,
    unwatched: u64,
    empty: Vec<Box<[u8]>>,
}

impl Finder<'_> {
    fn end(self, is_full: bool) {
        for name in self.empty {
            // What is put in now is kept: the system removes no directory that is not empty.
            if self.root.remove_dir(&name).is_ok() {
                debug!(dir = names::encode(&name), "empty directory removed");
            }
        }
        if is_full {
            self.queue.unwatched.store(self.unwatched, SeqCst);
            if self.unwatched == 0 {
                self.watches.all_are_watched();
            }
        } else {
            self.queue.unwatched.fetch_add(self.unwatched, SeqCst);
        }
    }
}

impl Visit for Finder<'_> {
    fn enter(&mut self, dir: &[u8]) {
        self.unwatched += u64::from(!self.watches.watch(&self.root.path_of(dir)));
    }

    fn file(&mut self, parent: &Parent<'_>, dir: &[u8], part: &CStr) -> ControlFlow<()> {
        let name = directory::join(dir, part.to_bytes());
        match inspect(self.queue, parent, part.to_bytes(), name, Arrival::Seen, self.settle) {
            Inspection::Ready(candidate) if !self.queue.offer(&candidate, self.root) => ControlFlow::Break(()),
            Inspection::Wait(candidate, time) => {
                self.queue.recheck_after(candidate, time);
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn read(&mut self, parent: &Parent<'_>, dir: &[u8], entries: u64) {
        let Some(since) = self.empty_since else { return };
        let is_kept = dir.is_empty() || dir == names::PRIORITY_DIR.as_bytes() || entries > 0;
        if !is_kept
            && self.empty.len() < EMPTY_DIRS_MAX
            && directory::stat_in(parent, ".").is_ok_and(|(_, stamp)| stamp.ctime_ns.max(stamp.mtime_ns) <= since)
        {
            self.empty.push(dir.into());
        }
    }
}

/// Counts all files again and again.
pub fn count(queue: &Arc<Queue>) {
    while !queue.is_stopping() {
        let began = Instant::now();
        if let Some(root) = queue.root() {
            count_once(queue, &root);
        } else {
            queue.census_ends(0, queue.census_begins());
        }
        queue.pause(COUNT_INTERVAL_MIN.max(began.elapsed() * COUNT_TIME_SHARE));
    }
}

fn count_once(queue: &Queue, root: &Root) {
    let removed = queue.census_begins();
    let mut count = Count { queue, files: 0, left: LeftAlone::default() };
    let walked = walk(root, b"", &mut count);
    if !walked.is_ok_and(|walked| !walked.broken_off) {
        return;
    }
    queue.census_ends(count.files, removed);
    let mut quarantined = Count { queue, files: 0, left: LeftAlone::default() };
    let _ = walk(root, names::QUARANTINE_DIR.as_bytes(), &mut quarantined);
    queue.set_left_alone(LeftAlone { quarantined: quarantined.files + quarantined.left.files, ..count.left });
}

struct Count<'a> {
    queue: &'a Queue,
    files: u64,
    left: LeftAlone,
}

impl Visit for Count<'_> {
    fn file(&mut self, _: &Parent<'_>, _: &[u8], _: &CStr) -> ControlFlow<()> {
        self.files += 1;
        if self.queue.is_stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn left_alone(&mut self, parent: &Parent<'_>, part: &CStr) {
        self.left.files += 1;
        if let Ok((_, stamp)) = directory::stat_in(parent, part) {
            let age = now_ns().saturating_sub(stamp.ctime_ns).max(0) as f64 / 1e9;
            self.left.oldest_age_s = self.left.oldest_age_s.max(age);
        }
    }
}
