//! Markers end by removal and by time, and other incarnations of the stream are told apart.

use crate::support::{Frame, Sse, World, Ws};
use agentforge_harness::require;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_whose_time_is_over_is_removed_for_everybody_once() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    // A second copy of the service notices the end too.
    let other = crate::support::Api::start(&world.nats.url(), &[]).await;
    let bus = world.bus().await;
    let mut a = Sse::open(world.api.address(), "/events/stream", &[]).await;
    let mut b = Sse::open(other.address(), "/events/stream", &[]).await;
    world.api.until_clients(1.0, 0.0).await;
    other.until_clients(1.0, 0.0).await;
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(5);
    let body = json!({"title": "short", "coordinates": [1, 2], "expires_at": end.to_string()});
    bus.publish("tactical.markers.s.short", &body).await;
    bus.marker("renewed", "1").await;
    for sse in [&mut a, &mut b] {
        let got: Vec<_> = [sse.next().await.unwrap(), sse.next().await.unwrap(), sse.next().await.unwrap()]
            .into_iter()
            .map(|got| (got.seq(), got.event))
            .collect();
        assert_eq!(got, [(1, "marker".into()), (2, "marker".into()), (3, "remove".into())]);
    }
    assert!(jiff::Timestamp::now() >= end);
    world.api.until_metric("tactical_features{kind=\"marker\"}", 1.0).await;
    assert_eq!(bus.js.get_stream("tactical").await.unwrap().cached_info().state.last_sequence, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_made_anew_is_a_gap_and_not_old_news() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let bus = world.bus().await;
    let mut sse = Sse::open(world.api.address(), "/events/stream", &[]).await;
    world.api.until_clients(1.0, 0.0).await;
    bus.marker("a", "old 1").await;
    bus.marker("a", "old 2").await;
    assert_eq!(sse.next().await.unwrap().title(), "old 1");
    let old = sse.next().await.unwrap();
    bus.js.delete_stream("tactical").await.unwrap();
    // The service makes the stream again.
    bus.marker("b", "new").await;
    let gap = sse.next().await.unwrap();
    assert_eq!((gap.event.as_str(), gap.data["reason"].as_str()), ("gap", Some("reset")));
    let new = sse.next().await.unwrap();
    assert_eq!((new.title(), new.seq()), ("new", 1));
    assert_ne!(new.id.split('-').next(), old.id.split('-').next());
    // One that comes with an id of the old stream gets all of the new one, too.
    let header = format!("Last-Event-ID: {}", old.id);
    let mut late = Sse::open(world.api.address(), "/events/stream", &[&header]).await;
    assert_eq!(late.next().await.unwrap().data["reason"], "reset");
    assert_eq!(late.next().await.unwrap().title(), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_may_come_late_and_go_away() {
    let Some(()) = require("nats-server") else { return };
    let mut nats = agentforge_harness::NatsServer::start(Default::default()).await;
    let url = nats.url();
    nats.kill9();
    let api = crate::support::Api::start_unready(&url, &[]).await;
    let refused = Sse::plain(api.address(), "/events/stream", &[]).await;
    assert_eq!((refused.status, refused.headers.contains_key("retry-after")), (503, true));
    // An EventSource takes any status but 200 for the end of all.
    let mut told = Sse::open(api.address(), "/events/stream", &[]).await;
    assert_eq!((told.status, told.next().await.unwrap().event.as_str()), (200, "unavailable"));
    assert!(told.next().await.is_none() && told.retries.len() == 1);
    nats.restart().await;
    api.until_ready().await;
    let mut sse = Sse::open(api.address(), "/events/stream", &[]).await;
    api.until_clients(1.0, 0.0).await;
    let bus = crate::support::Bus::connect(&url).await;
    bus.marker("a", "before").await;
    assert_eq!(sse.next().await.unwrap().title(), "before");
    nats.kill9();
    nats.restart().await;
    // The client was never cut off, and nothing is missing.
    bus.marker("a", "after").await;
    assert_eq!(sse.next().await.unwrap().title(), "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_told_when_their_source_is_away_and_when_it_is_back() {
    let Some(()) = require("nats-server") else { return };
    let beats = [("TACTICAL_SSE_HEARTBEAT_SECS", "0.2"), ("TACTICAL_WS_HEARTBEAT_SECS", "0.2")];
    let mut world = World::start(&beats).await;
    let address = world.api.address().to_owned();
    world.bus().await.marker("a", "before").await;
    let mut sse = Sse::open(&address, "/events/stream?snapshot=true", &[]).await;
    let mut ws = Ws::open(&address, "/events/ws", &[]).await;
    assert_eq!(sse.next().await.unwrap().title(), "before");
    world.api.until_clients(1.0, 1.0).await;
    let Frame::Event(beat) = ws.frame().await else { panic!() };
    assert_eq!((beat.event.as_str(), beat.data["source"].as_str()), ("heartbeat", Some("live")));
    world.nats.kill9();

    let stale = sse.next().await.unwrap();
    assert_eq!((stale.event.as_str(), stale.data["reason"].as_str()), ("stale", Some("source_away")));
    assert!(stale.data["age_seconds"].as_f64().unwrap() >= 5.0, "{stale:?}");
    // It does not take the place from which a client resumes.
    assert!(stale.id.ends_with("-1"), "{stale:?}");
    let of_ws = ws.next().await.unwrap();
    assert_eq!((of_ws.event.as_str(), of_ws.data["reason"].as_str()), ("stale", Some("source_away")));
    // Heartbeats continue and say how old the picture is.
    let mut ages = Vec::new();
    while ages.len() < 3 {
        let Frame::Event(beat) = ws.frame().await else { panic!() };
        assert_eq!((beat.event.as_str(), beat.data["source"].as_str()), ("heartbeat", Some("away")), "once is enough");
        ages.push(beat.data["age_seconds"].as_f64().unwrap());
    }
    assert!(ages.is_sorted() && ages[0] >= 5.0, "{ages:?}");
    let before = sse.comments;
    let wait = async {
        while sse.comments < before + 3 {
            assert_eq!(sse.step().await, None, "once is enough");
        }
    };
    tokio::time::timeout(crate::support::SOON, wait).await.unwrap();
    assert!(sse.last_comment.contains("source=away age="), "{}", sse.last_comment);
    // A new client gets the notice first, then the picture as it was.
    let mut late = Sse::open(&address, "/events/stream?snapshot=true", &[]).await;
    assert_eq!(late.next().await.unwrap().event, "stale");
    assert_eq!(late.next().await.unwrap().title(), "before");
    world.api.until_metric("tactical_gaps_total{reason=\"source_away\"}", 3.0).await;

    world.nats.restart().await;
    for client in [&mut sse, &mut late] {
        let fresh = client.next().await.unwrap();
        assert_eq!((fresh.event.as_str(), fresh.data["reason"].as_str()), ("fresh", Some("source_back")));
    }
    assert_eq!(ws.next().await.unwrap().event, "fresh");
    world.bus().await.marker("a", "after").await;
    for client in [&mut sse, &mut late] {
        assert_eq!(client.next().await.unwrap().title(), "after");
    }
    assert_eq!(ws.next().await.unwrap().title(), "after");
}
