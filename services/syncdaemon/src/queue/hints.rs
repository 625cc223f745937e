//! Hints: reasons to inspect a file before the next scan does.

use crate::{directory::stamp::Arrival, queue::window::Candidate};
use std::{path::PathBuf, time::Instant};

/// A reason to inspect a file.
#[derive(Debug)]
pub enum Hint {
    /// Something happened at this path.
    At(PathBuf, Cause),
    /// Check this again at that time.
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
    pub const fn found(self) -> Arrival {
        match self {
            Self::Made | Self::Closed => Arrival::Seen,
            Self::Renamed => Arrival::Renamed,
        }
    }
}
