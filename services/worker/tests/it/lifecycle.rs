//! Starting before NATS, cancels, heartbeats, drains.

use crate::bench::{Bench, RunningWorker, SOON, output_of};
use agentforge_harness::{Proc, eventually, require};
use agentforge_jetstream::subjects;
use agentforge_message_id::JobId;
use agentforge_proto::bus::{CancelSignal, Outcome};
use std::time::Duration;

pub async fn cancel(bench: &Bench, job: JobId) {
    let signal = serde_json::to_vec(&CancelSignal { job, attempt: None }).unwrap();
    bench.nats.client().publish(subjects::control_cancel(&bench.mission), signal.into()).await.unwrap();
    bench.nats.client().flush().await.unwrap();
}

/// A first heartbeat means that the lifeline is connected, and so listens for cancels.
async fn lifeline_is_up(bench: &Bench) {
    bench.until("a heartbeat", |received| received.heartbeats.first().map(drop)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_stops_a_running_job_and_skips_one_that_has_not_come() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let worker = bench.worker(&[]).await;
    lifeline_is_up(&bench).await;
    let running = bench.job("sleep", r#"{"seconds":600}"#);
    bench.submit(&running).await;
    bench.started(running.job).await;
    cancel(&bench, running.job).await;
    assert!(matches!(bench.finished(running.job).await.outcome, Outcome::Cancelled));

    let later = bench.job("echo", "{}");
    cancel(&bench, later.job).await;
    // A cancel behind it on the same connection, whose effect can be seen, says that the first was read.
    let marker = bench.job("sleep", r#"{"seconds":600}"#);
    bench.submit(&marker).await;
    bench.started(marker.job).await;
    cancel(&bench, marker.job).await;
    bench.finished(marker.job).await;
    assert!(matches!(bench.run(&later).await.outcome, Outcome::Cancelled), "it never runs");
    bench.queue_is_empty().await;
    worker.drain().await;
}

#[tokio::test]
async fn wrong_settings_and_a_wrong_tools_file_stop_the_start_with_every_fault() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "[[tool]]\nname = \"echo\"\nargv = [\"cat\"]\n[[tool]]\nname = \"x\"\nargv = [\"no-such-program\"]\n",
    )
    .unwrap();
    let mut worker = Proc::builder(env!("CARGO_BIN_EXE_agentforge-worker"))
        .env("WORKER_TOOLS_FILE", file.path().to_str().unwrap())
        .env("WORKER_CONCURRENCY", "many")
        .env("EGRESS_ALLOW", "http://example.org")
        .start();
    assert_eq!(worker.wait(SOON).await, 64);
    let log = worker.full_log();
    for part in ["taken by another tool", "no-such-program", "WORKER_CONCURRENCY", "EGRESS_ALLOW"] {
        assert!(log.contains(part), "{part} is missing in\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_tell_who_is_there_and_stop_what_is_final_already() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let worker = bench.worker(&[("WORKER_CONCURRENCY", "7"), ("SITE", "pier")]).await;
    let job = bench.job("sleep", r#"{"seconds":600}"#);
    bench.submit(&job).await;
    let beat = bench
        .until("a heartbeat names the job", |received| {
            received.heartbeats.iter().find(|b| b.running == [job.job]).cloned()
        })
        .await;
    assert_eq!((beat.agent, beat.capacity, beat.inflight, beat.site.as_str()), (worker.id.clone(), 7, 1, "pier"));
    assert!(beat.tools.contains(&"echo".to_owned()) && !beat.leaving && beat.interval_ms == 200);
    bench.received.lock().unwrap().stop.push(job.job);
    assert!(matches!(bench.finished(job.job).await.outcome, Outcome::Cancelled));
    let id = worker.id.clone();
    worker.drain().await;
    bench
        .until("the farewell", |received| received.heartbeats.iter().find(|b| b.leaving && b.agent == id).map(drop))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_finishes_what_it_can_and_hands_back_the_rest_without_a_trace() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let (quick, slow) = (bench.job("sleep", r#"{"ms":600}"#), bench.job("sleep", r#"{"seconds":4}"#));
    bench.submit(&slow).await;
    // The slow job is started and handed back by more workers than it may lose.
    for round in 1..=4 {
        let worker = RunningWorker::start(&bench.url, &[("WORKER_MAX_DELIVERIES", "2")], Duration::from_secs(2)).await;
        bench
            .until("the job is started again", |received| {
                (received.started.iter().filter(|s| s.job == slow.job).count() >= round).then_some(())
            })
            .await;
        if round == 1 {
            bench.submit(&quick).await;
            bench.started(quick.job).await;
        }
        worker.drain().await;
        assert_eq!(bench.finishes_of(slow.job), 0, "a hand-back is not a failure");
    }
    output_of(&bench.finished(quick.job).await);
    let worker = bench.worker(&[("WORKER_MAX_DELIVERIES", "2")]).await;
    let finished = bench.finished(slow.job).await;
    assert_eq!((output_of(&finished).as_str(), finished.delivery), (r#"{"slept_ms":4000}"#, 5));
    bench.queue_is_empty().await;
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_starts_before_nats_is_live_and_ready_as_soon_as_it_can_work() {
    let Some(()) = require("nats-server") else { return };
    let mut bench = Bench::start().await;
    bench.server.stop_gracefully().await;
    let worker = bench.worker(&[]).await;
    let get = |path: &'static str| {
        let url = format!("{}{path}", worker.http);
        async move { reqwest::get(url).await.map(|r| r.status().as_u16()).unwrap_or(0) }
    };
    assert_eq!((get("/healthz").await, get("/readyz").await), (200, 503));
    bench.server.restart().await;
    eventually(SOON, "the worker is ready", || async { (get("/readyz").await == 200).then_some(()) }).await;
    bench.run(&bench.job("echo", "{}")).await;
    worker.drain().await;
}
