//! What was done while the orchestrator was dead is not done again.

use crate::stack::{Options, Stack};
use agentforge_harness::{Postgres, eventually, require};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const JOBS: usize = 300;
/// The orchestrator's DUPLICATE_WINDOW in these tests.
const WINDOW: Duration = Duration::from_secs(1);

/// How often each job was run to its end: every report passes a plain subscription.
async fn runs(nats_url: &str) -> Arc<Mutex<HashMap<String, u32>>> {
    let client = async_nats::connect(nats_url).await.unwrap();
    let mut reports = client.subscribe("swarm.results.>").await.unwrap();
    client.flush().await.unwrap();
    let seen: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    let told = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Some(m) = reports.next().await {
            let message: Value = serde_json::from_slice(&m.payload).unwrap();
            // Several travel in an array, each with its token.
            let reports = message.as_array().cloned().unwrap_or_else(|| vec![json!({"report": message})]);
            for job in reports.iter().filter_map(|one| one["report"]["finished"]["job"].as_str()) {
                *told.lock().unwrap().entry(job.to_owned()).or_default() += 1;
            }
        }
    });
    seen
}

async fn finished_while_dead(store: Option<String>, orchestrators: usize) {
    let mut options = Options::new()
        .orchestrator("DUPLICATE_WINDOW", "1s")
        .orchestrator("JOB_DEADLINE", "off")
        .worker("WORKER_CONCURRENCY", "16");
    options.store = store;
    options.orchestrators = orchestrators;
    let mut stack = Stack::start(options).await;
    let api = stack.api();
    let js = stack.jetstream().await;
    let warm = api.job("echo", json!({"warm": "up"})).await;
    assert_eq!(api.finished(&warm).await["state"], "succeeded");
    let seen = runs(&stack.nats.url()).await;

    let batch: Vec<Value> = (0..JOBS).map(|n| json!({"tool": "echo", "args": {"n": n}})).collect();
    let answer = api.post("/v1/jobs:batch", &json!(batch)).await.unwrap();
    let ids: Vec<String> = answer.body["items"]
        .as_array()
        .unwrap_or_else(|| panic!("{}", answer.body))
        .iter()
        .map(|item| item["accepted"]["id"].as_str().unwrap_or_else(|| panic!("{item}")).to_owned())
        .collect();
    assert_eq!(ids.len(), JOBS);
    let mut jobs = js.get_stream("swarm_jobs").await.unwrap();
    // Many are published, and the marks of it wait for company. The first message is the one before the batch.
    eventually(Duration::from_secs(60), "many jobs are published", || {
        let mut jobs = jobs.clone();
        async move {
            let published = jobs.info().await.unwrap().state.last_sequence;
            if published > (JOBS / 3) as u64 { Ok(()) } else { Err(published) }
        }
    })
    .await;
    stack.orchestrators.iter_mut().for_each(|o| o.kill9());
    eventually(Duration::from_secs(60), "the worker has done what was published", || {
        let mut jobs = jobs.clone();
        async move {
            let left = jobs.info().await.unwrap().state.messages;
            if left == 0 { Ok(()) } else { Err(left) }
        }
    })
    .await;
    let done = seen.lock().unwrap().len();
    println!("{done} of {JOBS} were done while nobody read their results");
    assert!(done > JOBS / 10, "the kill came too early to show anything: {done}");
    let last = jobs.info().await.unwrap().state.last_sequence;
    // No message id is remembered any more.
    tokio::time::sleep(WINDOW + Duration::from_secs(1)).await;
    for n in 0..orchestrators {
        stack.start_orchestrator(n).await;
    }
    for id in &ids {
        assert_eq!(api.finished(id).await["state"], "succeeded");
    }
    let twice: Vec<_> = seen.lock().unwrap().iter().filter(|(_, n)| **n > 1).map(|(id, n)| (id.clone(), *n)).collect();
    assert!(twice.is_empty(), "{} of {JOBS} ran again, such as {:?}", twice.len(), twice.first());
    let published = jobs.info().await.unwrap().state.last_sequence - last;
    assert_eq!(published as usize, JOBS - done, "published anew is what nobody had done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_ended_while_the_orchestrator_was_dead_run_once() {
    let Some(()) = require("nats-server") else { return };
    finished_while_dead(None, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_ended_while_both_orchestrators_were_dead_run_once() {
    let (Some(()), Some(())) = (require("nats-server"), require("postgres")) else { return };
    let store = Postgres::start().await.database("restarts").await;
    finished_while_dead(Some(store), 2).await;
}

/// Results that cannot be read do not hold accepted jobs forever, and neither does an unavailable NATS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_opens_although_results_keep_coming() {
    let Some(()) = require("nats-server") else { return };
    let mut stack = Stack::start(Options::new().orchestrator("ACK_WAIT", "2s")).await;
    let api = stack.api();
    let js = stack.jetstream().await;
    stack.orchestrators[0].kill9();
    // Reports without an end, from before the start on.
    let flood = tokio::spawn(async move {
        for n in 0_u64.. {
            let report = json!({"started": {
                "job": "01890a5d-ac96-774b-bcce-b302099a8057", "attempt": 1, "delivery": n, "worker": "w", "at": 1,
            }});
            let _ = js.publish("swarm.results.dev.default", report.to_string().into()).await.unwrap().await;
        }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    stack.start_orchestrator(0).await;
    let id = api.job("echo", json!({"behind": "a flood"})).await;
    assert_eq!(api.finished(&id).await["state"], "succeeded");
    flood.abort();
}

/// Published and not yet begun, and no mark of it in the database: it is in the queue once all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_wait_in_the_stream_are_not_published_again() {
    let Some(()) = require("nats-server") else { return };
    let options = Options::new().workers(0).orchestrator("DUPLICATE_WINDOW", "1s").orchestrator("JOB_DEADLINE", "off");
    let mut stack = Stack::start(options).await;
    let api = stack.api();
    let js = stack.jetstream().await;
    let batch: Vec<Value> = (0..JOBS).map(|n| json!({"tool": "echo", "args": {"n": n}})).collect();
    let answer = api.post("/v1/jobs:batch", &json!(batch)).await.unwrap();
    assert_eq!(answer.body["accepted"], json!(JOBS), "{}", answer.body);
    tokio::time::sleep(Duration::from_millis(50)).await;
    stack.orchestrators[0].kill9();
    let mut jobs = js.get_stream("swarm_jobs").await.unwrap();
    let published = jobs.info().await.unwrap().state.messages;
    println!("{published} of {JOBS} were published");
    tokio::time::sleep(WINDOW + Duration::from_secs(1)).await;
    stack.start_orchestrator(0).await;
    eventually(Duration::from_secs(30), "the rest is published", || {
        let mut jobs = jobs.clone();
        async move {
            let n = jobs.info().await.unwrap().state.messages;
            if n >= JOBS as u64 { Ok(()) } else { Err(n) }
        }
    })
    .await;
    eventually(Duration::from_secs(30), "nothing waits in the database", || async {
        api.metric("agentforge_outbox_jobs", &[]).await == 0.0
    })
    .await;
    assert_eq!(jobs.info().await.unwrap().state.messages, JOBS as u64, "each stands in the queue once");
}

/// Reports that a killed process had received and not acknowledged are redelivered after the ack wait: the relay does
/// not wait for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_does_not_keep_the_relay_from_opening() {
    let Some(()) = require("nats-server") else { return };
    let options = Options::new().orchestrator("ACK_WAIT", "10m").orchestrator("JOB_DEADLINE", "off");
    let mut stack = Stack::start(options).await;
    let api = stack.api();
    let js = stack.jetstream().await;
    let mut held = false;
    for _ in 0..20 {
        let batch: Vec<Value> = (0..50).map(|n| json!({"tool": "echo", "args": {"n": n}})).collect();
        api.post("/v1/jobs:batch", &json!(batch)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        stack.orchestrators[0].kill9();
        let results = js.get_stream("swarm_results").await.unwrap();
        held = results.consumer_info("orchestrator-dev").await.unwrap().num_ack_pending > 0;
        let begun = std::time::Instant::now();
        stack.start_orchestrator(0).await;
        let id = api.job("echo", json!({"after": "a kill"})).await;
        assert_eq!(api.finished(&id).await["state"], "succeeded");
        assert!(begun.elapsed() < Duration::from_secs(25), "the first job took {:?}", begun.elapsed());
        if held {
            break;
        }
    }
    assert!(held, "no kill came between a delivery and its acknowledgement");
}
