//! What a name in the replay directory is: a file to be sent, one that has to wait, or nothing for us.
//!
//! The same answer for scans and for events.

use crate::{
    directory::{
        self, Kind, Parent, Root, now_ns,
        stamp::{Arrival, Settled, settled},
    },
    names,
    queue::{Queue, window::Candidate},
};
use std::time::Duration;

/// A sidecar whose file does not come is a file like any other after this.
const ORPHAN_SIDECAR_AGE: Duration = Duration::from_secs(3600);

/// What a name turned out to be.
pub enum Inspection {
    /// A file to be sent.
    Ready(Candidate),
    /// A file that may still be written.
    Wait(Candidate, Duration),
    /// A directory, whose names are inspected in turn.
    Directory,
    /// Nothing for us.
    Ignored,
}

/// Inspects a name in a directory.
pub fn inspect(
    queue: &Queue,
    parent: &Parent<'_>,
    part: &[u8],
    name: Box<[u8]>,
    found: Arrival,
    settle: Duration,
) -> Inspection {
    match directory::stat_in(parent, part) {
        Ok((Kind::Directory, _)) => Inspection::Directory,
        Ok((Kind::File, stamp)) => {
            let candidate = Candidate::new(name, stamp.mtime_ns, found);
            if queue.is_done_with(&candidate, &stamp) {
                return Inspection::Ignored;
            }
            if let Some(file) = names::file_of(part) {
                match directory::stat_in(parent, file) {
                    // It goes with its file.
                    Ok((Kind::File, _)) => return Inspection::Ignored,
                    _ if queue.is_sidecar_held(&stamp) => return Inspection::Ignored,
                    _ => {
                        if let Settled::In(time) = settled(Arrival::Seen, stamp.ctime_ns, now_ns(), ORPHAN_SIDECAR_AGE)
                        {
                            return Inspection::Wait(candidate, time);
                        }
                    }
                }
            }
            // What could not be remembered as sent is not sent.
            if queue.is_full_of_stuck() && !Root::lets_remove(parent) {
                return Inspection::Ignored;
            }
            match settled(found, stamp.ctime_ns, now_ns(), settle) {
                Settled::Yes => Inspection::Ready(candidate),
                Settled::In(time) => Inspection::Wait(candidate, time),
            }
        }
        Ok((Kind::Other, _)) | Err(_) => Inspection::Ignored,
    }
}
