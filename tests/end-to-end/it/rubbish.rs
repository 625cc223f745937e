//! Rubbish in, clear outcomes out, and nothing left running.

use crate::stack::{Options, Stack};
use agentforge_harness::{eventually, require};
use serde_json::{Value, json};
use std::time::Duration;

const TOOLS: &str = r#"
[[tool]]
name = "forker"
argv = ["/bin/sh", "-c", "sleep 987 & sleep 987 & wait"]
timeout = "1s"

[[tool]]
name = "printer"
argv = ["/bin/sh", "-c", "yes 0123456789012345678901234567890123456789 | head -c 104857600"]
output_max = "1MiB"

[[tool]]
name = "suicide"
argv = ["/bin/sh", "-c", "kill -SEGV $$"]

[[tool]]
name = "babbler"
argv = ["/bin/sh", "-c", "echo this is no json"]

[[tool]]
name = "complainer"
argv = ["/bin/sh", "-c", "echo the reason why >&2; exit 3"]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_that_misbehave_end_clearly_and_leave_nothing_running() {
    let Some(()) = require("nats-server") else { return };
    let stack =
        Stack::start(Options::new().orchestrator("TOOL_GRACE", "2s").worker("WORKER_CONCURRENCY", "8").tools(TOOLS))
            .await;
    let api = stack.api();
    // tool, max_attempts, final state, class, what the message says
    let table = [
        ("forker", "dead", "timeout", "1"),
        ("printer", "failed", "runtime", "output_max"),
        ("suicide", "failed", "runtime", "SIGSEGV"),
        ("babbler", "failed", "runtime", "JSON"),
        ("complainer", "failed", "runtime", "3"),
        ("nosuchtool", "failed", "tool_not_found", "nosuchtool"),
    ];
    let mut ids = vec![];
    for (tool, ..) in table {
        let job = api.submit(json!({"tool": tool, "max_attempts": 1})).await;
        ids.push(job["id"].as_str().unwrap().to_owned());
    }
    for ((tool, state, class, says), id) in table.into_iter().zip(&ids) {
        let job = api.finished(id).await;
        assert_eq!(
            (job["state"].as_str(), job["error"]["class"].as_str()),
            (Some(state), Some(class)),
            "{tool}: {job}"
        );
        assert!(job["error"]["message"].as_str().unwrap().contains(says), "{tool}: {}", job["error"]);
    }
    let complainer = api.read(&ids[4]).await;
    assert!(complainer["error"]["log_tail"].as_str().unwrap().contains("the reason why"));
    eventually(Duration::from_secs(60), "no tool is left running", || async {
        let left = running("sleep 987") + running("yes 0123456789012345678901234567890123456789");
        if left == 0 { Ok(()) } else { Err(format!("{left} processes")) }
    })
    .await;
    let letters = api.get("/v1/dead-letters").await.unwrap().body;
    assert_eq!(letters["dead_letters"].as_array().unwrap().len(), table.len(), "one dead letter each: {letters}");
}

fn running(command: &str) -> usize {
    let wanted: Vec<u8> = command.replace(' ', "\0").into_bytes();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|e| std::fs::read(e.path().join("cmdline")).is_ok_and(|c| c.starts_with(&wanted)))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_on_the_queue_is_terminated_once_and_kept() {
    let Some(()) = require("nats-server") else { return };
    // Without keys: with them rubbish is refused before it is read, as `orders` shows.
    let stack = Stack::start(Options::new().worker("VERIFY_KEYS", "")).await;
    let api = stack.api();
    let js = stack.jetstream().await;
    let id = uuid::Uuid::now_v7();
    let elsewhere = json!({"job": id, "attempt": 1, "mission": "prod", "queue": "default", "tool": "echo", "args": {}, "timeout_ms": 1, "accepted_at": 0});
    let attempt_zero = json!({"job": id, "attempt": 0, "mission": "dev", "queue": "default", "tool": "echo", "args": {}, "timeout_ms": 1, "accepted_at": 0});
    let rubbish: Vec<Vec<u8>> = vec![
        vec![],
        b"{".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        b"[1,2,3]".to_vec(),
        br#"{"job":"not-a-uuid"}"#.to_vec(),
        elsewhere.to_string().into_bytes(),
        attempt_zero.to_string().into_bytes(),
        vec![b'{'; 500_000],
    ];
    for bytes in &rubbish {
        js.publish("swarm.jobs.dev.default", bytes.clone().into()).await.unwrap().await.unwrap();
    }
    let good = api.job("echo", json!({"still": "served"})).await;
    assert_eq!(api.finished(&good).await["state"], "succeeded", "rubbish holds up nobody");
    let letters = eventually(Duration::from_secs(30), "each is a dead letter", || async {
        let letters = api.get("/v1/dead-letters?reason=invalid_message&limit=100").await.unwrap().body;
        let n = letters["dead_letters"].as_array().map_or(0, Vec::len);
        if n == rubbish.len() { Ok(letters) } else { Err(n) }
    })
    .await;
    assert!(
        letters["dead_letters"].as_array().unwrap().iter().all(|l| l["job_id"] == Value::Null || l["job_id"] == "")
    );
    let mut stream = js.get_stream("swarm_jobs").await.unwrap();
    eventually(Duration::from_secs(20), "the queue is empty", || {
        let mut stream = stream.clone();
        async move { stream.info().await.unwrap().state.messages == 0 }
    })
    .await;
    let _ = stream.info().await.unwrap();
    eventually(Duration::from_secs(20), "each went out as a dead letter once", || async {
        let mut dlq = js.get_stream("swarm_dlq").await.unwrap();
        let n = dlq.info().await.unwrap().state.messages;
        if n == rubbish.len() as u64 { Ok(()) } else { Err(n) }
    })
    .await;
    // Rubbish among the results, too.
    js.publish("swarm.results.dev.default", "no report".into()).await.unwrap().await.unwrap();
    eventually(Duration::from_secs(20), "it is counted", || async {
        api.metric("agentforge_reports_invalid_total", &[]).await >= 1.0
    })
    .await;
    let more = api.job("echo", json!({"and": "again"})).await;
    assert_eq!(api.finished(&more).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_submissions_name_field_limit_and_knob() {
    let Some(()) = require("nats-server") else { return };
    let stack = Stack::start(Options::new().workers(0)).await;
    let api = stack.api();
    let two_mib = format!(r#"{{"tool":"echo","args":{{"a":"{}"}}}}"#, "x".repeat(2 * 1024 * 1024));
    let big = api.post_bytes("/v1/jobs", two_mib.into_bytes()).await.unwrap();
    assert_eq!(big.status.as_u16(), 413, "{}", big.body);
    assert_eq!(big.body["code"], "too_large");
    let table = [
        (json!({"tool": "echo", "args": [1]}), 400, "args"),
        (json!({"tool": "", "args": {}}), 400, "tool"),
        (json!({"tool": "echo", "queue": "a_b"}), 400, "queue"),
        (json!({"tool": "echo", "max_attempts": 1000}), 400, "max_attempts"),
        (json!({"tool": "echo", "args": {"a": "x".repeat(1_040_000)}}), 413, "args"),
    ];
    for (body, status, field) in table {
        let answer = api.post("/v1/jobs", &body).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body["field"].as_str()), (status, Some(field)), "{}", answer.body);
        assert!(answer.body["request_id"].as_str().is_some_and(|r| !r.is_empty()), "{}", answer.body);
    }
    let broken = api.post_bytes("/v1/jobs", b"{\"tool\": ".to_vec()).await.unwrap();
    assert_eq!((broken.status.as_u16(), broken.body["code"].as_str()), (400, Some("invalid_argument")));
}
