//! A redelivery is harmless, also when the duplicate window has forgotten.

use crate::oracle::succeeded_events;
use crate::stack::{Options, Stack};
use agentforge_harness::{eventually, require};
use agentforge_jetstream::subjects;
use futures_util::StreamExt;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acked_jobs_id_published_again_after_a_restart_has_no_second_result() {
    let Some(()) = require("nats-server") else { return };
    let mut stack = Stack::start(Options::new()).await;
    let api = stack.api();
    let listener = async_nats::connect(stack.nats.url()).await.unwrap();
    let mut jobs = listener.subscribe("swarm.jobs.>").await.unwrap();
    listener.flush().await.unwrap();
    let id = api.job("echo", json!({"first": true})).await;
    // As it is: a worker runs nothing that is not signed.
    let again = jobs.next().await.unwrap();
    drop(listener);
    let first = api.finished(&id).await;
    assert_eq!((first["state"].as_str(), &first["result"]), (Some("succeeded"), &json!({"first": true})));

    // A restarted server rebuilds the window from what a work queue still holds: nothing, once job and result
    // are acknowledged, which may be a moment after the commit. A new worker has no memory of the job either:
    // it runs it.
    let before = async_nats::jetstream::new(async_nats::connect(stack.nats.url()).await.unwrap());
    eventually(Duration::from_secs(60), "the work queues are empty", || async {
        let mut left = 0;
        for name in [subjects::STREAM_JOBS, subjects::STREAM_RESULTS] {
            let mut stream = before.get_stream(name).await.map_err(|e| e.to_string())?;
            left += stream.info().await.map_err(|e| e.to_string())?.state.messages;
        }
        if left == 0 { Ok(()) } else { Err(format!("{left} messages")) }
    })
    .await;
    drop(before);
    stack.nats.stop_gracefully().await;
    stack.nats.restart().await;
    stack.kill_worker(0).await;
    let client = async_nats::connect(stack.nats.url()).await.unwrap();
    let js = async_nats::jetstream::new(client);
    let ack = eventually(Duration::from_secs(20), "the second publish is stored", || {
        let (js, again) = (js.clone(), again.clone());
        async move {
            let sent = js.publish_with_headers(again.subject, again.headers.unwrap(), again.payload).await;
            let sent = sent.map_err(|e| e.to_string())?;
            sent.await.map_err(|e| e.to_string())
        }
    })
    .await;
    assert!(!ack.duplicate, "the server still knew the id: this test proves nothing then");

    eventually(Duration::from_secs(30), "the second result is counted as a duplicate", || async {
        let n = api.metric("agentforge_duplicates_suppressed_total", &["where=\"result\""]).await;
        if n >= 1.0 { Ok(()) } else { Err(n) }
    })
    .await;
    let now = api.read(&id).await;
    assert_eq!((now["result"].clone(), now["version"].clone()), (first["result"].clone(), first["version"].clone()));
    assert_eq!(succeeded_events(&stack.nats.url()).await.get(&id), Some(&1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_submission_is_stored_once_and_another_body_is_a_conflict() {
    let Some(()) = require("nats-server") else { return };
    let stack = Stack::start(Options::new()).await;
    let api = stack.api();
    let body = json!({"tool": "echo", "args": {"a": 1}, "idempotency_key": "once"});
    let (a, b) = tokio::join!(api.post("/v1/jobs", &body), api.post("/v1/jobs", &body));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.body["id"], b.body["id"]);
    let mut codes = [a.status.as_u16(), b.status.as_u16()];
    codes.sort_unstable();
    assert_eq!(codes, [200, 202]);
    let other =
        api.post("/v1/jobs", &json!({"tool": "echo", "args": {"a": 2}, "idempotency_key": "once"})).await.unwrap();
    assert_eq!((other.status.as_u16(), other.body["code"].as_str()), (409, Some("conflict")));
    assert_eq!(other.body["field"], "idempotency_key");
}
