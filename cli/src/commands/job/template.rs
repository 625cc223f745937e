//! The description of a job: from options, shared by submit, batch (as defaults) and schedules; and from one line of a
//! batch, JSON with the fields of the REST API on top of the options.

use super::{args::check_object, request::set_times};
use agentforge_proto::{time::duration_to_proto, v1};
use agentforge_terminal::{duration, label, when};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{collections::HashMap, time::Duration};

/// Options of a job that a schedule may set too.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Template {
    /// The queue in the mission [default: default]
    #[arg(long, value_name = "NAME")]
    pub queue: Option<String>,
    /// The environment or shard [default: the server's]
    #[arg(long, value_name = "NAME")]
    pub mission: Option<String>,
    /// A label; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Attempts before it becomes a dead letter, 1 to 100 [default: the server's, 12]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub max_attempts: Option<u32>,
    /// Wait before the first retry; doubles from there [default: the server's, 200ms]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub retry_base: Option<Duration>,
    /// Longest wait before a retry [default: the server's, 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub retry_cap: Option<Duration>,
    /// How long one attempt may run [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Part of the operation key: the purpose of this run
    #[arg(long, value_name = "TEXT")]
    pub task: Option<String>,
    /// Return an equal earlier success instead of running again
    #[arg(long)]
    pub reuse: bool,
}

impl Template {
    /// A request for `tool` with these options.
    pub fn request(&self, tool: String, args: String) -> v1::SubmitJobRequest {
        v1::SubmitJobRequest {
            tool,
            args,
            queue: self.queue.clone().unwrap_or_default(),
            mission: self.mission.clone().unwrap_or_default(),
            labels: self.labels.iter().cloned().collect::<HashMap<_, _>>(),
            max_attempts: self.max_attempts.unwrap_or_default(),
            timeout: self.timeout.map(duration_to_proto),
            task: self.task.clone().unwrap_or_default(),
            reuse: self.reuse,
            retry: (self.retry_base.is_some() || self.retry_cap.is_some()).then(|| v1::RetryPolicy {
                base: self.retry_base.map(duration_to_proto),
                cap: self.retry_cap.map(duration_to_proto),
            }),
            ..Default::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    tool: Option<String>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    queue: Option<String>,
    mission: Option<String>,
    labels: Option<HashMap<String, String>>,
    max_attempts: Option<u32>,
    timeout: Option<Span>,
    timeout_ms: Option<u64>,
    run_at: Option<String>,
    deadline: Option<String>,
    task: Option<String>,
    reuse: Option<bool>,
    id: Option<String>,
    idempotency_key: Option<String>,
    run_in: Option<Span>,
    deadline_in: Option<Span>,
    key_reuse: Option<Reuse>,
    retry: Option<Retry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reuse {
    Never,
    AfterStop,
    AfterFailure,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    base: Option<Span>,
    base_ms: Option<u64>,
    cap: Option<Span>,
    cap_ms: Option<u64>,
}

/// Seconds as a number, or text such as `30s`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Span {
    Seconds(f64),
    Text(String),
}

/// The request of a line; what it leaves out comes from `defaults`.
///
/// # Errors
/// What is wrong with the line.
pub fn line_request(line: &str, defaults: &v1::SubmitJobRequest) -> Result<v1::SubmitJobRequest, String> {
    let line: Line<'_> = serde_json::from_str(line).map_err(|e| no_job(&e))?;
    let mut request = defaults.clone();
    let set = |field: &mut String, value: Option<String>| {
        if let Some(value) = value {
            *field = value;
        }
    };
    set(&mut request.tool, line.tool);
    set(&mut request.queue, line.queue);
    set(&mut request.mission, line.mission);
    set(&mut request.task, line.task);
    set(&mut request.id, line.id);
    set(&mut request.idempotency_key, line.idempotency_key);
    if request.tool.is_empty() {
        return Err("tool is missing; give it in the line or as TOOL".to_owned());
    }
    if let Some(args) = line.args {
        check_object(args.get()).map_err(|e| format!("args {e}"))?;
        request.args = args.get().to_owned();
    }
    request.labels.extend(line.labels.unwrap_or_default());
    request.max_attempts = line.max_attempts.unwrap_or(request.max_attempts);
    request.reuse = line.reuse.unwrap_or(request.reuse);
    match (line.timeout, line.timeout_ms) {
        (Some(_), Some(_)) => return Err("give timeout or timeout_ms, not both".to_owned()),
        (Some(timeout), None) => request.timeout = Some(duration_to_proto(timeout.parse()?)),
        (None, Some(ms)) => request.timeout = Some(duration_to_proto(Duration::from_millis(ms))),
        (None, None) => {}
    }
    let moment =
        |name: &str, text: Option<String>| text.map(|t| when(&t).map_err(|e| format!("{name} {e}"))).transpose();
    set_times(&mut request, moment("run_at", line.run_at)?, moment("deadline", line.deadline)?);
    if let Some(wait) = line.run_in {
        (request.run_at, request.run_in) = (None, Some(duration_to_proto(wait.parse()?)));
    }
    if let Some(time) = line.deadline_in {
        (request.deadline, request.deadline_in) = (None, Some(duration_to_proto(time.parse()?)));
    }
    if let Some(reuse) = line.key_reuse {
        request.key_reuse = match reuse {
            Reuse::Never => v1::KeyReuse::Never,
            Reuse::AfterStop => v1::KeyReuse::AfterStop,
            Reuse::AfterFailure => v1::KeyReuse::AfterFailure,
        }
        .into();
    }
    if let Some(retry) = line.retry {
        let wait = |span: Option<Span>, ms: Option<u64>| match (span, ms) {
            (Some(_), Some(_)) => Err("give a wait of retry as text or in milliseconds, not both".to_owned()),
            (Some(span), None) => span.parse().map(|d| Some(duration_to_proto(d))),
            (None, ms) => Ok(ms.map(|ms| duration_to_proto(Duration::from_millis(ms)))),
        };
        request.retry =
            Some(v1::RetryPolicy { base: wait(retry.base, retry.base_ms)?, cap: wait(retry.cap, retry.cap_ms)? });
    }
    Ok(request)
}

/// What is wrong with a line. It is one line, so the parser's own count of lines says nothing.
fn no_job(e: &serde_json::Error) -> String {
    let (text, column) = (e.to_string(), e.column());
    let place = format!(" at line {} column {column}", e.line());
    let text = text.strip_suffix(&place).unwrap_or(&text);
    if column > 0 {
        format!("the line is not a job: {text}, at column {column}")
    } else {
        format!("the line is not a job: {text}")
    }
}

impl Span {
    fn parse(self) -> Result<Duration, String> {
        match self {
            Self::Seconds(s) => Duration::try_from_secs_f64(s).map_err(|e| format!("timeout is not a duration: {e}")),
            Self::Text(text) => duration(&text).map_err(|e| format!("timeout {e}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> v1::SubmitJobRequest {
        let labels = HashMap::from([("team".to_owned(), "blue".to_owned())]);
        v1::SubmitJobRequest { tool: "echo".into(), queue: "bulk".into(), labels, ..Default::default() }
    }

    #[test]
    fn a_line_wins_over_the_options() {
        let line =
            r#"{"tool":"http","args":{"n":1.0},"labels":{"a":"b"},"timeout":"1m30s","run_at":"2030-01-31T08:00:00Z"}"#;
        let got = line_request(line, &defaults()).unwrap();
        assert_eq!((got.tool.as_str(), got.queue.as_str(), got.args.as_str()), ("http", "bulk", r#"{"n":1.0}"#));
        assert_eq!(got.labels.len(), 2);
        assert_eq!(got.timeout.unwrap().seconds, 90);
        assert!(got.run_at.is_some());
        let relative = line_request(r#"{"run_at":"+10m","deadline":"+1h"}"#, &defaults()).unwrap();
        assert_eq!((relative.run_in.unwrap().seconds, relative.deadline_in.unwrap().seconds), (600, 3_000));
        assert!(relative.run_at.is_none() && relative.deadline.is_none());
        let more = line_request(
            r#"{"run_in":"5m","key_reuse":"after_stop","retry":{"base":"1s","cap_ms":9000}}"#,
            &defaults(),
        );
        let more = more.unwrap();
        assert_eq!((more.run_in.unwrap().seconds, more.key_reuse()), (300, v1::KeyReuse::AfterStop));
        assert_eq!(more.retry.unwrap().cap.unwrap().seconds, 9);
        assert_eq!(line_request(r#"{"timeout":1.5}"#, &defaults()).unwrap().timeout.unwrap().nanos, 500_000_000);
    }

    #[test]
    fn a_bad_line_is_told_by_what_is_wrong() {
        for (line, part) in [
            ("", "not a job"),
            ("[]", "not a job"),
            (r#"{"toll":"echo"}"#, "unknown field `toll`"),
            (r#"{"args":[1]}"#, "not an object"),
            (r#"{"timeout":-1}"#, "timeout"),
            (r#"{"timeout":1,"timeout_ms":1}"#, "not both"),
            (r#"{"timeout":"soon"}"#, "timeout"),
            (r#"{"deadline":"soon"}"#, "deadline"),
        ] {
            let problem = line_request(line, &defaults()).unwrap_err();
            assert!(problem.contains(part), "{line}: {problem}");
        }
        assert_eq!(
            line_request(r#"{"tool":"a""#, &defaults()).unwrap_err(),
            "the line is not a job: EOF while parsing an object, at column 11"
        );
        assert!(line_request("{}", &v1::SubmitJobRequest::default()).unwrap_err().contains("tool is missing"));
    }
}
