//! What is missing is reported: gone by age, gone by number, conflated.

use crate::support::{Api, Bus, Got, Sse, World};
use agentforge_harness::{eventually, require};
use async_nats::jetstream::stream::Config;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

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
    // A client that has everything that is left gets no gap.
    let mut fine = Sse::open(world.api.address(), "/events/stream?since=10", &[]).await;
    assert_eq!(fine.next().await.unwrap().title(), "11");
    // A client that lags behind a stream that is now empty gets a gap too.
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

/// Puts the server back to a copy of its files, as a disk that lost its last writes does.
async fn set_back(world: &mut World, copy: &std::path::Path) {
    let store = world.nats.store_dir();
    world.nats.kill9();
    std::fs::remove_dir_all(&store).unwrap();
    copy_all(copy, &store);
    world.nats.restart().await;
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to)
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_the_stream_lost_and_gave_to_others_is_a_gap() {
    let Some(()) = require("nats-server") else { return };
    let mut world = World::start(&[]).await;
    let bus = world.bus().await;
    for n in 1..=5 {
        bus.marker(&format!("old{n}"), &format!("old {n}")).await;
    }
    let copy = tempfile::tempdir().unwrap();
    world.nats.stop_gracefully().await;
    copy_all(&world.nats.store_dir(), copy.path());
    world.nats.restart().await;
    world.api.until_ready().await;
    let mut sse = Sse::open(world.api.address(), "/events/stream?snapshot=true", &[]).await;
    let bus = world.bus().await;
    for n in 6..=9 {
        bus.marker(&format!("lost{n}"), &format!("lost {n}")).await;
    }
    let mut ids = Vec::new();
    while ids.last().is_none_or(|id: &String| !id.ends_with("-9")) {
        ids.push(sse.next().await.unwrap().id);
    }
    // The service stands still while the server loses four messages and takes eight others.
    world.api.proc.pause();
    set_back(&mut world, copy.path()).await;
    let bus = world.bus().await;
    for n in 6..=13 {
        assert_eq!(bus.marker(&format!("new{n}"), &format!("new {n}")).await, n);
    }
    world.api.proc.resume();
    // Connected clients get a gap, and everything in the stream.
    let told = next_of(&mut sse, &["gap"]).await;
    assert_eq!(told.data["reason"], "reset");
    let all: Vec<String> = (1..=5).map(|n| format!("old {n}")).chain((6..=13).map(|n| format!("new {n}"))).collect();
    for title in &all {
        assert_eq!(next_of(&mut sse, &["marker"]).await.title(), title);
    }
    // So is who comes back, to this service and to one that never saw what was lost.
    let other = Api::start(&world.nats.url(), &[]).await;
    for api in [&world.api, &other] {
        for lost in &ids[5..] {
            let header = format!("Last-Event-ID: {lost}");
            let mut late = Sse::open(api.address(), "/events/stream", &[&header]).await;
            let told = late.next().await.unwrap();
            assert_eq!((told.event.as_str(), told.data["reason"].as_str()), ("gap", Some("reset")), "{lost}");
            for title in &all {
                assert_eq!(late.next().await.unwrap().title(), title, "{lost}");
            }
        }
        // States that both histories have are not in a gap.
        let header = format!("Last-Event-ID: {}", ids[4]);
        let mut early = Sse::open(api.address(), "/events/stream", &[&header]).await;
        assert_eq!(early.next().await.unwrap().title(), "new 6");
        // An id of the form of before is taken at its word.
        let bare = format!("{}-9", ids[8].split(['.', '-']).next().unwrap());
        let mut bare = Sse::open(api.address(), "/events/stream", &[&format!("Last-Event-ID: {bare}")]).await;
        assert_eq!(bare.next().await.unwrap().title(), "new 10");
    }
}

/// The next event of these names; a word on the source may come in between.
async fn next_of(sse: &mut Sse, names: &[&str]) -> Got {
    loop {
        let got = sse.next().await.expect("the stream goes on");
        match got.event.as_str() {
            "stale" | "fresh" => {}
            name => {
                assert!(names.contains(&name), "{got:?}");
                return got;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_nobody_can_read_gets_all_that_there_is() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let bus = world.bus().await;
    bus.marker("a", "1").await;
    bus.marker("b", "2").await;
    world.api.until_metric("tactical_features{kind=\"marker\"}", 2.0).await;
    for id in ["garbage", "5", "2026-01-01T00:00:00Z", "x-1", "1-99999999999999999999", "1.zz-1", "\u{fffd}"] {
        let header = format!("Last-Event-ID: {id}");
        let mut sse = Sse::open(world.api.address(), "/events/stream?snapshot=true", &[&header]).await;
        assert_eq!(sse.status, 200, "{id}");
        let told = sse.next().await.unwrap();
        assert_eq!((told.event.as_str(), told.data["reason"].as_str()), ("gap", Some("reset")), "{id}");
        assert_eq!([sse.next().await.unwrap().title(), sse.next().await.unwrap().title()], ["1", "2"], "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_changed_purged_and_removed_under_load_is_as_planned_again() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let bus = world.bus().await;
    let planned = bus.js.get_stream("tactical").await.unwrap().cached_info().config.clone();
    let mut sse = Sse::open(world.api.address(), "/events/stream", &[]).await;
    world.api.until_clients(1.0, 0.0).await;
    let (publisher, url) = (Arc::new(AtomicBool::new(false)), world.nats.url());
    let load = tokio::spawn({
        let publisher = publisher.clone();
        async move {
            let bus = Bus::connect(&url).await;
            for n in 0_u64.. {
                if publisher.load(Ordering::Relaxed) {
                    return;
                }
                bus.marker(&format!("load{}", n % 20), &n.to_string()).await;
            }
        }
    });
    for attack in ["change", "purge", "remove", "remake"] {
        match attack {
            "change" => {
                let other =
                    Config { max_messages_per_subject: 3, max_age: Duration::from_secs(3600), ..planned.clone() };
                bus.js.update_stream(other).await.unwrap();
            }
            "purge" => {
                bus.js.get_stream("tactical").await.unwrap().purge().await.unwrap();
            }
            "remove" => {
                bus.js.delete_stream("tactical").await.unwrap();
            }
            _ => {
                bus.js.delete_stream("tactical").await.unwrap();
                let other = Config { max_messages_per_subject: 2, allow_direct: false, ..planned.clone() };
                // The service may be faster, and then there is nothing to repair.
                let _ = bus.js.create_stream(other).await;
            }
        }
        eventually(Duration::from_secs(60), "the stream is as planned", || async {
            let found = bus.js.get_stream("tactical").await.map_err(|e| e.to_string())?.cached_info().config.clone();
            let of = |c: &Config| (c.max_messages_per_subject, c.max_age, c.allow_direct, c.subjects.clone());
            if of(&found) == of(&planned) { Ok(()) } else { Err(format!("{:?}", of(&found))) }
        })
        .await;
        world.api.until_ready().await;
        // Events flow to who was there all the time, and a new client finds the picture whole.
        let mark = format!("after {attack}");
        bus.marker("mark", &mark).await;
        while next_of(&mut sse, &["marker", "gap"]).await.data["properties"]["title"] != mark.as_str() {}
        let mut late = Sse::open(world.api.address(), "/events/stream?snapshot=true", &[]).await;
        while next_of(&mut late, &["marker", "gap"]).await.data["properties"]["title"] != mark.as_str() {}
    }
    publisher.store(true, Ordering::Relaxed);
    load.await.unwrap();
    // Purged states are no longer in any picture.
    bus.js.get_stream("tactical").await.unwrap().purge().await.unwrap();
    world.api.until_metric("tactical_features{kind=\"marker\"}", 0.0).await;
}
