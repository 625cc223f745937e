//! Managed endpoints: those that the API created. They are one document in the bucket, which every replica follows.
//!
//! The document is changed by compare and set, so that two callers cannot overwrite each other's change. It contains
//! secrets, as the endpoints file does; they are never shown again, and with a key the document is encrypted. A secret
//! that was replaced signs until its overlap is over.

use crate::{
    endpoints::declaration::{self, Declaration, Defaults, Endpoint},
    registry::{
        sealing::{SealError, StateKeys},
        state::{Error, StateStore},
    },
    topology::names::managed_key,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::{Notify, futures::Notified};

/// Bytes of the document, at most: half of what a server takes in one message.
const DOCUMENT_BYTES_MAX: usize = 512 << 10;
/// Secrets of an endpoint at once: the new one, and those that it replaces.
const SECRETS_MAX: usize = 4;
/// How long a replaced secret keeps signing, at most.
pub const OVERLAP_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Of a secret that is made here.
const SECRET_BYTES: usize = 32;
/// Writers are few; one that loses reads again.
const UPDATE_ROUNDS_MAX: usize = 8;

/// All managed endpoints, by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ManagedEndpoints {
    #[serde(default)]
    endpoints: BTreeMap<String, ManagedEndpoint>,
}

/// A managed endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ManagedEndpoint {
    /// As it was written, without secrets.
    pub(crate) written: Declaration,
    secrets: Vec<DatedSecret>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// A secret and its end.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct DatedSecret {
    secret: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

impl std::fmt::Debug for DatedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dated(until {:?})", self.until)
    }
}

/// Why a change is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What was asked for is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The name is taken.
    #[error("there is an endpoint {0} already")]
    Taken(String),
    /// None of that name was made by the API.
    #[error("no endpoint {0} was created through the API")]
    Missing(String),
    /// As many secrets as may be sign already.
    #[error("{SECRETS_MAX} secrets sign for it already; the oldest ends at {0}")]
    Overlapping(Timestamp),
}

impl ManagedEndpoint {
    fn secrets(&self, now: Timestamp) -> impl Iterator<Item = &DatedSecret> {
        self.secrets.iter().filter(move |secret| secret.until.is_none_or(|until| until > now))
    }

    /// When replaced secrets end that still sign.
    pub fn overlaps(&self, now: Timestamp) -> Vec<Timestamp> {
        self.secrets(now).filter_map(|secret| secret.until).collect()
    }

    /// The endpoint as it is now; `None` when this version cannot read it.
    pub fn endpoint(&self, defaults: &Defaults, now: Timestamp) -> Option<Arc<Endpoint>> {
        declaration::check(vec![self.declaration(now)], defaults).ok()?.pop()
    }

    fn declaration(&self, now: Timestamp) -> Declaration {
        let secrets = self.secrets(now).map(|dated| dated.secret.clone()).collect();
        Declaration { secrets, ..self.written.clone() }
    }
}

impl ManagedEndpoints {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&ManagedEndpoint> {
        self.endpoints.get(name)
    }

    /// Adds one. Its secret is the one that was written, or one that is made here.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn create(&mut self, written: Declaration, defaults: &Defaults, now: Timestamp) -> Result<(), Refusal> {
        if self.endpoints.contains_key(&written.name) {
            return Err(Refusal::Taken(written.name));
        }
        has_values(&written)?;
        let secrets = written.secret.iter().chain(&written.secrets);
        let secrets: Vec<_> = secrets.map(|secret| DatedSecret { secret: secret.clone(), until: None }).collect();
        let written = Declaration { secret: None, secrets: Vec::new(), ..written };
        let entry = ManagedEndpoint { written, secrets, created_at: now, updated_at: now };
        declaration::check(vec![entry.declaration(now)], defaults)
            .map_err(|faults| Refusal::Invalid(faults.to_string()))?;
        if self.endpoints.len() >= declaration::ENDPOINTS_MAX {
            let most = declaration::ENDPOINTS_MAX;
            return Err(Refusal::Invalid(format!("there are {most} endpoints already, and no more are allowed")));
        }
        self.endpoints.insert(entry.written.name.clone(), entry);
        Ok(())
    }

    /// Changes one as a merge patch (RFC 7396) says: what is null is as if it had not been given. Its name, secrets and
    /// start stay.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn update(
        &mut self,
        name: &str,
        patch: &Map<String, Value>,
        defaults: &Defaults,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let entry = self.endpoints.get_mut(name).ok_or_else(|| Refusal::Missing(name.to_owned()))?;
        let written = patched(&entry.written, patch)?;
        has_values(&written)?;
        if written == entry.written {
            return Ok(());
        }
        let changed = ManagedEndpoint { written, updated_at: now, ..entry.clone() };
        declaration::check(vec![changed.declaration(now)], defaults)
            .map_err(|faults| Refusal::Invalid(faults.to_string()))?;
        *entry = changed;
        Ok(())
    }

    /// Signs with another secret, and until `until` with those before it too.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn rotate(&mut self, name: &str, secret: &str, until: Timestamp, now: Timestamp) -> Result<(), Refusal> {
        crate::payload::signature::Signer::new([secret]).map_err(|(_, e)| Refusal::Invalid(format!("secret {e}")))?;
        let entry = self.endpoints.get_mut(name).ok_or_else(|| Refusal::Missing(name.to_owned()))?;
        let mut before: Vec<DatedSecret> = entry.secrets(now).cloned().collect();
        for dated in &mut before {
            dated.until = Some(dated.until.map_or(until, |end| end.min(until)));
        }
        before.retain(|dated| dated.until > Some(now));
        if before.len() >= SECRETS_MAX {
            let oldest = before.iter().filter_map(|dated| dated.until).min().unwrap_or(now);
            return Err(Refusal::Overlapping(oldest));
        }
        before.insert(0, DatedSecret { secret: secret.to_owned(), until: None });
        (entry.secrets, entry.updated_at) = (before, now);
        Ok(())
    }

    /// Takes one out.
    ///
    /// # Errors
    /// [`Refusal::Missing`].
    pub fn delete(&mut self, name: &str) -> Result<(), Refusal> {
        self.endpoints.remove(name).map(drop).ok_or_else(|| Refusal::Missing(name.to_owned()))
    }

    /// The endpoints as they are now, and what is wrong with those that are left out.
    pub(super) fn endpoints(&self, defaults: &Defaults, now: Timestamp) -> (Vec<Arc<Endpoint>>, Vec<String>) {
        let (mut endpoints, mut faults) = (Vec::new(), Vec::new());
        for (name, entry) in &self.endpoints {
            if entry.written.has_references() {
                faults.push(format!("endpoint {name}: it names files or variables"));
                continue;
            }
            match declaration::check(vec![entry.declaration(now)], defaults) {
                Ok(read) => endpoints.extend(read),
                Err(problem) => faults.push(problem.to_string()),
            }
        }
        (endpoints, faults)
    }
}

/// References would let a caller of the API read files and variables of the broadcaster.
fn has_values(written: &Declaration) -> Result<(), Refusal> {
    if written.has_references() {
        Err(Refusal::Invalid("the API takes values; env: and file: are for the endpoints file".to_owned()))
    } else {
        Ok(())
    }
}

/// What a patch may change.
pub const PATCHABLE: [&str; 8] =
    ["url", "subjects", "format", "timeout", "rate", "concurrency", "retry_4xx", "headers"];

/// Headers are merged one by one, as their values cannot be read back. Faults repeat no value.
fn patched(written: &Declaration, patch: &Map<String, Value>) -> Result<Declaration, Refusal> {
    let invalid = |problem: String| Refusal::Invalid(problem);
    let Ok(Value::Object(mut fields)) = serde_json::to_value(written) else {
        return Err(invalid("the endpoint cannot be read".to_owned()));
    };
    for (key, value) in patch {
        match (key.as_str(), value) {
            ("secret" | "secrets" | "signed", _) => {
                return Err(invalid(format!("{key} is not changed here; rotate changes secrets")));
            }
            ("headers", Value::Object(changes)) => {
                let mut headers = fields.get("headers").and_then(Value::as_object).cloned().unwrap_or_default();
                for (name, value) in changes {
                    // Names of headers do not differ by case.
                    headers.retain(|other, _| !other.eq_ignore_ascii_case(name));
                    if !value.is_null() {
                        headers.insert(name.clone(), value.clone());
                    }
                }
                fields.insert(key.clone(), Value::Object(headers));
            }
            (key, value) if PATCHABLE.contains(&key) => match value {
                Value::Null => drop(fields.remove(key)),
                value => drop(fields.insert(key.to_owned(), value.clone())),
            },
            _ => {
                return Err(invalid(format!(
                    "unknown field `{}`; {} can be changed",
                    printable(key),
                    PATCHABLE.join(", ")
                )));
            }
        }
        let text = Value::Object(fields.clone()).to_string();
        if serde_json::from_str::<Declaration>(&text).is_err() {
            return Err(invalid(format!("{key} is missing, or a value of the wrong type")));
        }
    }
    serde_json::from_value(Value::Object(fields)).map_err(|_| invalid("a value is of the wrong type".to_owned()))
}

/// A key of a request, short enough for an answer.
fn printable(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(40).collect()
}

/// A new shared secret, as Standard Webhooks has them.
///
/// # Panics
/// When the system has no randomness.
pub fn new_secret() -> String {
    let mut bytes = [0; SECRET_BYTES];
    SystemRandom::new().fill(&mut bytes).expect("the system gives random bytes");
    format!("whsec_{}", STANDARD.encode(bytes))
}

/// The document of one environment. Cheap to clone.
#[derive(Clone)]
pub struct ManagedStore {
    states: StateStore,
    keys: StateKeys,
    changed: Arc<Notify>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The bucket does not answer.
    #[error(transparent)]
    Away(#[from] Error),
    /// The document does not open.
    #[error(transparent)]
    Sealed(#[from] SealError),
}

/// The document, as read.
#[derive(Default)]
pub(super) struct Document {
    pub endpoints: ManagedEndpoints,
    revision: u64,
    /// Whether it is encrypted as it would be now.
    pub is_current: bool,
}

impl ManagedStore {
    /// In the bucket of states, encrypted with the first of these keys.
    pub fn new(states: StateStore, keys: StateKeys) -> Self {
        Self { states, keys, changed: Arc::default() }
    }

    /// Reads it; `None` where nothing was ever made.
    ///
    /// # Errors
    /// [`ChangeError`], never refused.
    pub async fn read(&self) -> Result<Option<ManagedEndpoints>, ChangeError> {
        Ok(self.document().await?.map(|document| document.endpoints))
    }

    pub(super) async fn document(&self) -> Result<Option<Document>, ChangeError> {
        let bucket = self.states.bucket().await?;
        let key = managed_key(self.states.env());
        let entry = bucket.entry(key.clone()).await.map_err(|e| Error::new(&e))?;
        let Some(entry) = entry.filter(|entry| !entry.value.is_empty()) else { return Ok(None) };
        let opened = self.keys.open(&entry.value, &key)?;
        let endpoints = serde_json::from_slice(&opened.bytes).map_err(|e| Error::new(&e))?;
        Ok(Some(Document { endpoints, revision: entry.revision, is_current: opened.is_current }))
    }

    /// Completes at the next change through this replica.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Changes it.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing was changed.
    pub async fn change(
        &self,
        change: impl Fn(&mut ManagedEndpoints) -> Result<(), Refusal>,
    ) -> Result<ManagedEndpoints, ChangeError> {
        let mut last = None;
        for _ in 0..UPDATE_ROUNDS_MAX {
            let Document { endpoints: mut managed, revision, .. } = self.document().await?.unwrap_or_default();
            change(&mut managed)?;
            match self.write(&managed, revision).await {
                Ok(()) => {
                    self.changed.notify_waiters();
                    return Ok(managed);
                }
                Err(ChangeError::Away(error)) => last = Some(error),
                Err(other) => return Err(other),
            }
        }
        Err(last.map_or_else(|| ChangeError::Away(Error::new(&"no round was made")), ChangeError::Away))
    }

    pub(super) async fn write(&self, managed: &ManagedEndpoints, revision: u64) -> Result<(), ChangeError> {
        let bytes = serde_json::to_vec(managed).map_err(|e| Error::new(&e))?;
        if bytes.len() > DOCUMENT_BYTES_MAX {
            let problem =
                format!("all endpoints together take {} bytes; {DOCUMENT_BYTES_MAX} are allowed", bytes.len());
            return Err(Refusal::Invalid(problem).into());
        }
        let (bucket, key) = (self.states.bucket().await?, managed_key(self.states.env()));
        let stored = self.keys.seal(bytes, &key);
        bucket.update(key, stored.into(), revision).await.map(drop).map_err(|e| Error::new(&e).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::retry_4xx::Retry4xx;

    fn defaults() -> Defaults {
        let (timeout, retry_4xx) = (Duration::from_secs(10), Retry4xx::NONE);
        Defaults { subjects: vec!["todos.events".into()], timeout, concurrency: 64, retry_4xx }
    }

    fn written(name: &str, url: &str, secret: Option<&str>) -> Declaration {
        Declaration { name: name.into(), url: url.into(), secret: secret.map(str::to_owned), ..Declaration::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn endpoints_are_made_once_and_what_is_wrong_is_told_without_secrets() {
        let mut managed = ManagedEndpoints::default();
        let secret = new_secret();
        managed.create(written("a", "https://a.example/", Some(&secret)), &defaults(), at(1)).unwrap();
        let again = managed.create(written("a", "https://b.example/", None), &defaults(), at(1));
        assert_eq!(again, Err(Refusal::Taken("a".into())));
        for (bad, words) in [
            (written("b", "file:/etc/passwd", None), "the API takes values"),
            (written("b", "https://b.example/", Some("env:HOME")), "the API takes values"),
            (written("b", "ftp://hunter2", None), "url is not an http"),
            (written("b c", "https://b.example/", None), "name is not"),
            (written("b", "https://b.example/", Some("hunter2")), "secret 1 is neither"),
        ] {
            let problem = managed.create(bad, &defaults(), at(1)).unwrap_err().to_string();
            assert!(problem.contains(words) && !problem.contains("hunter2"), "{problem}");
        }
        assert!(!format!("{managed:?}").contains(&secret));
        let stored: ManagedEndpoints = serde_json::from_slice(&serde_json::to_vec(&managed).unwrap()).unwrap();
        assert_eq!(stored, managed);
        assert_eq!(stored.endpoints(&defaults(), at(2)), managed.endpoints(&defaults(), at(1)));
        managed.delete("a").unwrap();
        assert_eq!(managed.delete("a"), Err(Refusal::Missing("a".into())));
    }

    #[test]
    fn a_patch_changes_what_it_names_and_nothing_else() {
        let mut managed = ManagedEndpoints::default();
        let first = Declaration {
            subjects: Some(vec!["a.b".into()]),
            rate: Some(2.0),
            headers: [("X-Key".to_owned(), "hunter2".to_owned()), ("X-Team".to_owned(), "blue".to_owned())].into(),
            ..written("a", "https://a.example/", Some(&new_secret()))
        };
        managed.create(first, &defaults(), at(1)).unwrap();
        let secrets = managed.get("a").unwrap().secrets.clone();
        let patch = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let change =
            r#"{"url":"https://b.example/","rate":null,"timeout":"2s","headers":{"x-team":"red","X-Key":null}}"#;
        managed.update("a", &patch(change), &defaults(), at(2)).unwrap();
        let entry = managed.get("a").unwrap();
        assert_eq!((entry.created_at, entry.updated_at), (at(1), at(2)));
        let Declaration { url, subjects, rate, timeout, headers, .. } = &entry.written;
        assert_eq!((url.as_str(), rate, timeout.as_deref()), ("https://b.example/", &None, Some("2s")));
        assert_eq!(subjects.as_deref(), Some(&["a.b".to_owned()][..]));
        assert_eq!(headers, &BTreeMap::from([("x-team".to_owned(), "red".to_owned())]));
        assert!(entry.secrets == secrets, "a patch touches no secret");
        managed.update("a", &patch(r#"{"rate":null}"#), &defaults(), at(3)).unwrap();
        assert_eq!(managed.get("a").unwrap().updated_at, at(2), "nothing changed");
        for (bad, words) in [
            (r#"{"url":null}"#, "url is missing"),
            (r#"{"url":7}"#, "wrong type"),
            (r#"{"url":"ftp://hunter2/"}"#, "url is not an http"),
            (r#"{"url":"file:/hunter2"}"#, "the API takes values"),
            (r#"{"headers":{"X-Key":"env:hunter2"}}"#, "the API takes values"),
            (r#"{"subjects":[]}"#, "subjects are not"),
            (r#"{"secret":"hunter2"}"#, "rotate changes secrets"),
            (r#"{"name":"b"}"#, "unknown field `name`"),
            (r#"{"format":"hunter2"}"#, "wrong type"),
        ] {
            let problem = managed.update("a", &patch(bad), &defaults(), at(4)).unwrap_err().to_string();
            assert!(problem.contains(words) && !problem.contains("hunter2"), "{bad}: {problem}");
        }
        assert_eq!(managed.get("a").unwrap().updated_at, at(2), "what is refused changes nothing");
        assert_eq!(managed.update("b", &patch("{}"), &defaults(), at(4)), Err(Refusal::Missing("b".into())));
    }

    #[test]
    fn secrets_overlap_until_their_end_and_not_without_bound() {
        let mut managed = ManagedEndpoints::default();
        managed.create(written("a", "https://a.example/", Some(&new_secret())), &defaults(), at(0)).unwrap();
        let signs =
            |managed: &ManagedEndpoints, second| managed.get("a").unwrap().declaration(at(second)).secrets.len();
        let next = new_secret();
        managed.rotate("a", &next, at(100), at(1)).unwrap();
        assert_eq!((signs(&managed, 99), signs(&managed, 100)), (2, 1));
        assert_eq!(managed.get("a").unwrap().declaration(at(99)).secrets[0], next, "the new one signs first");
        // Without an overlap the one before ends at once; it does not make the end of an older one later.
        managed.rotate("a", &new_secret(), at(50), at(2)).unwrap();
        assert_eq!((signs(&managed, 49), signs(&managed, 50)), (3, 1));
        managed.rotate("a", &new_secret(), at(10), at(10)).unwrap();
        assert_eq!(signs(&managed, 10), 1);
        for _ in 0..SECRETS_MAX - 1 {
            managed.rotate("a", &new_secret(), at(1000), at(11)).unwrap();
        }
        assert_eq!(managed.rotate("a", &new_secret(), at(1000), at(12)), Err(Refusal::Overlapping(at(1000))));
        assert_eq!(managed.rotate("b", &new_secret(), at(1), at(0)), Err(Refusal::Missing("b".into())));
        let bad = managed.rotate("a", "hunter2", at(1), at(0)).unwrap_err().to_string();
        assert!(bad.contains("secret is neither") && !bad.contains("hunter2"), "{bad}");
    }
}
