//! Servers that hang, refuse, answer rubbish or far too much: the others' series come all the same.

use crate::support::{Exporter, Page, jetstream, make_consumer, make_stream, publish};
use agentforge_harness::{NatsOptions, NatsServer, free_port, http_get, require};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::task::AbortOnDropHandle;

/// What a server that is none does with a request for a path.
#[derive(Clone)]
enum Answer {
    Hang,
    Text(u16, &'static str),
    /// `{"<start>` and then so many bytes.
    Endless(usize),
    /// varz, and a jsz that is right and has at least so many bytes.
    Large(usize),
}

/// A listener that accepts connections but is not a NATS server.
struct Impostor {
    url: String,
    requests: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Impostor {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (answer, counted) = (answer.clone(), counted.clone());
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    counted.fetch_add(1, Ordering::SeqCst);
                    let request = String::from_utf8_lossy(&request).into_owned();
                    let _ = serve(&mut stream, &answer, &request).await;
                });
            }
        });
        Self { url, requests, _task: AbortOnDropHandle::new(task) }
    }
}

async fn serve(stream: &mut tokio::net::TcpStream, answer: &Answer, request: &str) -> std::io::Result<()> {
    let head = |status, length| format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    match answer {
        Answer::Hang => std::future::pending().await,
        Answer::Text(status, text) => stream.write_all((head(*status, text.len()) + text).as_bytes()).await,
        Answer::Endless(bytes) => {
            let start = r#"{"server_id":""#;
            stream.write_all((head(200, start.len() + bytes) + start).as_bytes()).await?;
            fill(stream, "x", *bytes).await
        }
        Answer::Large(bytes) if request.starts_with("GET /jsz") => {
            let one = |n: usize| {
                format!(
                    r#"{{"name":"c{n}","config":{{"durable_name":"c{n}","metadata":{{"padding":"{}"}}}},"num_pending":{n}}}"#,
                    "p".repeat(4000)
                )
            };
            let count = bytes / 4000;
            let start = r#"{"now":"2026-01-01T00:00:00Z","total":1,"account_details":[{"name":"A","id":"A","stream_detail":[{"name":"S","state":{},"consumer_detail":["#;
            let end = "]}]}]}";
            let length = start.len() + (0..count).map(|n| one(n).len() + 1).sum::<usize>() - 1 + end.len();
            stream.write_all((head(200, length) + start).as_bytes()).await?;
            for n in 0..count {
                let comma = if n == 0 { "" } else { "," };
                stream.write_all(format!("{comma}{}", one(n)).as_bytes()).await?;
            }
            stream.write_all(end.as_bytes()).await
        }
        Answer::Large(_) => {
            let varz = r#"{"server_id":"ID","server_name":"large"}"#;
            stream.write_all((head(200, varz.len()) + varz).as_bytes()).await
        }
    }
}

async fn fill(stream: &mut tokio::net::TcpStream, with: &str, bytes: usize) -> std::io::Result<()> {
    let piece = with.repeat(64 << 10);
    let mut left = bytes;
    while left > 0 {
        let now = left.min(piece.len());
        stream.write_all(&piece.as_bytes()[..now]).await?;
        left -= now;
    }
    Ok(())
}

async fn furnished() -> NatsServer {
    let server = NatsServer::start(NatsOptions::default().extra("server_name: good")).await;
    let js = jetstream(&server.url()).await;
    make_consumer(&make_stream(&js, "S", 1).await, "c").await;
    publish(&js, "S.a", 3).await;
    server
}

/// A scrape as Prometheus makes it, with its timeout; and how long it took.
async fn scrape(exporter: &Exporter, timeout: Duration) -> (Page, Duration) {
    let began = Instant::now();
    let header = format!("X-Prometheus-Scrape-Timeout-Seconds: {}", timeout.as_secs_f64());
    let (status, body) = http_get(&exporter.url, &[&header]).await.unwrap();
    assert_eq!(status, 200);
    (Page::parse(String::from_utf8(body).unwrap()), began.elapsed())
}

#[tokio::test]
async fn one_hangs_one_refuses_one_talks_rubbish_one_is_endless_and_the_good_one_is_told() {
    let Some(()) = require("nats-server") else { return };
    let good = furnished().await;
    let hanging = Impostor::start(Answer::Hang).await;
    let rubbish = Impostor::start(Answer::Text(200, "<html>hello</html>")).await;
    let other = Impostor::start(Answer::Text(200, r#"{"hello":"world"}"#)).await;
    let wrong = Impostor::start(Answer::Text(404, "{}")).await;
    let endless = Impostor::start(Answer::Endless(50 << 20)).await;
    let refusing = format!("http://127.0.0.1:{}", free_port());
    let all = [
        ("hanging", &hanging.url, "timeout"),
        ("rubbish", &rubbish.url, "invalid"),
        ("other", &other.url, "invalid"),
        ("wrong", &wrong.url, "status"),
        ("endless", &endless.url, "too_large"),
        ("refusing", &refusing, "connect"),
    ];
    let mut targets: Vec<String> = all.iter().map(|(id, url, _)| format!("{id},{url}")).collect();
    targets.push(format!("good,{}", good.monitor_url()));
    let exporter = Exporter::start(&["-varz", "-jsz=all", "-healthz", "-leafz", &targets.join(",")]).await;
    let timeout = Duration::from_secs(6);
    let (page, took) = scrape(&exporter, timeout).await;
    assert!(took < timeout, "the page came after {took:?}");
    assert!(took >= Duration::from_secs(2), "the hanging one had its time: {took:?}");

    assert_eq!(page.value("nats_exporter_target_up", &[("server_id", "good")]), 1.0);
    assert_eq!(page.value("nats_jetstream_consumer_num_pending", &[("consumer", "c")]), 3.0);
    assert_eq!(page.value("gnatsd_healthz_status", &[("server_id", "good")]), 0.0);
    let (page, _) = scrape(&exporter, timeout).await;
    for (id, _, reason) in all {
        assert_eq!(page.value("nats_exporter_target_up", &[("server_id", id)]), 0.0, "{id}");
        let varz = [("server_id", id), ("endpoint", "varz")];
        assert_eq!(page.value("nats_exporter_scrape_success", &varz), 0.0, "{id}");
        let counted = [varz[0], varz[1], ("reason", reason)];
        assert!(page.value("nats_exporter_scrape_errors_total", &counted) >= 1.0, "{id}");
        assert!(page.matching("gnatsd_healthz_status", &[("server_id", id)]).is_empty(), "{id}");
        assert_eq!(page.matching("gnatsd_healthz_status_value", &[("server_id", id), ("value", "unreachable")]), [0.0]);
        for name in page.names("gnatsd_varz_").union(&page.names("jetstream_")) {
            assert!(page.matching(name, &[("server_id", id)]).is_empty(), "{name} of {id}");
        }
    }
    assert_eq!(page.of("nats_exporter_target_up").len(), 7);
    let durations = page.of("nats_exporter_scrape_duration_seconds");
    assert!(durations.values().all(|s| *s < timeout.as_secs_f64()), "{durations:?}");
    assert!(
        page.value("nats_exporter_scrape_duration_seconds", &[("server_id", "hanging"), ("endpoint", "varz")]) > 2.0
    );
}

#[tokio::test]
async fn fifty_mebibytes_of_consumers_are_read_as_they_come() {
    const BYTES: usize = 50 << 20;
    let large = Impostor::start(Answer::Large(BYTES)).await;
    let exporter = Exporter::start(&["--no-stock-jetstream", &large.url]).await;
    let page = exporter.scrape().await;
    let pending = page.of("nats_jetstream_consumer_num_pending");
    assert_eq!(pending.len(), BYTES / 4000);
    assert_eq!(pending.values().sum::<f64>(), (0..BYTES / 4000).sum::<usize>() as f64);
    let status = std::fs::read_to_string(format!("/proc/{}/status", exporter.proc.pid())).unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().split(' ').next().unwrap().parse().unwrap();
    assert!(peak < 64 << 10, "{peak} KiB at its highest for an answer of {BYTES} bytes");

    let strict = Exporter::start(&["--response-max=16MiB", &large.url]).await;
    let page = strict.scrape().await;
    let counted = [("endpoint", "jsz"), ("reason", "too_large")];
    assert_eq!(page.value("nats_exporter_scrape_errors_total", &counted), 1.0);
    assert!(page.names("nats_jetstream_").is_empty(), "a part of an answer is none");
    assert_eq!(page.value("nats_exporter_target_up", &[]), 0.0);
}

#[tokio::test]
async fn scrapes_at_the_same_time_share_one_collection_and_later_ones_do_not() {
    let Some(()) = require("nats-server") else { return };
    let slow = Impostor::start(Answer::Hang).await;
    let exporter = Exporter::start(&["-varz", "--timeout=2s", &slow.url]).await;
    let pages = futures_util::future::join_all((0..8).map(|_| exporter.scrape())).await;
    assert!(pages.iter().all(|page| page.value("nats_exporter_target_up", &[]) == 0.0));
    assert_eq!(slow.requests.load(Ordering::SeqCst), 1, "eight scrapes made one request");
    exporter.scrape().await;
    assert_eq!(slow.requests.load(Ordering::SeqCst), 2, "a finished collection is never given again");
}
