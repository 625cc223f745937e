//! Operations of the shipped process: they continue without their caller, and after kill -9. NATS is down, so that jobs
//! that were put back stay accepted.

use crate::process::Orchestrator;
use agentforge_harness::{Postgres, eventually, require};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);
const JOBS: usize = 150;

/// Jobs that were cancelled; their ids.
async fn cancelled(on: &Orchestrator) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..JOBS {
        let job = on.post("/v1/jobs", &json!({"tool": "echo"})).await;
        let id = job["id"].as_str().unwrap().to_owned();
        on.post(&format!("/v1/jobs/{id}/cancel"), &json!({})).await;
        ids.push(id);
    }
    ids
}

async fn in_state(on: &Orchestrator, state: &str) -> usize {
    on.get(&format!("/v1/jobs?limit=1000&state={state}")).await["jobs"].as_array().unwrap().len()
}

/// Starts a retry of all that was cancelled, and gives its path.
async fn retry(on: &Orchestrator, rate: u32) -> String {
    let body = json!({"states": ["cancelled"], "rate": rate, "async": true});
    let (status, answer) = on.ask(Method::POST, "/v1/jobs:retry", Some(&body)).await;
    assert_eq!((status, answer["state"].as_str()), (202, Some("waiting")), "{answer}");
    format!("/v1/operations/{}", answer["id"].as_str().unwrap())
}

async fn midway(on: &Orchestrator, path: &str, least: u64) -> Value {
    eventually(SOON, "some jobs are put back", async || {
        let now = on.get(path).await;
        if now["put_back"].as_u64() >= Some(least) { Ok(now) } else { Err(now) }
    })
    .await
}

async fn ended(on: &Orchestrator, path: &str) -> Value {
    eventually(SOON, "the operation ends", async || {
        let now = on.get(path).await;
        if now["ended_at"].is_string() { Ok(now) } else { Err(now) }
    })
    .await
}

/// The share under way at a kill may be missing in the counts, and is not put back twice.
fn is_whole(end: &Value) {
    assert_eq!((end["state"].as_str(), end["error"].is_null()), (Some("succeeded"), true), "{end}");
    assert_eq!(end["total"], JOBS, "{end}");
    let put_back = end["put_back"].as_u64().unwrap();
    assert!((JOBS as u64 - 20..=JOBS as u64).contains(&put_back), "{end}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_goes_on_without_its_caller_and_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("sqlite://{}/a.db", directory.path().display());
    let mut on = Orchestrator::start(&store, &[]).await;
    cancelled(&on).await;
    let path = retry(&on, 50).await;
    let seen = midway(&on, &path, 10).await;
    assert_eq!(seen["state"], "running", "{seen}");
    on.process.kill9();
    on = Orchestrator::start(&store, &[]).await;
    is_whole(&ended(&on, &path).await);
    assert_eq!((in_state(&on, "accepted").await, in_state(&on, "cancelled").await), (JOBS, 0));
    // SIGTERM leaves one to the next process as well, at once.
    for job in on.get("/v1/jobs?limit=1000").await["jobs"].as_array().unwrap() {
        on.post(&format!("/v1/jobs/{}/cancel", job["id"].as_str().unwrap()), &json!({})).await;
    }
    let path = retry(&on, 50).await;
    midway(&on, &path, 10).await;
    assert_eq!(on.process.sigterm(SOON).await, 0);
    on = Orchestrator::start(&store, &[]).await;
    is_whole(&ended(&on, &path).await);
    assert_eq!(in_state(&on, "accepted").await, JOBS);
}

/// A job that was put back and has ended again is not this operation's any more, whichever process continues it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_continued_operation_puts_no_job_back_a_second_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("sqlite://{}/a.db", directory.path().display());
    let mut on = Orchestrator::start(&store, &[]).await;
    cancelled(&on).await;
    let path = retry(&on, 20).await;
    midway(&on, &path, 10).await;
    // The newest were the first that were put back. All are of one page.
    let put_back = on.get("/v1/jobs?limit=5&state=accepted").await;
    for job in put_back["jobs"].as_array().unwrap() {
        on.post(&format!("/v1/jobs/{}/cancel", job["id"].as_str().unwrap()), &json!({})).await;
    }
    assert_eq!(on.process.sigterm(SOON).await, 0);
    on = Orchestrator::start(&store, &[]).await;
    let end = ended(&on, &path).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!((in_state(&on, "accepted").await, in_state(&on, "cancelled").await), (JOBS - 5, 5), "{end}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_orchestrator_continues_an_operation_of_one_that_was_killed() {
    let Some(()) = require("postgres") else { return };
    let postgres = Postgres::start().await;
    let url = postgres.database("operations").await;
    let mut one = Orchestrator::start(&url, &[]).await;
    cancelled(&one).await;
    let path = retry(&one, 50).await;
    midway(&one, &path, 10).await;
    let other = Orchestrator::start(&url, &[]).await;
    one.process.kill9();
    is_whole(&ended(&other, &path).await);
    assert_eq!((in_state(&other, "accepted").await, in_state(&other, "cancelled").await), (JOBS, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_operation_stops_and_what_it_put_back_stays() {
    let directory = tempfile::tempdir().unwrap();
    let on = Orchestrator::start(&format!("sqlite://{}/a.db", directory.path().display()), &[]).await;
    cancelled(&on).await;
    // Slower than a claim lasts between two shares: the pause is slept in parts.
    let path = retry(&on, 2).await;
    midway(&on, &path, 2).await;
    let asked = on.post(&format!("{path}/cancel"), &json!({})).await;
    assert_eq!(asked["cancel_asked"], true, "{asked}");
    let end = ended(&on, &path).await;
    assert_eq!(end["state"], "cancelled", "{end}");
    let put_back = usize::try_from(end["put_back"].as_u64().unwrap()).unwrap();
    assert_eq!((in_state(&on, "accepted").await, in_state(&on, "cancelled").await), (put_back, JOBS - put_back));
    assert!(put_back < JOBS / 2, "{end}");
    // Asked again, nothing changes.
    assert_eq!(on.post(&format!("{path}/cancel"), &json!({})).await, end);
}
