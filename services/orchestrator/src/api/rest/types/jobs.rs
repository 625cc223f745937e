//! Lists of jobs, and the tries at them, as JSON.

use super::job::JobView;
use super::outcome::ErrorView;
use super::{Moment, moment};
use crate::model::AttemptRecord;
use serde::Serialize;
use utoipa::ToSchema;

/// A page of jobs, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobList {
    /// The jobs; fewer than asked for when they are large.
    pub(crate) jobs: Vec<JobView>,
    /// Give it as `cursor` to get the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

/// One try at a job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobAttempt)]
pub struct AttemptView {
    /// Its number, from 1.
    attempt: u32,
    /// succeeded, failed, cancelled, expired or worker_lost.
    outcome: String,
    /// Why it failed.
    error: Option<ErrorView>,
    /// Who ran it.
    worker: Option<String>,
    /// Which hand-over of its message it was, from 1.
    delivery: u64,
    /// Began.
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Moment>,
    /// Ended.
    #[schema(value_type = String, format = DateTime)]
    finished_at: Moment,
    /// When another try follows: not before.
    #[schema(value_type = Option<String>, format = DateTime)]
    retry_at: Option<Moment>,
}

impl From<AttemptRecord> for AttemptView {
    fn from(a: AttemptRecord) -> Self {
        Self {
            attempt: a.attempt.get(),
            outcome: a.outcome,
            error: a.error.map(Into::into),
            worker: a.worker,
            delivery: a.delivery,
            started_at: moment(a.started_at),
            finished_at: Moment(a.finished_at),
            retry_at: moment(a.retry_at),
        }
    }
}

/// The tries at a job, oldest first. A try appears when it is over.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttemptList {
    /// The tries.
    pub(crate) attempts: Vec<AttemptView>,
}
