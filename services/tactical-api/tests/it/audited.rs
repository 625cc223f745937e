//! The audit of publishing: each call of the OpenAPI document that changes something is on the stream of events, with its
//! caller, its object and how it ended; and none is carried out while that stream does not take it.

use crate::support::{World, request};
use agentforge_access::{Role, Scopes, TokenFile, digest};
use agentforge_harness::{eventually, require};
use async_nats::jetstream::{self, consumer};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const ID: &str = "unit-1";

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
    let document: Value = serde_json::from_str(&agentforge_tactical_api::openapi_json()).unwrap();
    let mut calls = Vec::new();
    for (route, item) in document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().keys().filter(|method| *method != "get");
        calls.extend(methods.map(|method| Call { method: method.to_uppercase(), route: route.clone() }));
    }
    assert!(calls.len() >= 4, "{calls:?}");
    calls
}

impl Call {
    /// A body with which it is done, or one with which it is not. What is not known here takes an empty one, or is refused.
    fn body(&self, is_good: bool) -> Value {
        match &*self.route {
            _ if !is_good => json!([1, 2]),
            "/v1/markers" => json!({"title": "Unit", "coordinates": [13.4, 52.5]}),
            "/v1/zones" => json!({"title": "Zone", "polygon": [[0, 0], [1, 0], [1, 1]]}),
            _ => json!({}),
        }
    }

    async fn make(&self, world: &World, who: &str, request_id: &str, is_good: bool) -> (u16, Value) {
        let headers = [
            format!("Authorization: Bearer {who}-0123456789abcdef"),
            format!("X-Request-ID: {request_id}"),
            "Content-Type: application/json".to_owned(),
        ];
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        // What removes is refused for its site.
        let query = if is_good { "" } else { "?site=a&site=b" };
        let path = self.route.replace("{id}", ID) + query;
        let body = self.body(is_good).to_string();
        let (status, _, answer) = request(world.api.address(), &self.method, &path, &headers, &body).await;
        (status, serde_json::from_slice(&answer).unwrap_or_default())
    }
}

async fn started(dir: &tempfile::TempDir) -> World {
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, [line("ops", Role::Submit), line("dash", Role::Read)].join("\n")).unwrap();
    World::start(&[("ACCESS_TOKENS_FILE", tokens.to_str().unwrap()), ("TACTICAL_REQUIRE_BEARER", "on")]).await
}

/// The entries of one request, oldest first.
async fn entries(world: &World, request_id: &str) -> Vec<Value> {
    let stream = world.bus().await.js.get_stream("events").await.unwrap();
    let config = consumer::pull::Config {
        filter_subject: "agentforge.events.audit.reported.tactical-api.dev.>".to_owned(),
        ack_policy: consumer::AckPolicy::None,
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut found = consumer.fetch().max_messages(1_000).messages().await.unwrap();
    let mut entries = Vec::new();
    while let Some(message) = found.next().await {
        let event: Value = serde_json::from_slice(&message.unwrap().payload).unwrap();
        if event["data"]["request_id"] == request_id {
            entries.push(event["data"].clone());
        }
    }
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_of_the_contract_leaves_its_entry() {
    let Some(()) = require("nats-server") else { return };
    let dir = tempfile::tempdir().unwrap();
    let world = started(&dir).await;
    for (n, call) in calls().iter().enumerate() {
        for (who, is_good, outcomes) in [
            ("ops", true, &["asked"][..]),
            ("ops", false, &["asked", "invalid_argument"]),
            ("dash", true, &["permission_denied"]),
        ] {
            let request_id = format!("{n}-{who}-{is_good}");
            let (status, answer) = call.make(&world, who, &request_id, is_good).await;
            assert_eq!(status < 300, outcomes == ["asked"], "{call:?} {status} {answer}");
            let found = entries(&world, &request_id).await;
            let left: Vec<&str> = found.iter().map(|e| e["outcome"].as_str().unwrap()).collect();
            assert_eq!(left, outcomes, "{call:?} by {who} answered {status} {answer} and left {found:?}");
            for entry in &found {
                assert_eq!((&entry["principal"], &entry["address"]), (&json!(who), &json!("127.0.0.1")), "{entry}");
                assert!(!entry["operation"].as_str().unwrap().contains(' '), "{entry}");
                assert_eq!(entry["object_id"].as_str(), Some(ID).filter(|_| call.route.contains("{id}")), "{entry}");
            }
        }
    }
    assert_eq!(call_of_a_stranger(&world).await, 401);
}

/// A caller that is not known has no entry: there is no name for it.
async fn call_of_a_stranger(world: &World) -> u16 {
    let (status, _) = calls()[0].make(world, "nobody", "stranger", true).await;
    assert_eq!(entries(world, "stranger").await.len(), 0);
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_cannot_be_recorded_is_refused_and_nothing_is_published() {
    let Some(()) = require("nats-server") else { return };
    let dir = tempfile::tempdir().unwrap();
    let world = started(&dir).await;
    let js = world.bus().await.js;
    let config = js.get_stream("events").await.unwrap().cached_info().config.clone();
    js.update_stream(jetstream::stream::Config { max_message_size: 1, ..config.clone() }).await.unwrap();
    for call in calls() {
        let (status, answer) = call.make(&world, "ops", "locked", true).await;
        assert_eq!((status, answer["code"].as_str()), (503, Some("unavailable")), "{call:?}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains("audit entry"), "{answer}");
    }
    let published = async || js.get_stream("tactical").await.unwrap().cached_info().state.messages;
    assert_eq!(published().await, 0);
    js.update_stream(config).await.unwrap();
    eventually(SOON, "calls are carried out again", || async {
        let (status, answer) = calls()[0].make(&world, "ops", "again", true).await;
        if status == 201 { Ok(()) } else { Err(answer) }
    })
    .await;
    assert_eq!(published().await, 1);
}
