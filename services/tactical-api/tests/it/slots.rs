//! Places: none is lost, however a client goes; none too many is given, however many come.

use crate::support::{SOON, World};
use agentforge_harness::{eventually, require};
use futures_util::{StreamExt, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const SSE: &str = "GET /events/stream?snapshot=true HTTP/1.1\r\nHost: x\r\n\r\n";
const WS: &str = "GET /events/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn count() -> usize {
    if std::env::var("AGENTFORGE_SOAK").is_ok_and(|v| v == "1") { 10_000 } else { 2_000 }
}

#[tokio::test(flavor = "multi_thread")]
async fn aborts_at_every_phase_lose_no_place() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[("TACTICAL_STREAM_MAX_CLIENTS", "40"), ("TACTICAL_STREAM_MAX_PER_IP", "40")]).await;
    let bus = world.bus().await;
    for n in 0..50 {
        bus.marker(&format!("m{n}"), &"x".repeat(200)).await;
    }
    let address = world.api.address().to_owned();
    stream::iter(0..count())
        .for_each_concurrent(64, |n| {
            let address = address.clone();
            async move { abort(&address, n).await }
        })
        .await;
    world.api.until_clients(0.0, 0.0).await;
    // And the counts are right in deed: all places can be had at once.
    let held = open(&address, 40, 40).await;
    assert_eq!(held.iter().filter(|(status, _)| *status == 200).count(), 40);
    eventually(SOON, "every descriptor came back", || async {
        let open = std::fs::read_dir(format!("/proc/{}/fd", world.api.proc.pid())).unwrap().count();
        if open < 120 { Ok(()) } else { Err(open) }
    })
    .await;
}

/// One client that goes at one of many moments.
async fn abort(address: &str, n: usize) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    let request = if n.is_multiple_of(2) { SSE } else { WS };
    let phase = (n / 2) % 8;
    let sent = match phase {
        0 => "",
        1 => &request[..20],
        2 => &request[..request.len() - 2],
        _ => request,
    };
    let _ = stream.write_all(sent.as_bytes()).await;
    match phase {
        4 => drop(stream.read_u8().await),
        5 => {
            let mut buffer = [0; 700];
            let _ = stream.read(&mut buffer).await;
        }
        // Not by the book: a reset instead of an end.
        6 => {
            let _ = stream.read_u8().await;
            let _ = stream.set_zero_linger();
        }
        7 => drop(stream.write_all(b"\x81\x80half").await),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn caps_hold_exactly_when_all_come_at_once() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[("TACTICAL_STREAM_MAX_CLIENTS", "100")]).await;
    for _ in 0..3 {
        let came = open(world.api.address(), 300, 300).await;
        let admitted = came.iter().filter(|(status, _)| *status == 200).count();
        let refused = came.iter().filter(|(status, _)| *status == 429).count();
        assert_eq!((admitted, refused), (100, 200));
        drop(came);
        world.api.until_clients(0.0, 0.0).await;
    }
}

/// Opens so many streams, `at_once` of them side by side, and keeps them: status and connection of each.
async fn open(address: &str, count: usize, at_once: usize) -> Vec<(u16, TcpStream)> {
    let one = |_| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(SSE.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        tokio::time::timeout(SOON, stream.read_exact(&mut head)).await.unwrap().unwrap();
        (std::str::from_utf8(&head[9..]).unwrap().parse().unwrap(), stream)
    };
    stream::iter(0..count).map(one).buffer_unordered(at_once).collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_clients_take_little_memory() {
    let Some(()) = require("nats-server") else { return };
    let clients = if count() > 2_000 { 9_000 } else { 1_000 };
    let world = World::start(&[("TACTICAL_STREAM_MAX_CLIENTS", "20000")]).await;
    // What the first ones need for themselves is not what each of them needs.
    drop(open(world.api.address(), 200, 50).await);
    world.api.until_clients(0.0, 0.0).await;
    let before = world.api.resident();
    let held = open(world.api.address(), clients, 50).await;
    world.api.until_clients(clients as f64, 0.0).await;
    let each = world.api.resident().saturating_sub(before) / clients as u64;
    assert!(each <= 8192, "{each} bytes for each of {} clients", held.len());
}
