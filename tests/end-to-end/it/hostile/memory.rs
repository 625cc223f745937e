//! Bodies and messages that do not end: memory stays within the budget, and callers are asked to try again.

use super::{SOON, Target, all_are_answered, connect, get, has_ended};
use agentforge_harness::{eventually, http_post};
use futures_util::{StreamExt, stream};
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const BUDGET: u64 = 16 << 20;
const SETTINGS: &[(&str, &str)] = &[("REQUEST_BODIES_MAX", "16MiB")];
/// In addition to the budget: buffers of 60 connections, up to 400 KiB each, the allocator's rounding of both, up to a
/// quarter, and what it keeps for a second. All bodies together would be 120 MiB.
const SLACK: u64 = 40 << 20;
const HELD: &str = "agentforge_request_bodies_bytes";
const REFUSED: &str = r#"agentforge_request_bodies_refused_total{reason="memory"}"#;
const LATE: &str = r#"agentforge_request_bodies_refused_total{reason="late"}"#;

/// Sends all but the last byte of a body.
async fn unfinished_body(to: SocketAddr, from: u8) -> TcpStream {
    const SIZE: usize = 2 << 20;
    let mut stream = connect(to, from).await.unwrap();
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: {to}\r\nContent-Type: application/json\r\nContent-Length: {SIZE}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // A refusal may come before it is sent.
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.write_all(&vec![b'x'; SIZE - 1])).await;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_bodies_take_no_more_than_their_budget_and_callers_are_served_afterwards() {
    let target = Target::start("orchestrator", SETTINGS).await;
    let url = format!("http://{}/v1/jobs", target.http);
    let job = r#"{"tool":"echo"}"#;
    eventually(SOON, "the database is open", || async { http_post(&url, job).await.unwrap().0 == 202 }).await;
    let before = target.resident();
    let mut streams = Vec::new();
    for n in 0..60 {
        streams.push(unfinished_body(target.http, 10 + n).await);
    }
    target.reaches(REFUSED, 1.0).await;
    let grown = target.resident().saturating_sub(before);
    let held = target.metric(HELD).await;
    let longest = all_are_answered(&target, "unfinished bodies").await;
    println!("60 unfinished bodies of 2 MiB: {} KiB more, held {held}, longest answer {longest:?}", grown / 1024);
    assert!(held <= BUDGET as f64, "{held}");
    assert!(grown < BUDGET + SLACK, "{grown} bytes");

    // Those that were refused have an answer with the time to wait.
    let refusal = |stream: &TcpStream| {
        let mut answer = [0; 4096];
        let length = stream.try_read(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
        answer.starts_with("http/1.1 503").then_some(answer)
    };
    let answer = eventually(SOON, "a refusal is answered", || {
        let answer = streams.iter().find_map(refusal);
        async move { answer.ok_or_else(|| "none has an answer with 503".to_owned()) }
    })
    .await;
    assert!(answer.contains("retry-after: 1"), "{answer}");
    assert!(answer.contains("request_bodies_max"), "{answer}");

    // The rest is late after half a minute, and its memory is free again, although all connections are open.
    target.reaches(LATE, 1.0).await;
    eventually(SOON, "a caller is served", || async { http_post(&url, job).await.unwrap().0 == 202 }).await;
    drop(streams);
    eventually(SOON, "all memory is given back", || async { target.metric(HELD).await == 0.0 }).await;
}

/// As much of HTTP/2 as an attacker needs: streams that begin a message.
struct Raw(TcpStream);

impl Raw {
    async fn connect(to: SocketAddr, from: u8) -> std::io::Result<Self> {
        let mut stream = connect(to, from).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        Ok(Self(stream))
    }

    async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).await
    }

    async fn call(&mut self, stream: u32, path: &str) -> std::io::Result<()> {
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ] {
            block.extend([0, u8::try_from(name.len()).unwrap()]);
            block.extend_from_slice(name.as_bytes());
            block.push(u8::try_from(value.len()).unwrap());
            block.extend_from_slice(value.as_bytes());
        }
        self.frame(1, 4, stream, &block).await
    }
}

const SUBMIT: &str = "/agentforge.v1.Jobs/SubmitJob";
const SUBMIT_MANY: &str = "/agentforge.v1.Jobs/SubmitJobs";

/// A message of 2 MiB, all but its last byte.
fn unfinished_message() -> reqwest::Body {
    const SIZE: u32 = 2 << 20;
    let head = [&[0][..], &SIZE.to_be_bytes()].concat();
    let pieces = (0..SIZE / 65_536).map(|n| vec![b'x'; if n == 0 { 65_535 } else { 65_536 }]);
    let pieces = stream::iter(std::iter::once(head).chain(pieces)).map(Ok::<_, std::convert::Infallible>);
    reqwest::Body::wrap_stream(pieces.chain(stream::pending()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_messages_take_no_more_than_their_budget_and_are_ended() {
    let target = Target::start("orchestrator", SETTINGS).await;
    let grpc = target.grpc.unwrap();
    eventually(SOON, "the database is open", || async {
        http_post(&format!("http://{}/v1/jobs", target.http), r#"{"tool":"echo"}"#).await.unwrap().0 == 202
    })
    .await;
    let before = target.resident();
    let mut calls = JoinSet::new();
    for _ in 0..40 {
        let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        for path in [SUBMIT, SUBMIT_MANY, SUBMIT, SUBMIT_MANY] {
            let call = client.post(format!("http://{grpc}{path}")).header("content-type", "application/grpc");
            let call = call.header("te", "trailers").body(unfinished_message());
            calls.spawn(async move {
                let answer = call.send().await.ok()?;
                let status = answer.headers().get("grpc-status")?.to_str().ok()?.to_owned();
                Some(status)
            });
        }
    }
    target.reaches(REFUSED, 1.0).await;
    let longest = all_are_answered(&target, "unfinished messages").await;
    // Until the first is late, all that arrives is either held or refused.
    let most = Cell::new((0.0_f64, 0));
    eventually(SOON, "a message is late", || async {
        let (held, grown) = (target.metric(HELD).await, target.resident().saturating_sub(before));
        assert!(held <= BUDGET as f64, "{held}");
        most.set((most.get().0.max(held), most.get().1.max(grown)));
        target.metric(LATE).await >= 1.0
    })
    .await;
    let (held, grown) = most.get();
    println!("160 unfinished messages of 2 MiB: {} KiB more, held {held}, longest answer {longest:?}", grown / 1024);
    assert!(held > 0.0);
    assert!(grown < BUDGET + SLACK, "{grown} bytes");
    eventually(SOON * 2, "all memory is given back", || async { target.metric(HELD).await == 0.0 }).await;
    let mut statuses = Vec::new();
    while let Some(status) = calls.join_next().await {
        statuses.extend(status.unwrap());
    }
    assert!(statuses.iter().any(|status| status == "8"), "RESOURCE_EXHAUSTED: {statuses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_strangers_end_and_those_of_callers_stay() {
    let tokens = [("API_TOKENS", "ci:submit:0123456789abcdef")];
    let target = Target::start("orchestrator", &tokens).await;
    let grpc = target.grpc.unwrap();
    let mut silent = connect(grpc, 10).await.unwrap();
    let mut idle = Raw::connect(grpc, 11).await.unwrap();
    // Calls without a token, again and again, prolong nothing.
    let mut asking = Raw::connect(grpc, 12).await.unwrap();
    let mut stream = 1;
    let ended = async {
        while !(has_ended(&mut silent).await && has_ended(&mut idle.0).await && has_ended(&mut asking.0).await) {
            let _ = asking.call(stream, SUBMIT).await;
            let _ = asking.frame(0, 1, stream, &[0; 5]).await;
            stream += 2;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    tokio::time::timeout(SOON * 2, ended).await.expect("strangers do not stay");
    target.reaches(r#"agentforge_http_connections_ended_total{reason="unknown"}"#, 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_grpc_connections_and_streams_stop_nobody() {
    let target = Target::start("orchestrator", &[("CONNECTIONS_MAX", "60"), ("CONNECTIONS_PER_ADDRESS", "50")]).await;
    let grpc = target.grpc.unwrap();
    let mut connections = Vec::new();
    for n in 0..300u32 {
        let from = 10 + u8::try_from(n % 20).unwrap();
        if let Ok(raw) = Raw::connect(grpc, from).await {
            connections.push(raw);
        }
    }
    target.reaches(r#"agentforge_http_connections_ended_total{reason="full"}"#, 1.0).await;
    // A hundred streams of one connection, without a message.
    let mut raw = Raw::connect(grpc, 200).await.unwrap();
    for n in 0..100 {
        raw.call(1 + 2 * n, SUBMIT_MANY).await.unwrap();
    }
    let longest = all_are_answered(&target, "gRPC connections and streams").await;
    println!("300 gRPC connections, 100 streams: longest answer {longest:?}");
    // A caller of gRPC finds a place: its preface is answered with the server's settings.
    let mut caller = Raw::connect(grpc, 201).await.unwrap();
    let mut head = [0; 9];
    tokio::time::timeout(SOON, caller.0.read_exact(&mut head)).await.expect("it is served").unwrap();
    assert_eq!(head[3], 4, "SETTINGS");
    assert_eq!(get(target.http, "/healthz", 202).await.unwrap().0, 200);
}
