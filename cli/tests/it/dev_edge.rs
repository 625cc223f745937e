//! `agentforge dev --edge` as its user meets it: a site, a hub, and a link that is cut and restored.

use super::support::{Dev, SOON, Said, agentforge, gone, has_service_binaries, kill9, pid, read_json, runs};
use agentforge_harness::{eventually, require};
use async_nats::jetstream;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn home() -> TempDir {
    tempfile::Builder::new().prefix("agentforge-edge-").tempdir().unwrap()
}

fn data(home: &TempDir) -> PathBuf {
    home.path().join("data")
}

fn link(home: &TempDir, order: &str) -> Said {
    agentforge(["link", order, "--json", "--data-dir", &data(home).to_string_lossy()])
}

/// Hands a file in as one should, and gives its subject.
fn drop_file(home: &TempDir, name: &str, content: &str) -> String {
    let replay = data(home).join("replay");
    let hidden = replay.join(format!(".{name}"));
    std::fs::write(&hidden, content).unwrap();
    std::fs::rename(hidden, replay.join(name)).unwrap();
    format!("edge.evidence.site-a.{}", hex::encode(Sha256::digest(content)))
}

async fn hub(dev: &Dev) -> jetstream::Context {
    let url = dev.ready["hub"]["url"].as_str().unwrap();
    let client = eventually(SOON, "the hub's server listens", || async_nats::connect(url)).await;
    jetstream::new(client)
}

async fn arrives(hub: &jetstream::Context, subject: &str) {
    eventually(SOON, "the file is in the hub's stream", || async {
        let stream = hub.get_stream("edge_evidence").await.map_err(|e| e.to_string())?;
        stream.get_last_raw_message_by_subject(subject).await.map(drop).map_err(|e| e.to_string())
    })
    .await;
}

async fn removed(path: &Path) {
    eventually(SOON, "the file is removed", || async { !path.exists() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_cut_off_works_on_and_its_evidence_follows() {
    let Some(()) = require("nats-server") else { return };
    let home = home();
    let mut dev = Dev::start(&home, &["--edge"]).await;
    assert!(dev.ready["hub"]["url"] != dev.ready["nats"]["url"]);
    let hub = hub(&dev).await;
    arrives(&hub, &drop_file(&home, "before.txt", "before the cut")).await;

    let told = link(&home, "down").ok();
    assert_eq!((&told["up"], &told["connections"]), (&json!(false), &json!(0)));
    let later = drop_file(&home, "during.txt", "while the link is cut");
    let job = dev.run(["job", "submit", "echo", r#"{"cut":"off"}"#, "--wait"]).ok();
    assert_eq!((job["state"].as_str(), &job["result"]), (Some("succeeded"), &json!({"cut": "off"})));
    let mut stream = hub.get_stream("edge_evidence").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 1, "something crossed a link that is cut");
    assert!(data(&home).join("replay/during.txt").exists(), "removed without the hub's word");
    assert_eq!(link(&home, "status").ok()["up"], false);

    assert_eq!(link(&home, "up").ok()["up"], true);
    arrives(&hub, &later).await;
    removed(&data(&home).join("replay/during.txt")).await;
    assert_eq!(stream.info().await.unwrap().state.messages, 2);
    for stream in ["swarm_jobs", "swarm_results", "events"] {
        assert!(hub.get_stream(stream).await.is_err(), "{stream} of the site is known to the hub");
    }

    // Proof: the chain holds, and what it says is at the hub, asked there and asked through the leaf.
    let ledger = data(&home).join("ledger").to_string_lossy().into_owned();
    for asked in [
        &["--nats-url", dev.ready["hub"]["url"].as_str().unwrap()][..],
        &["--nats-url", dev.ready["nats"]["url"].as_str().unwrap(), "--domain", "hub", "--contents"],
    ] {
        let verified = agentforge(["ledger", "verify", &ledger].iter().chain(asked));
        assert_eq!(verified.code, 0, "{asked:?}: {}{}", verified.out, verified.err);
    }

    let servers = [dev.nats_pid(), pid(&dev.ready["hub"]["pid"])];
    assert_eq!(dev.process.sigterm(SOON).await, 0, "{}", dev.process.full_log());
    gone(&servers).await;
    let absent = link(&home, "status");
    assert!(absent.code == 1 && absent.err.contains("not_running"), "{}", absent.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_servers_come_back_where_they_were_and_evidence_goes_on() {
    let Some(()) = require("nats-server") else { return };
    if !has_service_binaries() {
        return;
    }
    let home = home();
    let mut dev = Dev::start(&home, &["--edge", "--processes"]).await;
    let victims = [dev.nats_pid(), pid(&dev.ready["hub"]["pid"]), pid(&dev.ready["services"]["syncdaemon"]["pid"])];
    assert!(victims.iter().all(|p| runs(*p)));
    victims.iter().for_each(|p| kill9(*p));
    let subject = drop_file(&home, "after.txt", "after all of them were killed");
    arrives(&hub(&dev).await, &subject).await;
    let now = read_json(&dev.ready_file).unwrap();
    assert_eq!((&now["nats"]["url"], &now["hub"]["url"]), (&dev.ready["nats"]["url"], &dev.ready["hub"]["url"]));
    assert_eq!(dev.process.sigterm(SOON).await, 0, "{}", dev.process.full_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_that_its_files_are_at_the_hub() {
    let Some(()) = require("nats-server") else { return };
    let home = home();
    let mut dev = Dev::start_with(&home, &["--json", "--edge", "--site", "pier-7"], &[]).await;
    let demo = eventually(SOON, "the demo is done", || {
        let log = dev.process.full_log();
        let told = log.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
        let seen = told.into_iter().find_map(|l| l.get("edge_demo").cloned());
        async move { seen.ok_or(log) }
    })
    .await;
    assert_eq!((demo["files"].as_u64(), demo["replay_queue_depth"].as_u64()), (Some(5), Some(0)), "{demo}");
    let mut stream = hub(&dev).await.get_stream("edge_evidence").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 5);
    stream.get_last_raw_message_by_subject("edge.evidence.pier-7.>").await.unwrap();
    assert_eq!(dev.process.sigterm(SOON).await, 0, "{}", dev.process.full_log());
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    for wrong in [
        &["dev", "--edge", "--nats-url", "nats://127.0.0.1:1"][..],
        &["dev", "--site", "pier-7"],
        &["dev", "--edge", "--site", "hub"],
        &["dev", "--edge", "--site", "a.b"],
        &["link"],
        &["link", "sideways"],
    ] {
        let said = agentforge(wrong);
        assert_eq!(said.code, 2, "{wrong:?}: {}", said.err);
    }
}
