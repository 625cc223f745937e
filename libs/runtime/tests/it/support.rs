//! A minimal HTTP client, and a service with configurable behaviour.

use agentforge_config::{CommaList, Common, Reader, Setting};
use agentforge_metrics::Metric;
use agentforge_runtime::{
    Endpoints, OnEnd, Runtime, Service, admin_router, bind, http::instrument, serve_http, serve_metrics,
};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const PORT: Setting = Setting::new("HTTP_PORT", Some("0"), "port 0-65535", "Where the probe listens.");
pub const TRICKS: Setting = Setting::new("PROBE_TRICKS", None, "a list of tricks", "How the probe misbehaves.");
pub const TOKEN: Setting = Setting::new("PROBE_TOKEN", None, "text", "A secret.").secret();

const COUNT: Metric = Metric::counter("agentforge_probe_total", &[], "Counts nothing.");

/// A service that does what a service does, and misbehaves on request.
pub struct Probe {
    endpoints: Endpoints,
    runtime: Runtime,
}

#[derive(Clone)]
pub struct ProbeConfig {
    common: Common,
    port: u16,
    tricks: Vec<String>,
}

impl ProbeConfig {
    fn has(&self, trick: &str) -> bool {
        self.tricks.iter().any(|found| found == trick)
    }
}

#[async_trait::async_trait]
impl Service for Probe {
    const NAME: &'static str = "probe";
    type Config = ProbeConfig;

    fn settings() -> Vec<(&'static str, Vec<Setting>)> {
        vec![("Common", Common::SETTINGS.to_vec()), ("Probe", vec![PORT, TRICKS, TOKEN])]
    }

    fn read_config(reader: &mut Reader<'_>) -> ProbeConfig {
        let common = Common::read(reader);
        let _token: Option<agentforge_config::Secret> = reader.opt(&TOKEN);
        ProbeConfig {
            common,
            port: reader.get(&PORT),
            tricks: reader.opt::<CommaList>(&TRICKS).unwrap_or_default().into_inner(),
        }
    }

    fn common(config: &ProbeConfig) -> &Common {
        &config.common
    }

    fn metrics() -> Vec<&'static [Metric]> {
        vec![&[COUNT]]
    }

    async fn build(config: ProbeConfig, runtime: Runtime) -> Result<Self, anyhow::Error> {
        if config.has("hang-in-build") {
            tracing::info!("hanging in build");
            std::future::pending::<()>().await;
        }
        if config.has("ask-and-log") {
            ask_and_log();
        }
        let listener = bind(config.common.listen(config.port), PORT.key).await?;
        let http = listener.local_addr()?;
        let metrics = serve_metrics(&runtime, &config.common).await?;
        runtime.readiness().gate("work", true).set(true, "working");
        let router = instrument(router().merge(admin_router(&runtime)), &runtime);
        let (stop, grace) = (runtime.stopping(), runtime.grace());
        let serve = async move { Ok(serve_http(listener, router, stop, grace).await?) };
        runtime.supervisor().spawn("http", OnEnd::Stop, serve);
        if config.has("fail") {
            runtime.supervisor().spawn("failing", OnEnd::Stop, async { Err(anyhow::anyhow!("lost my marbles")) });
        }
        if config.has("end-early") {
            runtime.supervisor().spawn("short", OnEnd::Stop, async { Ok(()) });
        }
        if config.has("deaf") {
            runtime.supervisor().spawn("deaf", OnEnd::Stop, std::future::pending());
        }
        Ok(Self { endpoints: Endpoints { http: Some(http), metrics, ..Endpoints::default() }, runtime })
    }

    fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    async fn run(self) -> Result<(), anyhow::Error> {
        self.runtime.stopping().cancelled().await;
        self.runtime.supervisor().drain(self.runtime.drain_deadline()).await?;
        Ok(())
    }
}

/// A hundred events, and as many spans, each after a question of a library that then logs nothing.
fn ask_and_log() {
    for n in 0..100 {
        let _asked = tracing::enabled!(target: "library", tracing::Level::DEBUG);
        tracing::info!(n, "told");
        let _asked = tracing::enabled!(target: "library", tracing::Level::INFO);
        tracing::info_span!("work").in_scope(|| {
            let _asked = tracing::enabled!(target: "library", tracing::Level::WARN);
            tracing::info!(n, "worked");
        });
    }
}

/// Routes that answer, panic, take their time, or never end.
pub fn router() -> Router {
    let event = || Ok::<_, Infallible>(Event::default().data("hello"));
    Router::new()
        .route("/v1/things/{id}", get(|| async { "thing" }))
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("oh no")
                }
            }),
        )
        .route("/log", get(|| async { tracing::info!(answer = 42, "logging") }))
        .route("/slow", get(|| async { tokio::time::sleep(Duration::from_millis(300)).await }))
        .route(
            "/events",
            get(move || async move {
                let first = futures_util::stream::once(std::future::ready(event()));
                Sse::new(futures_util::StreamExt::chain(first, futures_util::stream::pending()))
            }),
        )
        .route(
            "/endless",
            get(|| async {
                let first = futures_util::stream::once(std::future::ready(Ok::<_, Infallible>(Bytes::from("x"))));
                Body::from_stream(futures_util::StreamExt::chain(first, futures_util::stream::pending()))
            }),
        )
}

/// Asks and reads the whole answer, head and body.
pub async fn ask(address: SocketAddr, request_line: &str, headers: &str) -> String {
    let mut stream = open(address, request_line, &format!("{headers}connection: close\r\n")).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    read.expect("an answer within 20 s").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends a request and leaves the connection open.
pub async fn open(address: SocketAddr, request_line: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request_line} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads until `text` has come.
pub async fn read_until(stream: &mut TcpStream, text: &str) {
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    let reading = async {
        while !seen.contains(text) {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "closed before {text:?}: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("within 20 s");
}
