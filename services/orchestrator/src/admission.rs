//! What may be submitted: raw requests in, [`NewJob`] or a refusal that names field, limit and knob.
//!
//! Pure: the clock and the limits are passed in. gRPC, REST and schedules all come through here.

mod body;
mod input;
mod limits;
mod template;

pub use input::SubmitInput;
pub use limits::{
    ARGS_MAX_BYTES, DEADLINE_IN_MAX, KEY_MAX_BYTES, LABEL_KEY_MAX_BYTES, LABEL_VALUE_MAX_BYTES, LABELS_MAX, Limits,
    MESSAGE_OVERHEAD_BYTES, RETRY_WAIT_MAX, RETRY_WAIT_MIN, ToolRetries, args_max_bytes,
};
pub use template::Template;

use crate::error::Error;
use crate::model::{KeyReuse, NewJob, RetryPolicy};
use agentforge_message_id::{JobId, Mission, Queue, ScheduleId, ToolName};
use agentforge_proto::json;
use agentforge_proto::time::Micros;
use std::collections::BTreeMap;
use std::time::Duration;

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
    let idempotency_key = bounded_text("idempotency_key", input.idempotency_key.as_deref())?;
    if input.key_reuse != KeyReuse::Never && idempotency_key.is_none() {
        return Err(Error::field("key_reuse", "key_reuse is about an idempotency_key, and none is given"));
    }
    let task = bounded_text("task", input.task.as_deref())?;
    let mission = match given(&input.mission) {
        Some(m) => own_mission(m, limits)?,
        None => limits.mission_default.clone(),
    };
    let queue = match given(&input.queue) {
        Some(q) => Queue::new(q).map_err(|e| Error::field("queue", e.to_string()))?,
        None => Queue::default(),
    };
    let tool = ToolName::new(&input.tool).map_err(|e| Error::field("tool", e.to_string()))?;
    admit_args(&input.args, limits)?;
    admit_labels(&input.labels)?;
    let of_tool = limits.tool_retries.get(&tool).copied().unwrap_or_default();
    let max_attempts = match input.max_attempts {
        None | Some(0) => of_tool.max_attempts.unwrap_or(limits.max_attempts_default),
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
    let retry = admit_retry(input.retry)?.or(of_tool.retry);
    let run_at = admit_run_at(&input, limits, now)?;
    let deadline = admit_deadline(&input, limits, run_at.map_or(now, |r| r.max(now)))?;
    let mut job = NewJob {
        id: caller_id.unwrap_or_else(JobId::generate),
        id_from_caller: caller_id.is_some(),
        idempotency_key,
        key_reuse: input.key_reuse,
        body_hash: None,
        given_hash: None,
        mission,
        queue,
        tool,
        task,
        args: String::new(),
        labels: BTreeMap::new(),
        max_attempts,
        timeout,
        retry,
        run_at,
        deadline,
        reuse: input.reuse,
        schedule_id: turn.map(|(id, _)| id),
        scheduled_at: turn.map(|(_, time)| time),
        traceparent: None,
        request_id: None,
        created_at: now,
    };
    let mut input = input;
    job.args = if input.args.is_empty() { "{}".into() } else { std::mem::take(&mut input.args) };
    job.labels = std::mem::take(&mut input.labels);
    if job.id_from_caller || job.idempotency_key.is_some() {
        job.given_hash = Some(body::given(&job, &input));
        job.body_hash = Some(body::resolved(&job, input.deadline));
    }
    (job.traceparent, job.request_id) = (input.traceparent, input.request_id);
    Ok(job)
}

fn admit_run_at(input: &SubmitInput, limits: &Limits, now: Micros) -> Result<Option<Micros>, Error> {
    let run_at = match (input.run_at, input.run_in) {
        (Some(_), Some(_)) => return Err(Error::field("run_in", "give run_at or run_in, not both")),
        (at, None) => at,
        (None, Some(wait)) => Some(now.plus(wait)),
    };
    match run_at.filter(|r| *r > now.plus(limits.run_at_max)) {
        Some(far) => {
            let (field, days) =
                (if input.run_in.is_some() { "run_in" } else { "run_at" }, limits.run_at_max.as_secs() / 86_400);
            Err(Error::field(field, format!("{field} is {}, which is more than {days} days ahead", far.timestamp())))
        }
        None => Ok(run_at),
    }
}

fn admit_deadline(input: &SubmitInput, limits: &Limits, begin: Micros) -> Result<Option<Micros>, Error> {
    match (input.deadline, input.deadline_in) {
        (Some(_), Some(_)) => Err(Error::field("deadline_in", "give deadline or deadline_in, not both")),
        (Some(d), None) if d <= begin => {
            Err(Error::field("deadline", "deadline must be later than now and than run_at"))
        }
        (Some(d), None) => Ok(Some(d)),
        (None, Some(d)) => Ok(Some(begin.plus(admit_deadline_in(d)?))),
        (None, None) => Ok(limits.deadline_default.map(|d| begin.plus(d))),
    }
}

/// A deadline that counts from now.
///
/// # Errors
/// Names the field and its limits.
pub fn admit_deadline_in(d: Duration) -> Result<Duration, Error> {
    if d.is_zero() || d > DEADLINE_IN_MAX {
        let days = DEADLINE_IN_MAX.as_secs() / 86_400;
        return Err(Error::field("deadline_in", format!("deadline_in must be more than 0 and at most {days} days")));
    }
    Ok(d)
}

/// Waits between attempts, as they may be asked for.
///
/// # Errors
/// Names the field and its limits.
pub fn admit_retry(retry: RetryPolicy) -> Result<RetryPolicy, Error> {
    let (min, max) = (RETRY_WAIT_MIN.as_millis(), RETRY_WAIT_MAX.as_secs() / 3600);
    for (field, wait) in [("retry.base", retry.base), ("retry.cap", retry.cap)] {
        if wait.is_some_and(|w| !(RETRY_WAIT_MIN..=RETRY_WAIT_MAX).contains(&w)) {
            return Err(Error::field(field, format!("{field} must be {min} ms to {max} h")));
        }
    }
    match (retry.base, retry.cap) {
        (Some(base), Some(cap)) if base > cap => Err(Error::field("retry.base", "retry.base is longer than retry.cap")),
        _ => Ok(retry),
    }
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

fn bounded_text(field: &'static str, value: Option<&str>) -> Result<Option<String>, Error> {
    match value.filter(|v| !v.is_empty()) {
        Some(v) if v.len() > KEY_MAX_BYTES => {
            Err(Error::too_large(field, format!("{field} has {} bytes; at most {KEY_MAX_BYTES} are allowed", v.len())))
        }
        Some(v) if v.contains('\0') => Err(Error::field(field, format!("{field} must not contain NUL"))),
        other => Ok(other.map(str::to_owned)),
    }
}

fn admit_args(args: &str, limits: &Limits) -> Result<(), Error> {
    if args.is_empty() {
        return Ok(());
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
    json::check(args).map_err(|fault| Error::field("args", format!("args {fault}")))
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::error::Code;

    pub(crate) fn limits() -> Limits {
        Limits {
            args_max_bytes: args_max_bytes(1024 * 1024),
            max_attempts_max: 100,
            max_attempts_default: 3,
            tool_retries: [(
                ToolName::new("flaky").unwrap(),
                ToolRetries {
                    max_attempts: Some(40),
                    retry: RetryPolicy { base: Some(Duration::from_secs(1)), cap: None },
                },
            )]
            .into(),
            timeout_default: Duration::from_secs(300),
            timeout_max: Duration::from_secs(3600),
            deadline_default: Some(Duration::from_secs(1200)),
            run_at_max: Duration::from_secs(366 * 86_400),
            mission_default: Mission::new("dev").unwrap(),
        }
    }

    pub(super) fn input() -> SubmitInput {
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
    fn text_is_judged_by_what_it_means() {
        let args = |args: &str| try_admit(SubmitInput { args: args.into(), ..input() });
        assert_eq!(args(r#"{"a":"\\u0000"}"#).unwrap().args, r#"{"a":"\\u0000"}"#);
        let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n - 1), "]".repeat(n - 1));
        assert!(args(&deep(128)).is_ok());
        for (bad, word) in [
            (r#"{"a":"\u0000"}"#.to_owned(), "NUL"),
            (r#"{"a":{"b":"\ud800"}}"#.to_owned(), ".a.b"),
            (r#"{"a":1,"a":2}"#.to_owned(), "twice"),
            (deep(129), "128"),
        ] {
            let e = args(&bad).unwrap_err();
            assert_eq!((e.field, e.code), (Some("args"), Code::InvalidArgument));
            assert!(e.message.contains(word) && e.message.len() < 400, "{e}");
        }
    }

    #[test]
    fn waits_are_the_jobs_own_then_the_tools() {
        let second = Duration::from_secs(1);
        let own = RetryPolicy { base: Some(second * 2), cap: Some(second * 9) };
        let j = try_admit(SubmitInput { retry: own, max_attempts: Some(2), tool: "flaky".into(), ..input() }).unwrap();
        assert_eq!((j.retry, j.max_attempts), (own, 2));
        let j = try_admit(SubmitInput { tool: "flaky".into(), ..input() }).unwrap();
        assert_eq!((j.retry.base, j.retry.cap, j.max_attempts), (Some(second), None, 40));
        assert_eq!(try_admit(input()).unwrap().retry, RetryPolicy::default());
        let backwards = RetryPolicy { base: Some(second * 2), cap: Some(second) };
        for (field, retry) in [
            ("retry.base", RetryPolicy { base: Some(Duration::ZERO), cap: None }),
            ("retry.cap", RetryPolicy { base: None, cap: Some(second * 90_000) }),
            ("retry.base", backwards),
        ] {
            assert_eq!(try_admit(SubmitInput { retry, ..input() }).unwrap_err().field, Some(field));
        }
    }

    #[test]
    fn times_are_given_in_one_way() {
        let (at, wait) = (Some(Micros(5_000_000)), Some(Duration::from_secs(4)));
        let j = try_admit(SubmitInput { run_in: wait, deadline_in: wait, ..input() }).unwrap();
        assert_eq!((j.run_at, j.deadline), (at, Some(Micros(9_000_000))));
        for (field, i) in [
            ("run_in", SubmitInput { run_at: at, run_in: wait, ..input() }),
            ("deadline_in", SubmitInput { deadline: at, deadline_in: wait, ..input() }),
            ("deadline_in", SubmitInput { deadline_in: Some(Duration::ZERO), ..input() }),
            ("run_in", SubmitInput { run_in: Some(Duration::MAX), ..input() }),
            ("key_reuse", SubmitInput { key_reuse: KeyReuse::AfterStop, ..input() }),
        ] {
            assert_eq!(try_admit(i).unwrap_err().field, Some(field));
        }
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
