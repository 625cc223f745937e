//! The proxy in front of a service that shows what reaches it, and a door that judges the identity.

use crate::support::{Browser, Running, add_user};
use agentforge_access::{Guard, Role, Tokens};
use agentforge_config::{Common, Reader, Setting};
use agentforge_door::{Door, DoorConfig, Shown};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const PASSWORD: &str = "correct horse battery";

/// Shows a request, and sets what must not arrive.
async fn shown(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, 4 << 20).await.unwrap();
    let headers: BTreeMap<String, String> =
        parts.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
    let answer = json!({"method": parts.method.as_str(), "uri": parts.uri.to_string(), "headers": headers, "bytes": bytes.len(), "padding": "x".repeat(2_000)});
    let evil = [
        ("set-cookie", "af_access=evil"),
        ("server", "evil/1"),
        ("access-control-allow-origin", "*"),
        ("content-security-policy", "x"),
    ];
    (evil.map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))), Json(answer)).into_response()
}

/// One event, and never an end.
async fn events() -> Response {
    let first = futures_util::stream::once(async { Ok::<_, std::io::Error>(Bytes::from("data: first\n\n")) });
    let rest = futures_util::stream::pending();
    let body = Body::from_stream(futures_util::StreamExt::chain(first, rest));
    ([("content-type", "text/event-stream")], body).into_response()
}

async fn upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/v1/jobs/{id}/watch", get(events))
        .route("/v1/slo", get(|| async { StatusCode::UNAUTHORIZED }))
        .route("/v1/agents", get(|| async { (StatusCode::FOUND, [("location", "http://evil.example/")]) }))
        .fallback(any(shown));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn logged_in(console: &Running, user: &str, role: &str) -> Browser {
    add_user("sqlite://console.db", console.data(), user, role, PASSWORD).await;
    let mut browser = console.browser();
    let answer = browser.post("/auth/login", &json!({"user": user, "password": PASSWORD})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    browser.csrf = Some(answer.json()["csrf"].as_str().unwrap().to_owned());
    browser
}

/// A door outside of dev whose only way in are the console's keys.
fn door(keys: &str) -> Door {
    const OWN: Setting = Setting::new("API_TOKENS", None, "tokens", "Tokens.");
    let source = BTreeMap::from(
        [("ENV", "production"), ("ACCESS_CONSOLE_KEYS", keys)].map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    let mut reader = Reader::new(&source);
    let common = Common::read(&mut reader);
    let config = DoorConfig::read(&mut reader, &common, Tokens::default(), &OWN);
    reader.finish().unwrap();
    assert!(matches!(config.guard, Guard::Keyring(_)));
    Door::new(config)
}

#[tokio::test]
async fn a_service_learns_who_asks_and_nothing_else_of_the_browser() {
    let console = Running::start(&[("ORCHESTRATOR_URL", &upstream().await)]).await;
    let browser = logged_in(&console, "oscar", "operator").await;
    let headers = [
        ("x-forwarded-for", "1.2.3.4"),
        ("authorization", "Bearer own"),
        ("accept", "application/json"),
        ("origin", "http://evil.example"),
    ];
    let answer = browser.send("GET", "/api/orchestrator/v1/jobs?state=running&label=a%3Db", &headers, None).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let seen = answer.json();
    assert_eq!(seen["uri"], "/v1/jobs?state=running&label=a%3Db");
    let sent: Vec<&str> = seen["headers"].as_object().unwrap().keys().map(String::as_str).collect();
    for name in ["cookie", "x-af-csrf", "x-forwarded-for", "origin", "forwarded"] {
        assert!(!sent.contains(&name), "{name} reached the service: {sent:?}");
    }
    for name in ["set-cookie", "server", "access-control-allow-origin"] {
        assert!(answer.headers(name).is_empty(), "{name} reached the browser: {}", answer.head);
    }
    let policies = answer.headers("content-security-policy");
    assert!(policies[0].starts_with("default-src 'self'"), "{policies:?}");
    assert_eq!(policies[1..], ["sandbox; default-src 'none'"], "what a service answers is no page");
    // The identity is accepted by a door that knows the keys, with the user's name and role.
    let keys = console.data().join("console-keys.json");
    let door = door(keys.to_str().unwrap());
    let bearer = seen["headers"]["authorization"].as_str().unwrap();
    let admit = async |bearer: &str, role| {
        let headers =
            HeaderMap::from_iter([(axum::http::header::AUTHORIZATION, HeaderValue::from_str(bearer).unwrap())]);
        door.admit(&Shown::new(None, &headers), role).await
    };
    let who = admit(bearer, Role::Operator).await.unwrap();
    assert_eq!((&*who.name, who.role), ("oscar@agentforge-console", Role::Operator));
    assert!(admit(bearer, Role::Admin).await.is_err());
    assert!(admit(&format!("{bearer}x"), Role::Read).await.is_err());
    assert!(admit("Bearer own", Role::Read).await.is_err());
}

#[tokio::test]
async fn only_what_is_listed_is_there_and_roles_count() {
    let console = Running::start(&[("ORCHESTRATOR_URL", &upstream().await)]).await;
    let mut viewer = logged_in(&console, "victor", "viewer").await;
    for (method, path, status) in [
        ("GET", "/api/orchestrator/v1/jobs", 200),
        ("GET", "/api/orchestrator/v1/audit", 403),
        ("POST", "/api/orchestrator/v1/jobs", 403),
        ("DELETE", "/api/orchestrator/v1/jobs", 405),
        ("GET", "/api/orchestrator/metrics", 404),
        ("GET", "/api/orchestrator/v1/jobs/%2e%2e/%2e%2e/metrics", 404),
        ("GET", "/api/orchestrator/v1/jobs/..%2f..%2fmetrics", 200),
        ("GET", "/api/broadcaster/v1/endpoints", 404),
        ("GET", "/api/prometheus/api/v1/query?query=1", 404),
        ("GET", "/api/orchestrator/v1/slo", 502),
        ("GET", "/api/orchestrator/v1/agents", 302),
    ] {
        let answer = viewer.call(method, path, &[], None).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        assert!(answer.headers("location").is_empty(), "no redirect leads out");
    }
    // The escaped slash stays escaped: it is part of a name.
    let answer = viewer.get("/api/orchestrator/v1/jobs/..%2f..%2fmetrics").await;
    assert_eq!(answer.json()["uri"], "/v1/jobs/..%2f..%2fmetrics");
    assert_eq!(console.browser().get("/api/orchestrator/v1/jobs").await.status, 401);
    let mut operator = logged_in(&console, "oscar", "operator").await;
    let job = json!({"tool": "echo"});
    assert_eq!(operator.post("/api/orchestrator/v1/jobs", &job).await.status, 200);
    operator.csrf = None;
    assert_eq!(operator.post("/api/orchestrator/v1/jobs", &job).await.code(), "csrf");
}

#[tokio::test]
async fn bodies_are_bounded_and_an_absent_service_is_named() {
    let console =
        Running::start(&[("ORCHESTRATOR_URL", &upstream().await), ("BROADCASTER_URL", "http://127.0.0.1:9")]).await;
    let mut browser = logged_in(&console, "alice", "admin").await;
    let answer = browser.post("/api/orchestrator/v1/jobs", &json!({"args": "x".repeat(900 << 10)})).await;
    assert_eq!((answer.status, answer.json()["bytes"].as_u64().unwrap() > 900 << 10), (200, true));
    let answer = browser.post("/api/orchestrator/v1/jobs", &json!({"args": "x".repeat(1 << 20)})).await;
    assert_eq!((answer.status, answer.code()), (413, "too_large".to_owned()), "{}", answer.body);
    let answer = browser.get("/api/broadcaster/v1/endpoints").await;
    assert_eq!((answer.status, answer.code()), (502, "upstream_unavailable".to_owned()));
    assert!(answer.body.contains("BROADCASTER_URL"), "{}", answer.body);
}

#[tokio::test]
async fn a_page_that_asks_again_learns_that_nothing_changed() {
    let console = Running::start(&[("PROMETHEUS_URL", &upstream().await)]).await;
    let browser = logged_in(&console, "victor", "viewer").await;
    let path = "/api/prometheus/api/v1/alerts";
    let first = browser.send("GET", path, &[("accept-encoding", "gzip")], None).await;
    assert_eq!((first.status, first.header("content-encoding")), (200, "gzip".to_owned()));
    let tag = first.header("etag");
    let seen: Value = browser.get(path).await.json();
    assert!(seen["headers"].get("authorization").is_none(), "the identity is for our own services");
    // What the service shows has a request id that differs, so the answer is asked for with its own tag.
    let again = browser.send("GET", path, &[("if-none-match", &tag), ("x-request-id", "same")], None).await;
    assert!(matches!(again.status, 200 | 304), "{}", again.head);
    let any = browser.send("GET", path, &[("if-none-match", "*")], None).await;
    assert_eq!((any.status, any.body.len()), (304, 0));
}

#[tokio::test]
async fn events_arrive_as_they_happen_and_end_with_the_console() {
    let mut console = Running::start(&[("ORCHESTRATOR_URL", &upstream().await)]).await;
    let browser = logged_in(&console, "victor", "viewer").await;
    let mut stream = TcpStream::connect(&browser.address).await.unwrap();
    let cookie = format!("af_access={}", browser.cookies["af_access"]);
    let text = format!(
        "GET /api/orchestrator/v1/jobs/a/watch HTTP/1.1\r\nHost: {}\r\nCookie: {cookie}\r\nAccept: text/event-stream\r\n\r\n",
        browser.address
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut seen = String::new();
    let read = async {
        let mut piece = [0; 4096];
        while !seen.contains("data: first") {
            let size = stream.read(&mut piece).await.unwrap();
            assert!(size > 0, "{seen}");
            seen += &String::from_utf8_lossy(&piece[..size]);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read).await.expect("the first event before the end of the stream");
    assert!(seen.contains("text/event-stream"), "{seen}");
    assert_eq!(console.proc.sigterm(Duration::from_secs(40)).await, 0, "a stream does not hold up the stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_who_ask_the_same_are_one_question_to_the_service() {
    const ASKED: u64 = 120;
    let counts: [Arc<AtomicU64>; 3] = Default::default();
    let counting = |count: &Arc<AtomicU64>| {
        let count = Arc::clone(count);
        get(async move || Json(json!({"asked": count.fetch_add(1, Ordering::SeqCst)})))
    };
    let [queues, jobs, slo] = &counts;
    let router = Router::new()
        .route("/v1/queues", counting(queues))
        .route("/v1/jobs", counting(jobs))
        .route("/v1/slo", counting(slo))
        .route("/v1/queues/{name}/pause", any(|| async { StatusCode::OK }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let console = Running::start(&[("ORCHESTRATOR_URL", &url), ("CONSOLE_API_RATE", "0")]).await;
    let mut browsers = [logged_in(&console, "oscar", "operator").await, logged_in(&console, "olga", "operator").await];
    let ask = async |path: &'static str| {
        let asking = (0..ASKED).map(|n| browsers[n as usize % browsers.len()].get(path));
        for answer in futures_util::future::join_all(asking).await {
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        }
    };
    ask("/api/orchestrator/v1/queues").await;
    ask("/api/orchestrator/v1/slo").await;
    for (name, count) in [("queues", queues), ("slo", slo)] {
        let asked = count.load(Ordering::SeqCst);
        assert!(asked <= ASKED / 4, "{asked} of {ASKED} questions for {name} reached the service");
    }
    // Jobs may hold what the audit log has of each reader; where they do not, the answer says so.
    ask("/api/orchestrator/v1/jobs").await;
    assert_eq!(jobs.load(Ordering::SeqCst), ASKED);
    // Who changed something sees it at once.
    browsers[0].get("/api/orchestrator/v1/queues").await;
    let before = queues.load(Ordering::SeqCst);
    assert_eq!(browsers[0].post("/api/orchestrator/v1/queues/a/pause", &json!({})).await.status, 200);
    browsers[0].get("/api/orchestrator/v1/queues").await;
    assert_eq!(queues.load(Ordering::SeqCst), before + 1);
}

#[tokio::test]
async fn a_large_page_of_metrics_travels_as_it_was_packed() {
    let packed = |headers: HeaderMap| async move {
        assert!(headers["accept-encoding"].to_str().unwrap().contains("gzip"));
        ([("content-type", "text/plain"), ("content-encoding", "gzip")], "packed").into_response()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/metrics", get(packed))).await });
    let console = Running::start(&[("NATS_EXPORTER_URL", &url)]).await;
    let browser = logged_in(&console, "vera", "viewer").await;
    let answer = browser.send("GET", "/api/exporter/metrics", &[("accept-encoding", "gzip, br")], None).await;
    assert_eq!((answer.status, answer.header("content-encoding"), answer.body), (200, "gzip".into(), "packed".into()));
}
