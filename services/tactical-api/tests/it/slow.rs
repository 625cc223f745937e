//! A client that stalls: what waits for it is bounded, it is conflated, then disconnected, and slows no other client.

use crate::support::{Got, SOON, Sse, World, Ws};
use agentforge_harness::{eventually, require};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpSocket};

/// As large as they may be.
fn text() -> String {
    "x".repeat(1000)
}

/// A client whose socket holds little and who reads nothing until it is asked.
async fn stalled(address: &str, path: &str) -> tokio::net::TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_gets_the_newest_of_each_and_is_told_what_it_missed() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let bus = world.bus().await;
    let stream = stalled(world.api.address(), "/events/stream").await;
    world.api.until_clients(1.0, 0.0).await;
    // Ten markers, many states: far more than socket and buffer hold.
    for n in 0..3000 {
        let body = json!({"title": n.to_string(), "description": text(), "coordinates": [1, 2]});
        bus.js.publish(format!("tactical.markers.s.m{}", n % 10), body.to_string().into()).await.unwrap();
    }
    eventually(SOON, "it is conflated", || async { world.api.metric("tactical_events_conflated_total").await > 0.0 })
        .await;
    assert_eq!(world.api.metric("tactical_stream_clients{channel=\"sse\"}").await, 1.0);
    // It wakes up and reads all there is.
    let mut sse = Sse::resume(stream).await;
    let mut view = std::collections::BTreeMap::new();
    let (mut gaps, mut missing) = (0, 0);
    let mut seen = 0_u64;
    loop {
        let got: Got = sse.next().await.unwrap();
        if got.event == "gap" {
            assert_eq!(got.data["reason"], "conflated");
            gaps += 1;
            missing += got.data["missing"].as_u64().unwrap();
            continue;
        }
        seen += 1;
        let id = got.data["properties"]["id"].as_str().unwrap().to_owned();
        view.insert(id, got.title().to_owned());
        if got.title() == "2999" {
            break;
        }
    }
    assert!(gaps > 0 && seen + missing == 3000, "{gaps} gaps, {seen} seen, {missing} missing");
    let newest: Vec<String> = (2990..3000).map(|n| n.to_string()).collect();
    assert_eq!(view.into_values().collect::<Vec<_>>(), newest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_client_is_cut_off_with_its_reason_and_slows_nobody() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let bus = world.bus().await;
    let address = world.api.address();
    let sse = stalled(address, "/events/stream").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let raw = socket.connect(address.parse().unwrap()).await.unwrap();
    let url = format!("ws://{address}/events/ws");
    let (ws, _) = tokio_tungstenite::client_async(url, raw).await.unwrap();
    let mut ws = Ws { socket: ws, protocol: None };
    let mut lively = Sse::open(address, "/events/stream", &[]).await;
    world.api.until_clients(2.0, 1.0).await;
    let before = world.api.resident();

    let mut last = String::new();
    for n in 0..4000 {
        // Every marker is another one: nothing can be left out.
        let body = json!({"title": n.to_string(), "description": text(), "coordinates": [1, 2]});
        bus.js.publish(format!("tactical.markers.s.m{n}"), body.to_string().into()).await.unwrap();
        // It has each before the next is published, regardless of what waits for the others; `bench tactical` has the
        // times.
        let got = lively.next().await.unwrap();
        assert_eq!(got.title(), n.to_string());
        last = got.id;
    }
    world.api.until_clients(1.0, 0.0).await;
    for channel in ["sse", "ws"] {
        let series = format!("tactical_clients_dropped_total{{channel=\"{channel}\",reason=\"slow_consumer\"}}");
        world.api.until_metric(&series, 1.0).await;
    }
    // The ring, one buffer per client, and what the picture keeps of 4000 markers.
    let grown = world.api.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);

    let (code, reason) = ws.close().await;
    assert_eq!((code, reason.starts_with("slow_consumer")), (4413, true));
    let mut sse = Sse::resume(sse).await;
    let mut resume_at = String::new();
    loop {
        let got = sse.next().await.expect("the reason comes before the end");
        if got.event == "slow_consumer" {
            break;
        }
        resume_at = got.id;
    }
    assert!(sse.next().await.is_none());
    // It comes back and gets all the rest.
    let mut back = Sse::open(address, &format!("/events/stream?since={resume_at}"), &[]).await;
    let mut seq = resume_at.split_once('-').unwrap().1.parse::<u64>().unwrap();
    while back.last_id != last {
        let got = back.next().await.unwrap();
        assert_eq!(got.seq(), seq + 1);
        seq += 1;
    }
}
