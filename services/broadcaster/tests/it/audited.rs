//! The audit of the API: each call of its OpenAPI document that changes something is on the stream of events, with its caller,
//! its object and how it ended; and none is carried out while that stream does not take it.

use crate::stage::{Broadcaster, SOON, Stage};
use agentforge_access::{Role, Scopes, TokenFile, digest};
use agentforge_harness::{eventually, require};
use async_nats::jetstream::{self, consumer};
use futures_util::StreamExt;
use serde_json::{Value, json};

/// Something that is not there.
const NO_NAME: &str = "nobody";

fn line(name: &str, role: Role) -> String {
    TokenFile::line(name, role, &digest(format!("{name}-0123456789abcdef")), None, &Scopes::ALL)
}

/// A call of the document that changes something.
#[derive(Debug)]
struct Call {
    method: String,
    route: String,
}

fn calls() -> Vec<Call> {
    let document: Value = serde_json::from_str(&agentforge_broadcaster::openapi_json()).unwrap();
    let mut calls = Vec::new();
    for (route, item) in document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().keys().filter(|method| *method != "get");
        calls.extend(methods.map(|method| Call { method: method.to_uppercase(), route: route.clone() }));
    }
    assert!(calls.len() >= 11, "{calls:?}");
    calls
}

impl Call {
    /// A body with which it is done. What is not known here takes an empty one, or is refused.
    fn body(&self) -> Value {
        match (&*self.method, &*self.route) {
            ("POST", "/v1/endpoints") => wanted(&format!("made-{}", uuid::Uuid::now_v7().simple())),
            ("POST", "/v1/replay") => json!({"endpoint": "filed", "since": "2026-01-01T00:00:00Z"}),
            ("POST", "/v1/dead-letters/redeliver") => json!({"all": true}),
            ("POST", "/v1/alerts") => json!({"version": "4", "status": "firing", "alerts": []}),
            _ => json!({}),
        }
    }

    async fn make(&self, broadcaster: &Broadcaster, who: &str, request: &str, name: &str) -> (u16, Value) {
        let path = self.route.replace("{name}", name);
        let headers = format!("Authorization: Bearer {who}-0123456789abcdef\r\nX-Request-ID: {request}\r\n");
        broadcaster.call(&self.method, &path, &headers, &self.body().to_string()).await
    }
}

fn wanted(name: &str) -> Value {
    json!({"name": name, "url": "http://127.0.0.1:9/"})
}

/// The entries of one request, oldest first.
async fn entries(stage: &Stage, request: &str) -> Vec<Value> {
    let stream = jetstream::new(stage.client().await).get_stream("events").await.unwrap();
    let config = consumer::pull::Config {
        filter_subject: "agentforge.events.audit.reported.broadcaster.dev.>".to_owned(),
        ack_policy: consumer::AckPolicy::None,
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut found = consumer.fetch().max_messages(1_000).messages().await.unwrap();
    let mut entries = Vec::new();
    while let Some(message) = found.next().await {
        let event: Value = serde_json::from_slice(&message.unwrap().payload).unwrap();
        if event["data"]["request_id"] == request {
            entries.push(event["data"].clone());
        }
    }
    entries
}

async fn started(stage: &Stage) -> Broadcaster {
    let tokens = stage.dir.path().join("tokens");
    std::fs::write(&tokens, [line("ops", Role::Admin), line("dash", Role::Read)].join("\n")).unwrap();
    let broadcaster = stage.broadcaster(&[("ACCESS_TOKENS_FILE", tokens.to_str().unwrap())]).await;
    eventually(SOON, "the stream of events is there", || async {
        let js = jetstream::new(stage.client().await);
        js.get_stream("events").await.map(drop).map_err(|e| e.to_string())
    })
    .await;
    broadcaster
}

/// Makes an endpoint for a call to be about.
async fn made(broadcaster: &Broadcaster) -> String {
    let name = format!("for-{}", uuid::Uuid::now_v7().simple());
    let headers = "Authorization: Bearer ops-0123456789abcdef\r\n";
    let (status, answer) = broadcaster.post("/v1/endpoints", headers, &wanted(&name).to_string()).await;
    assert_eq!(status, 201, "{answer}");
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_of_the_contract_leaves_its_entry() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let broadcaster = started(&stage).await;
    let mut done = 0;
    for (n, call) in calls().iter().enumerate() {
        let has_name = call.route.contains("{name}");
        let name = if has_name { made(&broadcaster).await } else { String::new() };
        for (who, name) in [("ops", &*name), ("ops", NO_NAME), ("dash", &*name)] {
            if name == NO_NAME && !has_name {
                continue;
            }
            let request = format!("{n}-{who}-{name}");
            let (status, answer) = call.make(&broadcaster, who, &request, name).await;
            let found = entries(&stage, &request).await;
            let outcomes: Vec<&str> = found.iter().map(|e| e["outcome"].as_str().unwrap()).collect();
            let is_refused = status >= 400;
            match outcomes[..] {
                ["permission_denied"] => assert_eq!((who, status), ("dash", 403), "{call:?}"),
                ["asked"] => assert!(who == "ops" && !is_refused, "{call:?} {status} {answer}"),
                ["asked", reason] => {
                    assert!(who == "ops" && is_refused && reason != "ok", "{call:?} {status} {answer}")
                }
                _ => panic!("{call:?} by {who} answered {status} {answer} and left {found:?}"),
            }
            done += usize::from(!is_refused);
            for entry in &found {
                assert_eq!((&entry["principal"], &entry["address"]), (&json!(who), &json!("127.0.0.1")), "{entry}");
                assert!(!entry["operation"].as_str().unwrap().contains(' '), "{entry}");
                if has_name {
                    assert_eq!(entry["object_id"], name, "{entry}");
                }
            }
        }
    }
    assert!(done >= 7, "most are carried out: {done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_cannot_be_recorded_is_refused_and_nothing_is_done() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let broadcaster = started(&stage).await;
    let name = made(&broadcaster).await;
    let headers = "Authorization: Bearer ops-0123456789abcdef\r\n";
    let shown = async || broadcaster.call("GET", "/v1/endpoints", headers, "").await;
    eventually(SOON, "the endpoint is active", || async {
        let (_, all) = shown().await;
        if all["endpoints"][0]["state"] == "active" { Ok(()) } else { Err(all) }
    })
    .await;
    let names = |all: &Value| -> Vec<(Value, Value)> {
        let all = all["endpoints"].as_array().unwrap().iter();
        all.map(|e| (e["name"].clone(), json!(e["state"] == "paused"))).collect()
    };
    let before = names(&shown().await.1);
    let js = jetstream::new(stage.client().await);
    let config = js.get_stream("events").await.unwrap().cached_info().config.clone();
    js.update_stream(jetstream::stream::Config { max_message_size: 1, ..config.clone() }).await.unwrap();
    for call in calls() {
        let (status, answer) = call.make(&broadcaster, "ops", "locked", &name).await;
        assert_eq!((status, answer["code"].as_str()), (503, Some("unavailable")), "{call:?}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains("audit entry"), "{answer}");
    }
    assert_eq!(names(&shown().await.1), before, "nothing was made, changed or deleted");
    assert_eq!(entries(&stage, "locked").await.len(), 0);
    js.update_stream(config).await.unwrap();
    eventually(SOON, "calls are carried out again", || async {
        let (status, answer) = broadcaster.call("DELETE", &format!("/v1/endpoints/{name}"), headers, "").await;
        if status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
}
