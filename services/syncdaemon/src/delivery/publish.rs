//! One message to the hub: published, judged, and looked up when the stream refuses to store it.
//!
//! Shared by the senders of small and of large files. Success is the acknowledgement of the right stream,
//! or that stream's own copy read back with the same hash; never less.

use crate::{
    config::Config,
    content::metadata::FileMetadata,
    delivery::aliases::{Alias, AliasLimits},
    directory::stamp::Stamp,
    names,
    outcome::{Hold, Novelty, Verdict, judge},
    pace::{TokenBucket, ack_limit},
    progress::Progress,
    steps::{Step, reached},
};
use agentforge_jetstream::{
    HeaderMap, Nats, Publisher, publish,
    subjects::{STREAM_EVIDENCE, evidence_site},
};
use agentforge_ledger::{
    chain,
    hub::{self, API_TIMEOUT, header, holds},
};
use agentforge_message_id::{MsgId, Site};
use agentforge_proto::evidence::{
    HEADER_CONTENT_TYPE, HEADER_CREATED, HEADER_EVIDENCE_ID, HEADER_FILE, HEADER_LEDGER, HEADER_MANIFEST,
    HEADER_MODIFIED, HEADER_MTIME, HEADER_SAME_AS, HEADER_SITE, HEADER_SIZE,
};
use async_nats::{Message, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use bytes::Bytes;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What a message's headers and subject take, at most: a path of 4096 bytes is three times as long encoded.
pub const HEADERS_MAX_BYTES: usize = 16 << 10;
/// Larger messages are not made, regardless of what the server allows: memory stays flat.
const MESSAGE_MAX_BYTES: usize = 8 << 20;
/// A message that the stream had before is read back up to this size, to know whose it is; of a larger one it is
/// only made sure that it has it.
const READ_BACK_MAX_BYTES: usize = 256 << 10;

/// The server's code for "another sequence was last".
pub const WRONG_LAST_SEQUENCE: u64 = 10_071;

/// The client of the hub.
pub struct HubClient {
    /// The connection that evidence is sent on.
    pub nats: Nats,
    publisher: Publisher,
    site: Site,
    subject: String,
    domain: Option<String>,
    bucket: Option<Mutex<TokenBucket>>,
    progress: Arc<Progress>,
    aliases: AliasLimits,
}

/// What distinguishes a file from others.
#[derive(Debug, Clone)]
pub struct FileIdentity {
    /// The file's name.
    pub name: Box<[u8]>,
    /// As it was read.
    pub stamp: Stamp,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
    /// What its writer says about it.
    pub metadata: Option<Arc<FileMetadata>>,
}

/// What became of a message.
#[derive(Debug)]
pub enum PublishOutcome {
    /// The stream has it.
    Stored(StoredMessage),
    /// It is too large for this server or stream.
    TooLarge,
    /// The file stays, and why.
    Hold(Hold, String),
}

/// Where a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// The name of the stream that has it.
    pub stream: String,
    /// Its place there.
    pub seq: u64,
    /// The stream's domain.
    pub domain: Option<String>,
    /// Whether it was there before.
    pub novelty: Novelty,
}

impl HubClient {
    /// A client of the hub; nothing is sent yet.
    pub fn new(nats: Nats, config: &Config, progress: Arc<Progress>) -> Self {
        let domain = config.domain().map(str::to_owned);
        // Room for the sender of large files in addition to that of small ones.
        let publisher = Publisher::with_limits(nats.clone(), config.max_inflight + 1, API_TIMEOUT);
        let bucket = config.max_bandwidth_bps.map(|bps| Mutex::new(TokenBucket::new(bps, Instant::now())));
        let (site, subject) = (config.site.clone(), config.subject.clone());
        let aliases = AliasLimits::default();
        Self { nats, publisher, site, subject, domain, bucket, progress, aliases }
    }

    /// The site whose files these are; a token of every subject.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The token of the site in subjects of its evidence: what the hub confines it to.
    pub fn evidence_site(&self) -> &str {
        evidence_site(&self.subject).unwrap_or(self.site.as_str())
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
    pub fn cost(&self, identity: &FileIdentity, payload: usize) -> usize {
        payload + self.subject.len() + 3 * identity.name.len() + 500
    }

    /// Publishes a file, or the manifest of one, and finds out what became of it.
    pub async fn deliver(
        &self,
        identity: &FileIdentity,
        payload: Bytes,
        is_manifest: bool,
        limit: Duration,
    ) -> PublishOutcome {
        let subject = self.subject_of(identity);
        let id = self.msg_id(&identity.sha256);
        match self.publish(&subject, id, identity, payload.clone(), is_manifest, limit).await {
            // Its id is remembered, and the message may have been removed since.
            PublishOutcome::Stored(stored) if stored.novelty == Novelty::Duplicate => {
                match self.known(&subject, identity, stored, payload.len()).await {
                    Some(end) => end,
                    None => {
                        let run = format!("{:016x}", rand::random::<u64>());
                        let id = MsgId::evidence_again(&self.site, &identity.sha256, &run);
                        self.publish(&subject, id, identity, payload, is_manifest, limit).await
                    }
                }
            }
            end => end,
        }
    }

    /// Where a file's message goes.
    pub fn subject_of(&self, identity: &FileIdentity) -> String {
        format!("{}.{}", self.subject, identity.sha256)
    }

    async fn publish(
        &self,
        subject: &str,
        id: MsgId,
        identity: &FileIdentity,
        payload: Bytes,
        is_manifest: bool,
        limit: Duration,
    ) -> PublishOutcome {
        let headers = self.headers(identity, is_manifest);
        let cost = self.cost(identity, payload.len());
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
            (Verdict::Stored | Verdict::Duplicate, Ok(ack)) => PublishOutcome::Stored(StoredMessage {
                stream: ack.stream,
                seq: ack.seq,
                domain: ack.domain,
                novelty: if verdict == Verdict::Duplicate { Novelty::Duplicate } else { Novelty::New },
            }),
            (Verdict::Hold(hold), Ok(ack)) => {
                let (wanted, found) =
                    (self.domain.as_deref().unwrap_or_default(), ack.domain.as_deref().unwrap_or("none"));
                let stream = &ack.stream;
                PublishOutcome::Hold(
                    hold,
                    format!("stream {stream} of domain {found} took the message, the hub's is {wanted}"),
                )
            }
            (Verdict::LookUp, Err(refused)) => self.look_up(subject, identity, &refused).await,
            (Verdict::Chunk, Err(_)) => PublishOutcome::TooLarge,
            (Verdict::Hold(hold), Err(error)) => PublishOutcome::Hold(hold, error.to_string()),
            (verdict, answer) => PublishOutcome::Hold(Hold::Refused, format!("{verdict:?} of {answer:?}")),
        }
    }

    /// The headers of a file's message.
    pub fn headers(&self, identity: &FileIdentity, is_manifest: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let metadata = identity.metadata.as_deref().map(|metadata| &metadata.values);
        let mtime = jiff::Timestamp::from_nanosecond(i128::from(identity.stamp.mtime_ns)).unwrap_or_default();
        headers.insert(HEADER_FILE, names::encode(&identity.name));
        headers.insert(HEADER_SIZE, identity.stamp.size.to_string());
        headers.insert(HEADER_MTIME, mtime.to_string());
        headers.insert(HEADER_SITE, self.site.as_str());
        let media_type = metadata.and_then(|metadata| metadata.media_type.as_deref());
        headers.insert(HEADER_CONTENT_TYPE, media_type.unwrap_or_else(|| names::content_type(&identity.name)));
        if let Some(metadata) = metadata {
            if let Some(id) = &metadata.evidence_id {
                headers.insert(HEADER_EVIDENCE_ID, id.as_str());
            }
            for (name, time) in [(HEADER_CREATED, metadata.created), (HEADER_MODIFIED, metadata.modified)] {
                if let Some(time) = time {
                    headers.insert(name, time.to_string());
                }
            }
        }
        headers.insert(HEADER_LEDGER, chain::hex(&self.progress.ledger_end()));
        if is_manifest {
            headers.insert(HEADER_MANIFEST, "1");
        }
        headers
    }

    /// The stream did not store the message. If it has one of this content, that is why, and success.
    async fn look_up(&self, subject: &str, identity: &FileIdentity, refused: &publish::Error) -> PublishOutcome {
        match self.last(STREAM_EVIDENCE, subject).await {
            Ok(Some((seq, message))) if holds(&message, &identity.sha256) => {
                let (stream, domain) = (STREAM_EVIDENCE.to_owned(), self.domain.clone());
                let stored = StoredMessage { stream, seq, domain, novelty: Novelty::Duplicate };
                self.compared(identity, stored, &message).await
            }
            Ok(_) => PublishOutcome::Hold(Hold::Full, refused.to_string()),
            Err(error) => {
                PublishOutcome::Hold(Hold::Unavailable, format!("{refused}; and it cannot be read back: {error}"))
            }
        }
    }

    /// The stream says that it has this content. Makes sure of that, and finds out whether it knows the name;
    /// `None` when it does not have the content.
    async fn known(
        &self,
        subject: &str,
        identity: &FileIdentity,
        stored: StoredMessage,
        size: usize,
    ) -> Option<PublishOutcome> {
        if size > READ_BACK_MAX_BYTES {
            return match self.is_there(subject).await {
                Ok(true) => Some(self.with_alias(identity, stored).await),
                Ok(false) => None,
                Err(error) => {
                    Some(PublishOutcome::Hold(Hold::Unavailable, format!("a duplicate cannot be looked up: {error}")))
                }
            };
        }
        match self.last(STREAM_EVIDENCE, subject).await {
            Ok(Some((seq, message))) if holds(&message, &identity.sha256) => {
                Some(self.compared(identity, StoredMessage { seq, ..stored }, &message).await)
            }
            Ok(_) => None,
            Err(error) => {
                Some(PublishOutcome::Hold(Hold::Unavailable, format!("a duplicate cannot be read back: {error}")))
            }
        }
    }

    /// Compares a file with the message that has its content.
    async fn compared(&self, identity: &FileIdentity, stored: StoredMessage, message: &Message) -> PublishOutcome {
        let ours = self.headers(identity, false);
        let is_same = |name| header(message, name) == ours.get(name).map(|value| value.as_str());
        match (is_same(HEADER_FILE), is_same(HEADER_MTIME)) {
            (true, true) => PublishOutcome::Stored(StoredMessage { novelty: Novelty::Recovered, ..stored }),
            (true, false) => PublishOutcome::Stored(stored),
            (false, _) => self.with_alias(identity, stored).await,
        }
    }

    async fn with_alias(&self, identity: &FileIdentity, stored: StoredMessage) -> PublishOutcome {
        match self.report_alias(identity, stored.seq).await {
            Ok(()) => PublishOutcome::Stored(stored),
            Err((hold, detail)) => PublishOutcome::Hold(hold, detail),
        }
    }

    /// Reports that a content, which the stream has at `seq`, was delivered under this name, too.
    async fn report_alias(&self, identity: &FileIdentity, seq: u64) -> Result<(), (Hold, String)> {
        if !self.aliases.admit(&identity.sha256) {
            return Ok(());
        }
        let alias = Alias::of(&self.subject, &identity.name, &identity.stamp, &identity.sha256, seq);
        let mut headers = self.headers(identity, false);
        headers.insert(HEADER_SAME_AS, self.subject_of(identity));
        let id = MsgId::evidence_name(&self.site, &identity.sha256, &alias.token);
        let limit = ack_limit(alias.payload.len() + 65_536);
        self.progress.sent(self.cost(identity, alias.payload.len()));
        let answer = match self.publisher.send_within(alias.subject.clone(), id, headers, alias.payload, limit).await {
            Ok(ack) => ack.await,
            Err(error) => Err(error),
        };
        match (judge(&answer, self.domain()), answer) {
            (Verdict::Stored | Verdict::Duplicate, _) => Ok(()),
            (Verdict::LookUp, Err(refused)) => match self.last(STREAM_EVIDENCE, &alias.subject).await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err((Hold::Full, refused.to_string())),
                Err(error) => Err((Hold::Unavailable, format!("{refused}; and it cannot be read back: {error}"))),
            },
            (Verdict::Hold(hold), Err(error)) => Err((hold, error.to_string())),
            (Verdict::Hold(hold), Ok(ack)) => Err((hold, format!("stream {} is not the hub's", ack.stream))),
            (_, answer) => Err((Hold::Refused, format!("{answer:?}"))),
        }
    }

    /// Whether the stream has a message of a subject, without reading it. An empty message that names an impossible
    /// place is refused, and the refusal names the place of the last one.
    async fn is_there(&self, subject: &str) -> Result<bool, String> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, u64::MAX.to_string());
        let id = MsgId::evidence_again(&self.site, "look", &format!("{:016x}", rand::random::<u64>()));
        match publish::publish_within(&self.nats, subject.to_owned(), id, headers, Bytes::new(), API_TIMEOUT).await {
            Err(publish::Error::Other { code: WRONG_LAST_SEQUENCE, reason, .. }) => {
                let last = last_sequence(&reason).ok_or(reason)?;
                Ok(last > 0)
            }
            Err(error) => Err(error.to_string()),
            Ok(ack) => Err(format!("stream {} takes what names an impossible place", ack.stream)),
        }
    }

    /// The last message of a subject, with its sequence, read from the hub's stream.
    ///
    /// # Errors
    /// There was no answer, or none that is understood.
    pub async fn last(&self, stream: &str, subject: &str) -> Result<Option<(u64, Message)>, String> {
        hub::last(&self.nats, self.domain(), stream, subject).await
    }
}

/// The place in the server's "wrong last sequence: 7".
fn last_sequence(reason: &str) -> Option<u64> {
    let digits = |c: char| !c.is_ascii_digit();
    reason.split("wrong last sequence: ").nth(1)?.split(digits).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_the_last_message_is_read_from_the_refusal() {
        assert_eq!(last_sequence("wrong last sequence: 0"), Some(0));
        assert_eq!(last_sequence("refused: wrong last sequence: 17 (10071)"), Some(17));
        assert_eq!(last_sequence("wrong last sequence"), None);
    }
}
