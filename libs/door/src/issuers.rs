//! The keys of issuers: found by OIDC discovery, fetched again on a timer, and when a token names one that is not known.
//!
//! A failed fetch keeps the keys that there are: an issuer that is unavailable keeps no caller out that has a token.

use crate::metrics;
use agentforge_access::{CONSOLE_ISSUER, KeySet, Keyring};
use agentforge_egress::{Client, Policy, Timeouts, client};
use serde::Deserialize;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tracing::{info, warn};
use url::Url;

/// Between two fetches without an occasion.
const REFRESH: Duration = Duration::from_secs(300);
/// Between two fetches for keys that are not known: a token can name any, so this is what strangers can cause.
const FETCH_MIN: Duration = Duration::from_secs(10);
/// For one document.
const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(3), total: Duration::from_secs(5) };
/// Longest document, bytes.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// The issuers whose tokens are accepted.
pub(crate) struct Issuers {
    keyring: Keyring,
    all: Vec<Fetcher>,
}

struct Fetcher {
    url: String,
    client: Option<Client>,
    last: Mutex<Option<Instant>>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: Url,
}

impl Issuers {
    pub(crate) fn new(keyring: Keyring) -> Self {
        let fetcher = |url: String| {
            // Its own host may be at a private address; what its document names beyond that must be public.
            let host = Url::parse(&url).ok().and_then(|url| Some(url.host_str()?.to_owned())).unwrap_or_default();
            let (policy, _) = Policy::from_entries([host.as_str()]);
            Fetcher { url, client: client(&policy, TIMEOUTS).ok(), last: Mutex::default() }
        };
        // The console's are in a file.
        let fetched = keyring.issuers().into_iter().filter(|url| url != CONSOLE_ISSUER);
        Self { all: fetched.map(fetcher).collect(), keyring }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Fetches the keys of all that are due.
    pub(crate) async fn refresh(&self) {
        for index in 0..self.all.len() {
            self.fetch(index, REFRESH).await;
        }
    }

    /// Fetches the keys of all again because a token names one that is not known, unless that was done just now.
    /// Callers that come meanwhile wait for the same fetch.
    pub(crate) async fn unknown_key(&self) {
        for index in 0..self.all.len() {
            self.fetch(index, FETCH_MIN).await;
        }
    }

    async fn fetch(&self, index: usize, min: Duration) {
        let Some(fetcher) = self.all.get(index) else { return };
        let mut last = fetcher.last.lock().await;
        let has_keys = self.keyring.has_keys(index);
        // Without any keys nothing of the issuer is accepted: then it is tried more often.
        let min = if has_keys { min } else { min.min(FETCH_MIN) };
        if last.is_some_and(|at| at.elapsed() < min) {
            return;
        }
        let fetched = fetcher.keys().await;
        *last = Some(Instant::now());
        let issuer = fetcher.url.as_str();
        metrics::ISSUER_OK.set(&[issuer], if fetched.is_ok() { 1.0 } else { 0.0 });
        match fetched {
            Ok(keys) => {
                let count = keys.len();
                if self.keyring.set_keys(index, keys) {
                    info!(issuer, keys = count, "keys of an issuer changed");
                }
            }
            Err(problem) => warn!(
                issuer,
                problem, has_keys, "keys of an issuer cannot be fetched; those that there are stay in use"
            ),
        }
    }
}

impl Fetcher {
    async fn keys(&self) -> Result<KeySet, String> {
        let at = format!("{}/.well-known/openid-configuration", self.url.trim_end_matches('/'));
        let at = Url::parse(&at).map_err(|e| e.to_string())?;
        let document: Discovery = serde_json::from_slice(&self.document(at).await?)
            .map_err(|e| format!("its discovery document is not as OpenID Connect has it: {e}"))?;
        // Otherwise one issuer could speak for another.
        if document.issuer != self.url {
            return Err(format!("its discovery document is of the issuer {:?}", document.issuer));
        }
        let keys = self.document(document.jwks_uri).await?;
        KeySet::parse(&keys).map_err(|problem| format!("its jwks_uri {problem}"))
    }

    async fn document(&self, url: Url) -> Result<Vec<u8>, String> {
        let client = self.client.as_ref().ok_or("there is no HTTP client")?;
        let request = client.request(http::Method::GET, url).map_err(|refusal| refusal.to_string())?;
        let words = |e: &dyn std::error::Error| {
            let mut words = e.to_string();
            let mut cause = e.source();
            while let Some(e) = cause {
                words += &format!(": {e}");
                cause = e.source();
            }
            words
        };
        let mut answer = request.send().await.map_err(|e| words(&e))?;
        if answer.status() != http::StatusCode::OK {
            return Err(format!("{} answered {}", answer.url(), answer.status()));
        }
        let mut document = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|e| words(&e))? {
            document.extend_from_slice(&piece);
            if document.len() > DOCUMENT_BYTES_MAX {
                return Err(format!("{} has more than {DOCUMENT_BYTES_MAX} bytes", answer.url()));
            }
        }
        Ok(document)
    }
}
