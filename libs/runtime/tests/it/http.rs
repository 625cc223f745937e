//! Requests: ids, metrics, panics, and a shutdown that no stream can hold up.

use crate::support::{ask, open, read_until, router};
use agentforge_runtime::{Error, Runtime, admin_router, bind, http::instrument, serve_http};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

async fn serving(runtime: &Runtime, grace: Duration) -> (SocketAddr, JoinHandle<Result<(), Error>>) {
    let listener = bind("127.0.0.1:0".parse().unwrap(), "HTTP_PORT").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = instrument(router().merge(admin_router(runtime)), runtime);
    (address, tokio::spawn(serve_http(listener, router, runtime.stopping(), grace)))
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = answer.lines().take_while(|line| !line.is_empty());
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn readyz_follows_the_gates_and_the_stop() {
    let runtime = Runtime::for_tests("gates");
    let (address, server) = serving(&runtime, Duration::from_secs(5)).await;
    let gate = runtime.readiness().gate("database", true);
    runtime.readiness().gate("nats", false);

    let answer = ask(address, "GET /readyz", "").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    gate.set(true, "open");
    let answer = ask(address, "GET /readyz", "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["ready"], true);
    assert_eq!(body["checks"]["database"], serde_json::json!({"ok": true, "required": true, "detail": "open"}));
    assert_eq!(body["checks"]["nats"]["ok"], false);

    runtime.readiness().set_stopping();
    assert!(ask(address, "GET /readyz", "").await.starts_with("HTTP/1.1 503"));
    assert!(ask(address, "GET /healthz", "").await.starts_with("HTTP/1.1 200"), "stopping is not dead");
    runtime.stopping().cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn request_ids_are_kept_if_sound_and_made_if_not() {
    let runtime = Runtime::for_tests("ids");
    let (address, _server) = serving(&runtime, Duration::from_secs(5)).await;
    let answer = ask(address, "GET /v1/things/1", "x-request-id: my-id/7\r\n").await;
    assert_eq!(header(&answer, "x-request-id"), Some("my-id/7"));
    for sent in [String::new(), format!("x-request-id: {}\r\n", "x".repeat(129)), "x-request-id: a b\r\n".to_owned()] {
        let answer = ask(address, "GET /v1/things/1", &sent).await;
        let id = header(&answer, "x-request-id").unwrap();
        assert_eq!((id.len(), id.matches('-').count()), (36, 4), "{id}");
    }
    let answer = ask(address, "GET /nowhere", "x-request-id: lost\r\n").await;
    assert_eq!(header(&answer, "x-request-id"), Some("lost"), "unmatched paths too: {answer}");
}

#[tokio::test]
async fn metrics_count_by_route_template_method_and_status() {
    let runtime = Runtime::for_tests("counted");
    let (address, _server) = serving(&runtime, Duration::from_secs(5)).await;
    for id in 0..3 {
        ask(address, &format!("GET /v1/things/{id}"), "").await;
    }
    ask(address, "BREW /nowhere/123", "").await;
    let answer = ask(address, "GET /metrics", "").await;
    for line in [
        "agentforge_http_requests_total{service=\"counted\",method=\"GET\",route=\"/v1/things/{id}\",status=\"200\"} 3",
        "agentforge_http_requests_total{service=\"counted\",method=\"other\",route=\"unmatched\",status=\"404\"} 1",
        "agentforge_http_request_duration_seconds_count{service=\"counted\",method=\"GET\",route=\"/v1/things/{id}\"} 3",
    ] {
        assert!(answer.lines().any(|found| found == line), "{line} in\n{answer}");
    }
    assert!(answer.contains("process_resident_memory_bytes"));
    assert!(!answer.contains("/nowhere/123"), "no raw path is a label");
}

#[tokio::test]
async fn a_caller_that_goes_away_is_counted() {
    let runtime = Runtime::for_tests("impatient");
    let (address, _server) = serving(&runtime, Duration::from_secs(5)).await;
    let stream = open(address, "GET /slow", "").await;
    ask(address, "GET /v1/things/1", "").await;
    drop(stream);
    let line = "agentforge_http_requests_total{service=\"impatient\",method=\"GET\",route=\"/slow\",status=\"499\"} 1";
    let start = Instant::now();
    while !ask(address, "GET /metrics", "").await.lines().any(|found| found == line) {
        assert!(start.elapsed() < Duration::from_secs(10), "never counted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_listener_goes_on() {
    let runtime = Runtime::for_tests("panics");
    let (address, _server) = serving(&runtime, Duration::from_secs(5)).await;
    let answer = ask(address, "GET /panic", "x-request-id: p-1\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    assert_eq!(header(&answer, "content-type"), Some("application/problem+json"));
    assert!(answer.contains("\"request_id\":\"p-1\"") && !answer.contains("oh no"), "{answer}");
    assert!(ask(address, "GET /v1/things/1", "").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_open_event_stream_ends_at_the_stop_without_waiting_for_the_grace() {
    let runtime = Runtime::for_tests("sse");
    let (address, server) = serving(&runtime, Duration::from_secs(30)).await;
    let mut stream = open(address, "GET /events", "").await;
    read_until(&mut stream, "data: hello").await;
    let start = Instant::now();
    runtime.stopping().cancel();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the stream ends properly: {:?}", String::from_utf8_lossy(&rest));
    server.await.unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_response_without_end_is_cut_inside_the_grace() {
    let runtime = Runtime::for_tests("endless");
    let grace = Duration::from_secs(3);
    let (address, server) = serving(&runtime, grace).await;
    let mut stream = open(address, "GET /endless", "").await;
    read_until(&mut stream, "x").await;
    let start = Instant::now();
    runtime.stopping().cancel();
    server.await.unwrap().unwrap();
    assert!(start.elapsed() < grace + Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(start.elapsed() > grace / 2, "requests have their time to finish");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    ended.expect("the connection is closed, not left open").ok();
}

#[tokio::test]
async fn a_request_in_flight_is_finished_and_a_new_one_is_refused() {
    let runtime = Runtime::for_tests("flight");
    let (address, server) = serving(&runtime, Duration::from_secs(10)).await;
    let mut stream = open(address, "GET /slow", "").await;
    // The request is in the handler once another one, sent later, was answered.
    ask(address, "GET /v1/things/1", "").await;
    runtime.stopping().cancel();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    server.await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(address, "HTTP_PORT").await.unwrap_err().to_string();
    assert!(
        error.contains(&address.to_string()) && error.contains("HTTP_PORT") && error.contains("another process"),
        "{error}"
    );
}

#[tokio::test]
async fn a_refusal_reaches_a_caller_that_is_still_sending() {
    const SENT: usize = 8 * 1024 * 1024;
    let runtime = Runtime::for_tests("linger");
    let (address, _server) = serving(&runtime, Duration::from_secs(5)).await;
    let head = |more: &str| format!("POST /nowhere HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{more}\r\n");

    for _ in 0..5 {
        let mut caller = tokio::net::TcpStream::connect(address).await.unwrap();
        caller.write_all(head(&format!("content-length: {SENT}\r\n")).as_bytes()).await.unwrap();
        // A reset while sending or before the answer is read fails here.
        for _ in 0..SENT / 65_536 {
            caller.write_all(&[b'x'; 65_536]).await.unwrap();
        }
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }

    // Who asks before sending is refused before sending.
    let mut caller = tokio::net::TcpStream::connect(address).await.unwrap();
    let ask_first = head(&format!("content-length: {SENT}\r\nexpect: 100-continue\r\n"));
    caller.write_all(ask_first.as_bytes()).await.unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[tokio::test]
async fn a_request_that_does_not_say_once_which_host_it_means_is_refused() {
    let runtime = Runtime::for_tests("hosts");
    let (address, _server) = serving(&runtime, Duration::from_secs(5)).await;
    for (head, status) in [
        ("GET /healthz HTTP/1.1\r\n", "400"),
        ("GET /healthz HTTP/1.1\r\nhost: a\r\nhost: a\r\n", "400"),
        ("GET /healthz HTTP/1.1\r\nhost: a b\r\n", "400"),
        ("GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n", "200"),
        ("GET /healthz HTTP/1.0\r\n", "200"),
    ] {
        let mut caller = tokio::net::TcpStream::connect(address).await.unwrap();
        caller.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A refused connection ends by itself.
        let ended = tokio::time::timeout(Duration::from_secs(30), caller.read_to_string(&mut answer)).await;
        ended.expect("the connection ends").unwrap();
        assert_eq!(answer.split(' ').nth(1), Some(status), "{head}: {answer}");
    }
}
