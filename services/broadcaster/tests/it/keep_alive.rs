//! Connections that a receiver keeps for a while and then closes, and receivers that close fresh ones.

use crate::{
    sink::{Answer, OK, Sink},
    stage::{SOON, Stage, endpoint},
};
use agentforge_harness::{eventually, require};
use std::time::Duration;
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_that_a_receiver_closes_cost_no_attempt() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let (mut sinks, mut file) = (Vec::new(), String::new());
    for ms in [0, 20, 150, 300] {
        let sink = Sink::start(move |_| Answer::Leave(Duration::from_millis(ms))).await;
        file += &endpoint(&format!("e{ms}"), &sink.url(), "");
        sinks.push(sink);
    }
    let file = stage.endpoints(&file);
    let envs = [("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()), ("BROADCASTER_CIRCUIT_FAILURES", "1")];
    let broadcaster = stage.broadcaster(&envs).await;
    // The moment is the attack: each receiver closes as the next event comes.
    let mut published = 0;
    for (events, pause) in [(100, 0), (200, 20), (40, 150), (25, 300)] {
        for _ in 0..events {
            stage.publish(published..published + 1).await;
            published += 1;
            sleep(Duration::from_millis(pause)).await;
        }
    }
    for sink in &sinks {
        eventually(SOON, "all arrive", || async {
            let n = sink.delivered().len();
            if n == published { Ok(()) } else { Err(n) }
        })
        .await;
    }
    let attempts = broadcaster.deliveries().await;
    let failed: Vec<_> = attempts.iter().filter(|a| a["outcome"] != "delivered" || a["attempt"] != 1).collect();
    assert!(failed.is_empty(), "{} attempts failed: {:?}", failed.len(), failed.first());
    let mut resent = 0.0;
    for ms in [0, 20, 150, 300] {
        let name = format!("e{ms}");
        let reset = format!("broadcaster_webhook_errors_total{{endpoint=\"{name}\",reason=\"reset\"}}");
        assert_eq!(broadcaster.metric(&reset).await, 0.0, "{name}");
        assert_eq!(broadcaster.endpoint(&name).await["circuit"], "closed", "{name}");
        resent += broadcaster.metric(&format!("broadcaster_requests_resent_total{{endpoint=\"{name}\"}}")).await;
    }
    assert!(resent > 0.0, "no connection was closed at the moment that this is about");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_connection_that_breaks_is_an_attempt() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    // The second event is cut off twice: on the kept connection, and on the fresh one that follows it.
    let sink = Sink::start(|r| match (r.json()["data"]["id"].as_str(), r.attempt) {
        (Some("1"), 1 | 2) => Answer::Close,
        _ => OK,
    })
    .await;
    let url = sink.url();
    let broadcaster =
        stage.broadcaster(&[("WEBHOOK_URL", url.as_str()), ("BROADCASTER_RETRY_SCHEDULE", "1s,1s")]).await;
    stage.publish(0..1).await;
    eventually(SOON, "the first is there", || async { sink.delivered().len() == 1 }).await;
    stage.publish(1..2).await;
    eventually(SOON, "the second is there", || async { sink.delivered().len() == 2 }).await;
    let requests = sink.requests().iter().filter(|r| r.json()["data"]["id"] == "1").count();
    assert_eq!(requests, 3, "kept, fresh, and the retry");
    let log = eventually(SOON, "its attempts are listed", || async {
        let log = broadcaster.deliveries().await;
        if log.len() == 3 { Ok(log) } else { Err(log) }
    })
    .await;
    let outcomes: Vec<_> =
        log.iter().map(|a| (a["outcome"].as_str().unwrap(), a["attempt"].as_u64().unwrap())).collect();
    assert_eq!(outcomes, [("delivered", 1), ("retried", 1), ("delivered", 2)]);
    assert_eq!(log[1]["reason"], "reset");
    assert_eq!(broadcaster.metric("broadcaster_requests_resent_total{endpoint=\"default\"}").await, 1.0);
}
