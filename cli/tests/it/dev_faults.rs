//! `agentforge dev` under attack: killed, robbed of its children, started twice.

use super::support::{BINARY, Dev, SOON, gone, has_service_binaries, kill9, pid, read_json, runs};
use agentforge_harness::{NatsOptions, NatsServer, Proc, Signal, eventually, require};
use serde_json::Value;
use std::net::TcpListener;

fn tempdir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("agentforge-dev-").tempdir().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_leaves_no_process_behind() {
    let Some(()) = require("nats-server") else { return };
    let home = tempdir();
    let mut dev = Dev::start(&home, &[]).await;
    let nats = dev.nats_pid();
    assert!(runs(nats));
    dev.process.kill9();
    gone(&[nats]).await;
    // The data directory is free again, and what was in it is taken up.
    let mut again = Dev::start(&home, &[]).await;
    assert_eq!(again.process.sigterm(SOON).await, 0, "{}", again.process.full_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn as_processes_each_comes_back_and_all_go_with_it() {
    let Some(()) = require("nats-server") else { return };
    if !has_service_binaries() {
        return;
    }
    let home = tempdir();
    let mut dev = Dev::start(&home, &["--processes"]).await;
    let pids = |ready: &Value| {
        [&ready["nats"]["pid"], &ready["services"]["orchestrator"]["pid"], &ready["services"]["worker"]["pid"]]
            .map(Value::as_u64)
    };
    let first = pids(&dev.ready);
    let unique: std::collections::BTreeSet<_> = first.iter().flatten().collect();
    assert_eq!(unique.len(), 3, "{first:?}");
    for victim in first.iter().flatten() {
        kill9(u32::try_from(*victim).unwrap());
    }
    let fresh = eventually(SOON, "all three run under other process ids", || {
        let seen = read_json(&dev.ready_file);
        async move {
            let seen = seen?;
            let now = pids(&seen);
            let all_new = now.iter().all(|pid| pid.is_some() && !first.contains(pid));
            if all_new { Ok(seen) } else { Err(format!("{now:?}")) }
        }
    })
    .await;
    for service in ["orchestrator", "worker"] {
        assert_eq!(
            fresh["services"][service]["http"], dev.ready["services"][service]["http"],
            "callers find it where it was"
        );
    }
    assert_eq!(fresh["nats"]["url"], dev.ready["nats"]["url"]);
    let answered = eventually(SOON, "a job runs again", || {
        let said = dev.run(["job", "submit", "echo", "--wait=20s"]);
        async move { if said.code == 0 { Ok(said) } else { Err(said.err) } }
    })
    .await;
    assert_eq!(answered.json()["state"], "succeeded");

    let left: Vec<u32> = pids(&fresh).iter().flatten().map(|p| u32::try_from(*p).unwrap()).collect();
    dev.process.kill9();
    gone(&left).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_processes_ctrl_c_drains_all_with_exit_code_0() {
    let Some(()) = require("nats-server") else { return };
    if !has_service_binaries() {
        return;
    }
    let home = tempdir();
    let mut dev = Dev::start(&home, &["--processes"]).await;
    let job = dev.run(["job", "submit", "echo", "--wait"]).ok();
    assert_eq!(job["state"], "succeeded");
    let all: Vec<u32> = ["orchestrator", "worker"]
        .iter()
        .map(|s| pid(&dev.ready["services"][*s]["pid"]))
        .chain([dev.nats_pid()])
        .collect();
    dev.process.signal(Signal::INT);
    assert_eq!(dev.process.wait(SOON).await, 0, "{}", dev.process.full_log());
    assert!(all.iter().all(|pid| !runs(*pid)), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_comes_back_on_its_port_and_jobs_go_on() {
    let Some(()) = require("nats-server") else { return };
    let home = tempdir();
    let mut dev = Dev::start(&home, &[]).await;
    let killed = dev.nats_pid();
    kill9(killed);
    let said = dev.run(["job", "submit", "echo", r#"{"n":1}"#, "--wait=60s"]);
    assert_eq!(said.ok()["state"], "succeeded");
    let now = read_json(&dev.ready_file).unwrap();
    assert_eq!(now["nats"]["url"], dev.ready["nats"]["url"]);
    assert_ne!(pid(&now["nats"]["pid"]), killed);
    assert_eq!(dev.process.sigterm(SOON).await, 0, "{}", dev.process.full_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_exists_is_used_and_left_alone() {
    let Some(()) = require("nats-server") else { return };
    let nats = NatsServer::start(NatsOptions::default()).await;
    let home = tempdir();
    let mut dev = Dev::start(&home, &["--nats-url", &nats.url()]).await;
    assert_eq!(dev.ready["nats"]["url"], nats.url());
    assert!(dev.ready["nats"]["pid"].is_null());
    assert_eq!(dev.run(["job", "submit", "echo", "--wait"]).ok()["state"], "succeeded");
    assert_eq!(dev.process.sigterm(SOON).await, 0, "{}", dev.process.full_log());
    assert!(runs(nats.pid().unwrap()), "it is not ours to stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_one_on_the_same_data_is_told_whose_it_is() {
    let Some(()) = require("nats-server") else { return };
    let home = tempdir();
    let dev = Dev::start(&home, &[]).await;
    let data = home.path().join("data").to_string_lossy().into_owned();
    let mut second = Proc::builder(BINARY).args(["dev", "--port-base", "0", "--data-dir", &data]).start();
    assert_eq!(second.wait(SOON).await, 1);
    assert!(second.full_log().contains("in use by another `agentforge dev`"), "{}", second.full_log());
    assert!(runs(dev.nats_pid()), "the first one is not disturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_before_anything_starts() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    // The gRPC port is the fourth.
    let base = (port - 3).to_string();
    let home = tempdir();
    let data = home.path().join("data").to_string_lossy().into_owned();
    let mut dev = Proc::builder(BINARY).args(["dev", "--no-demo", "--port-base", &base, "--data-dir", &data]).start();
    assert_eq!(dev.wait(SOON).await, 1, "{}", dev.full_log());
    let log = dev.full_log();
    assert!(log.contains(&format!("{port} (orchestrator gRPC)")) && log.contains("--port-base 0"), "{log}");
    assert!(!home.path().join("data/nats/nats-server.conf").exists(), "NATS was not started");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_none_is_refused_with_a_hint() {
    let home = tempdir();
    let data = home.path().join("data").to_string_lossy().into_owned();
    let mut dev = Proc::builder(BINARY)
        .args(["dev", "--no-demo", "--port-base", "0", "--data-dir", &data])
        .env("AGENTFORGE_NATS_SERVER", "/bin/true")
        .start();
    assert_eq!(dev.wait(SOON).await, 1);
    let log = dev.full_log();
    assert!(log.contains("AGENTFORGE_NATS_SERVER=/bin/true") && log.contains("hint:"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_name_is_used_and_one_that_does_nothing_is_named_with_its_log() {
    use std::os::unix::fs::PermissionsExt;
    let Some(()) = require("nats-server") else { return };
    let home = tempdir();
    let other = home.path().join("nats-server-9.9.9");
    std::os::unix::fs::symlink(agentforge_harness::program("nats-server").unwrap(), &other).unwrap();
    let named = [("AGENTFORGE_NATS_SERVER", other.to_str().unwrap())];
    let mut dev = Dev::start_with(&home, &["--no-demo"], &named).await;
    assert_eq!(dev.run(["job", "submit", "echo", "--wait"]).ok()["state"], "succeeded");
    assert_eq!(dev.process.sigterm(SOON).await, 0, "{}", dev.process.full_log());

    // It prints a version, then some text, and never listens.
    let idle = home.path().join("idle-server");
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && echo 'nats-server: v2.15.1' && exit\necho waiting for the moon\nexec sleep 600\n";
    std::fs::write(&idle, script).unwrap();
    std::fs::set_permissions(&idle, std::fs::Permissions::from_mode(0o755)).unwrap();
    let data = home.path().join("idle").to_string_lossy().into_owned();
    let began = std::time::Instant::now();
    let idle = Proc::builder(BINARY)
        .args(["dev", "--no-demo", "--port-base", "0", "--data-dir", &data])
        .env("AGENTFORGE_NATS_SERVER", idle.to_string_lossy())
        .start();
    eventually(SOON, "the part is named with the last line of its log", || {
        let log = idle.full_log();
        async move {
            let told = log.contains("nats-server is not ready after 10 s") && log.contains("waiting for the moon");
            if told { Ok(()) } else { Err(log) }
        }
    })
    .await;
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());
}
