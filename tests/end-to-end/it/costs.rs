//! What a job costs in messages, rows, statements and wake-ups: counted, not timed. It must not rise unseen.

use crate::stack::{Options, Stack};
use agentforge_harness::{Postgres, PostgresOptions, Proc, eventually, require};
use serde_json::{Value, json};
use sqlx::Connection as _;
use std::time::Duration;

const JOBS: u64 = 2_000;

/// Runs [`JOBS`] jobs, submitted in batches of 500, and waits until all have ended.
async fn run_all(stack: &Stack) {
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
}

/// How often the threads of a process gave up the processor to wait: each is a wake-up later.
fn waits_of(process: &Proc) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap();
    let status = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("status")).ok());
    status
        .map(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
            line.trim().parse::<u64>().unwrap()
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_share_messages_of_results_and_rows_of_events() {
    let Some(()) = require("nats-server") else { return };
    // With the settings that ship: all events.
    let stack = Stack::start(Options::new().worker("WORKER_CONCURRENCY", "256")).await;
    let before = (waits_of(&stack.orchestrators[0]), waits_of(&stack.workers[0]));
    run_all(&stack).await;
    let (orchestrator, worker) = (waits_of(&stack.orchestrators[0]) - before.0, waits_of(&stack.workers[0]) - before.1);
    println!("{JOBS} jobs: the orchestrator waits {orchestrator} times, the worker {worker} times");
    assert!(orchestrator <= JOBS, "the orchestrator waits {orchestrator} times for {JOBS} jobs");
    assert!(worker <= JOBS, "the worker waits {worker} times for {JOBS} jobs");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_on_postgres_share_statements_and_transactions() {
    let Some(()) = require("nats-server").and(require("postgres")) else { return };
    let settings = vec![("shared_preload_libraries".to_owned(), "pg_stat_statements".to_owned())];
    let postgres = Postgres::own(PostgresOptions { fsync: false, settings }).await;
    let store = postgres.database("jobs").await;
    let name = store.rsplit('/').next().unwrap().to_owned();
    let options = Options { store: Some(store), ..Options::new() };
    let stack = Stack::start(options.worker("WORKER_CONCURRENCY", "256")).await;
    stack.jetstream().await;
    postgres.sql(&name, "CREATE EXTENSION pg_stat_statements; SELECT pg_stat_statements_reset()").await;
    run_all(&stack).await;
    // What begins and ends transactions counts as a statement too.
    let count = async |what: &str| -> u64 {
        let rows = "pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
        postgres.sql(&name, &format!("SELECT coalesce(sum(calls), 0) FROM {rows} {what}")).await.parse().unwrap()
    };
    let (statements, commits) = (count("").await, count("AND query = 'COMMIT'").await);
    println!("{JOBS} jobs: {statements} statements, {commits} transactions");
    assert!(commits > 0, "transactions are counted");
    assert!(commits <= JOBS / 8, "{commits} transactions for {JOBS} jobs");
    assert!(statements <= JOBS / 2, "{statements} statements for {JOBS} jobs");
}
