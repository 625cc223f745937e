//! A submission that waits is answered from the commit of its result, not from a read: it must say the same.

use crate::stack::{Options, Stack};
use agentforge_harness::require;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_waiting_submission_is_told_is_what_is_stored() {
    let Some(()) = require("nats-server") else { return };
    let stack = Stack::start(Options::new()).await;
    let api = stack.api();
    let key = json!({"n": 1});
    let cases = [
        ("succeeded", json!({"tool": "echo", "args": {"a": [1, 2.50, "ü"]}, "labels": {"team": "red"}})),
        ("succeeded", json!({"tool": "echo", "args": key, "task": "t", "reuse": true})),
        // The same again: the result of the one before.
        ("succeeded", json!({"tool": "echo", "args": key, "task": "t", "reuse": true})),
        // Too large to be part of the job: the result is a reference.
        ("succeeded", json!({"tool": "echo", "args": {"long": "x".repeat(300_000)}})),
        ("succeeded", json!({"tool": "sleep", "args": {"ms": 300}})),
        ("failed", json!({"tool": "fail", "args": {"class": "validation"}})),
        ("dead", json!({"tool": "fail", "args": {"class": "rate_limited", "retry_after_ms": 10}, "max_attempts": 2})),
    ];
    let mut replayed = false;
    for (state, body) in cases {
        let told = api.post("/v1/jobs?wait=30s", &body).await.unwrap().body;
        let read = api.read(told["id"].as_str().unwrap_or_default()).await;
        assert_eq!(told["state"], state, "{body}: {told}");
        assert_eq!(told, read, "{body}");
        replayed |= told["idempotent_replay"] != Value::Null;
    }
    assert!(replayed, "the equal job was answered with the earlier result");
}
