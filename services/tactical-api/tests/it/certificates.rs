//! Client certificates as callers, on the streams and on the API: of the service's own TLS, and as a trusted proxy reports
//! them.

use crate::support::{SOON, Sse, World, Ws, request};
use agentforge_harness::{Pki, eventually, free_port, require};
use serde_json::json;

const NORTH: &str = "north.fleet.example";
const ALL: &str = "spiffe://fleet.example/all";
const NAMED: &str = "x-client-cert-name";

fn tokens(dir: &tempfile::TempDir) -> String {
    let path = dir.path().join("tokens");
    let lines = format!("north submitter cert:{NORTH} scope=site:north\nall viewer cert:{ALL}\n");
    std::fs::write(&path, lines).unwrap();
    path.to_string_lossy().into_owned()
}

fn marker(site: &str) -> String {
    json!({"id": "a", "site": site, "title": site, "coordinates": [0, 0]}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_our_tls_sees_and_publishes_what_its_scopes_name() {
    let Some(()) = require("nats-server") else { return };
    let (dir, pki, port) = (tempfile::tempdir().unwrap(), Pki::new(), free_port().to_string());
    let file = tokens(&dir);
    let address = format!("127.0.0.1:{port}");
    let _world = World::start(&[
        ("HTTP_PORT", &port),
        ("TACTICAL_TLS_CERT", &pki.path("server.pem")),
        ("TACTICAL_TLS_KEY", &pki.path("server.key")),
        ("TACTICAL_TLS_CLIENT_CA", &pki.path("ca.pem")),
        ("TACTICAL_REQUIRE_BEARER", "on"),
        ("ACCESS_TOKENS_FILE", &file),
    ])
    .await;
    let [north, all, other] = [NORTH, ALL, "other.example"].map(|name| pki.client(&[name]));
    let ask = async |client, what: &str, headers: &[&str], body: &str| {
        pki.ask(&address, client, what, headers, body).await.unwrap().0
    };
    let stream = "GET /events/stream";
    // It answers 503 until it has its stream at NATS.
    eventually(SOON, "the picture is served", async || match ask(Some(&north), stream, &[], "").await {
        503 => Err("503"),
        status => Ok(status),
    })
    .await;
    for (client, status) in [(Some(&north), 200), (Some(&all), 200), (Some(&other), 401), (None, 401)] {
        assert_eq!(ask(client, stream, &[], "").await, status);
    }
    assert_eq!(ask(Some(&all), stream, &["Origin: https://evil.example"], "").await, 401, "a page's visitor has it");
    assert_eq!(ask(Some(&all), stream, &["Authorization: Bearer wrong"], "").await, 401);
    let publish = async |client, site: &str| ask(client, "POST /v1/markers", &[], &marker(site)).await;
    assert_eq!((publish(Some(&north), "north").await, publish(Some(&north), "south").await), (201, 403));
    assert_eq!((publish(Some(&all), "north").await, publish(Some(&other), "north").await), (403, 401));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_reports_the_certificate_and_the_mutual_tls_stays_required() {
    let Some(()) = require("nats-server") else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = tokens(&dir);
    let settings = [
        ("ACCESS_TOKENS_FILE", &*file),
        ("ACCESS_CLIENT_CERT_HEADER", NAMED),
        ("ACCESS_LOCKOUT_AFTER", "0"),
        ("TACTICAL_REQUIRE_CLIENT_CERT", "on"),
    ];
    let world = World::start(&[&settings[..], &[("TACTICAL_TRUSTED_PROXIES", "127.0.0.0/8")]].concat()).await;
    let address = world.api.address();
    let (verified, named) = ("ssl-client-verify: SUCCESS", format!("{NAMED}: {NORTH}"));
    // The certificate is enough to read; whose name the file has reads what is its own.
    let mut everything = Sse::open(address, "/events/stream", &[verified]).await;
    let mut own = Sse::open(address, "/events/stream", &[verified, &named]).await;
    let given = [("ssl-client-verify", "SUCCESS"), (NAMED, NORTH)];
    let mut ws = Ws::open(address, "/events/ws", &given).await;
    assert_eq!((everything.status, own.status), (200, 200));
    world.api.until_clients(2.0, 1.0).await;
    let bus = world.bus().await;
    for site in ["south", "north"] {
        let body = json!({"title": site, "coordinates": [0, 0]});
        bus.publish(&format!("tactical.markers.{site}.a"), &body).await;
    }
    assert_eq!(everything.next().await.unwrap().title(), "south");
    assert_eq!(own.next().await.unwrap().title(), "north");
    assert_eq!(ws.next().await.unwrap().title(), "north");
    // Headers that disagree, and a name without the certificate that the streams need.
    for (given, status) in [
        (&[verified, &named, "x-client-verify: FAILED"][..], 403),
        (&[&named], 403),
        (&[verified, &named, &format!("{NAMED}: {ALL}")], 401),
    ] {
        assert_eq!(Sse::open(address, "/events/stream", given).await.status, status, "{given:?}");
    }
    let publish = async |address: &str, headers: &[&str], site: &str| {
        let headers = [headers, &["Content-Type: application/json"]].concat();
        request(address, "POST", "/v1/markers", &headers, &marker(site)).await.0
    };
    assert_eq!(publish(address, &[&named], "north").await, 201);
    assert_eq!(publish(address, &[&named], "south").await, 403);
    assert_eq!(publish(address, &[&named, &format!("{NAMED}: {ALL}")], "north").await, 401);
    assert_eq!(publish(address, &[&named, "ssl-client-verify: NONE"], "north").await, 401);

    // The same from a peer that is not a proxy.
    let elsewhere =
        [&settings[..3], &[("TACTICAL_TRUSTED_PROXIES", "192.0.2.0/24"), ("TACTICAL_REQUIRE_BEARER", "on")]];
    let api = crate::support::Api::start(&world.nats.url(), &elsewhere.concat()).await;
    eventually(SOON, "it answers", || async {
        Sse::open(api.address(), "/events/stream", &[verified, &named]).await.status == 401
    })
    .await;
    let mut ws = Ws::open(api.address(), "/events/ws", &given).await;
    assert_eq!(ws.close().await.0, 4401);
    assert_eq!(publish(api.address(), &[verified, &named], "north").await, 401);
}
