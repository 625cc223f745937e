//! Ready means able: probes are answered from the first moment, and readiness is about writes.

use crate::api::Api;
use crate::stack::{Options, Stack};
use agentforge_harness::{
    NatsOptions, NatsServer, Proc, Right, cargo_bin, eventually, free_port, require, require_right,
};
use agentforge_stack::roster::SERVICES;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);

/// The body of /readyz, with its status.
async fn readyz(base: &str) -> Result<(u16, Value), String> {
    let answer = reqwest::get(format!("{base}/readyz")).await.map_err(|e| e.to_string())?;
    let status = answer.status().as_u16();
    Ok((status, answer.json().await.map_err(|e| e.to_string())?))
}

async fn is_live(base: &str) -> bool {
    reqwest::get(format!("{base}/healthz")).await.is_ok_and(|a| a.status() == 200)
}

/// Waits for a status of /readyz with `parts` in the detail of a check.
async fn readiness(base: &str, status: u16, check: &str, parts: &[&str]) -> String {
    eventually(SOON, &format!("/readyz is {status} and {check} tells {parts:?}"), || async {
        let (code, body) = readyz(base).await?;
        let detail = body["checks"][check]["detail"].as_str().unwrap_or_default().to_owned();
        if code == status && parts.iter().all(|p| detail.contains(p)) {
            Ok(detail)
        } else {
            Err(format!("{code} {body}"))
        }
    })
    .await
}

fn orchestrator(dir: &TempDir, settings: &[(&str, &str)]) -> Proc {
    Proc::builder(cargo_bin("agentforge-orchestrator"))
        .envs([("ENV", "dev"), ("METRICS_PORT", "0"), ("HTTP_PORT", "0"), ("GRPC_PORT", "0"), ("LOG_FORMAT", "text")])
        .env("DATA_DIR", dir.path().display().to_string())
        .envs(settings.iter().copied())
        .start()
}

async fn base(p: &mut Proc, service: &str) -> String {
    p.ready(SOON).await[service]["http"].as_str().unwrap().trim_end_matches('/').to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_while_the_database_is_away_and_callers_are_told() {
    let _ = agentforge_runtime::Process::for_tests();
    let dir = TempDir::new().unwrap();
    let url = format!("postgres://u:secret@127.0.0.1:{}/jobs", free_port());
    let mut p = orchestrator(&dir, &[("DATABASE_URL", &url), ("NATS_URL", "nats://127.0.0.1:1")]);
    let base = base(&mut p, "orchestrator").await;
    eventually(Duration::from_secs(60), "live from the first moment", || is_live(&base)).await;
    let detail = readiness(&base, 503, "database", &["postgres 127.0.0.1:", "DATABASE_URL", "onnection refused"]).await;
    assert!(!detail.contains("secret"), "{detail}");
    let api = Api::new(&base);
    let refused = api.post("/v1/jobs", &json!({"tool": "echo", "args": {}})).await.unwrap();
    assert_eq!(
        (refused.status.as_u16(), refused.body["code"].as_str()),
        (503, Some("unavailable")),
        "{:?}",
        refused.body
    );
    assert!(refused.retry_after.is_some());
    assert!(refused.body["detail"].as_str().unwrap().contains("not open yet"), "{:?}", refused.body);
    assert_eq!(api.get("/v1/jobs").await.unwrap().status, 503);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(p.full_log().matches("database unavailable; waiting").count(), 1, "told once, not at each try");
    assert_eq!(p.sigterm(SOON).await, 0);
}

/// Every service: nothing that it needs is available, and the probes are answered nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_service_is_live_and_says_what_it_waits_for_while_nats_is_away() {
    let _ = agentforge_runtime::Process::for_tests();
    let dir = TempDir::new().unwrap();
    let nats = format!("nats://127.0.0.1:{}", free_port());
    let queue = dir.path().join("queue");
    std::fs::create_dir(&queue).unwrap();
    let (queue, ledger) = (queue.display().to_string(), dir.path().join("ledger").display().to_string());
    let data = dir.path().display().to_string();
    for service in SERVICES.iter().map(|service| service.name) {
        let mut p = Proc::builder(cargo_bin(&format!("agentforge-{service}")))
            .envs([
                ("ENV", "dev"),
                ("METRICS_PORT", "0"),
                ("HTTP_PORT", "0"),
                ("GRPC_PORT", "0"),
                ("NATS_URL", nats.as_str()),
            ])
            .envs([
                ("DATA_DIR", data.as_str()),
                ("SYNC_QUEUE_DIR", queue.as_str()),
                ("SYNC_LEDGER_DIR", ledger.as_str()),
            ])
            .start();
        let ready = p.ready(SOON).await;
        let listens = &ready[service];
        let base =
            listens["http"].as_str().or(listens["metrics"].as_str()).unwrap_or_else(|| panic!("{service}: {ready}"));
        let base = base.trim_end_matches('/').trim_end_matches("/metrics").to_owned();
        eventually(Duration::from_secs(15), &format!("{service} is live"), || is_live(&base)).await;
        let (_, body) = readyz(&base).await.unwrap();
        assert_eq!(body["service"], service, "{body}");
        if ["orchestrator", "worker"].contains(&service) {
            readiness(&base, if service == "worker" { 503 } else { 200 }, "nats", &[&nats, "NATS_URL"]).await;
            assert!(p.full_log().contains("no connection to NATS"), "{}", p.full_log());
        }
        assert_eq!(p.sigterm(SOON).await, 0, "{service}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_nats_refuses_are_told_with_the_settings_and_shut_readiness() {
    let Some(()) = require("nats-server") else { return };
    let _ = agentforge_runtime::Process::for_tests();
    let nats = NatsServer::start(NatsOptions::default().extra("authorization { user: right, password: right }")).await;
    let dir = TempDir::new().unwrap();
    let url = nats.url();
    let settings = [("NATS_URL", url.as_str()), ("NATS_USER", "wrong"), ("NATS_PASSWORD", "wrong")];
    let mut p = orchestrator(&dir, &settings);
    let base = base(&mut p, "orchestrator").await;
    let parts = ["authorization violation", "NATS_USER", &url];
    readiness(&base, 503, "streams", &parts).await;
    readiness(&base, 503, "nats", &parts).await;
    assert!(p.full_log().contains("refuses the credentials"), "{}", p.full_log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_jetstream_shuts_readiness_and_says_so() {
    let Some(()) = require("nats-server") else { return };
    let _ = agentforge_runtime::Process::for_tests();
    let nats = NatsServer::start(NatsOptions { without_jetstream: true, ..NatsOptions::default() }).await;
    let dir = TempDir::new().unwrap();
    let url = nats.url();
    let mut p = orchestrator(&dir, &[("NATS_URL", url.as_str())]);
    let base = base(&mut p, "orchestrator").await;
    readiness(&base, 503, "streams", &["JetStream", "it is off at this server"]).await;
}

/// A disk that is full still answers reads. In a mount namespace of its own, with a file system of 6 MiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_shuts_readiness_and_room_opens_it_again() {
    let Some(()) = require_right(Right::Mount) else { return };
    let _ = agentforge_runtime::Process::for_tests();
    let dir = TempDir::new().unwrap();
    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = "mount -t tmpfs -o size=6m tmpfs \"$1\" && exec \"$2\"";
    let mut p = Proc::builder("unshare")
        .args(["-rm", "sh", "-c", mount, "sh"])
        .args([disk.display().to_string(), cargo_bin("agentforge-orchestrator").display().to_string()])
        .envs([
            ("ENV", "dev"),
            ("METRICS_PORT", "0"),
            ("HTTP_PORT", "0"),
            ("GRPC_PORT", "0"),
            ("NATS_URL", "nats://127.0.0.1:1"),
        ])
        .env("DATA_DIR", disk.display().to_string())
        .start();
    let base = base(&mut p, "orchestrator").await;
    readiness(&base, 200, "database", &["sqlite"]).await;
    let api = Api::new(&base);
    let kept = api.job("echo", json!({"kept": true})).await;

    // Its file system, seen from outside of its namespace.
    let filler = format!("/proc/{}/root{}/filler", p.pid(), disk.display());
    let _ = std::process::Command::new("dd")
        .args(["if=/dev/zero", &format!("of={filler}"), "bs=64k"])
        .stderr(std::process::Stdio::null())
        .status();
    let body = json!({"tool": "echo", "args": {"large": "x".repeat(200_000)}});
    eventually(SOON, "a submission is refused", || async {
        let answer = api.post("/v1/jobs", &body).await.map_err(|e| e.to_string())?;
        let detail = answer.body["detail"].as_str().unwrap_or_default().to_owned();
        if answer.status == 503 && detail.contains("disk is full") { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    readiness(&base, 503, "database", &["full", "DATABASE_URL"]).await;
    assert!(is_live(&base).await);
    assert!(p.full_log().contains("ERROR"), "{}", p.full_log());
    std::fs::remove_file(&filler).unwrap();
    readiness(&base, 200, "database", &["sqlite"]).await;
    assert_eq!(api.read(&kept).await["state"], "accepted");
    assert_eq!(api.post("/v1/jobs", &body).await.unwrap().status, 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_file_that_is_removed_or_replaced_ends_acknowledgements() {
    let _ = agentforge_runtime::Process::for_tests();
    let aside = |file: &Path| file.with_extension("aside");
    for replaced in [false, true] {
        let dir = TempDir::new().unwrap();
        let mut p = orchestrator(&dir, &[("NATS_URL", "nats://127.0.0.1:1")]);
        let base = base(&mut p, "orchestrator").await;
        let file = dir.path().join("agentforge.db");
        readiness(&base, 200, "database", &[&file.display().to_string()]).await;
        let api = Api::new(&base);
        let kept = api.job("echo", json!({})).await;
        std::fs::rename(&file, aside(&file)).unwrap();
        if replaced {
            std::fs::copy(aside(&file), &file).unwrap();
        }
        let path = file.display().to_string();
        let parts = [path.as_str(), "removed or replaced", "agentforge restore"];
        eventually(Duration::from_secs(60), "nothing is acknowledged any more", || async {
            let answer = api.post("/v1/jobs", &json!({"tool": "echo", "args": {}})).await.map_err(|e| e.to_string())?;
            if answer.status == 503 { Ok(()) } else { Err(answer.status.to_string()) }
        })
        .await;
        readiness(&base, 503, "database", &parts).await;
        assert!(p.full_log().contains("ERROR"), "{}", p.full_log());
        // The very file put back is the database again, from the next start on.
        std::fs::rename(aside(&file), &file).unwrap();
        readiness(&base, 503, "database", &parts).await;
        p.kill9();
        let mut again = orchestrator(&dir, &[("NATS_URL", "nats://127.0.0.1:1")]);
        let ready = again.ready(SOON).await;
        let api = Api::new(ready["orchestrator"]["http"].as_str().unwrap());
        assert_eq!(api.read(&kept).await["state"], "accepted");
        api.job("echo", json!({})).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_and_another_missions_database_end_the_start_with_what_to_do() {
    let _ = agentforge_runtime::Process::for_tests();
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("agentforge.db"), b"this is no database, and longer than a header ".repeat(400))
        .unwrap();
    let mut p = orchestrator(&dir, &[("NATS_URL", "nats://127.0.0.1:1")]);
    assert_eq!(p.wait(SOON).await, 1);
    for part in ["agentforge.db", "damaged or not a SQLite database", "agentforge restore"] {
        assert!(p.full_log().contains(part), "{part} missing in: {}", p.full_log());
    }

    let dir = TempDir::new().unwrap();
    let mut first = orchestrator(&dir, &[("NATS_URL", "nats://127.0.0.1:1"), ("MISSION", "prod")]);
    let base = base(&mut first, "orchestrator").await;
    readiness(&base, 200, "database", &["sqlite"]).await;
    assert_eq!(first.sigterm(SOON).await, 0);
    let mut second = orchestrator(&dir, &[("NATS_URL", "nats://127.0.0.1:1"), ("MISSION", "staging")]);
    assert_eq!(second.wait(SOON).await, 1);
    for part in ["mission prod", "MISSION is staging", "Set MISSION=prod", "DATABASE_URL"] {
        assert!(second.full_log().contains(part), "{part} missing in: {}", second.full_log());
    }
}

/// Jobs continue throughout: the same stack answers before and after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_is_ready_with_its_streams_as_planned() {
    let Some(()) = require("nats-server") else { return };
    let stack = Stack::start(Options::new()).await;
    let id = stack.api().job("echo", json!({"n": 1})).await;
    assert_eq!(stack.api().finished(&id).await["state"], "succeeded");
    let body = eventually(SOON, "ready", || async {
        let answer = stack.api().get("/readyz").await.map_err(|e| e.to_string())?;
        if answer.status == 200 { Ok(answer.body) } else { Err(answer.body.to_string()) }
    })
    .await;
    assert_eq!(body["checks"]["streams"]["detail"], "as planned", "{body}");
}
