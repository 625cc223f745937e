//! The notice of changed alerts: to an endpoint, and to the stream from which the broadcaster delivers.

use super::support::{run, said};
use agentforge_harness::{NatsOptions, NatsServer, require};
use async_nats::jetstream::{self, stream::Config};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    thread,
};

fn taxonomies() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let entry = |alert: &str, severity: &str| {
        json!({
            "id": alert, "alert": alert, "group": "g", "severity": severity, "description": "It is down.",
            "scope": "service", "category": "availability", "expr_summary": "up == 0", "for": "5m", "windows": [],
            "runbook": "https://example.com/r", "created_at": "2026-01-01T00:00:00Z"
        })
    };
    let write = |name: &str, alerts: Value| {
        let taxonomy = json!({ "schema_version": 1, "last_updated": "2026-01-01T00:00:00Z", "alerts": alerts });
        fs::write(home.path().join(name), taxonomy.to_string()).unwrap();
    };
    write("prev.json", json!([entry("A", "warning"), entry("Old", "info")]));
    write("curr.json", json!([entry("A", "critical"), entry("<New>", "critical")]));
    home
}

const DRIFT: [&str; 6] = ["alerts", "drift", "--prev", "prev.json", "--curr", "curr.json"];

/// Answers one request with a status, and gives its body.
fn endpoint(status: &'static str) -> (String, thread::JoinHandle<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/in/secret?token=hush", listener.local_addr().unwrap());
    let served = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let mut stream = reader.into_inner();
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        serde_json::from_slice(&body).unwrap()
    });
    (url, served)
}

#[test]
fn an_endpoint_gets_plain_text_or_blocks_of_slack() {
    let home = taxonomies();
    let send = |blocks: &str| {
        let (url, served) = endpoint("200 OK");
        let mut drift = super::support::command(home.path());
        drift.args(DRIFT).args(["--webhook", &url]).env("TAXONOMY_SLACK_BLOCKS", blocks);
        let said = said(drift.output().unwrap());
        assert_eq!(said.code, 0, "{}", said.err);
        served.join().unwrap()
    };
    let plain = send("0");
    let text = "Alerts changed: 1 added, 1 removed, 1 of another severity, 1 modified; risk churn 6\n\
                Added: <New> (critical)\nRemoved: Old (info)\nSeverity: A: warning → critical\nModified: A";
    assert_eq!(plain, json!({ "text": text }));
    let blocks = send("1");
    assert_eq!(blocks["text"], text.lines().next().unwrap(), "the text alone says it in short");
    let sections: Vec<_> = blocks["blocks"].as_array().unwrap().iter().map(|b| &b["text"]["text"]).collect();
    assert_eq!(sections[2], "*Added*\n• &lt;New&gt; (critical)");
    assert_eq!(sections[4], "*Severity*\n• A: warning → critical");
}

#[test]
fn a_refusal_fails_without_the_url_and_no_change_is_not_sent() {
    let home = taxonomies();
    let (url, served) = endpoint("500 Internal Server Error");
    let refused = run(home.path(), &[&DRIFT[..], &["--webhook", &url]].concat());
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("127.0.0.1 answers 500"), "{}", refused.err);
    assert!(!refused.err.contains("secret") && !refused.err.contains("hush"), "{}", refused.err);
    served.join().unwrap();
    let same = ["alerts", "drift", "--prev", "curr.json", "--curr", "curr.json", "--webhook", "http://127.0.0.1:1/"];
    assert_eq!(run(home.path(), &same).code, 0, "nothing changed, so nothing is called");
}

#[tokio::test]
async fn through_the_broadcaster_the_same_change_is_stored_once() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default()).await;
    let nats = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    // As the orchestrator makes it.
    let subjects = vec!["agentforge.events.>".to_owned()];
    let mut stream = nats.create_stream(Config { name: "events".into(), subjects, ..Config::default() }).await.unwrap();
    let home = taxonomies();
    for _ in 0..2 {
        let said = drift(home.path().to_owned(), server.url()).await;
        assert_eq!(said.code, 0, "{}", said.err);
    }
    assert_eq!(stream.info().await.unwrap().state.messages, 1);
    let message = stream.get_last_raw_message_by_subject("agentforge.events.governance.alerts").await.unwrap();
    let notice: Value = serde_json::from_slice(&message.payload).unwrap();
    assert!(notice["text"].as_str().unwrap().starts_with("Alerts changed: 1 added"), "{notice}");
}

async fn drift(home: impl AsRef<Path> + Send + 'static, url: String) -> super::support::Said {
    let words = move || run(home.as_ref(), &[&DRIFT[..], &["--webhook", &url]].concat());
    tokio::task::spawn_blocking(words).await.unwrap()
}
