//! TLS in the service itself: streams, requests and client certificates.

use crate::support::{Frame, SOON, World, Ws};
use agentforge_harness::{free_port, require};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::{path::Path, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

#[tokio::test(flavor = "multi_thread")]
async fn clients_with_a_certificate_follow_over_tls_and_others_are_told() {
    let Some(()) = require("nats-server") else { return };
    let dir = tempfile::tempdir().unwrap();
    let ca = files(dir.path());
    let port = free_port().to_string();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let world = World::start(&[
        ("HTTP_PORT", &port),
        ("TACTICAL_TLS_CERT", &path("server.pem")),
        ("TACTICAL_TLS_KEY", &path("server.key")),
        ("TACTICAL_TLS_CLIENT_CA", &path("ca.pem")),
        ("TACTICAL_REQUIRE_CLIENT_CERT", "on"),
        // Nothing is to be left out while one of the two is read.
        ("TACTICAL_CLIENT_BUFFER", "16MiB"),
    ])
    .await;
    let bus = world.bus().await;
    let address = format!("127.0.0.1:{port}");

    let mut without = connect(&address, config(&ca, None)).await;
    assert!(ask(&mut without, "/events/stream", "x-client-verify: SUCCESS\r\n").await.starts_with("HTTP/1.1 403 "));
    let mut health = connect(&address, config(&ca, None)).await;
    assert!(ask(&mut health, "/healthz", "").await.starts_with("HTTP/1.1 200 "));

    let with = config(&ca, Some(dir.path()));
    let mut sse = connect(&address, with.clone()).await;
    assert!(ask(&mut sse, "/events/stream", "").await.starts_with("HTTP/1.1 200 "));
    let mut ws = wss(&address, with.clone(), "/events/ws").await;
    world.api.until_clients(1.0, 1.0).await;
    // Far more than TLS or the kernel hold at once, to both, whole and in order.
    let description = "d".repeat(1000);
    for n in 0..2000 {
        let body = serde_json::json!({"title": n.to_string(), "description": description, "coordinates": [1, 2]});
        bus.js.publish(format!("tactical.markers.s.m{}", n % 40), body.to_string().into()).await.unwrap();
    }
    let text = until(&mut sse, "\"title\":\"1999\"").await;
    let titles: Vec<usize> =
        text.lines().filter_map(|l| l.split("\"title\":\"").nth(1)?.split('"').next()?.parse().ok()).collect();
    assert_eq!(titles, (0..2000).collect::<Vec<_>>());
    for n in 0..2000 {
        let Frame::Event(got) = ws.frame().await else { panic!() };
        assert_eq!(got.title(), n.to_string());
    }
    // A browser shows its certificate for every page that asks; a page of another origin gets nothing by it.
    let own = format!("https://{address}");
    for (origin, code) in [(&*own, None), ("https://evil.example", Some(4403)), ("null", Some(4403))] {
        let mut ws = wss_from(&address, with.clone(), "/events/ws?since=1999", origin).await;
        match (ws.frame().await, code) {
            (Frame::Event(got), None) => assert_eq!(got.event, "marker", "{origin}"),
            (Frame::Closed(found, reason), Some(code)) => {
                assert_eq!((found, reason.starts_with("origin_not_allowed:")), (code, true), "{origin}: {reason}");
            }
            (got, _) => panic!("{origin}: {got:?}"),
        }
    }
    world.api.until_clients(1.0, 1.0).await;
    // A client that leaves by the book of TLS is gone.
    sse.shutdown().await.unwrap();
    ws.socket.close(None).await.unwrap();
    world.api.until_clients(0.0, 0.0).await;
    // A handshake that never ends takes no place.
    let _stalled = TcpStream::connect(&address).await.unwrap();
    let mut again = wss(&address, with, "/events/ws?since=0").await;
    let Frame::Event(got) = again.frame().await else { panic!() };
    assert_eq!(got.event, "marker");
}

type Tls = tokio_rustls::client::TlsStream<TcpStream>;

/// An authority, a server and a client of it.
fn files(dir: &Path) -> String {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    for (name, host) in [("server", "127.0.0.1"), ("client", "client")] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &ca).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), cert.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    std::fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    ca.pem()
}

fn config(ca: &str, client: Option<&Path>) -> Arc<rustls::ClientConfig> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    Arc::new(match client {
        None => builder.with_no_client_auth(),
        Some(dir) => {
            let chain = vec![CertificateDer::from_pem_file(dir.join("client.pem")).unwrap()];
            let key = PrivateKeyDer::from_pem_file(dir.join("client.key")).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

async fn connect(address: &str, config: Arc<rustls::ClientConfig>) -> Tls {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = "127.0.0.1".try_into().unwrap();
    timeout(SOON, tokio_rustls::TlsConnector::from(config).connect(name, stream)).await.unwrap().unwrap()
}

/// Sends a request and gives the head of the answer.
async fn ask(stream: &mut Tls, path: &str, headers: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes()).await.unwrap();
    until(stream, "\r\n\r\n").await
}

async fn until(stream: &mut Tls, end: &str) -> String {
    let mut text = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while !text.windows(end.len()).any(|w| w == end.as_bytes()) {
        let n = timeout(SOON, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(n > 0, "ended after {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8(text).unwrap()
}

async fn wss(address: &str, config: Arc<rustls::ClientConfig>, path: &str) -> Ws<Tls> {
    wss_from(address, config, path, "").await
}

/// As a page of this origin.
async fn wss_from(address: &str, config: Arc<rustls::ClientConfig>, path: &str, origin: &str) -> Ws<Tls> {
    let stream = connect(address, config).await;
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    if !origin.is_empty() {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    let (socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    Ws { socket, protocol: None }
}
