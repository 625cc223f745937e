//! A job as JSON: as it is submitted, as a schedule repeats it, as it is shown.

use super::outcome::{ErrorView, OutputRefView};
use super::{Moment, moment, parse_moment, parse_span, raw};
use crate::admission::{JobRequest, SubmitInput};
use crate::api::trace::Origin;
use crate::api::{job, trace};
use crate::error::Error;
use crate::model::{Job, JobSpec, KeyReuse, RetryPolicy};
use agentforge_proto::time::Micros;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::Duration;
use utoipa::ToSchema;

/// A job to be run.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SubmitJobRequest, example = json!({"tool": "echo", "args": {"hello": "world"}, "idempotency_key": "order-17"}))]
pub struct SubmitBody {
    /// A UUID of the caller's choice; made when absent.
    #[schema(format = Uuid)]
    pub id: Option<String>,
    /// The same key and the same body return the first job; another body is a conflict. At most 256 bytes. Also as the header Idempotency-Key.
    pub idempotency_key: Option<String>,
    /// The orchestrator's MISSION when absent.
    pub mission: Option<String>,
    /// Absent: `default`.
    pub queue: Option<String>,
    /// What to run.
    #[serde(default)]
    #[schema(required)]
    pub tool: String,
    /// Passed to the tool byte for byte; at most 1 MiB.
    #[schema(value_type = Option<Object>)]
    pub args: Option<Box<RawValue>>,
    /// At most 32, keys to 63 bytes, values to 256.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// 1 to 100; the default is 12.
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: Option<u32>,
    /// Waits between attempts.
    pub retry: Option<RetryPolicyBody>,
    /// Bound of one attempt, such as `30s` or `5m`. Default 5 min. Or give `timeout_ms`.
    #[schema(pattern = "^([1-9][0-9]{0,2}(ms|s|m)|([1-9]|1[0-9]|2[0-4])h)$")]
    pub timeout: Option<String>,
    /// The same in milliseconds.
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub timeout_ms: Option<u64>,
    /// Not before (RFC 3339).
    #[schema(format = DateTime)]
    pub run_at: Option<String>,
    /// Not before so long from now, such as `10m`; instead of `run_at`, and the same when sent again.
    #[schema(pattern = "^([1-9][0-9]{0,2}(s|m|h)|([1-9][0-9]?|[12][0-9]{2}|3[0-5][0-9])d)$")]
    pub run_in: Option<String>,
    /// Past it the job ends expired (RFC 3339). Default 20 min after max(accepted, run_at).
    #[schema(format = DateTime)]
    pub deadline: Option<String>,
    /// The job ends expired so long after it may run, such as `1h`; instead of `deadline`, and the same when sent again.
    #[schema(pattern = "^([1-9][0-9]{0,2}(s|m|h)|([1-9][0-9]?|[12][0-9]{2}|3[0-5][0-9])d)$")]
    pub deadline_in: Option<String>,
    /// Whether the key may be taken from an earlier job that ended: `never` (the default), `after_stop` (it was cancelled or expired) or `after_failure` (it did not succeed).
    pub key_reuse: Option<KeyReuseWord>,
    /// Part of the operation key that `reuse` goes by; at most 256 bytes.
    pub task: Option<String>,
    /// Return an equal earlier success instead of running again.
    #[serde(default)]
    pub reuse: bool,
}

/// The words of `key_reuse`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = KeyReuse)]
pub enum KeyReuseWord {
    /// A key stands for one job.
    Never,
    /// From a job that was cancelled or expired.
    AfterStop,
    /// From a job that ended without success.
    AfterFailure,
}

/// Waits between attempts; what is absent is the orchestrator's. 10 ms to 24 h.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RetryPolicyRequest, example = json!({"base": "1s", "cap": "1m"}))]
pub struct RetryPolicyBody {
    /// Before the first retry, such as `1s`; doubles from there, each spread between half and whole.
    #[schema(pattern = "^([1-9][0-9]{1,3}ms|[1-9][0-9]{0,2}(s|m)|([1-9]|1[0-9]|2[0-4])h)$")]
    pub base: Option<String>,
    /// The same in milliseconds.
    #[schema(minimum = 10, maximum = 86_400_000)]
    pub base_ms: Option<u64>,
    /// The longest wait, such as `1m`.
    #[schema(pattern = "^([1-9][0-9]{1,3}ms|[1-9][0-9]{0,2}(s|m)|([1-9]|1[0-9]|2[0-4])h)$")]
    pub cap: Option<String>,
    /// The same in milliseconds.
    #[schema(minimum = 10, maximum = 86_400_000)]
    pub cap_ms: Option<u64>,
}

impl RetryPolicyBody {
    fn into_policy(self) -> Result<RetryPolicy, Error> {
        Ok(RetryPolicy {
            base: parse_span("retry.base", self.base.as_deref(), self.base_ms)?,
            cap: parse_span("retry.cap", self.cap.as_deref(), self.cap_ms)?,
        })
    }
}

impl SubmitBody {
    /// The submission, with what the request's headers add.
    pub(crate) fn into_input(self, origin: Origin) -> Result<SubmitInput, Error> {
        let key_reuse = match self.key_reuse {
            None | Some(KeyReuseWord::Never) => KeyReuse::Never,
            Some(KeyReuseWord::AfterStop) => KeyReuse::AfterStop,
            Some(KeyReuseWord::AfterFailure) => KeyReuse::AfterFailure,
        };
        if self.max_attempts == Some(0) {
            return Err(Error::field("max_attempts", "max_attempts is 0; expected 1 or more, or nothing"));
        }
        let given = |text: Option<String>| text.filter(|t| !t.is_empty());
        Ok(SubmitInput {
            request: JobRequest {
                timeout: parse_span("timeout", self.timeout.as_deref(), self.timeout_ms)?,
                retry: self.retry.unwrap_or_default().into_policy()?,
                deadline_in: parse_span("deadline_in", self.deadline_in.as_deref(), None)?,
                mission: given(self.mission),
                queue: given(self.queue),
                tool: self.tool,
                args: self.args.map(|a| String::from(Box::<str>::from(a))).unwrap_or_default(),
                labels: self.labels,
                max_attempts: self.max_attempts,
                task: given(self.task),
                reuse: self.reuse,
            },
            run_in: parse_span("run_in", self.run_in.as_deref(), None)?,
            key_reuse,
            run_at: parse_moment("run_at", self.run_at.as_deref())?,
            deadline: parse_moment("deadline", self.deadline.as_deref())?,
            id: self.id,
            idempotency_key: self.idempotency_key,
            traceparent: origin.traceparent,
            request_id: origin.request_id,
            submitted_by: None,
        })
    }
}

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
    /// The name of the token that submitted it; of a schedule's job, that created the schedule.
    submitted_by: Option<String>,
    /// The name of the token that cancelled it, while it is cancelled.
    cancelled_by: Option<String>,
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
        let attempts = job::attempts(&j);
        // Without `..`: what a job is, is shown, or it says here why not.
        let JobSpec {
            id,
            mission,
            queue,
            tool,
            task,
            args,
            labels,
            max_attempts,
            timeout,
            retry,
            run_at,
            reuse,
            idempotency_key,
            schedule_id,
            scheduled_at,
            traceparent,
            // In logs and headers only.
            request_id: _,
            submitted_by,
            created_at,
        } = j.spec;
        Ok(Self {
            next_attempt_at: waiting.map(|w| Moment(w.1)),
            waits_for: waiting.map(|w| w.0),
            retry: RetryPolicyView::of(retry),
            attempts,
            id: id.to_string(),
            mission: mission.into(),
            queue: queue.into(),
            tool: tool.into(),
            args: raw("job's args", args)?,
            labels,
            state: j.state.as_str(),
            max_attempts,
            result: j.result.map(|r| raw("job's result", r)).transpose()?,
            output_ref: j.output_ref.map(Into::into),
            error: j.error.map(Into::into),
            created_at: Moment(created_at),
            queued_at: moment(j.queued_at),
            started_at: moment(j.started_at),
            finished_at: moment(j.finished_at),
            run_at: moment(run_at),
            deadline: moment(j.deadline),
            timeout_ms: millis(timeout),
            idempotency_key,
            task,
            reuse,
            idempotent_replay: j.replay_of.map(|id| id.to_string()),
            worker: j.worker,
            schedule_id: schedule_id.map(|id| id.to_string()),
            scheduled_at: moment(scheduled_at),
            trace_id: traceparent.as_deref().and_then(trace::trace_id).map(str::to_owned),
            version: j.version,
            warning: j.warning,
            submitted_by,
            cancelled_by: j.cancelled_by,
        })
    }
}

/// What a schedule repeats.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobTemplate)]
pub struct TemplateView {
    /// Mission; null is the orchestrator's own.
    mission: Option<String>,
    /// Queue; null is `default`.
    queue: Option<String>,
    /// Tool.
    tool: String,
    /// Passed to the tool.
    #[schema(value_type = Object)]
    args: Box<RawValue>,
    /// Labels.
    labels: BTreeMap<String, String>,
    /// Tries granted; null is the default.
    max_attempts: Option<u32>,
    /// Bound of one try, milliseconds; null is the default.
    timeout_ms: Option<u64>,
    /// Part of the operation key.
    task: Option<String>,
    /// An equal earlier success may be returned.
    reuse: bool,
    /// Waits between tries; null is the orchestrator's own.
    retry: Option<RetryPolicyView>,
    /// From a turn to the deadline of its job, milliseconds; null is the default.
    deadline_in_ms: Option<u64>,
}

impl TryFrom<JobRequest> for TemplateView {
    type Error = Error;

    fn try_from(t: JobRequest) -> Result<Self, Error> {
        let JobRequest { mission, queue, tool, args, labels, max_attempts, timeout, task, reuse, retry, deadline_in } =
            t;
        let args = if args.is_empty() { "{}".to_owned() } else { args };
        Ok(Self {
            mission,
            queue,
            tool,
            args: raw("schedule's args", args)?,
            labels,
            max_attempts,
            timeout_ms: timeout.map(millis),
            task,
            reuse,
            retry: RetryPolicyView::of(retry),
            deadline_in_ms: deadline_in.map(millis),
        })
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
