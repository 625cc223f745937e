//! Every way in which an attempt can end is reported once, and leaves nothing on the queue.

use crate::bench::{Bench, failure_of, output_of, queue};
use agentforge_harness::require;
use agentforge_jetstream::subjects;
use agentforge_message_id::Mission;
use agentforge_proto::{
    bus::{ErrorClass, Finished, Outcome},
    time::Micros,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_is_told_with_its_class_and_then_acknowledged() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let worker = bench.worker(&[]).await;

    let finished = bench.run(&bench.job("echo", r#"{"n":1.50,"big":12345678901234567890123}"#)).await;
    assert_eq!(output_of(&finished), r#"{"n":1.50,"big":12345678901234567890123}"#);
    assert_eq!((finished.attempt.get(), finished.delivery, &finished.worker), (1, 1, &worker.id));
    assert!(finished.started_at <= finished.finished_at);

    let failed =
        bench.run(&bench.job("fail", r#"{"class":"rate_limited","message":"slow down","retry_after_ms":1234}"#)).await;
    let failure = failure_of(&failed);
    assert_eq!(
        (failure.class, failure.message.as_str(), failure.retry_after_ms),
        (ErrorClass::RateLimited, "slow down", Some(1234))
    );

    assert_eq!(failure_of(&bench.run(&bench.job("nobody-has-this", "{}")).await).class, ErrorClass::ToolNotFound);

    let panicked = failure_of(&bench.run(&bench.job("panics", "{}")).await);
    assert_eq!(panicked.class, ErrorClass::Runtime);
    assert!(panicked.message.contains("on purpose"));

    let mut slow = bench.job("sleep", r#"{"seconds":60}"#);
    slow.timeout_ms = 100;
    assert_eq!(failure_of(&bench.run(&slow).await).class, ErrorClass::Timeout);

    let mut late = bench.job("echo", "{}");
    late.deadline = Some(Micros(1));
    assert!(matches!(bench.run(&late).await.outcome, Outcome::Expired));

    bench.queue_is_empty().await;
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_job_are_reported_once_and_hold_nobody_up() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::with(agentforge_harness::NatsOptions::default().extra("max_payload: 4194304"), &[]).await;
    let subject = subjects::job(&bench.mission, &queue("default"));
    let mut foreign = bench.job("echo", "{}");
    foreign.mission = Mission::new("elsewhere").unwrap();
    let rubbish = [
        ("text", b"not json".to_vec()),
        ("huge", vec![0xfe; 2 * 1024 * 1024]),
        ("empty", Vec::new()),
        ("other", br#"{"job":"x"}"#.to_vec()),
        ("foreign", serde_json::to_vec(&foreign).unwrap()),
    ];
    for (id, bytes) in &rubbish {
        bench.send(&subject, id, bytes.clone()).await;
    }
    let worker = bench.worker(&[]).await;
    bench.run(&bench.job("echo", "{}")).await;

    let rejected = bench
        .until("all rubbish is reported", |received| {
            (received.rejected.len() >= rubbish.len()).then(|| received.rejected.clone())
        })
        .await;
    bench.queue_is_empty().await;
    let sequences: std::collections::BTreeSet<_> = rejected.iter().map(|r| r.sequence).collect();
    assert_eq!((rejected.len(), sequences.len()), (rubbish.len(), rubbish.len()), "each exactly once");
    let huge = rejected.iter().find(|r| r.payload_bytes == 2 * 1024 * 1024).unwrap();
    assert_eq!(huge.payload_hex.len(), 2 * 16 * 1024);
    assert_eq!((huge.subject.as_str(), huge.stream.as_str()), (subject.as_str(), "swarm_jobs"));
    assert!(huge.stored_at_ns > 0 && !huge.reason.is_empty());
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_run_that_takes_long_is_told_as_started() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let worker = bench.worker(&[("STARTED_AFTER", "50ms")]).await;
    let (short, long) = (bench.job("echo", "{}"), bench.job("sleep", r#"{"ms":400}"#));
    bench.run(&short).await;
    bench.submit(&long).await;
    let started = bench.started(long.job).await;
    assert_eq!(bench.finishes_of(long.job), 0, "reported before the end");
    assert_eq!((started.delivery, &started.worker), (1, &worker.id));
    assert_eq!(bench.finished(long.job).await.started_at, started.at);
    assert!(bench.received.lock().unwrap().started.iter().all(|s| s.job != short.job));
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_overlap_and_a_busy_queue_does_not_starve_another() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    for _ in 0..40 {
        bench.submit(&bench.job("sleep", r#"{"ms":150}"#)).await;
    }
    let worker = bench.worker(&[("WORKER_CONCURRENCY", "8"), ("WORKER_QUEUES", "default,other")]).await;
    bench.until("some jobs are done", |received| (received.finished.len() >= 4).then_some(())).await;
    let mut quick = bench.job("echo", "{}");
    quick.queue = queue("other");
    bench.run(&quick).await;
    let done = bench.received.lock().unwrap().finished.len();
    assert!(done < 40, "the other queue waited for the whole backlog");
    bench.until("all jobs are done", |received| (received.finished.len() == 41).then_some(())).await;
    let most = {
        let received = bench.received.lock().unwrap();
        let alongside = |a: &Finished| {
            received.finished.iter().filter(|b| b.started_at < a.finished_at && a.started_at < b.finished_at).count()
        };
        received.finished.iter().map(alongside).max().unwrap()
    };
    assert!(most > 4, "at most {most} at once");
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_are_judged_by_the_orchestrators_clock_and_the_skew_is_told() {
    let Some(()) = require("nats-server") else { return };
    const HALF_AN_HOUR: i64 = 1_800_000_000;
    const TEN_MINUTES: i64 = 600_000_000;
    let bench = Bench::start().await;
    // The worker's clock is half an hour ahead of the orchestrator's …
    bench.received.lock().unwrap().clock_ahead_us = -HALF_AN_HOUR;
    let worker = bench.worker(&[]).await;
    let skew = bench
        .until("the skew is reported", |received| received.heartbeats.iter().rev().find_map(|b| b.clock_skew_us))
        .await;
    assert!((skew - HALF_AN_HOUR).abs() < 10_000_000, "{skew}");
    let mut job = bench.job("echo", "{}");
    job.deadline = Some(Micros(Micros::now().0 - TEN_MINUTES));
    let finished = bench.run(&job).await;
    assert!(matches!(finished.outcome, Outcome::Succeeded(_)), "{finished:?}");
    let told_at = Micros::now().0 - HALF_AN_HOUR;
    assert!((finished.finished_at.0 - told_at).abs() < 60_000_000, "what is reported is in the orchestrator's time");

    // … and half an hour behind.
    bench.received.lock().unwrap().clock_ahead_us = HALF_AN_HOUR;
    bench
        .until("the new skew is reported", |received| {
            received.heartbeats.last()?.clock_skew_us.filter(|skew| *skew < 0).map(drop)
        })
        .await;
    let mut job = bench.job("echo", "{}");
    job.deadline = Some(Micros(Micros::now().0 + TEN_MINUTES));
    assert!(matches!(bench.run(&job).await.outcome, Outcome::Expired));
    worker.drain().await;
}
