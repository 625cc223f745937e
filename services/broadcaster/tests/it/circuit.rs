//! The circuit opens, probes and closes; nothing is lost and no attempt is burnt meanwhile.

use crate::{
    sink::{OK, Sink, status},
    stage::{SECONDS_32, SOON, Stage},
};
use agentforge_harness::{eventually, require};

#[tokio::test(flavor = "multi_thread")]
async fn it_opens_probes_and_closes_and_what_waited_is_delivered() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|_| status(500)).await);
    let url = sink.url();
    let envs = [
        ("WEBHOOK_URL", url.as_str()),
        ("BROADCASTER_CIRCUIT_FAILURES", "5"),
        ("BROADCASTER_CIRCUIT_PROBE", "500ms"),
        ("BROADCASTER_CIRCUIT_PROBE_MAX", "1s"),
        ("BROADCASTER_CONCURRENCY", "4"),
        ("BROADCASTER_RETRY_SCHEDULE", "1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s"),
    ];
    let mut broadcaster = stage.broadcaster(&envs).await;
    stage.publish(0..200).await;
    let state = "broadcaster_endpoint_circuit_state{endpoint=\"default\"}";
    eventually(SOON, "the circuit is open", || async { broadcaster.metric(state).await >= 1.0 }).await;
    // Events stay where they are: nothing is written for them.
    eventually(SOON, "events wait", || async {
        let waiting = broadcaster.endpoint("default").await["pending"].as_u64();
        if waiting.is_some_and(|n| n > 150) { Ok(()) } else { Err(waiting) }
    })
    .await;
    let asked = sink.count();
    assert!(asked < 60, "an open circuit lets single probes through: {asked}");
    // A restart keeps it open and begins with a probe.
    assert_eq!(broadcaster.proc.sigterm(SOON).await, 0);
    let broadcaster = stage.broadcaster(&envs).await;
    eventually(SOON, "it is still open", || async { broadcaster.metric(state).await >= 1.0 }).await;
    sink.answer(|_| OK);
    eventually(SOON, "it closes", || async { broadcaster.metric(state).await == 0.0 }).await;
    eventually(SOON, "all arrive", || async {
        let n = sink.delivered().len();
        if n == 200 { Ok(()) } else { Err(n) }
    })
    .await;
    assert!(broadcaster.dead_letters().await.is_empty());
    assert_eq!(broadcaster.endpoint("default").await["circuit"], "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_stream_would_discard_is_set_aside_while_the_circuit_is_open() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|_| status(500)).await);
    let url = sink.url();
    let envs = [
        ("WEBHOOK_URL", url.as_str()),
        ("BROADCASTER_CIRCUIT_FAILURES", "3"),
        ("BROADCASTER_CIRCUIT_PROBE", "1s"),
        ("BROADCASTER_CIRCUIT_PROBE_MAX", "5s"),
        ("BROADCASTER_RETRY_SCHEDULE", SECONDS_32),
        ("EVENTS_MAX_BYTES", "1MiB"),
    ];
    let broadcaster = stage.broadcaster(&envs).await;
    stage.publish(0..100).await;
    let state = "broadcaster_endpoint_circuit_state{endpoint=\"default\"}";
    eventually(SOON, "the circuit is open", || async { broadcaster.metric(state).await >= 1.0 }).await;
    // Twice what the stream keeps, a quarter of it at a time.
    for n in 0..8 {
        stage.publish_padded("todos.events", 100 + 100 * n..200 + 100 * n, 2500).await;
        eventually(SOON, "what may go soon is set aside", || async {
            let waiting = stage.unread("events", "broadcaster-dev-default").await;
            if waiting < 200 { Ok(()) } else { Err(waiting) }
        })
        .await;
    }
    assert!(broadcaster.metric("broadcaster_messages_processed_total{status=\"set_aside\"}").await > 400.0);
    sink.answer(|_| OK);
    eventually(SOON, "all arrive", || async {
        let n = sink.delivered().len();
        if n == 900 { Ok(()) } else { Err(n) }
    })
    .await;
}
