//! Two orchestrators on one Postgres: no job is relayed twice, no schedule fires twice.

use crate::api::Api;
use crate::stack::{Options, Stack};
use agentforge_harness::{Postgres, eventually, require};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

async fn two_orchestrators() -> (Stack, [Api; 2]) {
    let mut options = Options::new().orchestrator("JOB_DEADLINE", "off");
    options.orchestrators = 2;
    options.store = Some(Postgres::start().await.database("replicas").await);
    let stack = Stack::start(options).await;
    let apis = [stack.api_of(0), stack.api_of(1)];
    (stack, apis)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_orchestrators_relay_each_job_once_and_share_results() {
    let (Some(()), Some(())) = (require("nats-server"), require("postgres")) else { return };
    let (stack, apis) = two_orchestrators().await;
    // Every publish to the queue, duplicates included, passes a plain subscription.
    let client = async_nats::connect(stack.nats.url()).await.unwrap();
    let mut published = client.subscribe("swarm.jobs.>").await.unwrap();
    client.flush().await.unwrap();
    let are_finished = Arc::new(AtomicBool::new(false));
    let is_over = are_finished.clone();
    let seen = tokio::spawn(async move {
        let mut seen: HashMap<String, u32> = HashMap::new();
        loop {
            match tokio::time::timeout(Duration::from_secs(8), published.next()).await {
                Ok(Some(m)) => {
                    let message: Value = serde_json::from_slice(&m.payload).unwrap();
                    *seen.entry(message["job"].as_str().unwrap().to_owned()).or_default() += 1;
                }
                // On a busy machine there is silence before the end, too.
                Err(_) if !is_over.load(Ordering::Relaxed) => {}
                Ok(None) | Err(_) => break seen,
            }
        }
    });
    let submits = futures_util::stream::iter((0..400).map(|n| {
        let api = apis[n % 2].clone();
        async move { api.job("echo", json!({"n": n})).await }
    }));
    let ids: Vec<String> = submits.buffer_unordered(16).collect().await;
    for (n, id) in ids.iter().enumerate() {
        // Asked of the other replica than the one that took it.
        assert_eq!(apis[(n + 1) % 2].finished(id).await["state"], "succeeded");
    }
    are_finished.store(true, Ordering::Relaxed);
    let seen = seen.await.unwrap();
    assert_eq!(seen.len(), ids.len());
    let twice: Vec<_> = seen.iter().filter(|(_, n)| **n != 1).collect();
    assert!(twice.is_empty(), "relayed more than once: {twice:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_fires_once_per_turn_whoever_takes_it() {
    let (Some(()), Some(())) = (require("nats-server"), require("postgres")) else { return };
    let (stack, apis) = two_orchestrators().await;
    let schedule = json!({"name": "every-minute", "cron": "* * * * *", "job": {"tool": "echo", "args": {"tick": 1}}});
    let made = apis[0].post("/v1/schedules", &schedule).await.unwrap();
    assert!(made.status.is_success(), "{}", made.body);
    let id = made.body["id"].as_str().unwrap().to_owned();
    // Its turn comes now, for both at once.
    let url = stack.database_url();
    let db = url.rsplit('/').next().unwrap();
    let moved = format!(
        "update schedules set next_run_at = {} where next_run_at is not null",
        jiff::Timestamp::now().as_microsecond() - 1
    );
    Postgres::start().await.sql(db, &moved).await;
    eventually(Duration::from_secs(20), "the turn is taken", || async {
        apis[1].get(&format!("/v1/schedules/{id}")).await.unwrap().body["last_run_at"].is_string()
    })
    .await;
    let fired: f64 = apis[0].metric("agentforge_schedules_fired_total", &[]).await
        + apis[1].metric("agentforge_schedules_fired_total", &[]).await;
    let jobs = apis[0].get("/v1/jobs?tool=echo&limit=100").await.unwrap().body;
    // A real minute may have come round as well; then both figures are 2.
    assert_eq!(jobs["jobs"].as_array().unwrap().len() as f64, fired, "{jobs}");
    assert!((1.0..=2.0).contains(&fired), "fired {fired} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_on_one_replica_sees_what_another_committed() {
    let (Some(()), Some(())) = (require("nats-server"), require("postgres")) else { return };
    let (stack, apis) = two_orchestrators().await;
    let id = apis[0].job("sleep", json!({"ms": 500})).await;
    let waits = [apis[0].clone(), apis[1].clone()].map(|api| {
        let path = format!("/v1/jobs/{id}?wait=30s");
        async move { api.get(&path).await.unwrap().body["state"].clone() }
    });
    let states = futures_util::future::join_all(waits).await;
    assert_eq!(states, [json!("succeeded"), json!("succeeded")]);
    drop(stack);
}
