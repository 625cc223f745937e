//! Workers that die, links that break, tools that starve their worker: nothing is lost, nothing is
//! run twice that need not be.

use crate::bench::{Bench, RunningWorker, SOON, failure_of, output_of};
use agentforge_harness::{NatsOptions, Proc, TcpProxy, eventually, require};
use agentforge_proto::bus::ErrorClass;
use std::time::Duration;

pub fn process(bench: &Bench, settings: &[(&str, &str)]) -> Proc {
    Proc::builder(env!("CARGO_BIN_EXE_agentforge-worker"))
        .envs([("NATS_URL", bench.url.as_str()), ("MISSION", "test"), ("HTTP_PORT", "0"), ("METRICS_PORT", "0")])
        .envs(settings.iter().copied())
        .start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_worker_was_killed_runs_elsewhere() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::with(NatsOptions::default(), &[("ACK_WAIT", "1s")]).await;
    let mut victim = process(&bench, &[]);
    victim.ready(SOON).await;
    let job = bench.job("sleep", r#"{"ms":1500}"#);
    bench.submit(&job).await;
    bench.started(job.job).await;
    victim.kill9();
    let worker = bench.worker(&[]).await;
    let finished = bench.finished(job.job).await;
    assert_eq!((finished.delivery, &finished.worker), (2, &worker.id));
    bench.queue_is_empty().await;
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_kills_its_workers_ends_as_worker_lost_and_its_neighbours_do_not() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::with(NatsOptions::default(), &[("ACK_WAIT", "1s")]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tools.toml");
    std::fs::write(&file, "[[tool]]\nname = \"killer\"\nargv = [\"/bin/sh\", \"-c\", \"sleep 0.2; read -r _ _ _ worker _ < /proc/$PPID/stat; kill -9 $worker\"]\nfiles = \"any\"\n")
        .unwrap();
    let killer = bench.job("killer", "{}");
    let neighbours: Vec<_> = (0..3).map(|_| bench.job("sleep", r#"{"ms":500}"#)).collect();
    bench.submit(&killer).await;
    for job in &neighbours {
        bench.submit(job).await;
    }
    let settings =
        [("WORKER_TOOLS_FILE", file.to_str().unwrap()), ("WORKER_MAX_DELIVERIES", "3"), ("WORKER_CONCURRENCY", "4")];
    let mut worker = process(&bench, &settings);
    let end = tokio::time::Instant::now() + 2 * SOON;
    while bench.finishes_of(killer.job) == 0 {
        assert!(tokio::time::Instant::now() < end, "{}", worker.log());
        if !worker.is_running() {
            worker = process(&bench, &settings);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let failure = failure_of(&bench.finished(killer.job).await);
    assert_eq!(failure.class, ErrorClass::WorkerLost, "{failure:?}");
    for job in &neighbours {
        output_of(&bench.finished(job.job).await);
    }
    bench.queue_is_empty().await;
    assert_eq!(worker.sigterm(SOON).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_starves_the_whole_runtime_keeps_its_delivery() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::with(NatsOptions::default(), &[("ACK_WAIT", "2s")]).await;
    // A runtime of its own, with one thread: the tool below takes all of it.
    let url = bench.url.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let worker = RunningWorker::start(&url, &[("WORKER_CONCURRENCY", "2")], Duration::from_secs(8)).await;
            let _ = stopped.await;
            worker.drain().await;
        });
    });
    bench
        .until("the lifeline and the consumer are up", |received| (received.heartbeats.len() >= 3).then_some(()))
        .await;
    bench.run(&bench.job("echo", "{}")).await;
    let job = bench.job("blocks", r#"{"ms":6000}"#);
    let before = bench.received.lock().unwrap().heartbeats.len();
    let finished = bench.run(&job).await;
    assert_eq!(finished.delivery, 1, "the message was not taken for abandoned");
    assert!(bench.received.lock().unwrap().heartbeats.len() >= before + 5, "heartbeats went on");
    bench.queue_is_empty().await;
    assert_eq!(bench.finishes_of(job.job), 1);
    stop.send(()).unwrap();
    thread.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_survive_an_outage_of_nats_and_are_told_once() {
    let Some(()) = require("nats-server") else { return };
    let mut bench = Bench::with(NatsOptions::default(), &[("ACK_WAIT", "1s")]).await;
    let proxy = TcpProxy::start(bench.server.address()).await;
    bench.url = proxy.nats_url();
    let worker = bench.worker(&[]).await;
    let jobs: Vec<_> = (0..4).map(|_| bench.job("sleep", r#"{"ms":700}"#)).collect();
    for job in &jobs {
        bench.submit(job).await;
    }
    for job in &jobs {
        bench.started(job.job).await;
    }
    proxy.cut();
    // Long enough for the tools to end and for JetStream to give the worker up.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(jobs.iter().all(|job| bench.finishes_of(job.job) == 0));
    proxy.restore();
    for job in &jobs {
        output_of(&bench.finished(job.job).await);
    }
    bench.queue_is_empty().await;
    for job in &jobs {
        let received = bench.received.lock().unwrap();
        let started = received.started.iter().filter(|s| s.job == job.job).count();
        let ended = received.finished.iter().filter(|f| f.job == job.job).count();
        assert_eq!((started, ended), (1, 1), "run once and reported once, although the message came again");
    }
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_result_stream_holds_results_back_and_loses_none() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let js = bench.nats.jetstream();
    let name = agentforge_jetstream::subjects::STREAM_RESULTS;
    let config = js.get_stream(name).await.unwrap().cached_info().config.clone();
    let mut tiny = config.clone();
    tiny.max_bytes = 64;
    js.update_stream(&tiny).await.unwrap();
    let worker = bench.worker(&[]).await;
    let job = bench.job("echo", "{}");
    bench.submit(&job).await;
    eventually(SOON, "the result is held", || async {
        let page = worker.runtime.process().scrape().await;
        let held =
            page.lines().find_map(|l| l.strip_prefix("agentforge_results_held ")).and_then(|n| n.parse::<f64>().ok());
        held.is_some_and(|n| n >= 1.0)
    })
    .await;
    assert_eq!(bench.finishes_of(job.job), 0);
    js.update_stream(&config).await.unwrap();
    bench.finished(job.job).await;
    bench.queue_is_empty().await;
    worker.drain().await;
}
