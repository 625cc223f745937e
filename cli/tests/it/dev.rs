//! `agentforge dev` as a newcomer uses it, with every command against it.

use super::support::{Dev, SOON, agentforge, extras_but, feed, gone, pid, runs};
use agentforge_harness::{Signal, eventually, http_get, require};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn tempdir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("agentforge-dev-").tempdir().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_day_from_start_to_drain() {
    let Some(()) = require("nats-server") else { return };
    let home = tempdir();
    let mut dev = Dev::start(&home, &["--concurrency", "8"]).await;

    // One process, one page of metrics, everything where the file says.
    let services = &dev.ready["services"];
    assert_eq!(services["orchestrator"]["pid"], services["worker"]["pid"]);
    assert_eq!(services["orchestrator"]["metrics"], services["worker"]["metrics"]);
    assert_eq!(pid(&services["worker"]["pid"]), dev.process.pid());
    assert!(services["worker"].get("grpc").is_none());
    assert!(dev.ready["nats"]["url"].as_str().unwrap().starts_with("nats://127.0.0.1:"));
    assert!(runs(dev.nats_pid()));

    nats_as_metrics(services["nats-exporter"]["metrics"].as_str().unwrap()).await;
    submit_and_read(&dev);
    failures_and_dead_letters(&dev).await;
    picture(&dev).await;
    schedules(&dev);
    batch(&dev);
    let agents = dev.run(["agent", "list", "--status", "online"]).ok();
    assert_eq!(agents["agents"].as_array().unwrap().len(), 1);
    assert_eq!(agents["agents"][0]["capacity"], 8);
    let id = agents["agents"][0]["id"].as_str().unwrap();
    assert_eq!(dev.run(["agent", "get", id]).ok()["status"], "online");

    // Ctrl-C: everything drains, nothing is left behind.
    let nats = dev.nats_pid();
    dev.process.signal(Signal::INT);
    assert_eq!(dev.process.wait(SOON).await, 0, "{}", dev.process.full_log());
    assert!(!dev.ready_file.exists(), "nobody may trust its addresses now");
    gone(&[nats]).await;

    // What was accepted is there at the next start, and jobs need none of the services that can be left out.
    let again = Dev::start(&home, &["--without", &extras_but(&[])]).await;
    let jobs = again.run(["job", "list", "--label", "day=first"]).ok();
    assert_eq!(jobs["jobs"][0]["result"], json!({"hello": "world"}));
    assert_eq!(again.run(["job", "submit", "echo", "{}", "--wait"]).ok()["state"], "succeeded");
    let services: Vec<_> = again.ready["services"].as_object().unwrap().keys().collect();
    assert_eq!(services, ["orchestrator", "worker"]);
}

/// The exporter's page is only about NATS; the process has its own page.
async fn nats_as_metrics(url: &str) {
    let (status, body) = http_get(url, &[]).await.unwrap();
    let page = String::from_utf8(body).unwrap();
    assert_eq!(status, 200, "{page}");
    for part in ["gnatsd_varz_connections{", "nats_jetstream_stream_messages{account=\"$G\",stream=\"swarm_jobs\"}"] {
        assert!(page.contains(part), "no {part} in\n{page}");
    }
    assert!(!page.contains("process_cpu_seconds_total"), "{page}");
}

/// Markers of a caller and of a job are on the live picture, until they are removed.
async fn picture(dev: &Dev) {
    let url = dev.ready["services"]["tactical-api"]["http"].as_str().unwrap();
    let told = dev.run(["marker", "post", "Truck", "--id", "t1", "--at", "13.4,52.5", "--url", url]).ok();
    assert_eq!((told["id"].as_str(), told["kind"].as_str()), (Some("t1"), Some("marker")));
    let args = r#"{"markers":[{"id":"m1","title":"Found","coordinates":[1,2]},{"id":"z1","title":"Area","polygon":[[0,0],[1,0],[1,1]]}]}"#;
    dev.run(["job", "submit", "echo", args, "--wait"]).ok();
    let shown = dev.run(["marker", "watch", "--snapshot", "--count", "3", "--url", url]);
    let shown: Vec<Value> = shown.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<_> = shown.iter().map(|e| (e["event"].as_str(), e["data"]["properties"]["id"].as_str())).collect();
    assert_eq!(
        ids,
        [(Some("marker"), Some("t1")), (Some("marker"), Some("m1")), (Some("zone"), Some("z1"))],
        "{shown:?}"
    );
    assert_eq!(dev.run(["marker", "remove", "t1", "--url", url]).ok()["id"], "t1");
    eventually(SOON, "the marker is off the picture", || async {
        let shown = dev.run(["marker", "watch", "--snapshot", "--count", "1", "--kind", "marker", "--url", url]);
        shown.out.contains("m1").then_some(()).ok_or(shown.out)
    })
    .await;
    let refused = dev.run(["marker", "post", "Nowhere", "--at", "99999,0", "--url", url]);
    let error: Value = serde_json::from_str(&refused.err).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("coordinates"), "{error}");
}

fn submit_and_read(dev: &Dev) {
    let job = dev.run(["job", "submit", "echo", r#"{"hello":"world"}"#, "--label", "day=first", "--wait"]).ok();
    assert_eq!((job["state"].as_str(), &job["result"]), (Some("succeeded"), &json!({"hello": "world"})));
    let id = job["id"].as_str().unwrap();
    assert_eq!(dev.run(["job", "get", id]).ok()["id"], id);
    assert_eq!(dev.run(["job", "get", id, "--wait=10s"]).ok()["state"], "succeeded");
    let attempts = dev.run(["job", "attempts", id]).ok();
    assert_eq!(attempts["attempts"][0]["outcome"], "succeeded");
    let watched = dev.run(["job", "watch", id]);
    let last: Value = serde_json::from_str(watched.out.lines().last().unwrap()).unwrap();
    assert_eq!((watched.code, last["state"].as_str()), (0, Some("succeeded")));

    // Without --json only the result is on stdout.
    let mut plain = super::support::command();
    plain.env("AGENTFORGE_SERVER", dev.ready["services"]["orchestrator"]["grpc"].as_str().unwrap());
    let said = feed(plain.args(["job", "submit", "echo", "-", "--wait"]), r#"{"n": 12345678901234567890123}"#);
    assert_eq!((said.code, said.out.trim()), (0, r#"{"n": 12345678901234567890123}"#), "{}", said.err);

    // The same key and body is the same job; another body is a conflict.
    let keyed = |args: &str| dev.run(["job", "submit", "echo", args, "--idempotency-key", "k1"]);
    assert_eq!(keyed(r#"{"a":1}"#).ok()["id"], keyed(r#"{"a":1}"#).ok()["id"]);
    let conflict = keyed(r#"{"a":2}"#);
    let error: Value = serde_json::from_str(&conflict.err).unwrap();
    assert_eq!((conflict.code, error["error"]["code"].as_str()), (1, Some("conflict")), "{}", conflict.err);

    let later = dev.run(["job", "submit", "echo", "--run-at", "+1h"]).ok();
    let later = later["id"].as_str().unwrap();
    let waited = dev.run(["job", "get", later, "--wait=200ms"]);
    assert_eq!(waited.code, 1, "not final yet: {}", waited.err);
    assert_eq!(dev.run(["job", "cancel", later]).ok()["state"], "cancelled");
    assert_eq!(dev.run(["job", "get", later, "--wait"]).code, 3);
    assert_eq!(dev.run(["job", "cancel", "01890a5d-ac96-774b-bcce-b302099a8057"]).code, 1);
}

async fn failures_and_dead_letters(dev: &Dev) {
    let said = dev.run(["job", "submit", "fail", "--max-attempts", "1", "--wait"]);
    assert_eq!(said.code, 3, "{}{}", said.out, said.err);
    let id = said.json()["id"].as_str().unwrap().to_owned();
    let letter = eventually(SOON, "the dead letter is listed", || {
        let letters = dev.run(["dlq", "list"]).ok();
        let found = letters["dead_letters"].as_array().unwrap().iter().find(|d| d["job_id"] == id.as_str()).cloned();
        async move { found.ok_or(format!("{letters}")) }
    })
    .await;
    assert_eq!(letter["tool"], "fail");
    let redriven = dev.run(["dlq", "redrive", "--all", "--rate", "100"]).ok();
    assert_eq!(redriven["redriven"], 1, "{redriven}");
    let again = dev.run(["dlq", "redrive", &id]);
    assert!(again.code == 0 || again.code == 1, "{}", again.err);
}

fn schedules(dev: &Dev) {
    let args =
        ["schedule", "create", "nightly", "--cron", "30 2 * * *", "--tz", "Europe/Vienna", "echo", r#"{"night":true}"#];
    let made = dev.run(args).ok();
    assert_eq!((made["time_zone"].as_str(), &made["job"]["args"]), (Some("Europe/Vienna"), &json!({"night": true})));
    assert_eq!(dev.run(["schedule", "get", "nightly"]).ok()["id"], made["id"]);
    assert_eq!(dev.run(["schedule", "next", "nightly", "--limit", "3"]).ok()["runs"].as_array().unwrap().len(), 3);
    let args = ["schedule", "update", "nightly", "--overlap", "queue", "--catch-up", "all", "--deadline", "50m"];
    let changed = dev.run(args).ok();
    assert_eq!(
        (&changed["id"], &changed["overlap"], &changed["catch_up"]),
        (&made["id"], &json!("queue"), &json!("all"))
    );
    assert_eq!(
        (&changed["deadline_ms"], &changed["cron"], &changed["job"]),
        (&json!(3_000_000), &made["cron"], &made["job"])
    );
    let args =
        ["schedule", "update", "nightly", "--tool", "sleep", "--args", r#"{"seconds":0}"#, "--cron", "0 4 * * *"];
    let changed = dev.run(args).ok();
    assert_eq!((&changed["job"]["tool"], &changed["overlap"]), (&json!("sleep"), &json!("queue")));
    assert_ne!(changed["next_run_at"], made["next_run_at"]);
    let half = dev.run(["schedule", "update", "nightly", "--queue", "bulk"]);
    assert!(half.code == 1 && half.err.contains("--tool"), "{}", half.err);
    let run = dev.run(["schedule", "run", "nightly", "--idempotency-key", "once"]).ok();
    assert_eq!(dev.run(["schedule", "run", "nightly", "--idempotency-key", "once"]).ok()["job_id"], run["job_id"]);
    let job = dev.run(["job", "get", run["job_id"].as_str().unwrap()]).ok();
    assert_eq!((&job["schedule_id"], job["scheduled_at"].is_string()), (&made["id"], true), "{job}");
    assert_eq!(dev.run(["schedule", "pause", "nightly"]).ok()["paused"], true);
    assert_eq!(dev.run(["schedule", "resume", made["id"].as_str().unwrap()]).ok()["paused"], false);
    assert_eq!(dev.run(["schedule", "list"]).ok()["schedules"][0]["name"], "nightly");
    assert_eq!(dev.run(["schedule", "delete", "nightly"]).ok()["deleted"], made["id"]);
    let missing = dev.run(["schedule", "get", "nightly"]);
    assert!(missing.code == 1 && missing.err.contains("not_found"), "{}", missing.err);
    assert_eq!(dev.run(["schedule", "create", "bad", "--cron", "every day", "echo"]).code, 1);
}

/// More than one window, with lines that are refused here and by the server.
fn batch(dev: &Dev) {
    const GOOD: usize = 2_500;
    let mut lines: Vec<String> = (0..GOOD).map(|n| format!(r#"{{"args":{{"n":{n}}}}}"#)).collect();
    lines.insert(7, r#"{"args":{},"max_attempts":1000}"#.to_owned());
    lines.insert(3, r#"{"argz":{}}"#.to_owned());
    lines.push(String::new());
    let said =
        feed(dev.command().args(["job", "submit", "echo", "--batch", "-", "--label", "kind=batch"]), &lines.join("\n"));
    let summary = said.last();
    assert_eq!(
        (said.code, summary["accepted"].as_u64(), summary["refused"].as_u64()),
        (1, Some(GOOD as u64), Some(2)),
        "{summary}"
    );
    let refusals = summary["refusals"].as_array().unwrap();
    let by_line =
        |line: u64| refusals.iter().find(|r| r["line"] == line).unwrap_or_else(|| panic!("line {line} in {summary}"));
    assert_eq!(by_line(4)["code"], "invalid_line");
    assert_eq!(
        (by_line(9)["code"].as_str(), by_line(9)["field"].as_str()),
        (Some("invalid_argument"), Some("max_attempts"))
    );
    let all = dev.run(["job", "list", "--label", "kind=batch", "--all"]).ok();
    assert_eq!(all["jobs"].as_array().unwrap().len(), GOOD);
    assert!(all["next_cursor"].is_null());
    let some = dev.run(["job", "list", "--label", "kind=batch", "--limit", "5"]).ok();
    assert_eq!(some["jobs"].as_array().unwrap().len(), 5);
    assert!(some["next_cursor"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_hashes_every_file_and_says_so() {
    let Some(()) = require("nats-server") else { return };
    let home = tempdir();
    for n in 0..12 {
        std::fs::write(home.path().join(format!("file-{n}.txt")), "line\n".repeat(n)).unwrap();
    }
    let mut dev = Dev::start_with(&home, &["--json"], &[]).await;
    let demo = eventually(SOON, "the demo is done", || {
        let log = dev.process.full_log();
        let seen =
            log.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()).find_map(|l| l.get("demo").cloned());
        async move { seen.ok_or(log) }
    })
    .await;
    assert_eq!(
        (demo["files"].as_u64(), demo["failed"].as_u64(), demo["lines"].as_u64()),
        (Some(12), Some(0), Some(66)),
        "{demo}"
    );
    assert!(demo["p95_ms"].as_f64() >= demo["p50_ms"].as_f64());
    let jobs = dev.run(["job", "list", "--tool", "digest", "--state", "succeeded", "--all"]).ok();
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 12);
    assert_eq!(dev.process.sigterm(SOON).await, 0, "{}", dev.process.full_log());
}

fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions()) & 0o777
}

/// The files of our own in a data directory, each of which only its owner can read, as it is the directory's.
fn private_files(data: &Path) -> Vec<PathBuf> {
    assert_eq!(mode(data), 0o700);
    let (mut folders, mut found) = (vec![data.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().contains(".db")
                || path.extension().is_some_and(|e| e == "lock" || e == "jsonl")
            {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
                found.push(path);
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_taken_while_it_runs_brings_the_jobs_back() {
    let Some(()) = require("nats-server") else { return };
    let (home, other) = (tempdir(), tempdir());
    let mut dev = Dev::start(&home, &[]).await;
    let job = dev.run(["job", "submit", "echo", r#"{"kept":true}"#, "--wait"]).ok();
    let file = home.path().join("copy.db").to_string_lossy().into_owned();
    let data = home.path().join("data").to_string_lossy().into_owned();
    let saved = agentforge(["backup", "--to", &file, "--data-dir", &data, "--json"]).ok();
    assert!(saved["bytes"].as_u64().unwrap() > 0);
    let seen = private_files(&home.path().join("data"));
    for name in ["agentforge.db", "agentforge.db-wal", "agentforge.db.lock", "dev.lock"] {
        assert!(seen.iter().any(|path| path.ends_with(name)), "{name} is missing in {seen:?}");
    }
    assert_eq!(mode(file.as_ref()), 0o600, "the copy has all arguments and results in it");
    assert_eq!(dev.process.sigterm(SOON).await, 0);

    let target = other.path().join("data").to_string_lossy().into_owned();
    std::fs::create_dir_all(&target).unwrap();
    agentforge(["restore", "--from", &file, "--data-dir", &target, "--json"]).ok();
    let refused = agentforge(["restore", "--from", &file, "--data-dir", &target]);
    assert_eq!(refused.code, 1, "a database that exists is left alone: {}", refused.out);
    let restored = Dev::start(&other, &[]).await;
    let got = restored.run(["job", "get", job["id"].as_str().unwrap()]).ok();
    assert_eq!(got["result"], json!({"kept": true}));
}
