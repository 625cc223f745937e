//! Pulling while things break: nothing goes silent, nothing is lost, and never more than was granted.

use super::{
    CONSUMER, SOON, STREAM, Setup, brisk, connect, info, make_consumer, make_queue, pulling::next, put, put_one, stored,
};
use agentforge_harness::{NatsOptions, NatsServer, TcpProxy, eventually, require};
use agentforge_jetstream::Puller;
use std::{collections::HashSet, time::Duration};
use tokio::{task::JoinSet, time::timeout};

const ACK_WAIT: Duration = Duration::from_secs(2);
const A_WHILE: Duration = Duration::from_millis(400);

/// Reads until `until` numbers were confirmed. A server that was killed has forgotten what it delivered shortly before:
/// it does not answer acks for those and redelivers them, so acks wait in parallel.
async fn work_off(puller: &mut Puller, seen: &mut HashSet<u64>, until: usize) {
    let mut acks = JoinSet::new();
    while seen.len() < until {
        tokio::select! {
            delivery = next(puller) => {
                let slots = puller.slots();
                acks.spawn(async move {
                    let confirmed = delivery.ack_confirmed(Duration::from_secs(3)).await.is_ok();
                    slots.grant(1);
                    let n = std::str::from_utf8(delivery.payload()).unwrap().parse::<u64>().unwrap();
                    confirmed.then_some(n)
                });
            }
            Some(confirmed) = acks.join_next() => seen.extend(confirmed.unwrap()),
        }
    }
    while let Some(confirmed) = acks.join_next().await {
        seen.extend(confirmed.unwrap());
    }
}

#[tokio::test]
async fn a_killed_and_restarted_server_costs_nothing_but_time() {
    let Some(()) = require("nats-server") else { return };
    let mut server = NatsServer::start(NatsOptions::default().jetstream("sync_interval: always")).await;
    let nats = connect(&server.url()).await;
    make_queue(&nats, ACK_WAIT).await;
    put(&nats, 0..400).await;
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(16));
    puller.grant(16);
    let mut seen = HashSet::new();
    for round in 1..=3 {
        work_off(&mut puller, &mut seen, round * 100).await;
        server.kill9();
        server.restart().await;
    }
    work_off(&mut puller, &mut seen, 400).await;
    eventually(SOON, "nothing is left", || async { stored(&nats).await == 0 }).await;
    put_one(&nats, "7").await.unwrap();
    assert_eq!(next(&mut puller).await.payload(), "7");
}

#[tokio::test]
async fn a_restart_while_idle_leaves_no_loop_silent() {
    let Some(Setup { nats, mut server }) = Setup::with_queue(ACK_WAIT).await else { return };
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(4));
    puller.grant(4);
    eventually(SOON, "a request waits", || async { info(&nats).await.num_waiting > 0 }).await;
    for round in 0..2 {
        if round == 0 {
            server.kill9()
        } else {
            server.stop_gracefully().await
        }
        eventually(SOON, "the puller sees that it is not bound", || async { !*puller.bound().borrow() }).await;
        server.restart().await;
        let key = round.to_string();
        eventually(SOON, "publishing works", || put_one(&nats, &key)).await;
        let delivery = next(&mut puller).await;
        assert_eq!(delivery.payload(), &*round.to_string());
        delivery.ack_confirmed(SOON).await.unwrap();
        puller.grant(1);
    }
}

#[tokio::test]
async fn a_consumer_deleted_and_made_again_is_found_again() {
    let Some(Setup { nats, server: _server }) = Setup::with_queue(ACK_WAIT).await else { return };
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(4));
    puller.grant(4);
    let mut bound = puller.bound();
    timeout(SOON, bound.wait_for(|b| *b)).await.unwrap().unwrap();
    for round in ["1", "2"] {
        nats.jetstream().delete_consumer_from_stream(CONSUMER, STREAM).await.unwrap();
        timeout(SOON, bound.wait_for(|b| !*b)).await.expect("the loss was not noticed").unwrap();
        put_one(&nats, round).await.unwrap();
        make_consumer(&nats, ACK_WAIT).await;
        let delivery = next(&mut puller).await;
        assert_eq!(delivery.payload(), round);
        delivery.ack_confirmed(SOON).await.unwrap();
        puller.grant(1);
        assert!(*bound.borrow_and_update());
    }
}

#[tokio::test]
async fn a_stream_deleted_and_made_again_is_found_again() {
    let Some(Setup { nats, server: _server }) = Setup::with_queue(ACK_WAIT).await else { return };
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(4));
    puller.grant(1);
    eventually(SOON, "a request waits", || async { info(&nats).await.num_waiting > 0 }).await;
    nats.jetstream().delete_stream(STREAM).await.unwrap();
    timeout(SOON, puller.bound().wait_for(|b| !*b)).await.expect("the loss was not noticed").unwrap();
    make_queue(&nats, ACK_WAIT).await;
    put_one(&nats, "x").await.unwrap();
    next(&mut puller).await;
}

#[tokio::test]
async fn broken_connections_bring_no_more_than_was_granted() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default()).await;
    let (proxy, direct) = (TcpProxy::start(server.address()).await, connect(&server.url()).await);
    make_queue(&direct, Duration::from_secs(600)).await;
    let nats = connect(&proxy.nats_url()).await;
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(16));
    puller.grant(10);
    // Requests of earlier connections stay with the server for a while; none of them may be served.
    for _ in 0..5 {
        eventually(SOON, "a request waits", || async { info(&direct).await.num_waiting > 0 }).await;
        proxy.drop_connections();
        eventually(SOON, "bound again", || async { nats.barrier(SOON).await && *puller.bound().borrow() }).await;
    }
    put(&direct, 0..100).await;
    for _ in 0..10 {
        next(&mut puller).await;
    }
    assert!(timeout(A_WHILE, puller.next()).await.is_err(), "an eleventh came for ten slots");
    assert_eq!(info(&direct).await.num_ack_pending, 10);
}

#[tokio::test]
async fn a_link_that_swallows_everything_is_noticed_and_nothing_is_lost() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default()).await;
    let (proxy, direct) = (TcpProxy::start(server.address()).await, connect(&server.url()).await);
    make_queue(&direct, ACK_WAIT).await;
    let nats = connect(&proxy.nats_url()).await;
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(16));
    puller.grant(16);
    eventually(SOON, "a request waits", || async { info(&direct).await.num_waiting > 0 }).await;
    proxy.blackhole();
    timeout(SOON, puller.bound().wait_for(|b| !*b)).await.expect("silence was not noticed").unwrap();
    put(&direct, 0..100).await;
    proxy.restore();
    let mut seen = HashSet::new();
    work_off(&mut puller, &mut seen, 100).await;
    eventually(SOON, "nothing is left", || async { stored(&direct).await == 0 }).await;
}

#[tokio::test]
async fn a_server_that_stands_still_for_a_while_is_pulled_from_again() {
    let Some(Setup { nats, mut server }) = Setup::with_queue(ACK_WAIT).await else { return };
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, brisk(4));
    puller.grant(4);
    timeout(SOON, puller.bound().wait_for(|b| *b)).await.unwrap().unwrap();
    server.pause();
    timeout(SOON, puller.bound().wait_for(|b| !*b)).await.expect("silence was not noticed").unwrap();
    assert!(puller.since_last_turn() < Duration::from_secs(5), "the loop itself hangs");
    server.resume();
    eventually(SOON, "publishing works", || put_one(&nats, "x")).await;
    assert_eq!(next(&mut puller).await.payload(), "x");
}
