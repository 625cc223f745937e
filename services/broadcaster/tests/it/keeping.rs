//! What waits in the stream of retries: it leaves with a trace, it comes without the server's schedules, and a
//! stream that is full does not stand still.

use crate::{
    sink::{Answer, OK, Sink, status},
    stage::{SECONDS_32, SOON, Stage, endpoint, todo},
};
use agentforge_harness::{NatsOptions, NatsServer, eventually, require};
use async_nats::jetstream;
use std::time::Duration;

const RETRIES: &str = "broadcaster_retries";

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_too_long_for_an_endpoint_that_never_recovers_or_is_declared_no_more_is_a_dead_letter() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let leaving = Sink::start(|_| Answer::Status(503, "retry-after: 3\r\n", Duration::ZERO)).await;
    let down = endpoint("down", "http://127.0.0.1:1/", "");
    let file = stage.endpoints(&[down.clone(), endpoint("leaving", &leaving.url(), "")].concat());
    let envs = [
        ("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()),
        ("BROADCASTER_RELOAD_INTERVAL", "100ms"),
        ("BROADCASTER_RETRY_SCHEDULE", SECONDS_32),
        // All five fail, then it is no longer called.
        ("BROADCASTER_CIRCUIT_FAILURES", "5"),
        ("BROADCASTER_CIRCUIT_PROBE", "1h"),
        ("BROADCASTER_CIRCUIT_PROBE_MAX", "1h"),
        ("BROADCASTER_RETRIES_MAX_AGE", "4s"),
    ];
    let broadcaster = stage.broadcaster(&envs).await;
    stage.publish(0..5).await;
    eventually(SOON, "all are parked", || async { leaving.count() == 5 && stage.messages(RETRIES).await == 10 }).await;
    stage.endpoints(&down);
    let dead = eventually(SOON, "all are dead letters", || async {
        let dead = broadcaster.dead_letters().await;
        if dead.len() == 10 { Ok(dead) } else { Err(dead) }
    })
    .await;
    for letter in &dead {
        assert_eq!((letter["reason"].as_str(), letter["attempts"].as_u64()), (Some("expired"), Some(1)), "{letter}");
    }
    assert_eq!(dead.iter().filter(|letter| letter["endpoint"] == "leaving").count(), 5);
    eventually(SOON, "nothing is left behind", || async { stage.messages(RETRIES).await == 0 }).await;
    assert_eq!(leaving.count(), 5);
    let counted = "broadcaster_dead_letters_total{endpoint=\"leaving\",reason=\"expired\"}";
    assert_eq!(broadcaster.metric(counted).await, 5.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_stream_takes_no_schedules_our_own_look_brings_retries() {
    let Some(()) = require("nats-server") else { return };
    // The owner of the streams does not let the broadcaster change this one.
    let users = r#"
        no_auth_user: operator
        authorization { users: [
            { user: operator, password: operator }
            { user: narrow, password: narrow, permissions { publish { allow: ">", deny: "$JS.API.STREAM.UPDATE.broadcaster_retries" } } }
        ] }"#;
    let stage = Stage::of(NatsServer::start(NatsOptions::default().extra(users)).await);
    let sink = Sink::start(|r| if r.attempt < 3 { status(500) } else { OK }).await;
    let url = sink.url();
    let envs = [
        ("WEBHOOK_URL", url.as_str()),
        ("BROADCASTER_RETRY_SCHEDULE", "1s,2s,2s,2s,2s"),
        ("BROADCASTER_CIRCUIT_FAILURES", "0"),
    ];
    let mut first = stage.broadcaster(&envs).await;
    assert_eq!(first.proc.sigterm(SOON).await, 0);
    let js = jetstream::new(stage.client().await);
    let schedules = || async { js.get_stream(RETRIES).await.unwrap().cached_info().config.allow_message_schedules };
    let made = js.get_stream(RETRIES).await.unwrap().cached_info().config.clone();
    js.delete_stream(RETRIES).await.unwrap();
    js.create_stream(jetstream::stream::Config { allow_message_schedules: false, ..made }).await.unwrap();

    let narrow = [("NATS_USER", "narrow"), ("NATS_PASSWORD", "narrow")];
    let mut second = stage.broadcaster(&[&envs[..], &narrow].concat()).await;
    stage.publish(0..20).await;
    eventually(SOON, "all arrive", || async { sink.delivered().len() == 20 }).await;
    assert!(!schedules().await);
    eventually(SOON, "each retry is counted", || async {
        let brought = second.metric("broadcaster_retries_rescued_total").await;
        if brought >= 40.0 { Ok(()) } else { Err(brought) }
    })
    .await;
    for id in sink.delivered().keys() {
        let times: Vec<_> = sink.requests().into_iter().filter(|r| r.id() == id).map(|r| r.at).collect();
        assert_eq!(times.len(), 3, "{id}");
        let pauses = (times[1] - times[0], times[2] - times[1]);
        assert!(pauses.0 >= Duration::from_millis(950) && pauses.1 >= Duration::from_millis(1950), "{pauses:?}");
    }
    eventually(SOON, "nothing is left", || async { stage.messages(RETRIES).await == 0 }).await;
    assert_eq!(second.proc.sigterm(SOON).await, 0);

    // A user with the permission changes it.
    let third = stage.broadcaster(&envs).await;
    assert!(schedules().await);
    stage.publish(20..25).await;
    eventually(SOON, "all arrive", || async { sink.delivered().len() == 25 }).await;
    assert_eq!(third.metric("broadcaster_retries_rescued_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_retries_fill_their_stream_others_go_on_and_nothing_stands_still_or_is_lost() {
    const LIMIT: u64 = 1 << 20;
    const REPLICAS: u64 = 3;
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let (busy, fine) = (Sink::start(|_| status(503)).await, Sink::start(|_| OK).await);
    let file = stage.endpoints(&[endpoint("busy", &busy.url(), ""), endpoint("fine", &fine.url(), "")].concat());
    let envs = [
        ("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()),
        ("BROADCASTER_RETRY_SCHEDULE", "5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s"),
        ("BROADCASTER_CIRCUIT_FAILURES", "0"),
        ("BROADCASTER_RETRIES_MAX_BYTES", "1MiB"),
    ];
    let replicas = [stage.broadcaster(&envs).await, stage.broadcaster(&envs).await, stage.broadcaster(&envs).await];
    let js = jetstream::new(stage.client().await);
    let config = js.get_stream(RETRIES).await.unwrap().cached_info().config.clone();
    assert_eq!(
        (config.discard, config.max_bytes),
        (jetstream::stream::DiscardPolicy::Old, -1),
        "so nothing is discarded"
    );
    // With its record each is some 1,200 bytes, so there is room for half of them.
    stage.publish_padded("todos.events", 0..1500, 700).await;
    let held = async || {
        let mut held = 0.0;
        for replica in &replicas {
            held += replica.metric("broadcaster_store_held").await;
        }
        held
    };
    let mut most = 0;
    let look = async |most: &mut u64| {
        let bytes = js.get_stream(RETRIES).await.unwrap().cached_info().state.bytes;
        *most = bytes.max(*most);
        bytes
    };
    let end = std::time::Instant::now() + SOON;
    while held().await == 0.0 || fine.delivered().len() < 1500 {
        look(&mut most).await;
        assert!(std::time::Instant::now() < end, "no more can be kept, and the other one has everything");
    }
    assert!(most > LIMIT / 2, "{most} bytes: the room is used");
    busy.answer(|_| OK);
    while busy.delivered().len() < 1500 {
        look(&mut most).await;
        assert!(std::time::Instant::now() < end + SOON, "all arrive, {} did", busy.delivered().len());
    }
    // By what the others took of the room that they saw a moment before, and by what becomes due, which is there twice
    // for a moment.
    assert!(most <= LIMIT + (REPLICAS - 1) * LIMIT / 16 + 8000, "{most} bytes were in it");
    assert!(replicas[0].dead_letters().await.is_empty());
    eventually(SOON, "nothing is left", || async { stage.messages(RETRIES).await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_larger_than_all_retries_may_be_is_a_dead_letter_and_holds_nothing_up() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let sink = Sink::start(|r| if r.body.len() > 1_000_000 { status(503) } else { OK }).await;
    let url = sink.url();
    let envs = [
        ("WEBHOOK_URL", url.as_str()),
        ("WEBHOOK_FORMAT", "raw"),
        ("BROADCASTER_CONCURRENCY", "1"),
        ("BROADCASTER_RETRIES_MAX_BYTES", "1MiB"),
        ("BROADCASTER_CIRCUIT_FAILURES", "0"),
    ];
    let broadcaster = stage.broadcaster(&envs).await;
    stage.publish_padded("todos.events", 0..1, 1_047_800 - todo(0).len()).await;
    stage.publish(1..20).await;
    eventually(SOON, "the others arrive", || async { sink.delivered().len() == 19 }).await;
    let dead = broadcaster.dead_letters().await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!((dead[0]["reason"].as_str(), dead[0]["size"].as_u64()), (Some("too_large"), Some(1_047_800)));
    assert!(dead[0]["detail"].as_str().unwrap().contains("BROADCASTER_RETRIES_MAX_BYTES"), "{dead:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_can_never_be_sent_again_is_named_and_those_behind_it_go() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let sink = Sink::start(|_| status(400)).await;
    let url = sink.url();
    let envs = [("WEBHOOK_URL", url.as_str()), ("WEBHOOK_FORMAT", "raw"), ("BROADCASTER_CIRCUIT_FAILURES", "0")];
    let more = [("BROADCASTER_RETRIES_MAX_BYTES", "1MiB")];
    let broadcaster = stage.broadcaster(&[&envs[..], &more].concat()).await;
    // The second is larger than all retries may be, and the third does not even fit into a dead letter.
    stage.publish(0..1).await;
    stage.publish_padded("todos.events", 1..2, 1_047_800 - todo(1).len()).await;
    stage.publish_padded("todos.events", 2..3, 1_048_400 - todo(2).len()).await;
    stage.publish(3..6).await;
    let dead = eventually(SOON, "all are dead letters", || async {
        let dead = broadcaster.dead_letters().await;
        if dead.len() == 6 { Ok(dead) } else { Err(dead) }
    })
    .await;
    let seq_of = |size: u64| dead.iter().find(|l| l["size"] == size).unwrap()["seq"].as_u64().unwrap();
    let (large, bare) = (seq_of(1_047_800), seq_of(0));
    sink.answer(|_| OK);
    let (code, answer) = broadcaster.post("/v1/dead-letters/redeliver", "", r#"{"all":true}"#).await;
    assert_eq!((code, &answer["redelivered"], &answer["missing"]), (200, &4.into(), &0.into()), "{answer}");
    let refused: Vec<(u64, &str)> = answer["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["seq"].as_u64().unwrap(), r["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(refused.len(), 2, "{answer}");
    for (seq, words) in [(large, "BROADCASTER_RETRIES_MAX_BYTES"), (bare, "replay")] {
        assert!(refused.iter().any(|(at, reason)| *at == seq && reason.contains(words)), "{answer}");
    }
    eventually(SOON, "those behind it arrive", || async { sink.delivered().len() == 4 }).await;
    let kept: Vec<u64> = broadcaster.dead_letters().await.iter().map(|l| l["seq"].as_u64().unwrap()).collect();
    assert_eq!(kept.len(), 2, "what cannot be sent again stays");
    assert!(kept.contains(&large) && kept.contains(&bare));
    // By their places it is the same.
    let by_place = format!(r#"{{"seqs":[{large}, {}]}}"#, u32::MAX);
    let (_, answer) = broadcaster.post("/v1/dead-letters/redeliver", "", &by_place).await;
    assert_eq!((answer["refused"].as_array().unwrap().len(), &answer["missing"]), (1, &1.into()), "{answer}");
    // A replay continues past them, too.
    let wanted = r#"{"endpoint":"default","since":"2020-01-01T00:00:00Z"}"#;
    let (code, answer) = broadcaster.post("/v1/replay", "", wanted).await;
    assert_eq!((code, &answer["matched"], &answer["replayed"]), (200, &6.into(), &4.into()), "{answer}");
    assert_eq!(answer["refused"].as_array().unwrap().len(), 2, "{answer}");
    eventually(SOON, "the others arrive again", || async { sink.delivered().values().sum::<usize>() == 8 }).await;
}
