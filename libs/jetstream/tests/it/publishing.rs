//! Publishing: what is stored once, what is refused, and what happens without a server.

use super::{SOON, STREAM, Setup, connect, put_one, queue, stored};
use agentforge_harness::{NatsOptions, NatsServer, TcpProxy, eventually, require};
use agentforge_jetstream::{
    HeaderMap, Publisher, publish,
    publish::{Error, LimitOf, Outgoing},
};
use agentforge_message_id::MsgId;
use async_nats::jetstream::stream;
use std::time::{Duration, Instant};

#[tokio::test]
async fn the_same_id_is_stored_once_and_says_so() {
    let Some(Setup { nats, server: _server }) = Setup::with_queue(SOON).await else { return };
    let first = put_one(&nats, "a").await.unwrap();
    assert_eq!((first.seq, &*first.stream, first.duplicate), (1, STREAM, false));
    put_one(&nats, "b").await.unwrap();
    let again = put_one(&nats, "a").await.unwrap();
    assert_eq!((again.seq, again.duplicate), (1, true));
    assert_eq!(stored(&nats).await, 2);
}

#[tokio::test]
async fn a_full_stream_refuses_and_takes_again_when_there_is_room() {
    let Some(Setup { nats, server: _server }) = Setup::new().await else { return };
    let limits = [
        stream::Config { max_messages: 3, ..queue() },
        stream::Config { max_messages_per_subject: 3, discard_new_per_subject: true, ..queue() },
        stream::Config { max_bytes: 300, ..queue() },
    ];
    for config in limits {
        nats.jetstream().create_stream(config.clone()).await.unwrap();
        let mut taken = 0;
        let refused = loop {
            match put_one(&nats, &format!("m{taken}")).await {
                Ok(_) => taken += 1,
                Err(e) => break e,
            }
            assert!(taken <= 10, "{config:?} never filled up");
        };
        assert!(matches!(refused, Error::Full { .. }) && refused.is_retryable(), "{refused:?}");
        assert_eq!(stored(&nats).await, taken, "a full stream lost messages");
        nats.jetstream().get_stream(STREAM).await.unwrap().delete_message(1).await.unwrap();
        put_one(&nats, "later").await.unwrap();
        nats.jetstream().delete_stream(STREAM).await.unwrap();
    }
}

#[tokio::test]
async fn what_can_never_be_taken_is_not_retried() {
    let Some(Setup { nats, server: _server }) = Setup::with(NatsOptions::default().extra("max_payload: 4096")).await
    else {
        return;
    };
    nats.jetstream().create_stream(stream::Config { max_message_size: 1024, ..queue() }).await.unwrap();
    for (size, whose) in [(2000, LimitOf::Stream), (5000, LimitOf::Server)] {
        let body = vec![b'x'; size].into();
        let e = publish(&nats, "work.x", MsgId::outbox("big"), HeaderMap::new(), body).await.unwrap_err();
        let is_it = matches!(e, Error::TooLarge { size: told, limit_of, .. } if (told, limit_of) == (size, whose));
        assert!(is_it && !e.is_retryable(), "{e:?}");
    }
    let e = publish(&nats, "nobody.listens", MsgId::outbox("x"), HeaderMap::new(), "x".into()).await.unwrap_err();
    assert!(matches!(e, Error::NoStream { .. }), "{e:?}");
    let e = publish(&nats, "not a subject", MsgId::outbox("x"), HeaderMap::new(), "x".into()).await.unwrap_err();
    assert!(!e.is_retryable(), "{e:?}");
}

#[tokio::test]
async fn without_a_server_a_publish_fails_in_bounded_time_and_works_again_later() {
    let Some(Setup { nats, mut server }) = Setup::with_queue(SOON).await else { return };
    server.kill9();
    eventually(SOON, "the loss is noticed", || async { !nats.is_connected() }).await;
    let limit = Duration::from_millis(600);
    let before = Instant::now();
    let id = MsgId::outbox("kept");
    let e = publish::publish_within(&nats, "work.x", id, HeaderMap::new(), "kept".into(), limit).await.unwrap_err();
    assert!(matches!(e, Error::Unavailable { .. }) && e.is_retryable(), "{e:?}");
    assert!(before.elapsed() >= limit && before.elapsed() < limit + Duration::from_secs(2), "{:?}", before.elapsed());

    server.restart().await;
    let ack = eventually(SOON, "the same publish works again", || put_one(&nats, "kept")).await;
    assert!(!ack.duplicate, "what failed for want of a connection was sent all the same");
    assert_eq!(stored(&nats).await, 1);
}

#[tokio::test]
async fn a_publish_in_flight_ends_when_its_connection_breaks_not_at_its_timeout() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default()).await;
    let proxy = TcpProxy::start(server.address()).await;
    let nats = connect(&proxy.nats_url()).await;
    nats.jetstream().create_stream(queue()).await.unwrap();

    let publisher = Publisher::with_limits(nats.clone(), 8, Duration::from_secs(60));
    proxy.blackhole();
    let ack = publisher.send("work.x", MsgId::outbox("a"), HeaderMap::new(), "a".into()).await.unwrap();
    proxy.drop_connections();
    let e = tokio::time::timeout(Duration::from_secs(10), ack).await.expect("waited for its timeout").unwrap_err();
    assert!(matches!(e, Error::Unavailable { .. }), "{e:?}");
    proxy.restore();
    let ack = eventually(SOON, "a retry with the same id works", || put_one(&nats, "a")).await;
    assert_eq!((ack.seq, stored(&nats).await), (1, 1));
}

fn together(texts: &[&str]) -> Vec<Outgoing> {
    let message = |text: &&str| {
        // A text that is a subject of its own goes there.
        let subject = if text.contains(' ') || text.contains('.') { *text } else { "work.x" };
        let payload = text.to_string().into();
        Outgoing { subject: subject.into(), id: MsgId::outbox(text), headers: HeaderMap::new(), payload }
    };
    texts.iter().map(message).collect()
}

#[tokio::test]
async fn messages_that_are_sent_together_are_answered_one_by_one_and_in_order() {
    let Some(Setup { nats, server: _server }) = Setup::with_queue(SOON).await else { return };
    let texts = ["a", "not a subject", "b", "a", "nobody.listens", "c"];
    let deadline = tokio::time::Instant::now() + SOON;
    let answers = publish::send_all(&nats, together(&texts), deadline).await.all().await;
    assert_eq!(answers.len(), texts.len());
    let ack = |n: usize| answers[n].as_ref().map(|ack| (ack.seq, ack.duplicate)).unwrap();
    assert_eq!([ack(0), ack(2), ack(3), ack(5)], [(1, false), (2, false), (1, true), (3, false)]);
    assert!(matches!(&answers[1], Err(e) if e.is_of_the_message()), "{:?}", answers[1]);
    assert!(matches!(answers[4], Err(Error::NoStream { .. })), "{:?}", answers[4]);
    assert!(publish::send_all(&nats, vec![], deadline).await.all().await.is_empty());
}

#[tokio::test]
async fn messages_that_were_sent_together_end_when_their_connection_breaks() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default()).await;
    let proxy = TcpProxy::start(server.address()).await;
    let nats = connect(&proxy.nats_url()).await;
    nats.jetstream().create_stream(queue()).await.unwrap();
    proxy.blackhole();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let acks = publish::send_all(&nats, together(&["a", "b"]), deadline).await;
    proxy.drop_connections();
    let answers = tokio::time::timeout(Duration::from_secs(10), acks.all()).await.expect("waited for its deadline");
    assert!(answers.iter().all(|a| matches!(a, Err(Error::Unavailable { .. }))), "{answers:?}");

    // And they are not sent late.
    eventually(SOON, "the loss is noticed", || async { !nats.is_connected() }).await;
    let soon = tokio::time::Instant::now() + Duration::from_millis(200);
    let answers = publish::send_all(&nats, together(&["c", "d"]), soon).await.all().await;
    assert!(answers.iter().all(|a| matches!(a, Err(e) if e.is_retryable())), "{answers:?}");
    proxy.restore();
    eventually(SOON, "the connection is back", || async { nats.is_connected() }).await;
    assert_eq!((stored(&nats).await, put_one(&nats, "a").await.unwrap().seq), (0, 1));
}

#[tokio::test]
async fn pipelined_publishes_keep_their_order_and_need_nobody_to_poll_them() {
    let Some(Setup { nats, server: _server }) = Setup::with_queue(SOON).await else { return };
    let publisher = Publisher::with_limits(nats.clone(), 64, SOON);
    let mut acks = Vec::new();
    // Far more than fit in flight, and no ack is looked at before all are sent.
    for n in 0..2000u64 {
        let id = MsgId::outbox(&n.to_string());
        let sent = publisher.send("work.x", id, HeaderMap::new(), "x".into());
        acks.push(tokio::time::timeout(SOON, sent).await.expect("blocked by acks that nobody polls").unwrap());
    }
    for (n, ack) in acks.into_iter().enumerate() {
        assert_eq!(ack.await.unwrap().seq, n as u64 + 1);
    }
}

#[tokio::test]
async fn places_of_acks_that_never_come_are_given_back() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default()).await;
    let proxy = TcpProxy::start(server.address()).await;
    let nats = connect(&proxy.nats_url()).await;
    nats.jetstream().create_stream(queue()).await.unwrap();
    let publisher = Publisher::with_limits(nats.clone(), 2, Duration::from_millis(400));
    proxy.blackhole();
    for round in 0..3 {
        let send = |key: String| {
            let publisher = publisher.clone();
            async move { publisher.send("work.x", MsgId::outbox(&key), HeaderMap::new(), "x".into()).await }
        };
        let (a, b) = (send(format!("a{round}")).await.unwrap(), send(format!("b{round}")).await.unwrap());
        for ack in [a, b] {
            let told = tokio::time::timeout(SOON, ack).await.expect("never timed out");
            assert!(matches!(told, Err(Error::Unavailable { .. })), "{told:?}");
        }
    }
    proxy.restore();
    eventually(SOON, "publishing works again", || put_one(&nats, "after")).await;
}
