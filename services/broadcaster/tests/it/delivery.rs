//! What arrives: body, id, signature, trace; to whom; and what was dead is sent again.

use crate::{
    sink::{OK, Sink, status},
    stage::{SECRET, SOON, Stage, endpoint, todo},
};
use agentforge_harness::{NatsOptions, NatsServer, eventually, require};
use ed25519_dalek::{Signature, SigningKey, Verifier};
use std::time::Duration;

fn base64(text: &str) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.decode(text).unwrap()
}

fn to_base64(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

/// With the library of the standard's authors.
pub fn verify(secret: &str, request: &crate::sink::Request) -> Result<(), standardwebhooks::WebhookError> {
    let webhook = standardwebhooks::Webhook::new(secret).unwrap();
    let headers: Vec<(&str, &str)> = request.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let map = headers.into_iter().filter(|(n, _)| n.starts_with("webhook-"));
    let map = map.map(|(n, v)| (n.parse::<http::HeaderName>().unwrap(), v.parse().unwrap()));
    webhook.verify(&request.body, &http::HeaderMap::from_iter(map))
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_verify_with_another_implementation_while_secrets_rotate_and_with_v1a() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|r| if r.attempt == 1 { status(500) } else { OK }).await);
    let new_secret = format!("whsec_{}", to_base64(&[9; 32]));
    let key = SigningKey::from_bytes(&[7; 32]);
    let private = format!("whsk_{}", to_base64(&[key.to_bytes(), key.verifying_key().to_bytes()].concat()));
    let secrets = format!("secrets = [\"{new_secret}\", \"{SECRET}\", \"{private}\"]");
    let file = stage.endpoints(&endpoint("signed", &sink.url(), &secrets));
    let _broadcaster = stage
        .broadcaster(&[("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()), ("BROADCASTER_RETRY_SCHEDULE", "1s,1s")])
        .await;
    stage.publish(0..1).await;
    eventually(SOON, "the second attempt arrives", || async { sink.count() == 2 }).await;
    let requests = sink.requests();
    assert_eq!(requests[0].id(), requests[1].id(), "the id is the same in each attempt");
    assert_eq!(requests[0].body, requests[1].body, "so is the body");
    for request in &requests {
        verify(SECRET, request).expect("the old secret");
        verify(&new_secret, request).expect("the new secret");
        assert!(verify(&format!("whsec_{}", to_base64(&[1; 32])), request).is_err(), "any other one does not");
        let mut forged = request.clone();
        forged.body.push(b' ');
        assert!(verify(SECRET, &forged).is_err(), "another body does not verify");

        let signatures = &request.headers["webhook-signature"];
        let v1a = signatures.split(' ').find_map(|s| s.strip_prefix("v1a,")).expect("an asymmetric signature");
        let message =
            [request.id().as_bytes(), b".", request.headers["webhook-timestamp"].as_bytes(), b".", &request.body]
                .concat();
        let signature = Signature::from_slice(&base64(v1a)).unwrap();
        key.verifying_key().verify(&message, &signature).expect("the public key verifies");
    }
    let stamp = |n: usize| requests[n].headers["webhook-timestamp"].parse::<i64>().unwrap();
    assert!(stamp(1) > stamp(0), "the timestamp is of the attempt: {} {}", stamp(0), stamp(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_endpoint_gets_what_it_asked_for_in_its_format() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let (todos, jobs, chat) = (Sink::start(|_| OK).await, Sink::start(|_| OK).await, Sink::start(|_| OK).await);
    let file = [
        endpoint("todos", &todos.url(), "headers = { x-team = \"blue\" }"),
        endpoint("jobs", &jobs.url(), "subjects = [\"agentforge.events.job.>\", \"todos.events\"]\nformat = \"raw\""),
        endpoint("chat", &chat.url(), "subjects = [\"agentforge.events.job.*.dead\"]\nformat = \"slack\""),
    ];
    let file = stage.endpoints(&file.concat());
    let broadcaster = stage.broadcaster(&[("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap())]).await;
    stage.publish(0..1).await;
    let job = r#"{"specversion":"1.0","id":"j:dead:1","source":"/agentforge/dev","type":"agentforge.job.dead","data":{"job_id":"j","queue":"web"}}"#;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("Nats-Msg-Id", "j:dead:1"), ("traceparent", trace)];
    stage.publish_with("agentforge.events.job.dev.dead", &headers, job).await;
    eventually(SOON, "all have theirs", || async { (todos.count(), jobs.count(), chat.count()) == (1, 2, 1) }).await;

    let todo_request = &todos.requests()[0];
    let body = todo_request.json();
    assert_eq!((&body["type"], &body["subject"]), (&"todo.created".into(), &"todos.events".into()));
    assert_eq!(body["data"], serde_json::from_str::<serde_json::Value>(&todo(0)).unwrap());
    assert_eq!(body["id"].as_str(), Some(todo_request.id()));
    assert_eq!(todo_request.headers["x-team"], "blue");
    assert_eq!(todo_request.headers["content-type"], "application/json");
    assert!(!todo_request.headers.contains_key("webhook-signature"), "without a secret");

    let raw = jobs.requests();
    let dead = raw.iter().find(|r| r.id() == "j:dead:1").expect("the publisher's id is the webhook's");
    assert_eq!(dead.body, job.as_bytes());
    let trace = dead.headers["traceparent"].split('-').nth(1).unwrap().to_owned();
    assert_eq!(trace, "4bf92f3577b34da6a3ce929d0e0e4736", "the trace continues");
    assert!(chat.requests()[0].json()["text"].as_str().unwrap().contains("queue: web"));
    let answered = "broadcaster_webhook_requests_total{status_code=\"200\",endpoint=\"jobs\"}";
    eventually(SOON, "both answers are counted", || async { broadcaster.metric(answered).await == 2.0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_json_become_a_dead_letter_and_stall_nothing() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|_| OK).await);
    let broadcaster = stage.broadcaster(&[("WEBHOOK_URL", &sink.url())]).await;
    for rubbish in ["{", "hello", "\u{1}"] {
        stage.publish_with("todos.events", &[], rubbish).await;
    }
    stage.publish(0..20).await;
    eventually(SOON, "what is good arrives", || async { sink.delivered().len() == 20 }).await;
    let dead = eventually(SOON, "the rest is dead", || async {
        Some(broadcaster.dead_letters().await).filter(|all| all.len() == 3)
    })
    .await;
    assert!(dead.iter().all(|letter| letter["reason"] == "invalid"), "{dead:?}");
    assert_eq!(sink.count(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_looked_at_and_sent_again_by_filter_with_a_rate() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|_| status(400)).await);
    let file = stage.endpoints(&[endpoint("a", &sink.url(), ""), endpoint("b", &sink.url(), "")].concat());
    let token = ("BROADCASTER_TOKEN", "a-token-of-sixteen-or-more");
    let envs = [("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap())];
    let broadcaster = stage.broadcaster(&envs).await;
    stage.publish(0..10).await;
    let dead = eventually(SOON, "all are dead at once", || async {
        Some(broadcaster.dead_letters().await).filter(|all| all.len() == 20)
    })
    .await;
    assert!(dead.iter().all(|l| l["attempts"] == 1 && l["reason"] == "client_error"), "{dead:?}");
    let seq = dead[0]["seq"].as_u64().unwrap();
    let (code, one) = broadcaster.get(&format!("/v1/dead-letters/{seq}")).await;
    assert_eq!((code, one["event"]["action"].as_str()), (200, Some("created")));
    assert_eq!(broadcaster.get("/v1/dead-letters/999999").await.0, 404);

    let ids: std::collections::HashSet<String> = sink.requests().iter().map(|r| r.id().to_owned()).collect();
    sink.answer(|_| OK);
    assert_eq!(broadcaster.post("/v1/dead-letters/redeliver", "", "{}").await.0, 400, "nothing is asked for");
    let (code, answer) = broadcaster.post("/v1/dead-letters/redeliver", "", r#"{"endpoint":"a","rate":50}"#).await;
    assert_eq!((code, answer["redelivered"].as_u64()), (200, Some(10)), "{answer}");
    eventually(SOON, "those of a arrive", || async { sink.delivered().len() == 10 }).await;
    assert!(sink.delivered().keys().all(|id| ids.contains(id)), "the ids are the same");
    let left = broadcaster.dead_letters().await;
    assert!(left.len() == 10 && left.iter().all(|l| l["endpoint"] == "b"), "{left:?}");
    let seqs: Vec<u64> = left.iter().take(2).map(|l| l["seq"].as_u64().unwrap()).collect();
    let (_, answer) = broadcaster
        .post("/v1/dead-letters/redeliver", "", &format!("{{\"seqs\":[{},{},999999]}}", seqs[0], seqs[1]))
        .await;
    assert_eq!((answer["redelivered"].as_u64(), answer["missing"].as_u64()), (Some(2), Some(1)), "{answer}");

    eventually(SOON, "both of b arrive", || async { sink.delivered().values().sum::<usize>() == 12 }).await;

    // One that dies again within the duplicate window is kept again.
    sink.answer(|_| status(400));
    let (_, answer) = broadcaster.post("/v1/dead-letters/redeliver", "", r#"{"all":true}"#).await;
    assert_eq!(answer["redelivered"], 8, "{answer}");
    eventually(SOON, "they are dead again", || async { broadcaster.dead_letters().await.len() == 8 }).await;

    // With a token, requests without it are refused.
    let guarded = stage.broadcaster_only(&[envs[0], token]).await;
    assert_eq!(guarded.get("/v1/dead-letters").await.0, 401);
    assert_eq!(guarded.post("/v1/alerts", "Authorization: Bearer wrong\r\n", "{}").await.0, 401);
    let (code, _) = guarded.post("/v1/alerts", &format!("Authorization: Bearer {}\r\n", token.1), "{}").await;
    assert_eq!(code, 400, "the token opens, the body is none");

    // Alertmanager's token hands over alerts, and does nothing else.
    let alerts = ("BROADCASTER_ALERTS_TOKEN", "a-token-of-alertmanager");
    let guarded = stage.broadcaster_only(&[envs[0], token, alerts]).await;
    let bearer = format!("Authorization: Bearer {}\r\n", alerts.1);
    assert_eq!(guarded.post("/v1/alerts", &bearer, "{}").await.0, 400, "the token opens, the body is none");
    for path in ["/v1/dead-letters/redeliver", "/v1/endpoints", "/v1/endpoints/a/test", "/v1/replay"] {
        let (code, answer) = guarded.post(path, &bearer, "{}").await;
        assert_eq!((code, answer["code"].as_str()), (403, Some("permission_denied")), "{path}");
    }
    assert_eq!(guarded.call("GET", "/v1/dead-letters", &bearer, "").await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_goes_out_as_any_event() {
    let Some(()) = require("nats-server") else { return };
    let (mut stage, sink) = (Stage::new().await, Sink::start(|_| OK).await);
    let file = endpoint("teams", &sink.url(), "subjects = [\"agentforge.events.alert.>\"]\nformat = \"teams\"");
    let file = stage.endpoints(&file);
    let broadcaster = stage.broadcaster(&[("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap())]).await;
    let call = r#"{"version":"4","status":"firing","alerts":[{"status":"firing","labels":{"alertname":"Late","severity":"critical"},"annotations":{"summary":"jobs wait"},"startsAt":"2026-01-01T00:00:00Z","fingerprint":"ab12"}]}"#;
    for _ in 0..2 {
        let (code, answer) = broadcaster.post("/v1/alerts", "", call).await;
        assert_eq!((code, answer["published"].as_u64()), (200, Some(1)));
    }
    eventually(SOON, "the card arrives", || async { sink.count() == 1 }).await;
    let card = sink.requests()[0].json();
    let title = &card["attachments"][0]["content"]["body"][0]["items"][0]["inlines"][0]["text"];
    assert_eq!(title, "Firing: Late");
    assert!(card.to_string().contains("jobs wait"));
    stage.nats.kill9();
    eventually(SOON, "it says that NATS is away", || async { broadcaster.post("/v1/alerts", "", call).await.0 == 503 })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_of_an_endpoint_says_what_it_answered() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|_| OK).await);
    let broadcaster = stage.broadcaster(&[("WEBHOOK_URL", &sink.url()), ("WEBHOOK_SECRET", SECRET)]).await;
    let (code, answer) = broadcaster.post("/v1/endpoints/default/test", "", "").await;
    assert_eq!((code, answer["delivered"].as_bool(), answer["status"].as_u64()), (200, Some(true), Some(200)));
    verify(SECRET, &sink.requests()[0]).unwrap();
    sink.answer(|_| crate::sink::Answer::Status(503, "", Duration::ZERO));
    let (_, answer) = broadcaster.post("/v1/endpoints/default/test", "", "").await;
    assert_eq!((answer["delivered"].as_bool(), answer["reason"].as_str()), (Some(false), Some("service_unavailable")));
    assert_eq!(broadcaster.post("/v1/endpoints/nobody/test", "", "").await.0, 404);
    assert_eq!(stage.messages("broadcaster_retries").await, 0, "a test is not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_leaves_no_room_for_its_record_is_delivered_or_a_dead_letter_that_names_its_place() {
    let Some(()) = require("nats-server") else { return };
    let nats = NatsServer::start(NatsOptions::default().extra("max_payload: 8192")).await;
    let (stage, sink) = (Stage::of(nats), Sink::start(|r| if r.body.len() > 4000 { status(500) } else { OK }).await);
    let file = stage.endpoints(&endpoint("raw", &sink.url(), "format = \"raw\""));
    let broadcaster = stage.broadcaster(&[("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap())]).await;
    stage.publish_padded("todos.events", 0..1, 8000).await;
    stage.publish(1..20).await;
    eventually(SOON, "others arrive", || async { sink.delivered().len() == 19 }).await;
    let dead = eventually(SOON, "it is a dead letter", || async {
        Some(broadcaster.dead_letters().await).filter(|all| all.len() == 1)
    })
    .await;
    let detail = dead[0]["detail"].as_str().unwrap();
    assert!(dead[0]["reason"] == "too_large" && detail.contains("the event is events-1-"), "{dead:?}");
    sink.answer(|_| OK);
    stage.publish_padded("todos.events", 20..21, 8000).await;
    eventually(SOON, "where nothing has to be kept it is delivered", || async { sink.delivered().len() == 20 }).await;
}
