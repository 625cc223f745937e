//! Both streams deliver what is published, resume by id, filter, and keep alive.

use crate::support::{Frame, Sse, World, Ws, request};
use agentforge_harness::require;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_arrives_on_both_streams_with_one_id() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let (bus, address) = (world.bus().await, world.api.address());
    let mut sse = Sse::open(address, "/events/stream", &[]).await;
    let mut ws = Ws::open(address, "/events/ws", &[]).await;
    assert_eq!(sse.status, 200);
    for (name, value) in
        [("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no")]
    {
        assert_eq!(sse.headers[name], value);
    }
    assert!(!sse.headers.contains_key("content-encoding"));
    world.api.until_clients(1.0, 1.0).await;

    let seq = bus.marker("m1", "One").await;
    let (a, b) = (sse.next().await.unwrap(), ws.next().await.unwrap());
    assert_eq!(a, b);
    assert_eq!((a.event.as_str(), a.seq(), a.title()), ("marker", seq, "One"));
    assert_eq!(sse.retries.len(), 1);

    let ring = json!([[0, 0], [1, 0], [1, 1], [0, 1]]);
    bus.publish("tactical.zones.s.z1", &json!({"title": "Zone", "polygon": ring})).await;
    bus.publish("tactical.markers.s.m1", &Value::Null).await;
    for expected in ["zone", "remove"] {
        let (a, b) = (sse.next().await.unwrap(), ws.next().await.unwrap());
        assert_eq!((&a, a.event.as_str()), (&b, expected));
    }
    world.api.until_metric("tactical_alerts_published_total{channel=\"sse\"}", 3.0).await;
    world.api.until_metric("tactical_alerts_published_total{channel=\"ws\"}", 3.0).await;
    drop((sse, ws));
    world.api.until_clients(0.0, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resuming_gives_what_was_missed_and_nothing_twice() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let (bus, address) = (world.bus().await, world.api.address());
    let mut sse = Sse::open(address, "/events/stream", &[]).await;
    world.api.until_clients(1.0, 0.0).await;
    bus.marker("a", "1").await;
    let first = sse.next().await.unwrap();
    drop(sse);
    for n in 2..=5 {
        bus.marker("a", &n.to_string()).await;
    }
    let header = format!("Last-Event-ID: {}", first.id);
    let mut by_header = Sse::open(address, "/events/stream", &[&header]).await;
    let mut by_since = Sse::open(address, &format!("/events/stream?since={}", first.id), &[]).await;
    let mut by_seq = Ws::open(address, &format!("/events/ws?since={}", first.seq()), &[]).await;
    let mut by_time = Sse::open(address, "/events/stream?since=2020-01-01T00:00:00Z", &[]).await;
    assert_eq!(by_time.next().await.unwrap().title(), "1");
    for n in 2..=5 {
        let title = n.to_string();
        for got in [by_header.next().await, by_since.next().await, by_seq.next().await, by_time.next().await] {
            assert_eq!(got.unwrap().title(), title);
        }
    }
    bus.marker("a", "6").await;
    for got in [by_header.next().await, by_since.next().await, by_seq.next().await, by_time.next().await] {
        assert_eq!(got.unwrap().title(), "6");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn places_that_no_client_can_be_at_are_refused_or_told_and_harm_nobody() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[("TACTICAL_SSE_HEARTBEAT_SECS", "0.2")]).await;
    let (bus, address) = (world.bus().await, world.api.address());
    let mut lively = Sse::open(address, "/events/stream", &[]).await;
    world.api.until_clients(1.0, 0.0).await;
    bus.marker("a", "1").await;
    let id = lively.next().await.unwrap().id;
    let epoch = id.split('-').next().unwrap();
    // Behind the last sequence that there can be is none.
    for place in [format!("{epoch}-{}", u64::MAX), u64::MAX.to_string(), format!("{epoch}-"), "x".to_owned()] {
        assert_eq!(Sse::open(address, &format!("/events/stream?since={place}"), &[]).await.status, 400, "{place}");
        let mut ws = Ws::open(address, &format!("/events/ws?since={place}"), &[]).await;
        assert_eq!(ws.close().await.0, 4400, "{place}");
    }
    // Ahead of the stream: it gets a gap, then new states.
    let header = format!("Last-Event-ID: {epoch}-{}", u64::MAX - 1);
    let mut ahead = Sse::open(address, "/events/stream", &[&header]).await;
    assert_eq!(ahead.next().await.unwrap().data["reason"], "reset");
    // Moments that the server of the stream cannot count: before all, and after all.
    for moment in ["0001-01-01T00:00:00Z", "1677-01-01T00:00:00Z"] {
        let mut sse = Sse::open(address, &format!("/events/stream?since={moment}"), &[]).await;
        assert_eq!(sse.next().await.unwrap().title(), "1", "{moment}");
    }
    let mut future = Sse::open(address, "/events/stream?since=2262-05-01T00:00:00Z", &[]).await;
    future.until_id(&id).await;
    bus.marker("a", "2").await;
    assert_eq!(future.next().await.unwrap().title(), "2");
    for client in [&mut lively, &mut ahead] {
        assert_eq!(client.next().await.unwrap().title(), "2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_service_replays_from_the_stream() {
    let Some(()) = require("nats-server") else { return };
    let mut world = World::start(&[]).await;
    let bus = world.bus().await;
    let mut ids = Vec::new();
    {
        let mut sse = Sse::open(world.api.address(), "/events/stream", &[]).await;
        world.api.until_clients(1.0, 0.0).await;
        for n in 0..600 {
            bus.marker(&format!("m{}", n % 50), &n.to_string()).await;
            ids.push(sse.next().await.unwrap().id);
        }
    }
    world.api = crate::support::Api::start(&world.nats.url(), &[]).await;
    // Nothing of this is in the new process's memory; it takes several reads of the stream.
    let header = format!("Last-Event-ID: {}", ids[9]);
    let mut sse = Sse::open(world.api.address(), "/events/stream", &[&header]).await;
    for (n, id) in ids.iter().enumerate().skip(10) {
        let got = sse.next().await.unwrap();
        assert_eq!((got.title(), &got.id), (n.to_string().as_str(), id));
    }
    bus.marker("m0", "new").await;
    assert_eq!(sse.next().await.unwrap().title(), "new");
    world.api.until_metric("tactical_events_replayed_total", 590.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_the_newest_of_each_and_then_live() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let (bus, address) = (world.bus().await, world.api.address());
    for (id, title) in [("a", "a1"), ("b", "b1"), ("a", "a2"), ("c", "c1")] {
        bus.marker(id, title).await;
    }
    bus.publish("tactical.markers.s.c", &Value::Null).await;
    world.api.until_metric("tactical_features{kind=\"marker\"}", 2.0).await;
    let mut sse = Sse::open(address, "/events/stream?snapshot=true", &[]).await;
    let mut ws = Ws::open(address, "/events/ws?snapshot=true&site=s", &[]).await;
    let mut other = Ws::open(address, "/events/ws?snapshot=true&site=elsewhere", &[]).await;
    world.api.until_clients(1.0, 2.0).await;
    bus.marker("d", "d1").await;
    bus.publish("tactical.markers.elsewhere.e", &json!({"title": "e1", "coordinates": [1, 1]})).await;
    for title in ["b1", "a2", "d1"] {
        assert_eq!(sse.next().await.unwrap().title(), title);
        assert_eq!(ws.next().await.unwrap().title(), title);
    }
    assert_eq!(sse.next().await.unwrap().title(), "e1");
    assert_eq!(other.next().await.unwrap().title(), "e1");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_hold_on_the_server_and_a_websocket_may_change_its_own() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let (bus, address) = (world.bus().await, world.api.address());
    let mut near = Sse::open(address, "/events/stream?bbox=10,50,20,60&severity=high,critical", &[]).await;
    let mut ws = Ws::open(address, "/events/ws?kind=zone", &[]).await;
    world.api.until_clients(1.0, 1.0).await;
    let at = |lon: f64, severity: &str| json!({"title": format!("{lon} {severity}"), "coordinates": [lon, 55], "severity": severity});
    bus.publish("tactical.markers.s.a", &at(15.0, "high")).await;
    bus.publish("tactical.markers.s.b", &at(15.0, "low")).await;
    bus.publish("tactical.markers.s.c", &at(30.0, "high")).await;
    bus.publish("tactical.markers.s.a", &at(30.0, "high")).await;
    bus.publish("tactical.markers.s.d", &at(16.0, "critical")).await;
    // The marker that left is reported as gone; those that never were here are not.
    let got: Vec<_> = [near.next().await.unwrap(), near.next().await.unwrap(), near.next().await.unwrap()]
        .into_iter()
        .map(|got| (got.event, got.data["properties"]["id"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(got, [("marker".into(), "a".into()), ("remove".into(), "a".into()), ("marker".into(), "d".into())]);
    ws.say(r#"{"filter":{"site":"s","kind":"marker"}}"#).await;
    // It holds once the server has read it: an event that comes before is not for this client.
    let got = loop {
        bus.publish("tactical.markers.s.e", &at(1.0, "low")).await;
        if let Ok(got) = tokio::time::timeout(Duration::from_millis(300), ws.next()).await {
            break got.unwrap();
        }
    };
    assert_eq!(got.event, "marker");
}

#[tokio::test(flavor = "multi_thread")]
async fn anything_but_a_filter_closes_with_1003() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    for said in ["hello", r#"{"filter":{"bbox":"1,2"}}"#, r#"{"subscribe":"all"}"#] {
        let mut ws = Ws::open(world.api.address(), "/events/ws", &[]).await;
        ws.say(said).await;
        assert_eq!(ws.close().await.0, 1003, "{said}");
    }
    world.api.until_clients(0.0, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_idle_hear_a_heartbeat_with_the_newest_id() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[("TACTICAL_SSE_HEARTBEAT_SECS", "0.2"), ("TACTICAL_WS_HEARTBEAT_SECS", "0.2")]).await;
    let (bus, address) = (world.bus().await, world.api.address());
    // This client's filter leaves everything out, and yet it can resume behind it.
    let mut sse = Sse::open(address, "/events/stream?site=nowhere", &[]).await;
    let mut ws = Ws::open(address, "/events/ws?site=nowhere", &[]).await;
    let seq = bus.marker("a", "1").await;
    let id = loop {
        let Frame::Event(got) = ws.frame().await else { panic!() };
        assert_eq!(got.event, "heartbeat");
        if got.seq() == seq {
            break got.id;
        }
    };
    sse.until_id(&id).await;
    assert!(sse.comments > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_tells_clients_to_connect_again() {
    let Some(()) = require("nats-server") else { return };
    let mut world = World::start(&[]).await;
    let address = world.api.address().to_owned();
    let mut sse = Sse::open(&address, "/events/stream", &[]).await;
    let mut ws = Ws::open(&address, "/events/ws", &[]).await;
    world.api.until_clients(1.0, 1.0).await;
    let (code, told, closed) = tokio::join!(
        world.api.proc.sigterm(crate::support::SOON),
        async {
            let told = sse.next().await.unwrap();
            (told.event, sse.next().await)
        },
        ws.close()
    );
    assert_eq!((code, told, closed.0), (0, ("reconnect".to_owned(), None), 1012));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_used_for_requests_can_become_a_stream() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let bus = world.bus().await;
    let address = world.api.address();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream.write_all(format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let mut rest = Vec::new();
    while !rest.ends_with(b"}") {
        rest.push(stream.read_u8().await.unwrap());
    }
    let mut sse = Sse::over(stream, address, "/events/stream", &[]).await;
    world.api.until_clients(1.0, 0.0).await;
    bus.marker("a", "1").await;
    assert_eq!(sse.next().await.unwrap().title(), "1");
    let (status, headers, _) = request(address, "POST", "/events/stream", &[], "").await;
    assert_eq!((status, headers["allow"].as_str()), (405, "GET"));
}
