//! Web pages of other origins, and names that somebody else's DNS points here: what a browser would send.

use crate::support::{Api, Sse, World, Ws, request};
use agentforge_harness::require;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const EVIL: &str = "https://evil.example";
const TOKEN: &str = "Bearer read-token-of-a-test";

/// Settings, or headers.
type Pairs = &'static [(&'static str, &'static str)];

const BEARER: Pairs = &[("TACTICAL_REQUIRE_BEARER", "on"), ("TACTICAL_READ_TOKENS", "read-token-of-a-test")];
const CERTIFICATE: Pairs = &[("TACTICAL_REQUIRE_CLIENT_CERT", "on"), ("TACTICAL_TRUSTED_PROXIES", "127.0.0.0/8")];

#[tokio::test(flavor = "multi_thread")]
async fn every_upgrade_of_a_foreign_page_is_refused_whatever_guards_the_port() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    let guards: [(Pairs, Pairs); 5] = [
        (&[], &[]),
        (BEARER, &[("authorization", TOKEN)]),
        (BEARER, &[("sec-websocket-protocol", "agentforge.v1, bearer.read-token-of-a-test")]),
        (CERTIFICATE, &[("x-client-verify", "SUCCESS")]),
        (
            &[
                ("TACTICAL_OPEN_TO_ANYONE", "picture"),
                ("ENV", "staging"),
                ("EVIDENCE_SIGNING_SECRET", "a-secret-of-our-own"),
            ],
            &[],
        ),
    ];
    for (settings, given) in guards {
        let settings = [settings, &[("TACTICAL_ALLOWED_ORIGINS", "https://maps.example")]].concat();
        let api = Api::start(&world.nats.url(), &settings).await;
        let own = format!("http://{}", api.address());
        let port = format!("{own}1");
        let https = format!("https://{}", api.address());
        for (origin, may) in [
            (EVIL, false),
            ("null", false),
            ("http://127.0.0.1", false),
            (&port, false),
            ("http://maps.example", false),
            ("https://maps.example.evil.example", false),
            (&own, true),
            // What is in front of us may have TLS.
            (&https, true),
            ("https://maps.example", true),
            ("https://MAPS.example:443", true),
        ] {
            let headers = [given, &[("origin", origin)]].concat();
            let mut ws = Ws::open(api.address(), "/events/ws", &headers).await;
            if may {
                api.until_clients(0.0, 1.0).await;
                drop(ws);
            } else {
                let (code, reason) = ws.close().await;
                assert_eq!((code, reason.starts_with("origin_not_allowed:")), (4403, true), "{origin}: {reason}");
            }
            api.until_clients(0.0, 0.0).await;
        }
        let refused = api.metric("tactical_clients_refused_total{channel=\"ws\",reason=\"origin_not_allowed\"}").await;
        assert_eq!(refused, 6.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_are_named_may_read_and_are_told_so_and_no_others() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[("TACTICAL_ALLOWED_ORIGINS", "https://maps.example,https://other.example:8443")]).await;
    let address = world.api.address();
    for origin in ["https://maps.example", "https://other.example:8443"] {
        let header = format!("Origin: {origin}");
        let sse = Sse::open(address, "/events/stream", &[&header]).await;
        assert_eq!((sse.status, &*sse.headers["access-control-allow-origin"]), (200, origin));
        assert_eq!(sse.headers["access-control-allow-credentials"], "true");
        assert_eq!(sse.headers["vary"], "Origin");
        // A refusal can be read by the page, too.
        let sse = Sse::open(address, "/events/stream?bbox=1", &[&header]).await;
        assert_eq!((sse.status, &*sse.headers["access-control-allow-origin"]), (400, origin));
        for path in ["/events/stream", "/v1/evidence/x.1.y", "/v1/markers", "/v1/rejected"] {
            let asks = ["Access-Control-Request-Method: GET", "Access-Control-Request-Headers: last-event-id, range"];
            let (status, headers, body) = request(address, "OPTIONS", path, &[&header, asks[0], asks[1]], "").await;
            assert_eq!((status, body.len(), &*headers["access-control-allow-origin"]), (204, 0, origin), "{path}");
            for name in ["last-event-id", "range", "authorization", "if-none-match"] {
                assert!(headers["access-control-allow-headers"].contains(name), "{path} {name}");
            }
            assert!(headers["access-control-allow-methods"].contains("GET"));
        }
        let (status, headers, _) = request(address, "GET", "/v1/evidence/x.1.y", &[&header], "").await;
        assert_eq!((status, &*headers["access-control-allow-origin"]), (403, origin));
        assert!(headers["access-control-expose-headers"].contains("content-range"));
    }
    let evil = format!("Origin: {EVIL}");
    let asks = "Access-Control-Request-Method: GET";
    let nobody = World::start(&[]).await;
    for api in [address, nobody.api.address()] {
        for (method, path, status) in [
            ("OPTIONS", "/events/stream", 403),
            ("OPTIONS", "/v1/evidence/x.1.y", 403),
            ("GET", "/v1/evidence/x.1.y", 403),
            ("GET", "/v1/rejected", 403),
            ("DELETE", "/v1/markers/m", 403),
        ] {
            let (found, headers, _) = request(api, method, path, &[&evil, asks], "").await;
            assert_eq!(found, status, "{method} {path}");
            assert!(!headers.keys().any(|name| name.starts_with("access-control-")), "{method} {path}: {headers:?}");
        }
        let refused = Sse::open(api, "/events/stream", &[&evil]).await;
        assert!(!refused.headers.contains_key("access-control-allow-origin"));
        assert_eq!((refused.status, refused.body().await["code"].as_str()), (403, Some("origin_not_allowed")));
    }
    // An image of another site takes no place, either.
    let image = ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"];
    assert_eq!(Sse::open(address, "/events/stream", &image).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_port_answers_to_no_name_that_others_can_give_it() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[("TACTICAL_ALLOWED_ORIGINS", "https://maps.example")]).await;
    let port = world.api.address().rsplit_once(':').unwrap().1;
    let json = "Content-Type: application/json\r\nContent-Length: 48";
    let body = r#"{"id":"m","title":"t","coordinates":[1.00,2.00]}"#;
    for (host, may) in [
        ("evil.example", false),
        ("127.0.0.1.evil.example", false),
        ("localhost", true),
        ("127.0.0.1", true),
        ("[::1]", true),
        ("tactical-api", true),
        ("maps.example", true),
    ] {
        let origin = format!("Host: {host}:{port}\r\nOrigin: http://{host}:{port}");
        let ok = |good: &'static str| if may { good } else { "403" };
        // Probes know no allowed names.
        let probe = if ["localhost", "127.0.0.1", "[::1]"].contains(&host) { "200" } else { "403" };
        for (what, rest, status) in [
            ("GET /events/stream", "", ok("200")),
            ("GET /v1/rejected", "", ok("200")),
            ("POST /v1/markers", json, ok("201")),
            ("DELETE /v1/markers/m", "", ok("200")),
            ("GET /healthz", "", probe),
        ] {
            let mut stream = TcpStream::connect(world.api.address()).await.unwrap();
            let rest = if rest.is_empty() { "\r\n".to_owned() } else { format!("{rest}\r\n\r\n{body}") };
            stream.write_all(format!("{what} HTTP/1.1\r\n{origin}\r\n{rest}").as_bytes()).await.unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.unwrap();
            assert_eq!(std::str::from_utf8(&head[9..]).unwrap(), status, "{what} at {host}");
        }
    }
    // With a token the name does not matter.
    let guarded = [("TACTICAL_REQUIRE_BEARER", "on"), ("TACTICAL_READ_TOKENS", "read-token-of-a-test")];
    let api = Api::start(&world.nats.url(), &guarded).await;
    let stream = TcpStream::connect(api.address()).await.unwrap();
    let sse =
        Sse::over(stream, "maps.corp.example", "/events/stream", &["Authorization: Bearer read-token-of-a-test"]).await;
    assert_eq!(sse.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_http_1_1_without_one_host_is_refused() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[]).await;
    for path in ["/events/stream", "/events/ws", "/v1/rejected", "/healthz"] {
        for hosts in ["", "Host: a\r\nHost: a\r\n"] {
            let mut stream = TcpStream::connect(world.api.address()).await.unwrap();
            stream.write_all(format!("GET {path} HTTP/1.1\r\n{hosts}\r\n").as_bytes()).await.unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 400", "{path} {hosts:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxys_word_cannot_be_outvoted_and_its_callers_are_told_apart() {
    let Some(()) = require("nats-server") else { return };
    let proxy = ("TACTICAL_TRUSTED_PROXIES", "127.0.0.0/8");
    let world = World::start(&[("TACTICAL_REQUIRE_CLIENT_CERT", "on"), proxy]).await;
    let address = world.api.address();
    for (headers, status) in [
        (&["ssl-client-verify: SUCCESS"][..], 200),
        (&["ssl-client-verify: NONE", "X-Client-Verify: SUCCESS"], 403),
        (&["ssl-client-verify: FAILED", "X-SSL-Client-Verify: SUCCESS"], 403),
        (&["X-Client-Verify: SUCCESS", "X-Client-Verify: SUCCESS"], 403),
    ] {
        assert_eq!(Sse::open(address, "/events/stream", headers).await.status, status, "{headers:?}");
    }
    let named = [("TACTICAL_REQUIRE_CLIENT_CERT", "on"), proxy, ("TACTICAL_CLIENT_CERT_HEADER", "X-Client-Verify")];
    let api = Api::start(&world.nats.url(), &named).await;
    for (headers, status) in [
        (&["X-Client-Verify: SUCCESS", "ssl-client-verify: NONE"][..], 200),
        (&["ssl-client-verify: SUCCESS"], 403),
        (&["ssl-client-verify: SUCCESS", "X-Client-Verify: NONE"], 403),
    ] {
        assert_eq!(Sse::open(api.address(), "/events/stream", headers).await.status, status, "{headers:?}");
    }
    let api = Api::start(&world.nats.url(), &[proxy, ("TACTICAL_STREAM_MAX_PER_IP", "1")]).await;
    let mut held = Vec::new();
    for (forwarded, status) in [
        ("X-Forwarded-For: 203.0.113.7:5000", 200),
        ("X-Forwarded-For: 203.0.113.7:5001", 429),
        ("X-Forwarded-For: 203.0.113.8:5000", 200),
        ("X-Forwarded-For: [2001:db8:1:2::7]:5000", 200),
        ("X-Forwarded-For: 2001:db8:1:2:ffff::8", 429),
        ("X-Forwarded-For: [2001:db8:1:3::7]:5000", 200),
        ("Forwarded: for=\"[2001:db8:1:3::8]:99\"", 429),
        ("Forwarded: for=203.0.113.9;proto=https", 200),
    ] {
        let sse = Sse::plain(api.address(), "/events/stream", &[forwarded]).await;
        assert_eq!(sse.status, status, "{forwarded}");
        held.push(sse);
    }
}
