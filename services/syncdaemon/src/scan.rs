//! Finding files by reading the directory: the truth, where events are hints.
//!
//! Two threads: the scanner offers files to the window and waits when it is full; the census only counts
//! them, so that the depth of a queue of a million is known although its list is not.

use crate::{
    dir::{self, Kind, Parent, Root},
    names,
    queue::{Queue, Scan},
    settle::{Found, Settled, settled},
    watch::Watches,
    window::Candidate,
};
use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::{debug, warn};

/// Between two counts, at least: a fraction of what a person notices.
const CENSUS_EVERY: Duration = Duration::from_secs(2);
/// A count may take this share of the time: a large tree is counted less often.
const CENSUS_SHARE: u32 = 20;

/// Now, in nanoseconds since 1970.
pub fn now_ns() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// Reads directories as long as the queue is not stopped.
pub fn run(queue: &Arc<Queue>, watches: &Watches, settle: Duration, every: Duration) {
    let mut due = Instant::now();
    loop {
        let wanted = queue.next_scan(due);
        if wanted == Scan::Stop {
            return;
        }
        if wanted == Scan::Full {
            due = Instant::now() + every;
        }
        let (began, mut read_all) = (Instant::now(), wanted == Scan::Full);
        let Some(root) = queue.root() else { continue };
        let dirs = match wanted {
            Scan::Below(dirs) => dirs,
            _ => vec![Box::default()],
        };
        for name in dirs {
            let walked = root.walk(
                &name,
                |dir| watches.watch(&root.path_of(dir)),
                |parent, dir, part| {
                    let name = dir::join(dir, part.to_bytes());
                    match look(queue, parent, part, name, Found::Seen, settle) {
                        Look::Take(candidate) if !queue.offer(&candidate, &root) => ControlFlow::Break(()),
                        Look::Wait(candidate, time) => {
                            queue.look_again(candidate, time);
                            ControlFlow::Continue(())
                        }
                        _ => ControlFlow::Continue(()),
                    }
                },
            );
            match walked {
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
        if read_all {
            queue.scanned_all(began);
        }
        queue.open();
    }
}

/// What a look at a name gives.
pub enum Look {
    /// A file to be sent.
    Take(Candidate),
    /// A file that may still be written.
    Wait(Candidate, Duration),
    /// A directory.
    Directory,
    /// Nothing for us.
    Nothing,
}

/// Looks at a name in a directory.
pub fn look(
    queue: &Queue,
    parent: &Parent<'_>,
    part: impl rustix::path::Arg,
    name: Box<[u8]>,
    found: Found,
    settle: Duration,
) -> Look {
    match dir::look_in(parent, part) {
        Ok((Kind::Directory, _)) => Look::Directory,
        Ok((Kind::File, stamp)) => {
            let candidate = Candidate::new(name, stamp.mtime_ns, found);
            if queue.is_done_with(&candidate, &stamp) {
                return Look::Nothing;
            }
            // What could not be remembered as sent is not sent.
            if queue.is_full_of_stuck() && !Root::lets_remove(parent) {
                return Look::Nothing;
            }
            match settled(found, stamp.ctime_ns, now_ns(), settle) {
                Settled::Yes => Look::Take(candidate),
                Settled::In(time) => Look::Wait(candidate, time),
            }
        }
        Ok((Kind::Other, _)) | Err(_) => Look::Nothing,
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
        queue.pause(CENSUS_EVERY.max(began.elapsed() * CENSUS_SHARE));
    }
}

fn count_once(queue: &Queue, root: &Root) {
    let (mut files, removed) = (0, queue.census_begins());
    let walked = root.walk(
        b"",
        |_| {},
        |_, _, _| {
            files += 1;
            if queue.is_stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    if walked.is_ok_and(|walked| !walked.broken_off) {
        queue.census_ends(files, removed);
    }
}
