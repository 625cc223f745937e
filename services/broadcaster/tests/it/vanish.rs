//! Streams, consumers and the bucket are deleted, or made otherwise, under a broadcaster that is connected and at work:
//! they are there again within seconds, and nothing that was acknowledged is lost.

use crate::{
    sink::{OK, Sink, status},
    stage::{SOON, Stage},
};
use agentforge_harness::{eventually, require};
use async_nats::jetstream::{self, consumer};
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

/// Within this everything is made again.
const AGAIN: Duration = Duration::from_secs(30);
const DURABLE: &str = "broadcaster-dev-default";

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_of_events_is_made_again_and_readiness_tells_while_events_go_on() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|_| OK).await);
    let url = sink.url();
    let broadcaster = stage.broadcaster(&[("WEBHOOK_URL", url.as_str())]).await;
    stage.publish(0..10).await;
    eventually(SOON, "events arrive", || async { sink.delivered().len() == 10 }).await;
    let js = jetstream::new(stage.client().await);
    let was_unready = AtomicBool::new(false);
    js.delete_stream("events").await.unwrap();
    eventually(AGAIN, "the stream is there again", || async {
        let (code, body) = broadcaster.get("/readyz").await;
        let is_named =
            code == 503 && body["checks"]["streams"]["detail"].as_str().is_some_and(|d| d.contains("events"));
        was_unready.fetch_or(is_named, Ordering::SeqCst);
        let is_there = js.get_stream("events").await.is_ok();
        if is_there && was_unready.load(Ordering::SeqCst) { Ok(()) } else { Err(format!("{is_there} {code} {body}")) }
    })
    .await;
    stage.publish(10..30).await;
    eventually(AGAIN, "what was published since arrives", || async { sink.delivered().len() == 30 }).await;
    broadcaster.active().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_its_own_and_the_bucket_are_made_again_under_load() {
    let Some(()) = require("nats-server") else { return };
    // Each event fails once, and every tenth is refused for good.
    let sink = Sink::start(|r| match r.json()["id"].as_str().unwrap_or_default().ends_with('7') {
        true => status(400),
        false if r.attempt < 2 => status(500),
        false => OK,
    });
    let (stage, sink) = (Stage::new().await, sink.await);
    let url = sink.url();
    let envs = [
        ("WEBHOOK_URL", url.as_str()),
        ("WEBHOOK_FORMAT", "raw"),
        ("BROADCASTER_RETRY_SCHEDULE", "1s,1s,1s,1s,1s,1s"),
        ("BROADCASTER_CIRCUIT_FAILURES", "0"),
    ];
    let broadcaster = stage.broadcaster(&envs).await;
    let js = jetstream::new(stage.client().await);
    let published = AtomicUsize::new(0);
    for stream in ["broadcaster_dlq", "KV_broadcaster_state", "broadcaster_retries"] {
        js.delete_stream(stream).await.unwrap();
        let from = published.fetch_add(50, Ordering::SeqCst);
        stage.publish(from..from + 50).await;
        eventually(AGAIN, "it is there again", || js.get_stream(stream)).await;
        // What was published after the loss is delivered, or dead.
        eventually(SOON, "all arrive", || async {
            let wanted = (from..from + 50).filter(|n| n % 10 != 7).map(|n| n.to_string());
            let good = sink.requests().into_iter().filter(|r| r.attempt >= 2);
            let good: std::collections::HashSet<String> =
                good.map(|r| r.json()["id"].as_str().unwrap().to_owned()).collect();
            let missing: Vec<String> = wanted.filter(|n| !good.contains(n)).collect();
            if missing.is_empty() { Ok(()) } else { Err(missing) }
        })
        .await;
    }
    eventually(SOON, "each that was refused is a dead letter", || async {
        let n = broadcaster.dead_letters().await.len();
        if n == 15 { Ok(()) } else { Err(n) }
    })
    .await;
    let config = js.get_stream("broadcaster_retries").await.unwrap().cached_info().config.clone();
    assert!(config.allow_message_schedules && config.max_bytes == -1, "as it was: {config:?}");
    broadcaster.active().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_was_deleted_goes_on_where_it_was_and_one_that_was_changed_is_put_right() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|_| OK).await);
    let url = sink.url();
    let broadcaster = stage.broadcaster(&[("WEBHOOK_URL", url.as_str())]).await;
    let js = jetstream::new(stage.client().await);
    stage.publish(0..100).await;
    eventually(SOON, "events arrive", || async { sink.delivered().len() == 100 }).await;
    // How far it had come is looked at every five seconds.
    eventually(SOON, "it was seen that nothing waits", || async {
        stage.unread("events", DURABLE).await == 0 && broadcaster.endpoint("default").await["pending"] == 0
    })
    .await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    for stream in ["events", "broadcaster_retries"] {
        js.get_stream(stream).await.unwrap().delete_consumer(DURABLE).await.unwrap();
    }
    stage.publish(100..120).await;
    eventually(AGAIN, "what was published since arrives", || async { sink.delivered().len() == 120 }).await;
    assert_eq!(sink.count(), 120, "what was delivered before does not come again");

    // Another tool makes them in its own way: one that can be changed, and one that cannot.
    let events = js.get_stream("events").await.unwrap();
    events.delete_consumer(DURABLE).await.unwrap();
    let theirs = consumer::pull::Config {
        durable_name: Some(DURABLE.into()),
        filter_subject: "todos.other".into(),
        ack_policy: consumer::AckPolicy::None,
        ..Default::default()
    };
    events.create_consumer(theirs).await.unwrap();
    let retries = js.get_stream("broadcaster_retries").await.unwrap();
    let ours: consumer::PullConsumer = retries.get_consumer(DURABLE).await.unwrap();
    let ours = ours.cached_info().config.clone();
    let theirs = consumer::pull::Config {
        durable_name: Some(DURABLE.into()),
        filter_subject: ours.filter_subject.clone(),
        max_deliver: 1,
        max_ack_pending: 1,
        ..Default::default()
    };
    retries.delete_consumer(DURABLE).await.unwrap();
    retries.create_consumer(theirs).await.unwrap();
    stage.publish(120..140).await;
    eventually(2 * AGAIN, "they are put right and all arrives", || async {
        let n = sink.delivered().len();
        let put_right = retries.consumer_info(DURABLE).await.map(|info| info.config.max_deliver == -1);
        if n == 140 && put_right.is_ok_and(|is| is) { Ok(()) } else { Err(n) }
    })
    .await;
}
