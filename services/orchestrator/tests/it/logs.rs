//! Logs are complete: what happened N times is N lines, whichever database answers in between.

use crate::process::Orchestrator;
use agentforge_harness::{Postgres, require};
use serde_json::json;

/// Requests that are logged, each with statements of the database before and after it.
const REQUESTS: usize = 25;

async fn every_admin_request_is_a_line(store: &str) {
    let orchestrator = Orchestrator::start(store, &[]).await;
    for n in 0..REQUESTS {
        let schedule = json!({"name": format!("s{n}"), "cron": "0 0 1 1 *", "job": {"tool": "echo"}});
        orchestrator.post("/v1/schedules", &schedule).await;
    }
    let log = orchestrator.process.full_log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("admin request")).collect();
    assert_eq!(lines.len(), REQUESTS, "{log}");
    assert!(lines.iter().all(|line| line.contains("\"trace_id\"")), "{lines:#?}");
    assert!(!log.contains("already exists"), "a notice of the database is no news: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_admin_request_is_a_line_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    every_admin_request_is_a_line(&format!("sqlite://{}/agentforge.db", directory.path().display())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_admin_request_is_a_line_on_postgres() {
    let Some(()) = require("postgres") else { return };
    every_admin_request_is_a_line(&Postgres::start().await.database("logs").await).await;
}
