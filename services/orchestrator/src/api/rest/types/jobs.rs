//! Jobs and the tries at them as JSON.

use super::{Moment, moment, raw};
use crate::api::{job, trace};
use crate::error::Error;
use crate::model::{AttemptRecord, Job, JobError, RetryPolicy};
use agentforge_proto::bus::OutputRef;
use agentforge_proto::time::Micros;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::Duration;
use utoipa::ToSchema;

/// A job in its current state. Times are RFC 3339 with microseconds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobView {
    /// UUID.
    id: String,
    /// Mission.
    mission: String,
    /// Queue.
    queue: String,
    /// Tool.
    tool: String,
    /// As submitted.
    #[schema(value_type = Object)]
    args: Box<RawValue>,
    /// Labels.
    labels: BTreeMap<String, String>,
    /// accepted, queued, running, succeeded, failed, dead, cancelled or expired; the last five are final.
    state: &'static str,
    /// Tries begun or under way: 0 until the first is published, then its number.
    attempts: u32,
    /// Tries granted.
    max_attempts: u32,
    /// What the tool returned; null until the job succeeded, and when it is kept at output_ref.
    #[schema(value_type = Option<serde_json::Value>)]
    result: Option<Box<RawValue>>,
    /// Where a result above 256 KiB is kept.
    output_ref: Option<OutputRefView>,
    /// The last error.
    error: Option<ErrorView>,
    /// Accepted.
    #[schema(value_type = String, format = DateTime)]
    created_at: Moment,
    /// Published, of the current try.
    #[schema(value_type = Option<String>, format = DateTime)]
    queued_at: Option<Moment>,
    /// Begun, of the last try that began.
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Moment>,
    /// Final since.
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Moment>,
    /// Not before.
    #[schema(value_type = Option<String>, format = DateTime)]
    run_at: Option<Moment>,
    /// Past it the job ends expired.
    #[schema(value_type = Option<String>, format = DateTime)]
    deadline: Option<Moment>,
    /// Bound of one try, milliseconds.
    timeout_ms: u64,
    /// Key of the submission.
    idempotency_key: Option<String>,
    /// Part of the operation key.
    task: Option<String>,
    /// An equal earlier success may be returned.
    reuse: bool,
    /// The earlier job whose success this is.
    idempotent_replay: Option<String>,
    /// Who ran it last.
    worker: Option<String>,
    /// The schedule that made it.
    schedule_id: Option<String>,
    /// The time that it stands for: its turn of that schedule, however late it runs.
    #[schema(value_type = Option<String>, format = DateTime)]
    scheduled_at: Option<Moment>,
    /// W3C trace id of the submission.
    trace_id: Option<String>,
    /// Rises with each change.
    version: i64,
    /// Of an open job: what is wrong with where it waits, such as that no worker serves its queue.
    warning: Option<String>,
    /// While accepted: when the next try may be published; null otherwise.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Moment>,
    /// While accepted, why it waits: run_at, retry, or publish (it is due, and leaves for its queue).
    waits_for: Option<&'static str>,
    /// Waits between tries, where they are not the orchestrator's own.
    retry: Option<RetryPolicyView>,
}

/// Waits between tries; null is the orchestrator's own.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RetryPolicy)]
pub struct RetryPolicyView {
    /// Before the first retry, milliseconds; doubles from there.
    base_ms: Option<u64>,
    /// The longest, milliseconds.
    cap_ms: Option<u64>,
}

impl RetryPolicyView {
    /// `None` where nothing is set.
    pub(crate) fn of(retry: RetryPolicy) -> Option<Self> {
        retry.is_set().then(|| Self { base_ms: retry.base.map(millis), cap_ms: retry.cap.map(millis) })
    }
}

impl TryFrom<Job> for JobView {
    type Error = Error;

    fn try_from(j: Job) -> Result<Self, Error> {
        let waiting = job::waiting(&j, Micros::now());
        Ok(Self {
            next_attempt_at: waiting.map(|w| Moment(w.1)),
            waits_for: waiting.map(|w| w.0),
            retry: RetryPolicyView::of(j.retry),
            attempts: job::attempts(&j),
            id: j.id.to_string(),
            mission: j.mission.into(),
            queue: j.queue.into(),
            tool: j.tool.into(),
            args: raw("job's args", j.args)?,
            labels: j.labels,
            state: j.state.as_str(),
            max_attempts: j.max_attempts,
            result: j.result.map(|r| raw("job's result", r)).transpose()?,
            output_ref: j.output_ref.map(Into::into),
            error: j.error.map(Into::into),
            created_at: Moment(j.created_at),
            queued_at: moment(j.queued_at),
            started_at: moment(j.started_at),
            finished_at: moment(j.finished_at),
            run_at: moment(j.run_at),
            deadline: moment(j.deadline),
            timeout_ms: millis(j.timeout),
            idempotency_key: j.idempotency_key,
            task: j.task,
            reuse: j.reuse,
            idempotent_replay: j.replay_of.map(|id| id.to_string()),
            worker: j.worker,
            schedule_id: j.schedule_id.map(|id| id.to_string()),
            scheduled_at: moment(j.scheduled_at),
            trace_id: j.traceparent.as_deref().and_then(trace::trace_id).map(str::to_owned),
            version: j.version,
            warning: j.warning,
        })
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// Why an attempt or a job failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobError)]
pub struct ErrorView {
    /// transient, network, timeout, rate_limited (these are retried), validation, tool_not_found, permission, runtime, worker_lost, expired, cancelled or invalid_message.
    class: &'static str,
    /// For people; at most 4 KiB.
    message: String,
    /// The last of what the tool wrote to standard error; at most 8 KiB.
    log_tail: String,
}

impl From<JobError> for ErrorView {
    fn from(e: JobError) -> Self {
        Self { class: e.class.as_str(), message: e.message, log_tail: e.log_tail }
    }
}

/// Where a large result is kept; GET /v1/jobs/{id}/output reads it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OutputRef)]
pub struct OutputRefView {
    /// Object store bucket.
    bucket: String,
    /// Object name.
    name: String,
    /// Bytes.
    size: u64,
    /// Of the bytes, hex.
    sha256: String,
}

impl From<OutputRef> for OutputRefView {
    fn from(o: OutputRef) -> Self {
        Self { bucket: o.bucket, name: o.name, size: o.size, sha256: o.sha256 }
    }
}

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
