//! Full streams and a full outbox: work waits or is pushed back, and none of it is dropped.

use crate::oracle::Submitted;
use crate::stack::{Options, Stack};
use agentforge_harness::{eventually, require};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_holds_the_relay_and_a_full_outbox_pushes_back() {
    let Some(()) = require("nats-server") else { return };
    let options = Options::new()
        .workers(0)
        .orchestrator("JOBS_MAX_BYTES", "1MiB")
        .orchestrator("OUTBOX_MAX", "200")
        .orchestrator("JOB_DEADLINE", "off");
    let mut stack = Stack::start(options).await;
    let api = stack.api();

    // No worker runs: the stream fills, then the outbox.
    let mut accepted = Submitted::default();
    let refused = loop {
        let n = accepted.0.len();
        assert!(n < 2_000, "nobody pushed back");
        let args = json!({"n": n, "pad": "x".repeat(4_000)});
        let answer = api.post("/v1/jobs", &json!({"tool": "echo", "args": args})).await.unwrap();
        if answer.status.as_u16() == 429 {
            break answer;
        }
        assert_eq!(answer.status.as_u16(), 202, "{}", answer.body);
        accepted.0.insert(answer.body["id"].as_str().unwrap().to_owned(), args);
    };
    assert!(refused.retry_after.is_some_and(|s| s >= 1), "Retry-After tells when to come again");
    assert_eq!(refused.body["code"], "outbox_full");
    assert!(refused.body["detail"].as_str().unwrap().contains("OUTBOX_MAX"), "{}", refused.body);
    assert!(accepted.0.len() >= 200);
    eventually(Duration::from_secs(20), "the relay says that the stream is full", || async {
        api.metric("agentforge_relay_held", &["lane=\"jobs\"", "reason=\"full\""]).await >= 1.0
    })
    .await;

    // Room again.
    let mut worker = stack.spawn_worker();
    worker.ready(Duration::from_secs(60)).await;
    stack.workers.push(worker);
    accepted.all_final(&api, Duration::from_secs(90)).await;
    accepted.judge(&stack).await;
    let after = api.post("/v1/jobs", &json!({"tool": "echo"})).await.unwrap();
    assert_eq!(after.status.as_u16(), 202, "submitters are served again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_results_stream_holds_the_workers_and_loses_no_result() {
    let Some(()) = require("nats-server") else { return };
    let options = Options::new().orchestrator("RESULTS_MAX_BYTES", "1MiB").orchestrator("JOB_DEADLINE", "off");
    let stack = Stack::start(options).await;
    let api = stack.api();
    let js = stack.jetstream().await;
    // Reports of a mission that is not read here leave no room in the stream, not even for a small one.
    for size in [16_000, 100] {
        fill(&js, size).await;
    }
    let submitted = Submitted::submit(&api, 100, "results", "echo").await;
    eventually(Duration::from_secs(30), "workers hold results that the stream does not take", || async {
        let page = reqwest_text(&stack.worker_metrics[0]).await;
        let held = crate::api::metric_of(&page, "agentforge_results_held", &[]);
        if held >= 1.0 { Ok(()) } else { Err(held) }
    })
    .await;
    let mut open = 0;
    for id in submitted.0.keys() {
        open += usize::from(!crate::api::is_final(&api.read(id).await));
    }
    assert!(open > 90, "only {open} of 100 jobs wait, although the stream takes nothing");
    js.get_stream("swarm_results").await.unwrap().purge().filter("swarm.results.elsewhere.>").await.unwrap();
    submitted.all_final(&api, Duration::from_secs(90)).await;
    submitted.judge(&stack).await;
}

/// Publishes until the stream refuses.
async fn fill(js: &async_nats::jetstream::Context, size: usize) {
    for _ in 0..20_000 {
        let sent = js.publish("swarm.results.elsewhere.default", vec![0; size].into()).await.unwrap();
        if sent.await.is_err() {
            return;
        }
    }
    panic!("the stream takes more than its max_bytes");
}

async fn reqwest_text(url: &str) -> String {
    reqwest::get(url).await.unwrap().text().await.unwrap()
}
