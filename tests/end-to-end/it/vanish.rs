//! Streams, consumers and buckets that disappear under a connected system: removed, recreated with other settings,
//! purged, while jobs are on their way. They are recreated, and every job ends correctly, once.

use crate::api::Api;
use crate::oracle::Submitted;
use crate::soak;
use crate::stack::{Options, Stack};
use agentforge_harness::{NatsOptions, eventually, require};
use async_nats::jetstream::{self, consumer::pull, stream};
use serde_json::{Value, json};
use std::time::Duration;

/// What the product promises: found and made again within this.
const MADE_AGAIN: Duration = Duration::from_secs(60);
/// Until jobs whose messages or reports went are through, on a busy machine.
const THROUGH: Duration = Duration::from_secs(180);

const STREAMS: [&str; 8] = [
    "swarm_jobs",
    "swarm_results",
    "swarm_dlq",
    "events",
    "swarm_advisories",
    "KV_operations",
    "KV_handbacks",
    "OBJ_job_outputs",
];
const CONSUMERS: [(&str, &str); 2] = [("swarm_jobs", "worker-dev"), ("swarm_results", "orchestrator-dev")];

#[derive(Clone, Copy, Debug)]
enum Target {
    Stream(&'static str),
    Consumer(&'static str, &'static str),
}

#[derive(Clone, Copy, Debug)]
enum Attack {
    Removed,
    MadeOtherwise,
    Purged,
}

impl Target {
    fn all() -> Vec<Self> {
        let streams = STREAMS.into_iter().map(Self::Stream);
        streams.chain(CONSUMERS.into_iter().map(|(stream, name)| Self::Consumer(stream, name))).collect()
    }

    async fn suffer(self, attack: Attack, js: &jetstream::Context) {
        match (self, attack) {
            (Self::Stream(name), Attack::Removed) => {
                js.delete_stream(name).await.unwrap();
            }
            (Self::Stream(name), Attack::Purged) => {
                js.get_stream(name).await.unwrap().purge().await.unwrap();
            }
            (Self::Stream(name), Attack::MadeOtherwise) => {
                let planned = js.get_stream(name).await.unwrap().cached_info().config.clone();
                js.delete_stream(name).await.unwrap();
                let otherwise = stream::Config {
                    max_bytes: 1 << 20,
                    max_age: Duration::from_secs(3600),
                    discard: stream::DiscardPolicy::Old,
                    max_message_size: 8192,
                    duplicate_window: Duration::from_secs(30),
                    ..planned
                };
                // Somebody else may have made it already.
                let _ = js.create_stream(otherwise).await;
            }
            (Self::Consumer(stream, name), Attack::Removed) => {
                // It may have gone with its stream a moment ago.
                let _ = js.delete_consumer_from_stream(name, stream).await;
            }
            (Self::Consumer(stream, name), Attack::MadeOtherwise) => {
                let consumer: jetstream::consumer::Consumer<pull::Config> =
                    eventually(MADE_AGAIN, name, || js.get_consumer_from_stream(name, stream)).await;
                let planned = consumer.cached_info().config.clone();
                let _ = js.delete_consumer_from_stream(name, stream).await;
                let otherwise = pull::Config {
                    durable_name: planned.durable_name,
                    filter_subject: planned.filter_subject,
                    ack_wait: Duration::from_secs(2),
                    // This one cannot be changed: the consumer must be recreated.
                    max_waiting: 3,
                    max_ack_pending: 5,
                    ..Default::default()
                };
                let _ = js.create_consumer_on_stream(otherwise, stream).await;
            }
            (Self::Consumer(..), Attack::Purged) => {}
        }
    }
}

/// Everything is there and as the orchestrator's defaults say.
async fn is_as_planned(js: &jetstream::Context) -> Result<(), String> {
    for name in STREAMS {
        let stream = js.get_stream(name).await.map_err(|e| format!("{name}: {e}"))?;
        let config = &stream.cached_info().config;
        if config.max_bytes <= 1 << 20 || config.max_message_size > 0 {
            return Err(format!("{name} is not as planned: {config:?}"));
        }
    }
    for (stream, name) in CONSUMERS {
        let consumer: jetstream::consumer::Consumer<pull::Config> =
            js.get_consumer_from_stream(name, stream).await.map_err(|e| format!("{name}: {e}"))?;
        let config = &consumer.cached_info().config;
        if (config.max_waiting, config.max_ack_pending) != (4096, 4096) {
            return Err(format!("{name} is not as planned: {config:?}"));
        }
    }
    Ok(())
}

async fn all_succeeded(api: &Api, jobs: &Submitted) {
    jobs.all_final(api, THROUGH).await;
    for (id, args) in &jobs.0 {
        let job = api.read(id).await;
        assert_eq!((job["state"].as_str(), &job["result"]), (Some("succeeded"), args), "{job}");
    }
}

/// Each case is a set of targets that suffer the same at once while jobs are submitted and run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_vanishes_under_load_is_made_again_and_all_jobs_end_once() {
    let Some(()) = require("nats-server") else { return };
    let options = Options::new().workers(2).worker("WORKER_CONCURRENCY", "4").orchestrator("RECONCILE_AFTER", "3m");
    let stack = Stack::start(options).await;
    let (api, js) = (stack.api(), stack.jetstream().await);
    eventually(MADE_AGAIN, "the first look is over", || is_as_planned(&js)).await;
    let attacks = [Attack::Removed, Attack::MadeOtherwise, Attack::Purged];
    let cases: Vec<(Vec<Target>, Attack)> = if soak() {
        attacks.iter().flat_map(|a| Target::all().into_iter().map(|t| (vec![t], *a))).collect()
    } else {
        attacks.iter().map(|a| (Target::all(), *a)).collect()
    };
    let count = if soak() { 600 } else { 150 };
    let mut total = 0;
    for (n, (targets, attack)) in cases.into_iter().enumerate() {
        let begun = std::time::Instant::now();
        let prefix = format!("case{n}");
        let attacked = async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            for target in &targets {
                target.suffer(attack, &js).await;
            }
        };
        let (jobs, ()) = tokio::join!(Submitted::submit(&api, count, &prefix, "echo"), attacked);
        let what = format!("{targets:?} {attack:?} is as planned again");
        eventually(MADE_AGAIN, &what, || is_as_planned(&js)).await;
        println!("{targets:?} {attack:?}: made again after {:?}", begun.elapsed());
        all_succeeded(&api, &jobs).await;
        println!("{targets:?} {attack:?}: all jobs through after {:?}", begun.elapsed());
        total += jobs.0.len();
        // What does not fit into a message finds its bucket.
        let large = "x".repeat(300_000);
        let id = api.job("echo", json!({"large": large})).await;
        assert_eq!(api.finished(&id).await["state"], "succeeded");
        let output: Value = api.get(&format!("/v1/jobs/{id}/output")).await.unwrap().body;
        assert_eq!(output["large"], large.as_str());
        total += 1;
    }
    eventually(Duration::from_secs(20), "orchestrator and worker are ready", || async {
        let ready = api.get("/readyz").await.map_err(|e| e.to_string())?.body;
        if ready["ready"] == true { Ok(()) } else { Err(ready.to_string()) }
    })
    .await;
    let succeeded = api.metric("agentforge_jobs_completed_total", &["outcome=\"succeeded\""]).await;
    assert_eq!(succeeded as usize, total, "each job was committed once");
    assert_eq!(api.metric("agentforge_dead_letters_total", &[]).await, 0.0);
}

/// Accepted jobs that no worker has taken yet, in a stream that an operator purges while more arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_that_is_purged_under_load_loses_no_accepted_job() {
    let Some(()) = require("nats-server") else { return };
    let options = Options::new().worker("WORKER_CONCURRENCY", "4").orchestrator("RECONCILE_AFTER", "3m");
    let mut stack = Stack::start(options).await;
    let (api, js) = (stack.api(), stack.jetstream().await);
    eventually(MADE_AGAIN, "the first look is over", || is_as_planned(&js)).await;
    let planned = js.get_stream("swarm_jobs").await.unwrap().cached_info().config.clone();
    // The worker stands still: what comes now is a backlog.
    stack.workers[0].pause();
    let count = if soak() { 2_000 } else { 200 };
    let before = Submitted::submit(&api, count, "before", "echo").await;
    let purged = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let stream = js.get_stream("swarm_jobs").await.unwrap();
        let gone = stream.purge().await.unwrap().purged;
        assert!(gone > 0, "there was a backlog");
    };
    let (during, ()) = tokio::join!(Submitted::submit(&api, count, "during", "echo"), purged);
    stack.workers[0].resume();
    for jobs in [&before, &during] {
        all_succeeded(&api, jobs).await;
    }
    // Recreated, it takes messages of the declared size.
    js.delete_stream("swarm_jobs").await.unwrap();
    eventually(MADE_AGAIN, "the stream is there again", || is_as_planned(&js)).await;
    let again = js.get_stream("swarm_jobs").await.unwrap().cached_info().config.clone();
    assert_eq!((again.max_message_size, again.max_bytes), (planned.max_message_size, planned.max_bytes));
}

fn tool(dir: &tempfile::TempDir) -> (std::path::PathBuf, String) {
    let ran = dir.path().join("ran");
    let tools = format!(
        "[[tool]]\nname = \"count\"\nargv = [\"/bin/sh\", \"-c\", \"echo x >> {}; echo 1\"]\nwrite = [{:?}]\n",
        ran.display(),
        dir.path()
    );
    (ran, tools)
}

async fn ready_body(base: &str) -> Value {
    crate::api::Api::new(base).get("/readyz").await.unwrap().body
}

/// The reader of results is removed once; if it were not recreated, the job would end expired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_reader_of_results_costs_no_done_work() {
    let Some(()) = require("nats-server") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (ran, tools) = tool(&dir);
    let stack = Stack::start(Options::new().orchestrator("JOB_DEADLINE", "30s").tools(&tools)).await;
    let (api, js) = (stack.api(), stack.jetstream().await);
    eventually(MADE_AGAIN, "the first look is over", || is_as_planned(&js)).await;
    js.delete_consumer_from_stream("orchestrator-dev", "swarm_results").await.unwrap();
    let id = api.job("count", json!({})).await;
    let job = api.finished(&id).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(std::fs::read_to_string(ran).unwrap().lines().count(), 1, "it ran once");
}

/// Reports that stay unread for longer than the deadline: the consumer is paused, as an operator may do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_was_done_never_ends_expired() {
    let Some(()) = require("nats-server") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (ran, tools) = tool(&dir);
    let stack = Stack::start(Options::new().orchestrator("JOB_DEADLINE", "4s").tools(&tools)).await;
    let (api, js) = (stack.api(), stack.jetstream().await);
    eventually(MADE_AGAIN, "the first look is over", || is_as_planned(&js)).await;
    let results = js.get_stream("swarm_results").await.unwrap();
    let until = std::time::SystemTime::now() + Duration::from_secs(120);
    results.pause_consumer("orchestrator-dev", until.into()).await.unwrap();
    let done = api.job("count", json!({})).await;
    eventually(Duration::from_secs(20), "it ran", || async { ran.exists() }).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    let job = api.read(&done).await;
    assert!(!crate::api::is_final(&job), "its report is not read yet: {job}");
    results.resume_consumer("orchestrator-dev").await.unwrap();
    let job = api.finished(&done).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(std::fs::read_to_string(ran).unwrap().lines().count(), 1, "it ran once");

    // What was not done still expires, and soon.
    let idle =
        api.submit(json!({"tool": "echo", "args": {}, "queue": "nobody"})).await["id"].as_str().unwrap().to_owned();
    assert_eq!(api.finished(&idle).await["state"], "expired");
}

/// A stream of another kind may hold the only copy of its messages: it is reported by name and left alone, and the rest
/// continues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_another_kind_is_told_with_its_name_until_it_is_gone() {
    let Some(()) = require("nats-server") else { return };
    let mut stack = Stack::start(Options::new()).await;
    let (api, js) = (stack.api(), stack.jetstream().await);
    eventually(MADE_AGAIN, "the first look is over", || is_as_planned(&js)).await;
    // While the orchestrator stands still, so that it does not come first.
    stack.orchestrators[0].pause();
    js.delete_stream("swarm_dlq").await.unwrap();
    let other = stream::Config {
        name: "swarm_dlq".into(),
        subjects: vec!["swarm.dlq.>".into()],
        retention: stream::RetentionPolicy::Interest,
        ..Default::default()
    };
    js.create_stream(other).await.unwrap();
    js.delete_consumer_from_stream("worker-dev", "swarm_jobs").await.unwrap();
    stack.orchestrators[0].resume();
    let told = eventually(MADE_AGAIN, "readiness names the stream", || async {
        let body = api.get("/readyz").await.map_err(|e| e.to_string())?;
        let detail = body.body["checks"]["streams"]["detail"].as_str().unwrap_or_default().to_owned();
        if body.status == 503 && detail.contains("swarm_dlq") { Ok(detail) } else { Err(body.body.to_string()) }
    })
    .await;
    for part in ["retention", "Interest", "nats stream rm swarm_dlq"] {
        assert!(told.contains(part), "{part} missing in: {told}");
    }
    let id = api.job("echo", json!({"n": 1})).await;
    assert_eq!(api.finished(&id).await["state"], "succeeded", "the consumer was made again all the same");
    assert!(api.metric("agentforge_streams_amiss", &[]).await >= 1.0);
    js.delete_stream("swarm_dlq").await.unwrap();
    eventually(MADE_AGAIN, "it is made again", || is_as_planned(&js)).await;
    eventually(MADE_AGAIN, "ready again", || async { api.get("/readyz").await.is_ok_and(|a| a.status == 200) }).await;
}

/// A worker that cannot hand in its results says which stream it waits for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_names_the_streams_and_buckets_that_are_missing() {
    let Some(()) = require("nats-server") else { return };
    let mut stack = Stack::start(Options::new()).await;
    let js = stack.jetstream().await;
    eventually(MADE_AGAIN, "the first look is over", || is_as_planned(&js)).await;
    let mut second = stack.spawn_worker();
    let ready = second.ready(Duration::from_secs(60)).await;
    let base = ready["worker"]["http"].as_str().unwrap().trim_end_matches('/').to_owned();
    eventually(Duration::from_secs(30), "the worker is ready", || async { ready_body(&base).await["ready"] == true })
        .await;
    // They are not recreated.
    stack.orchestrators[0].pause();
    for name in ["swarm_results", "OBJ_job_outputs"] {
        js.delete_stream(name).await.unwrap();
    }
    eventually(Duration::from_secs(60), "the worker names both", || async {
        let body = ready_body(&base).await;
        let detail = body["checks"]["streams"]["detail"].as_str().unwrap_or_default().to_owned();
        let told = detail.contains("swarm_results") && detail.contains("OBJ_job_outputs");
        if body["ready"] == false && told { Ok(()) } else { Err(body.to_string()) }
    })
    .await;
    stack.orchestrators[0].resume();
    eventually(MADE_AGAIN, "the worker is ready again", || async { ready_body(&base).await["ready"] == true }).await;
}

/// A server too small for the plan: streams that fit are created, and the rest is reported with needs and settings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_room_is_told_with_what_is_needed_and_the_settings() {
    let Some(()) = require("nats-server") else { return };
    let mut options = Options::new().workers(0);
    options.nats = NatsOptions::default().jetstream("max_file: 3GB");
    let stack = Stack::start(options).await;
    let api = stack.api();
    let told = eventually(MADE_AGAIN, "readiness tells what is short", || async {
        let body = api.get("/readyz").await.map_err(|e| e.to_string())?;
        let detail = body.body["checks"]["streams"]["detail"].as_str().unwrap_or_default().to_owned();
        if body.status == 503 && detail.contains("reserve") { Ok(detail) } else { Err(body.body.to_string()) }
    })
    .await;
    for part in ["JOBS_MAX_BYTES", "OUTPUTS_MAX_BYTES", "5.2 GiB"] {
        assert!(told.contains(part), "{part} missing in: {told}");
    }
    tokio::time::sleep(Duration::from_secs(12)).await;
    let log = stack.orchestrators[0].full_log();
    assert_eq!(log.matches("cannot be created as planned").count(), 1, "told once, not at each try:\n{log}");
}
