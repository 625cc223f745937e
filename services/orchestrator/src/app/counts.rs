//! How many jobs are in each state: counted in the database, and kept for a moment.
//!
//! The database is the truth, regardless of what was killed and of how many orchestrators there are. A million
//! jobs take it a tenth of a second; callers get the last counts meanwhile, and one count at a time is under way.

use crate::model::State;
use agentforge_proto::time::Micros;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Counts as old as this are given as they are; or older, so that counting takes a fiftieth of the time.
const FRESH: Duration = Duration::from_secs(1);
const COUNT_SHARE: u32 = 50;
/// Counts as old as this are given while they are counted again; older ones are not given.
pub const COUNTS_AGE_MAX: Duration = Duration::from_secs(20);

/// Jobs by state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobCounts {
    /// All states, in their order.
    pub of: [(State, u64); State::ALL.len()],
    /// When they were counted.
    pub at: Micros,
}

/// The last counts.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    last: Mutex<Option<Last>>,
    /// Held by the one who counts.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Last {
    begun: Instant,
    took: Duration,
    counts: JobCounts,
}

impl Counts {
    /// The last ones, and whether they are to be given as they are; none when they are too old.
    pub(super) fn last(&self) -> Option<(JobCounts, bool)> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Last { begun, took, counts } = last.as_ref()?;
        let age = begun.elapsed();
        (age <= COUNTS_AGE_MAX).then(|| (counts.clone(), age <= FRESH.max(*took * COUNT_SHARE)))
    }

    pub(super) fn keep(&self, begun: Instant, counts: JobCounts) {
        let last = Last { begun, took: begun.elapsed(), counts };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }
}
