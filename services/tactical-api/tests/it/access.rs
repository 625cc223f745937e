//! Every row of the table of refusals, as real clients see it, in its order; and headers that lie.

use crate::support::{Api, Sse, World, Ws, request};
use agentforge_harness::require;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const GUARDED: [(&str, &str); 5] = [
    ("TACTICAL_REQUIRE_CLIENT_CERT", "on"),
    ("TACTICAL_REQUIRE_BEARER", "on"),
    ("TACTICAL_READ_TOKENS", "another-read-token,read-token-of-a-test"),
    ("TACTICAL_STREAM_MAX_CLIENTS", "2"),
    ("TACTICAL_STREAM_MAX_PER_IP", "1"),
];
const TRUSTED: (&str, &str) = ("TACTICAL_TRUSTED_PROXIES", "127.0.0.0/8");
const CERT: &str = "X-SSL-Client-Verify: SUCCESS";
const TOKEN: &str = "Authorization: Bearer read-token-of-a-test";

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_table_has_its_status_and_its_close_code() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[&GUARDED[..], &[TRUSTED]].concat()).await;
    let address = world.api.address();
    let from = |ip: &str| format!("X-Forwarded-For: {ip}");
    let ws_headers = |names: &[&str], ip: &'static str| {
        let mut headers = vec![("x-forwarded-for", ip)];
        for name in names {
            let (name, value) = name.split_once(": ").unwrap();
            headers.push(match name {
                "Authorization" => ("authorization", value.to_owned().leak() as &str),
                _ => ("x-ssl-client-verify", "SUCCESS"),
            });
        }
        headers
    };
    // Two clients of two addresses have all the places; the checks before the caps come first all the same.
    let first = Sse::open(address, "/events/stream", &[CERT, TOKEN, &from("203.0.113.1")]).await;
    assert_eq!(first.status, 200);
    world.api.until_clients(1.0, 0.0).await;

    let rows: [(&[&str], &'static str, u16, &str, u16); 4] = [
        (&[TOKEN], "203.0.113.1", 403, "client_cert_required", 4403),
        (&[], "203.0.113.1", 403, "client_cert_required", 4403),
        (&[CERT], "203.0.113.1", 401, "unauthorized", 4401),
        (&[CERT, TOKEN], "203.0.113.1", 429, "too_many_clients_ip", 4408),
    ];
    for (given, ip, status, code, close) in rows {
        let forwarded = from(ip);
        let refused = Sse::plain(address, "/events/stream", &[given, &[&forwarded]].concat()).await;
        assert_eq!(refused.status, status, "{given:?}");
        assert_eq!(refused.headers.contains_key("retry-after"), status == 429);
        assert_eq!(refused.body().await["code"], code);
        let mut ws = Ws::open(address, "/events/ws", &ws_headers(given, ip)).await;
        let (found, reason) = ws.close().await;
        assert_eq!((found, reason.starts_with(code)), (close, true), "{given:?}: {reason}");
    }
    let second = Ws::open(address, "/events/ws", &ws_headers(&[CERT, TOKEN], "203.0.113.2")).await;
    world.api.until_clients(1.0, 1.0).await;
    // The cap of all is asked before that of one address.
    for ip in ["203.0.113.1", "203.0.113.3"] {
        let forwarded = from(ip);
        let refused = Sse::plain(address, "/events/stream", &[CERT, TOKEN, &forwarded]).await;
        assert_eq!((refused.status, refused.headers.contains_key("retry-after")), (429, true));
        assert_eq!(refused.body().await["code"], "too_many_clients");
    }
    let mut ws = Ws::open(address, "/events/ws", &ws_headers(&[CERT, TOKEN], "203.0.113.3")).await;
    let (code, reason) = ws.close().await;
    assert_eq!((code, reason.starts_with("too_many_clients:")), (4408, true), "{reason}");
    drop((first, second));
    world.api.until_clients(0.0, 0.0).await;
    assert_eq!(Sse::open(address, "/events/stream", &[CERT, TOKEN, &from("203.0.113.1")]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_an_untrusted_peer_change_nothing() {
    let Some(()) = require("nats-server") else { return };
    // Only another machine is trusted; we are not it.
    let settings = [&GUARDED[..], &[("TACTICAL_TRUSTED_PROXIES", "192.0.2.0/24")]].concat();
    let world = World::start(&settings).await;
    let address = world.api.address();
    for name in ["ssl-client-verify", "x-ssl-client-verify", "x-client-verify"] {
        let lie = format!("{name}: SUCCESS");
        let refused = Sse::open(address, "/events/stream", &[&lie, TOKEN, "X-Forwarded-For: 192.0.2.1"]).await;
        assert_eq!(refused.status, 403, "{name}");
    }
    let settings: Vec<_> = settings.into_iter().filter(|(key, _)| *key != "TACTICAL_REQUIRE_CLIENT_CERT").collect();
    let api = Api::start(&world.nats.url(), &settings).await;
    let held = Sse::open(api.address(), "/events/stream", &[TOKEN, "X-Forwarded-For: 203.0.113.1"]).await;
    assert_eq!(held.status, 200);
    // Another name for the same address finds its one place taken.
    let refused = Sse::plain(api.address(), "/events/stream", &[TOKEN, "X-Forwarded-For: 203.0.113.2"]).await;
    assert_eq!(refused.body().await["code"], "too_many_clients_ip");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_come_by_header_cookie_or_subprotocol_and_never_by_query() {
    let Some(()) = require("nats-server") else { return };
    let world =
        World::start(&[("TACTICAL_REQUIRE_BEARER", "true"), ("TACTICAL_READ_TOKENS", "read-token-of-a-test")]).await;
    let address = world.api.address();
    for (headers, path, status) in [
        (&[TOKEN][..], "/events/stream", 200),
        (&["Cookie: x=y; agentforge_token=read-token-of-a-test"], "/events/stream", 200),
        (&["Cookie: agentforge_token=read-token-of-a-test", "Origin: https://evil.example"], "/events/stream", 401),
        (&["Authorization: Bearer read-token-of-a-tes"], "/events/stream", 401),
        (&[], "/events/stream?token=read-token-of-a-test&access_token=read-token-of-a-test", 401),
        (&[TOKEN], "/events/stream?bbox=1,2,3", 400),
    ] {
        assert_eq!(Sse::open(address, path, headers).await.status, status, "{headers:?} {path}");
    }
    let bus = world.bus().await;
    let mut ws = Ws::open(
        address,
        "/events/ws?snapshot=true",
        &[("sec-websocket-protocol", "agentforge.v1, bearer.read-token-of-a-test")],
    )
    .await;
    assert_eq!(ws.protocol.as_deref(), Some("agentforge.v1"));
    bus.marker("a", "1").await;
    assert_eq!(ws.next().await.unwrap().title(), "1");
    let mut ws = Ws::open(address, "/events/ws", &[("sec-websocket-protocol", "agentforge.v1, bearer.wrong")]).await;
    assert_eq!(ws.close().await.0, 4401);
    let mut ws = Ws::open(address, "/events/ws?since=never", &[("authorization", "Bearer read-token-of-a-test")]).await;
    assert_eq!(ws.close().await.0, 4400);
}

const PRODUCTION: [(&str, &str); 4] = [
    ("ENV", "production"),
    ("BIND_ADDR", "127.0.0.1"),
    ("EVIDENCE_SIGNING_SECRET", "a-secret-of-our-own"),
    ("SHUTDOWN_PAUSE", "0s"),
];

#[tokio::test(flavor = "multi_thread")]
async fn outside_of_dev_nothing_is_read_without_a_token_unless_it_is_opened() {
    let Some(()) = require("nats-server") else { return };
    let nats = agentforge_harness::NatsServer::start(agentforge_harness::NatsOptions::default()).await;
    let mut refused = agentforge_harness::Proc::builder(env!("CARGO_BIN_EXE_agentforge-tactical-api"))
        .envs(PRODUCTION)
        .env("NATS_URL", nats.url())
        .env("HTTP_PORT", "0")
        .env("METRICS_PORT", "0")
        .start();
    assert_eq!(refused.wait(crate::support::SOON).await, 64);
    let log = refused.full_log();
    assert!(log.contains("TACTICAL_READ_TOKENS") && log.contains("TACTICAL_OPEN_TO_ANYONE"), "{log}");

    let reader = ("TACTICAL_READ_TOKENS", "a-token-of-a-reader");
    let token = "Authorization: Bearer a-token-of-a-reader";
    let guarded = Api::start(&nats.url(), &[&PRODUCTION[..], &[reader]].concat()).await;
    assert_eq!(Sse::open(guarded.address(), "/events/stream", &[]).await.status, 401);
    assert_eq!(Ws::open(guarded.address(), "/events/ws", &[]).await.close().await.0, 4401);
    assert_eq!(request(guarded.address(), "GET", "/v1/rejected", &[], "").await.0, 401);
    assert_eq!(request(guarded.address(), "GET", "/v1/rejected", &[token], "").await.0, 200);
    assert_eq!(Sse::open(guarded.address(), "/events/stream", &[token]).await.status, 200);

    // Opened for the picture: links are for those with a token.
    let bus = crate::support::Bus::connect(&nats.url()).await;
    let body = serde_json::json!({"title": "t", "coordinates": [1, 2], "evidence_id": "photo"});
    bus.publish("tactical.markers.pier-7.m", &body).await;
    for (to, anonymous) in [("picture", false), ("evidence", true)] {
        let open = ("TACTICAL_OPEN_TO_ANYONE", to);
        let api = Api::start(&nats.url(), &[&PRODUCTION[..], &[reader, open]].concat()).await;
        assert!(api.proc.full_log().contains("TACTICAL_OPEN_TO_ANYONE"), "{}", api.proc.full_log());
        for (given, sees_link) in [(&[][..], anonymous), (&[token], true)] {
            let mut sse = Sse::open(api.address(), "/events/stream?snapshot=true", given).await;
            let link = sse.next().await.unwrap().data["properties"]["evidence_link"].clone();
            assert_eq!(link.is_string(), sees_link, "{to} {given:?}: {link}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_port_answers_no_proxy_that_it_does_not_know() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let address = world.api.address();
    let body = r#"{"title":"t","coordinates":[0,0]}"#;
    for header in ["X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9", "X-Forwarded-Proto: https"] {
        let refused = Sse::open(address, "/events/stream", &[header]).await;
        assert_eq!(refused.status, 403, "{header}");
        assert_eq!(refused.body().await["code"], "proxy_not_allowed", "{header}");
        let json = "Content-Type: application/json";
        assert_eq!(request(address, "POST", "/v1/markers", &[header, json], body).await.0, 403, "{header}");
    }
    let mut ws = Ws::open(address, "/events/ws", &[("x-forwarded-for", "203.0.113.9")]).await;
    assert_eq!(ws.close().await.0, 4403);
    assert_eq!(Sse::open(address, "/events/stream", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_websocket_is_told_so() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let (status, headers, _) = request(world.api.address(), "GET", "/events/ws", &[], "").await;
    assert_eq!((status, headers["upgrade"].as_str()), (426, "websocket"));
    assert_eq!(headers["sec-websocket-version"], "13");
    // Half a request, then the end: nothing is left behind.
    let mut stream = tokio::net::TcpStream::connect(world.api.address()).await.unwrap();
    stream.write_all(b"GET /events/stream HTT").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    world.api.until_clients(0.0, 0.0).await;
}
