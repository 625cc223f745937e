//! Publishing with an id that survives a retry, and waiting for the server's acknowledgement.
//!
//! A PubAck proves that the stream accepted the message, not that it is on disk. An error never
//! proves the opposite: a message may be stored although its ack was lost, so a retry uses the same id.
//! Nothing is sent while the connection is down; the wait for it counts against the timeout.

mod together;

pub use together::{Outgoing, PubAcks, send_all};

use crate::{
    nats::{Nats, SendError},
    replies::{NoReply, Pending},
};
use agentforge_message_id::MsgId;
use async_nats::{
    HeaderMap, HeaderValue, Message, PublishErrorKind, StatusCode, Subject, header::NATS_MESSAGE_ID, jetstream,
};
use bytes::Bytes;
use jetstream::ErrorCode;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};

/// How long one publish may take, the wait for a connection included.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Publishes in flight of a [`Publisher`]: enough to fill a fast link, few enough to be kept in memory.
pub const MAX_IN_FLIGHT: usize = 1024;

/// Longest subject that is sent: the server ends a connection whose protocol line is longer than its
/// max_control_line (4,096 by default), and that line also holds the reply subject and two sizes.
const SUBJECT_BYTES_MAX: usize = 3_500;
/// The server's word for a stream that was closed for good; the client has no name for it.
const STREAM_SEALED: ErrorCode = ErrorCode(10_109);

/// What the stream said about a message it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The message's sequence in the stream; for a duplicate, that of the first.
    pub seq: u64,
    /// The stream that has it.
    pub stream: String,
    /// The JetStream domain of the server, where it has one.
    pub domain: Option<String>,
    /// The stream had a message with this id already; nothing was added. This is success.
    pub duplicate: bool,
}

/// Whose limit a message exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitOf {
    /// The server's: `max_payload` of its configuration, or what it takes as headers. Only its operator can raise it.
    Server,
    /// The stream's `max_msg_size`. The stream's owner can correct it, and does so where it differs from the plan.
    Stream,
}

/// Why there is no acknowledgement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream is at a limit and refuses rather than discards. Try again later.
    #[error("publish to {subject}: the stream is full ({reason})")]
    Full {
        /// Where it was to go.
        subject: String,
        /// The server's words.
        reason: String,
    },
    /// No answer: the connection is down, broke, or the server is silent or not able. Try again with the same id.
    #[error("publish to {subject}: {reason}")]
    Unavailable {
        /// Where it was to go.
        subject: String,
        /// Whether the connection, the time or the server was the cause, in words.
        reason: String,
    },
    /// The message cannot be taken as this server or stream is configured.
    #[error("publish to {subject}: {size} bytes are too large ({reason})")]
    TooLarge {
        /// Where it was to go.
        subject: String,
        /// Bytes of the payload.
        size: usize,
        /// Whose limit it is.
        limit_of: LimitOf,
        /// The limit, in the words of the server that refused.
        reason: String,
    },
    /// No stream takes this subject, or JetStream has no leader for it now.
    #[error("publish to {subject}: no stream answers for it")]
    NoStream {
        /// Where it was to go.
        subject: String,
    },
    /// Anything else the server refuses, or a message that NATS cannot carry at all.
    #[error("publish to {subject}: refused with {code}: {reason}")]
    Other {
        /// Where it was to go.
        subject: String,
        /// The server's error code; 0 when it was never sent: subject or header are not valid.
        code: u64,
        /// The server's words, or what is not valid about the message.
        reason: String,
    },
}

impl Error {
    /// Whether the same publish may succeed later. It must then use the same id.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Unavailable { .. } | Self::NoStream { .. })
    }

    /// Whether this very message can never be published, regardless of the state of the stream and its server: it is
    /// too large, or not valid. Then it must leave its queue, or nothing behind it ever continues. A refusal that would
    /// meet any other message too (a sealed stream) is none of these: it passes when the stream is repaired.
    pub fn is_of_the_message(&self) -> bool {
        match self {
            Self::TooLarge { .. } => true,
            Self::Other { code, .. } => ErrorCode(*code) != STREAM_SEALED,
            Self::Full { .. } | Self::Unavailable { .. } | Self::NoStream { .. } => false,
        }
    }

    /// A stable short name, for labels.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Full { .. } => "full",
            Self::Unavailable { .. } => "unavailable",
            Self::TooLarge { .. } => "too_large",
            Self::NoStream { .. } => "no_stream",
            Self::Other { .. } => "refused",
        }
    }
}

/// Publishes one message and waits for its acknowledgement, at most [`TIMEOUT`].
///
/// # Errors
/// See [`Error`]; `is_retryable` says which may pass.
pub async fn publish(
    nats: &Nats,
    subject: impl Into<Subject>,
    id: MsgId,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<Ack, Error> {
    publish_within(nats, subject, id, headers, payload, TIMEOUT).await
}

/// As [`publish`], with a limit of its own.
///
/// # Errors
/// See [`Error`].
pub async fn publish_within(
    nats: &Nats,
    subject: impl Into<Subject>,
    id: MsgId,
    mut headers: HeaderMap,
    payload: Bytes,
    limit: Duration,
) -> Result<Ack, Error> {
    let subject = subject.into();
    headers.insert(NATS_MESSAGE_ID, header_of(&subject, &id)?);
    let size = payload.len();
    let sent = nats.send_request(subject.clone(), Some(headers), payload, Instant::now() + limit, None).await;
    let pending = sent.map_err(|e| not_sent(&subject, size, nats.max_payload(), e))?;
    PubAck { nats: nats.clone(), pending, subject, size }.await
}

/// Many publishes at once: each is sent without waiting for the acks of those before it, in order, and
/// at most a fixed number are in flight. Clones share the bound.
#[derive(Clone, Debug)]
pub struct Publisher {
    nats: Nats,
    in_flight: Arc<Semaphore>,
    timeout: Duration,
}

impl Publisher {
    /// At most [`MAX_IN_FLIGHT`] in flight, each for [`TIMEOUT`].
    pub fn new(nats: Nats) -> Self {
        Self::with_limits(nats, MAX_IN_FLIGHT, TIMEOUT)
    }

    /// With limits of its own; at least one in flight.
    pub fn with_limits(nats: Nats, max_in_flight: usize, timeout: Duration) -> Self {
        Self { nats, in_flight: Arc::new(Semaphore::new(max_in_flight.max(1))), timeout }
    }

    /// Sends one message, waiting for room first. The ack comes from the returned future, which need not be polled for
    /// others to continue: room is freed when the ack arrives or the time is over.
    ///
    /// # Errors
    /// When the message was not sent. Later failures are reported by the returned future.
    pub async fn send(
        &self,
        subject: impl Into<Subject>,
        id: MsgId,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<PubAck, Error> {
        self.send_within(subject, id, headers, payload, self.timeout).await
    }

    /// As [`Self::send`], with a limit of its own: what a slow link needs depends on the size.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_within(
        &self,
        subject: impl Into<Subject>,
        id: MsgId,
        mut headers: HeaderMap,
        payload: Bytes,
        limit: Duration,
    ) -> Result<PubAck, Error> {
        let subject = subject.into();
        headers.insert(NATS_MESSAGE_ID, header_of(&subject, &id)?);
        let size = payload.len();
        let permit = self.in_flight.clone().acquire_owned().await.expect("this semaphore is never closed");
        let deadline = Instant::now() + limit;
        let sent = self.nats.send_request(subject.clone(), Some(headers), payload, deadline, Some(permit)).await;
        let pending = sent.map_err(|e| not_sent(&subject, size, self.nats.max_payload(), e))?;
        Ok(PubAck { nats: self.nats.clone(), pending, subject, size })
    }
}

/// The acknowledgement to come.
#[must_use = "only the acknowledgement says that the stream has the message"]
pub struct PubAck {
    nats: Nats,
    pending: Pending,
    subject: Subject,
    size: usize,
}

impl Future for PubAck {
    type Output = Result<Ack, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = ready!(Pin::new(&mut self.pending).poll(cx));
        Poll::Ready(answer_to(&self.nats, &self.subject, self.size, reply))
    }
}

/// What a reply to a publish means.
fn answer_to(nats: &Nats, subject: &Subject, size: usize, reply: Result<Message, NoReply>) -> Result<Ack, Error> {
    match reply {
        Ok(message) => {
            let ack = read_ack(subject, size, &message);
            if matches!(ack, Err(Error::NoStream { .. })) {
                nats.missing().note(&format!("a stream for {subject}"));
            }
            ack
        }
        Err(NoReply::TimedOut) if nats.denied().any_below(subject) => {
            let reason = "no acknowledgement: the server denies publishing there (permissions of this user)";
            Err(Error::Unavailable { subject: subject.to_string(), reason: reason.to_owned() })
        }
        Err(no_reply) => Err(not_sent(subject, size, 0, SendError::NoReply(no_reply))),
    }
}

/// The id as a header, once the message is known to be one that NATS can carry. Text of strangers ends up in
/// subjects and ids; the client panics at a header with a line break, and the server ends the connection at a
/// line that is too long.
fn header_of(subject: &Subject, id: &MsgId) -> Result<HeaderValue, Error> {
    let refused = |reason: &str| Error::Other { subject: shown(subject), code: 0, reason: reason.to_owned() };
    if subject.len() > SUBJECT_BYTES_MAX {
        return Err(refused("the subject is too long"));
    }
    let is_token = |token: &str| {
        !token.is_empty()
            && !matches!(token, "*" | ">")
            && token.bytes().all(|b| !b.is_ascii_whitespace() && !b.is_ascii_control())
    };
    if !subject.split('.').all(is_token) {
        return Err(refused("invalid subject: tokens are not empty, no wildcards, and hold no white space"));
    }
    id.as_str().parse().map_err(|_| refused("the message id is no header: it holds a line break"))
}

/// A subject as shown in an error, shortened if it is long.
fn shown(subject: &Subject) -> String {
    const SHOWN: usize = 200;
    subject.chars().take(SHOWN).flat_map(char::escape_debug).collect()
}

fn not_sent(subject: &Subject, size: usize, max_payload: usize, error: SendError) -> Error {
    let subject = subject.to_string();
    let unavailable = |reason: &str| Error::Unavailable { subject: subject.clone(), reason: reason.to_owned() };
    match error {
        SendError::NotConnected => unavailable("not connected to NATS"),
        SendError::NoReply(NoReply::Lost) => unavailable("the connection broke before the acknowledgement"),
        SendError::NoReply(NoReply::TimedOut) => unavailable("no acknowledgement in time"),
        SendError::Refused(e) => match e.kind() {
            PublishErrorKind::MaxPayloadExceeded => {
                let reason = format!("the server takes {max_payload} with headers, max_payload in its configuration");
                Error::TooLarge { subject, size, limit_of: LimitOf::Server, reason }
            }
            PublishErrorKind::InvalidSubject => Error::Other { subject, code: 0, reason: e.to_string() },
            PublishErrorKind::Send => unavailable("the NATS client is closed"),
        },
    }
}

#[derive(serde::Deserialize)]
struct Answer {
    error: Option<Refusal>,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    domain: Option<String>,
    #[serde(default)]
    duplicate: bool,
}

#[derive(serde::Deserialize)]
struct Refusal {
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

fn read_ack(subject: &Subject, size: usize, message: &Message) -> Result<Ack, Error> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(Error::NoStream { subject: subject.to_string() });
    }
    let answer: Answer = match serde_json::from_slice(&message.payload) {
        Ok(answer) => answer,
        Err(e) => {
            // Somebody else answered; whether the stream has the message is not known.
            let reason = format!("the answer is not an acknowledgement: {e}");
            return Err(Error::Unavailable { subject: subject.to_string(), reason });
        }
    };
    match answer.error {
        Some(refusal) => Err(refused(subject.to_string(), size, refusal)),
        None if answer.stream.is_empty() || answer.seq == 0 => {
            let reason = "the answer names no stream or sequence".to_owned();
            Err(Error::Unavailable { subject: subject.to_string(), reason })
        }
        None => Ok(Ack { seq: answer.seq, stream: answer.stream, domain: answer.domain, duplicate: answer.duplicate }),
    }
}

fn refused(subject: String, size: usize, Refusal { code, err_code, description: reason }: Refusal) -> Error {
    match ErrorCode(err_code) {
        ErrorCode::STREAM_STORE_FAILED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => Error::Full { subject, reason },
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => {
            let reason = format!("{reason}: max_msg_size of the stream");
            Error::TooLarge { subject, size, limit_of: LimitOf::Stream, reason }
        }
        ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            Error::TooLarge { subject, size, limit_of: LimitOf::Server, reason }
        }
        _ if code >= 500 => Error::Unavailable { subject, reason },
        _ => Error::Other { subject, code: err_code, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(payload: &str) -> Result<Ack, Error> {
        let message = Message {
            subject: "_INBOX.x.1".into(),
            reply: None,
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        read_ack(&"swarm.jobs.dev.default".into(), 7, &message)
    }

    #[test]
    fn acks_are_read() {
        let ack = answer(r#"{"stream":"swarm_jobs","seq":4,"domain":"hub","duplicate":true}"#).unwrap();
        assert_eq!((ack.seq, &*ack.stream, ack.domain.as_deref(), ack.duplicate), (4, "swarm_jobs", Some("hub"), true));
        assert!(!answer(r#"{"stream":"s","seq":1}"#).unwrap().duplicate);
    }

    #[test]
    fn refusals_are_classed_once() {
        let cases = [
            (r#"{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}"#, "full", true),
            (r#"{"error":{"code":400,"err_code":10047,"description":"storage"}}"#, "full", true),
            (
                r#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}"#,
                "too_large",
                false,
            ),
            (r#"{"error":{"code":503,"err_code":10008,"description":"unavailable"}}"#, "unavailable", true),
            (r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"}}"#, "refused", false),
            (r#"{"error":{"code":400,"err_code":10109,"description":"sealed"}}"#, "refused", false),
            (r#"{"stream":"s"}"#, "unavailable", true),
            ("no json", "unavailable", true),
        ];
        for (payload, code, retryable) in cases {
            let error = answer(payload).unwrap_err();
            assert_eq!((error.code(), error.is_retryable()), (code, retryable), "{payload}");
            let of_the_message = !retryable && !payload.contains("10109");
            assert_eq!(error.is_of_the_message(), of_the_message, "{payload}");
        }
    }

    #[test]
    fn what_nats_cannot_carry_is_never_sent() {
        let id = MsgId::outbox("plain");
        for good in ["swarm.jobs.dev.default", "a", "tactical.markers.x%20y.1", "é.ü"] {
            assert!(header_of(&good.into(), &id).is_ok(), "{good}");
        }
        let long = format!("a.{}", "x".repeat(SUBJECT_BYTES_MAX));
        for bad in ["", "a..b", ".a", "a.", "a.*", "swarm.dlq.> *.x", "a.>", "a b", "a.b\r\nPUB c 0", &long] {
            let error = header_of(&bad.into(), &id).unwrap_err();
            assert!(error.is_of_the_message() && !error.is_retryable() && error.to_string().len() < 400, "{error}");
        }
        for bad in ["a\r\nb", "a\nb"] {
            assert!(header_of(&"a".into(), &MsgId::outbox(bad)).unwrap_err().is_of_the_message());
        }
    }
}
