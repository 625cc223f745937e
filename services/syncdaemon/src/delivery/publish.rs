//! One message to the hub: published, judged, and looked up when the stream refuses to store it.
//!
//! Shared by the lanes of small and of large files. Success is the acknowledgement of the right stream,
//! or that stream's own copy read back with the same hash; never less.

use crate::{
    content::metadata::Told,
    delivery::aliases::{self, Sightings},
    directory::stamp::Stamp,
    names,
    outcome::{Hold, Verdict, judge},
    pace::Bucket,
    progress::Progress,
    steps::{Step, reached},
};
use agentforge_jetstream::{
    HeaderMap, Nats, Publisher, publish,
    subjects::{BUCKET_EVIDENCE_BLOBS, STREAM_EVIDENCE, bucket_chunks, bucket_stream},
};
use agentforge_message_id::{MsgId, Site};
use agentforge_proto::evidence::{
    HEADER_CONTENT_TYPE, HEADER_CREATED, HEADER_EVIDENCE_ID, HEADER_FILE, HEADER_LEDGER, HEADER_MANIFEST,
    HEADER_MODIFIED, HEADER_MTIME, HEADER_PREFIX_SHA256, HEADER_SITE, HEADER_SIZE, Manifest,
};
use async_nats::{Message, StatusCode, client::Request, jetstream};
use bytes::Bytes;
use futures_util::StreamExt;
use ring::digest::{SHA256, digest};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// For one answer of the hub's API; it may come over a slow link.
const API: Duration = Duration::from_secs(30);
/// What a message's headers and subject take, at most: a path of 4096 bytes is three times as long encoded.
pub const HEADERS_MAX_BYTES: usize = 16 << 10;
/// Larger messages are not made, whatever the server allows: memory stays flat.
const MESSAGE_MAX_BYTES: usize = 8 << 20;
/// A message that the stream had before is read back up to this size, to know whose it is; of a larger one it is
/// only made sure that it is there.
const READ_BACK_MAX_BYTES: usize = 256 << 10;

/// The way to the hub.
pub struct Hub {
    /// The connection.
    pub nats: Nats,
    /// The hub's JetStream.
    pub js: jetstream::Context,
    pub(crate) publisher: Publisher,
    site: Site,
    pub(crate) subject: String,
    domain: Option<String>,
    bucket: Option<Mutex<Bucket>>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) sightings: Sightings,
}

/// How a message is told apart from others.
#[derive(Debug, Clone)]
pub struct Label {
    /// The file's name.
    pub name: Box<[u8]>,
    /// As it was read.
    pub stamp: Stamp,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
    /// What its writer told of it.
    pub told: Option<Arc<Told>>,
}

/// What became of a message.
#[derive(Debug)]
pub enum End {
    /// The stream has it.
    Stored(Place),
    /// It is too large for this server or stream.
    TooLarge,
    /// The file stays, and why.
    Hold(Hold, String),
}

/// Where a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The stream.
    pub stream: String,
    /// Its place there.
    pub seq: u64,
    /// The stream's domain.
    pub domain: Option<String>,
    /// Whether it was there before.
    pub news: News,
}

/// Whether a content is new to the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It is.
    Stored,
    /// It was there, sent by this daemon for this very file before it was stopped.
    Recovered,
    /// It was there.
    Duplicate,
}

impl Hub {
    /// A way to the hub; nothing is sent yet.
    pub fn new(nats: Nats, config: &crate::Config, progress: Arc<Progress>) -> Self {
        let domain = config.domain().map(str::to_owned);
        let js = jetstream(&nats, config.domain());
        // Room for the lane of large files beside that of small ones.
        let publisher = Publisher::with_limits(nats.clone(), config.max_inflight + 1, API);
        let bucket = config.max_bandwidth_bps.map(|bps| Mutex::new(Bucket::new(bps, Instant::now())));
        let (site, subject) = (config.site.clone(), config.subject.clone());
        let sightings = Sightings::default();
        Self { nats, js, publisher, site, subject, domain, bucket, progress, sightings }
    }

    /// The site.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The hub's JetStream domain, where it has one.
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// The largest file that goes in one message, in bytes.
    pub fn whole_max_bytes(&self) -> usize {
        let max = self.nats.max_payload().min(MESSAGE_MAX_BYTES);
        max.saturating_sub(HEADERS_MAX_BYTES).max(max / 2)
    }

    /// Takes bytes of the bandwidth; else how long to wait.
    ///
    /// # Errors
    /// The time after which to ask again.
    pub fn take_bandwidth(&self, bytes: usize) -> Result<(), Duration> {
        match &self.bucket {
            Some(bucket) => bucket.lock().unwrap_or_else(PoisonError::into_inner).take(bytes, Instant::now()),
            None => Ok(()),
        }
    }

    /// The message's id.
    pub fn msg_id(&self, sha256: &str) -> MsgId {
        MsgId::evidence(&self.site, sha256)
    }

    /// What a message of this size costs on the link, about.
    pub fn cost(&self, label: &Label, payload: usize) -> usize {
        payload + self.subject.len() + 3 * label.name.len() + 500
    }

    /// Publishes a file, or the manifest of one, and finds out what became of it.
    pub async fn deliver(&self, label: &Label, payload: Bytes, is_manifest: bool, limit: Duration) -> End {
        let subject = self.subject_of(label);
        let id = self.msg_id(&label.sha256);
        match self.publish(&subject, id, label, payload.clone(), is_manifest, limit).await {
            // Its id is remembered, and the message may have been removed since.
            End::Stored(place) if place.news == News::Duplicate => {
                match self.known(&subject, label, place, payload.len()).await {
                    Some(end) => end,
                    None => {
                        let run = format!("{:016x}", rand::random::<u64>());
                        let id = MsgId::evidence_again(&self.site, &label.sha256, &run);
                        self.publish(&subject, id, label, payload, is_manifest, limit).await
                    }
                }
            }
            end => end,
        }
    }

    /// Where a file's message goes.
    pub fn subject_of(&self, label: &Label) -> String {
        format!("{}.{}", self.subject, label.sha256)
    }

    async fn publish(
        &self,
        subject: &str,
        id: MsgId,
        label: &Label,
        payload: Bytes,
        is_manifest: bool,
        limit: Duration,
    ) -> End {
        let headers = self.headers(label, is_manifest);
        let cost = self.cost(label, payload.len());
        let sent = self.publisher.send_within(subject.to_owned(), id, headers, payload, limit).await;
        let answer = match sent {
            Ok(ack) => {
                self.progress.sent(cost);
                reached(Step::Sent);
                ack.await
            }
            Err(error) => Err(error),
        };
        if matches!(answer, Err(publish::Error::NoStream { .. })) {
            self.progress.stream_missed.notify_one();
        }
        let verdict = judge(&answer, self.domain.as_deref());
        match (verdict, answer) {
            (Verdict::Stored | Verdict::Duplicate, Ok(ack)) => End::Stored(Place {
                stream: ack.stream,
                seq: ack.seq,
                domain: ack.domain,
                news: if verdict == Verdict::Duplicate { News::Duplicate } else { News::Stored },
            }),
            (Verdict::Hold(hold), Ok(ack)) => {
                let (wanted, found) =
                    (self.domain.as_deref().unwrap_or_default(), ack.domain.as_deref().unwrap_or("none"));
                let stream = &ack.stream;
                End::Hold(hold, format!("stream {stream} of domain {found} took the message, the hub's is {wanted}"))
            }
            (Verdict::LookUp, Err(refused)) => self.look_up(subject, label, &refused).await,
            (Verdict::Chunk, Err(_)) => End::TooLarge,
            (Verdict::Hold(hold), Err(error)) => End::Hold(hold, error.to_string()),
            (verdict, answer) => End::Hold(Hold::Refused, format!("{verdict:?} of {answer:?}")),
        }
    }

    /// The headers of a file's message.
    pub fn headers(&self, label: &Label, is_manifest: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let told = label.told.as_deref().map(|told| &told.meta);
        let mtime = jiff::Timestamp::from_nanosecond(i128::from(label.stamp.mtime_ns)).unwrap_or_default();
        headers.insert(HEADER_FILE, names::encode(&label.name));
        headers.insert(HEADER_SIZE, label.stamp.size.to_string());
        headers.insert(HEADER_MTIME, mtime.to_string());
        headers.insert(HEADER_SITE, self.site.as_str());
        let media_type = told.and_then(|told| told.media_type.as_deref());
        headers.insert(HEADER_CONTENT_TYPE, media_type.unwrap_or_else(|| names::content_type(&label.name)));
        if let Some(told) = told {
            if let Some(id) = &told.evidence_id {
                headers.insert(HEADER_EVIDENCE_ID, id.as_str());
            }
            for (name, time) in [(HEADER_CREATED, told.created), (HEADER_MODIFIED, told.modified)] {
                if let Some(time) = time {
                    headers.insert(name, time.to_string());
                }
            }
        }
        headers.insert(HEADER_LEDGER, names::hex(&self.progress.ledger_end()));
        if is_manifest {
            headers.insert(HEADER_MANIFEST, "1");
        }
        headers
    }

    /// The stream did not store the message. If it has one of this content, that is why, and success.
    async fn look_up(&self, subject: &str, label: &Label, refused: &publish::Error) -> End {
        match self.last(STREAM_EVIDENCE, subject).await {
            Ok(Some((seq, message))) if holds(&message, &label.sha256) => {
                let (stream, domain) = (STREAM_EVIDENCE.to_owned(), self.domain.clone());
                let place = Place { stream, seq, domain, news: News::Duplicate };
                self.compared(label, place, &message).await
            }
            Ok(_) => End::Hold(Hold::Full, refused.to_string()),
            Err(error) => End::Hold(Hold::Unavailable, format!("{refused}; and it cannot be read back: {error}")),
        }
    }

    /// The stream says that it has this content. Makes sure of that, and finds out whether it knows the name;
    /// `None` when it does not have the content.
    async fn known(&self, subject: &str, label: &Label, place: Place, size: usize) -> Option<End> {
        if size > READ_BACK_MAX_BYTES {
            return match self.is_there(subject).await {
                Ok(true) => Some(self.tell_name(label, place).await),
                Ok(false) => None,
                Err(error) => Some(End::Hold(Hold::Unavailable, format!("a duplicate cannot be looked up: {error}"))),
            };
        }
        match self.last(STREAM_EVIDENCE, subject).await {
            Ok(Some((seq, message))) if holds(&message, &label.sha256) => {
                Some(self.compared(label, Place { seq, ..place }, &message).await)
            }
            Ok(_) => None,
            Err(error) => Some(End::Hold(Hold::Unavailable, format!("a duplicate cannot be read back: {error}"))),
        }
    }

    /// Compares a file with the message that has its content.
    async fn compared(&self, label: &Label, place: Place, message: &Message) -> End {
        let ours = self.headers(label, false);
        let is_same = |name| header(message, name) == ours.get(name).map(|value| value.as_str());
        match (is_same(HEADER_FILE), is_same(HEADER_MTIME)) {
            (true, true) => End::Stored(Place { news: News::Recovered, ..place }),
            (true, false) => End::Stored(place),
            (false, _) => self.tell_name(label, place).await,
        }
    }

    async fn tell_name(&self, label: &Label, place: Place) -> End {
        match aliases::tell(self, label, place.seq).await {
            Ok(()) => End::Stored(place),
            Err((hold, detail)) => End::Hold(hold, detail),
        }
    }

    /// Whether the stream has a message of a subject, without reading it.
    async fn is_there(&self, subject: &str) -> Result<bool, String> {
        let stream = self.js.get_stream(STREAM_EVIDENCE).await.map_err(|e| e.to_string())?;
        let mut subjects = stream.info_with_subjects(subject).await.map_err(|e| e.to_string())?;
        match subjects.next().await {
            None => Ok(false),
            Some(found) => found.map(|_| true).map_err(|e| e.to_string()),
        }
    }

    /// The last message of a subject, with its sequence, read from the hub's stream.
    ///
    /// # Errors
    /// There was no answer, or none that is understood.
    pub async fn last(&self, stream: &str, subject: &str) -> Result<Option<(u64, Message)>, String> {
        last(&self.nats, self.domain(), stream, subject).await
    }
}

/// The JetStream API of the hub, through the connected server.
pub fn jetstream(nats: &Nats, domain: Option<&str>) -> jetstream::Context {
    let builder = jetstream::ContextBuilder::new().timeout(API);
    match domain {
        Some(domain) => builder.domain(domain).build(nats.client().clone()),
        None => builder.build(nats.client().clone()),
    }
}

async fn last(
    nats: &Nats,
    domain: Option<&str>,
    stream: &str,
    subject: &str,
) -> Result<Option<(u64, Message)>, String> {
    let prefix = domain.map_or_else(|| "$JS.API".to_owned(), |domain| format!("$JS.{domain}.API"));
    let question = format!("{prefix}.DIRECT.GET.{stream}.{subject}");
    let request = Request::new().payload(Bytes::new()).timeout(Some(API));
    let message = nats.client().send_request(question, request).await.map_err(|e| e.to_string())?;
    match message.status {
        None => {}
        Some(StatusCode::NOT_FOUND) => return Ok(None),
        Some(status) => return Err(format!("{status}: {}", message.description.as_deref().unwrap_or_default())),
    }
    let seq = header(&message, "Nats-Sequence").and_then(|seq| seq.parse().ok());
    seq.map(|seq| Some((seq, message))).ok_or_else(|| "the answer has no sequence".to_owned())
}

/// The text of a header.
pub fn header<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    Some(message.headers.as_ref()?.get(name)?.as_str())
}

/// Reads a file's message back from the hub and says whether it has this content. Of a large file the
/// chunks are not read: the last one carries the hash of all bytes, by which each chunk was accepted.
///
/// # Errors
/// There was no answer, or none that is understood.
pub async fn stored(nats: &Nats, domain: Option<&str>, subject: &str, sha256: &str) -> Result<bool, String> {
    let Some((_, message)) = last(nats, domain, STREAM_EVIDENCE, subject).await? else { return Ok(false) };
    if !holds(&message, sha256) || header(&message, HEADER_MANIFEST).is_none() {
        return Ok(holds(&message, sha256));
    }
    let Some(site) = header(&message, HEADER_SITE) else { return Ok(false) };
    let chunks = bucket_chunks(BUCKET_EVIDENCE_BLOBS, &format!("{site}-{sha256}"));
    let chunk = last(nats, domain, &bucket_stream(BUCKET_EVIDENCE_BLOBS), &chunks).await?;
    Ok(chunk.is_some_and(|(_, chunk)| header(&chunk, HEADER_PREFIX_SHA256) == Some(sha256)))
}

/// Whether a stored message is of this content: its bytes have the hash, or its manifest names it.
pub fn holds(message: &Message, sha256: &str) -> bool {
    if header(message, HEADER_MANIFEST).is_some() {
        serde_json::from_slice::<Manifest>(&message.payload).is_ok_and(|manifest| manifest.sha256 == sha256)
    } else {
        hex::encode(digest(&SHA256, &message.payload)) == sha256
    }
}
