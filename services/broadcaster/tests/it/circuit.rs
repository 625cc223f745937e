//! The circuit opens, probes and closes; nothing is lost and no attempt is burnt meanwhile.

use crate::{
    sink::{OK, Sink, status},
    stage::{SECONDS_32, SOON, Stage, endpoint},
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
async fn a_receiver_that_refuses_everything_opens_it_and_few_events_are_given_up() {
    let Some(()) = require("nats-server") else { return };
    // A receiver whose token ran out.
    let (stage, sink) = (Stage::new().await, Sink::start(|_| status(401)).await);
    let url = sink.url();
    let envs = [
        ("WEBHOOK_URL", url.as_str()),
        ("BROADCASTER_CIRCUIT_FAILURES", "5"),
        ("BROADCASTER_CIRCUIT_PROBE", "200ms"),
        ("BROADCASTER_CIRCUIT_PROBE_MAX", "500ms"),
        ("BROADCASTER_CONCURRENCY", "8"),
        ("BROADCASTER_RETRY_SCHEDULE", SECONDS_32),
    ];
    let broadcaster = stage.broadcaster(&envs).await;
    stage.publish(0..200).await;
    let state = "broadcaster_endpoint_circuit_state{endpoint=\"default\"}";
    eventually(SOON, "the circuit is open", || async { broadcaster.metric(state).await >= 1.0 }).await;
    // Probes continue, and what they try does not become a dead letter because of an answer that everything gets.
    let asked = sink.count();
    eventually(SOON, "probes go on", || async { sink.count() >= asked + 3 }).await;
    sink.answer(|_| OK);
    eventually(SOON, "the rest arrives", || async {
        let (delivered, dead) = (sink.delivered().len(), broadcaster.dead_letters().await.len());
        if delivered + dead == 200 { Ok(()) } else { Err((delivered, dead)) }
    })
    .await;
    let dead = broadcaster.dead_letters().await;
    assert!(dead.len() <= 5, "{} of 200 were given up", dead.len());
    assert!(dead.iter().all(|letter| letter["reason"] == "client_error"));
    assert_eq!(broadcaster.metric(state).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_chooses_which_client_errors_are_tried_again() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let once = |code| move |r: &crate::sink::Request| if r.attempt == 1 { status(code) } else { OK };
    let (all, some, other) = (Sink::start(once(422)).await, Sink::start(once(404)).await, Sink::start(once(403)).await);
    let file = stage.endpoints(
        &[
            endpoint("all", &all.url(), "retry_4xx = true"),
            endpoint("some", &some.url(), "retry_4xx = [401, 404]"),
            endpoint("other", &other.url(), "retry_4xx = [401, 404]"),
        ]
        .concat(),
    );
    let envs = [("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()), ("BROADCASTER_RETRY_SCHEDULE", "1s")];
    let broadcaster = stage.broadcaster(&envs).await;
    stage.publish(0..1).await;
    eventually(SOON, "those that are tried again arrive", || async { all.count() == 2 && some.count() == 2 }).await;
    let dead = eventually(SOON, "the other is given up", || async {
        Some(broadcaster.dead_letters().await).filter(|dead| !dead.is_empty())
    })
    .await;
    assert_eq!((dead.len(), dead[0]["endpoint"].as_str()), (1, Some("other")));
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
