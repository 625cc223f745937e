//! Traces by HTTP, against a receiver that reads what arrives.

use crate::process::{address, start};
use crate::support::ask;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_rustls::TlsAcceptor;

/// The other end of a connection by TLS: a request, all of which is read, and an answer to it.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, sender: Sender<Received>) -> std::io::Result<()> {
    let (mut request, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut part).await?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&part[..read]);
        let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
        let length: usize = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        if request.len() < end + 4 + length {
            continue;
        }
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let spans = ExportTraceServiceRequest::decode(&request[end + 4..]).unwrap();
        sender.send((path, HeaderMap::new(), spans)).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
        request.clear();
    }
}

/// A collector with a certificate of an authority that no system knows: where it is, the authority's file, and what it got.
async fn collector_by_tls(dir: &TempDir) -> (String, String, Receiver<Received>) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = channel(64);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                // Who does not know the authority ends the handshake.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let _ = answer(stream, sender).await;
            });
        }
    });
    (format!("https://{address}"), file.to_str().unwrap().to_owned(), received)
}

type Received = (String, HeaderMap, ExportTraceServiceRequest);

/// A collector that answers with one status, and what it got.
async fn collector(status: StatusCode) -> (String, Receiver<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = channel(64);
    let app = Router::new().fallback(move |uri: Uri, headers: HeaderMap, body: Bytes| async move {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        sender.send((uri.path().to_owned(), headers, request)).await.unwrap();
        (status, Bytes::new())
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}"), received)
}

/// A service that answers one request, and ends: what the collector has by then.
async fn spans_of(settings: &[(&str, &str)], received: &mut Receiver<Received>) -> Vec<Received> {
    let mut started = start("", settings);
    let http = address(&started.ready().await, "http");
    assert!(ask(http, "GET /log", "").await.starts_with("HTTP/1.1 200"));
    started.signal();
    let end = tokio::task::spawn_blocking(|| started.end()).await.unwrap();
    assert_eq!(end.status.code(), Some(0), "{}", String::from_utf8_lossy(&end.stderr));
    std::iter::from_fn(|| received.try_recv().ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_go_by_http_below_the_base_with_the_headers_that_are_set() {
    let (base, mut received) = collector(StatusCode::OK).await;
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{base}/in/")),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=ours,authorization=Bearer%20abc".to_owned()),
    ];
    let settings = settings.each_ref().map(|(key, value)| (*key, value.as_str()));
    let all = spans_of(&settings, &mut received).await;
    let mut names = BTreeSet::new();
    for (path, headers, request) in &all {
        assert_eq!(path, "/in/v1/traces");
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(
            (&headers["x-team"], &headers["authorization"]),
            (&"ours".parse().unwrap(), &"Bearer abc".parse().unwrap())
        );
        for spans in &request.resource_spans {
            let attributes = &spans.resource.as_ref().unwrap().attributes;
            let service = attributes.iter().find(|of| of.key == "service.name").unwrap().value.clone().unwrap();
            assert_eq!(service.value, Some(Value::StringValue("probe".to_owned())));
            names.extend(spans.scope_spans.iter().flat_map(|of| of.spans.iter().map(|span| span.name.clone())));
        }
    }
    assert!(names.iter().any(|name| name == "GET /log"), "{names:?}");
    assert!(names.iter().all(|name| !name.contains("v1/traces")), "sending is not traced itself: {names:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_of_traces_is_used_as_it_is() {
    let (base, mut received) = collector(StatusCode::OK).await;
    let endpoint = format!("{base}/mine");
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
    ];
    let all = spans_of(&settings, &mut received).await;
    assert!(!all.is_empty() && all.iter().all(|(path, ..)| path == "/mine"), "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_refuses_holds_up_neither_work_nor_the_end() {
    let (base, mut received) = collector(StatusCode::BAD_REQUEST).await;
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", base.as_str()), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
    let start = Instant::now();
    let all = spans_of(&settings, &mut received).await;
    assert!(!all.is_empty(), "it was asked");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

/// By TLS, to a collector whose authority the system's list has: `SSL_CERT_FILE` is that list. One that it lacks gets nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_go_by_https_to_who_has_a_certificate_of_a_known_authority() {
    let dir = TempDir::new().unwrap();
    let (base, authority, mut received) = collector_by_tls(&dir).await;
    let mut settings = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", base.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("SSL_CERT_FILE", authority.as_str()),
    ];
    let all = spans_of(&settings, &mut received).await;
    assert!(!all.is_empty() && all.iter().all(|(path, ..)| path == "/v1/traces"), "{all:?}");
    let spans = all.iter().flat_map(|(_, _, request)| &request.resource_spans).flat_map(|of| &of.scope_spans);
    assert!(spans.flat_map(|of| &of.spans).any(|span| span.name == "GET /log"), "{all:?}");
    // Another authority's list: work continues, and no span leaves.
    let other = dir.path().join("other.pem");
    let stranger =
        CertifiedIssuer::self_signed(CertificateParams::new([]).unwrap(), KeyPair::generate().unwrap()).unwrap();
    std::fs::write(&other, stranger.pem()).unwrap();
    settings[2].1 = other.to_str().unwrap();
    assert!(spans_of(&settings, &mut received).await.is_empty());
}
