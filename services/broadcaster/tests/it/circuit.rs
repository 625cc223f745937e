//! The circuit opens, probes and closes; nothing is lost and no attempt is burnt meanwhile.

use crate::{
    sink::{OK, Sink, status},
    stage::{SOON, Stage},
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
    eventually(SOON, "events are set aside", || async {
        let aside = broadcaster.metric("broadcaster_messages_processed_total{status=\"set_aside\"}").await;
        if aside > 150.0 { Ok(()) } else { Err(aside) }
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
