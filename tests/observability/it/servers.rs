//! The whole system on each NATS server that is supported, and over an upgrade of the server.
//!
//! A scaled set of what every service does: jobs with a retry and a dead letter, webhooks with the same, a file of a
//! site, a marker of the live picture, a scrape.

use crate::stack::{DEADLINE, Options, Stack, services};
use agentforge_harness::{NatsOptions, eventually, http_get, nats_versions, require_nats};
use agentforge_stack::roster::{BROADCASTER, NATS_EXPORTER, SYNCDAEMON, TACTICAL_API, WORKER};
use async_nats::jetstream;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// A receiver of webhooks: refuses events of dead jobs for good, and others while it is down.
struct Hook {
    url: String,
    is_up: Arc<AtomicBool>,
    /// Requests by `webhook-id`: how many were refused, and how many taken.
    seen: Arc<Mutex<BTreeMap<String, (u32, u32)>>>,
}

impl Hook {
    /// `is_up`: it takes the second attempt of each event; else none.
    async fn start(is_up: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (is_up, seen) = (Arc::new(AtomicBool::new(is_up)), Arc::new(Mutex::new(BTreeMap::new())));
        let (up, counts) = (is_up.clone(), seen.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(take(stream, up.clone(), counts.clone()));
            }
        });
        Self { url, is_up, seen }
    }

    fn taken(&self) -> Vec<u32> {
        self.seen.lock().unwrap().values().map(|(_, taken)| *taken).filter(|n| *n > 0).collect()
    }

    fn refused(&self) -> u32 {
        self.seen.lock().unwrap().values().map(|(refused, _)| refused).sum()
    }
}

async fn take(mut stream: TcpStream, up: Arc<AtomicBool>, counts: Arc<Mutex<BTreeMap<String, (u32, u32)>>>) {
    let (mut request, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    let text = loop {
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => request.extend_from_slice(&buffer[..n]),
            _ => return,
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
        if body.len() >= length.unwrap_or_default() {
            break text;
        }
    };
    let id = text.lines().find_map(|l| l.to_lowercase().strip_prefix("webhook-id: ").map(str::to_owned));
    let status = {
        let mut counts = counts.lock().unwrap();
        let (refused, taken) = counts.entry(id.unwrap_or_default()).or_insert((0, 0));
        match text.contains("agentforge.events.job.dev.dead") {
            true => "400 Bad Request",
            false if up.load(Ordering::SeqCst) && *refused > 0 => {
                *taken += 1;
                "204 No Content"
            }
            false => {
                *refused += 1;
                "503 Service Unavailable"
            }
        }
    };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(answer.as_bytes()).await;
}

fn options(version: &str, hook: &Hook, schedule: &str) -> Options {
    Options { nats: NatsOptions::default().version(version), ..Options::default() }
        .set(BROADCASTER, "WEBHOOK_URL", &*hook.url)
        .set(BROADCASTER, "EGRESS_ALLOW", "127.0.0.1/32")
        .set(BROADCASTER, "BROADCASTER_SUBJECTS", "agentforge.events.job.dev.succeeded,agentforge.events.job.dev.dead")
        .set(BROADCASTER, "BROADCASTER_RETRY_SCHEDULE", schedule)
        .set(BROADCASTER, "BROADCASTER_RETRY_JITTER", "0")
        .set(BROADCASTER, "BROADCASTER_CIRCUIT_FAILURES", "0")
        .set(SYNCDAEMON, "SITE", "north")
}

/// A job that succeeds, and one that is tried twice and dies. The id of the first.
async fn jobs(stack: &Stack) -> String {
    let good = stack.job("echo", json!({"n": 1})).await;
    let dead = stack.job_as(json!({"tool": "fail", "args": {"class": "transient"}, "max_attempts": 2})).await;
    stack.reaches(&good, "succeeded").await;
    stack.reaches(&dead, "dead").await;
    good
}

async fn messages(stack: &Stack, stream: &str) -> u64 {
    let Ok(client) = async_nats::connect(stack.nats.url()).await else { return 0 };
    jetstream::new(client).get_stream(stream).await.map_or(0, |s| s.cached_info().state.messages)
}

async fn holds(stack: &Stack, stream: &str, wanted: u64) {
    eventually(DEADLINE, &format!("{stream} holds {wanted}"), async || {
        let n = messages(stack, stream).await;
        if n == wanted { Ok(()) } else { Err(n) }
    })
    .await;
}

async fn marker(stack: &Stack, id: &str) {
    let client = async_nats::connect(stack.nats.url()).await.unwrap();
    let body = json!({"title": id, "coordinates": [13.4, 52.5], "severity": "high"});
    eventually(DEADLINE, "the stream takes a marker", async || {
        let js = jetstream::new(client.clone());
        let sent = js.publish(format!("tactical.markers.s.{id}"), body.to_string().into());
        sent.await.map_err(|e| e.to_string())?.await.map(drop).map_err(|e| e.to_string())
    })
    .await;
}

/// A new client of the live picture gets these markers.
async fn is_shown(stack: &Stack, ids: &[&str]) {
    eventually(DEADLINE, "the picture has its markers", async || {
        let base = stack.http(TACTICAL_API);
        let address = base.strip_prefix("http://").unwrap().to_owned();
        let mut stream = TcpStream::connect(&address).await.map_err(|e| e.to_string())?;
        let ask = format!(
            "GET /events/stream?snapshot=true HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n"
        );
        stream.write_all(ask.as_bytes()).await.map_err(|e| e.to_string())?;
        let (mut text, mut buffer) = (String::new(), vec![0; 16 * 1024]);
        let read = async {
            loop {
                let n = stream.read(&mut buffer).await.unwrap_or(0);
                text += &String::from_utf8_lossy(&buffer[..n]);
                if n == 0 || ids.iter().all(|id| text.contains(&format!("\"title\":\"{id}\""))) {
                    return n > 0;
                }
            }
        };
        let shown = timeout(Duration::from_secs(3), read).await;
        if shown == Ok(true) { Ok(()) } else { Err(format!("not all of {ids:?}")) }
    })
    .await;
}

async fn dead_webhooks(stack: &Stack) -> usize {
    let page = http_get(&format!("{}/v1/dead-letters", stack.http(BROADCASTER)), &[]).await;
    let body: Value = page.map(|(_, body)| serde_json::from_slice(&body).unwrap_or_default()).unwrap_or_default();
    body["dead_letters"].as_array().map_or(0, Vec::len)
}

async fn dead_jobs(stack: &Stack) -> usize {
    stack.get("/v1/dead-letters").await["dead_letters"].as_array().map_or(0, Vec::len)
}

/// Each service that connects is ready, and has nothing to say about the server.
async fn all_are_ready(stack: &Stack) {
    for service in services().filter(|service| *service != NATS_EXPORTER) {
        eventually(DEADLINE, &format!("{service} is ready"), async || {
            let (status, body) =
                http_get(&format!("{}/readyz", stack.http(service)), &[]).await.map_err(|e| e.to_string())?;
            let body = String::from_utf8_lossy(&body).into_owned();
            let is_fine = status == 200 && !body.contains("too old") && !body.contains("newer than");
            if is_fine { Ok(()) } else { Err(body) }
        })
        .await;
    }
}

async fn works_on(version: &str) {
    let Some(()) = require_nats(version) else { return };
    let hook = Hook::start(true).await;
    let stack = Stack::start(options(version, &hook, "1s,1s,1s")).await;
    all_are_ready(&stack).await;
    jobs(&stack).await;
    assert_eq!(dead_jobs(&stack).await, 1);
    std::fs::write(stack.replay_dir().join("frame.bin"), b"evidence").unwrap();
    marker(&stack, "m1").await;
    eventually(DEADLINE, "the webhook is delivered at its second attempt, the other one is dead", async || {
        let (taken, refused, dead) = (hook.taken(), hook.refused(), dead_webhooks(&stack).await);
        if taken == [1] && refused == 1 && dead == 1 { Ok(()) } else { Err((taken, refused, dead)) }
    })
    .await;
    holds(&stack, "broadcaster_retries", 0).await;
    holds(&stack, "edge_evidence", 1).await;
    is_shown(&stack, &["m1"]).await;
    eventually(DEADLINE, "the exporter shows the streams", async || {
        let page = stack.page(NATS_EXPORTER).await;
        let missing = ["swarm_jobs", "broadcaster_retries", "edge_evidence", "tactical"]
            .into_iter()
            .find(|stream| !page.contains(&format!("=\"{stream}\"")));
        missing.map_or(Ok(()), |stream| Err(format!("{stream} in {page}")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_on_the_oldest_server() {
    works_on(&nats_versions()[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_on_the_servers_in_between() {
    let versions = nats_versions();
    for version in &versions[1..versions.len() - 1] {
        works_on(version).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_on_the_newest_server() {
    works_on(nats_versions().last().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_of_the_server_loses_and_doubles_nothing_of_the_work_in_its_streams() {
    let versions = nats_versions();
    for version in &versions {
        let Some(()) = require_nats(version) else { return };
    }
    let hook = Hook::start(false).await;
    let mut stack = Stack::start(options(&versions[0], &hook, "5s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s")).await;
    let _ = jobs(&stack).await;
    // A webhook that waits for its retry, and one that is a dead letter; a dead job; a file; a marker; a queued job.
    holds(&stack, "broadcaster_retries", 1).await;
    eventually(DEADLINE, "one is dead", async || dead_webhooks(&stack).await == 1).await;
    std::fs::write(stack.replay_dir().join("one.bin"), b"evidence").unwrap();
    holds(&stack, "edge_evidence", 1).await;
    marker(&stack, "m1").await;
    is_shown(&stack, &["m1"]).await;
    assert_eq!(stack.proc(WORKER).sigterm(DEADLINE).await, 0);
    let queued = stack.job("echo", json!({"n": 2})).await;
    holds(&stack, "swarm_jobs", 1).await;

    for version in &versions[1..] {
        stack.nats.stop_gracefully().await;
        stack.nats.restart_as(version).await;
        assert!(!stack.nats.log().contains("Error recreating"), "{}", stack.nats.log());
    }
    assert_eq!(messages(&stack, "swarm_jobs").await, 1, "the job still waits");
    hook.is_up.store(true, Ordering::SeqCst);
    stack.bring_up(WORKER).await;
    all_are_ready(&stack).await;
    stack.reaches(&queued, "succeeded").await;
    eventually(DEADLINE, "both webhooks are delivered", async || {
        let taken = hook.taken();
        if taken.len() == 2 { Ok(()) } else { Err(taken) }
    })
    .await;
    holds(&stack, "broadcaster_retries", 0).await;
    holds(&stack, "swarm_jobs", 0).await;
    std::fs::write(stack.replay_dir().join("two.bin"), b"more evidence").unwrap();
    marker(&stack, "m2").await;
    holds(&stack, "edge_evidence", 2).await;
    is_shown(&stack, &["m1", "m2"]).await;
    assert_eq!(hook.taken(), [1, 1], "each once");
    assert_eq!((dead_jobs(&stack).await, dead_webhooks(&stack).await), (1, 1));
}
