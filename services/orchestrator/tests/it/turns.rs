//! Turns of schedules in the shipped process: overlapping, missed, requested now; with two orchestrators that are
//! killed. NATS is down, so that a job is over only when it is cancelled.

use crate::process::Orchestrator;
use agentforge_harness::{Postgres, eventually, require};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

/// A schedule whose own turn is far away.
async fn yearly(on: &Orchestrator, name: &str, more: Value) -> String {
    let mut schedule = json!({"name": name, "cron": "0 0 1 1 *", "job": {"tool": "echo", "labels": {"of": name}}});
    schedule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    on.post("/v1/schedules", &schedule).await["id"].as_str().unwrap().to_owned()
}

/// The schedule's jobs, oldest first: state and the time each stands for.
async fn jobs(on: &Orchestrator, name: &str) -> Vec<(String, String)> {
    let page = on.get(&format!("/v1/jobs?limit=1000&label=of={name}")).await;
    let text = |job: &Value, field: &str| job[field].as_str().unwrap_or_default().to_owned();
    let mut jobs: Vec<_> =
        page["jobs"].as_array().unwrap().iter().map(|j| (text(j, "state"), text(j, "scheduled_at"))).collect();
    jobs.reverse();
    jobs
}

/// A time in REST's form.
fn rfc3339(micros: i64) -> String {
    format!("{:.6}", Timestamp::from_microsecond(micros).unwrap())
}

fn open(jobs: &[(String, String)]) -> usize {
    jobs.iter().filter(|(state, _)| state == "accepted").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_overlap_policy_holds_while_two_orchestrators_are_killed() {
    let Some(()) = require("postgres") else { return };
    const ROUNDS: usize = 6;
    let postgres = Postgres::start().await;
    let url = postgres.database("turns").await;
    let database = url.rsplit('/').next().unwrap().to_owned();
    let mut both = [Orchestrator::start(&url, &[]).await, Orchestrator::start(&url, &[]).await];
    let mut ids = BTreeMap::new();
    for policy in ["allow", "skip", "queue", "replace"] {
        ids.insert(policy, yearly(&both[0], policy, json!({"overlap": policy})).await);
    }
    let mut turns = vec![];
    for round in 0..ROUNDS {
        let now = Timestamp::now().as_microsecond();
        turns.push(rfc3339(now));
        postgres.sql(&database, &format!("update schedules set next_run_at = {now}")).await;
        // The moment is the attack: before, at and after the tick that takes the turns.
        tokio::time::sleep(Duration::from_millis(150 * round as u64)).await;
        both[round % 2].process.kill9();
        let living = &both[1 - round % 2];
        eventually(SOON, "the turns are taken", async || {
            let all = living.get("/v1/schedules").await;
            let waits = |s: &Value| s["next_run_at"].as_str().unwrap() <= turns[round].as_str();
            !all["schedules"].as_array().unwrap().iter().any(waits)
        })
        .await;
        both[round % 2] = Orchestrator::start(&url, &[]).await;
    }
    let on = &both[0];
    let of = |policy: &str| format!("/v1/schedules/{}", ids[policy]);
    let allow = jobs(on, "allow").await;
    let scheduled: Vec<_> = allow.iter().map(|(_, at)| at.clone()).collect();
    assert_eq!((scheduled, open(&allow)), (turns.clone(), ROUNDS), "each turn has one job, which knows its time");
    let skip = jobs(on, "skip").await;
    assert_eq!((skip.len(), open(&skip)), (1, 1), "{skip:?}");
    let view = on.get(&of("skip")).await;
    assert_eq!(view["turns_skipped"], ROUNDS - 1, "{view}");
    assert_eq!(
        (&view["last_skipped"]["reason"], &view["last_skipped"]["scheduled_at"]),
        (&json!("overlap"), &json!(turns[ROUNDS - 1]))
    );
    let replace = jobs(on, "replace").await;
    assert_eq!((replace.len(), open(&replace)), (ROUNDS, 1), "{replace:?}");
    assert_eq!(replace.last().unwrap(), &("accepted".to_owned(), turns[ROUNDS - 1].clone()));
    let queue = jobs(on, "queue").await;
    assert_eq!((queue.len(), open(&queue)), (1, 1), "{queue:?}");
    let view = on.get(&of("queue")).await;
    assert_eq!(
        (&view["waiting_scheduled_at"], &view["turns_skipped"]),
        (&json!(turns[1]), &json!(ROUNDS - 2)),
        "{view}"
    );
    // The one that waits begins when the earlier one is over.
    on.post(&format!("/v1/jobs/{}/cancel", view["last_job_id"].as_str().unwrap()), &json!({})).await;
    eventually(SOON, "the turn that waited has its job", async || jobs(on, "queue").await.len() == 2).await;
    assert_eq!(jobs(on, "queue").await[1], ("accepted".to_owned(), turns[1].clone()));
    assert_eq!(on.get(&of("queue")).await["waiting_scheduled_at"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_made_up_for_by_each_catch_up_policy() {
    let Some(()) = require("postgres") else { return };
    let postgres = Postgres::start().await;
    let url = postgres.database("outage").await;
    let database = url.rsplit('/').next().unwrap().to_owned();
    let mut on = Orchestrator::start(&url, &[]).await;
    // The minute that is half an hour away, so that no turn comes meanwhile.
    let next = Timestamp::now().as_second() / 60 + 30;
    for policy in ["latest", "all", "none"] {
        let minute = next.rem_euclid(60);
        yearly(&on, policy, json!({"cron": format!("{minute} * * * *"), "catch_up": policy})).await;
    }
    on.process.kill9();
    // Five turns were missed: the newest half an hour ago.
    let hour = 3_600_000_000_i64;
    postgres.sql(&database, &format!("update schedules set next_run_at = next_run_at - {}", 5 * hour)).await;
    let missed: Vec<_> = (1..=5_i64).rev().map(|n| rfc3339(next * 60_000_000 - n * hour)).collect();
    on = Orchestrator::start(&url, &[]).await;
    eventually(SOON, "the turns are judged", async || {
        let all = on.get("/v1/schedules").await;
        let now = rfc3339(Timestamp::now().as_microsecond());
        all["schedules"].as_array().unwrap().iter().all(|s| s["next_run_at"].as_str().unwrap() > now.as_str())
    })
    .await;
    let times = async |name: &str| jobs(&on, name).await.into_iter().map(|(_, at)| at).collect::<Vec<_>>();
    assert_eq!(times("all").await, missed, "all of them, in order");
    assert_eq!(times("latest").await, missed[4..], "the newest");
    assert_eq!(times("none").await, [""; 0], "none of them");
    let all = on.get("/v1/schedules").await;
    let skipped: Vec<_> =
        all["schedules"].as_array().unwrap().iter().map(|s| s["turns_skipped"].as_u64().unwrap()).collect();
    assert_eq!(skipped, [0, 4, 5], "all, latest, none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_is_changed_run_and_resumed_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let on = Orchestrator::start(&format!("sqlite://{}/a.db", directory.path().display()), &[]).await;
    let id = yearly(&on, "s", json!({"overlap": "skip", "deadline": "50m"})).await;
    let at = |tail: &str| format!("/v1/schedules/{id}{tail}");
    // A run that is asked for twice under one key is one run.
    let key = json!({"idempotency_key": "k"});
    let run = on.post(&at("/run"), &key).await;
    assert_eq!(on.post(&at("/run"), &key).await["job_id"], run["job_id"]);
    let job = on.get(&format!("/v1/jobs/{}", run["job_id"].as_str().unwrap())).await;
    assert_eq!(job["schedule_id"], id.as_str());
    let moment = |v: &Value| v.as_str().unwrap().parse::<Timestamp>().unwrap();
    let until = moment(&job["deadline"]).duration_since(moment(&job["scheduled_at"]));
    assert_eq!(until.as_secs(), 50 * 60, "the deadline counts from the time it stands for: {job}");
    let (status, refused) = on.ask(Method::POST, &at("/run"), Some(&json!({}))).await;
    assert_eq!((status, refused["code"].as_str()), (409, Some("failed_precondition")), "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains(run["job_id"].as_str().unwrap()), "{refused}");

    // Changed in place: same id, same history.
    let next = on.get(&at("")).await["next_run_at"].clone();
    let change = json!({"overlap": "queue", "catch_up": "none", "name": "t", "deadline_ms": 0});
    let (status, changed) = on.ask(Method::PATCH, &at(""), Some(&change)).await;
    assert_eq!(status, 200, "{changed}");
    assert_eq!((&changed["id"], &changed["name"], &changed["overlap"]), (&json!(id), &json!("t"), &json!("queue")));
    assert_eq!((&changed["last_job_id"], &changed["next_run_at"]), (&run["job_id"], &next));
    assert_eq!((&changed["deadline_ms"], &changed["catch_up"]), (&Value::Null, &json!("none")));
    let (_, moved) = on.ask(Method::PATCH, &at(""), Some(&json!({"cron": "0 0 2 1 *"}))).await;
    assert_ne!(moved["next_run_at"], next);
    assert_eq!(moved["cron"], "0 0 2 1 *");

    // It waits now, and one waits only; replaced, the earlier one is cancelled.
    assert_eq!(on.post(&at("/run"), &json!({})).await["job_id"], Value::Null);
    assert_eq!(on.ask(Method::POST, &at("/run"), Some(&json!({}))).await.0, 409);
    on.ask(Method::PATCH, &at(""), Some(&json!({"overlap": "replace"}))).await;
    // When requested again under its key, the first run is returned, and nothing is cancelled for it.
    assert_eq!(on.post(&at("/run"), &key).await["job_id"], run["job_id"]);
    assert_eq!(on.get(&format!("/v1/jobs/{}", run["job_id"].as_str().unwrap())).await["state"], "accepted");
    let second = on.post(&at("/run"), &json!({})).await;
    assert!(second["job_id"].is_string(), "{second}");
    let first = on.get(&format!("/v1/jobs/{}", run["job_id"].as_str().unwrap())).await;
    assert_eq!(first["state"], "cancelled");

    // Resumed as if there had been no pause.
    let next = on.get(&at("")).await["next_run_at"].clone();
    assert_eq!(on.post(&at("/pause"), &json!({})).await["next_run_at"], Value::Null);
    assert_eq!(on.post(&at("/resume?catch_up=true"), &json!({})).await["next_run_at"], next);

    for (body, field) in [
        (json!({"overlap": "sometimes"}), "overlap"),
        (json!({"catch_up": "maybe"}), "catch_up"),
        (json!({"deadline": "soon"}), "deadline"),
        (json!({"deadline": "9000h"}), "deadline"),
        (json!({"cron": "*/90 * * * *"}), "cron"),
        (json!({"time_zone": "Mars/Olympus"}), "time_zone"),
        (json!({"name": ""}), "name"),
        (json!({"job": {"tool": ""}}), "tool"),
    ] {
        let (status, refused) = on.ask(Method::PATCH, &at(""), Some(&body)).await;
        assert_eq!((status, refused["field"].as_str()), (400, Some(field)), "{body}: {refused}");
    }
    yearly(&on, "other", json!({})).await;
    let (status, refused) = on.ask(Method::PATCH, &at(""), Some(&json!({"name": "other"}))).await;
    assert_eq!((status, refused["field"].as_str()), (409, Some("name")), "{refused}");
}
