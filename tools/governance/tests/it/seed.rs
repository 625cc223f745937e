//! Synthetic traffic: only for what is called too rarely, at most ten requests, marked, and none without Prometheus.

use super::support::{Said, bare, said};
use agentforge_harness::{Prometheus, eventually, require};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// A target that answers every request, and its metrics; gives its URL and the heads of all requests but scrapes.
fn server() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    thread::spawn(move || {
        // `busy` rises by a thousand with each scrape, `rare` stays.
        let mut busy = 0;
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
            let mut body = String::new();
            if head.starts_with("GET /metrics") {
                busy += 1_000;
                body = format!(
                    "agentforge_http_requests_total{{service=\"busy\"}} {busy}\n\
                     agentforge_http_requests_total{{service=\"rare\"}} 1\n"
                );
            } else {
                seen.lock().unwrap().push(head);
            }
            let mut stream = reader.into_inner();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    (format!("http://{address}"), heads)
}

fn seed(home: &Path, prometheus: &str, url: &str, dry: &str) -> Said {
    let mut seed = bare(home);
    seed.args(["--json", "seed", "--prometheus", prometheus]).env("SEED_DRY_RUN", dry);
    for name in ["busy", "rare", "never"] {
        seed.args(["--target", &format!("{name}={url}/{name}")]);
    }
    said(seed.output().unwrap())
}

#[tokio::test]
async fn only_what_is_called_too_rarely_is_called_and_marked() {
    let Some(()) = require("prometheus") else { return };
    let home = tempfile::tempdir().unwrap();
    let (url, heads) = server();
    let host = url.trim_start_matches("http://");
    let configuration = format!(
        "global: {{scrape_interval: 200ms}}\nscrape_configs:\n- job_name: t\n  static_configs:\n  - targets: [\"{host}\"]\n"
    );
    let prometheus = Prometheus::start(&configuration).await;
    let query = "sum(rate(agentforge_http_requests_total{service=\"busy\"}[10m])) > 0";
    eventually(Duration::from_secs(20), "Prometheus knows a rate", || async {
        prometheus.query(query).await.is_ok_and(|found| !found.is_empty())
    })
    .await;
    let call = |dry: &'static str| {
        let (home, at, url) = (home.path().to_owned(), prometheus.url(), url.clone());
        tokio::task::spawn_blocking(move || seed(&home, &at, &url, dry))
    };
    let dry = call("1").await.unwrap();
    assert_eq!(dry.code, 0, "{}", dry.err);
    assert!(heads.lock().unwrap().is_empty(), "a dry run sends nothing");
    let wet = call("0").await.unwrap();
    assert_eq!(wet.code, 0, "{}", wet.err);
    let found: Value = serde_json::from_str(&wet.out).unwrap();
    let sent: Vec<_> = found.as_array().unwrap().iter().map(|one| one["sent"].as_u64().unwrap()).collect();
    assert_eq!(sent, [0, 5, 5], "{found}");
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), 10);
    for head in heads.iter() {
        assert!(!head.starts_with("GET /busy"), "{head}");
        assert!(head.to_lowercase().contains("x-synthetic-traffic: agentforge-seed"), "{head}");
    }
}

#[test]
fn without_prometheus_nothing_is_sent() {
    let home = tempfile::tempdir().unwrap();
    let (url, heads) = server();
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Away, and something else that answers in its place.
    for prometheus in [format!("http://{nowhere}"), url.clone()] {
        heads.lock().unwrap().clear();
        let said = seed(home.path(), &prometheus, &url, "0");
        assert_eq!((said.code, said.out.trim()), (0, "[]"), "{}", said.err);
        assert!(said.err.contains("nothing is sent"), "{}", said.err);
        let heads = heads.lock().unwrap();
        assert!(heads.iter().all(|head| head.starts_with("GET /api/v1/query")), "{heads:?}");
    }
    fs::write(home.path().join("t.json"), "[{\"name\": \"a\",\n\"uri\": 1}]").unwrap();
    let broken = said(bare(home.path()).args(["seed", "--targets", "t.json"]).output().unwrap());
    assert_eq!(broken.code, 3);
    assert!(broken.err.contains("t.json:2: unknown field"), "{}", broken.err);
}
