//! What a job costs in messages and rows: counted, not timed. It must not rise unseen.

use crate::stack::{Options, Stack};
use agentforge_harness::{eventually, require};
use serde_json::{Value, json};
use sqlx::Connection as _;
use std::time::Duration;

const JOBS: u64 = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_share_messages_of_results_and_rows_of_events() {
    let Some(()) = require("nats-server") else { return };
    // With the settings that ship: all events.
    let stack = Stack::start(Options::new().worker("WORKER_CONCURRENCY", "256")).await;
    let api = stack.api();
    for batch in 0..JOBS / 500 {
        let jobs: Vec<Value> = (0..500).map(|n| json!({"tool": "echo", "args": {"n": batch * 500 + n}})).collect();
        assert_eq!(api.post("/v1/jobs:batch", &json!(jobs)).await.unwrap().status.as_u16(), 200);
    }
    eventually(Duration::from_secs(120), "all jobs have ended", || async {
        let done = api.metric("agentforge_jobs_completed_total", &[]).await;
        if done >= JOBS as f64 { Ok(()) } else { Err(done) }
    })
    .await;
    let js = stack.jetstream().await;
    let published = async |stream: &str| {
        let mut stream = js.get_stream(stream).await.unwrap();
        stream.info().await.unwrap().state.last_sequence
    };
    assert_eq!(published("swarm_jobs").await, JOBS, "one message for each attempt");
    let results = published("swarm_results").await;
    assert!(results <= JOBS / 4, "{results} messages with the results of {JOBS} jobs");
    eventually(Duration::from_secs(60), "all events are published", || async {
        let events = published("events").await;
        if events >= 2 * JOBS { Ok(()) } else { Err(events) }
    })
    .await;
    let events = published("events").await;
    assert!(events <= 4 * JOBS + 100, "{events} events: accepted and succeeded, perhaps queued and running");

    let file = stack.database_url();
    let file = file.trim_start_matches("sqlite://");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).read_only(true);
    let mut c = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let used = "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'";
    let rows: i64 = sqlx::query_scalar(used).fetch_one(&mut c).await.unwrap();
    assert!(rows.unsigned_abs() <= JOBS / 4, "{rows} rows of the outbox for {events} events");
}
