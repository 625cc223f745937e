//! Endpoints created, paused, rotated and deleted through the API, in addition to those of the file.

use crate::{
    delivery::verify,
    sink::{OK, Sink, status},
    stage::{Broadcaster, SECRET, SOON, Stage, endpoint},
};
use agentforge_harness::{eventually, require};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

async fn create(broadcaster: &Broadcaster, wanted: Value) -> (u16, Value) {
    broadcaster.post("/v1/endpoints", "", &wanted.to_string()).await
}

async fn is_active(broadcaster: &Broadcaster, name: &str) {
    eventually(SOON, "it delivers", || async {
        let shown = broadcaster.endpoint(name).await;
        if shown["state"] == "active" { Ok(()) } else { Err(shown) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_made_survives_everything_and_goes() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink, of_file) = (Stage::new().await, Sink::start(|_| OK).await, Sink::start(|_| OK).await);
    let file = stage.endpoints(&endpoint("filed", &of_file.url(), ""));
    let envs = [("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap())];
    let mut first = stage.broadcaster(&envs).await;
    // A second replica takes it up by itself.
    let second = stage.broadcaster(&envs).await;

    let (code, answer) =
        create(&first, json!({ "name": "made", "url": sink.url(), "headers": { "X-Key": "hunter2" } })).await;
    assert_eq!(code, 201, "{answer}");
    let secret = answer["secret"].as_str().expect("it is signed, and the secret is shown once").to_owned();
    assert_eq!(first.get("/v1/endpoints/made").await.0, 200, "its creator finds it at once");
    for replica in [&first, &second] {
        is_active(replica, "made").await;
        let (code, shown) = replica.get("/v1/endpoints/made").await;
        assert_eq!(
            (code, shown["source"].as_str(), shown["signed"].as_bool()),
            (200, Some("api"), Some(true)),
            "{shown}"
        );
        let all = replica.get("/v1/endpoints").await.1.to_string() + &shown.to_string();
        assert!(!all.contains(&secret) && !all.contains("hunter2") && !all.contains("/hook"), "{all}");
    }
    stage.publish(0..1).await;
    eventually(SOON, "it arrives", || async { sink.count() == 1 }).await;
    verify(&secret, &sink.requests()[0]).unwrap();
    assert_eq!(sink.requests()[0].headers["x-key"], "hunter2");

    // What is wrong is refused with its reason, and without the values.
    for (wanted, code, words) in [
        (json!({ "name": "made", "url": sink.url() }), 409, "already"),
        (json!({ "name": "filed", "url": sink.url() }), 409, "already"),
        (json!({ "name": "b", "url": "http://hunter2.example/" }), 400, "url: http to"),
        (json!({ "name": "b", "url": "https://10.0.0.1/" }), 400, "url: "),
        (json!({ "name": "b", "url": "file:/etc/hunter2" }), 400, "the API takes values"),
        (json!({ "name": "b", "url": sink.url(), "secret": "hunter2" }), 400, "secret 1 is neither"),
        (json!({ "name": "b", "url": sink.url(), "secrt": "hunter2" }), 400, "unknown field `secrt`"),
        (json!({ "name": "b", "url": 7 }), 400, "wrong type"),
    ] {
        let (status, answer) = create(&first, wanted).await;
        let detail = answer["detail"].as_str().unwrap_or_default();
        let is_silent = !detail.contains("hunter2") || words == "url: http to";
        assert!(status == code && detail.contains(words) && is_silent, "{status} {answer}");
    }
    // Those of the file are changed there.
    let changes = [("DELETE", ""), ("PATCH", ""), ("POST", "/rotate")];
    for (method, more) in changes {
        let (code, answer) = first.call(method, &format!("/v1/endpoints/filed{more}"), "", "{}").await;
        assert_eq!((code, answer["code"].as_str()), (409, Some("read_only")), "{answer}");
    }
    assert_eq!(first.endpoint("filed").await["source"], "settings");

    // Replicas are killed; it is still there.
    first.proc.kill9();
    assert_eq!(second.get("/v1/endpoints/made").await.0, 200);
    drop(second);
    let broadcaster = stage.broadcaster(&envs).await;
    is_active(&broadcaster, "made").await;
    stage.publish(1..2).await;
    eventually(SOON, "it continues", || async { sink.delivered().len() == 2 }).await;

    assert_eq!(broadcaster.call("DELETE", "/v1/endpoints/made", "", "").await.0, 200);
    assert_eq!(broadcaster.get("/v1/endpoints/made").await.0, 404, "it is gone");
    eventually(SOON, "its consumers are gone", || async {
        let js = async_nats::jetstream::new(stage.client().await);
        for stream in ["events", "broadcaster_retries"] {
            let stream = js.get_stream(stream).await.unwrap();
            if stream.consumer_info("broadcaster-dev-made").await.is_ok() {
                return false;
            }
        }
        true
    })
    .await;
    assert_eq!(broadcaster.call("DELETE", "/v1/endpoints/made", "", "").await.0, 404);
    stage.publish(2..3).await;
    eventually(SOON, "the other has all", || async { of_file.delivered().len() == 3 }).await;
    assert_eq!(sink.delivered().len(), 2, "a deleted endpoint was called");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_rotates_with_an_overlap_in_which_both_sign() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|_| OK).await);
    let broadcaster = stage.broadcaster(&[]).await;
    let (code, answer) = create(&broadcaster, json!({ "name": "a", "url": sink.url(), "secret": SECRET })).await;
    assert_eq!((code, &answer["secret"]), (201, &Value::Null), "one that was given is not shown");
    is_active(&broadcaster, "a").await;
    stage.publish(0..1).await;
    eventually(SOON, "it arrives", || async { sink.count() == 1 }).await;
    verify(SECRET, &sink.requests()[0]).unwrap();

    let (code, answer) = broadcaster.post("/v1/endpoints/a/rotate", "", r#"{"overlap":"20s"}"#).await;
    assert_eq!(code, 200, "{answer}");
    let next = answer["secret"].as_str().unwrap().to_owned();
    // Each event is signed with the secrets of its time: first both, then only the new one.
    let mut published = 1;
    for (both, overlaps) in [(true, 1), (false, 0)] {
        let until = std::time::Instant::now() + SOON;
        loop {
            stage.publish(published..published + 1).await;
            published += 1;
            eventually(SOON, "it arrives", || async { sink.delivered().len() == published }).await;
            let last = sink.requests().pop().unwrap();
            if (verify(&next, &last).is_ok(), verify(SECRET, &last).is_ok()) == (true, both) {
                break;
            }
            assert!(std::time::Instant::now() < until, "both sign: {both}, never seen");
        }
        let shown = broadcaster.get("/v1/endpoints/a").await.1;
        assert_eq!(shown["secrets_end_at"].as_array().unwrap().len(), overlaps, "{shown}");
    }
    for (body, words) in [(r#"{"overlap":"31d"}"#, "overlap"), (r#"{"secret":"hunter2"}"#, "secret is neither")] {
        let (code, answer) = broadcaster.post("/v1/endpoints/a/rotate", "", body).await;
        let detail = answer["detail"].as_str().unwrap();
        assert!(code == 400 && detail.contains(words) && !detail.contains("hunter2"), "{answer}");
    }
    assert_eq!(broadcaster.post("/v1/endpoints/nobody/rotate", "", "").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_changed_and_what_waits_for_it_goes_where_it_is_now() {
    let Some(()) = require("nats-server") else { return };
    let (stage, old, new) = (Stage::new().await, Sink::start(|_| status(503)).await, Sink::start(|_| OK).await);
    let envs = [("BROADCASTER_RETRY_SCHEDULE", "5s,5s,5s,5s"), ("BROADCASTER_CIRCUIT_FAILURES", "0")];
    let first = stage.broadcaster(&envs).await;
    let second = stage.broadcaster(&envs).await;
    let wanted = json!({
        "name": "a", "url": old.url(), "secret": SECRET, "rate": 100.0, "headers": { "X-Key": "hunter2", "X-Team": "blue" }
    });
    assert_eq!(create(&first, wanted).await.0, 201);
    for replica in [&first, &second] {
        is_active(replica, "a").await;
    }
    stage.publish(0..5).await;
    eventually(SOON, "all wait for their retries", || async { stage.messages("broadcaster_retries").await == 5 }).await;

    let update = async |wanted: Value| first.call("PATCH", "/v1/endpoints/a", "", &wanted.to_string()).await;
    for (wanted, words) in [
        (json!({ "url": "http://hunter2.example/" }), "url: http to"),
        (json!({ "url": "https://10.0.0.1/" }), "url: "),
        (json!({ "url": "env:HOME" }), "the API takes values"),
        (json!({ "secret": SECRET }), "rotate"),
        (json!({ "start": "all" }), "unknown field"),
        (json!({ "subjects": ["a..b"] }), "not a NATS subject"),
        (json!([]), "no JSON"),
    ] {
        let (code, answer) = update(wanted).await;
        assert!(code == 400 && answer["detail"].as_str().unwrap().contains(words), "{words}: {code} {answer}");
    }
    let subjects = json!(["todos.events", "agentforge.events.x"]);
    let change = json!({
        "url": new.url(), "subjects": subjects, "rate": null, "timeout": "3s", "retry_4xx": [404],
        "headers": { "x-team": "red", "X-Key": null }
    });
    let (code, shown) = update(change.clone()).await;
    assert_eq!((code, &shown["rate"], &shown["subjects"]), (200, &Value::Null, &subjects), "{shown}");
    assert_eq!(
        (&shown["timeout"], &shown["retry_4xx"], &shown["headers"]),
        (&json!("3s"), &json!("404"), &json!(["x-team"]))
    );
    assert!(!shown.to_string().contains("red") && !shown.to_string().contains(&new.url()), "{shown}");
    eventually(SOON, "the other replica follows", || async {
        second.endpoint("a").await["subjects"] == subjects && second.endpoint("a").await["state"] == "active"
    })
    .await;
    let at_old = old.count();
    eventually(SOON, "what waited goes to the new place", || async { new.delivered().len() == 5 }).await;
    stage.publish_to("agentforge.events.x", 5..6).await;
    stage.publish(6..8).await;
    eventually(SOON, "what is new goes there, too", || async { new.delivered().len() == 8 }).await;
    assert_eq!(old.count(), at_old, "nothing goes to the old place any more");
    for request in new.requests() {
        verify(SECRET, &request).unwrap();
        assert_eq!(
            (request.headers.get("x-team").map(String::as_str), request.headers.get("x-key")),
            (Some("red"), None)
        );
    }
    // The same again changes nothing, and answers at once.
    let updated_at = shown["updated_at"].clone();
    assert_eq!(update(change).await.1["updated_at"], updated_at);
    assert_eq!(first.call("PATCH", "/v1/endpoints/nobody", "", "{}").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_endpoint_is_not_called_and_loses_nothing() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink, other) = (Stage::new().await, Sink::start(|_| OK).await, Sink::start(|_| OK).await);
    let url = other.url();
    let envs = [("WEBHOOK_URL", url.as_str())];
    let mut broadcaster = stage.broadcaster(&envs).await;
    assert_eq!(create(&broadcaster, json!({ "name": "a", "url": sink.url() })).await.0, 201);
    is_active(&broadcaster, "a").await;
    assert_eq!(broadcaster.post("/v1/endpoints/a/pause", "", "").await.0, 200);
    assert_eq!(broadcaster.endpoint("a").await["state"], "paused");
    stage.publish(0..50).await;
    eventually(SOON, "the other has all", || async { other.delivered().len() == 50 }).await;
    eventually(SOON, "they wait", || async { broadcaster.endpoint("a").await["pending"] == 50 }).await;
    assert_eq!(broadcaster.metric("broadcaster_endpoint_paused{endpoint=\"a\"}").await, 1.0);
    // A restart does not forget it.
    assert_eq!(broadcaster.proc.sigterm(SOON).await, 0);
    let broadcaster = stage.broadcaster_only(&envs).await;
    eventually(SOON, "it is paused", || async { broadcaster.endpoint("a").await["state"] == "paused" }).await;
    eventually(SOON, "they still wait", || async { broadcaster.endpoint("a").await["pending"] == 50 }).await;
    assert_eq!(sink.count(), 0, "a paused endpoint was called");
    assert_eq!(broadcaster.post("/v1/endpoints/a/resume", "", "").await.0, 200);
    eventually(SOON, "what waited arrives", || async { sink.delivered().len() == 50 }).await;
    assert_eq!(sink.count(), 50, "each once");
    // One of the settings can be paused, too.
    assert_eq!(broadcaster.post("/v1/endpoints/default/pause", "", "").await.0, 200);
    eventually(SOON, "it is paused", || async { broadcaster.endpoint("default").await["state"] == "paused" }).await;
    assert_eq!(broadcaster.post("/v1/endpoints/nobody/pause", "", "").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_of_the_api_are_put_back_when_their_bucket_is_lost() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|_| OK).await);
    let mut broadcaster = stage.broadcaster(&[]).await;
    assert_eq!(create(&broadcaster, json!({ "name": "a", "url": sink.url() })).await.0, 201);
    is_active(&broadcaster, "a").await;
    let js = async_nats::jetstream::new(stage.client().await);
    js.delete_key_value("broadcaster_state").await.unwrap();
    eventually(2 * SOON, "the bucket has it again", || async {
        let Ok(bucket) = js.get_key_value("broadcaster_state").await else { return false };
        matches!(bucket.get("_made.dev").await, Ok(Some(_)))
    })
    .await;
    assert_eq!(broadcaster.proc.sigterm(SOON).await, 0);
    let broadcaster = stage.broadcaster_only(&[]).await;
    is_active(&broadcaster, "a").await;
    stage.publish(0..1).await;
    eventually(SOON, "it delivers", || async { sink.count() == 1 }).await;
}

/// The document of managed endpoints, as the bucket contains it.
async fn stored(stage: &Stage) -> String {
    let bucket = async_nats::jetstream::new(stage.client().await).get_key_value("broadcaster_state").await.unwrap();
    let bytes = bucket.get("_made.dev").await.unwrap().unwrap_or_default();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_of_the_api_are_encrypted_in_their_bucket_and_keys_rotate() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|_| OK).await);
    let (old, new) = (STANDARD.encode([1; 32]), STANDARD.encode([2; 32]));
    // Made before a key was set, encrypted once there is one, and again at each step of a rotation.
    let mut broadcaster = stage.broadcaster(&[]).await;
    let wanted = json!({ "name": "a", "url": sink.url(), "secret": SECRET, "headers": { "X-Key": "hunter2" } });
    assert_eq!(create(&broadcaster, wanted).await.0, 201);
    is_active(&broadcaster, "a").await;
    let mut before = stored(&stage).await;
    assert!(before.contains(SECRET) && before.contains("hunter2"), "{before}");
    for (round, keys) in [old.clone(), format!("{new},{old}"), new].into_iter().enumerate() {
        assert_eq!(broadcaster.proc.sigterm(SOON).await, 0);
        broadcaster = stage.broadcaster_only(&[("BROADCASTER_STATE_KEY", &*keys)]).await;
        is_active(&broadcaster, "a").await;
        if round < 2 {
            eventually(SOON, "it is encrypted with the first key", || async { stored(&stage).await != before }).await;
        }
        before = stored(&stage).await;
        let is_hidden = !before.contains(SECRET) && !before.contains("hunter2") && !before.contains("/hook");
        assert!(is_hidden, "{before}");
        stage.publish(round..round + 1).await;
        eventually(SOON, "it is delivered", || async { sink.delivered().len() == round + 1 }).await;
        verify(SECRET, sink.requests().last().unwrap()).unwrap();
    }

    // Without its key it is not served, nothing is overwritten, and the reason is visible.
    assert_eq!(broadcaster.proc.sigterm(SOON).await, 0);
    for (envs, words) in
        [(&[][..], "BROADCASTER_STATE_KEY is not set"), (&[("BROADCASTER_STATE_KEY", &*old)][..], "no key of")]
    {
        let mut without = stage.broadcaster_only(envs).await;
        eventually(SOON, "readiness names the reason", || async {
            let check = without.get("/readyz").await.1["checks"]["managed-endpoints"].clone();
            let is_named = check["detail"].as_str().is_some_and(|detail| detail.contains(words));
            if is_named && check["ok"] == false { Ok(()) } else { Err(check) }
        })
        .await;
        let (code, answer) = create(&without, json!({ "name": "b", "url": sink.url() })).await;
        assert!(code == 503 && answer["detail"].as_str().unwrap().contains(words), "{code} {answer}");
        assert_eq!(without.proc.sigterm(SOON).await, 0);
    }
    assert_eq!(stored(&stage).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_cannot_use_the_api_that_is_open_on_this_machine() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let broadcaster = stage.broadcaster(&[]).await;
    let alert = r#"{"alerts":[{"labels":{"alertname":"Forged"}}]}"#;
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        let (code, answer) = broadcaster.post("/v1/alerts", &format!("Origin: {origin}\r\n"), alert).await;
        assert_eq!((code, answer["code"].as_str()), (403, Some("permission_denied")), "{origin}: {answer}");
    }
    // A name that its owner points to this machine.
    let address = broadcaster.http.trim_start_matches("http://").to_owned();
    let port = address.rsplit(':').next().unwrap();
    let code = broadcaster.as_host(&format!("evil.example:{port}"), "GET", "/v1/dead-letters").await;
    assert_eq!(code, 403);
    for host in [address.clone(), format!("localhost:{port}")] {
        assert_eq!(broadcaster.as_host(&host, "GET", "/v1/dead-letters").await, 200, "{host}");
    }
    let (code, _) = broadcaster.post("/v1/alerts", &format!("Origin: http://{address}\r\n"), alert).await;
    assert_eq!(code, 200, "a page of its own");
}
