//! Asks the monitoring endpoints: one request, one answer, with a limit and a reason when it fails.
//!
//! Follows no redirects and uses no proxy: what is configured is what is asked. URLs never get into
//! errors, since a path or host may be as private as a password.

use crate::{config::NatsTls, json, target::Target};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use reqwest::{Certificate, Identity, Response, StatusCode, tls::TlsInfo};
use serde::de::DeserializeOwned;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Answers other than jsz are kept whole while they are read.
pub const WHOLE_MAX_BYTES: u64 = 16 << 20;
/// A server on the next rack answers in milliseconds.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Endpoints are asked at once, and again at the next scrape.
const IDLE_PER_HOST: usize = 8;

/// Why an endpoint could not be read, as its label says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No connection, or its TLS failed.
    Connect,
    /// Not within the deadline.
    Timeout,
    /// The connection broke.
    Broken,
    /// Another status than 200.
    Status,
    /// Longer than allowed.
    TooLarge,
    /// Not what the endpoint answers.
    Invalid,
    /// Another target is the same server.
    DuplicateServer,
}

impl Reason {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Status => "status",
            Self::TooLarge => "too_large",
            Self::Invalid => "invalid",
            Self::DuplicateServer => "duplicate_server",
        }
    }
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of TLS towards the servers.
    #[error("cannot read {path} (set by {setting})")]
    File {
        /// The file, as the setting names it.
        path: PathBuf,
        /// The name of the setting that names the file.
        setting: &'static str,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file of TLS towards the servers is not what it should be.
    #[error("{path} has no usable PEM (set by {setting})")]
    Pem {
        /// The file, as the setting names it.
        path: PathBuf,
        /// The name of the setting that names the file.
        setting: &'static str,
        /// What is wrong.
        #[source]
        source: reqwest::Error,
    },
    /// TLS could not be set up.
    #[error("making the HTTP client")]
    Build(#[source] reqwest::Error),
}

/// The client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// When the certificates that servers have shown end, by the targets' ids; seconds since 1970.
    expiries: Arc<Mutex<HashMap<String, i64>>>,
}

impl Client {
    /// Reads the files of `tls`, once. With TLS each answer has a connection of its own: one that is kept shows the
    /// certificate of the time when it was made.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(tls: &NatsTls, targets: &[Target]) -> Result<Self, Error> {
        let has_tls = targets.iter().any(|target| target.url("").scheme() == "https");
        let (ca, identity) = (authorities(tls)?, identity(tls)?);
        let builder = || {
            let builder = reqwest::Client::builder()
                .no_proxy()
                .http1_only()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_MAX)
                .pool_max_idle_per_host(if has_tls { 0 } else { IDLE_PER_HOST })
                .tls_info(true)
                .user_agent(concat!("agentforge-nats-exporter/", env!("CARGO_PKG_VERSION")));
            match &identity {
                Some(identity) => builder.identity(identity.clone()),
                None => builder,
            }
        };
        let built = match ca {
            Some(ca) => builder().tls_certs_only(ca).build(),
            // A machine without authorities can still ask by plain HTTP.
            None => builder().build().or_else(|_| builder().tls_certs_only([]).build()),
        };
        let http = built.map_err(Error::Build)?;
        Ok(Self { http, expiries: Arc::default() })
    }

    /// When the certificate ends that a target has shown last, seconds since 1970; `None` without TLS.
    pub fn expiry(&self, target: &str) -> Option<i64> {
        self.expiries.lock().unwrap_or_else(PoisonError::into_inner).get(target).copied()
    }

    fn note_certificate(&self, target: &Target, response: &Response) {
        let shown = response.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
        let parsed = shown.and_then(|der| x509_parser::parse_x509_certificate(der).ok());
        if let Some((_, certificate)) = parsed {
            let expiry = certificate.validity().not_after.timestamp();
            self.expiries.lock().unwrap_or_else(PoisonError::into_inner).insert(target.id.clone(), expiry);
        }
    }

    /// The answer as it comes. A health check answers 503 when it has something to say: `is_health`.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open(
        &self,
        target: &Target,
        path: &str,
        is_health: bool,
    ) -> Result<impl Stream<Item = Result<Bytes, reqwest::Error>> + Unpin + use<>, Reason> {
        let mut request = self.http.get(target.url(path));
        if let Some((user, password)) = target.basic_auth() {
            request = request.basic_auth(user, Some(password));
        }
        let response = request.send().await.map_err(|error| reason(&error))?;
        self.note_certificate(target, &response);
        let is_answer = response.status() == StatusCode::OK
            || (is_health && matches!(response.status().as_u16(), 400 | 404 | 500 | 503));
        if is_answer { Ok(response.bytes_stream()) } else { Err(Reason::Status) }
    }

    /// A short answer, read whole.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn read<T: DeserializeOwned>(
        &self,
        target: &Target,
        path: &str,
        is_health: bool,
        max: u64,
    ) -> Result<T, Reason> {
        let mut body = self.open(target, path, is_health).await?;
        let mut text = Vec::new();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| reason(&error))?;
            if (text.len() + piece.len()) as u64 > max.min(WHOLE_MAX_BYTES) {
                return Err(Reason::TooLarge);
            }
            text.extend_from_slice(&piece);
        }
        serde_json::from_slice(&text).map_err(|_| Reason::Invalid)
    }
}

/// What a failed request or a broken body counts as.
fn reason(error: &reqwest::Error) -> Reason {
    match error {
        e if e.is_connect() => Reason::Connect,
        e if e.is_timeout() => Reason::Timeout,
        _ => Reason::Broken,
    }
}

/// What a document that could not be read counts as.
pub fn reason_of_document(error: &json::Error<reqwest::Error>) -> Reason {
    match error {
        json::Error::Source(error) => reason(error),
        json::Error::TooLarge(_) => Reason::TooLarge,
        json::Error::Syntax(_) | json::Error::Shape { .. } => Reason::Invalid,
    }
}

fn file(path: &PathBuf, setting: &'static str) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File { path: path.clone(), setting, source })
}

fn authorities(tls: &NatsTls) -> Result<Option<Vec<Certificate>>, Error> {
    let setting = crate::config::NATS_TLS_CA.key;
    let Some(path) = &tls.ca else { return Ok(None) };
    let parsed = Certificate::from_pem_bundle(&file(path, setting)?);
    parsed.map(Some).map_err(|source| Error::Pem { path: path.clone(), setting, source })
}

fn identity(tls: &NatsTls) -> Result<Option<Identity>, Error> {
    let Some((cert, key)) = &tls.client else { return Ok(None) };
    let setting = crate::config::NATS_TLS_CERT.key;
    let mut pem = file(cert, setting)?;
    pem.push(b'\n');
    pem.extend(file(key, crate::config::NATS_TLS_KEY.key)?);
    let parsed = Identity::from_pem(&pem);
    parsed.map(Some).map_err(|source| Error::Pem { path: cert.clone(), setting, source })
}
