//! Killed at any moment, the orchestrator leaves no change without its entry in the audit log, and no entry without its
//! change.

use crate::process::Orchestrator;
use agentforge_audit::Verifier;
use agentforge_harness::{Postgres, eventually, require};
use agentforge_orchestrator::store::{self, JobFilter, Options, Store};
use serde_json::{Value, json};
use sqlx::Connection as _;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Kills.
const ROUNDS: u64 = 5;
/// Callers at once.
const CALLERS: usize = 8;

/// Jobs by their submitter, and what the log says of them.
async fn compare(store: &dyn Store) -> (i64, HashMap<String, i64>) {
    let mut jobs: HashMap<String, i64> = HashMap::new();
    let mut filter = JobFilter { limit: 1_000, ..JobFilter::default() };
    loop {
        let page = store.jobs(&filter).await.unwrap();
        for job in &page.items {
            *jobs.entry(job.submitted_by.clone().unwrap_or_default()).or_default() += 1;
            if let Some(by) = &job.cancelled_by {
                *jobs.entry(format!("cancelled by {by}")).or_default() += 1;
            }
        }
        let Some(next) = page.next else { break };
        filter.before = Some(next);
    }
    let (mut verifier, mut entries) = (Verifier::default(), HashMap::new());
    for chain in store.audit_chains().await.unwrap() {
        verifier.begin(&chain);
        let mut after = 0;
        while let Ok(page) = store.audit_chain(chain.head.chain, after, 1_000).await
            && let Some(last) = page.last()
        {
            after = last.place;
            for found in &page {
                verifier.take(found);
                let e = &found.entry;
                let detail: Value = serde_json::from_str(e.detail.as_deref().unwrap_or("{}")).unwrap();
                match e.operation.as_str() {
                    "SubmitJob" | "SubmitJobs" => {
                        let one = i64::from(detail["created"] == true);
                        let created = detail["created"].as_i64().unwrap_or(one);
                        *entries.entry(e.principal.clone()).or_default() += created;
                    }
                    "CancelJob" if e.outcome == "ok" => {
                        *entries.entry(format!("cancelled by {}", e.principal)).or_default() += i64::from(e.calls);
                    }
                    _ => {}
                }
            }
        }
        verifier.end(&chain.head);
    }
    assert_eq!(verifier.finish(&[]).findings, []);
    let all = jobs.iter().filter(|(name, _)| !name.starts_with("cancelled")).map(|(_, n)| n).sum();
    assert_eq!(jobs, entries, "jobs as they are, and as the log has them");
    (all, entries)
}

/// A server finishes what a client sent before it was killed.
async fn sessions_are_gone(url: &str) {
    eventually(Duration::from_secs(20), "the sessions of the killed process end", async || {
        let mut c = sqlx::PgConnection::connect(url).await.unwrap();
        let left: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .fetch_one(&mut c)
        .await
        .unwrap();
        if left == 0 { Ok(()) } else { Err(format!("{left} sessions")) }
    })
    .await;
}

async fn nothing_is_done_without_its_entry(url: &str, dir: &Path) {
    let mut jobs = 0;
    for round in 0..ROUNDS {
        let mut orchestrator = Orchestrator::start(url, &[]).await;
        let base = orchestrator.base().to_owned();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answered = Arc::new(Notify::new());
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (base, client, answered) = (base.clone(), client.clone(), answered.clone());
                tokio::spawn(async move {
                    let send = |path: String, body: Value| {
                        let request = client.post(format!("{base}{path}"));
                        request.header("content-type", "application/json").body(body.to_string()).send()
                    };
                    loop {
                        let body = if caller % 2 == 0 {
                            send("/v1/jobs".into(), json!({"tool": "echo"})).await
                        } else {
                            send("/v1/jobs:batch".into(), json!(vec![json!({"tool": "echo"}); 20])).await
                        };
                        // Until the process is gone.
                        let Ok(answer) = body else { return };
                        let Ok(text) = answer.text().await else { return };
                        answered.notify_one();
                        let job: Value = serde_json::from_str(&text).unwrap_or_default();
                        if let Some(id) = job["id"].as_str()
                            && send(format!("/v1/jobs/{id}/cancel"), json!({})).await.is_err()
                        {
                            return;
                        }
                    }
                })
            })
            .collect();
        tokio::time::timeout(Duration::from_secs(60), answered.notified()).await.expect("a caller is answered");
        // The moment is the attack.
        tokio::time::sleep(Duration::from_millis(100 + 137 * round)).await;
        orchestrator.process.kill9();
        for caller in callers {
            caller.await.unwrap();
        }
        if url.starts_with("postgres") {
            sessions_are_gone(url).await;
        }
        let store = store::open(url, dir, &Options::default()).unwrap();
        store.prepare().await.unwrap();
        let (now, _) = compare(&*store).await;
        store.close().await;
        assert!(now > jobs, "round {round} stored nothing");
        jobs = now;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_done_without_its_entry_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/agentforge.db", dir.path().display());
    nothing_is_done_without_its_entry(&url, dir.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_done_without_its_entry_on_postgres() {
    let Some(()) = require("postgres") else { return };
    let dir = tempfile::tempdir().unwrap();
    let url = Postgres::start().await.database("audit_kill").await;
    nothing_is_done_without_its_entry(&url, dir.path()).await;
}
