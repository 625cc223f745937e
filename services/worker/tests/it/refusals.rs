//! What NATS refuses to store ends with its reason, or is held visibly until an operator puts that right; nothing else
//! waits for it.

use crate::bench::{Bench, RunningWorker, SOON, failure_of, output_of, queue};
use agentforge_harness::{NatsOptions, eventually, http_get, require};
use agentforge_jetstream::{
    subjects::{BUCKET_JOB_OUTPUTS, STREAM_RESULTS, bucket_stream},
    topology::{self, TopologyConfig},
};
use agentforge_message_id::{JobId, Queue};
use agentforge_proto::bus::{ErrorClass, Finished};
use async_nats::jetstream::stream;
use serde_json::Value;
use std::time::Duration;

/// What readiness says of the streams.
async fn streams_detail(worker: &RunningWorker) -> (u16, String) {
    let (code, body) = http_get(&format!("{}/readyz", worker.http), &[]).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    (code, body["checks"]["streams"]["detail"].as_str().unwrap_or_default().to_owned())
}

async fn says(worker: &RunningWorker, words: &[&str]) {
    eventually(SOON, "readiness says why results are held", || async {
        let (code, detail) = streams_detail(worker).await;
        if code == 503 && words.iter().all(|word| detail.contains(word)) { Ok(()) } else { Err((code, detail)) }
    })
    .await;
}

async fn is_well(worker: &RunningWorker) {
    eventually(SOON, "the worker is ready", || async {
        let (code, detail) = streams_detail(worker).await;
        if code == 200 { Ok(()) } else { Err((code, detail)) }
    })
    .await;
}

/// The end of a job whose result is refused until the worker's patience is over.
async fn finished_late(bench: &Bench, job: JobId) -> Finished {
    eventually(Duration::from_secs(90), "the job ends", || {
        let found = bench.received.lock().unwrap().finished.iter().find(|f| f.job == job).cloned();
        async move { found }
    })
    .await
}

async fn metric(worker: &RunningWorker, series: &str) -> f64 {
    let page = worker.runtime.process().scrape().await;
    let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_whose_reports_are_denied_says_so_and_the_others_go_on() {
    let Some(()) = require("nats-server") else { return };
    let users = r#"
        no_auth_user: everything
        authorization { users: [
            { user: everything, password: everything }
            { user: narrow, password: narrow, permissions { publish { allow: ">", deny: "swarm.results.test.other" } } }
        ] }"#;
    let bench = Bench::with(NatsOptions::default().extra(users), &[]).await;
    let narrow = [("NATS_USER", "narrow"), ("NATS_PASSWORD", "narrow"), ("WORKER_QUEUES", "default,other")];
    let worker = bench.worker(&[&narrow[..], &[("WORKER_CONCURRENCY", "4")]].concat()).await;
    let mut denied = Vec::new();
    for _ in 0..5 {
        let mut job = bench.job("echo", "{}");
        job.queue = queue("other");
        bench.submit(&job).await;
        denied.push(job.job);
    }
    says(&worker, &["swarm.results.test.other", "denies publishing there"]).await;
    assert!(metric(&worker, "agentforge_reports_refused_total{code=\"denied\"}").await >= 1.0);
    assert!(metric(&worker, "agentforge_results_held").await >= 1.0);
    for n in 0..20 {
        let finished = bench.run(&bench.job("echo", &format!(r#"{{"n":{n}}}"#))).await;
        assert_eq!(output_of(&finished), format!(r#"{{"n":{n}}}"#));
    }
    assert!(denied.iter().all(|job| bench.finishes_of(*job) == 0));
    // Somebody who may report takes them over.
    worker.drain().await;
    let other = bench.worker(&[("WORKER_QUEUES", "default,other")]).await;
    for job in denied {
        bench.finished(job).await;
    }
    is_well(&other).await;
    bench.queue_is_empty().await;
    other.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_refuses_every_report_is_named_and_has_them_all_once_it_is_put_right() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let js = bench.nats.jetstream();
    let worker = bench.worker(&[]).await;
    bench.run(&bench.job("echo", "{}")).await;
    let planned = js.get_stream(STREAM_RESULTS).await.unwrap().cached_info().config.clone();
    // A stream of counters takes nothing but counts; a sealed one takes nothing at all.
    let counter = stream::Config {
        name: planned.name.clone(),
        subjects: planned.subjects.clone(),
        allow_message_counter: true,
        ..Default::default()
    };
    let sealed = stream::Config { allow_message_counter: false, ..counter.clone() };
    for (theirs, is_sealed) in [(counter, false), (sealed, true)] {
        js.delete_stream(STREAM_RESULTS).await.unwrap();
        js.create_stream(theirs.clone()).await.unwrap();
        if is_sealed {
            js.update_stream(stream::Config { sealed: true, ..theirs }).await.unwrap();
        }
        let jobs: Vec<_> = (0..3).map(|n| bench.job("echo", &format!(r#"{{"n":{n}}}"#))).collect();
        for job in &jobs {
            bench.submit(job).await;
        }
        says(&worker, &["3 held", "swarm.results.test.default", "refused with"]).await;
        assert!(jobs.iter().all(|job| bench.finishes_of(job.job) == 0));
        js.delete_stream(STREAM_RESULTS).await.unwrap();
        let plan = topology::plan(&TopologyConfig::default(), &bench.mission, &[Queue::default(), queue("other")]);
        let plan = topology::Plan {
            streams: vec![planned.clone()],
            consumers: plan.consumers.into_iter().filter(|c| c.stream == STREAM_RESULTS).collect(),
        };
        topology::ensure(js, &plan).await.unwrap();
        // What was done did not end as failed for that.
        for (n, job) in jobs.iter().enumerate() {
            assert_eq!(output_of(&bench.finished(job.job).await), format!(r#"{{"n":{n}}}"#));
        }
        is_well(&worker).await;
    }
    assert_eq!(metric(&worker, "agentforge_reports_refused_total{code=\"refused\"}").await, 6.0);
    bench.queue_is_empty().await;
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_that_its_bucket_never_takes_ends_its_job_with_the_reason_and_the_next_ones_run() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let js = bench.nats.jetstream();
    let name = bucket_stream(BUCKET_JOB_OUTPUTS);
    let planned = js.get_stream(&name).await.unwrap().cached_info().config.clone();
    // Messages of this size are few bytes of output each, and their headers would not fit.
    js.update_stream(stream::Config { max_message_size: 1000, ..planned.clone() }).await.unwrap();
    let worker = bench.worker(&[("OUTPUT_INLINE_MAX", "1KiB"), ("WORKER_CONCURRENCY", "2")]).await;
    let args = format!(r#"{{"x":"{}"}}"#, "y".repeat(100_000));
    let (large, repaired) = (bench.job("echo", &args), bench.job("echo", &args));
    bench.submit(&large).await;
    says(&worker, &["an output", "larger than 1000 bytes"]).await;
    for _ in 0..10 {
        bench.run(&bench.job("echo", "{}")).await;
    }
    let failure = failure_of(&finished_late(&bench, large.job).await);
    assert_eq!(failure.class, ErrorClass::Runtime);
    assert!(failure.message.contains("job_outputs") && failure.message.contains("1000 bytes"), "{failure:?}");
    // One that waits when the bucket is corrected is stored.
    bench.submit(&repaired).await;
    says(&worker, &["an output"]).await;
    js.update_stream(stream::Config { max_message_size: -1, ..planned }).await.unwrap();
    let finished = bench.finished(repaired.job).await;
    assert!(matches!(&finished.outcome, agentforge_proto::bus::Outcome::Succeeded(s) if s.output_ref.is_some()));
    is_well(&worker).await;
    bench.queue_is_empty().await;
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_exceeds_the_streams_limit_waits_for_its_correction_and_ends_with_the_reason_without_one() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let js = bench.nats.jetstream();
    let planned = js.get_stream(STREAM_RESULTS).await.unwrap().cached_info().config.clone();
    let small = stream::Config { max_message_size: 2000, ..planned.clone() };
    js.update_stream(small.clone()).await.unwrap();
    let worker = bench.worker(&[("WORKER_CONCURRENCY", "2")]).await;
    let args = format!(r#"{{"x":"{}"}}"#, "y".repeat(5000));
    let (corrected, refused) = (bench.job("echo", &args), bench.job("echo", &args));
    bench.submit(&corrected).await;
    says(&worker, &["1 held", "swarm.results.test.default", "max_msg_size"]).await;
    // What was done does not end as failed for a setting, and what fits is stored meanwhile.
    assert_eq!(output_of(&bench.run(&bench.job("echo", "{}")).await), "{}");
    assert_eq!(bench.finishes_of(corrected.job), 0);
    js.update_stream(stream::Config { max_message_size: -1, ..planned.clone() }).await.unwrap();
    assert_eq!(output_of(&bench.finished(corrected.job).await), args);
    is_well(&worker).await;

    // Where no owner corrects it, the job ends, and its report says why.
    js.update_stream(small).await.unwrap();
    bench.submit(&refused).await;
    let failure = failure_of(&finished_late(&bench, refused.job).await);
    assert_eq!(failure.class, ErrorClass::Runtime);
    assert!(failure.message.contains("too large") && failure.message.contains("max_msg_size"), "{failure:?}");
    assert_eq!(metric(&worker, "agentforge_reports_refused_total{code=\"too_large\"}").await, 2.0);
    is_well(&worker).await;
    bench.queue_is_empty().await;
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_waits_for_room_without_being_called_refused_and_the_reason_is_the_latest() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let js = bench.nats.jetstream();
    let name = bucket_stream(BUCKET_JOB_OUTPUTS);
    let planned = js.get_stream(&name).await.unwrap().cached_info().config.clone();
    let update = async |config: stream::Config| js.update_stream(config).await.map(drop).unwrap();
    // One fits, two do not.
    let tight = stream::Config { max_bytes: 150_000, ..planned.clone() };
    update(tight.clone()).await;
    let worker = bench.worker(&[("OUTPUT_INLINE_MAX", "1KiB")]).await;
    let args = format!(r#"{{"x":"{}"}}"#, "y".repeat(100_000));
    bench.run(&bench.job("echo", &args)).await;
    let waits = bench.job("echo", &args);
    bench.submit(&waits).await;
    eventually(SOON, "the output is held", || async {
        let held = metric(&worker, "agentforge_results_held").await;
        if held >= 1.0 { Ok(()) } else { Err(held) }
    })
    .await;
    is_well(&worker).await;
    for max_message_size in [1000, 900] {
        update(stream::Config { max_message_size, ..tight.clone() }).await;
        says(&worker, &["1 held", "an output", &format!("larger than {max_message_size} bytes")]).await;
    }
    update(planned).await;
    let finished = bench.finished(waits.job).await;
    assert!(matches!(&finished.outcome, agentforge_proto::bus::Outcome::Succeeded(s) if s.output_ref.is_some()));
    is_well(&worker).await;
    bench.queue_is_empty().await;
    worker.drain().await;
}
