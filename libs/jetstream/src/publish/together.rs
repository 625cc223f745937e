//! Messages that are published together: sent one after the other, acknowledged as one.

use super::{Ack, Error, answer_to, header_of, not_sent};
use crate::{
    nats::{Nats, SendError},
    replies::{NoReply, PendingMany},
};
use agentforge_message_id::MsgId;
use async_nats::{HeaderMap, Subject, header::NATS_MESSAGE_ID};
use bytes::Bytes;
use std::collections::HashMap;
use tokio::time::Instant;

/// A message that is published with others.
#[derive(Debug)]
pub struct Outgoing {
    /// Where it goes.
    pub subject: Subject,
    /// Its `Nats-Msg-Id`.
    pub id: MsgId,
    /// Headers in addition to that.
    pub headers: HeaderMap,
    /// Its bytes.
    pub payload: Bytes,
}

/// Sends messages in order, one after the other, without waiting for their acknowledgements; those, and the wait for a
/// connection, have until `deadline`. Costs less than as many publishes: one deadline, one wake-up, no task for each.
pub async fn send_all(nats: &Nats, messages: Vec<Outgoing>, deadline: Instant) -> PubAcks {
    let mut sent = Vec::with_capacity(messages.len());
    let mut outgoing = Vec::with_capacity(messages.len());
    for Outgoing { subject, id, mut headers, payload } in messages {
        let size = payload.len();
        let fate = header_of(&subject, &id).map(|value| {
            headers.insert(NATS_MESSAGE_ID, value);
            outgoing.push((subject.clone(), headers, payload));
            outgoing.len() - 1
        });
        sent.push(Sent { subject, size, fate });
    }
    let (pending, mut failed) = match nats.send_requests(outgoing, deadline).await {
        Ok((pending, failed)) => (Some(pending), failed.into_iter().collect()),
        Err(_) => (None, HashMap::new()),
    };
    for Sent { subject, size, fate } in &mut sent {
        let Ok(place) = fate else { continue };
        let why = failed.remove(place).or_else(|| pending.is_none().then_some(SendError::NotConnected));
        if let Some(why) = why {
            *fate = Err(not_sent(subject, *size, nats.max_payload(), why));
        }
    }
    PubAcks { nats: nats.clone(), pending, sent }
}

/// A message of many.
struct Sent {
    subject: Subject,
    size: usize,
    /// Its place among the replies, or why it was not sent.
    fate: Result<usize, Error>,
}

/// The acknowledgements to come of messages that were sent together.
#[must_use = "only the acknowledgements say that the stream has the messages"]
pub struct PubAcks {
    nats: Nats,
    pending: Option<PendingMany>,
    sent: Vec<Sent>,
}

impl PubAcks {
    /// Waits for all; the answers are in the order of the messages.
    pub async fn all(self) -> Vec<Result<Ack, Error>> {
        let Self { nats, pending, sent } = self;
        let mut replies = match pending {
            Some(pending) => pending.await,
            None => Vec::new(),
        };
        let answer = |Sent { subject, size, fate }: Sent| {
            let reply = replies.get_mut(fate?).and_then(Option::take);
            answer_to(&nats, &subject, size, reply.unwrap_or(Err(NoReply::Lost)))
        };
        sent.into_iter().map(answer).collect()
    }
}
