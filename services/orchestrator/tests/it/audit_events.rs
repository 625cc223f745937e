//! The audit log on the bus: its entries are events that carry their hashes, and what other services report is taken in
//! once, in the name of the service that the subject names.

use crate::process::Orchestrator;
use agentforge_audit::{Asker, Entry, Event, subject};
use agentforge_harness::{NatsOptions, NatsServer, eventually, require};
use async_nats::jetstream;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

async fn entries(orchestrator: &Orchestrator, operation: &str) -> Vec<Value> {
    let page = orchestrator.get(&format!("/v1/audit?operation={operation}")).await;
    page["entries"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_events_and_reported_ones_are_taken_in_once() {
    let Some(()) = require("nats-server") else { return };
    let nats = NatsServer::start(NatsOptions::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite://{}", dir.path().join("jobs.db").display());
    let orchestrator = Orchestrator::start(&store, &[("NATS_URL", &nats.url())]).await;

    orchestrator.post("/v1/jobs", &json!({"tool": "echo"})).await;
    let own = entries(&orchestrator, "SubmitJob").await.remove(0);
    let js = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let event = eventually(SOON, "the entry is on the stream", async || {
        let stream = js.get_stream("events").await.map_err(|e| e.to_string())?;
        let subject = "agentforge.events.audit.orchestrator.dev.SubmitJob";
        stream.get_last_raw_message_by_subject(subject).await.map_err(|e| e.to_string())
    })
    .await;
    let event: Value = serde_json::from_slice(&event.payload).unwrap();
    for field in ["id", "hash", "previous", "place", "principal", "outcome"] {
        assert_eq!(event["data"][field], own[field], "{field}");
    }

    let by = Asker { principal: "ops", role: "admin", address: Some([10, 0, 0, 9].into()), request_id: Some("r-9") };
    let reported = Entry { surface: "rest".into(), ..Entry::asked("broadcaster", "EnableEndpoint", &by) };
    let payload = Event::of(reported.about("endpoints", Some("siem".into())), "dev").to_json();
    for n in 0..2 {
        // Twice, as a publisher that missed the acknowledgement after the duplicate window would send it.
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("try-{n}").as_str());
        let subject = subject("broadcaster", "dev", "EnableEndpoint");
        js.publish_with_headers(subject, headers, payload.clone().into()).await.unwrap().await.unwrap();
    }
    // A message that is none stops nothing.
    js.publish("agentforge.events.audit.reported.broadcaster.dev.X", "rubbish".into()).await.unwrap().await.unwrap();
    let by = Asker { principal: "last", ..by };
    let payload = Event::of(Entry::asked("tactical-api", "RemoveMarker", &by), "dev").to_json();
    js.publish(subject("tactical-api", "dev", "RemoveMarker"), payload.into()).await.unwrap().await.unwrap();
    eventually(SOON, "the last one is taken in", async || !entries(&orchestrator, "RemoveMarker").await.is_empty())
        .await;
    let taken = entries(&orchestrator, "EnableEndpoint").await;
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert_eq!((&taken[0]["surface"], &taken[0]["principal"]), (&json!("broadcaster"), &json!("ops")));
    assert_eq!((&taken[0]["object_id"], &taken[0]["outcome"]), (&json!("siem"), &json!("asked")));
}
