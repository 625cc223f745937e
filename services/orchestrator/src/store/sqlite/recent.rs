//! Open jobs as the last commits left them, so that their next change needs no look at the row.
//!
//! Relies on the file belonging to one process and on one connection that writes: every change of what
//! [`Current`] holds is a commit that passes here. Bounded; what is forgotten is read again.

use crate::transition::Current;
use agentforge_message_id::JobId;
use std::collections::HashMap;

/// Jobs of one generation; there are two. About 500 bytes each.
const GENERATION: usize = 4_096;

/// The newest jobs, and those that were the newest before them.
#[derive(Default)]
pub(super) struct Recent {
    new: HashMap<JobId, Current>,
    old: HashMap<JobId, Current>,
}

impl Recent {
    /// Takes a job out: only a commit that succeeds puts it back.
    pub(super) fn take(&mut self, id: &JobId) -> Option<Current> {
        let old = self.old.remove(id);
        self.new.remove(id).or(old)
    }

    /// Remembers those that are not final: nothing more is expected of the others.
    pub(super) fn keep(&mut self, jobs: Vec<Current>) {
        for job in jobs.into_iter().filter(|job| !job.state.is_final()) {
            if self.new.len() >= GENERATION {
                self.old = std::mem::take(&mut self.new);
            }
            self.new.insert(job.id, job);
        }
    }
}
