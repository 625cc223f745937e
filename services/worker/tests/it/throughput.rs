//! How many jobs that do nothing one worker takes per second. A figure to look at, not a promise:
//! `cargo test -p agentforge-worker --release -- --ignored --nocapture throughput`.
#![allow(clippy::print_stdout)]

use crate::bench::Bench;
use agentforge_harness::{eventually, require};
use agentforge_jetstream::{HeaderMap, Publisher, subjects};
use agentforge_message_id::{MsgId, Queue};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throughput_of_jobs_that_do_nothing() {
    let Some(()) = require("nats-server") else { return };
    const JOBS: usize = 20_000;
    let bench = Bench::start().await;
    let publisher = Publisher::new(bench.nats.clone());
    let subject = subjects::job(&bench.mission, &Queue::default());
    let mut acks = Vec::with_capacity(JOBS);
    for _ in 0..JOBS {
        let job = bench.job("echo", r#"{"hello":"world"}"#);
        let payload = serde_json::to_vec(&job).unwrap();
        acks.push(
            publisher
                .send(subject.clone(), MsgId::attempt(job.job, job.attempt), HeaderMap::new(), payload.into())
                .await
                .unwrap(),
        );
    }
    for ack in acks {
        ack.await.unwrap();
    }
    for concurrency in ["8", "64", "512"] {
        let before = bench.told.lock().unwrap().finished.len();
        let worker = bench.worker(&[("WORKER_CONCURRENCY", concurrency)]).await;
        let begun = Instant::now();
        eventually(Duration::from_secs(60), "a third of the jobs is done", || {
            let done = bench.told.lock().unwrap().finished.len() - before;
            async move { done >= JOBS / 4 }
        })
        .await;
        let (done, took) = (bench.told.lock().unwrap().finished.len() - before, begun.elapsed().as_secs_f64());
        println!("concurrency {concurrency}: {:.0} jobs/s", done as f64 / took);
        worker.drain().await;
    }
}
