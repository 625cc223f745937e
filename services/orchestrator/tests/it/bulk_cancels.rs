//! Cancels of many jobs, by the shipped process: counted first, in steps, continued after kill -9. NATS is down, so that
//! jobs stay accepted.

use crate::process::Orchestrator;
use agentforge_harness::{Postgres, eventually, require};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);
const JOBS: usize = 150;

async fn submit(on: &Orchestrator, queue: &str, n: usize) {
    for _ in 0..n {
        on.post("/v1/jobs", &json!({"tool": "echo", "queue": queue})).await;
    }
}

async fn in_state(on: &Orchestrator, queue: &str, state: &str) -> usize {
    let page = on.get(&format!("/v1/jobs?limit=1000&state={state}&queue={queue}")).await;
    page["jobs"].as_array().unwrap().len()
}

async fn start(on: &Orchestrator, rate: u32) -> String {
    let body = json!({"states": ["accepted"], "queue": "bulk", "rate": rate, "async": true});
    let (status, answer) = on.ask(Method::POST, "/v1/jobs:cancel", Some(&body)).await;
    assert_eq!((status, answer["kind"].as_str()), (202, Some("cancel")), "{answer}");
    format!("/v1/operations/{}", answer["id"].as_str().unwrap())
}

async fn midway(on: &Orchestrator, path: &str) {
    eventually(SOON, "some jobs are cancelled", async || {
        let now = on.get(path).await;
        if now["cancelled"].as_u64() >= Some(10) { Ok(()) } else { Err(now) }
    })
    .await;
}

/// The share under way at a kill may be missing in the counts.
async fn is_whole(on: &Orchestrator, path: &str) {
    let end = eventually(SOON, "the operation ends", async || {
        let now = on.get(path).await;
        if now["ended_at"].is_string() { Ok(now) } else { Err(now) }
    })
    .await;
    assert_eq!((end["state"].as_str(), end["total"].as_u64()), (Some("succeeded"), Some(JOBS as u64)), "{end}");
    let cancelled = end["cancelled"].as_u64().unwrap();
    assert!((JOBS as u64 - 20..=JOBS as u64).contains(&cancelled) && end["put_back"] == 0, "{end}");
    assert_eq!(in_state(on, "bulk", "cancelled").await, JOBS);
    assert_eq!(in_state(on, "others", "accepted").await, 5, "the filter is kept");
    let job = &on.get("/v1/jobs?limit=1&state=cancelled&queue=bulk").await["jobs"][0];
    let entries = on.get(&format!("/v1/audit?operation=CancelJobs&object={}", job["id"].as_str().unwrap())).await;
    assert_eq!(entries["entries"].as_array().unwrap().len(), 1, "each job is named once: {entries}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_of_many_is_counted_first_and_continues_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("sqlite://{}/a.db", directory.path().display());
    let mut on = Orchestrator::start(&store, &[]).await;
    submit(&on, "bulk", JOBS).await;
    submit(&on, "others", 5).await;
    let dry = json!({"states": ["accepted", "queued"], "queue": "bulk", "dry_run": true});
    let counted = on.post("/v1/jobs:cancel", &dry).await;
    assert_eq!((&counted["matched"], &counted["cancelled"]), (&json!(JOBS), &json!(0)), "{counted}");
    assert_eq!(in_state(&on, "bulk", "accepted").await, JOBS, "nothing was changed");
    let path = start(&on, 50).await;
    midway(&on, &path).await;
    on.process.kill9();
    on = Orchestrator::start(&store, &[]).await;
    is_whole(&on, &path).await;
    // Once more there is nothing left; what was cancelled can be put back, counted the same way.
    let again = on.post("/v1/jobs:cancel", &json!({"states": ["accepted"], "queue": "bulk"})).await;
    assert_eq!((&again["matched"], &again["done"]), (&json!(0), &json!(true)), "{again}");
    let back = json!({"states": ["cancelled"], "queue": "bulk", "submitted_by": "nobody", "dry_run": true});
    assert_eq!(on.post("/v1/jobs:retry", &back).await["matched"], 0);
    let back = json!({"states": ["cancelled"], "queue": "bulk", "dry_run": true});
    assert_eq!(on.post("/v1/jobs:retry", &back).await["matched"], JOBS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_orchestrator_continues_a_cancel_of_one_that_was_killed() {
    let Some(()) = require("postgres") else { return };
    let postgres = Postgres::start().await;
    let url = postgres.database("bulk_cancels").await;
    let mut one = Orchestrator::start(&url, &[]).await;
    submit(&one, "bulk", JOBS).await;
    submit(&one, "others", 5).await;
    let path = start(&one, 50).await;
    midway(&one, &path).await;
    let other = Orchestrator::start(&url, &[]).await;
    one.process.kill9();
    is_whole(&other, &path).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_jobs_are_cancelled_and_others_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let on = Orchestrator::start(&format!("sqlite://{}/a.db", directory.path().display()), &[]).await;
    submit(&on, "bulk", 2).await;
    let page = on.get("/v1/jobs").await;
    let ids: Vec<&str> = page["jobs"].as_array().unwrap().iter().map(|j| j["id"].as_str().unwrap()).collect();
    on.post(&format!("/v1/jobs/{}/cancel", ids[0]), &json!({})).await;
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    let done = on.post("/v1/jobs:cancel", &json!({"job_ids": [ids[0], ids[1], unknown]})).await;
    assert_eq!((&done["cancelled"], &done["skipped"]), (&json!(1), &json!(2)), "{done}");
    let reasons: Vec<&Value> = done["not_cancelled"].as_array().unwrap().iter().map(|n| &n["reason"]).collect();
    assert_eq!(reasons, ["it is cancelled already", "there is no such job"], "{done}");
    for (body, field) in [
        (json!({}), "states"),
        (json!({"states": ["succeeded"]}), "states"),
        (json!({"states": ["accepted"], "rate": 2000}), "rate"),
        (json!({"states": ["accepted"], "dry_run": true, "async": true}), "dry_run"),
        (json!({"job_ids": ["7"]}), "job_ids"),
    ] {
        let (status, refused) = on.ask(Method::POST, "/v1/jobs:cancel", Some(&body)).await;
        assert_eq!((status, refused["field"].as_str()), (400, Some(field)), "{body}: {refused}");
    }
}
