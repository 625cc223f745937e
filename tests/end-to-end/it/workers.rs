//! Workers that stall, die, or are killed by their own job.

use crate::stack::{Options, Stack};
use agentforge_harness::{eventually, require};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stalled_past_its_ack_wait_adds_no_second_result() {
    let Some(()) = require("nats-server") else { return };
    let options =
        Options::new().orchestrator("ACK_WAIT", "2s").worker("ACK_WAIT", "2s").worker("WORKER_CONCURRENCY", "4");
    let mut stack = Stack::start(options).await;
    let api = stack.api();
    let id = api.job("sleep", json!({"ms": 1000})).await;
    eventually(Duration::from_secs(20), "the job runs", || async { api.read(&id).await["state"] == "running" }).await;
    stack.workers[0].pause();
    let mut second = stack.spawn_worker();
    second.ready(Duration::from_secs(60)).await;
    let job = api.finished(&id).await;
    assert_eq!((job["state"].as_str(), job["attempts"].as_u64()), (Some("succeeded"), Some(1)));

    stack.workers[0].resume();
    eventually(Duration::from_secs(30), "the late result is counted and ignored", || async {
        let n = api.metric("agentforge_duplicates_suppressed_total", &["where=\"result\""]).await;
        if n >= 1.0 { Ok(()) } else { Err(n) }
    })
    .await;
    assert_eq!(api.read(&id).await["version"], job["version"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_kills_every_worker_ends_as_a_dead_letter_and_spares_its_neighbours() {
    let Some(()) = require("nats-server") else { return };
    let options = Options::new()
        .orchestrator("ACK_WAIT", "2s")
        .worker("ACK_WAIT", "2s")
        .worker("WORKER_MAX_DELIVERIES", "3")
        .worker("WORKER_CONCURRENCY", "8")
        .tools("[[tool]]\nname = \"poison\"\nargv = [\"/bin/sh\", \"-c\", \"read -r _ _ _ worker _ < /proc/$PPID/stat; kill -9 $worker\"]\nfiles = \"any\"\n");
    let mut stack = Stack::start(options).await;
    let api = stack.api();
    let poison = api.job("poison", json!({})).await;
    let mut neighbours = vec![];
    for n in 0..4 {
        neighbours.push(api.job("sleep", json!({"ms": 300 + n})).await);
    }
    let mut deaths = 0;
    let dead = loop {
        let job = api.read(&poison).await;
        if crate::api::is_final(&job) {
            break job;
        }
        if !stack.workers[0].is_running() {
            deaths += 1;
            assert!(deaths <= 6, "the job was handed out {deaths} times");
            stack.start_worker(0).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((dead["state"].as_str(), dead["error"]["class"].as_str()), (Some("dead"), Some("worker_lost")));
    assert_eq!(deaths, 3, "as many workers as WORKER_MAX_DELIVERIES allows");
    let letters = api.get("/v1/dead-letters?reason=worker_lost").await.unwrap().body;
    assert_eq!(letters["dead_letters"].as_array().unwrap().len(), 1, "{letters}");
    assert_eq!(letters["dead_letters"][0]["job_id"], json!(poison));
    for id in neighbours {
        let job = api.finished(&id).await;
        assert_eq!(job["state"], "succeeded", "a neighbour was blamed: {job}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_never_runs_and_a_running_one_is_stopped() {
    let Some(()) = require("nats-server") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (ran, alive) = (dir.path().join("ran"), dir.path().join("alive"));
    let tools = format!(
        "[[tool]]\nname = \"touch\"\nargv = [\"/usr/bin/touch\", \"{}\"]\nwrite = [{folder:?}]\n\n[[tool]]\nname = \"long\"\nargv = [\"/bin/sh\", \"-c\", \"echo $$ > {}; sleep 600 & wait\"]\nwrite = [{folder:?}]\n",
        ran.display(),
        alive.display(),
        folder = dir.path()
    );
    let stack = Stack::start(Options::new().worker("WORKER_CONCURRENCY", "4").tools(&tools)).await;
    let api = stack.api();
    let later = api.submit(json!({"tool": "touch", "run_at": in_seconds(5)})).await["id"].as_str().unwrap().to_owned();
    let cancelled = api.post(&format!("/v1/jobs/{later}/cancel"), &json!({})).await.unwrap();
    assert_eq!((cancelled.status.as_u16(), cancelled.body["state"].as_str()), (200, Some("cancelled")));

    let long = api.job("long", json!({})).await;
    eventually(Duration::from_secs(20), "the tool runs", || async { alive.exists() }).await;
    let pid: i32 = eventually(Duration::from_secs(20), "its pid is written", || async {
        std::fs::read_to_string(&alive).ok()?.trim().parse().ok()
    })
    .await;
    api.post(&format!("/v1/jobs/{long}/cancel"), &json!({})).await.unwrap();
    eventually(Duration::from_secs(15), "the tool and its children are gone", || async { !group_lives(pid) }).await;
    assert_eq!(api.read(&long).await["state"], "cancelled");

    // Its time has come and gone when a later job is through.
    let marker = api.submit(json!({"tool": "echo", "run_at": in_seconds(6)})).await["id"].as_str().unwrap().to_owned();
    api.finished(&marker).await;
    assert!(!ran.exists(), "a job that was cancelled before its start ran");
}

fn in_seconds(s: i64) -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(s)).to_string()
}

fn group_lives(pid: i32) -> bool {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return false };
    rustix::process::test_kill_process_group(pid).is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_fleet_runs_every_job_where_its_tool_is() {
    let Some(()) = require("nats-server") else { return };
    let mut stack = Stack::start(Options::new().worker("WORKER_CONCURRENCY", "4")).await;
    let api = stack.api();
    // Submitted while no worker has the tool, as in an update that adds one: its worker is on its way.
    let mut ids = vec![api.job("newtool", json!({})).await];
    eventually(Duration::from_secs(20), "the job has met the worker that lacks the tool", || async {
        let n = api.metric("agentforge_tools_missing_total", &[]).await;
        if n >= 1.0 { Ok(()) } else { Err(n) }
    })
    .await;
    let tools = tempfile::NamedTempFile::new().unwrap();
    let text = "[[tool]]\nname = \"newtool\"\nargv = [\"/bin/sh\", \"-c\", \"echo 7\"]\n";
    std::fs::write(tools.path(), text).unwrap();
    stack.options.worker.insert("WORKER_TOOLS_FILE".into(), tools.path().display().to_string());
    let mut second = stack.spawn_worker();
    second.ready(Duration::from_secs(60)).await;
    for _ in 0..20 {
        ids.push(api.job("newtool", json!({})).await);
    }
    for id in &ids {
        let job = api.finished(id).await;
        assert_eq!((job["state"].as_str(), &job["result"]), (Some("succeeded"), &json!(7)), "{job}");
    }
}
