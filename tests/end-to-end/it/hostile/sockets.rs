//! Sockets that hold places: silent ones, unfinished heads, kept connections; floods of them.

use super::{SOON, Target, all_are_answered, connect, get, has_ended};
use agentforge_stack::roster::SERVICES;
use futures_util::future::join_all;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a stranger sends before it stops.
const KINDS: [(&str, &str); 3] = [
    ("silent sockets", ""),
    ("unfinished heads", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: "),
    ("kept connections", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
];

async fn flood(target: &Target, count: usize, addresses: u8, text: &str) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for n in 0..count {
        let from = 10 + u8::try_from(n % usize::from(addresses)).unwrap();
        // Refused ones are a part of it.
        if let Ok(mut stream) = connect(target.http, from).await {
            let _ = stream.write_all(text.as_bytes()).await;
            streams.push(stream);
        }
    }
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_holds_sockets_open_every_service_answers_callers_and_probes() {
    for service in SERVICES.iter().map(|service| service.name) {
        let target = Target::start(service, &[("CONNECTIONS_MAX", "40"), ("CONNECTIONS_PER_ADDRESS", "30")]).await;
        for (kind, text) in KINDS {
            for addresses in [1, 20] {
                let what = format!("{kind} from {addresses} addresses");
                let streams = flood(&target, 200, addresses, text).await;
                let longest = all_are_answered(&target, &what).await;
                println!("{service}: {what}: longest answer {} ms", longest.as_millis());
                drop(streams);
            }
        }
        let has_own_port = target.http != target.metrics;
        if has_own_port {
            target.reaches(r#"agentforge_http_connections_ended_total{reason="full"}"#, 1.0).await;
        }
        target.reaches(r#"agentforge_http_connections_ended_total{reason="address"}"#, 1.0).await;
    }
}

/// With what ships: as many sockets as there are places, and more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_silent_sockets_than_there_are_places_stop_nobody() {
    let target = Target::start("orchestrator", &[]).await;
    // The test's own open files bound it on some machines.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
    let count = 8_300.min(usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(500));
    let before = target.resident();
    let streams = flood(&target, count, 40, "").await;
    let longest = all_are_answered(&target, "8,300 silent sockets").await;
    let grown = target.resident().saturating_sub(before);
    println!("{} silent sockets: longest answer {} ms, {} KiB", streams.len(), longest.as_millis(), grown / 1024);
    assert!(grown < 64 << 20, "a silent socket costs a few KiB: {grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_does_not_end_is_ended_and_a_kept_connection_is_kept() {
    join_all(SERVICES.iter().map(|service| slow_heads(service.name))).await;
}

async fn slow_heads(service: &'static str) {
    let target = Target::start(service, &[]).await;
    let mut kept = connect(target.http, 2).await.unwrap();
    answered(&mut kept).await;
    let mut slow = connect(target.http, 3).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
    let began = Instant::now();
    while !has_ended(&mut slow).await {
        assert!(began.elapsed() < SOON, "{service}: a head of a byte per second is read forever");
        // A byte now and then must not prolong it.
        let _ = slow.write_all(b"X").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(began.elapsed() > Duration::from_secs(8), "{service}: ended after {:?}", began.elapsed());
    let ended = r#"agentforge_http_connections_ended_total{reason="head"}"#;
    target.reaches(ended, 1.0).await;
    // It was idle for as long, and is served.
    answered(&mut kept).await;
    // The next head of a kept connection has its time too.
    kept.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    target.reaches(ended, 2.0).await;
    assert_eq!(get(target.http, "/healthz", 4).await.unwrap().0, 200);
}

async fn answered(stream: &mut TcpStream) {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "the connection is open");
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}
