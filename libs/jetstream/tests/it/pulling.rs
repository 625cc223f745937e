//! Pulling when nothing breaks: exactly what was granted, exactly once, settled as asked.

use super::{CONSUMER, SOON, STREAM, Setup, brisk, connect, info, make_consumer, put, put_one, stored};
use agentforge_harness::eventually;
use agentforge_jetstream::{Delivery, PullOptions, Puller, consume::Error};
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// How long something that must not happen is given to happen.
const A_WHILE: Duration = Duration::from_millis(400);

pub(crate) async fn next(puller: &mut Puller) -> Delivery {
    timeout(SOON, puller.next()).await.expect("no delivery in time").expect("the puller ended")
}

#[tokio::test]
async fn ten_thousand_messages_come_exactly_once() {
    let Some(Setup { nats, server: _server }) = Setup::with_queue(SOON).await else { return };
    const ALL: u64 = 10_000;
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, PullOptions::new("test", 256));
    puller.grant(256);
    let writer = nats.clone();
    let writing = tokio::spawn(async move { put(&writer, 0..ALL).await });
    let mut seen = HashSet::new();
    while seen.len() < usize::try_from(ALL).unwrap() {
        let delivery = next(&mut puller).await;
        assert_eq!(delivery.info().delivered, 1);
        let n: u64 = std::str::from_utf8(delivery.payload()).unwrap().parse().unwrap();
        assert!(seen.insert(n), "{n} came twice");
        assert_eq!((delivery.subject(), delivery.header("Nats-Msg-Id")), ("work.x", Some(&*format!("n{n}"))));
        delivery.ack().await.unwrap();
        puller.grant(1);
    }
    writing.await.unwrap();
    // The server processes acks apart from the connection, so a barrier says nothing about them.
    eventually(SOON, "nothing is left", || async {
        let (left, info) = (stored(&nats).await, info(&nats).await);
        let state = (left, info.num_ack_pending, info.num_redelivered, info.num_pending);
        if state == (0, 0, 0, 0) { Ok(()) } else { Err(state) }
    })
    .await;
    assert!(timeout(A_WHILE, puller.next()).await.is_err(), "one more came");
}

#[tokio::test]
async fn no_more_comes_than_slots_were_granted() {
    let Some(Setup { nats, server: _server }) = Setup::with_queue(SOON).await else { return };
    put(&nats, 0..100).await;
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(64));
    assert!(timeout(A_WHILE, puller.next()).await.is_err(), "a message came without a grant");
    let mut held = 0;
    for grant in [7, 1, 3, 20] {
        puller.grant(grant);
        for _ in 0..grant {
            next(&mut puller).await;
            held += 1;
        }
        assert!(timeout(A_WHILE, puller.next()).await.is_err(), "more than {held} came");
        assert_eq!(info(&nats).await.num_ack_pending, held, "the server handed out what we do not hold");
    }
}

#[tokio::test]
async fn slots_beyond_the_queue_are_used_as_it_is_read() {
    let Some(Setup { nats, server: _server }) = Setup::with_queue(SOON).await else { return };
    put(&nats, 0..100).await;
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(8));
    puller.grant(100);
    eventually(SOON, "the queue is full", || async {
        let held = info(&nats).await.num_ack_pending;
        assert!(held <= 8, "{held} taken for a queue of 8");
        if held == 8 { Ok(()) } else { Err(held) }
    })
    .await;
    for _ in 0..100 {
        next(&mut puller).await.ack().await.unwrap();
    }
    assert!(timeout(A_WHILE, puller.next()).await.is_err());
}

#[tokio::test]
async fn idle_slots_make_few_requests_and_outlive_their_expiry() {
    let Some(Setup { nats, server: _server }) = Setup::with_queue(SOON).await else { return };
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(1000));
    let mut most = 0;
    for _ in 0..200 {
        puller.grant(1);
        tokio::time::sleep(Duration::from_millis(5)).await;
        most = most.max(info(&nats).await.num_waiting);
    }
    assert!((1..=8).contains(&most), "{most} requests wait at the server");
    // Longer than a request lives: new ones must have taken the place of those that ran out.
    tokio::time::sleep(Duration::from_secs(4)).await;
    put(&nats, 0..200).await;
    for _ in 0..200 {
        next(&mut puller).await.ack().await.unwrap();
    }
}

#[tokio::test]
async fn a_nak_brings_the_message_again_after_its_delay() {
    let Some(Setup { nats, server: _server }) = Setup::with_queue(SOON).await else { return };
    put_one(&nats, "later").await.unwrap();
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(4));
    puller.grant(3);
    let (first, at) = (next(&mut puller).await, Instant::now());
    first.nak(Some(Duration::from_millis(700))).await.unwrap();
    let second = next(&mut puller).await;
    assert!((Duration::from_millis(650)..Duration::from_secs(5)).contains(&at.elapsed()), "{:?}", at.elapsed());
    assert_eq!((first.info().delivered, second.info().delivered), (1, 2));
    assert_eq!(first.info().stream_seq, second.info().stream_seq);
    let at = Instant::now();
    second.nak(None).await.unwrap();
    let third = next(&mut puller).await;
    assert!(at.elapsed() < Duration::from_secs(5) && third.info().delivered == 3);
    third.term("never again\r\nreally").await.unwrap();
    eventually(SOON, "a terminated message is gone", || async { stored(&nats).await == 0 }).await;
}

#[tokio::test]
async fn progress_keeps_a_message_beyond_its_ack_wait_and_silence_does_not() {
    let Some(Setup { nats, server: _server }) = Setup::with_queue(Duration::from_secs(2)).await else { return };
    put_one(&nats, "long").await.unwrap();
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(4));
    puller.grant(2);
    let long = next(&mut puller).await;
    let settler = long.settler();
    for _ in 0..10 {
        settler.in_progress().await.unwrap();
        assert!(timeout(Duration::from_millis(300), puller.next()).await.is_err(), "delivered again while in progress");
    }
    let again = next(&mut puller).await;
    assert_eq!(again.info().delivered, 2);
}

#[tokio::test]
async fn a_confirmed_ack_tells_the_truth() {
    let Some(Setup { nats, server: _server }) = Setup::with_queue(SOON).await else { return };
    put(&nats, 0..2).await;
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(4));
    puller.grant(2);
    let (one, two) = (next(&mut puller).await, next(&mut puller).await);
    one.ack_confirmed(SOON).await.unwrap();
    assert_eq!(stored(&nats).await, 1, "confirmed and still there");
    one.ack_confirmed(SOON).await.expect("a second ack of the same delivery is harmless");

    nats.jetstream().delete_consumer_from_stream(CONSUMER, STREAM).await.unwrap();
    let gone = two.ack_confirmed(SOON).await.unwrap_err();
    assert!(matches!(gone, Error::Gone { .. }) && !gone.is_retryable(), "{gone:?}");
    assert_eq!(stored(&nats).await, 1);
}

#[tokio::test]
async fn a_confirmed_ack_without_a_server_ends_in_bounded_time() {
    let Some(Setup { nats, mut server }) = Setup::with_queue(SOON).await else { return };
    put_one(&nats, "x").await.unwrap();
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(4));
    puller.grant(1);
    let delivery = next(&mut puller).await;
    server.pause();
    let at = Instant::now();
    let e = delivery.ack_confirmed(Duration::from_millis(500)).await.unwrap_err();
    assert!(e.is_retryable() && at.elapsed() < Duration::from_secs(5), "{e:?} after {:?}", at.elapsed());
    server.resume();
    eventually(SOON, "the same ack is confirmed later", || delivery.ack_confirmed(SOON)).await;
}

#[tokio::test]
async fn an_idle_puller_stops_soon_and_takes_nothing_with_it() {
    let Some(Setup { nats, server: _server }) = Setup::with_queue(SOON).await else { return };
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, PullOptions::new("test", 64));
    puller.grant(64);
    eventually(SOON, "a request waits", || async { info(&nats).await.num_waiting > 0 }).await;
    let at = Instant::now();
    puller.stop();
    assert!(timeout(SOON, puller.next()).await.expect("a stopped puller ends").is_none());
    assert!(at.elapsed() < Duration::from_secs(10), "{:?}", at.elapsed());
    put(&nats, 0..10).await;
    let mut other = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(16));
    other.grant(10);
    for _ in 0..10 {
        assert_eq!(next(&mut other).await.info().delivered, 1, "a request of the stopped puller was served");
    }
}

#[tokio::test]
async fn a_busy_puller_that_stops_hands_over_all_that_was_delivered_to_it() {
    let Some(Setup { nats, server }) = Setup::with_queue(SOON).await else { return };
    let writer = connect(&server.url()).await;
    let writing = tokio::spawn(async move { put(&writer, 0..20_000).await });
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(200));
    puller.grant(200);
    let mut read = 0;
    while read < 3000 {
        next(&mut puller).await.ack().await.unwrap();
        (read += 1, puller.grant(1)).1
    }
    puller.stop();
    let mut left = Vec::new();
    while let Some(delivery) = timeout(SOON, puller.next()).await.expect("a stopped puller ends") {
        left.push(delivery);
    }
    assert!(left.len() <= 200, "{} held", left.len());
    writing.await.unwrap();
    eventually(SOON, "the server knows of no delivery but those we hold", || async {
        let pending = info(&nats).await.num_ack_pending;
        if pending == left.len() { Ok(()) } else { Err((pending, left.len())) }
    })
    .await;
}

#[tokio::test]
async fn what_a_dropped_puller_held_unread_is_handed_back_at_once() {
    let Some(Setup { nats, server: _server }) = Setup::with_queue(Duration::from_secs(600)).await else { return };
    put(&nats, 0..50).await;
    let puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(50));
    puller.grant(50);
    eventually(SOON, "all are held", || async { info(&nats).await.num_ack_pending == 50 }).await;
    drop(puller);
    let mut other = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(50));
    other.grant(50);
    let mut seen = HashSet::new();
    for _ in 0..50 {
        seen.insert(next(&mut other).await.info().stream_seq);
    }
    assert_eq!(seen.len(), 50);
}

#[tokio::test]
async fn a_puller_waits_for_a_consumer_that_is_not_there_yet() {
    let Some(Setup { nats, server: _server }) = Setup::new().await else { return };
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(4));
    puller.grant(1);
    let mut bound = puller.bound();
    assert!(timeout(A_WHILE, bound.wait_for(|b| *b)).await.is_err(), "bound to nothing");
    nats.jetstream().create_stream(super::queue()).await.unwrap();
    make_consumer(&nats, SOON).await;
    timeout(SOON, bound.wait_for(|b| *b)).await.expect("never bound").unwrap();
    put_one(&nats, "x").await.unwrap();
    next(&mut puller).await;
    assert!(puller.since_last_turn() < Duration::from_secs(5) && puller.is_running());
}
