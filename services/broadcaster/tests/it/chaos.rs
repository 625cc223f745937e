//! The promise, attacked: an endpoint that fails at random, and kill -9 of broadcaster and NATS meanwhile.

use crate::{
    sink::{Answer, OK, Sink, status},
    stage::{SOON, Stage, endpoint, is_soak},
};
use agentforge_harness::{eventually, require};
use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_event_reaches_an_endpoint_that_fails_at_random_while_all_are_killed() {
    let Some(()) = require("nats-server") else { return };
    let events: usize = if is_soak() { 10_000 } else { 2_000 };
    let deadline = Duration::from_secs(if is_soak() { 900 } else { 240 });
    let mut stage = Stage::new().await;
    let dice = AtomicU64::new(88_172_645_463_325_252);
    let sink = Sink::start(move |_| {
        // xorshift: a run differs from the next one only by what the machine does.
        let mut x = dice.load(Ordering::SeqCst);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        dice.store(x, Ordering::SeqCst);
        match x % 20 {
            0 => Answer::Close,
            1 => Answer::MidBody,
            2 => status(500),
            3 => Answer::Status(503, "retry-after: 1\r\n", Duration::ZERO),
            4 => Answer::Status(200, "", Duration::from_millis(300)),
            5 => status(429),
            6 if x.is_multiple_of(5) => Answer::Hang,
            _ => OK,
        }
    })
    .await;
    let file = stage.endpoints(&endpoint("target", &sink.url(), "timeout = \"2s\"\nformat = \"raw\""));
    let envs = [
        ("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()),
        ("BROADCASTER_RETRY_SCHEDULE", "1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s"),
        ("BROADCASTER_CONCURRENCY", "32"),
        ("DUPLICATE_WINDOW", "2m"),
    ];
    let mut broadcaster = stage.broadcaster(&envs).await;
    let third = events / 3;
    stage.publish(0..third).await;
    eventually(deadline, "it is at work", || async { sink.delivered().len() > third / 4 }).await;
    broadcaster.proc.kill9();
    stage.publish(third..2 * third).await;
    broadcaster = stage.broadcaster(&envs).await;
    eventually(deadline, "it continues", || async { sink.delivered().len() > third + third / 4 }).await;
    stage.nats.kill9();
    stage.nats.restart().await;
    stage.publish(2 * third..events).await;
    broadcaster.active().await;
    eventually(deadline, "nearly all is there", || async { sink.delivered().len() > events - events / 4 }).await;
    broadcaster.proc.kill9();
    broadcaster = stage.broadcaster(&envs).await;

    let numbers = || -> HashSet<String> {
        let good = sink.requests().into_iter().filter(|r| matches!(r.answer, Answer::Status(200, ..)));
        good.map(|r| r.json()["id"].as_str().unwrap().to_owned()).collect()
    };
    eventually(deadline, "every event arrived", || async {
        let n = numbers().len();
        if n == events { Ok(()) } else { Err(format!("{n}; dead: {}", broadcaster.dead_letters().await.len())) }
    })
    .await;
    // One event, one id, in every attempt.
    let pairs: HashSet<(String, String)> =
        sink.requests().iter().map(|r| (r.json()["id"].as_str().unwrap().to_owned(), r.id().to_owned())).collect();
    assert_eq!(pairs.len(), events, "an event had two ids, or an id two events");
    assert!(broadcaster.dead_letters().await.is_empty());
    let (asked, good) = (sink.count(), sink.delivered().values().sum::<usize>());
    eprintln!("{events} events, {asked} requests, {good} of them answered with 200");
    eventually(SOON, "nothing is left", || async { stage.messages("broadcaster_retries").await == 0 }).await;
}
