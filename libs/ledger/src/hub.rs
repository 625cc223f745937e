//! The hub's stream, as a ledger is held against it: what is there, and whether it has the content.
//!
//! Reads only, through any server that is connected with the hub. Through a site's leaf node it asks for single messages
//! of the site, because the hub lets a site see no more.

use crate::{
    account::{Account, Claim},
    verify::Newest,
};
use agentforge_jetstream::{
    Nats,
    subjects::{BUCKET_EVIDENCE_BLOBS, STREAM_EVIDENCE, bucket_chunks, bucket_stream, evidence_chunks, evidence_site},
};
use agentforge_proto::evidence::{
    ALIASES_TOKEN, HEADER_LEDGER, HEADER_MANIFEST, HEADER_PREFIX_SHA256, HEADER_SITE, Manifest,
};
use async_nats::{
    Message, StatusCode,
    client::Request,
    jetstream::{
        self,
        stream::{LastRawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use ring::digest::{SHA256, digest};
use std::{collections::HashSet, time::Duration};

/// For one answer of the hub's API; it may come over a slow link.
pub const API_TIMEOUT: Duration = Duration::from_secs(30);
/// Messages that are read back at once.
const READS: usize = 32;

/// Why the stream could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream does not exist here, or the server did not answer.
    #[error("the stream {STREAM_EVIDENCE} cannot be read: {0}")]
    NoStream(String),
    /// The stream did not answer a question.
    #[error("the stream {STREAM_EVIDENCE} cannot be read: {0}")]
    Unanswered(String),
    /// A message could not be read back.
    #[error("{subject} cannot be read back: {reason}")]
    NotReadBack {
        /// Its subject.
        subject: String,
        /// What went wrong.
        reason: String,
    },
}

/// Place, subject, and the hash of the ledger's line that the message names.
type NewestMessage = (u64, String, Option<String>);

/// The hub, asked about the site of a ledger.
#[derive(Debug)]
pub struct Hub {
    nats: Nats,
    domain: Option<String>,
    js: jetstream::Context,
}

impl Hub {
    /// The hub behind a connection; `domain` is its JetStream domain, when the server is a leaf node of it.
    pub fn new(nats: Nats, domain: Option<&str>) -> Self {
        Self { js: jetstream(&nats, domain), domain: domain.map(str::to_owned), nats }
    }

    async fn stream(&self) -> Result<Stream, Error> {
        self.js.get_stream(STREAM_EVIDENCE).await.map_err(|e| Error::NoStream(e.to_string()))
    }

    /// The subjects in the stream that are of the ledger's site.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub async fn subjects(&self, account: &Account) -> Result<HashSet<String>, Error> {
        if self.domain.is_some() {
            return self.claimed(account).await;
        }
        let stream = self.stream().await?;
        let mut found = HashSet::new();
        for root in account.subjects() {
            let mut subjects = stream.info_with_subjects(format!("{root}.>")).await.map_err(unanswered)?;
            while let Some((subject, _)) = subjects.try_next().await.map_err(unanswered)? {
                // Other names of a content are below it, and another site may be.
                if subject.strip_prefix(root).is_some_and(|rest| rest.matches('.').count() == 1) {
                    found.insert(subject);
                }
            }
        }
        Ok(found)
    }

    /// Of what the ledger claims, the subjects that are in the stream; each is asked for.
    async fn claimed(&self, account: &Account) -> Result<HashSet<String>, Error> {
        let subjects: Vec<String> = account.claims().map(|claim| claim.subject.clone()).collect();
        let checks = stream::iter(subjects).map(|subject| async move {
            let found = last(&self.nats, self.domain.as_deref(), STREAM_EVIDENCE, &subject).await;
            found.map(|found| found.map(|_| subject)).map_err(Error::Unanswered)
        });
        checks.buffer_unordered(READS).try_filter_map(|found| async { Ok(found) }).try_collect().await
    }

    /// The newest message of a filter: its place, its subject, and the ledger's line that it names.
    async fn newest_of(&self, stream: Option<&Stream>, filter: &str) -> Result<Option<NewestMessage>, Error> {
        let Some(stream) = stream else {
            let found = last(&self.nats, self.domain.as_deref(), STREAM_EVIDENCE, filter).await;
            let Some((seq, message)) = found.map_err(Error::Unanswered)? else { return Ok(None) };
            let text = |name| header(&message, name).map(str::to_owned);
            return Ok(Some((seq, text("Nats-Subject").unwrap_or_default(), text(HEADER_LEDGER))));
        };
        match stream.get_last_raw_message_by_subject(filter).await {
            Ok(message) => {
                let line = message.headers.get(HEADER_LEDGER).map(|value| value.as_str().to_owned());
                Ok(Some((message.sequence, message.subject.to_string(), line)))
            }
            Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(e) => Err(unanswered(e)),
        }
    }

    /// The newest message of the ledger's site, contents and other names of them alike.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub async fn newest(&self, account: &Account) -> Result<Option<Newest>, Error> {
        let stream = if self.domain.is_some() { None } else { Some(self.stream().await?) };
        let mut newest: Option<(u64, Newest)> = None;
        let roots = account.subjects();
        let filters =
            roots.iter().flat_map(|root| [(root, format!("{root}.*")), (root, format!("{root}.{ALIASES_TOKEN}.*.*"))]);
        for (root, filter) in filters {
            let Some((place, subject, line)) = self.newest_of(stream.as_ref(), &filter).await? else { continue };
            if newest.as_ref().is_none_or(|(seq, _)| *seq < place) {
                let mut anchor = [0; 32];
                let anchor = line.and_then(|hex| hex::decode_to_slice(hex, &mut anchor).ok()).map(|()| anchor);
                let sha256 = subject.rsplit('.').next().unwrap_or_default();
                newest = Some((place, Newest { subject: format!("{root}.{sha256}"), anchor }));
            }
        }
        Ok(newest.map(|(_, newest)| newest))
    }

    /// Claims whose message does not have the content; each message among `present` is read back.
    ///
    /// # Errors
    /// A message cannot be read back.
    pub async fn altered(&self, account: &Account, present: &HashSet<String>) -> Result<Vec<Claim>, Error> {
        let there = account.claims().filter(|claim| present.contains(&claim.subject)).cloned();
        let checks = stream::iter(there).map(|claim| async move {
            match self.stored(&claim.subject, &claim.sha256).await {
                Ok(true) => Ok(None),
                Ok(false) => Ok(Some(claim)),
                Err(reason) => Err(Error::NotReadBack { subject: claim.subject, reason }),
            }
        });
        checks.buffer_unordered(READS).try_filter_map(|found| async { Ok(found) }).try_collect().await
    }

    /// Reads a file's message back and says whether it has this content. Of a large file the chunks are not read: the
    /// last one carries the hash of all bytes, by which each chunk was accepted.
    async fn stored(&self, subject: &str, sha256: &str) -> Result<bool, String> {
        let last = async |stream: &str, subject: &str| last(&self.nats, self.domain.as_deref(), stream, subject).await;
        let Some((_, message)) = last(STREAM_EVIDENCE, subject).await? else { return Ok(false) };
        if !holds(&message, sha256) || header(&message, HEADER_MANIFEST).is_none() {
            return Ok(holds(&message, sha256));
        }
        let Some(chunks) = chunks_of(subject, &message, sha256) else { return Ok(false) };
        let chunks = bucket_chunks(BUCKET_EVIDENCE_BLOBS, &chunks);
        let chunk = last(&bucket_stream(BUCKET_EVIDENCE_BLOBS), &chunks).await?;
        Ok(chunk.is_some_and(|(_, chunk)| header(&chunk, HEADER_PREFIX_SHA256) == Some(sha256)))
    }

    /// Ends the connection.
    pub async fn close(self) {
        let _ = self.nats.drain().await;
    }
}

fn unanswered(e: impl std::fmt::Display) -> Error {
    Error::Unanswered(e.to_string())
}

/// The JetStream API of the hub, through the connected server.
pub fn jetstream(nats: &Nats, domain: Option<&str>) -> jetstream::Context {
    let builder = jetstream::ContextBuilder::new().timeout(API_TIMEOUT);
    match domain {
        Some(domain) => builder.domain(domain).build(nats.client().clone()),
        None => builder.build(nats.client().clone()),
    }
}

/// The last message of a subject, with its sequence, read from a stream of the hub.
///
/// # Errors
/// There was no answer, or none that is understood.
pub async fn last(
    nats: &Nats,
    domain: Option<&str>,
    stream: &str,
    subject: &str,
) -> Result<Option<(u64, Message)>, String> {
    let prefix = domain.map_or_else(|| "$JS.API".to_owned(), |domain| format!("$JS.{domain}.API"));
    let question = format!("{prefix}.DIRECT.GET.{stream}.{subject}");
    let request = Request::new().payload(Bytes::new()).timeout(Some(API_TIMEOUT));
    let message = nats.client().send_request(question, request).await.map_err(|e| e.to_string())?;
    match message.status {
        None => {}
        Some(StatusCode::NOT_FOUND) => return Ok(None),
        Some(status) => return Err(format!("{status}: {}", message.description.as_deref().unwrap_or_default())),
    }
    let seq = header(&message, "Nats-Sequence").and_then(|seq| seq.parse().ok());
    seq.map(|seq| Some((seq, message))).ok_or_else(|| "the answer has no sequence".to_owned())
}

/// The name of a large file's chunks, as its manifest has them.
fn chunks_of(subject: &str, message: &Message, sha256: &str) -> Option<String> {
    let manifest: Manifest = serde_json::from_slice(&message.payload).ok()?;
    if manifest.chunk_bytes.is_none() {
        // As versions without the site's token stored them.
        return Some(format!("{}-{sha256}", header(message, HEADER_SITE)?));
    }
    Some(evidence_chunks(evidence_site(subject)?, sha256, manifest.run.as_deref()))
}

/// The text of a header.
pub fn header<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    Some(message.headers.as_ref()?.get(name)?.as_str())
}

/// Whether a stored message is of this content: its bytes have the hash, or its manifest names it.
pub fn holds(message: &Message, sha256: &str) -> bool {
    if header(message, HEADER_MANIFEST).is_some() {
        serde_json::from_slice::<Manifest>(&message.payload).is_ok_and(|manifest| manifest.sha256 == sha256)
    } else {
        hex::encode(digest(&SHA256, &message.payload)) == sha256
    }
}
