//! The server is replaced by a newer one over its own data. From 2.12.9 and 2.14.2 on it refuses, and does not load,
//! a stream with schedules that discards what is new, as the stream of retries once was.

use crate::{
    sink::{OK, Sink, status},
    stage::{Broadcaster, SOON, Stage},
};
use agentforge_harness::{NatsOptions, NatsServer, eventually, nats_versions, require_nats};
use async_nats::jetstream::{self, stream::DiscardPolicy};

const RETRIES: &str = "broadcaster_retries";
/// The last that takes such a stream, and that earlier releases ran on.
const BEFORE: &str = "2.14.0";
const EVENTS: usize = 50;

async fn config_of(stage: &Stage) -> Option<jetstream::stream::Config> {
    let js = jetstream::new(stage.client().await);
    js.get_stream(RETRIES).await.ok().map(|stream| stream.cached_info().config.clone())
}

/// The stream as releases before made it.
async fn make_as_before(stage: &Stage) {
    let js = jetstream::new(stage.client().await);
    let config = config_of(stage).await.unwrap_or_else(|| jetstream::stream::Config {
        name: RETRIES.into(),
        subjects: vec!["broadcaster.parked.>".into(), "broadcaster.due.>".into()],
        retention: jetstream::stream::RetentionPolicy::WorkQueue,
        allow_message_schedules: true,
        allow_rollup: true,
        allow_direct: true,
        ..Default::default()
    });
    let before = jetstream::stream::Config { discard: DiscardPolicy::New, max_bytes: 512 << 20, ..config };
    match config_of(stage).await {
        None => drop(js.create_stream(before).await.unwrap()),
        Some(_) => drop(js.update_stream(before).await.unwrap()),
    }
}

async fn park_all(stage: &Stage, sink: &Sink) -> Broadcaster {
    let url = sink.url();
    let envs = [
        ("WEBHOOK_URL", url.as_str()),
        ("BROADCASTER_RETRY_SCHEDULE", "8s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s"),
        ("BROADCASTER_CIRCUIT_FAILURES", "0"),
    ];
    let broadcaster = stage.broadcaster(&envs).await;
    stage.publish(0..EVENTS).await;
    eventually(SOON, "all are parked", || async { stage.messages(RETRIES).await == EVENTS as u64 }).await;
    broadcaster
}

async fn all_arrive_once(stage: &Stage, sink: &Sink, broadcaster: &Broadcaster) {
    eventually(SOON, "all arrive", || async {
        let n = sink.delivered().len();
        if n == EVENTS { Ok(()) } else { Err(n) }
    })
    .await;
    assert!(sink.delivered().values().all(|n| *n == 1), "none twice");
    assert!(broadcaster.dead_letters().await.is_empty());
    eventually(SOON, "nothing is left", || async { stage.messages(RETRIES).await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_of_a_release_before_is_changed_in_place_and_newer_servers_load_it() {
    for newer in nats_versions().iter().skip(1) {
        let (Some(()), Some(())) = (require_nats(BEFORE), require_nats(newer)) else { return };
        let mut stage = Stage::of(NatsServer::start(NatsOptions::default().version(BEFORE)).await);
        make_as_before(&stage).await;
        let sink = Sink::start(|_| status(503)).await;
        let broadcaster = park_all(&stage, &sink).await;
        let config = config_of(&stage).await.unwrap();
        assert_eq!((config.discard, config.max_bytes), (DiscardPolicy::Old, -1));
        sink.answer(|_| OK);
        stage.nats.stop_gracefully().await;
        stage.nats.restart_as(newer).await;
        all_arrive_once(&stage, &sink, &broadcaster).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_server_did_not_load_comes_back_with_the_broadcaster() {
    for newer in nats_versions().iter().skip(1) {
        let (Some(()), Some(())) = (require_nats(BEFORE), require_nats(newer)) else { return };
        let mut stage = Stage::of(NatsServer::start(NatsOptions::default().version(BEFORE)).await);
        let sink = Sink::start(|_| status(503)).await;
        let mut first = park_all(&stage, &sink).await;
        assert_eq!(first.proc.sigterm(SOON).await, 0);
        // As a release before had it, when the server is replaced first.
        make_as_before(&stage).await;
        stage.nats.stop_gracefully().await;
        stage.nats.restart_as(newer).await;
        assert!(stage.nats.log().contains("message scheduling cannot use discard new"), "{}", stage.nats.log());
        eventually(SOON, "the server answers", || async { stage.client().await.flush().await }).await;
        assert!(config_of(&stage).await.is_none(), "the server does not load it");
        sink.answer(|_| OK);
        let url = sink.url();
        let broadcaster = stage.broadcaster(&[("WEBHOOK_URL", url.as_str())]).await;
        all_arrive_once(&stage, &sink, &broadcaster).await;
        let log = broadcaster.proc.full_log();
        assert!(log.contains("was not loaded by the server"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_too_old_is_named_by_readiness() {
    const TOO_OLD: &str = "2.11.11";
    let Some(()) = require_nats(TOO_OLD) else { return };
    let stage = Stage::of(NatsServer::start(NatsOptions::default().version(TOO_OLD)).await);
    let sink = Sink::start(|_| OK).await;
    let url = sink.url();
    let broadcaster = stage.broadcaster_only(&[("WEBHOOK_URL", url.as_str())]).await;
    eventually(SOON, "readiness names it", || async {
        let (status, body) = broadcaster.get("/readyz").await;
        let said = body["checks"]["nats"]["detail"].as_str().unwrap_or_default().to_owned();
        if status == 503 && said.contains("2.11.11 is too old") { Ok(()) } else { Err(body) }
    })
    .await;
}
