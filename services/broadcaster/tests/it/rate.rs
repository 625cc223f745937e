//! An endpoint's rate, also after a rest.

use crate::{
    sink::{OK, Sink},
    stage::{SOON, Stage, endpoint},
};
use agentforge_harness::{eventually, require};
use std::time::Duration;
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_holds_after_a_rest() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|_| OK).await);
    let file = stage.endpoints(&endpoint("slow", &sink.url(), "rate = 2.0"));
    let broadcaster = stage.broadcaster(&[("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap())]).await;
    stage.publish(0..1).await;
    eventually(SOON, "the first is there", || async { sink.count() == 1 }).await;
    // The rest is the attack: every lane has time to get ready.
    sleep(Duration::from_secs(6)).await;
    stage.publish(1..13).await;
    eventually(SOON, "all are there", || async { sink.count() == 13 }).await;
    let times: Vec<_> = sink.requests().iter().skip(1).map(|r| r.at).collect();
    let burst = times.iter().filter(|at| **at - times[0] < Duration::from_secs(1)).count();
    assert!(burst <= 4, "{burst} of 12 in the first second, at 2 a second");
    let took = times[11] - times[0];
    assert!(took >= Duration::from_millis(5000), "12 events at 2 a second took {took:?}");
    assert_eq!(sink.delivered().values().max(), Some(&1), "nothing was held so long that it came again");
    drop(broadcaster);
}
