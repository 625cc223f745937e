//! Jobs as the last commits left them, so that their next change needs no reading of the row.
//!
//! Relies on the file belonging to one process and on one connection that writes: every change of what [`Current`]
//! holds is a commit that passes here, and code that deletes jobs forgets them here. Bounded; forgotten rows are read
//! again.

use crate::transition::Current;
use agentforge_message_id::JobId;
use std::collections::HashMap;

/// Open jobs of one generation; there are two. About 500 bytes each.
const OPEN: usize = 16_384;
/// Ended jobs of one generation. The mark of their publish comes after their end, where they are fast.
const ENDED: usize = 2_048;

/// The newest jobs, and those that were the newest before them.
#[derive(Default)]
pub(super) struct Recent {
    open: Generations,
    ended: Generations,
}

impl Recent {
    /// Takes a job out: only a commit that succeeds puts it back.
    pub(super) fn take(&mut self, id: &JobId) -> Option<Box<Current>> {
        self.open.take(id).or_else(|| self.ended.take(id))
    }

    /// Remembers jobs as a commit left them; the oldest go when there are too many.
    pub(super) fn keep(&mut self, jobs: Vec<Box<Current>>) {
        for job in jobs {
            if job.state.is_final() { self.ended.keep(job, ENDED) } else { self.open.keep(job, OPEN) }
        }
    }

    /// Forgets all jobs.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[derive(Default)]
struct Generations {
    new: HashMap<JobId, Box<Current>>,
    old: HashMap<JobId, Box<Current>>,
}

impl Generations {
    fn take(&mut self, id: &JobId) -> Option<Box<Current>> {
        let old = self.old.remove(id);
        self.new.remove(id).or(old)
    }

    fn keep(&mut self, job: Box<Current>, size: usize) {
        if self.new.len() >= size {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(job.id, job);
    }
}
