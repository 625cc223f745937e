//! What replicas share about endpoints, in a key-value bucket: disabled and paused ones, open circuits.

use crate::topology::names::{BUCKET_STATE, state_key};
use agentforge_jetstream::Nats;
use async_nats::jetstream::kv;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tracing::warn;

/// The state of one endpoint; nothing stored is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointState {
    /// The endpoint answered 410: since when, and at which URL (a digest; another URL is another endpoint).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Disabled>,
    /// Since when it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Timestamp>,
    /// Whether the circuit was open when this was written; the last replica to write decides.
    #[serde(default)]
    pub circuit_open: bool,
}

/// Since when an endpoint takes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// When the endpoint answered 410.
    pub at: Timestamp,
    /// Of the URL that answered.
    pub url_digest: String,
}

impl EndpointState {
    /// Whether an endpoint at this URL is disabled.
    pub fn is_disabled(&self, url_digest: &str) -> bool {
        self.disabled.as_ref().is_some_and(|d| d.url_digest == url_digest)
    }
}

/// The bucket's entries of one environment. Cheap to clone.
///
/// Remembers what it read, so that an entry that is lost with its bucket (deleted, purged) is put back: a paused
/// endpoint must not be called because an operator emptied a stream. An entry that was deleted by its key leaves a
/// marker in the bucket, and stays deleted.
#[derive(Clone)]
pub struct StateStore {
    nats: Nats,
    env: String,
    known: Arc<Mutex<BTreeMap<String, EndpointState>>>,
}

/// The bucket does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the bucket {BUCKET_STATE} does not answer: {0}")]
pub struct Error(String);

impl Error {
    /// For that reason.
    pub fn new(reason: &impl std::fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

impl StateStore {
    /// Of an environment.
    pub fn new(nats: Nats, env: &str) -> Self {
        Self { nats, env: env.to_owned(), known: Arc::default() }
    }

    pub fn env(&self) -> &str {
        &self.env
    }

    /// The bucket.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn bucket(&self) -> Result<kv::Store, Error> {
        self.nats.jetstream().get_key_value(BUCKET_STATE).await.map_err(|e| Error(e.to_string()))
    }

    /// Reads one. What this version cannot read is as nothing.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read(&self, endpoint: &str) -> Result<EndpointState, Error> {
        let (bucket, key) = (self.bucket().await?, state_key(&self.env, endpoint));
        let found = match bucket.entry(key.clone()).await.map_err(|e| Error(e.to_string()))? {
            Some(entry) => read(&entry),
            None => match self.known(endpoint) {
                Some(known) => {
                    warn!(endpoint, "the bucket lost the endpoint's state; restoring");
                    // Another replica may be first; then its entry is read the next time.
                    let bytes = serde_json::to_vec(&known).map_err(|e| Error(e.to_string()))?;
                    bucket.update(key, bytes.into(), 0).await.map_err(|e| Error(e.to_string()))?;
                    known
                }
                None => EndpointState::default(),
            },
        };
        self.remember(endpoint, &found);
        Ok(found)
    }

    /// Changes one.
    ///
    /// # Errors
    /// [`Error`]; then nothing was changed.
    pub async fn change(&self, endpoint: &str, change: impl Fn(&mut EndpointState)) -> Result<(), Error> {
        /// Writers are few; one that loses reads again.
        const UPDATE_ROUNDS_MAX: usize = 8;
        let (bucket, key) = (self.bucket().await?, state_key(&self.env, endpoint));
        let mut last = String::new();
        for _ in 0..UPDATE_ROUNDS_MAX {
            let entry = bucket.entry(key.clone()).await.map_err(|e| Error(e.to_string()))?;
            let stored = entry.as_ref().map(read);
            let before = stored.clone().or_else(|| self.known(endpoint)).unwrap_or_default();
            let mut after = before;
            change(&mut after);
            if after == stored.clone().unwrap_or_default() {
                self.remember(endpoint, &after);
                return Ok(());
            }
            let bytes = serde_json::to_vec(&after).map_err(|e| Error(e.to_string()))?.into();
            match bucket.update(&key, bytes, entry.map_or(0, |e| e.revision)).await {
                Ok(_) => {
                    self.remember(endpoint, &after);
                    return Ok(());
                }
                Err(e) => last = e.to_string(),
            }
        }
        Err(Error(last))
    }

    fn known(&self, endpoint: &str) -> Option<EndpointState> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(endpoint).cloned()
    }

    /// Only what differs from the default is remembered, so the map is bounded by the endpoints.
    fn remember(&self, endpoint: &str, state: &EndpointState) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == EndpointState::default() {
            drop(known.remove(endpoint))
        } else {
            drop(known.insert(endpoint.to_owned(), state.clone()))
        }
    }
}

fn read(entry: &kv::Entry) -> EndpointState {
    serde_json::from_slice(&entry.value).unwrap_or_default()
}
