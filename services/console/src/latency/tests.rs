//! The sampler against servers that are quick, slow, silent, endless, or not there.

use super::metrics;
use super::recent::Recent;
use super::settings::LatencyConfig;
use super::targets::{Allow, parse};
use super::{Latency, router};
use agentforge_access::{Principal, Role, Scopes};
use agentforge_harness::eventually;
use axum::{Extension, Router, body::Body, http::Request};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const SOON: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_millis(600);

/// A server that treats each connection the same way; its port.
async fn server<F, Fut>(serve: F) -> u16
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    port
}

/// Answers after `wait`.
async fn answering(wait: Duration, answer: &'static [u8]) -> u16 {
    server(move |mut socket| async move {
        let mut head = [0; 2048];
        let _ = socket.read(&mut head).await;
        tokio::time::sleep(wait).await;
        let _ = socket.write_all(answer).await;
    })
    .await
}

fn config(dir: &Path, targets: &str, allow: &[&str]) -> LatencyConfig {
    let targets = parse(targets).unwrap();
    let allow = Allow::new(&targets, allow.iter().copied()).unwrap();
    let interval = Duration::from_millis(1_300);
    LatencyConfig { interval, timeout: TIMEOUT, targets, allow, ca_file: None, data_dir: dir.to_owned() }
}

struct Running {
    latency: Latency,
    router: Router,
    stop: CancellationToken,
}

impl Running {
    fn start(config: LatencyConfig) -> Self {
        let latency = Latency::new(config, Arc::new(Recent::default())).unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(latency.clone().run(stop.clone()));
        Self { router: router(latency.clone()), latency, stop }
    }

    async fn ask(&self, role: Role, method: &str, path: &str, body: Value) -> (u16, Value) {
        let caller = Principal { name: "ada".into(), role, scopes: Scopes::ALL };
        let request = Request::builder().method(method).uri(path).body(Body::from(body.to_string())).unwrap();
        let answer = self.router.clone().layer(Extension(caller)).oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn service(&self, name: &str) -> Value {
        let (_, page) = self.ask(Role::Read, "GET", "/api/service-latencies", Value::Null).await;
        let services = page["services"].as_array().unwrap();
        services.iter().find(|service| service["name"] == name).unwrap().clone()
    }

    /// Waits until a service was sampled twice, once with this status.
    async fn answered(&self, name: &str, status: &Value) -> Value {
        eventually(SOON, "the service is sampled", || async {
            let service = self.service(name).await;
            let samples = service["samples"].as_array().unwrap();
            let is_there = samples.len() >= 2 && samples.iter().any(|sample| sample["status"] == *status);
            if is_there { Ok(service) } else { Err(service.to_string()) }
        })
        .await
    }

    /// Waits until a service has so many samples.
    async fn sampled(&self, name: &str, count: usize) -> Value {
        eventually(SOON, "the service is sampled", || async {
            let service = self.service(name).await;
            let found = service["samples"].as_array().unwrap().len();
            if found >= count { Ok(()) } else { Err(format!("{found} samples of {name}")) }
        })
        .await;
        self.service(name).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_server_is_sampled_for_what_it_is_and_holds_up_no_other() {
    let quick = answering(Duration::ZERO, OK).await;
    let slow = answering(Duration::from_millis(450), OK).await;
    let failing = answering(Duration::ZERO, b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
    let moved =
        answering(Duration::ZERO, b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n")
            .await;
    let silent = server(|socket| async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        drop(socket);
    })
    .await;
    let endless = server(|mut socket| async move {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while socket.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    let rubbish = answering(Duration::ZERO, b"what do you want?\r\n\r\n").await;
    // The listener is gone.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let all = [
        ("quick", quick),
        ("slow", slow),
        ("failing", failing),
        ("moved", moved),
        ("silent", silent),
        ("endless", endless),
        ("rubbish", rubbish),
        ("closed", closed),
    ];
    let targets: Vec<String> =
        all.iter().map(|(name, port)| format!("{name}:http://127.0.0.1:{port}/readyz?x=1")).collect();
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(config(dir.path(), &targets.join(","), &[]));
    for (name, status, class) in [
        ("quick", json!(200), "good"),
        ("slow", json!(200), "high"),
        ("failing", json!(503), "na"),
        ("moved", json!(302), "good"),
        ("silent", Value::Null, "na"),
        ("endless", json!(200), "good"),
        ("rubbish", Value::Null, "na"),
        ("closed", Value::Null, "na"),
    ] {
        // On a busy machine a probe of a good server may come to nothing once.
        let service = running.answered(name, &status).await;
        let samples = service["samples"].as_array().unwrap();
        let sample = samples.iter().find(|sample| sample["status"] == status).unwrap();
        if !matches!(name, "quick" | "moved" | "endless") {
            assert_eq!(sample["cls"], class, "{name}: {sample}");
        }
        let ms = sample["ms"].as_f64().unwrap();
        assert!(ms <= 5_000.0, "{name} took {ms} ms: the timeout does not hold");
        assert_eq!(sample["ok"] == true, status.as_u64().is_some_and(|s| s < 400), "{name}");
        let stats = &service["stats"];
        let failed = samples.iter().filter(|sample| sample["ok"] == false).count();
        let share = (1_000.0 * failed as f64 / samples.len() as f64).round() / 10.0;
        assert_eq!(stats["failure_rate_pct"], share, "{name}: {service}");
        assert_eq!(stats["latest_ms"].is_null(), failed == samples.len(), "{name}: {service}");
    }
    let silent = running.service("silent").await["samples"][0]["ms"].as_f64().unwrap();
    assert!(silent >= 600.0, "{silent} ms");
    let slow = running.service("slow").await["stats"]["min_ms"].as_f64().unwrap();
    assert!(slow >= 450.0, "{slow} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn targets_change_while_it_runs_and_the_file_wins_after_a_restart() {
    let (first, second) = (answering(Duration::ZERO, OK).await, answering(Duration::ZERO, OK).await);
    let dir = tempfile::tempdir().unwrap();
    let configured = format!("one:http://127.0.0.1:{first}/");
    let listed = format!("127.0.0.1:{second}");
    let running = Running::start(config(dir.path(), &configured, &[&listed]));
    running.sampled("one", 1).await;
    let two = json!({"targets": [{"name": "two", "url": format!("http://127.0.0.1:{second}/x")}], "persist": true});

    // Who may, and what.
    for role in [Role::Read, Role::Operator] {
        assert_eq!(running.ask(role, "POST", "/admin/latency-targets", two.clone()).await.0, 403);
    }
    assert_eq!(running.ask(Role::Alerts, "GET", "/api/service-latencies", Value::Null).await.0, 403);
    for bad in [
        json!({"targets": "meta:http://169.254.169.254/latest", "persist": true}),
        json!({"targets": format!("x:http://127.0.0.1:{}/", second + 1), "persist": true}),
        json!({"targets": "x:file:///etc/passwd"}),
        json!({"targets": 7}),
        json!([]),
    ] {
        let (status, problem) = running.ask(Role::Admin, "POST", "/admin/latency-targets", bad.clone()).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_argument")), "{bad}");
    }
    assert!(!dir.path().join("latency_targets.json").exists());

    let (status, answer) = running.ask(Role::Admin, "POST", "/admin/latency-targets", two).await;
    assert_eq!((status, &answer["source"], &answer["count"]), (200, &json!("persisted"), &json!(1)), "{answer}");
    running.sampled("two", 1).await;
    let names = |view: super::board::View| view.services.into_iter().map(|s| s.name).collect::<Vec<_>>();
    assert_eq!(names(running.latency.view(0)), ["two"]);
    let (_, events) = running.ask(Role::Read, "GET", "/events/recent?event=latency.targets.init", Value::Null).await;
    let told: Vec<_> = events["events"].as_array().unwrap().iter().map(|e| e["data"].clone()).collect();
    assert_eq!(told, [json!({"source": "persisted", "count": 1}), json!({"source": "env", "count": 1})]);
    drop(running);

    // The file wins.
    let again = Running::start(config(dir.path(), &configured, &[&listed]));
    assert_eq!(names(again.latency.view(0)), ["two"]);
    // Not if its target is not on the list any more.
    let narrowed = Running::start(config(dir.path(), &configured, &[]));
    assert_eq!(names(narrowed.latency.view(0)), ["one"]);
    // Without persist it holds until the next start; an empty list returns to the settings.
    let text = format!("three:http://127.0.0.1:{second}/");
    let (_, answer) = again.ask(Role::Admin, "POST", "/admin/latency-targets", json!({"targets": text})).await;
    assert_eq!((&answer["source"], &answer["targets"][0]["name"]), (&json!("env"), &json!("three")));
    let third = Running::start(config(dir.path(), &configured, &[&listed]));
    assert_eq!(names(third.latency.view(0)), ["two"]);
    let empty = json!({"targets": [], "persist": true});
    let (_, answer) = third.ask(Role::Admin, "POST", "/admin/latency-targets", empty).await;
    assert_eq!((&answer["source"], &answer["targets"][0]["name"]), (&json!("env"), &json!("one")));
    let fourth = Running::start(config(dir.path(), &configured, &[&listed]));
    assert_eq!(names(fourth.latency.view(0)), ["one"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_metrics_has_one_source_and_only_services_that_are_sampled() {
    let handle = agentforge_metrics::install(&[metrics::METRICS]);
    let (good, closed) = (answering(Duration::ZERO, OK).await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let closed_port = closed.local_addr().unwrap().port();
    drop(closed);
    let dir = tempfile::tempdir().unwrap();
    let targets = format!("page-good:http://127.0.0.1:{good}/,page-bad:http://127.0.0.1:{closed_port}/");
    let running = Running::start(config(dir.path(), &targets, &[]));
    running.sampled("page-good", 1).await;
    running.sampled("page-bad", 1).await;
    handle.upkeep();
    let page = handle.render();
    let has = |page: &str, line: &str| page.lines().any(|found| found.starts_with(line));
    assert!(has(&page, "internal_service_latency_class{service=\"page-bad\"} 3"), "{page}");
    assert!(!has(&page, "internal_service_latency_last_ms{service=\"page-bad\"}"), "there was no success: {page}");
    assert!(has(&page, "internal_service_latency_ok_total{service=\"page-bad\"} 0"), "{page}");
    assert!(!has(&page, "internal_service_latency_attempts_total{service=\"page-bad\"} 0"), "{page}");
    let bucket = "internal_service_latency_seconds_bucket{service=\"page-bad\",success=\"false\",le=\"0.8\"}";
    assert!(has(&page, bucket) && !has(&page, &format!("{bucket} 0")), "{page}");
    assert!(has(&page, "internal_service_latency_seconds_count{service=\"page-good\",success=\"false\"} 0"), "{page}");
    let one = format!("page-good:http://127.0.0.1:{good}/");
    running.latency.change(parse(&one).unwrap(), true).await.unwrap();
    let page = handle.render();
    assert!(!has(&page, "internal_service_latency_class{service=\"page-bad\"}"), "{page}");
    assert!(has(&page, "internal_service_latency_class{service=\"page-good\"} 0"), "{page}");
    // Other tests of this process set the gauge too: each leaves one series.
    assert_eq!(page.lines().filter(|line| line.starts_with("internal_service_latency_targets{")).count(), 1, "{page}");
}
