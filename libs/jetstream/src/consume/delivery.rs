//! One delivery and the ways to settle it. Exactly one of ack, nak and term ends it.

use super::AckInfo;
use crate::{
    nats::{Nats, SendError},
    replies::NoReply,
};
use async_nats::{HeaderMap, Message, StatusCode, Subject};
use bytes::Bytes;
use std::{fmt, time::Duration};
use tokio::time::timeout;

/// How long an unconfirmed settlement may wait for room in the client while the connection is down.
const SEND: Duration = Duration::from_secs(5);

/// Why a delivery could not be settled. It is redelivered after the ack wait unless the server has the settlement
/// nevertheless.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing takes the acknowledgement: the consumer or its stream is gone, or has no leader now.
    #[error("settle {consumer} message {seq}: the acknowledgement has no recipient, the consumer is gone")]
    Gone {
        /// The name of the consumer that delivered the message.
        consumer: String,
        /// The message's stream sequence.
        seq: u64,
    },
    /// The connection is down, broke, or no confirmation came in time.
    #[error("settle {consumer} message {seq}: {reason}")]
    Unavailable {
        /// The name of the consumer that delivered the message.
        consumer: String,
        /// The message's stream sequence.
        seq: u64,
        /// Why the acknowledgement was not sent or not confirmed.
        reason: &'static str,
    },
}

impl Error {
    /// Whether settling the same delivery again may succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// A message handed over by the server, with what settles it.
pub struct Delivery {
    message: Message,
    settler: Settler,
}

/// Settles one delivery from anywhere; the message itself need not be kept. Cheap to clone.
#[derive(Clone)]
pub struct Settler {
    nats: Nats,
    reply: Subject,
    info: std::sync::Arc<AckInfo>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.payload().len();
        f.debug_struct("Delivery")
            .field("subject", &self.subject())
            .field("size", &size)
            .field("info", self.info())
            .finish()
    }
}

impl Delivery {
    /// `None` when the message does not come from a consumer.
    pub(super) fn new(nats: Nats, message: Message) -> Option<Self> {
        let reply = message.reply.clone()?;
        let info = AckInfo::parse(&reply)?.into();
        Some(Self { message, settler: Settler { nats, reply, info } })
    }

    /// The message's body, as it was published.
    pub fn payload(&self) -> &Bytes {
        &self.message.payload
    }
    /// The headers, where there are any.
    pub fn headers(&self) -> Option<&HeaderMap> {
        self.message.headers.as_ref()
    }
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()?.get(name).map(|value| value.as_str())
    }
    /// The subject it was published to.
    pub fn subject(&self) -> &str {
        &self.message.subject
    }
    /// The subject that takes the acknowledgement.
    pub fn reply(&self) -> &str {
        &self.settler.reply
    }
    /// What the server says about this delivery.
    pub fn info(&self) -> &AckInfo {
        &self.settler.info
    }
    /// A handle that settles this delivery, for the task that keeps it in progress.
    pub fn settler(&self) -> Settler {
        self.settler.clone()
    }

    /// See [`Settler::ack`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ack(&self) -> Result<(), Error> {
        self.settler.ack().await
    }
    /// See [`Settler::ack_confirmed`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ack_confirmed(&self, limit: Duration) -> Result<(), Error> {
        self.settler.ack_confirmed(limit).await
    }
    /// See [`Settler::nak`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn nak(&self, delay: Option<Duration>) -> Result<(), Error> {
        self.settler.nak(delay).await
    }
    /// See [`Settler::term`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn term(&self, reason: &str) -> Result<(), Error> {
        self.settler.term(reason).await
    }
    /// See [`Settler::in_progress`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn in_progress(&self) -> Result<(), Error> {
        self.settler.in_progress().await
    }
}

impl Settler {
    /// What the server says about the delivery.
    pub fn info(&self) -> &AckInfo {
        &self.info
    }

    /// Done; the server is not asked whether it heard. For work whose redelivery is harmless and cheap.
    ///
    /// # Errors
    /// When it could not be handed to the client in 5 s.
    pub async fn ack(&self) -> Result<(), Error> {
        self.send(Bytes::from_static(b"+ACK")).await
    }

    /// Done, and the server confirmed it within `limit`. The wait for a connection counts.
    ///
    /// # Errors
    /// [`Error::Gone`] when nothing takes the ack; [`Error::Unavailable`] when it is not known whether
    /// the server has it.
    pub async fn ack_confirmed(&self, limit: Duration) -> Result<(), Error> {
        let confirmed = self.nats.request(self.reply.clone(), Bytes::from_static(b"+ACK"), limit).await;
        match confirmed {
            // The client's own double ack takes any answer for a yes, this one too.
            Ok(answer) if answer.status == Some(StatusCode::NO_RESPONDERS) => {
                Err(Error::Gone { consumer: self.info.consumer.clone(), seq: self.info.stream_seq })
            }
            Ok(_) => Ok(()),
            Err(SendError::NotConnected) => Err(self.unavailable("not connected to NATS")),
            Err(SendError::Refused(_)) => Err(self.unavailable("the NATS client is closed")),
            Err(SendError::NoReply(NoReply::Lost)) => {
                Err(self.unavailable("the connection broke before the confirmation"))
            }
            Err(SendError::NoReply(NoReply::TimedOut)) => Err(self.unavailable("no confirmation in time")),
        }
    }

    /// Not now: deliver again, after `delay` if given (whole nanoseconds), else at once.
    ///
    /// # Errors
    /// When it could not be handed to the client in 5 s.
    pub async fn nak(&self, delay: Option<Duration>) -> Result<(), Error> {
        self.send(match delay {
            None => Bytes::from_static(b"-NAK"),
            Some(delay) => format!("-NAK {{\"delay\": {}}}", delay.as_nanos()).into(),
        })
        .await
    }

    /// Never again. The reason (one line, cut at 200 characters) appears in an advisory.
    ///
    /// # Errors
    /// When it could not be handed to the client in 5 s.
    pub async fn term(&self, reason: &str) -> Result<(), Error> {
        const REASON_CHARS: usize = 200;
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS).collect();
        self.send(format!("+TERM {reason}").trim_end().to_owned().into()).await
    }

    /// Still working: restarts the ack wait.
    ///
    /// # Errors
    /// When it could not be handed to the client in 5 s.
    pub async fn in_progress(&self) -> Result<(), Error> {
        self.send(Bytes::from_static(b"+WPI")).await
    }

    async fn send(&self, payload: Bytes) -> Result<(), Error> {
        match timeout(SEND, self.nats.client().publish(self.reply.clone(), payload)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.unavailable("the NATS client is closed")),
            Err(_) => Err(self.unavailable("not connected to NATS")),
        }
    }

    fn unavailable(&self, reason: &'static str) -> Error {
        Error::Unavailable { consumer: self.info.consumer.clone(), seq: self.info.stream_seq, reason }
    }
}
