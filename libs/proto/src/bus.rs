//! JSON on the bus: what the orchestrator and the workers say to each other.
//!
//! Every type here is a contract between versions: unknown fields are ignored, new fields have a
//! default. `tests/fixtures` holds messages of earlier versions, which must stay readable.

use crate::time::Micros;
use agentforge_message_id::{AgentId, Attempt, JobId, Mission, Queue, Site, ToolName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

pub use crate::error_class::ErrorClass;

/// The header of a report that returns the token of its attempt.
pub const TASK_TOKEN: &str = "Agentforge-Task-Token";

/// The header of a message on `swarm.results.…` that carries several reports: how many. Its payload is a JSON array of
/// [`Bundled`].
pub const REPORTS: &str = "Agentforge-Reports";
/// Reports in one message, at most.
pub const REPORTS_MAX: usize = 64;

/// A report that travels with others in one message, with what would otherwise be headers of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bundled<R> {
    /// The token of the attempt.
    pub token: String,
    /// Whether the result may be returned to equal operations.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reusable: bool,
    /// A [`Report`], or its JSON text.
    pub report: R,
}

/// What `swarm.jobs.<mission>.<queue>` carries: one attempt at a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobMessage<'a> {
    /// The id of the job that is tried.
    pub job: JobId,
    /// Which try this is; the orchestrator numbers them.
    pub attempt: Attempt,
    /// Mission of the job, equal to the subject's.
    pub mission: Mission,
    /// Queue of the job, equal to the subject's.
    pub queue: Queue,
    /// What to run.
    pub tool: ToolName,
    /// Part of the operation key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// A JSON object, passed on byte for byte.
    pub args: Cow<'a, RawValue>,
    /// Bound of this attempt's run, milliseconds.
    pub timeout_ms: u64,
    /// Past it the attempt is not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Micros>,
    /// An equal earlier success may be returned instead of running.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reuse: bool,
    /// When the job was accepted.
    pub accepted_at: Micros,
    /// The time that the job stands for: its turn of the schedule that made it, however late it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<Micros>,
    /// What the worker returns with its reports: without it they have no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// What `swarm.results.<mission>.<queue>` carries: a worker's word on an attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The tool runs.
    Started(Started),
    /// The attempt is over.
    Finished(Finished),
    /// A message on the queue that is not a job.
    Rejected(Rejected),
}

impl Report {
    /// Whether a tool ran and gave a result; one that was found is another's.
    pub fn is_a_run_that_succeeded(&self) -> bool {
        matches!(self, Self::Finished(Finished { outcome: Outcome::Succeeded(s), .. }) if s.idempotent_replay.is_none())
    }

    /// Whether it is the end of an attempt whose trace is recorded (the flag `sampled` of its traceparent).
    pub fn is_traced(&self) -> bool {
        let Self::Finished(Finished { traceparent: Some(traceparent), .. }) = self else { return false };
        let flags = traceparent.rsplit('-').next().and_then(|flags| u8::from_str_radix(flags, 16).ok());
        flags.is_some_and(|flags| flags & 1 == 1)
    }
}

/// An attempt has begun.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Started {
    /// The id of the job that is tried.
    pub job: JobId,
    /// Which try of the job has begun.
    pub attempt: Attempt,
    /// Which hand-over of the attempt's message this is, from 1.
    pub delivery: u64,
    /// Who runs it.
    pub worker: AgentId,
    /// When it began.
    pub at: Micros,
}

/// An attempt is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finished {
    /// The id of the job that was tried.
    pub job: JobId,
    /// Which try of the job is over; a report of an earlier one than the current is fenced off.
    pub attempt: Attempt,
    /// Which hand-over of the attempt's message this is, from 1.
    pub delivery: u64,
    /// Who ran it.
    pub worker: AgentId,
    /// When it began.
    pub started_at: Micros,
    /// When it ended.
    pub finished_at: Micros,
    /// How it ended.
    pub outcome: Outcome,
    /// W3C trace context of the run; events of the job's end carry it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// X-Request-ID of the submission, as the job's message had it; events of the job's end carry it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// How an attempt ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The tool gave a result.
    Succeeded(Success),
    /// The tool, or the way to it, failed.
    Failed(Failure),
    /// The tool was stopped because the job was cancelled.
    Cancelled,
    /// The deadline had passed before the start.
    Expired,
}

/// A tool's result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Success {
    /// JSON, when it is small enough to travel in the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Box<RawValue>>,
    /// Where it is kept otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_ref: Option<OutputRef>,
    /// The earlier job whose result this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent_replay: Option<JobId>,
}

/// Where a large output is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRef {
    /// Object store bucket.
    pub bucket: String,
    /// The object's name in the bucket.
    pub name: String,
    /// Size of the object, in bytes.
    pub size: u64,
    /// SHA-256 of the bytes, hex.
    pub sha256: String,
}

/// Why an attempt failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// Decides whether another try follows.
    pub class: ErrorClass,
    /// For people; at most [`Failure::MESSAGE_MAX_BYTES`].
    pub message: String,
    /// The tool's own wish, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The last of standard error; at most [`Failure::LOG_TAIL_MAX_BYTES`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_tail: String,
}

impl Failure {
    /// Longest message kept, bytes.
    pub const MESSAGE_MAX_BYTES: usize = 4 * 1024;
    /// Longest log tail kept, bytes.
    pub const LOG_TAIL_MAX_BYTES: usize = 8 * 1024;

    /// A failure without a log, its message cut to the limit.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        let mut message = message.into();
        truncate(&mut message, Self::MESSAGE_MAX_BYTES);
        Self { class, message, retry_after_ms: None, log_tail: String::new() }
    }
}

/// Cuts `s` to at most `max` bytes at a character's border.
pub fn truncate(s: &mut String, max: usize) {
    if s.len() > max {
        let end = (0..=max).rev().find(|i| s.is_char_boundary(*i)).unwrap_or(0);
        s.truncate(end);
    }
}

/// Something on a queue that no worker can read. Terminated once, kept as a dead letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rejected {
    /// Who found it.
    pub worker: AgentId,
    /// The subject that it was published on.
    pub subject: String,
    /// The name of the stream that had it.
    pub stream: String,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the stream stored it, nanoseconds since 1970; with the sequence its identity.
    pub stored_at_ns: i64,
    /// What is wrong with it.
    pub reason: String,
    /// Its size, bytes.
    pub payload_bytes: u64,
    /// Its first bytes, at most [`Rejected::PAYLOAD_MAX_BYTES`], hex.
    pub payload_hex: String,
    /// When it was found.
    pub at: Micros,
    /// Its signature is not good, or absent: it may be a job, and no orchestrator asked for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub invalid_signature: bool,
}

impl Rejected {
    /// How much of the payload is kept, bytes.
    pub const PAYLOAD_MAX_BYTES: usize = 16 * 1024;
}

/// A worker's sign of life on `swarm.agents.<mission>.heartbeat` (core NATS, a request).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The agent that reports.
    pub agent: AgentId,
    /// Which mission's queues it serves.
    pub mission: Mission,
    /// The site at which it runs.
    pub site: Site,
    /// The name of the machine or pod that it runs on.
    pub host: String,
    /// Version of the binary.
    pub version: String,
    /// Names of its tools, at most 256.
    pub tools: Vec<String>,
    /// Queues it serves.
    pub queues: Vec<Queue>,
    /// Jobs it runs at once, at most.
    pub capacity: u32,
    /// Jobs it runs now.
    pub inflight: u32,
    /// Milliseconds until the next beat; three missed are an absence.
    pub interval_ms: u64,
    /// The last beat of a drained worker.
    #[serde(default)]
    pub leaving: bool,
    /// Jobs running longer than one interval, at most 512: the answer says which to stop.
    #[serde(default)]
    pub running: Vec<JobId>,
    /// End of its client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires_at: Option<Micros>,
    /// How far its clock is ahead of the orchestrator's by the last answer, microseconds; behind is negative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_skew_us: Option<i64>,
    /// By which of its means commands of its tools file are not confined, as words with blanks between: launcher, files,
    /// network, ipc, cgroup, pids, memory. Empty: by all. Absent: it has no such commands, or is of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfined: Option<String>,
}

/// The orchestrator's answer to a heartbeat.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// Of the jobs named as running, those that are final already.
    #[serde(default)]
    pub stop: Vec<JobId>,
    /// The orchestrator's time, by which deadlines are judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Micros>,
}

/// `swarm.control.<mission>.cancel` (core NATS): stop this job if you run it, skip it if it comes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CancelSignal {
    /// The id of the job that is cancelled.
    pub job: JobId,
    /// The attempt that was stopped: a later one of a job that was put back runs. Absent, from an
    /// orchestrator of an earlier version: every attempt that comes soon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
}

/// A CloudEvent 1.0 in structured JSON, `agentforge.events.job.<mission>.<state>`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobEvent<'a> {
    /// The version of CloudEvents, always `1.0`.
    pub specversion: Cow<'a, str>,
    /// `<job>:<state>:<attempt>`, and `:<version>` of the job but for the first; also the message's `Nats-Msg-Id`.
    pub id: Cow<'a, str>,
    /// Where the event comes from: `/agentforge/<mission>`.
    pub source: Cow<'a, str>,
    /// The event's type: `agentforge.job.<state>`.
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    /// The job's id.
    pub subject: JobId,
    /// When the job entered the state, as RFC 3339.
    pub time: Timestamp,
    /// The format of `data`, always `application/json`.
    pub datacontenttype: Cow<'a, str>,
    /// W3C trace context, where one is known (the CloudEvents extension of that name).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Cow<'a, str>>,
    /// X-Request-ID of the submission, where one is known (an extension of ours).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requestid: Option<Cow<'a, str>>,
    /// What happened to which job.
    pub data: JobEventData<'a>,
}

/// The facts of a life-cycle event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobEventData<'a> {
    /// The id of the job that changed.
    pub job_id: JobId,
    /// The mission of the job.
    pub mission: Mission,
    /// The queue of the job.
    pub queue: Queue,
    /// The tool that the job names.
    pub tool: ToolName,
    /// The state it entered.
    pub state: Cow<'a, str>,
    /// The attempt it is at.
    pub attempt: Attempt,
    /// The labels of the job's submission.
    #[serde(default, skip_serializing_if = "has_no_labels")]
    pub labels: Cow<'a, BTreeMap<String, String>>,
    /// The name of the token that submitted it; absent when it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_by: Option<Cow<'a, str>>,
    /// Why, for states that have a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<EventError<'a>>,
}

fn has_no_labels(labels: &BTreeMap<String, String>) -> bool {
    labels.is_empty()
}

/// The error in an event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventError<'a> {
    /// What kind of error it is; it decides whether the job is tried again.
    pub class: ErrorClass,
    /// What went wrong, in words for people.
    pub message: Cow<'a, str>,
}

/// What `swarm.dlq.<mission>.<queue>` carries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetterMessage {
    /// Key of the dead letter; also the message's `Nats-Msg-Id`.
    pub id: String,
    /// attempts_exhausted, not_retryable, worker_lost, invalid_message or invalid_signature.
    pub reason: String,
    /// The job; absent for bytes that were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<DeadJob>,
    /// Every attempt's error, oldest first.
    #[serde(default)]
    pub attempts: Vec<DeadAttempt>,
    /// The worker that was last at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<AgentId>,
    /// W3C trace id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// For a message that was not a job: what was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejected>,
    /// When the letter was written, in microseconds since 1970.
    pub at: Micros,
}

/// The job of a dead letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadJob {
    /// The id of the job.
    pub id: JobId,
    /// The mission of the job.
    pub mission: Mission,
    /// The queue that the job was in.
    pub queue: Queue,
    /// The tool that the job names.
    pub tool: ToolName,
    /// Its arguments; absent when over 64 KiB: the store has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Box<RawValue>>,
    /// The labels of the job's submission.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When it was accepted.
    pub accepted_at: Micros,
}

/// One failed attempt of a dead letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadAttempt {
    /// The number of the attempt, from 1.
    pub attempt: Attempt,
    /// Its error's class.
    pub class: ErrorClass,
    /// Its error's message.
    pub message: String,
    /// Who ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<AgentId>,
    /// When it ended.
    pub at: Micros,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_classes_have_one_word_each() {
        for c in [ErrorClass::Transient, ErrorClass::RateLimited, ErrorClass::WorkerLost, ErrorClass::InvalidMessage] {
            assert_eq!(serde_json::to_string(&c).unwrap(), format!("\"{}\"", c.as_str()));
            assert_eq!(ErrorClass::from_word(c.as_str()), c);
        }
        assert_eq!(serde_json::from_str::<ErrorClass>("\"quantum\"").unwrap(), ErrorClass::Unknown);
        assert!(!ErrorClass::Unknown.is_retryable());
    }

    #[test]
    fn a_report_keeps_the_output_byte_for_byte() {
        let text = r#"{"finished":{"job":"01890a5d-ac96-774b-bcce-b302099a8057","attempt":1,"delivery":1,"worker":"w","started_at":1,"finished_at":2,"outcome":{"succeeded":{"output":{"n":12345678901234567890,"f":1.10}}},"of_a_later_version":true}}"#;
        let Report::Finished(f) = serde_json::from_str(text).unwrap() else { panic!("not finished") };
        let Outcome::Succeeded(s) = f.outcome else { panic!("not succeeded") };
        assert_eq!(s.output.unwrap().get(), r#"{"n":12345678901234567890,"f":1.10}"#);
    }

    #[test]
    fn truncation_respects_characters() {
        let mut s = "ab€".to_owned();
        truncate(&mut s, 4);
        assert_eq!(s, "ab");
    }

    #[test]
    fn attempt_zero_is_no_job() {
        assert!(serde_json::from_str::<Attempt>("0").is_err());
    }
}
