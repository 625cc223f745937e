//! A queue that is paused starts nothing and loses nothing: over kills of orchestrator and server, a consumer that is
//! deleted, several orchestrators; and what it says of itself.

use crate::api::Api;
use crate::stack::{Options, Stack};
use agentforge_harness::{Postgres, eventually, require};
use async_nats::jetstream::{self, consumer::PullConsumer};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const STREAM: &str = "swarm_jobs";
/// The default queue's.
const CONSUMER: &str = "worker-dev";

async fn queue(api: &Api, name: &str) -> Value {
    let list = api.get("/v1/queues").await.unwrap().body;
    list["queues"].as_array().unwrap().iter().find(|q| q["queue"] == name).cloned().unwrap_or(Value::Null)
}

async fn set(api: &Api, verb: &str) -> Value {
    let answer = api.post(&format!("/v1/queues/default/{verb}"), &Value::Null).await.unwrap();
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.body);
    answer.body
}

/// Whether the server delivers nothing of the queue.
async fn is_held(js: &jetstream::Context) -> Result<bool, String> {
    let mut consumer: PullConsumer =
        js.get_consumer_from_stream(CONSUMER, STREAM).await.map_err(|e| format!("no consumer: {e}"))?;
    Ok(consumer.info().await.map_err(|e| e.to_string())?.paused)
}

async fn becomes_held(js: &jetstream::Context, wanted: bool) {
    eventually(SOON, &format!("the consumer is paused: {wanted}"), || async {
        match is_held(js).await {
            Ok(held) if held == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn echo(api: &Api, queue: &str) -> String {
    api.submit(json!({"tool": "echo", "queue": queue})).await["id"].as_str().unwrap().to_owned()
}

/// The worker takes jobs of another queue, and none of these has begun.
async fn nothing_began(api: &Api, ids: &[String]) {
    let other = echo(api, "other").await;
    assert_eq!(api.finished(&other).await["state"], "succeeded", "the other queue is served");
    for id in ids {
        let job = api.read(id).await;
        assert!(matches!(job["state"].as_str(), Some("accepted" | "queued")), "{job}");
        assert!(job["warning"].as_str().unwrap_or_default().contains("paused"), "{job}");
    }
}

async fn all_ran_once(api: &Api, ids: &[String]) {
    for id in ids {
        let job = api.finished(id).await;
        assert_eq!((job["state"].as_str(), job["attempts"].as_u64()), (Some("succeeded"), Some(1)), "{job}");
    }
}

/// Some jobs in the stream, whose worker is busy with the first.
async fn busy(api: &Api) -> (String, Vec<String>) {
    let first = api.job("sleep", json!({"ms": 6_000})).await;
    eventually(SOON, "the first job runs", || async {
        let job = api.read(&first).await;
        if job["state"] == "running" { Ok(()) } else { Err(job) }
    })
    .await;
    let mut behind = Vec::new();
    for _ in 0..20 {
        behind.push(echo(api, "default").await);
    }
    eventually(SOON, "the others are in the stream", || async {
        let queue = queue(api, "default").await;
        if queue["queued"] == 20 { Ok(()) } else { Err(queue) }
    })
    .await;
    (first, behind)
}

fn options() -> Options {
    // One slot for each queue.
    Options::new().worker("WORKER_CONCURRENCY", "2").worker("WORKER_QUEUES", "default,other")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_queue_starts_nothing_and_loses_nothing_over_kills() {
    let Some(()) = require("nats-server") else { return };
    let mut stack = Stack::start(options()).await;
    let (api, js) = (stack.api(), stack.jetstream().await);
    let (first, mut ids) = busy(&api).await;

    let paused = set(&api, "pause").await;
    assert_eq!((&paused["paused"]["in_effect"], &paused["drain_seconds"]), (&json!(true), &Value::Null), "{paused}");
    assert!(is_held(&js).await.unwrap(), "the answer comes when the server delivers nothing");
    assert_eq!(api.finished(&first).await["state"], "succeeded", "what runs ends");
    for _ in 0..10 {
        ids.push(echo(&api, "default").await);
    }
    nothing_began(&api, &ids).await;
    // Asked again, it stays as it was.
    assert_eq!(set(&api, "pause").await["paused"]["since"], paused["paused"]["since"]);
    assert_eq!(api.metric("agentforge_queue_paused", &["queue=\"default\""]).await, 1.0);

    // Across a kill of the orchestrator, with the consumer deleted meanwhile: it comes back paused.
    stack.orchestrators[0].kill9();
    js.get_stream(STREAM).await.unwrap().delete_consumer(CONSUMER).await.unwrap();
    stack.start_orchestrator(0).await;
    becomes_held(&js, true).await;
    nothing_began(&api, &ids).await;
    // While it runs, too.
    js.get_stream(STREAM).await.unwrap().delete_consumer(CONSUMER).await.unwrap();
    becomes_held(&js, true).await;
    // Across a kill of the server.
    stack.nats.kill9();
    stack.nats.restart().await;
    becomes_held(&js, true).await;
    nothing_began(&api, &ids).await;
    assert_eq!(queue(&api, "default").await["paused"]["since"], paused["paused"]["since"]);

    let resumed = set(&api, "resume").await;
    assert_eq!(resumed["paused"], Value::Null, "{resumed}");
    all_ran_once(&api, &ids).await;
    assert!(!is_held(&js).await.unwrap());
    assert_eq!(api.metric("agentforge_queue_paused", &["queue=\"default\""]).await, 0.0);
    assert!(queue(&api, "default").await["ended_per_second"].as_f64() > Some(0.0));
}

/// A kill comes at any moment of a pause and of a resume: what the database says then is what the server does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_was_cut_short_is_whole_or_was_none() {
    let Some(()) = require("nats-server") else { return };
    let rounds = if crate::soak() { 40 } else { 8 };
    let mut stack = Stack::start(options()).await;
    let js = stack.jetstream().await;
    for round in 0..rounds {
        let api = stack.api();
        let id = echo(&api, "default").await;
        let verb = if round % 2 == 0 { "pause" } else { "resume" };
        let asked = tokio::spawn(async move {
            let _ = api.post(&format!("/v1/queues/default/{verb}"), &Value::Null).await;
        });
        // The moment is the attack: before, at and after the commit, before and after the server follows.
        tokio::time::sleep(Duration::from_millis(3 * round)).await;
        stack.kill_orchestrator(0).await;
        asked.await.unwrap();
        let api = stack.api();
        let said = eventually(SOON, "the server does as the database says", || async {
            let said = queue(&api, "default").await["paused"].clone();
            let held = is_held(&js).await?;
            if held == said.is_object() && (!held || said["in_effect"] == true) {
                Ok(said)
            } else {
                Err(said.to_string())
            }
        })
        .await;
        if said.is_object() {
            // What was accepted before the pause may have run.
            let waits = if verb == "pause" { echo(&api, "default").await } else { id };
            nothing_began(&api, &[waits]).await;
        } else {
            assert_eq!(api.finished(&id).await["state"], "succeeded", "round {round}");
        }
        // Each round begins as its verb needs it.
        set(&api, verb).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_orchestrator_holds_a_queue_that_one_paused() {
    let (Some(()), Some(())) = (require("nats-server"), require("postgres")) else { return };
    let postgres = Postgres::start().await;
    let mut options = options();
    options.store = Some(postgres.database("pauses").await);
    options.orchestrators = 2;
    let mut stack = Stack::start(options).await;
    let (one, other, js) = (stack.api_of(0), stack.api_of(1), stack.jetstream().await);
    let (first, mut ids) = busy(&one).await;
    set(&one, "pause").await;
    eventually(SOON, "the other learns of it", || async {
        let queue = queue(&other, "default").await;
        if queue["paused"]["in_effect"] == true { Ok(()) } else { Err(queue) }
    })
    .await;
    stack.orchestrators[0].kill9();
    assert_eq!(other.finished(&first).await["state"], "succeeded");
    ids.push(echo(&other, "default").await);
    js.get_stream(STREAM).await.unwrap().delete_consumer(CONSUMER).await.unwrap();
    becomes_held(&js, true).await;
    nothing_began(&other, &ids).await;
    // Resumed by the other, and the one that was down does not pause it again.
    set(&other, "resume").await;
    stack.start_orchestrator(0).await;
    all_ran_once(&other, &ids).await;
    let id = echo(&one, "default").await;
    assert_eq!(one.finished(&id).await["state"], "succeeded");
    assert!(!is_held(&js).await.unwrap());
}
