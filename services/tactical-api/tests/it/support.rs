//! A tactical API as a process with its NATS server, a plain SSE client, and a WebSocket client.

use agentforge_harness::{NatsOptions, NatsServer, Proc, eventually, http_get};
use async_nats::jetstream;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{self, Message, client::IntoClientRequest, http::HeaderValue},
};

/// For anything that happens on a busy machine.
pub const SOON: Duration = Duration::from_secs(40);

/// A service and the server it depends on.
pub struct World {
    pub nats: NatsServer,
    pub api: Api,
}

impl World {
    /// With these settings.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let nats = NatsServer::start(NatsOptions::default()).await;
        // The orchestrator's, where the audit log's entries go: without it nothing is published.
        let js = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
        let (name, subjects) = ("events".to_owned(), vec!["agentforge.events.>".to_owned()]);
        js.create_stream(jetstream::stream::Config { name, subjects, ..Default::default() }).await.unwrap();
        let api = Api::start(&nats.url(), settings).await;
        Self { nats, api }
    }

    /// A client of the bus.
    pub async fn bus(&self) -> Bus {
        Bus::connect(&self.nats.url()).await
    }
}

/// A tactical API.
pub struct Api {
    pub proc: Proc,
    pub base: String,
    /// Outside ENV=dev only the port of probes has metrics.
    probes: String,
}

impl Api {
    /// Starts one and waits until the picture is complete.
    pub async fn start(nats_url: &str, settings: &[(&str, &str)]) -> Self {
        let api = Self::start_unready(nats_url, settings).await;
        api.until_ready().await;
        api
    }

    /// Starts one and waits until it listens.
    pub async fn start_unready(nats_url: &str, settings: &[(&str, &str)]) -> Self {
        let mut proc = Proc::builder(env!("CARGO_BIN_EXE_agentforge-tactical-api"))
            .env("NATS_URL", nats_url)
            .env("HTTP_PORT", "0")
            .env("METRICS_PORT", "0")
            .env("ENV", "dev")
            // In other environments the topology makes the stream.
            .env("NATS_TOPOLOGY", "make")
            .env("LOG_LEVEL", "warn")
            .env("SHUTDOWN_GRACE", "10s")
            .envs(settings.iter().map(|(k, v)| (*k, *v)))
            .start();
        let ready = proc.ready(SOON).await;
        // With TLS there is no http address; the port of the metrics is asked for health then.
        let probes = ready["tactical-api"]["metrics"].as_str().unwrap().trim_end_matches("/metrics").to_owned();
        let base = ready["tactical-api"]["http"].as_str().map_or_else(|| probes.clone(), str::to_owned);
        Self { proc, base, probes }
    }

    pub async fn until_ready(&self) {
        eventually(SOON, "the picture is complete", || async {
            matches!(http_get(&format!("{}/readyz", self.probes), &[]).await, Ok((200, _)))
        })
        .await;
    }

    pub fn address(&self) -> &str {
        self.base.strip_prefix("http://").unwrap()
    }

    /// The value of a series, 0 if it is not there.
    pub async fn metric(&self, series: &str) -> f64 {
        let (_, page) = http_get(&format!("{}/metrics", self.probes), &[]).await.unwrap();
        let page = String::from_utf8(page).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a series has a value.
    pub async fn until_metric(&self, series: &str, value: f64) {
        eventually(SOON, &format!("{series} is {value}"), || async {
            let found = self.metric(series).await;
            if found == value { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Clients of both streams.
    pub async fn until_clients(&self, sse: f64, ws: f64) {
        self.until_metric("tactical_stream_clients{channel=\"sse\"}", sse).await;
        self.until_metric("tactical_stream_clients{channel=\"ws\"}", ws).await;
    }

    /// Resident memory, bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.proc.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

/// What is published alongside the API.
pub struct Bus {
    pub js: jetstream::Context,
}

impl Bus {
    pub async fn connect(url: &str) -> Self {
        Self { js: jetstream::new(async_nats::connect(url).await.unwrap()) }
    }

    /// Publishes and gives the sequence.
    pub async fn publish(&self, subject: &str, body: &Value) -> u64 {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let subject = subject.to_owned();
        eventually(SOON, "the stream takes it", || async {
            let sent = self.js.publish(subject.clone(), body.clone().into()).await.map_err(|e| e.to_string())?;
            sent.await.map(|ack| ack.sequence).map_err(|e| e.to_string())
        })
        .await
    }

    pub async fn marker(&self, id: &str, title: &str) -> u64 {
        let body = json!({"title": title, "coordinates": [13.4, 52.5], "severity": "high"});
        self.publish(&format!("tactical.markers.s.{id}"), &body).await
    }
}

/// An event as a client got it.
#[derive(Clone, Debug, PartialEq)]
pub struct Got {
    pub event: String,
    pub id: String,
    pub data: Value,
}

impl Got {
    pub fn seq(&self) -> u64 {
        self.id.split_once('-').unwrap().1.parse().unwrap()
    }
    pub fn title(&self) -> &str {
        self.data["properties"]["title"].as_str().unwrap()
    }
}

/// A client of server-sent events, by the letter of the HTML standard.
pub struct Sse {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    reader: BufReader<TcpStream>,
    /// The last event id, as a browser would send it.
    pub last_id: String,
    pub retries: Vec<u64>,
    pub comments: u64,
    pub last_comment: String,
    event: String,
    data: Option<String>,
}

impl Sse {
    /// Connects; further header lines may be given.
    pub async fn open(address: &str, path: &str, headers: &[&str]) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::over(stream, address, path, headers).await
    }

    pub async fn over(stream: TcpStream, host: &str, path: &str, headers: &[&str]) -> Self {
        Self::try_over(stream, host, path, headers).await.expect("the request is taken")
    }

    /// As [`Self::over`], for a server that may be gone.
    pub async fn try_over(stream: TcpStream, host: &str, path: &str, headers: &[&str]) -> Option<Self> {
        Self::ask(stream, host, path, &[headers, &["Accept: text/event-stream"]].concat()).await
    }

    /// As curl does, which says of no kind of answer that it wants it.
    pub async fn plain(address: &str, path: &str, headers: &[&str]) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::ask(stream, address, path, &[headers, &["Accept: */*"]].concat()).await.expect("the request is taken")
    }

    async fn ask(mut stream: TcpStream, host: &str, path: &str, headers: &[&str]) -> Option<Self> {
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n");
        for header in headers {
            request += &format!("{header}\r\n");
        }
        stream.write_all((request + "\r\n").as_bytes()).await.ok()?;
        Some(Self::resume(stream).await)
    }

    /// Reads the answer to a request that was sent before.
    pub async fn resume(stream: TcpStream) -> Self {
        let mut reader = BufReader::with_capacity(8192, stream);
        let status = line(&mut reader).await.unwrap_or_default();
        let status = status.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let mut headers = BTreeMap::new();
        while let Some(text) = line(&mut reader).await.filter(|text| !text.is_empty()) {
            let (name, value) = text.split_once(':').unwrap();
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        Self {
            status,
            headers,
            reader,
            last_id: String::new(),
            retries: Vec::new(),
            comments: 0,
            last_comment: String::new(),
            event: String::new(),
            data: None,
        }
    }

    /// The next event; `None` at the end of the stream. Fails if neither comes soon.
    pub async fn next(&mut self) -> Option<Got> {
        timeout(SOON, self.event()).await.expect("an event or the end comes soon")
    }

    /// Reads until the last id is this one, without an event.
    pub async fn until_id(&mut self, id: &str) {
        let wait = async {
            while self.last_id != id {
                assert_eq!(self.line().await.expect("the stream goes on"), None);
            }
        };
        timeout(SOON, wait).await.expect("the id comes soon");
    }

    /// Takes one line; gives the event that it ends, if it ends one.
    pub async fn step(&mut self) -> Option<Got> {
        self.line().await.expect("the stream goes on")
    }

    async fn event(&mut self) -> Option<Got> {
        loop {
            if let Some(got) = self.line().await? {
                return Some(got);
            }
        }
    }

    /// Takes one line; gives the event that it ends.
    async fn line(&mut self) -> Option<Option<Got>> {
        let text = line(&mut self.reader).await?;
        match text.split_once(':') {
            None if text.is_empty() => {
                let event = std::mem::take(&mut self.event);
                let data = self.data.take();
                return Some(data.map(|data| {
                    let data = serde_json::from_str(&data).expect("data is JSON");
                    Got { event, id: self.last_id.clone(), data }
                }));
            }
            Some(("", comment)) => {
                self.comments += 1;
                comment.trim().clone_into(&mut self.last_comment);
            }
            Some((field, value)) => {
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "event" => value.clone_into(&mut self.event),
                    "id" => value.clone_into(&mut self.last_id),
                    "data" => self.data = Some(value.to_owned()),
                    "retry" => self.retries.push(value.parse().unwrap()),
                    other => panic!("an unknown field {other}"),
                }
            }
            None => panic!("a line without a colon: {text}"),
        }
        Some(None)
    }

    /// The rest of the body of a refusal.
    pub async fn body(mut self) -> Value {
        let mut text = String::new();
        timeout(SOON, self.reader.read_to_string(&mut text)).await.unwrap().unwrap();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
    }
}

async fn line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut text = String::new();
    match reader.read_line(&mut text).await {
        Ok(n) if n > 0 => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
        _ => None,
    }
}

/// A WebSocket client of another's making.
pub struct Ws<S = MaybeTlsStream<TcpStream>> {
    pub socket: WebSocketStream<S>,
    pub protocol: Option<String>,
}

/// What came over a WebSocket.
#[derive(Debug, PartialEq)]
pub enum Frame {
    Event(Got),
    Closed(u16, String),
    Cut,
}

impl Ws {
    pub async fn open(address: &str, path: &str, headers: &[(&'static str, &str)]) -> Self {
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let (socket, response) = timeout(SOON, tokio_tungstenite::connect_async(request)).await.unwrap().unwrap();
        let protocol = response.headers().get("sec-websocket-protocol").map(|v| v.to_str().unwrap().to_owned());
        Self { socket, protocol }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Ws<S> {
    /// The next event, heartbeats included, or the end.
    pub async fn frame(&mut self) -> Frame {
        loop {
            match timeout(SOON, self.socket.next()).await.expect("a frame comes soon") {
                Some(Ok(Message::Text(text))) => {
                    let value: Value = serde_json::from_str(&text).unwrap();
                    let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
                    assert_eq!(keys, ["data", "event", "id", "ts"]);
                    assert!(value["ts"].is_number());
                    let text = |name: &str| value[name].as_str().unwrap().to_owned();
                    return Frame::Event(Got { event: text("event"), id: text("id"), data: value["data"].clone() });
                }
                Some(Ok(Message::Close(Some(close)))) => {
                    return Frame::Closed(close.code.into(), close.reason.to_string());
                }
                Some(Ok(Message::Close(None))) => return Frame::Closed(1005, String::new()),
                Some(Ok(_)) => {}
                Some(Err(tungstenite::Error::ConnectionClosed)) | None => return Frame::Cut,
                Some(Err(_)) => return Frame::Cut,
            }
        }
    }

    /// The next event that is not a heartbeat; `None` at the end.
    pub async fn next(&mut self) -> Option<Got> {
        loop {
            match self.frame().await {
                Frame::Event(got) if got.event == "heartbeat" => {}
                Frame::Event(got) => return Some(got),
                Frame::Closed(..) | Frame::Cut => return None,
            }
        }
    }

    /// The close code and reason.
    pub async fn close(&mut self) -> (u16, String) {
        loop {
            match self.frame().await {
                Frame::Closed(code, reason) => return (code, reason),
                Frame::Event(_) => {}
                Frame::Cut => panic!("cut without a close"),
            }
        }
    }

    pub async fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }
}

/// One request of HTTP/1.1: status, headers, body.
pub async fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> (u16, BTreeMap<String, String>, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for header in headers {
        text += &format!("{header}\r\n");
    }
    if !body.is_empty() {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    stream.write_all(format!("{text}\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer of HTTP");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let headers = headers.map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned())).collect();
    (status, headers, answer.split_off(end + 4))
}
