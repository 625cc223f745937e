//! What is admitted, and as what.

use super::*;
use crate::error::{Code, Error};
use crate::model::{KeyReuse, NewJob, RetryPolicy};
use agentforge_message_id::{Mission, ToolName};
use agentforge_proto::time::Micros;
use std::time::Duration;

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
    let request = JobRequest { tool: "echo".into(), args: r#"{"a":1}"#.into(), ..JobRequest::default() };
    SubmitInput { request, ..SubmitInput::default() }
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
        (
            "mission",
            Code::InvalidArgument,
            SubmitInput { request: JobRequest { mission: Some("a_b".into()), ..input().request }, ..input() },
        ),
        (
            "mission",
            Code::InvalidArgument,
            SubmitInput { request: JobRequest { mission: Some("elsewhere".into()), ..input().request }, ..input() },
        ),
        (
            "queue",
            Code::InvalidArgument,
            SubmitInput { request: JobRequest { queue: Some("a.b".into()), ..input().request }, ..input() },
        ),
        (
            "tool",
            Code::InvalidArgument,
            SubmitInput { request: JobRequest { tool: String::new(), ..input().request }, ..input() },
        ),
        ("args", Code::TooLarge, SubmitInput { request: JobRequest { args: big, ..input().request }, ..input() }),
        (
            "args",
            Code::InvalidArgument,
            SubmitInput { request: JobRequest { args: "[1]".into(), ..input().request }, ..input() },
        ),
        (
            "args",
            Code::InvalidArgument,
            SubmitInput { request: JobRequest { args: "{\"a\":".into(), ..input().request }, ..input() },
        ),
        (
            "args",
            Code::InvalidArgument,
            SubmitInput { request: JobRequest { args: "{\"a\":\"\\u0000\"}".into(), ..input().request }, ..input() },
        ),
        (
            "labels",
            Code::InvalidArgument,
            SubmitInput {
                request: JobRequest { labels: [("a b".into(), "c".into())].into(), ..input().request },
                ..input()
            },
        ),
        (
            "labels",
            Code::InvalidArgument,
            SubmitInput {
                request: JobRequest { labels: [("a".into(), "c\n".into())].into(), ..input().request },
                ..input()
            },
        ),
        (
            "max_attempts",
            Code::InvalidArgument,
            SubmitInput { request: JobRequest { max_attempts: Some(101), ..input().request }, ..input() },
        ),
        (
            "timeout",
            Code::InvalidArgument,
            SubmitInput {
                request: JobRequest { timeout: Some(Duration::from_secs(3601)), ..input().request },
                ..input()
            },
        ),
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
    let args =
        |args: &str| try_admit(SubmitInput { request: JobRequest { args: args.into(), ..input().request }, ..input() });
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
    let j = try_admit(SubmitInput {
        request: JobRequest { retry: own, max_attempts: Some(2), tool: "flaky".into(), ..input().request },
        ..input()
    })
    .unwrap();
    assert_eq!((j.retry, j.max_attempts), (own, 2));
    let j =
        try_admit(SubmitInput { request: JobRequest { tool: "flaky".into(), ..input().request }, ..input() }).unwrap();
    assert_eq!((j.retry.base, j.retry.cap, j.max_attempts), (Some(second), None, 40));
    assert_eq!(try_admit(input()).unwrap().retry, RetryPolicy::default());
    let backwards = RetryPolicy { base: Some(second * 2), cap: Some(second) };
    for (field, retry) in [
        ("retry.base", RetryPolicy { base: Some(Duration::ZERO), cap: None }),
        ("retry.cap", RetryPolicy { base: None, cap: Some(second * 90_000) }),
        ("retry.base", backwards),
    ] {
        assert_eq!(
            try_admit(SubmitInput { request: JobRequest { retry, ..input().request }, ..input() }).unwrap_err().field,
            Some(field)
        );
    }
}

#[test]
fn times_are_given_in_one_way() {
    let (at, wait) = (Some(Micros(5_000_000)), Some(Duration::from_secs(4)));
    let j = try_admit(SubmitInput {
        request: JobRequest { deadline_in: wait, ..input().request },
        run_in: wait,
        ..input()
    })
    .unwrap();
    assert_eq!((j.run_at, j.deadline), (at, Some(Micros(9_000_000))));
    for (field, i) in [
        ("run_in", SubmitInput { run_at: at, run_in: wait, ..input() }),
        (
            "deadline_in",
            SubmitInput { request: JobRequest { deadline_in: wait, ..input().request }, deadline: at, ..input() },
        ),
        (
            "deadline_in",
            SubmitInput { request: JobRequest { deadline_in: Some(Duration::ZERO), ..input().request }, ..input() },
        ),
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
    let e = JobRequest::repeatable(SubmitInput { id: Some("x".into()), ..input() }).unwrap_err();
    assert_eq!(e.field, Some("id"));
    let t = JobRequest::repeatable(input()).unwrap();
    assert_eq!(t.of_turn("k".into()).idempotency_key.as_deref(), Some("k"));
}

/// As versions before this one stored them.
#[test]
fn templates_are_stored_as_they_were() {
    let second = Duration::from_secs(1);
    let plain = r#"{"mission":null,"queue":null,"tool":"echo","args":"{\"a\":1}","labels":{},"max_attempts":null,"timeout_ms":null,"task":null,"reuse":false}"#;
    let full = r#"{"mission":"dev","queue":"mail","tool":"echo","args":"{\"a\":1}","labels":{"a":"b"},"max_attempts":5,"timeout_ms":1500,"task":"t","reuse":true,"retry_base_ms":1000,"retry_cap_ms":60000,"deadline_in_ms":2000}"#;
    let request = JobRequest {
        mission: Some("dev".into()),
        queue: Some("mail".into()),
        labels: [("a".into(), "b".into())].into(),
        max_attempts: Some(5),
        timeout: Some(second * 3 / 2),
        task: Some("t".into()),
        reuse: true,
        retry: RetryPolicy { base: Some(second), cap: Some(second * 60) },
        deadline_in: Some(second * 2),
        ..input().request
    };
    for (request, text) in [(input().request, plain), (request, full)] {
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        assert_eq!(serde_json::from_str::<JobRequest>(text).unwrap(), request);
    }
    let oldest =
        r#"{"mission":null,"queue":null,"tool":"echo","args":"","max_attempts":null,"timeout_ms":null,"task":null}"#;
    assert_eq!(serde_json::from_str::<JobRequest>(oldest).unwrap().tool, "echo");
}
