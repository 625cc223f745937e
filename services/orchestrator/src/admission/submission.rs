//! A submission: what was asked for, the job that it comes to, and what makes two submissions the same.
//!
//! [`JobRequest`] is what a submission and a schedule have in common. [`admit`] is the one place that makes a [`JobSpec`]
//! of it, [`given`] hashes all of it: what either forgets does not compile. Pure.

use super::checks;
use super::limits::Limits;
use crate::error::Error;
use crate::model::{JobSpec, KeyReuse, NewJob, RetryPolicy};
use agentforge_message_id::{JobId, Queue, ScheduleId, ToolName};
use agentforge_proto::json;
use agentforge_proto::time::Micros;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a job is to be, as it was asked for: nothing checked yet, `None` is not given. A schedule stores it as JSON, in
/// whole milliseconds; what is added later needs a default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRequest {
    /// Must be the one that this orchestrator serves, which is also the default.
    pub mission: Option<String>,
    /// A name as [`Queue`] checks it; `default` when none is given.
    pub queue: Option<String>,
    /// A name as [`ToolName`] checks it; always needed. Whether a worker has it is not checked.
    pub tool: String,
    /// JSON text of an object; empty is `{}`.
    pub args: String,
    /// Up to [`LABELS_MAX`](super::LABELS_MAX), for filters and events.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How many attempts are granted; none or 0: those of the tool, else JOB_MAX_ATTEMPTS.
    pub max_attempts: Option<u32>,
    /// Bound of one attempt.
    #[serde(default, rename = "timeout_ms", with = "millis")]
    pub timeout: Option<Duration>,
    /// Part of the operation key.
    pub task: Option<String>,
    /// An equal earlier success may be returned.
    #[serde(default)]
    pub reuse: bool,
    /// Waits between attempts.
    #[serde(flatten, with = "waits")]
    pub retry: RetryPolicy,
    /// The job ends expired this long after it may run.
    #[serde(default, rename = "deadline_in_ms", with = "millis", skip_serializing_if = "Option::is_none")]
    pub deadline_in: Option<Duration>,
}

/// A submission as it came in: nothing checked yet. Empty strings mean "not given".
#[derive(Clone, Debug, Default)]
pub struct SubmitInput {
    /// What the job is to be.
    pub request: JobRequest,
    /// UUID of the caller's choice.
    pub id: Option<String>,
    /// The caller's name for the submission, up to [`KEY_MAX_BYTES`](super::KEY_MAX_BYTES) bytes.
    pub idempotency_key: Option<String>,
    /// Whether the key may be taken from an earlier job that ended.
    pub key_reuse: KeyReuse,
    /// The earliest moment at which it may run; one that has passed means now.
    pub run_at: Option<Micros>,
    /// Not before so long from now; instead of `run_at`.
    pub run_in: Option<Duration>,
    /// Past it the job ends expired; instead of the request's `deadline_in`.
    pub deadline: Option<Micros>,
    /// W3C traceparent of the request.
    pub traceparent: Option<String>,
    /// X-Request-ID of the request.
    pub request_id: Option<String>,
    /// The name of the caller's token; never what the body says.
    pub submitted_by: Option<String>,
}

impl JobRequest {
    /// Keeps what a schedule may repeat: a submission without identity or times.
    ///
    /// # Errors
    /// Names a field that belongs to one submission only.
    pub fn repeatable(input: SubmitInput) -> Result<Self, Error> {
        let single = [
            ("id", checks::given(&input.id).is_some()),
            ("idempotency_key", checks::given(&input.idempotency_key).is_some()),
            ("key_reuse", input.key_reuse != Default::default()),
            ("run_at", input.run_at.is_some()),
            ("run_in", input.run_in.is_some()),
            ("deadline", input.deadline.is_some()),
        ];
        if let Some((field, _)) = single.into_iter().find(|(_, set)| *set) {
            return Err(Error::field(
                field,
                format!("{field} belongs to a single job and cannot be part of a schedule"),
            ));
        }
        Ok(input.request)
    }

    /// The submission of one turn, under a key that makes the turn unique.
    pub fn of_turn(self, idempotency_key: String) -> SubmitInput {
        SubmitInput { request: self, idempotency_key: Some(idempotency_key), ..SubmitInput::default() }
    }
}

/// Checks a submission and fills in what was not given.
///
/// # Errors
/// The first field at fault, with its limit and knob.
pub fn admit(
    mut input: SubmitInput,
    limits: &Limits,
    now: Micros,
    turn: Option<(ScheduleId, Micros)>,
) -> Result<NewJob, Error> {
    let asked = &mut input.request;
    let caller_id =
        checks::given(&input.id).map(str::parse::<JobId>).transpose().map_err(|e| Error::field("id", e.to_string()))?;
    let idempotency_key = checks::text("idempotency_key", input.idempotency_key.as_deref())?;
    if input.key_reuse != KeyReuse::Never && idempotency_key.is_none() {
        return Err(Error::field("key_reuse", "key_reuse is about an idempotency_key, and none is given"));
    }
    let task = checks::text("task", asked.task.as_deref())?;
    let mission = match checks::given(&asked.mission) {
        Some(m) => checks::mission(m, limits)?,
        None => limits.mission_default.clone(),
    };
    let queue = match checks::given(&asked.queue) {
        Some(q) => Queue::new(q).map_err(|e| Error::field("queue", e.to_string()))?,
        None => Queue::default(),
    };
    let tool = ToolName::new(&asked.tool).map_err(|e| Error::field("tool", e.to_string()))?;
    checks::args(&asked.args, limits)?;
    checks::labels(&asked.labels)?;
    let of_tool = limits.tool_retries.get(&tool).copied().unwrap_or_default();
    let default_attempts = of_tool.max_attempts.unwrap_or(limits.max_attempts_default);
    let max_attempts = checks::max_attempts(asked.max_attempts, default_attempts, limits)?;
    let timeout = checks::timeout(asked.timeout, limits)?;
    let retry = checks::admit_retry(asked.retry)?.or(of_tool.retry);
    let run_at = checks::run_at(input.run_at, input.run_in, limits, now)?;
    let begin = run_at.map_or(now, |r| r.max(now));
    let deadline = checks::deadline(input.deadline, asked.deadline_in, limits, begin)?;
    let spec = JobSpec {
        id: caller_id.unwrap_or_else(JobId::generate),
        mission,
        queue,
        tool,
        task,
        args: if asked.args.is_empty() { "{}".into() } else { std::mem::take(&mut asked.args) },
        labels: std::mem::take(&mut asked.labels),
        max_attempts,
        timeout,
        retry,
        run_at,
        reuse: asked.reuse,
        idempotency_key,
        schedule_id: turn.map(|(id, _)| id),
        scheduled_at: turn.map(|(_, time)| time),
        traceparent: input.traceparent.take(),
        request_id: input.request_id.take(),
        submitted_by: input.submitted_by.take(),
        created_at: now,
    };
    let is_named = caller_id.is_some() || spec.idempotency_key.is_some();
    Ok(NewJob {
        id_from_caller: caller_id.is_some(),
        key_reuse: input.key_reuse,
        body_hash: is_named.then(|| resolved(&spec, input.deadline)),
        given_hash: is_named.then(|| given(&input, &spec)),
        deadline,
        spec: spec.into(),
    })
}

/// The hash of everything the caller chose: equal means the same submission. It knows nothing of defaults, so that a
/// change of settings between a submission and its repetition makes no conflict: names are in it as they came to be
/// (their defaults never change), numbers and times as they were given.
///
/// Rows hold it. A field that is added later is left out where it was not given (`maybe`), so that the hashes of
/// submissions without it stay what they are.
fn given(input: &SubmitInput, spec: &JobSpec) -> [u8; 32] {
    // Without `..`: a field that is forgotten here would make two different submissions the same.
    // What is `_` is in the description as it came to be, or names the submission.
    let SubmitInput {
        id: _,
        idempotency_key: _,
        key_reuse: _,
        request:
            JobRequest {
                mission: _,
                queue: _,
                tool: _,
                args: _,
                labels: _,
                max_attempts,
                timeout,
                task: _,
                reuse,
                retry,
                deadline_in,
            },
        run_at,
        run_in,
        deadline,
        traceparent: _,
        request_id: _,
        submitted_by: _,
    } = input;
    let mut parts = Parts::default();
    parts.add("version", b"2");
    parts.names(spec);
    // Checked before: this cannot fail.
    let args = json::canonical(&spec.args);
    parts.add("args", args.as_deref().unwrap_or(&spec.args).as_bytes());
    for (k, v) in &spec.labels {
        parts.add("label", k.as_bytes());
        parts.add("=", v.as_bytes());
    }
    parts.maybe("max_attempts", max_attempts.filter(|n| *n > 0));
    parts.maybe("timeout", timeout.map(|d| d.as_micros()));
    parts.maybe("retry_base", retry.base.map(|d| d.as_micros()));
    parts.maybe("retry_cap", retry.cap.map(|d| d.as_micros()));
    parts.maybe("run_at", run_at.map(|t| t.0));
    parts.maybe("run_in", run_in.map(|d| d.as_micros()));
    parts.maybe("deadline", deadline.map(|t| t.0));
    parts.maybe("deadline_in", deadline_in.map(|d| d.as_micros()));
    parts.add("reuse", &[u8::from(*reuse)]);
    parts.0.finalize().into()
}

/// The hash as versions before this one store and compare it: with defaults filled in, and numbers as floats. It is
/// frozen: no field is ever added.
fn resolved(spec: &JobSpec, deadline_given: Option<Micros>) -> [u8; 32] {
    let mut parts = Parts::default();
    parts.names(spec);
    let args =
        serde_json::from_str::<serde_json::Value>(&spec.args).map_or_else(|_| spec.args.clone(), |v| v.to_string());
    parts.add("args", args.as_bytes());
    for (k, v) in &spec.labels {
        parts.add(k, v.as_bytes());
    }
    parts.add("max_attempts", &spec.max_attempts.to_be_bytes());
    parts.add("timeout", &Duration::as_millis(&spec.timeout).to_be_bytes());
    parts.add("run_at", &spec.run_at.map_or(i64::MIN, |t| t.0).to_be_bytes());
    parts.add("deadline", &deadline_given.map_or(i64::MIN, |t| t.0).to_be_bytes());
    parts.add("reuse", &[u8::from(spec.reuse)]);
    parts.0.finalize().into()
}

#[derive(Default)]
struct Parts(Sha256);

impl Parts {
    /// Lengths first: no two lists of parts are the same bytes.
    fn add(&mut self, name: &str, value: &[u8]) {
        self.0.update((name.len() as u64).to_be_bytes());
        self.0.update(name);
        self.0.update((value.len() as u64).to_be_bytes());
        self.0.update(value);
    }

    fn maybe(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.add(name, value.to_string().as_bytes());
        }
    }

    fn names(&mut self, spec: &JobSpec) {
        self.add("mission", spec.mission.as_str().as_bytes());
        self.add("queue", spec.queue.as_str().as_bytes());
        self.add("tool", spec.tool.as_str().as_bytes());
        self.add("task", spec.task.as_deref().unwrap_or_default().as_bytes());
    }
}

/// A duration as whole milliseconds.
mod millis {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::Duration;

    pub(super) fn of(d: Duration) -> u64 {
        u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn serialize<S: Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        d.map(of).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(d)?.map(Duration::from_millis))
    }
}

/// Waits between attempts as two fields, each left out where it is not set.
mod waits {
    use super::{RetryPolicy, millis};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::Duration;

    #[derive(Serialize, Deserialize)]
    struct Stored {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_base_ms: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_cap_ms: Option<u64>,
    }

    pub(super) fn serialize<S: Serializer>(r: &RetryPolicy, s: S) -> Result<S::Ok, S::Error> {
        Stored { retry_base_ms: r.base.map(millis::of), retry_cap_ms: r.cap.map(millis::of) }.serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<RetryPolicy, D::Error> {
        let stored = Stored::deserialize(d)?;
        let wait = |ms: Option<u64>| ms.map(Duration::from_millis);
        Ok(RetryPolicy { base: wait(stored.retry_base_ms), cap: wait(stored.retry_cap_ms) })
    }
}
