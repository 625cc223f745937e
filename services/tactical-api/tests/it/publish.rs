//! Publishing through the API: who may, what is refused and why, and what operators see of refusals.

use crate::support::{Api, Sse, World, request};
use agentforge_harness::require;
use serde_json::{Value, json};

const JSON: &str = "Content-Type: application/json";

async fn post(address: &str, path: &str, headers: &[&str], body: &Value) -> (u16, Value) {
    let (status, _, answer) = request(address, "POST", path, &[headers, &[JSON]].concat(), &body.to_string()).await;
    (status, serde_json::from_slice(&answer).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_posted_is_on_the_picture_until_it_is_deleted() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let address = world.api.address();
    let mut sse = Sse::open(address, "/events/stream", &[]).await;
    world.api.until_clients(1.0, 0.0).await;
    let body = json!({"id": "unit 1.2", "site": "pier-7", "title": "Unit", "coordinates": [13.4, 52.5]});
    let (status, told) = post(address, "/v1/markers", &[], &body).await;
    assert_eq!((status, told["kind"].as_str(), told["id"].as_str()), (201, Some("marker"), Some("unit 1.2")));
    let got = sse.next().await.unwrap();
    assert_eq!(
        (got.id.as_str(), got.data["properties"]["site"].as_str()),
        (told["event_id"].as_str().unwrap(), Some("pier-7"))
    );

    let zone = json!({"title": "Zone", "polygon": [[0, 0], [1, 0], [1, 1]]});
    let (status, told) = post(
        address,
        "/v1/zones",
        &["Idempotency-Key: once"],
        &json!({"id": "z", "title": "Zone", "polygon": zone["polygon"]}),
    )
    .await;
    assert_eq!((status, told["site"].as_str(), told["duplicate"].as_bool()), (201, Some("dev"), Some(false)));
    let again = post(
        address,
        "/v1/zones",
        &["Idempotency-Key: once"],
        &json!({"id": "z", "title": "Zone", "polygon": zone["polygon"]}),
    )
    .await
    .1;
    assert_eq!((again["duplicate"].as_bool(), &again["event_id"]), (Some(true), &told["event_id"]));
    assert_eq!(sse.next().await.unwrap().event, "zone");

    let (status, _, _) = request(address, "DELETE", "/v1/markers/unit%201.2?site=pier-7", &[], "").await;
    assert_eq!(status, 200);
    let gone = sse.next().await.unwrap();
    assert_eq!((gone.event.as_str(), gone.data["properties"]["id"].as_str()), ("remove", Some("unit 1.2")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_before_it_is_published() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let address = world.api.address();
    for (body, word) in [
        (json!({"title": 5, "coordinates": [0, 0]}), "title"),
        (json!({"title": "t", "coordinates": [0]}), "coordinates"),
        (json!({"title": "t", "coordinates": [0, 0], "id": "a\nb"}), "id"),
        (json!({"title": "t", "coordinates": [0, 0], "site": ""}), "site"),
        (json!({"title": "t", "coordinates": [0, 0], "id": 7}), "id"),
        (json!([1, 2]), "object"),
    ] {
        let (status, problem) = post(address, "/v1/markers", &[], &body).await;
        assert_eq!((status, problem["code"].as_str()), (400, Some("invalid_argument")), "{body}");
        assert!(problem["detail"].as_str().unwrap().contains(word), "{body}: {problem}");
    }
    let (status, _, _) = request(address, "POST", "/v1/markers", &["Content-Type: text/plain"], "{}").await;
    assert_eq!(status, 415);
    let large = "x".repeat((1 << 20) + 1);
    for (method, path, body, status, code) in [
        ("POST", "/v1/markers", large.as_str(), 413, "too_large"),
        ("DELETE", "/v1/markers/%FF", "", 400, "invalid_argument"),
        ("DELETE", "/v1/markers/m?site=a&site=b", "", 400, "invalid_argument"),
    ] {
        let (found, _, answer) = request(address, method, path, &[JSON], body).await;
        let problem: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!((found, problem["code"].as_str()), (status, Some(code)), "{method} {path}");
    }
    assert_eq!(request(address, "GET", "/nothing", &[], "").await.0, 404);
    assert_eq!(world.bus().await.js.get_stream("tactical").await.unwrap().cached_info().state.messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_token_publishes_where_there_is_one() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[("TACTICAL_PUBLISH_TOKEN", "publish-token-of-a-test")]).await;
    let body = json!({"title": "t", "coordinates": [0, 0]});
    let token = "Authorization: Bearer publish-token-of-a-test";
    for (headers, status) in [(&[][..], 401), (&["Authorization: Bearer wrong"], 401), (&[token], 201)] {
        assert_eq!(post(world.api.address(), "/v1/markers", headers, &body).await.0, status);
        let deleted = request(world.api.address(), "DELETE", "/v1/markers/x", headers, "").await.0;
        assert_eq!(deleted, if status == 201 { 200 } else { status });
        let looked = request(world.api.address(), "GET", "/v1/rejected", headers, "").await.0;
        assert_eq!(looked, if status == 201 { 200 } else { status });
    }
    // Outside of dev nothing is open without a token.
    let own = ("EVIDENCE_SIGNING_SECRET", "a-secret-of-our-own");
    let reader = ("TACTICAL_READ_TOKENS", "a-token-of-a-reader");
    let settings = [("ENV", "production"), own, reader, ("BIND_ADDR", "127.0.0.1"), ("SHUTDOWN_PAUSE", "0s")];
    let closed = Api::start(&world.nats.url(), &settings).await;
    assert_eq!(post(closed.address(), "/v1/markers", &[token], &body).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_messages_are_counted_and_shown_and_the_stream_lives_on() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let (bus, address) = (world.bus().await, world.api.address());
    let mut sse = Sse::open(address, "/events/stream", &[]).await;
    world.api.until_clients(1.0, 0.0).await;
    for body in ["{\"title\":\"t\",\"coordinates\":[NaN,0]}", "{\"title\":\"t\",\"coordinates\":[1e999,0]}", "not json"]
    {
        bus.js.publish("tactical.markers.s.bad", body.into()).await.unwrap().await.unwrap();
    }
    bus.publish("tactical.nonsense", &json!({})).await;
    bus.publish("tactical.markers.s.bad", &json!({"title": ["x"], "coordinates": [0, 0]})).await;
    bus.marker("good", "1").await;
    assert_eq!(sse.next().await.unwrap().title(), "1");
    for (reason, count) in [("malformed", 2.0), ("coordinates", 1.0), ("subject", 1.0), ("title", 1.0)] {
        let series = format!("tactical_events_rejected_total{{reason=\"{reason}\"}}");
        assert_eq!(world.api.metric(&series).await, count, "{reason}");
    }
    let (_, _, body) = request(address, "GET", "/v1/rejected", &[], "").await;
    let listed: Value = serde_json::from_slice(&body).unwrap();
    let listed = listed["rejected"].as_array().unwrap();
    assert_eq!(listed.len(), 5);
    assert_eq!((listed[0]["reason"].as_str(), listed[0]["seq"].as_u64()), (Some("title"), Some(5)));
    for n in 0..150 {
        bus.js.publish(format!("tactical.markers.s.bad{n}"), format!("{n}").into()).await.unwrap();
    }
    bus.marker("good", "2").await;
    assert_eq!(sse.next().await.unwrap().title(), "2");
    let (_, _, body) = request(address, "GET", "/v1/rejected", &[], "").await;
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["rejected"].as_array().unwrap().len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_across_the_antimeridian_is_never_the_rest_of_the_world() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let address = world.api.address();
    let mut all = Sse::open(address, "/events/stream", &[]).await;
    let boxes =
        ["bbox=171,-5,172,5", "bbox=-172,-5,-171,5", "bbox=175,-5,-175,5", "bbox=170,-10,190,10", "bbox=-20,-5,20,5"];
    let mut views = Vec::new();
    for bbox in boxes {
        views.push(Sse::open(address, &format!("/events/stream?{bbox}"), &[]).await);
    }
    world.api.until_clients(6.0, 0.0).await;
    let zone = |polygon: Value| json!({"id": "z", "site": "s", "title": "Z", "polygon": polygon});
    let across = json!([[170, -10], [190, -10], [190, 10], [170, 10]]);
    assert_eq!(post(address, "/v1/zones", &[], &zone(across)).await.0, 201);
    let got = all.next().await.unwrap();
    assert_eq!(got.data["geometry"]["type"], "MultiPolygon");
    let parts = got.data["geometry"]["coordinates"].as_array().unwrap();
    for part in parts {
        let lons: Vec<f64> = part[0].as_array().unwrap().iter().map(|p| p[0].as_f64().unwrap()).collect();
        assert!(lons.iter().all(|lon| lon.abs() >= 170.0 && lon.abs() <= 180.0), "{lons:?}");
        assert!(lons.iter().all(|lon| *lon > 0.0) || lons.iter().all(|lon| *lon < 0.0), "{lons:?}");
    }
    assert_eq!(parts.len(), 2);
    world
        .bus()
        .await
        .publish(
            "tactical.zones.s.end",
            &json!({"title": "end", "polygon":
        [[-180, -89], [0, -89], [180, -89], [180, 89], [0, 89], [-180, 89]]}),
        )
        .await;
    for (view, bbox) in views.iter_mut().zip(boxes) {
        let first = view.next().await.unwrap();
        let expected = if bbox.starts_with("bbox=-20") { "end" } else { "Z" };
        assert_eq!(first.title(), expected, "{bbox}");
    }
    for (polygon, word) in [
        (json!([[170, -10], [-170, -10], [-170, 10], [170, 10]]), "more than half of the world"),
        (json!([[0, 0], [1, 0], [2, 0]]), "encloses nothing"),
        (json!([[0, 0], [1, 1], [1, 0], [0, 1]]), "crosses"),
        (json!([[[0, 0], [1, 0], [1, 1], [0, 1]], [[5, 5], [6, 5], [6, 6]]]), "hole"),
        (json!([[0, 0], [1, 1]]), "4 points"),
        (json!("round"), "neither a ring"),
    ] {
        let (status, problem) = post(address, "/v1/zones", &[], &zone(polygon.clone())).await;
        assert_eq!((status, problem["code"].as_str()), (400, Some("invalid_argument")), "{polygon}");
        assert!(problem["detail"].as_str().unwrap().contains(word), "{polygon}: {problem}");
    }
    for (title, shown) in [
        (" \u{200b} ", None),
        ("می\u{200c}خواهم", Some("می\u{200c}خواهم")),
        ("👩\u{200d}👩\u{200d}👧\u{200d}👦", Some("👩\u{200d}👩\u{200d}👧\u{200d}👦")),
        ("a\u{200c}b", Some("ab")),
    ] {
        let marker = json!({"id": "m", "site": "s", "title": title, "coordinates": [180, 0]});
        let (status, problem) = post(address, "/v1/markers", &[], &marker).await;
        assert_eq!(status, if shown.is_some() { 201 } else { 400 }, "{title:?}: {problem}");
        let Some(shown) = shown else { continue };
        let got = loop {
            let got = all.next().await.unwrap();
            if got.event == "marker" {
                break got;
            }
        };
        assert_eq!(got.title(), shown);
    }
}
