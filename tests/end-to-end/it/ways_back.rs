//! Ways back: an outage longer than the deadline, a cancel that was regretted, a worker with a wrong clock, a
//! blip of what a tool needs.

use crate::api::Api;
use crate::stack::{Options, Stack};
use agentforge_harness::{eventually, require};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::time::Duration;

async fn in_state(api: &Api, ids: &[String], state: &str) {
    eventually(Duration::from_secs(60), &format!("all jobs are {state}"), || async {
        for id in ids {
            let job = api.read(id).await;
            if job["state"] != state {
                return Err(job.to_string());
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_that_expired_in_an_outage_is_run_after_all() {
    let Some(()) = require("nats-server") else { return };
    let stack = Stack::start(Options::new().workers(0)).await;
    let api = stack.api();
    let mut ids = Vec::new();
    for n in 0..40 {
        let body =
            json!({"tool": "echo", "args": {"n": n}, "deadline_in": "2s", "idempotency_key": format!("order-{n}")});
        ids.push(api.submit(body).await["id"].as_str().unwrap().to_owned());
    }
    in_state(&api, &ids, "expired").await;
    let filter = json!({"states": ["expired"], "deadline_in": "10m", "rate": 200});
    let mut dry = filter.clone();
    dry["dry_run"] = json!(true);
    let counted = api.post("/v1/jobs:retry", &dry).await.unwrap().body;
    assert_eq!((counted["matched"].as_u64(), counted["retried"].as_u64()), (Some(40), Some(0)), "{counted}");
    let done = api.post("/v1/jobs:retry", &filter).await.unwrap().body;
    assert_eq!((done["retried"].as_u64(), done["skipped"].as_u64()), (Some(40), Some(0)), "{done}");
    let mut worker = stack.spawn_worker();
    worker.ready(Duration::from_secs(60)).await;
    for (n, id) in ids.iter().enumerate() {
        let job = api.finished(id).await;
        assert_eq!((job["state"].as_str(), job["result"]["n"].as_u64()), (Some("succeeded"), Some(n as u64)), "{job}");
    }
    // Once more: there is nothing left to put back.
    let done = api.post("/v1/jobs:retry", &filter).await.unwrap().body;
    assert_eq!(done["retried"], 0, "{done}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_that_is_put_back_runs_on_the_worker_that_stopped_it() {
    let Some(()) = require("nats-server") else { return };
    let stack = Stack::start(Options::new()).await;
    let api = stack.api();
    let id = api.job("sleep", json!({"ms": 1500})).await;
    in_state(&api, std::slice::from_ref(&id), "running").await;
    for _ in 0..3 {
        api.post(&format!("/v1/jobs/{id}/cancel"), &Value::Null).await.unwrap();
        let job = api.post(&format!("/v1/jobs/{id}/retry"), &json!({})).await.unwrap().body;
        assert_eq!(job["state"], "accepted", "{job}");
    }
    let job = api.finished(&id).await;
    assert_eq!(job["state"], "succeeded", "{job}");
}

/// What a worker says whose clock is half an hour ahead; the report is one as workers write them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_a_wrong_clock_ends_no_job_and_does_not_spin_it() {
    let Some(()) = require("nats-server") else { return };
    let stack = Stack::start(Options::new().workers(0)).await;
    let api = stack.api();
    let js = stack.jetstream().await;
    let id = api.job("echo", json!({"a": 1})).await;
    let mut reports = 0;
    let begun = std::time::Instant::now();
    let consumer: async_nats::jetstream::consumer::PullConsumer =
        eventually(Duration::from_secs(30), "the queue has its consumer", || async {
            js.get_consumer_from_stream("worker-dev", "swarm_jobs").await.map_err(|e| e.to_string())
        })
        .await;
    while reports < 2 {
        let mut messages = consumer.fetch().max_messages(1).expires(Duration::from_secs(5)).messages().await.unwrap();
        let Some(message) = messages.next().await else { continue };
        let message = message.unwrap();
        let attempt: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(attempt["job"], id.as_str());
        assert_eq!(attempt["deadline"].is_null(), reports > 0, "its deadline goes out once: {attempt}");
        reports += 1;
        let report = json!({"finished": {
            "job": id, "attempt": attempt["attempt"], "delivery": 1, "worker": "from-the-future",
            "started_at": 1, "finished_at": 2, "outcome": "expired",
        }});
        let mut token = async_nats::HeaderMap::new();
        token.insert("Agentforge-Task-Token", attempt["token"].as_str().unwrap());
        let sent = js.publish_with_headers("swarm.results.dev.default", token, report.to_string().into()).await;
        sent.unwrap().await.unwrap();
        message.ack().await.unwrap();
        eventually(Duration::from_secs(20), "the word is not believed", || async {
            let n = api.metric("agentforge_worker_disputes_total", &["about=\"expired\""]).await;
            if n >= f64::from(reports) { Ok(()) } else { Err(n) }
        })
        .await;
        let job = api.read(&id).await;
        assert_eq!((job["state"].as_str(), job["waits_for"].as_str()), (Some("accepted"), Some("retry")), "{job}");
        assert!(job["error"]["message"].as_str().unwrap().contains("from-the-future"), "{job}");
    }
    assert!(begun.elapsed() > Duration::from_millis(500), "it waits between them");
    let mut worker = stack.spawn_worker();
    worker.ready(Duration::from_secs(60)).await;
    let job = api.finished(&id).await;
    assert_eq!((job["state"].as_str(), job["error"].is_null()), (Some("succeeded"), true), "{job}");
}

/// With the shipped settings. A minute and more with the full counts, else some seconds: three attempts within
/// half a second would not outlive either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blip_of_what_a_tool_needs_costs_no_job() {
    let Some(()) = require("nats-server") else { return };
    let blip = Duration::from_secs(if crate::soak() { 62 } else { 6 });
    let place = tempfile::tempdir().unwrap();
    let there = place.path().join("there");
    let script = format!("test -e {} || exit 75; echo '{{}}'", there.display());
    let tools = format!("[[tool]]\nname = \"needy\"\nargv = [\"/bin/sh\", \"-c\", \"{script}\"]\n");
    let stack = Stack::start(Options::new().tools(&tools)).await;
    let api = stack.api();
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(api.job("needy", json!({})).await);
    }
    tokio::time::sleep(blip).await;
    let waiting = api.read(&ids[0]).await;
    assert!(!crate::api::is_final(&waiting), "{waiting}");
    std::fs::write(&there, "").unwrap();
    for id in &ids {
        let job = api.finished(id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
    }
}
