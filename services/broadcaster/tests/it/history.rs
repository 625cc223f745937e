//! What became of attempts is kept and searched, and events are sent again.

use crate::{
    sink::{OK, Sink, status},
    stage::{Broadcaster, SOON, Stage, endpoint},
};
use agentforge_harness::{eventually, require};
use serde_json::{Value, json};
use std::{collections::HashSet, time::Duration};
use tokio::time::sleep;

async fn search(broadcaster: &Broadcaster, query: &str) -> Vec<Value> {
    let (code, answer) = broadcaster.get(&format!("/v1/deliveries?{query}")).await;
    assert_eq!((code, &answer["problem"]), (200, &Value::Null), "{answer}");
    answer["deliveries"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_survive_restarts_and_are_found_by_id_endpoint_outcome_and_time() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let (good, bad) = (Sink::start(|_| OK).await, Sink::start(|_| status(422)).await);
    let file = stage.endpoints(
        &[endpoint("good", &good.url(), ""), endpoint("bad", &bad.url(), "subjects = [\"agentforge.events.x\"]")]
            .concat(),
    );
    let envs = [("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap())];
    let mut broadcaster = stage.broadcaster(&envs).await;
    stage.publish(0..300).await;
    stage.publish_with("agentforge.events.x", &[("Nats-Msg-Id", "job:x:1")], r#"{"a":1}"#).await;
    eventually(SOON, "all were tried", || async { (good.count(), bad.count()) == (300, 1) }).await;
    eventually(SOON, "all are listed", || async { search(&broadcaster, "limit=1000").await.len() == 301 }).await;
    let between = jiff::Timestamp::now();
    // The last ones are written at the stop.
    assert_eq!(broadcaster.proc.sigterm(SOON).await, 0);
    let mut broadcaster = stage.broadcaster(&envs).await;
    stage.publish(300..310).await;
    eventually(SOON, "more were tried", || async { good.count() == 310 }).await;

    let found = eventually(SOON, "those of both processes are found", || async {
        let found = search(&broadcaster, "limit=1000").await;
        if found.len() == 311 { Ok(found) } else { Err(found.len()) }
    })
    .await;
    assert_eq!(found.iter().map(|a| a["replica"].as_str().unwrap()).collect::<HashSet<_>>().len(), 2);
    let at = |a: &Value| a["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(at(&found[0]) < between && at(&found[310]) > between, "the oldest first");
    let one = search(&broadcaster, "id=job%3Ax%3A1").await;
    assert_eq!((one.len(), one[0]["endpoint"].as_str(), one[0]["status"].as_u64()), (1, Some("bad"), Some(422)));
    assert_eq!(search(&broadcaster, "endpoint=bad").await.len(), 1);
    assert_eq!(search(&broadcaster, "outcome=dead").await.len(), 1);
    assert_eq!(search(&broadcaster, "outcome=retried").await.len(), 0);
    assert_eq!(search(&broadcaster, &format!("endpoint=good&since={between}&limit=1000")).await.len(), 10);
    assert_eq!(search(&broadcaster, &format!("endpoint=good&until={between}&limit=1000")).await.len(), 300);
    assert_eq!(broadcaster.get("/v1/deliveries?since=yesterday").await.0, 400);
    assert_eq!(broadcaster.get("/v1/deliveries?before=x").await.0, 400);
    assert_eq!(broadcaster.get("/v1/deliveries?endpiont=good").await.0, 400);

    // Page by page backwards: each once.
    let (mut seen, mut before, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (_, answer) = broadcaster.get(&format!("/v1/deliveries?limit=50{before}")).await;
        seen.extend(answer["deliveries"].as_array().unwrap().clone());
        pages += 1;
        match answer["next_before"].as_str() {
            Some(place) => before = format!("&before={place}"),
            None => break,
        }
    }
    let keys: HashSet<_> = seen.iter().map(|a| (a["replica"].to_string(), a["n"].to_string())).collect();
    assert_eq!((seen.len(), keys.len()), (311, 311), "{pages} pages");

    // Without its stream deliveries continue, and what this process remembers is returned; the stream is recreated.
    let js = async_nats::jetstream::new(stage.client().await);
    js.delete_stream("broadcaster_deliveries").await.unwrap();
    stage.publish(310..320).await;
    eventually(SOON, "deliveries go on", || async { good.delivered().len() == 320 }).await;
    eventually(SOON, "the history is written again", || async { stage.messages("broadcaster_deliveries").await > 0 })
        .await;
    let _ = broadcaster.proc.sigterm(SOON).await;
}

async fn replay(broadcaster: &Broadcaster, wanted: Value) -> (u16, Value) {
    broadcaster.post("/v1/replay", "", &wanted.to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn delivered_events_are_sent_again_by_time_and_id_to_one_endpoint_under_their_ids() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let (a, b) = (Sink::start(|_| OK).await, Sink::start(|_| OK).await);
    let both = "subjects = [\"todos.events\", \"agentforge.events.x\"]";
    let file = stage.endpoints(&[endpoint("a", &a.url(), both), endpoint("b", &b.url(), both)].concat());
    let broadcaster = stage.broadcaster(&[("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap())]).await;
    stage.publish(0..30).await;
    stage.publish_with("agentforge.events.x", &[("Nats-Msg-Id", "job:x:1")], r#"{"a":1}"#).await;
    eventually(SOON, "both have them", || async { (a.count(), b.count()) == (31, 31) }).await;
    // The moment is what is asked for.
    sleep(Duration::from_millis(1100)).await;
    let since = jiff::Timestamp::now();
    stage.publish(30..40).await;
    eventually(SOON, "both have all", || async { (a.count(), b.count()) == (41, 41) }).await;
    let ids: HashSet<String> = a.delivered().into_keys().collect();

    // Counting sends nothing.
    let (code, answer) = replay(&broadcaster, json!({ "endpoint": "a", "since": since, "dry_run": true })).await;
    assert_eq!((code, &answer["matched"], &answer["replayed"]), (200, &json!(10), &json!(0)), "{answer}");
    // By time, in two requests of one run.
    let wanted = json!({ "endpoint": "a", "since": since, "limit": 6 });
    let (_, answer) = replay(&broadcaster, wanted).await;
    assert_eq!(answer["replayed"], 6, "{answer}");
    let rest = json!({ "endpoint": "a", "since": since, "after": answer["next_after"], "run": answer["run"] });
    for expected in [4, 0] {
        let (_, answer) = replay(&broadcaster, rest.clone()).await;
        assert_eq!(
            (&answer["replayed"], &answer["next_after"]),
            (&json!(expected), &Value::Null),
            "the same twice is sent once: {answer}"
        );
    }
    eventually(SOON, "the ten arrive again", || async { a.count() == 51 }).await;
    // By id.
    let (_, answer) = replay(&broadcaster, json!({ "endpoint": "a", "ids": ["job:x:1", "nobody"] })).await;
    assert_eq!(answer["replayed"], 1, "{answer}");
    eventually(SOON, "it arrives again", || async { a.count() == 52 }).await;
    // The first ten seconds before, and until.
    let (_, answer) = replay(
        &broadcaster,
        json!({ "endpoint": "a", "since": "2020-01-01T00:00:00Z", "until": since, "dry_run": true }),
    )
    .await;
    assert_eq!(answer["matched"], 31, "{answer}");

    let again = a.delivered();
    assert_eq!(again.keys().cloned().collect::<HashSet<_>>(), ids, "under the ids that they had");
    assert_eq!(again.values().filter(|n| **n == 2).count(), 11);
    assert_eq!(again["job:x:1"], 2);
    assert_eq!(b.count(), 41, "another endpoint gets nothing again");
    for (wanted, code) in [
        (json!({ "endpoint": "a" }), 400),
        (json!({ "endpoint": "nobody", "since": since }), 404),
        (json!({ "endpoint": "a", "since": "yesterday" }), 400),
        (json!({ "endpoint": "a", "since": since, "after": "x" }), 400),
        (json!({ "endpoint": "a", "since": since, "snice": since }), 400),
    ] {
        assert_eq!(replay(&broadcaster, wanted.clone()).await.0, code, "{wanted}");
    }
}
