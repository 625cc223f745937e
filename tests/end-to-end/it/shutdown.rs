//! SIGTERM under load: exit code 0 within the grace period, and no attempt burnt.

use crate::oracle::Submitted;
use crate::stack::{Options, Stack};
use agentforge_harness::{eventually, require};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_drains_and_burns_no_attempt() {
    let Some(()) = require("nats-server") else { return };
    let grace = Duration::from_secs(4);
    let options = Options::new()
        .worker("SHUTDOWN_GRACE", "4s")
        .orchestrator("SHUTDOWN_GRACE", "4s")
        .worker("WORKER_CONCURRENCY", "8")
        .worker("WORKER_MAX_DELIVERIES", "1");
    let mut stack = Stack::start(options).await;
    let api = stack.api();
    // Longer than the grace: these are handed back. With one delivery allowed, a hand-back that
    // counted would make them dead letters.
    let mut long = vec![];
    for _ in 0..3 {
        long.push(
            api.submit(json!({"tool": "sleep", "args": {"ms": 6_000}, "max_attempts": 1})).await["id"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    let short = Submitted::submit(&api, 100, "short", "echo").await;
    eventually(Duration::from_secs(20), "the long jobs run", || async {
        let mut running = 0;
        for id in &long {
            running += usize::from(api.read(id).await["state"] == "running");
        }
        if running == long.len() { Ok(()) } else { Err(running) }
    })
    .await;
    for _ in 0..2 {
        let begun = Instant::now();
        let code = stack.workers[0].sigterm(grace + Duration::from_secs(10)).await;
        assert_eq!(code, 0, "{}", stack.workers[0].log());
        assert!(begun.elapsed() < grace + Duration::from_secs(3), "drained in {:?}", begun.elapsed());
        stack.start_worker(0).await;
        eventually(Duration::from_secs(20), "the long jobs are taken up again", || async {
            api.metric("agentforge_agents", &["status=\"online\""]).await >= 1.0
        })
        .await;
    }
    let begun = Instant::now();
    assert_eq!(
        stack.orchestrators[0].sigterm(grace + Duration::from_secs(10)).await,
        0,
        "{}",
        stack.orchestrators[0].log()
    );
    assert!(begun.elapsed() < grace + Duration::from_secs(3));
    stack.start_orchestrator(0).await;
    for id in &long {
        let job = api.finished(id).await;
        assert_eq!((job["state"].as_str(), job["attempts"].as_u64()), (Some("succeeded"), Some(1)), "{job}");
    }
    short.all_final(&api, Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_settings_end_with_64_and_name_every_fault() {
    for binary in ["agentforge-orchestrator", "agentforge-worker"] {
        let mut p = agentforge_harness::Proc::builder(agentforge_harness::cargo_bin(binary))
            .env("NATS_URL", "not a url")
            .env("HTTP_PORT", "99999")
            .env("SHUTDOWN_GRACE", "soon")
            .start();
        assert_eq!(p.wait(Duration::from_secs(20)).await, 64);
        let log = p.full_log();
        for key in ["NATS_URL", "HTTP_PORT", "SHUTDOWN_GRACE"] {
            assert!(log.contains(key), "{binary} does not name {key}: {log}");
        }
    }
}
