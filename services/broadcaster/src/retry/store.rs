//! Stores what could not be delivered: parked until it is due, set aside, or as a dead letter.
//!
//! A message is acknowledged only after its record has a PubAck. While NATS cannot store it, or the retries' quota is
//! used up, the message keeps its slot and is kept in progress, so that only its own endpoint waits. A message that can
//! never be stored among the retries becomes a dead letter.

use crate::{
    metrics::{self, STORE_HELD},
    retry::{
        quota::{RECORD_BYTES, Reservation, RetryQuota},
        record::{Record, RetrySubjects},
        reserve::{self, NoQuota},
        server_clock::ServerClock,
    },
    topology::streams::Capabilities,
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
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The step of a dead letter, a part of its `Nats-Msg-Id`.
const DEAD_STEP: &str = "dead";
/// The reason of a dead letter whose event is too large to wait.
const TOO_LARGE: &str = "too_large";

/// Stores the records of one endpoint.
pub struct RetryStore {
    pub nats: Nats,
    pub env: String,
    pub endpoint: String,
    /// Where its records go.
    pub subjects: RetrySubjects,
    /// Due times are by the server's clock, which moves parked messages.
    pub clock: Arc<ServerClock>,
    /// The quota of all retries.
    pub quota: Arc<RetryQuota>,
    /// The size of the stream of dead letters.
    pub dlq_max_bytes: u64,
    /// Whether the server moves parked messages when they are due.
    pub capabilities: watch::Receiver<Option<Capabilities>>,
    /// Notified when a stream refuses or is missing.
    pub topology_check: Arc<Notify>,
    /// Cancelled near the end of a drain: what is not stored is handed back.
    pub leaving: CancellationToken,
}

/// Why the last attempt failed.
#[derive(Debug, Clone, Copy)]
pub struct FailureReason<'a> {
    /// For labels and filters.
    pub reason: &'a str,
    /// Why it failed, in words for people.
    pub detail: &'a str,
}

impl RetryStore {
    /// Parks it until `due`, by the server's clock. `false`: it was not stored, and must be handed back.
    pub async fn park(
        &self,
        record: &Record,
        why: FailureReason<'_>,
        due: Timestamp,
        payload: &Bytes,
        settler: Option<&Settler>,
    ) -> bool {
        let subject = format!("{}.{}", self.subjects.parked, record.token());
        let headers = || {
            let target = self
                .capabilities
                .borrow()
                .is_none_or(|capabilities| capabilities.schedules)
                .then_some(&*self.subjects.due);
            record.parked(why.reason, why.detail, due, target)
        };
        self.store("park", &subject, &headers, record, payload, settler).await
    }

    /// Puts it among the due retries, without an attempt. `false` as with [`Self::park`].
    pub async fn set_aside(&self, record: &Record, payload: &Bytes, settler: Option<&Settler>) -> bool {
        self.store("aside", &self.subjects.due, &|| record.headers(), record, payload, settler).await
    }

    /// Makes it a dead letter. `false` as with [`Self::park`].
    pub async fn dead_letter(
        &self,
        record: &Record,
        why: FailureReason<'_>,
        payload: &Bytes,
        settler: Option<&Settler>,
    ) -> bool {
        let headers = || record.dead(why.reason, why.detail, Timestamp::now());
        self.store(DEAD_STEP, &self.subjects.dlq, &headers, record, payload, settler).await
    }

    async fn store(
        &self,
        step: &str,
        subject: &str,
        headers: &(dyn Fn() -> HeaderMap + Sync),
        record: &Record,
        payload: &Bytes,
        settler: Option<&Settler>,
    ) -> bool {
        let mut held = HeldCount(false);
        let mut tries = 0;
        loop {
            // The reservation lasts until the stream has the record.
            let reservation = match step {
                DEAD_STEP => Ok(None),
                _ => self.reserve_quota(payload.len()).await.map(Some),
            };
            let sent = match &reservation {
                Ok(_) => self.send(step, subject, headers(), record, payload.clone()).await,
                Err(NoQuota::Never) => {
                    let limit = self.quota.limit();
                    let detail = format!("larger than BROADCASTER_RETRIES_MAX_BYTES, {limit} bytes, and cannot wait");
                    metrics::dead(&self.endpoint, TOO_LARGE);
                    let why = FailureReason { reason: TOO_LARGE, detail: &detail };
                    return Box::pin(self.dead_letter(record, why, payload, settler)).await;
                }
                Err(NoQuota::Now(reason)) => {
                    Err(publish::Error::Full { subject: subject.to_owned(), reason: reason.clone() })
                }
            };
            drop(reservation);
            let error = match sent {
                Ok(_) => return true,
                Err(error) if !payload.is_empty() && self.never_fits(step, payload, &error) => {
                    error!(endpoint = self.endpoint, webhook_id = record.id, %error, "a dead letter without its event");
                    return self.dead_letter_without_event(record, settler).await;
                }
                Err(error) => error,
            };
            // The stream is gone or was changed: a check of the topology corrects either.
            if matches!(error, publish::Error::NoStream { .. } | publish::Error::Other { .. }) {
                self.topology_check.notify_one();
            }
            if tries == 0 {
                warn!(endpoint = self.endpoint, step, code = error.code(), %error, "message cannot be stored; waiting");
            }
            held.begin();
            tries += 1;
            let pause = PAUSE_MIN.saturating_mul(1 << u32::min(tries, 8)).min(PAUSE_MAX);
            let pause = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            tokio::select! {
                () = sleep(pause) => {}
                () = self.leaving.cancelled() => return false,
            }
            if let Some(settler) = settler {
                // If this is lost, the message is redelivered, and its record is recognised by its id.
                let _ = settler.in_progress().await;
            }
        }
    }

    async fn reserve_quota(&self, event_bytes: usize) -> Result<Reservation<'_>, NoQuota> {
        reserve::reserve(&self.nats, &self.clock, &self.quota, event_bytes).await
    }

    /// Whether it will never fit: the server takes no such message, or the whole stream of dead letters is smaller.
    fn never_fits(&self, step: &str, payload: &Bytes, error: &publish::Error) -> bool {
        match error {
            publish::Error::TooLarge { .. } => true,
            publish::Error::Full { .. } => {
                step == DEAD_STEP && (payload.len() + RECORD_BYTES) as u64 > self.dlq_max_bytes
            }
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
        // The step is part of the id: the same step repeated is the same message.
        let id = MsgId::webhook(step, &self.env, &self.endpoint, &record.origin, record.attempts);
        publish::publish(&self.nats, subject.to_owned(), id, headers, payload).await
    }

    /// The event leaves no room for our headers in a message: its dead letter says where the event is.
    async fn dead_letter_without_event(&self, record: &Record, settler: Option<&Settler>) -> bool {
        metrics::dead(&self.endpoint, TOO_LARGE);
        let detail = format!("with its record it is larger than the server takes; the event is {}", record.origin);
        let why = FailureReason { reason: TOO_LARGE, detail: &detail };
        Box::pin(self.dead_letter(record, why, &Bytes::new(), settler)).await
    }
}

/// Counts a message that cannot be stored now, until it is dropped.
struct HeldCount(bool);

impl HeldCount {
    fn begin(&mut self) {
        if !self.0 {
            self.0 = true;
            STORE_HELD.shift(&[], 1.0);
        }
    }
}

impl Drop for HeldCount {
    fn drop(&mut self) {
        if self.0 {
            STORE_HELD.shift(&[], -1.0);
        }
    }
}
