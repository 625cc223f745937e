//! One endpoint's failures affect no other, and retries that wait cost no memory.

use crate::{
    sink::{Answer, OK, Sink},
    stage::{SOON, Stage, endpoint, is_soak},
};
use agentforge_harness::{eventually, require};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_dead_and_a_hanging_endpoint_the_others_reach_their_full_concurrency_and_drain() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let slow = || Sink::start(|_| Answer::Status(200, "", Duration::from_millis(50)));
    let (one, two, hanging) = (slow().await, slow().await, Sink::start(|_| Answer::Hang).await);
    let file = [
        endpoint("dead", "http://127.0.0.1:1/", ""),
        endpoint("hanging", &hanging.url(), "timeout = \"20s\""),
        endpoint("one", &one.url(), "concurrency = 16"),
        endpoint("two", &two.url(), "concurrency = 8"),
    ];
    let file = stage.endpoints(&file.concat());
    let envs = [("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()), ("BROADCASTER_CONCURRENCY", "32")];
    let broadcaster = stage.broadcaster(&envs).await;
    stage.publish(0..400).await;
    eventually(SOON, "all lanes of the hanging one hang", || async { hanging.count() >= 32 }).await;
    stage.publish(400..800).await;
    for (sink, concurrency) in [(&one, 16), (&two, 8)] {
        eventually(SOON, "a healthy one has everything", || async {
            let n = sink.delivered().len();
            if n == 800 { Ok(()) } else { Err(n) }
        })
        .await;
        assert_eq!(sink.most_at_once(), concurrency, "not more and not less than it may");
        assert_eq!(sink.count(), 800, "each once");
    }
    assert!(hanging.delivered().is_empty());
    assert_eq!(broadcaster.endpoint("one").await["circuit"], "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_that_wait_do_not_grow_memory() {
    let Some(()) = require("nats-server") else { return };
    let parked: usize = if is_soak() { 1_000_000 } else { 20_000 };
    let (warm, deadline) = (parked / 10, Duration::from_secs(if is_soak() { 3600 } else { 120 }));
    let stage = Stage::new().await;
    // Each is wanted again in an hour.
    let sink = Sink::start(|_| Answer::Status(503, "retry-after: 3600\r\n", Duration::ZERO)).await;
    let url = sink.url();
    let envs = [
        ("WEBHOOK_URL", url.as_str()),
        ("BROADCASTER_CIRCUIT_FAILURES", "0"),
        ("BROADCASTER_RETRIES_MAX_BYTES", "4GiB"),
        ("EVENTS_MAX_BYTES", "2GiB"),
    ];
    let broadcaster = stage.broadcaster(&envs).await;
    let stored = |n: usize| {
        let stage = &stage;
        async move {
            let seen = stage.messages("broadcaster_retries").await;
            if seen == n as u64 { Ok(()) } else { Err(seen) }
        }
    };
    stage.publish(0..warm).await;
    eventually(deadline, "a tenth is parked", || stored(warm)).await;
    let before = broadcaster.resident_kib();
    stage.publish(warm..parked).await;
    eventually(deadline, "all are parked", || stored(parked)).await;
    let after = broadcaster.resident_kib();
    // As bodies of 130 bytes, nine tenths of them would already be more.
    let grown = after.saturating_sub(before);
    let bodies = (parked - warm) as u64 * 130 / 1024;
    eprintln!("{parked} parked, {before} KiB resident after a tenth of them, {after} KiB after all");
    assert!(grown < bodies.max(2048) + 2048, "grew by {grown} KiB from {before} KiB; the bodies are {bodies} KiB");
    assert_eq!(sink.count(), parked, "each was tried once");
    // Nothing of it is held: the endpoint takes what comes next.
    sink.answer(|_| OK);
    stage.publish(parked..parked + 10).await;
    eventually(SOON, "new events arrive", || async { sink.delivered().len() == 10 }).await;
}
