//! What is missing is told: gone by age, gone by number, passed over.

use crate::support::{Api, Sse, World};
use agentforge_harness::require;
use async_nats::jetstream::stream::Config;

#[tokio::test(flavor = "multi_thread")]
async fn holes_that_the_cap_of_a_marker_left_are_told() {
    let Some(()) = require("nats-server") else { return };
    let mut world = World::start(&[]).await;
    let bus = world.bus().await;
    bus.marker("keep", "first").await;
    for n in 0..150 {
        bus.marker("busy", &n.to_string()).await;
    }
    bus.marker("keep", "last").await;
    world.api = Api::start(&world.nats.url(), &[]).await;
    let mut sse = Sse::open(world.api.address(), "/events/stream?since=0", &[]).await;
    assert_eq!(sse.next().await.unwrap().title(), "first");
    let gap = sse.next().await.unwrap();
    assert_eq!((gap.event.as_str(), gap.data["reason"].as_str()), ("gap", Some("conflated")));
    assert_eq!(gap.data["missing"], 50);
    // A gap does not move where the client is.
    assert_eq!(gap.seq(), 1);
    for n in 50..150 {
        let got = sse.next().await.unwrap();
        assert_eq!((got.title(), got.seq()), (n.to_string().as_str(), n + 2));
    }
    assert_eq!(sse.next().await.unwrap().title(), "last");
    world.api.until_metric("tactical_gaps_total{reason=\"conflated\"}", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_stream_no_longer_keeps_is_told_with_its_place() {
    let Some(()) = require("nats-server") else { return };
    let mut world = World::start(&[]).await;
    let bus = world.bus().await;
    for n in 1..=20 {
        bus.marker(&format!("m{n}"), &n.to_string()).await;
    }
    // As if its age had come: the oldest half goes.
    let stream = bus.js.get_stream("tactical").await.unwrap();
    stream.purge().sequence(11).await.unwrap();
    world.api = Api::start(&world.nats.url(), &[]).await;
    let mut sse = Sse::open(world.api.address(), "/events/stream?since=5", &[]).await;
    let gap = sse.next().await.unwrap();
    let epoch = gap.data["from"].as_str().unwrap().split('-').next().unwrap().to_owned();
    assert_eq!(gap.data["reason"], "expired");
    assert_eq!(
        (gap.data["from"].as_str(), gap.data["to"].as_str()),
        (Some(&*format!("{epoch}-6")), Some(&*format!("{epoch}-10")))
    );
    assert_eq!(sse.next().await.unwrap().title(), "11");
    // One who has everything that is left is told nothing.
    let mut fine = Sse::open(world.api.address(), "/events/stream?since=10", &[]).await;
    assert_eq!(fine.next().await.unwrap().title(), "11");
    // One who lags behind a stream that has nothing at all any more is told, too.
    stream.purge().await.unwrap();
    world.api = Api::start(&world.nats.url(), &[]).await;
    let mut empty = Sse::open(world.api.address(), "/events/stream?since=18", &[]).await;
    assert_eq!(empty.next().await.unwrap().data["missing"], 2);
    let mut by_time = Sse::open(world.api.address(), "/events/stream?since=2020-01-01T00:00:00Z", &[]).await;
    assert_eq!(by_time.next().await.unwrap().data["missing"], 20);
    bus.marker("n", "new").await;
    assert_eq!(empty.next().await.unwrap().title(), "new");
    assert_eq!(by_time.next().await.unwrap().title(), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_is_made_as_it_is_documented() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let bus = world.bus().await;
    let stream = bus.js.get_stream("tactical").await.unwrap();
    let Config { max_messages_per_subject, max_age, allow_direct, .. } = stream.cached_info().config.clone();
    assert_eq!((max_messages_per_subject, max_age.as_secs(), allow_direct), (100, 86_400, true));
}
