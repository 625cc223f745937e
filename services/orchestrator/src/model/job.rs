//! A job before it is stored, and as callers see it: its description, and what is known besides.

use super::spec::JobSpec;
use super::{JobError, KeyReuse, State};
use agentforge_message_id::{Attempt, JobId};
use agentforge_proto::bus::OutputRef;
use agentforge_proto::time::Micros;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// A job that passed admission and is not stored yet. It is read as its description: `job.queue`.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// What it is. Shared with its message on its way out.
    pub spec: Arc<JobSpec>,
    /// Whether the caller chose the id: only then can it exist already.
    pub id_from_caller: bool,
    /// Whether the key may be taken from an earlier job that ended.
    pub key_reuse: KeyReuse,
    /// SHA-256 of what was asked with defaults filled in, as the version before compares it; set when the
    /// caller gave an id or a key.
    pub body_hash: Option<[u8; 32]>,
    /// SHA-256 of what the caller gave. Equal: the same submission.
    pub given_hash: Option<[u8; 32]>,
    /// Past it the job ends expired.
    pub deadline: Option<Micros>,
}

impl Deref for NewJob {
    type Target = JobSpec;

    fn deref(&self) -> &JobSpec {
        &self.spec
    }
}

impl NewJob {
    /// From the moment it may run to its deadline.
    pub fn lifetime(&self) -> Option<Duration> {
        self.deadline.map(|d| d.since(self.may_run_at()))
    }

    /// The moment it may run.
    fn may_run_at(&self) -> Micros {
        self.run_at.map_or(self.created_at, |r| r.max(self.created_at))
    }
}

/// A job as callers see it. It is read as its description: `job.queue`.
#[derive(Clone, Debug)]
pub struct Job {
    /// Row number: order of acceptance.
    pub seq: i64,
    /// What it is.
    pub spec: JobSpec,
    /// Where it is in its life; only a retry or a redrive leaves a final state.
    pub state: State,
    /// The current attempt.
    pub attempt: Attempt,
    /// Past it the job ends expired.
    pub deadline: Option<Micros>,
    /// Published, of the current attempt.
    pub queued_at: Option<Micros>,
    /// Begun, of the last attempt that began.
    pub started_at: Option<Micros>,
    /// When it became final; `None` while it is open.
    pub finished_at: Option<Micros>,
    /// While accepted: when it may be published.
    pub available_at: Micros,
    /// Who ran it last.
    pub worker: Option<String>,
    /// JSON text of the committed result.
    pub result: Option<String>,
    /// Where a large result is.
    pub output_ref: Option<OutputRef>,
    /// The earlier job whose result this is.
    pub replay_of: Option<JobId>,
    /// The last error.
    pub error: Option<JobError>,
    /// Who cancelled it, while it is cancelled.
    pub cancelled_by: Option<String>,
    /// Rises with each change.
    pub version: i64,
    /// What is wrong with where it waits, as known when it was read; never stored.
    pub warning: Option<String>,
}

impl Deref for Job {
    type Target = JobSpec;

    fn deref(&self) -> &JobSpec {
        &self.spec
    }
}

impl Job {
    /// As it reads right after its submission.
    pub fn accepted(seq: i64, new: NewJob) -> Self {
        Self {
            seq,
            state: State::Accepted,
            attempt: Attempt::FIRST,
            deadline: new.deadline,
            queued_at: None,
            started_at: None,
            finished_at: None,
            available_at: new.may_run_at(),
            worker: None,
            result: None,
            output_ref: None,
            replay_of: None,
            error: None,
            cancelled_by: None,
            version: 1,
            warning: None,
            spec: Arc::unwrap_or_clone(new.spec),
        }
    }
}
