//! A key is changed under load, as docs/howto/rotate-nats-keys.md says: no call is refused, and the old key is.

use super::{Server, WAIT, is_ready, service};
use crate::manifests::{list, overlay, root, secrets};
use agentforge_harness::{Signal, eventually, http_get, http_post_with, require};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Runs the command of the page that makes the next key.
fn make_next_key(identity: &str, folder: &Path) {
    let page = std::fs::read_to_string(root().join("docs/howto/rotate-nats-keys.md")).unwrap();
    let line = page.lines().find(|line| line.starts_with("scripts/make-secrets")).expect("the page has the command");
    let mut command = Command::new("bash");
    command.args(["-euc", line]).current_dir(root());
    let out = command.env("NAMESPACE", "agentforge").env("IDENTITY", identity).env("FOLDER", folder).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// The public keys that are connected now, with the names of their clients.
async fn connected(nats: &Server) -> Vec<(String, String)> {
    let page = nats.get("/connz?auth=1").await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    list(&page["connections"]).iter().map(|c| (text(&c["name"]), text(&c["authorized_user"]))).collect()
}

async fn reload(nats: &mut Server, times: usize) {
    nats.proc.as_mut().unwrap().signal(Signal::HUP);
    eventually(WAIT, "the server has reloaded its configuration", || {
        let done = nats.log().matches("Reloaded server configuration").count();
        async move { (done >= times).then_some(()) }
    })
    .await;
}

#[tokio::test]
async fn a_key_is_changed_under_load() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let objects = overlay("feature");
    let mut nats = Server::new(&objects, "nats-0", &[]);
    nats.start().await;
    let dir = tempfile::tempdir().unwrap();
    let sqlite = [("DATABASE_URL", "sqlite://test.db"), ("POSTGRES_USER", ""), ("POSTGRES_PASSWORD", "")];
    let mut topology = service(&objects, "topology", &nats, &dir, &[]);
    let mut orchestrator = service(&objects, "orchestrator", &nats, &dir, &sqlite);
    let mut worker = service(&objects, "worker", &nats, &dir, &[]);
    is_ready(&mut topology, "topology").await;
    let api = is_ready(&mut orchestrator, "orchestrator").await;
    is_ready(&mut worker, "worker").await;

    // Jobs all the while: each is accepted, and each succeeds.
    let token = secrets()["orchestrator-secret"]["API_TOKENS"].split([':', ',']).nth(2).unwrap().to_owned();
    let (stop, accepted) = (AtomicBool::new(false), AtomicU64::new(0));
    let load = async {
        let (bearer, mut refused, mut ids) = (format!("Authorization: Bearer {token}"), Vec::new(), Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let job = json!({"tool": "echo", "args": {"n": ids.len()}}).to_string();
            match http_post_with(&format!("{api}/v1/jobs"), &[&bearer], &job).await {
                Ok((status, body)) if status < 300 => {
                    ids.push(serde_json::from_slice::<Value>(&body).unwrap()["id"].as_str().unwrap().to_owned());
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
                other => refused.push(format!("{other:?}")),
            }
            // Some hundred a second at most.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for id in &ids {
            eventually(WAIT, &format!("job {id} succeeds"), || async {
                let (_, body) = http_get(&format!("{api}/v1/jobs/{id}?wait=5s"), &[&bearer]).await.ok()?;
                (serde_json::from_slice::<Value>(&body).ok()?["state"] == "succeeded").then_some(())
            })
            .await;
        }
        refused
    };
    let change = async {
        let mut reloads = 0;
        for (identity, client) in [("worker", "worker "), ("orchestrator", "agentforge-orchestrator")] {
            let folder = tempfile::tempdir().unwrap();
            let keys = nats.dir.path().join("etc/nats-keys/keys.conf");
            std::fs::copy(&keys, folder.path().join("keys.conf")).unwrap();
            make_next_key(identity, folder.path());
            let of = |connections: &[(String, String)]| -> Vec<String> {
                connections.iter().filter(|(name, _)| name.starts_with(client)).map(|(_, key)| key.clone()).collect()
            };
            let before = of(&connected(&nats).await);
            assert_eq!(before.len(), 1, "{identity}");
            let now = accepted.load(Ordering::Relaxed);
            std::fs::copy(folder.path().join("1-keys.conf"), &keys).unwrap();
            reloads += 1;
            reload(&mut nats, reloads).await;
            assert_eq!(of(&connected(&nats).await), before, "a new key ends no connection");
            let seed = std::fs::read_to_string(folder.path().join("2-seed")).unwrap();
            std::fs::write(dir.path().join(identity).join("nats-seed"), &seed).unwrap();
            std::fs::copy(folder.path().join("3-keys.conf"), &keys).unwrap();
            reloads += 1;
            reload(&mut nats, reloads).await;
            eventually(WAIT, &format!("{identity} is connected with its new key"), || async {
                let keys = of(&connected(&nats).await);
                (keys.len() == 1 && keys != before).then_some(())
            })
            .await;
            eventually(WAIT, "jobs go on", || {
                let more = accepted.load(Ordering::Relaxed) >= now + 20;
                async move { more.then_some(()) }
            })
            .await;
            let old = async_nats::ConnectOptions::with_nkey(secrets()["nats-seeds"][identity].clone());
            assert!(old.connect(nats.url()).await.is_err(), "{identity}: the old key is refused");
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (refused, ()) = tokio::join!(load, change);
    assert!(refused.is_empty(), "{} of {} calls: {refused:?}", refused.len(), accepted.into_inner());
    tokio::time::timeout(Duration::from_secs(60), async {
        for proc in [&mut worker, &mut orchestrator, &mut topology] {
            assert_eq!(proc.sigterm(WAIT).await, 0);
        }
    })
    .await
    .unwrap();
}
