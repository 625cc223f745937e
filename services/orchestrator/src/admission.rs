//! What may be submitted: raw requests in, [`NewJob`] or a refusal that names field, limit and knob.
//!
//! Pure: the clock and the limits are passed in. gRPC, REST and schedules all come through here.

use crate::error::Error;
use crate::model::NewJob;
use agentforge_message_id::{JobId, Mission, Queue, ScheduleId, ToolName};
use agentforge_proto::time::Micros;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;

/// Largest and smallest of what a submission may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of `args`: min(1 MiB, the server's max_payload − 64 KiB).
    pub args_max_bytes: usize,
    /// Attempts that may be asked for.
    pub max_attempts_max: u32,
    /// Attempts granted when nothing is asked for (JOB_MAX_ATTEMPTS).
    pub max_attempts_default: u32,
    /// Timeout of one attempt when nothing is asked for (JOB_TIMEOUT).
    pub timeout_default: Duration,
    /// Longest timeout of one attempt (JOB_TIMEOUT_MAX).
    pub timeout_max: Duration,
    /// Deadline when nothing is asked for (JOB_DEADLINE), from max(accepted, run_at); `None`: no deadline.
    pub deadline_default: Option<Duration>,
    /// How far ahead `run_at` may be.
    pub run_at_max: Duration,
    /// Mission when nothing is asked for.
    pub mission_default: Mission,
}

/// Most labels of one job.
pub const LABELS_MAX: usize = 32;
/// Longest label key, bytes.
pub const LABEL_KEY_MAX_BYTES: usize = 63;
/// Longest label value, bytes.
pub const LABEL_VALUE_MAX_BYTES: usize = 256;
/// Longest idempotency key and task, bytes.
pub const KEY_MAX_BYTES: usize = 256;
/// Largest `args` whatever the server allows, bytes.
pub const ARGS_MAX_BYTES: usize = 1024 * 1024;
/// What a message needs beside `args`, bytes.
pub const MESSAGE_OVERHEAD_BYTES: usize = 64 * 1024;

/// The bound on `args` under a NATS server's max_payload, bytes.
pub fn args_max_bytes(max_payload: usize) -> usize {
    ARGS_MAX_BYTES.min(max_payload.saturating_sub(MESSAGE_OVERHEAD_BYTES))
}

/// A submission as it came in: nothing checked yet. Empty strings mean "not given".
#[derive(Clone, Debug, Default)]
pub struct SubmitInput {
    /// UUID of the caller's choice.
    pub id: Option<String>,
    /// Key.
    pub idempotency_key: Option<String>,
    /// Mission.
    pub mission: Option<String>,
    /// Queue.
    pub queue: Option<String>,
    /// Tool.
    pub tool: String,
    /// JSON text of an object; empty is `{}`.
    pub args: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Attempts.
    pub max_attempts: Option<u32>,
    /// Bound of one attempt.
    pub timeout: Option<Duration>,
    /// Not before.
    pub run_at: Option<Micros>,
    /// Past it the job ends expired.
    pub deadline: Option<Micros>,
    /// Part of the operation key.
    pub task: Option<String>,
    /// An equal earlier success may be returned.
    pub reuse: bool,
    /// W3C traceparent of the request.
    pub traceparent: Option<String>,
    /// X-Request-ID of the request.
    pub request_id: Option<String>,
}

/// What a schedule repeats: a submission without identity or times. Stored as JSON.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Template {
    /// Mission.
    pub mission: Option<String>,
    /// Queue.
    pub queue: Option<String>,
    /// Tool.
    pub tool: String,
    /// JSON text of an object.
    pub args: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Attempts.
    pub max_attempts: Option<u32>,
    /// Bound of one attempt, milliseconds.
    pub timeout_ms: Option<u64>,
    /// Part of the operation key.
    pub task: Option<String>,
    /// An equal earlier success may be returned.
    #[serde(default)]
    pub reuse: bool,
}

impl Template {
    /// The submission of one turn, under a key that makes the turn unique.
    pub fn to_input(&self, idempotency_key: String) -> SubmitInput {
        SubmitInput {
            idempotency_key: Some(idempotency_key),
            mission: self.mission.clone(),
            queue: self.queue.clone(),
            tool: self.tool.clone(),
            args: self.args.clone(),
            labels: self.labels.clone(),
            max_attempts: self.max_attempts,
            timeout: self.timeout_ms.map(Duration::from_millis),
            task: self.task.clone(),
            reuse: self.reuse,
            ..SubmitInput::default()
        }
    }

    /// Keeps what a schedule may repeat.
    ///
    /// # Errors
    /// Names a field that belongs to one submission only.
    pub fn from_input(input: SubmitInput) -> Result<Self, Error> {
        let single = [
            ("id", given(&input.id).is_some()),
            ("idempotency_key", given(&input.idempotency_key).is_some()),
            ("run_at", input.run_at.is_some()),
            ("deadline", input.deadline.is_some()),
        ];
        if let Some((field, _)) = single.into_iter().find(|(_, set)| *set) {
            return Err(Error::field(
                field,
                format!("{field} belongs to a single job and cannot be part of a schedule"),
            ));
        }
        Ok(Self {
            mission: input.mission.filter(|s| !s.is_empty()),
            queue: input.queue.filter(|s| !s.is_empty()),
            tool: input.tool,
            args: input.args,
            labels: input.labels,
            max_attempts: input.max_attempts,
            timeout_ms: input.timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
            task: input.task.filter(|s| !s.is_empty()),
            reuse: input.reuse,
        })
    }
}

/// Checks a submission and fills in what was not given.
///
/// # Errors
/// The first field at fault, with its limit and knob.
pub fn admit(
    input: SubmitInput,
    limits: &Limits,
    now: Micros,
    turn: Option<(ScheduleId, Micros)>,
) -> Result<NewJob, Error> {
    let caller_id =
        given(&input.id).map(str::parse::<JobId>).transpose().map_err(|e| Error::field("id", e.to_string()))?;
    let idempotency_key = bounded_text("idempotency_key", input.idempotency_key)?;
    let task = bounded_text("task", input.task)?;
    let mission = match given(&input.mission) {
        Some(m) => own_mission(m, limits)?,
        None => limits.mission_default.clone(),
    };
    let queue = match given(&input.queue) {
        Some(q) => Queue::new(q).map_err(|e| Error::field("queue", e.to_string()))?,
        None => Queue::default(),
    };
    let tool = ToolName::new(&input.tool).map_err(|e| Error::field("tool", e.to_string()))?;
    let args = admit_args(input.args, limits)?;
    admit_labels(&input.labels)?;
    let max_attempts = match input.max_attempts {
        None | Some(0) => limits.max_attempts_default,
        Some(n) if n <= limits.max_attempts_max => n,
        Some(n) => {
            return Err(Error::field(
                "max_attempts",
                format!("max_attempts is {n}; at most {} are allowed", limits.max_attempts_max),
            ));
        }
    };
    let timeout = match input.timeout {
        None => limits.timeout_default,
        Some(t) if t.is_zero() => return Err(Error::field("timeout", "timeout must be more than 0")),
        Some(t) if t > limits.timeout_max => {
            let max = limits.timeout_max.as_secs();
            return Err(Error::field(
                "timeout",
                format!("timeout is {} s; at most {max} s are allowed (JOB_TIMEOUT_MAX)", t.as_secs()),
            ));
        }
        Some(t) => t,
    };
    if let Some(run_at) = input.run_at.filter(|r| *r > now.plus(limits.run_at_max)) {
        let days = limits.run_at_max.as_secs() / 86_400;
        return Err(Error::field("run_at", format!("run_at {} is more than {days} days ahead", run_at.timestamp())));
    }
    let begin = input.run_at.map_or(now, |r| r.max(now));
    let deadline = match input.deadline {
        Some(d) if d <= begin => {
            return Err(Error::field("deadline", "deadline must be later than now and than run_at"));
        }
        Some(d) => Some(d),
        None => limits.deadline_default.map(|d| begin.plus(d)),
    };
    let mut job = NewJob {
        id: caller_id.unwrap_or_else(JobId::generate),
        id_from_caller: caller_id.is_some(),
        idempotency_key,
        body_hash: None,
        mission,
        queue,
        tool,
        task,
        args,
        labels: input.labels,
        max_attempts,
        timeout,
        run_at: input.run_at,
        deadline,
        reuse: input.reuse,
        schedule_id: turn.map(|(id, _)| id),
        scheduled_at: turn.map(|(_, time)| time),
        traceparent: input.traceparent,
        request_id: input.request_id,
        created_at: now,
    };
    if job.id_from_caller || job.idempotency_key.is_some() {
        job.body_hash = Some(body_hash(&job, input.deadline));
    }
    Ok(job)
}

/// Results of other missions are read by their own orchestrators: taking them here would lose them.
fn own_mission(given: &str, limits: &Limits) -> Result<Mission, Error> {
    let mission = Mission::new(given).map_err(|e| Error::field("mission", e.to_string()))?;
    if mission == limits.mission_default {
        return Ok(mission);
    }
    let own = &limits.mission_default;
    Err(Error::field(
        "mission",
        format!("this orchestrator serves mission {own} (MISSION), not {mission}: submit to the one that does"),
    ))
}

fn given(s: &Option<String>) -> Option<&str> {
    s.as_deref().filter(|s| !s.is_empty())
}

fn bounded_text(field: &'static str, value: Option<String>) -> Result<Option<String>, Error> {
    match value.filter(|v| !v.is_empty()) {
        Some(v) if v.len() > KEY_MAX_BYTES => {
            Err(Error::too_large(field, format!("{field} has {} bytes; at most {KEY_MAX_BYTES} are allowed", v.len())))
        }
        Some(v) if v.contains('\0') => Err(Error::field(field, format!("{field} must not contain NUL"))),
        other => Ok(other),
    }
}

fn admit_args(args: String, limits: &Limits) -> Result<String, Error> {
    if args.is_empty() {
        return Ok("{}".into());
    }
    if args.len() > limits.args_max_bytes {
        let message = format!(
            "args has {} bytes; at most {} are allowed: the smaller of 1 MiB and the NATS server's max_payload less 64 KiB; \
             put large input into a file or an object store and pass its address",
            args.len(),
            limits.args_max_bytes
        );
        return Err(Error::too_large("args", message));
    }
    if !args.trim_start().starts_with('{') {
        return Err(Error::field("args", "args must be a JSON object, such as {\"name\": \"value\"}"));
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(&args) {
        Ok(_) if args.contains("\\u0000") => {
            Err(Error::field("args", "args must not contain the character NUL (\\u0000)"))
        }
        Ok(_) => Ok(args),
        Err(e) => Err(Error::field("args", format!("args is not JSON: {e}"))),
    }
}

fn admit_labels(labels: &BTreeMap<String, String>) -> Result<(), Error> {
    if labels.len() > LABELS_MAX {
        return Err(Error::too_large(
            "labels",
            format!("{} labels were given; at most {LABELS_MAX} are allowed", labels.len()),
        ));
    }
    for (k, v) in labels {
        let key_fits = (1..=LABEL_KEY_MAX_BYTES).contains(&k.len())
            && k.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        if !key_fits {
            let shown: String = k.chars().take(80).collect();
            let rule = format!("1 to {LABEL_KEY_MAX_BYTES} letters, digits, dots, hyphens, underscores or slashes");
            return Err(Error::field("labels", format!("label key {shown:?} is not valid: expected {rule}")));
        }
        if v.len() > LABEL_VALUE_MAX_BYTES || v.chars().any(char::is_control) {
            let rule = format!("at most {LABEL_VALUE_MAX_BYTES} bytes without control characters");
            return Err(Error::field("labels", format!("the value of label {k} is not valid: expected {rule}")));
        }
    }
    Ok(())
}

/// What makes two submissions the same: everything the caller chose, none of what we filled in by clock.
fn body_hash(job: &NewJob, deadline_given: Option<Micros>) -> [u8; 32] {
    let mut h = Sha256::new();
    let mut part = |name: &str, value: &[u8]| {
        h.update((name.len() as u64).to_be_bytes());
        h.update(name);
        h.update((value.len() as u64).to_be_bytes());
        h.update(value);
    };
    part("mission", job.mission.as_str().as_bytes());
    part("queue", job.queue.as_str().as_bytes());
    part("tool", job.tool.as_str().as_bytes());
    part("task", job.task.as_deref().unwrap_or_default().as_bytes());
    part("args", canonical(&job.args).as_bytes());
    for (k, v) in &job.labels {
        part(k, v.as_bytes());
    }
    part("max_attempts", &job.max_attempts.to_be_bytes());
    part("timeout", &job.timeout.as_millis().to_be_bytes());
    part("run_at", &job.run_at.map_or(i64::MIN, |t| t.0).to_be_bytes());
    part("deadline", &deadline_given.map_or(i64::MIN, |t| t.0).to_be_bytes());
    part("reuse", &[u8::from(job.reuse)]);
    h.finalize().into()
}

/// Key order and white space do not make a submission another one.
fn canonical(args: &str) -> String {
    serde_json::from_str::<serde_json::Value>(args).map_or_else(|_| args.to_owned(), |v| v.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn limits() -> Limits {
        Limits {
            args_max_bytes: args_max_bytes(1024 * 1024),
            max_attempts_max: 100,
            max_attempts_default: 3,
            timeout_default: Duration::from_secs(300),
            timeout_max: Duration::from_secs(3600),
            deadline_default: Some(Duration::from_secs(1200)),
            run_at_max: Duration::from_secs(366 * 86_400),
            mission_default: Mission::new("dev").unwrap(),
        }
    }

    fn input() -> SubmitInput {
        SubmitInput { tool: "echo".into(), args: r#"{"a":1}"#.into(), ..SubmitInput::default() }
    }

    fn try_admit(i: SubmitInput) -> Result<NewJob, Error> {
        admit(i, &limits(), Micros(1_000_000), None)
    }

    #[test]
    fn defaults_fill_what_was_not_given() {
        let j = try_admit(input()).unwrap();
        assert_eq!((j.mission.as_str(), j.queue.as_str(), j.max_attempts), ("dev", "default", 3));
        assert_eq!(j.deadline, Some(Micros(1_201_000_000)));
        assert!(j.body_hash.is_none() && !j.id_from_caller);
    }

    #[test]
    fn the_default_deadline_counts_from_run_at() {
        let j = try_admit(SubmitInput { run_at: Some(Micros(5_000_000)), ..input() }).unwrap();
        assert_eq!(j.deadline, Some(Micros(1_205_000_000)));
    }

    #[test]
    fn each_fault_names_its_field() {
        let big = format!("{{\"a\":\"{}\"}}", "x".repeat(1024 * 1024));
        let long = "k".repeat(257);
        let table: Vec<(&str, Code, SubmitInput)> = vec![
            ("id", Code::InvalidArgument, SubmitInput { id: Some("x".into()), ..input() }),
            ("idempotency_key", Code::TooLarge, SubmitInput { idempotency_key: Some(long), ..input() }),
            ("mission", Code::InvalidArgument, SubmitInput { mission: Some("a_b".into()), ..input() }),
            ("mission", Code::InvalidArgument, SubmitInput { mission: Some("elsewhere".into()), ..input() }),
            ("queue", Code::InvalidArgument, SubmitInput { queue: Some("a.b".into()), ..input() }),
            ("tool", Code::InvalidArgument, SubmitInput { tool: String::new(), ..input() }),
            ("args", Code::TooLarge, SubmitInput { args: big, ..input() }),
            ("args", Code::InvalidArgument, SubmitInput { args: "[1]".into(), ..input() }),
            ("args", Code::InvalidArgument, SubmitInput { args: "{\"a\":".into(), ..input() }),
            ("args", Code::InvalidArgument, SubmitInput { args: "{\"a\":\"\\u0000\"}".into(), ..input() }),
            ("labels", Code::InvalidArgument, SubmitInput { labels: [("a b".into(), "c".into())].into(), ..input() }),
            ("labels", Code::InvalidArgument, SubmitInput { labels: [("a".into(), "c\n".into())].into(), ..input() }),
            ("max_attempts", Code::InvalidArgument, SubmitInput { max_attempts: Some(101), ..input() }),
            ("timeout", Code::InvalidArgument, SubmitInput { timeout: Some(Duration::from_secs(3601)), ..input() }),
            ("run_at", Code::InvalidArgument, SubmitInput { run_at: Some(Micros(i64::MAX)), ..input() }),
            ("deadline", Code::InvalidArgument, SubmitInput { deadline: Some(Micros(1)), ..input() }),
        ];
        for (field, code, i) in table {
            let e = try_admit(i).unwrap_err();
            assert_eq!((e.field, e.code), (Some(field), code), "{e}");
            assert!(e.message.len() < 400, "a refusal never echoes large input");
        }
    }

    #[test]
    fn the_same_submission_has_the_same_hash_however_it_is_spaced() {
        let with = |args: &str, tool: &str| {
            let i = SubmitInput { idempotency_key: Some("k".into()), args: args.into(), tool: tool.into(), ..input() };
            try_admit(i).unwrap().body_hash.unwrap()
        };
        assert_eq!(with(r#"{"a":1,"b":2}"#, "echo"), with(r#"{ "b": 2, "a": 1 }"#, "echo"));
        assert_ne!(with(r#"{"a":1}"#, "echo"), with(r#"{"a":2}"#, "echo"));
        assert_ne!(with(r#"{"a":1}"#, "echo"), with(r#"{"a":1}"#, "sleep"));
    }

    #[test]
    fn a_small_server_lowers_the_bound() {
        assert_eq!(args_max_bytes(1024 * 1024), 1024 * 1024 - 64 * 1024);
        assert_eq!(args_max_bytes(8 * 1024 * 1024), 1024 * 1024);
        assert_eq!(args_max_bytes(1000), 0);
    }

    #[test]
    fn a_template_takes_no_identity() {
        let e = Template::from_input(SubmitInput { id: Some("x".into()), ..input() }).unwrap_err();
        assert_eq!(e.field, Some("id"));
        let t = Template::from_input(input()).unwrap();
        assert_eq!(t.to_input("k".into()).idempotency_key.as_deref(), Some("k"));
    }
}
