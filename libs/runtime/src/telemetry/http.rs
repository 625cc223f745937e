//! Sends batches of spans by HTTP, on the runtime of the process: the thread that collects them has none.

use agentforge_config::Url;
use axum::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// What a collector answers is a few bytes.
const ANSWER_MAX: usize = 1 << 20;
/// The limit of OpenTelemetry where nothing else is set.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client of one collector. Redirects are not followed.
#[derive(Debug)]
pub(super) struct Sender {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    patience: Duration,
}

impl Sender {
    /// Needs a running tokio runtime.
    pub(super) fn new(endpoint: &Url) -> Self {
        let mut roots = RootCertStore::empty();
        if endpoint.scheme() == "https" {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(rustls::DEFAULT_VERSIONS);
        let tls = tls.map(|tls| tls.with_root_certificates(roots).with_no_client_auth());
        // Ring has ciphers for both versions.
        #[allow(clippy::expect_used)]
        let tls = tls.expect("the default versions");
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(https);
        Self { client, runtime: Handle::current(), patience: patience() }
    }
}

/// In milliseconds, as the specification has it; text that cannot be read as a number counts as not set.
fn patience() -> Duration {
    let keys = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
    let set = keys.iter().find_map(|key| std::env::var(key).ok()?.parse().ok());
    set.map_or(PATIENCE, Duration::from_millis)
}

#[async_trait::async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, patience) = (self.client.clone(), self.patience);
        let sent = async move {
            let (head, body) = client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        // The limit is set inside the task: the thread that calls this may not belong to the runtime, whose clock it needs.
        self.runtime.spawn(async move { tokio::time::timeout(patience, sent).await }).await??
    }
}
