//! Who may read the page, and over what: basic auth, TLS with and without client certificates, and TLS
//! towards the servers.

use crate::support::{Exporter, Page, monitor};
use agentforge_harness::{NatsOptions, NatsServer, http_get, require};
use agentforge_runtime::{Tls, serve_https};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Certificate, Identity};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// An authority, and certificates that it signed, as files.
struct Pki {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let this = Self { dir: tempfile::tempdir().unwrap(), issuer };
        std::fs::write(this.path("ca.pem"), this.issuer.pem()).unwrap();
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// `<name>.pem` and `<name>.key`, for localhost.
    fn sign(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), cert.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn client(&self, identity: Option<&str>) -> reqwest::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca = Certificate::from_pem(self.issuer.pem().as_bytes()).unwrap();
        let mut builder = reqwest::Client::builder().tls_certs_only([ca]).no_proxy();
        if let Some(name) = identity {
            let pem = ["pem", "key"].map(|end| std::fs::read_to_string(self.path(&format!("{name}.{end}"))).unwrap());
            builder = builder.identity(Identity::from_pem(pem.join("\n").as_bytes()).unwrap());
        }
        builder.build().unwrap()
    }
}

#[tokio::test]
async fn the_page_is_for_who_knows_the_password_and_probes_need_none() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default()).await;
    let hash = bcrypt::hash("s3cret-of-16-chars", 5).unwrap();
    for password in ["s3cret-of-16-chars", &hash, &hash.replace("$2b$", "$2a$")] {
        let flags = ["-varz", "-http_user", "prom", "-http_pass", password, &server.monitor_url()];
        let exporter = Exporter::start(&flags).await;
        let get = async |credentials: &str| {
            let header = format!("Authorization: Basic {}", STANDARD.encode(credentials));
            http_get(&exporter.url, &[&header]).await.unwrap()
        };
        for _ in 0..2 {
            let (status, body) = get("prom:s3cret-of-16-chars").await;
            assert_eq!(status, 200);
            assert_eq!(Page::parse(String::from_utf8(body).unwrap()).value("nats_exporter_target_up", &[]), 1.0);
        }
        for wrong in ["prom:", "prom:S3cret", "x:s3cret-of-16-chars", "prom", &format!("prom:{hash}")] {
            let (status, body) = get(wrong).await;
            assert_eq!(status, 401, "{wrong}");
            assert!(!String::from_utf8_lossy(&body).contains("gnatsd_"), "{wrong}");
        }
        assert_eq!(http_get(&exporter.url, &[]).await.unwrap().0, 401);
        assert_eq!(http_get(&exporter.url.replace("/metrics", "/healthz"), &[]).await.unwrap().0, 200);
        assert!(!exporter.proc.full_log().contains("s3cret-of-16-chars"), "{}", exporter.proc.full_log());
    }
}

#[tokio::test]
async fn the_port_has_tls_and_may_ask_for_a_client_certificate() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default()).await;
    let (pki, stranger) = (Pki::new(), Pki::new());
    pki.sign("server");
    pki.sign("client");
    stranger.sign("client");
    let own = ["-varz", "-tlscert", &pki.text("server.pem"), "-tlskey", &pki.text("server.key")].map(str::to_owned);
    let of = async |extra: &[&str]| {
        let flags: Vec<&str> = own.iter().map(String::as_str).chain(extra.iter().copied()).collect();
        let exporter = Exporter::start(&[&flags[..], &[&server.monitor_url()]].concat()).await;
        let url = exporter.url.replace("http://127.0.0.1", "https://localhost");
        (exporter, url)
    };
    let (exporter, url) = of(&[]).await;
    let text = pki.client(None).get(&url).send().await.unwrap().text().await.unwrap();
    assert_eq!(Page::parse(text).value("nats_exporter_target_up", &[]), 1.0);
    assert!(stranger.client(None).get(&url).send().await.is_err(), "a client that trusts others");
    assert!(http_get(&exporter.url, &[]).await.map_or(true, |(status, _)| status != 200), "plain HTTP");
    drop(exporter);

    let (_exporter, url) = of(&["-tlscacert", &pki.text("ca.pem")]).await;
    let get = async |client: reqwest::Client| client.get(&url).send().await?.error_for_status()?.text().await;
    assert!(get(pki.client(Some("client"))).await.unwrap().contains("gnatsd_varz_connections"));
    assert!(get(pki.client(None)).await.is_err(), "no certificate");
    std::fs::copy(stranger.path("client.pem"), pki.path("stranger.pem")).unwrap();
    std::fs::copy(stranger.path("client.key"), pki.path("stranger.key")).unwrap();
    assert!(get(pki.client(Some("stranger"))).await.is_err(), "signed by somebody else");
}

#[tokio::test]
async fn servers_behind_tls_are_asked_with_their_authority_and_a_client_certificate() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default()).await;
    let (pki, stranger) = (Pki::new(), Pki::new());
    pki.sign("server");
    pki.sign("client");
    // A gate with TLS and a password in front of the real endpoint.
    let varz = monitor(&server, "varz").await;
    let config = mutual_tls(&pki);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://u:hunter%202@localhost:{}", listener.local_addr().unwrap().port());
    let answer = move |headers: axum::http::HeaderMap| async move {
        let expected = format!("Basic {}", STANDARD.encode("u:hunter 2"));
        let is_right = headers.get("authorization").is_some_and(|given| given.as_bytes() == expected.as_bytes());
        if is_right { Ok(axum::Json(varz)) } else { Err(axum::http::StatusCode::UNAUTHORIZED) }
    };
    let router = axum::Router::new().route("/varz", axum::routing::get(answer));
    let stop = CancellationToken::new();
    let gate =
        tokio::spawn(serve_https(listener, Some(Tls::fixed(config)), router, stop.clone(), Duration::from_secs(1)));

    let up = async |flags: &[&str]| {
        let exporter = Exporter::start(&[&["-varz"], flags, &[&url]].concat()).await;
        let page = exporter.scrape().await;
        assert!(!page.text.contains("hunter"), "the password is on the page");
        assert!(!exporter.proc.full_log().contains("hunter"), "the password is in the log");
        let up = page.value("nats_exporter_target_up", &[]);
        // The end of the certificate that was shown; rcgen's default is far in the future.
        let shows = page.text.contains("nats_exporter_target_certificate_expiry_timestamp_seconds{");
        assert_eq!(shows, up == 1.0, "{}", page.text);
        up
    };
    let (ca, cert, key) = (pki.text("ca.pem"), pki.text("client.pem"), pki.text("client.key"));
    let identity = ["--nats-tls-cert", &cert, "--nats-tls-key", &key];
    assert_eq!(up(&[&identity[..], &["--nats-tls-ca", &ca]].concat()).await, 1.0);
    assert_eq!(up(&["--nats-tls-ca", &ca]).await, 0.0, "no client certificate");
    assert_eq!(
        up(&[&identity[..], &["--nats-tls-ca", &stranger.text("ca.pem")]].concat()).await,
        0.0,
        "another authority"
    );
    stop.cancel();
    gate.await.unwrap().unwrap();
}

fn mutual_tls(pki: &Pki) -> Arc<ServerConfig> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.path("ca.pem")).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let chain = vec![CertificateDer::from_pem_file(pki.path("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(pki.path("server.key")).unwrap();
    ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap().into()
}
