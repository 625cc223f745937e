//! Schedules of the shipped process while its wall clock is set: back by an hour, forward by an hour, and while it does
//! not run. NATS is down: what counts is which turns have a job.

use crate::process::Orchestrator;
use agentforge_harness::{Postgres, WallClock, eventually, require};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// The full hour that is `hours` away, milliseconds since 1970.
fn hour(hours: i64) -> i64 {
    (Timestamp::now().as_millisecond() / HOUR + hours) * HOUR
}

/// Three seconds before a turn of each minute.
const fn before(turn: i64) -> i64 {
    turn - 3_000
}

fn shown(turn: i64) -> String {
    format!("{:.6}", Timestamp::from_millisecond(turn).unwrap())
}

async fn start(store: &str, clock: &WallClock, skew: i64) -> Orchestrator {
    let envs = clock.envs(skew);
    let envs: Vec<_> = envs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    Orchestrator::start(store, &envs).await
}

async fn every_minute(on: &Orchestrator) -> String {
    let schedule = json!({"name": "s", "cron": "* * * * *", "job": {"tool": "echo"}});
    let (status, made) = on.ask(Method::POST, "/v1/schedules", Some(&schedule)).await;
    assert_eq!(status, 201, "{made}");
    made["id"].as_str().unwrap().to_owned()
}

/// The times that the schedule's jobs stand for, in the order in which they were made.
async fn turns(on: &Orchestrator) -> Vec<String> {
    let page = on.get("/v1/jobs?limit=1000").await;
    let mut turns: Vec<_> =
        page["jobs"].as_array().unwrap().iter().map(|job| job["scheduled_at"].as_str().unwrap().to_owned()).collect();
    turns.reverse();
    turns
}

async fn has(on: &Orchestrator, wanted: &[i64]) {
    let wanted: Vec<_> = wanted.iter().map(|turn| shown(*turn)).collect();
    eventually(SOON, "the turns have a job each", async || {
        let got = turns(on).await;
        if got == wanted { Ok(()) } else { Err(format!("{got:?} instead of {wanted:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_follow_a_clock_that_is_set_back_and_forward_and_while_nobody_runs() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("sqlite://{}/a.db", directory.path().display());
    let clock = WallClock::new();
    let mut on = start(&store, &clock, 0).await;
    let noon = hour(10);
    let (first, back) = (noon + MINUTE, noon - HOUR + MINUTE);
    clock.set(before(first));
    let id = every_minute(&on).await;
    has(&on, &[first]).await;

    // An hour back: the turns of that hour come, and do not wait until it is over.
    clock.set(before(back));
    has(&on, &[first, back]).await;

    // And forward again: of what was missed the newest is taken, as the catch-up policy has it, and once. Then the
    // turn comes that was taken before the clock was set back.
    clock.set(before(first));
    has(&on, &[first, back, noon, first]).await;
    let schedule = on.get(&format!("/v1/schedules/{id}")).await;
    assert_eq!(schedule["last_skipped"]["reason"], "missed", "{schedule}");
    assert_eq!(schedule["last_skipped"]["scheduled_at"], shown(noon - MINUTE), "{schedule}");

    // Set back while no orchestrator runs.
    on.process.kill9();
    let again = noon - HOUR / 2;
    clock.set(before(again) - 5_000);
    on = start(&store, &clock, 0).await;
    clock.set(before(again));
    has(&on, &[first, back, noon, first, again]).await;
    let log = on.process.full_log();
    assert!(log.contains("turns of a schedule occur again"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_orchestrators_follow_their_clocks_and_double_no_turn_for_their_skew() {
    let Some(()) = require("postgres") else { return };
    /// One of two is behind by so much.
    const SKEW: i64 = -20_000;
    let postgres = Postgres::start().await;
    let url = postgres.database("clock_steps").await;
    let database = url.rsplit('/').next().unwrap().to_owned();
    let rewinds = async || postgres.sql(&database, "select rewinds from schedules").await.trim().to_owned();
    let clock = WallClock::new();
    let mut both = [start(&url, &clock, 0).await, start(&url, &clock, SKEW).await];
    let noon = hour(10);
    clock.set(before(noon));
    every_minute(&both[0]).await;
    has(&both[0], &[noon]).await;
    // The other one, whose clock still shows the time before the turn, starts again; then its turn comes by its clock.
    both[1].process.kill9();
    clock.set(noon + 1_000);
    both[1] = start(&url, &clock, SKEW).await;
    clock.set(noon - SKEW - 1_000);
    tokio::time::sleep(Duration::from_secs(3)).await;
    clock.set(before(noon + MINUTE));
    has(&both[0], &[noon, noon + MINUTE]).await;
    assert_eq!(rewinds().await, "0");

    // Both go back by an hour.
    let back = noon - HOUR + MINUTE;
    clock.set(before(back));
    has(&both[1], &[noon, noon + MINUTE, back]).await;
    assert_eq!(rewinds().await, "1");

    // Set back again while no orchestrator runs, to what the database's clock shows; that one is trusted.
    for one in &mut both {
        one.process.kill9();
    }
    let real = Timestamp::now().as_millisecond();
    clock.set(real);
    both = [start(&url, &clock, 0).await, start(&url, &clock, SKEW).await];
    eventually(SOON, "the schedule is planned by the true clock", async || rewinds().await == "2").await;
    let next = both[0].get("/v1/schedules").await["schedules"][0]["next_run_at"].clone();
    let Value::String(next) = next else { panic!("{next}") };
    assert!(next < shown(Timestamp::now().as_millisecond() + 3 * MINUTE), "{next}");
    // A clock that is behind the database's for hours is not believed at a start.
    for one in &mut both {
        one.process.kill9();
    }
    clock.set(real - 5 * HOUR);
    both = [start(&url, &clock, 0).await, start(&url, &clock, SKEW).await];
    for one in &both {
        eventually(SOON, "the disagreement is reported", async || {
            one.process.full_log().contains("the clock is behind the database's")
        })
        .await;
    }
    assert_eq!(rewinds().await, "2");
}
