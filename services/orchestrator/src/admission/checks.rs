//! What the fields of a submission may be. A refusal names field, limit and knob.

use super::limits::{
    DEADLINE_IN_MAX, KEY_MAX_BYTES, LABEL_KEY_MAX_BYTES, LABEL_VALUE_MAX_BYTES, LABELS_MAX, Limits, RETRY_WAIT_MAX,
    RETRY_WAIT_MIN,
};
use crate::error::Error;
use crate::model::RetryPolicy;
use agentforge_message_id::Mission;
use agentforge_proto::json;
use agentforge_proto::time::Micros;
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) fn run_at(
    run_at: Option<Micros>,
    run_in: Option<Duration>,
    limits: &Limits,
    now: Micros,
) -> Result<Option<Micros>, Error> {
    let run_at = match (run_at, run_in) {
        (Some(_), Some(_)) => return Err(Error::field("run_in", "give run_at or run_in, not both")),
        (at, None) => at,
        (None, Some(wait)) => Some(now.plus(wait)),
    };
    match run_at.filter(|r| *r > now.plus(limits.run_at_max)) {
        Some(far) => {
            let (field, days) =
                (if run_in.is_some() { "run_in" } else { "run_at" }, limits.run_at_max.as_secs() / 86_400);
            Err(Error::field(field, format!("{field} is {}, which is more than {days} days ahead", far.timestamp())))
        }
        None => Ok(run_at),
    }
}

pub(super) fn deadline(
    deadline: Option<Micros>,
    deadline_in: Option<Duration>,
    limits: &Limits,
    begin: Micros,
) -> Result<Option<Micros>, Error> {
    match (deadline, deadline_in) {
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
pub(super) fn mission(given: &str, limits: &Limits) -> Result<Mission, Error> {
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

pub(super) fn given(s: &Option<String>) -> Option<&str> {
    s.as_deref().filter(|s| !s.is_empty())
}

pub(super) fn text(field: &'static str, value: Option<&str>) -> Result<Option<String>, Error> {
    match value.filter(|v| !v.is_empty()) {
        Some(v) if v.len() > KEY_MAX_BYTES => {
            Err(Error::too_large(field, format!("{field} has {} bytes; at most {KEY_MAX_BYTES} are allowed", v.len())))
        }
        Some(v) if v.contains('\0') => Err(Error::field(field, format!("{field} must not contain NUL"))),
        other => Ok(other.map(str::to_owned)),
    }
}

pub(super) fn args(args: &str, limits: &Limits) -> Result<(), Error> {
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

pub(super) fn labels(labels: &BTreeMap<String, String>) -> Result<(), Error> {
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

pub(super) fn max_attempts(asked: Option<u32>, default: u32, limits: &Limits) -> Result<u32, Error> {
    match asked {
        None | Some(0) => Ok(default),
        Some(n) if n <= limits.max_attempts_max => Ok(n),
        Some(n) => {
            let max = limits.max_attempts_max;
            Err(Error::field("max_attempts", format!("max_attempts is {n}; at most {max} are allowed")))
        }
    }
}

pub(super) fn timeout(asked: Option<Duration>, limits: &Limits) -> Result<Duration, Error> {
    match asked {
        None => Ok(limits.timeout_default),
        Some(t) if t.is_zero() => Err(Error::field("timeout", "timeout must be more than 0")),
        Some(t) if t > limits.timeout_max => {
            let max = limits.timeout_max.as_secs();
            Err(Error::field(
                "timeout",
                format!("timeout is {} s; at most {max} s are allowed (JOB_TIMEOUT_MAX)", t.as_secs()),
            ))
        }
        Some(t) => Ok(t),
    }
}
