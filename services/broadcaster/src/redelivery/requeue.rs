//! Stores one message among the due retries of its endpoint: the last step of a redelivery and of a replay.
//!
//! Decides which failures concern only this message, so that a run continues with the next, and which end the run.

use crate::{
    retry::{
        quota::RetryQuota,
        record::Record,
        reserve::{self, NoQuota},
        server_clock::ServerClock,
    },
    topology::names,
};
use agentforge_jetstream::{Nats, publish};
use agentforge_message_id::MsgId;
use bytes::Bytes;
use serde::Serialize;

/// Where and how messages are put to the retries.
pub struct Requeue<'a> {
    pub nats: &'a Nats,
    pub env: &'a str,
    pub clock: &'a ServerClock,
    pub quota: &'a RetryQuota,
}

/// Why one was not.
#[derive(Debug)]
pub enum Error {
    /// It never can be: it is larger than all retries may be, or the server takes no such message. Others can.
    Never(String),
    /// Nothing can be now.
    Now(publish::Error),
}

/// A message that can never be sent again.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Refused {
    /// Its place in its stream.
    pub seq: u64,
    /// Why, in words.
    pub reason: String,
}

impl Requeue<'_> {
    /// Puts it there. The way is part of its id, so that the same way again is the same message.
    pub async fn send(
        &self,
        way: &str,
        endpoint: &str,
        record: &Record,
        payload: &Bytes,
    ) -> Result<publish::Ack, Error> {
        if payload.is_empty() {
            let reason = "it does not hold its event, which was too large; replay sends that from its stream";
            return Err(Error::Never(reason.to_owned()));
        }
        let due = names::due(self.env, endpoint);
        let reservation = match reserve::reserve(self.nats, self.clock, self.quota, payload.len()).await {
            Ok(reservation) => reservation,
            Err(NoQuota::Now(reason)) => return Err(Error::Now(publish::Error::Full { subject: due, reason })),
            Err(NoQuota::Never) => {
                let limit = self.quota.limit();
                return Err(Error::Never(format!("larger than BROADCASTER_RETRIES_MAX_BYTES, {limit} bytes")));
            }
        };
        let id = MsgId::webhook(way, self.env, endpoint, &record.origin, 0);
        let sent = publish::publish(self.nats, due, id, record.headers(), payload.clone()).await;
        drop(reservation);
        sent.map_err(
            |error| if error.is_of_the_message() { Error::Never(error.to_string()) } else { Error::Now(error) },
        )
    }
}
