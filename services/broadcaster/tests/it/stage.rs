//! A NATS server, a broadcaster as a process, and the client that publishes events.

use agentforge_harness::{NatsOptions, NatsServer, Proc, eventually, http_get};
use async_nats::{HeaderMap, jetstream};
use serde_json::Value;
use std::{path::PathBuf, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OnceCell,
};

/// For anything that must come, however busy the machine is.
pub const SOON: Duration = Duration::from_secs(60);
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A schedule of 32 retries, a second apart.
pub const SECONDS_32: &str =
    "1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s";

/// Whether the full sizes are wanted.
pub fn is_soak() -> bool {
    std::env::var_os("AGENTFORGE_SOAK").is_some_and(|v| v == "1")
}

/// A broadcaster process with its addresses; it ends when this is dropped.
pub struct Broadcaster {
    pub proc: Proc,
    pub http: String,
}

/// What most tests need.
pub struct Stage {
    pub nats: NatsServer,
    pub dir: TempDir,
    client: OnceCell<async_nats::Client>,
}

impl Stage {
    pub async fn new() -> Self {
        Self::of(NatsServer::start(NatsOptions::default()).await)
    }

    /// Around a server that runs.
    pub fn of(nats: NatsServer) -> Self {
        Self { nats, dir: tempfile::tempdir().unwrap(), client: OnceCell::new() }
    }

    /// Writes the endpoints file.
    pub fn endpoints(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join("endpoints.toml");
        let temporary = self.dir.path().join("endpoints.new");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, &path).unwrap();
        path
    }

    /// Starts a broadcaster and waits until it is ready and its endpoints deliver.
    pub async fn broadcaster(&self, envs: &[(&str, &str)]) -> Broadcaster {
        let broadcaster = self.broadcaster_only(envs).await;
        broadcaster.active().await;
        broadcaster
    }

    /// Starts one and waits until it listens.
    pub async fn broadcaster_only(&self, envs: &[(&str, &str)]) -> Broadcaster {
        start(&self.nats.url(), envs).await
    }

    pub async fn client(&self) -> async_nats::Client {
        let connect = || async {
            let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
            options.connect(self.nats.url()).await.unwrap()
        };
        self.client.get_or_init(connect).await.clone()
    }

    /// Publishes events to `todos.events`, each with its number as text, and waits for the acks.
    pub async fn publish(&self, numbers: std::ops::Range<usize>) {
        self.publish_to("todos.events", numbers).await;
    }

    pub async fn publish_to(&self, subject: &str, numbers: std::ops::Range<usize>) {
        self.publish_padded(subject, numbers, 0).await;
    }

    /// Events of so many bytes more.
    pub async fn publish_padded(&self, subject: &str, numbers: std::ops::Range<usize>, more: usize) {
        let mut client = jetstream::new(self.client().await);
        client.set_timeout(SOON);
        for chunk in numbers.collect::<Vec<_>>().chunks(200) {
            let mut acks = Vec::new();
            for n in chunk {
                let event = todo(*n) + &" ".repeat(more);
                acks.push(client.publish(subject.to_owned(), event.into()).await.unwrap());
            }
            for ack in acks {
                ack.await.unwrap();
            }
        }
    }

    /// Publishes one message with headers.
    pub async fn publish_with(&self, subject: &str, headers: &[(&str, &str)], body: &str) {
        let js = jetstream::new(self.client().await);
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.insert(*name, *value));
        js.publish_with_headers(subject.to_owned(), map, body.to_owned().into()).await.unwrap().await.unwrap();
    }

    /// Messages that a consumer has before it, and those it has not acknowledged.
    pub async fn unread(&self, stream: &str, consumer: &str) -> u64 {
        let stream = jetstream::new(self.client().await).get_stream(stream).await.unwrap();
        let info = stream.consumer_info(consumer).await.unwrap();
        info.num_pending + info.num_ack_pending as u64
    }

    /// Messages in a stream.
    pub async fn messages(&self, stream: &str) -> u64 {
        let js = jetstream::new(self.client().await);
        js.get_stream(stream).await.map_or(0, |s| s.cached_info().state.messages)
    }
}

/// Starts a broadcaster that may call this machine.
pub async fn start(nats_url: &str, envs: &[(&str, &str)]) -> Broadcaster {
    let mut proc = Proc::builder(env!("CARGO_BIN_EXE_agentforge-broadcaster"))
        .envs([
            ("ENV", "dev"),
            ("NATS_URL", nats_url),
            ("NATS_MAX_RECONNECT_WAIT", "300ms"),
            ("HTTP_PORT", "0"),
            ("METRICS_PORT", "0"),
            ("LOG_FORMAT", "json"),
            ("EGRESS_ALLOW", "127.0.0.0/8"),
            ("BROADCASTER_RETRY_JITTER", "0"),
            ("BROADCASTER_RETRIES_MAX_BYTES", "512MiB"),
            ("EVENTS_MAX_BYTES", "256MiB"),
        ])
        .envs(envs.iter().copied())
        .start();
    let ready = proc.ready(SOON).await;
    let http = ready["broadcaster"]["http"].as_str().unwrap().to_owned();
    Broadcaster { proc, http }
}

impl Broadcaster {
    /// Waits until every endpoint delivers.
    pub async fn active(&self) {
        eventually(SOON, "the broadcaster is ready", || async { self.get("/readyz").await.0 == 200 }).await;
        eventually(SOON, "every endpoint delivers", || async {
            let all = self.endpoints().await;
            if all.iter().all(|e| e["state"] == "active") { Ok(()) } else { Err(format!("{all:?}")) }
        })
        .await;
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        match http_get(&format!("{}{path}", self.http), &[]).await {
            Ok((status, body)) => (status, serde_json::from_slice(&body).unwrap_or_default()),
            Err(e) => (0, Value::String(e.to_string())),
        }
    }

    /// The page of metrics.
    pub async fn metrics(&self) -> String {
        let (_, body) = http_get(&format!("{}/metrics", self.http), &[]).await.unwrap();
        String::from_utf8(body).unwrap()
    }

    /// The value of a series, 0 where there is none.
    pub async fn metric(&self, series: &str) -> f64 {
        let page = self.metrics().await;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    pub async fn endpoints(&self) -> Vec<Value> {
        self.get("/v1/endpoints").await.1["endpoints"].as_array().cloned().unwrap_or_default()
    }

    pub async fn endpoint(&self, name: &str) -> Value {
        self.endpoints().await.into_iter().find(|e| e["name"] == name).unwrap_or_default()
    }

    pub async fn dead_letters(&self) -> Vec<Value> {
        self.get("/v1/dead-letters?limit=1000").await.1["dead_letters"].as_array().cloned().unwrap_or_default()
    }

    pub async fn deliveries(&self) -> Vec<Value> {
        self.get("/v1/deliveries?limit=1000").await.1["deliveries"].as_array().cloned().unwrap_or_default()
    }

    /// POST; status and JSON.
    pub async fn post(&self, path: &str, headers: &str, body: &str) -> (u16, Value) {
        self.call("POST", path, headers, body).await
    }

    /// Any method; status and JSON.
    pub async fn call(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value) {
        let address = self.http.trim_start_matches("http://");
        self.send(&format!("{method} {path}"), &format!("Host: {address}\r\n{headers}"), body).await
    }

    /// Under another name of this machine; the status.
    pub async fn as_host(&self, host: &str, method: &str, path: &str) -> u16 {
        self.send(&format!("{method} {path}"), &format!("Host: {host}\r\n"), "").await.0
    }

    async fn send(&self, what: &str, headers: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.http.trim_start_matches("http://")).await.unwrap();
        let length = body.len();
        let says_type = body.is_empty() || headers.to_ascii_lowercase().contains("content-type:");
        let kind = if says_type { "" } else { "Content-Type: application/json\r\n" };
        let text =
            format!("{what} HTTP/1.1\r\nConnection: close\r\n{headers}{kind}Content-Length: {length}\r\n\r\n{body}");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_default())
    }

    /// Resident memory, KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.proc.pid())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// A flat event.
pub fn todo(n: usize) -> String {
    format!(
        r#"{{"id":"{n}","text":"todo {n}","status":"open","created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z","action":"created"}}"#
    )
}

/// One endpoint of the file.
pub fn endpoint(name: &str, url: &str, more: &str) -> String {
    format!("[[endpoint]]\nname = \"{name}\"\nurl = \"{url}\"\n{more}\n\n")
}
