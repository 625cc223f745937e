//! `agentforge webhook` against the broadcaster of `agentforge dev`: an endpoint from its making to its end.

use super::support::{Dev, SOON, Said, agentforge, extras_but, feed};
use agentforge_harness::{eventually, require};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Answers every request with 200 and remembers its `webhook-id`.
async fn receiver() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let ids = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = vec![0; 64 << 10];
            let n = socket.read(&mut head).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&head[..n]).into_owned();
            if let Some(id) = text.lines().find_map(|line| line.strip_prefix("webhook-id: ")) {
                ids.lock().unwrap().push(id.to_owned());
            }
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    (url, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_made_watched_replayed_rotated_and_deleted_by_commands() {
    let Some(()) = require("nats-server") else { return };
    let home = tempfile::Builder::new().prefix("agentforge-webhook-").tempdir().unwrap();
    let dev = Dev::start(&home, &["--without", &extras_but(&["broadcaster"])]).await;
    let at = dev.ready["services"]["broadcaster"]["http"].as_str().unwrap().to_owned();
    let run =
        |args: &[&str]| -> Said { dev.run(["webhook"].iter().chain(args).copied().chain(["--url", at.as_str()])) };
    let (url, seen) = receiver().await;

    // The URL comes from standard input, where other users cannot see it.
    let mut command = dev.command();
    command.args(["webhook", "create", "mine", "-", "--subject", "agentforge.events.job.*.succeeded", "--url", &at]);
    let made = feed(&mut command, &format!("{url}\n"));
    let secret = made.ok()["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_"));
    let again = run(&["create", "mine", &url]);
    assert!(again.code != 0 && again.err.contains("already"), "{}", again.err);
    let shown = eventually(SOON, "it delivers", || async {
        let shown = run(&["show", "mine"]);
        Some(shown.out.clone()).filter(|text| text.contains("\"active\"")).ok_or(shown.out + &shown.err)
    })
    .await;
    assert!(shown.contains("\"api\"") && !shown.contains(&secret) && !shown.contains("/hook"), "{shown}");

    let job = dev.run(["job", "submit", "echo", "{}", "--wait"]).ok()["id"].as_str().unwrap().to_owned();
    let id = eventually(SOON, "the event arrives", || async { seen.lock().unwrap().first().cloned() }).await;
    assert!(id.contains(&job), "{id} is of job {job}");
    let found = eventually(SOON, "the delivery is found by its id", || async {
        let said = run(&["deliveries", "--id", &id, "--endpoint", "mine", "--since", "1h"]);
        let lines: Vec<Value> = said.out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if lines.len() == 1 { Ok(lines) } else { Err(said.out + &said.err) }
    })
    .await;
    assert_eq!((&found[0]["outcome"], &found[0]["webhook_id"]), (&json!("delivered"), &json!(id)));
    assert_eq!(run(&["deliveries", "--outcome", "dead"]).out, "");

    // Counted, not sent without a word, sent.
    assert_eq!(run(&["replay", "mine", "--since", "1h", "--dry-run"]).ok()["matched"], 1);
    let unasked = run(&["replay", "mine", "--since", "1h"]);
    assert!(unasked.code != 0 && unasked.err.contains("--yes"), "{}", unasked.err);
    assert_eq!(run(&["replay", "mine", "--id", &id, "--yes"]).ok()["replayed"], 1);
    eventually(SOON, "it arrives again", || async { *seen.lock().unwrap() == [id.clone(), id.clone()] }).await;

    assert_eq!(run(&["pause", "mine"]).ok()["paused"], true);
    let list = run(&["list"]).ok();
    let mine = list["endpoints"].as_array().unwrap().iter().find(|e| e["name"] == "mine").unwrap().clone();
    assert_eq!(mine["state"], "paused");
    assert_eq!(run(&["resume", "mine"]).ok()["paused"], false);
    let next = run(&["rotate", "mine", "--overlap", "1h"]).ok();
    assert!(next["secret"].as_str().is_some_and(|next| next != secret));
    let refused = run(&["delete", "default", "--yes"]);
    assert!(refused.code != 0 && refused.err.contains("change it there"), "{}", refused.err);
    assert!(run(&["delete", "mine"]).code != 0, "nobody was asked");
    assert_eq!(run(&["delete", "mine", "--yes"]).ok()["deleted"], true);
    let made = agentforge(["webhook", "secret"]);
    assert!(made.code == 0 && made.out.starts_with("whsec_"), "{}", made.err);
}
