//! Keeping what could not be delivered: parked until it is due, set aside, or dead.
//!
//! A message is acknowledged only after its record has a PubAck. While nothing can be stored, the message
//! keeps its slot and is kept in progress, so that only its own endpoint waits.

use crate::{
    metrics::STORE_HELD,
    names::DLQ_FILTER,
    record::{Places, Record},
};
use agentforge_jetstream::{HeaderMap, Nats, Settler, publish};
use agentforge_message_id::MsgId;
use bytes::Bytes;
use jiff::Timestamp;
use rand::Rng;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// First and longest pause between tries to store.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Stores for one endpoint.
pub struct Store {
    /// The connection.
    pub nats: Nats,
    /// The environment's name.
    pub env: String,
    /// The endpoint's name.
    pub endpoint: String,
    /// Where.
    pub places: Places,
    /// Fires when what is not stored is handed back.
    pub leaving: CancellationToken,
}

/// Why the last attempt failed.
#[derive(Debug, Clone, Copy)]
pub struct Why<'a> {
    /// Short name.
    pub reason: &'a str,
    /// In words.
    pub detail: &'a str,
}

impl Store {
    /// Parks it until `due`. `false`: it was not stored, and must be handed back.
    pub async fn park(
        &self,
        record: &Record,
        why: Why<'_>,
        due: Timestamp,
        payload: &Bytes,
        of: Option<&Settler>,
    ) -> bool {
        let subject = format!("{}.{}", self.places.parked, record.token());
        let headers = record.scheduled(why.reason, why.detail, due, &self.places.due);
        self.keep("park", subject, headers, record, payload, of).await
    }

    /// Puts it to the due retries. `false` as with [`Self::park`].
    pub async fn set_aside(&self, record: &Record, payload: &Bytes, of: Option<&Settler>) -> bool {
        self.keep("aside", self.places.due.clone(), record.headers(), record, payload, of).await
    }

    /// Makes it a dead letter. `false` as with [`Self::park`].
    pub async fn bury(&self, record: &Record, why: Why<'_>, payload: &Bytes, of: Option<&Settler>) -> bool {
        let headers = record.dead(why.reason, why.detail, Timestamp::now());
        self.keep("dead", self.places.dlq.clone(), headers, record, payload, of).await
    }

    async fn keep(
        &self,
        step: &'static str,
        subject: String,
        headers: HeaderMap,
        record: &Record,
        payload: &Bytes,
        of: Option<&Settler>,
    ) -> bool {
        let mut payload = payload.clone();
        let mut held = Held(false);
        let mut tries = 0;
        loop {
            // What will become of it is part of the id: the same step again is the same message.
            let id = MsgId::webhook(step, &self.env, &self.endpoint, &record.origin, record.attempts);
            let error = match publish::publish(&self.nats, subject.clone(), id, headers.clone(), payload.clone()).await
            {
                Ok(_) => return true,
                Err(error) => error,
            };
            if !error.is_retryable() && !payload.is_empty() {
                error!(endpoint = self.endpoint, webhook_id = record.id, %error, "kept without its body");
                payload = Bytes::new();
                continue;
            }
            if tries == 0 {
                let place = if subject == self.places.dlq { DLQ_FILTER } else { &self.places.due };
                warn!(endpoint = self.endpoint, place, code = error.code(), %error, "a message waits to be stored");
            }
            held.begin();
            tries += 1;
            let pause = PAUSE.saturating_mul(1 << u32::min(tries, 8)).min(PAUSE_MAX);
            let pause = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            tokio::select! {
                () = sleep(pause) => {}
                () = self.leaving.cancelled() => return false,
            }
            if let Some(settler) = of {
                // Unsaid, it comes again, and its record is known by its id.
                let _ = settler.in_progress().await;
            }
        }
    }
}

/// Counts a message that cannot be stored now.
struct Held(bool);

impl Held {
    fn begin(&mut self) {
        if !self.0 {
            self.0 = true;
            STORE_HELD.shift(&[], 1.0);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.0 {
            STORE_HELD.shift(&[], -1.0);
        }
    }
}
