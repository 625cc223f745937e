//! Keeping what could not be delivered: parked until it is due, set aside, or dead.
//!
//! A message is acknowledged only after its record has a PubAck. While nothing can be stored, or the room for
//! retries is used up, the message keeps its slot and is kept in progress, so that only its own endpoint
//! waits. What can never be stored there, however long it waits, becomes a dead letter.

use crate::{
    metrics::{self, STORE_HELD},
    retry::{
        quota::{Place, RECORD_BYTES, Room},
        record::{Places, Record},
        server_clock::ServerClock,
        sweep::{self, NoRoom},
    },
    topology::streams::Made,
};
use agentforge_jetstream::{HeaderMap, Nats, Settler, publish};
use agentforge_message_id::MsgId;
use bytes::Bytes;
use jiff::Timestamp;
use rand::Rng;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// First and longest pause between tries to store.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The step that ends a message's way.
const DEAD: &str = "dead";
/// The reason of a dead letter whose event does not fit.
const TOO_LARGE: &str = "too_large";

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
    /// The clock that pauses are reckoned by.
    pub clock: Arc<ServerClock>,
    /// For retries.
    pub room: Arc<Room>,
    /// What the stream of dead letters may hold, bytes.
    pub dlq_max_bytes: u64,
    /// Whether the server brings what is parked.
    pub made: watch::Receiver<Option<Made>>,
    /// Told when there is no stream to store into.
    pub doubt: Arc<Notify>,
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
    /// Parks it until `due`, by the server's clock. `false`: it was not stored, and must be handed back.
    pub async fn park(
        &self,
        record: &Record,
        why: Why<'_>,
        due: Timestamp,
        payload: &Bytes,
        of: Option<&Settler>,
    ) -> bool {
        let subject = format!("{}.{}", self.places.parked, record.token());
        let headers = || {
            let target = self.made.borrow().is_none_or(|made| made.schedules).then_some(&*self.places.due);
            record.parked(why.reason, why.detail, due, target)
        };
        self.keep("park", &subject, &headers, record, payload, of).await
    }

    /// Puts it to the due retries. `false` as with [`Self::park`].
    pub async fn set_aside(&self, record: &Record, payload: &Bytes, of: Option<&Settler>) -> bool {
        self.keep("aside", &self.places.due, &|| record.headers(), record, payload, of).await
    }

    /// Makes it a dead letter. `false` as with [`Self::park`].
    pub async fn bury(&self, record: &Record, why: Why<'_>, payload: &Bytes, of: Option<&Settler>) -> bool {
        let headers = || record.dead(why.reason, why.detail, Timestamp::now());
        self.keep(DEAD, &self.places.dlq, &headers, record, payload, of).await
    }

    async fn keep(
        &self,
        step: &str,
        subject: &str,
        headers: &(dyn Fn() -> HeaderMap + Sync),
        record: &Record,
        payload: &Bytes,
        of: Option<&Settler>,
    ) -> bool {
        let mut held = Held(false);
        let mut tries = 0;
        loop {
            // Held until the stream has it.
            let place = match step {
                DEAD => Ok(None),
                _ => self.place(payload.len()).await.map(Some),
            };
            let sent = match &place {
                Ok(_) => self.send(step, subject, headers(), record, payload.clone()).await,
                Err(NoRoom::Never) => {
                    let limit = self.room.limit();
                    let detail = format!("larger than BROADCASTER_RETRIES_MAX_BYTES, {limit} bytes, and cannot wait");
                    metrics::dead(&self.endpoint, TOO_LARGE);
                    let why = Why { reason: TOO_LARGE, detail: &detail };
                    return Box::pin(self.bury(record, why, payload, of)).await;
                }
                Err(NoRoom::Now(reason)) => {
                    Err(publish::Error::Full { subject: subject.to_owned(), reason: reason.clone() })
                }
            };
            drop(place);
            let error = match sent {
                Ok(_) => return true,
                Err(error) if !payload.is_empty() && self.never_fits(step, payload, &error) => {
                    error!(endpoint = self.endpoint, webhook_id = record.id, %error, "a dead letter without its event");
                    return self.bury_bare(record, of).await;
                }
                Err(error) => error,
            };
            // The stream is gone or was changed: a check of the topology corrects either.
            if matches!(error, publish::Error::NoStream { .. } | publish::Error::Other { .. }) {
                self.doubt.notify_one();
            }
            if tries == 0 {
                warn!(endpoint = self.endpoint, step, code = error.code(), %error, "message cannot be stored; waiting");
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

    async fn place(&self, event_bytes: usize) -> Result<Place<'_>, NoRoom> {
        sweep::room_for(&self.nats, &self.clock, &self.room, event_bytes).await
    }

    /// Whether waiting is in vain: the server takes no such message, or the stream of dead letters is smaller.
    fn never_fits(&self, step: &str, payload: &Bytes, error: &publish::Error) -> bool {
        match error {
            publish::Error::TooLarge { .. } => true,
            publish::Error::Full { .. } => step == DEAD && (payload.len() + RECORD_BYTES) as u64 > self.dlq_max_bytes,
            _ => false,
        }
    }

    async fn send(
        &self,
        step: &str,
        subject: &str,
        headers: HeaderMap,
        record: &Record,
        payload: Bytes,
    ) -> Result<publish::Ack, publish::Error> {
        // What will become of it is part of the id: the same step again is the same message.
        let id = MsgId::webhook(step, &self.env, &self.endpoint, &record.origin, record.attempts);
        publish::publish(&self.nats, subject.to_owned(), id, headers, payload).await
    }

    /// An event that leaves no room for our headers in a message: its dead letter names its place.
    async fn bury_bare(&self, record: &Record, of: Option<&Settler>) -> bool {
        metrics::dead(&self.endpoint, TOO_LARGE);
        let detail = format!("with its record it is larger than the server takes; the event is {}", record.origin);
        let why = Why { reason: TOO_LARGE, detail: &detail };
        Box::pin(self.bury(record, why, &Bytes::new(), of)).await
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
