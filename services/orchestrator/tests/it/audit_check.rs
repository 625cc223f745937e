//! The orchestrator verifies its audit log while it runs: every entry, then new ones, and one that was touched is named.

use crate::process::Orchestrator;
use agentforge_harness::{Postgres, eventually, require};
use reqwest::Method;
use serde_json::json;
use sqlx::Connection as _;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(60);
const ROUNDS: &[(&str, &str)] = &[("AUDIT_VERIFY_INTERVAL", "1s")];

async fn metric(orchestrator: &Orchestrator, name: &str) -> Option<f64> {
    let (_, page) = orchestrator.ask(Method::GET, "/metrics", None).await;
    let line = page.as_str()?.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

/// Waits until this many entries were verified, and the end was reached; how many there were.
async fn verified(orchestrator: &Orchestrator, at_least: f64) -> f64 {
    eventually(WAIT, "the entries are verified", || async {
        let found = metric(orchestrator, "agentforge_audit_verified_total").await.unwrap_or_default();
        let at = metric(orchestrator, "agentforge_audit_verified_timestamp_seconds").await;
        if found >= at_least && at.is_some() { Ok(found) } else { Err(format!("{found}, {at:?}")) }
    })
    .await
}

async fn submit(orchestrator: &Orchestrator, jobs: usize) {
    for _ in 0..jobs {
        orchestrator.post("/v1/jobs", &json!({"tool": "echo"})).await;
    }
}

async fn a_touched_entry_is_named(url: &str, touch: impl AsyncFnOnce(), named: &str) {
    let mut orchestrator = Orchestrator::start(url, ROUNDS).await;
    submit(&orchestrator, 6).await;
    let before = verified(&orchestrator, 6.0).await;
    submit(&orchestrator, 3).await;
    verified(&orchestrator, before + 3.0).await;
    assert_eq!(metric(&orchestrator, "agentforge_audit_findings").await, Some(0.0));
    assert_eq!(orchestrator.process.sigterm(WAIT).await, 0);
    touch().await;
    let orchestrator = Orchestrator::start(url, ROUNDS).await;
    eventually(WAIT, "the finding is counted", || async {
        let found = metric(&orchestrator, "agentforge_audit_findings").await;
        if found == Some(1.0) { Ok(()) } else { Err(found) }
    })
    .await;
    let log = orchestrator.process.full_log();
    assert!(log.contains("the audit log is not as it was written") && log.contains(named), "{log}");
    // It keeps working, and what is new is verified.
    let before = verified(&orchestrator, 8.0).await;
    submit(&orchestrator, 2).await;
    verified(&orchestrator, before + 2.0).await;
    assert_eq!(metric(&orchestrator, "agentforge_audit_findings").await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_touched_entry_of_the_audit_log_is_named_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/agentforge.db", dir.path().display());
    let change = async || {
        let mut c = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let done = sqlx::query("UPDATE audit SET principal = 'nobody' WHERE place = 3").execute(&mut c).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
        c.close().await.unwrap();
    };
    a_touched_entry_is_named(&url, change, "place 3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_entry_of_the_audit_log_is_named_on_postgres() {
    let Some(()) = require("postgres") else { return };
    let url = Postgres::start().await.database("audit_check").await;
    let remove = async || {
        let mut c = sqlx::PgConnection::connect(&url).await.unwrap();
        let done = sqlx::query("DELETE FROM audit WHERE chain = 0 AND place = 3").execute(&mut c).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
        c.close().await.unwrap();
    };
    a_touched_entry_is_named(&url, remove, "chain 0, place 3").await;
}
