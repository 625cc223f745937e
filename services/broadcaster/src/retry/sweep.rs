//! Moves retries that no dispatcher will: those that are overdue, and those that waited too long.
//!
//! A parked retry is overdue when the server lost its schedule, or keeps no schedules: then it becomes due here. A due
//! retry whose endpoint never recovered, or is no longer declared, becomes a dead letter after its maximum age, so that no
//! retry leaves the stream without a trace. Replicas may sweep at the same time: what they write has the same id.

use crate::{
    metrics::{self, RESCUED},
    retry::{
        quota::RECORD_BYTES,
        record::{DUE_AT, Record},
    },
    topology::{
        names::{self, STREAM_RETRIES},
        reader::{self, StoredMessage},
    },
};
use agentforge_jetstream::{HeaderMap, Nats, publish};
use agentforge_message_id::MsgId;
use bytes::Bytes;
use jiff::Timestamp;
use std::time::Duration;
use tracing::{error, warn};

/// Between sweeps, where the server keeps schedules.
pub const INTERVAL_MAX: Duration = Duration::from_secs(300);
/// Between sweeps, where only the sweep makes retries due.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How late a schedule may be before it counts as lost: the server needs a while for a backlog of them.
const SCHEDULE_DELAY_MAX: Duration = Duration::from_secs(120);
/// With a short maximum age, sweeps per that age: a retry is at most a tenth too late.
const SWEEPS_PER_MAX_AGE: u32 = 10;

/// The time between sweeps.
pub fn interval(schedules: bool, max_age: Duration) -> Duration {
    if !schedules { INTERVAL_MIN } else { (max_age / SWEEPS_PER_MAX_AGE).clamp(INTERVAL_MIN, INTERVAL_MAX) }
}

/// Why a sweep ended early; the next one continues.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream does not answer.
    #[error(transparent)]
    Read(#[from] reader::Error),
    /// A retry cannot be stored where it goes.
    #[error("a retry cannot be made due")]
    Publish(#[from] publish::Error),
}

/// Where a retry goes.
struct Destination {
    subject: String,
    /// The same in every replica.
    id: MsgId,
    headers: HeaderMap,
}

/// One sweep over all retries.
pub struct Sweep<'a> {
    pub nats: &'a Nats,
    pub env: &'a str,
    /// What the stream of dead letters may hold, bytes.
    pub dlq_max_bytes: u64,
    /// By the server's clock.
    pub now: Timestamp,
    /// Called at each step: a sweep over millions of retries takes long.
    pub progress: &'a (dyn Fn() + Sync),
}

impl Sweep<'_> {
    /// Makes overdue retries due. Returns how many.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn bring_overdue(&self, schedules: bool) -> Result<u64, Error> {
        let patience = if schedules { SCHEDULE_DELAY_MAX } else { Duration::ZERO };
        let overdue = self.now.checked_sub(patience).unwrap_or(Timestamp::MIN).as_millisecond();
        let (env, mut next, mut brought) = (self.env, 1, 0);
        loop {
            let batch = reader::batch(self.nats, STREAM_RETRIES, &names::parked(env, ">"), next).await?;
            (self.progress)();
            let Some(last) = batch.last() else { break };
            next = last.seq + 1;
            for stored in batch {
                let due_at = stored.headers.get(DUE_AT).and_then(|value| value.as_str().parse::<i64>().ok());
                if due_at.is_none_or(|at| at <= overdue) {
                    let destination = |record: &Record, endpoint: &str| Destination {
                        subject: names::due(env, endpoint),
                        id: MsgId::webhook("due", env, endpoint, &record.origin, record.attempts),
                        headers: record.headers(),
                    };
                    if self.relocate(&stored, u64::MAX, destination).await?.is_some() {
                        RESCUED.inc(&[]);
                        brought += 1;
                    }
                }
            }
        }
        if brought > 0 && schedules {
            warn!(brought, "retries were overdue: the server's schedule did not make them due");
        }
        Ok(brought)
    }

    /// Turns retries that have been due for longer than `max_age` into dead letters. Returns how many.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn dead_letter_expired(&self, max_age: Duration) -> Result<u64, Error> {
        let limit = self.now.checked_sub(max_age).unwrap_or(Timestamp::MIN);
        let (env, mut next, mut expired) = (self.env, 1, 0);
        loop {
            // Messages are in order of storing: behind the first young one all are young.
            let batch = reader::batch(self.nats, STREAM_RETRIES, &names::due(env, ">"), next).await?;
            (self.progress)();
            let old: Vec<StoredMessage> = batch.into_iter().take_while(|stored| stored.at < limit).collect();
            let Some(last) = old.last() else { break };
            next = last.seq + 1;
            for stored in old {
                let detail = format!("waited for its endpoint since {}", stored.at);
                let destination = |record: &Record, endpoint: &str| Destination {
                    subject: names::dlq(env, endpoint),
                    id: MsgId::webhook("expired", env, endpoint, &record.origin, record.attempts),
                    headers: record.dead("expired", &detail, self.now),
                };
                if let Some(endpoint) = self.relocate(&stored, self.dlq_max_bytes, destination).await? {
                    metrics::dead(&endpoint, "expired");
                    expired += 1;
                }
            }
        }
        if expired > 0 {
            warn!(expired, "retries waited too long for their endpoints; now dead letters");
        }
        Ok(expired)
    }

    /// Stores it at its destination, in a stream of so many bytes, then deletes it here. A process killed in between leaves
    /// both, under one `webhook-id`. Returns the endpoint if this replica stored it. A retry that can never be stored
    /// stays where it is, is logged at each sweep, and does not delay the ones behind it.
    async fn relocate(
        &self,
        stored: &StoredMessage,
        stream_max_bytes: u64,
        destination: impl FnOnce(&Record, &str) -> Destination,
    ) -> Result<Option<String>, Error> {
        (self.progress)();
        let (Some(record), Some(endpoint)) =
            (Record::of_headers(Some(&stored.headers)), names::endpoint_of(&stored.subject))
        else {
            // Without our headers it cannot be delivered.
            reader::delete(self.nats, STREAM_RETRIES, stored.seq).await?;
            return Ok(None);
        };
        let Destination { subject, id, headers } = destination(&record, endpoint);
        let send = |body: Bytes| publish::publish(self.nats, subject.clone(), id.clone(), headers.clone(), body);
        let never_fits = |error: &publish::Error| match error {
            publish::Error::TooLarge { .. } => true,
            publish::Error::Full { .. } => (stored.payload.len() + RECORD_BYTES) as u64 > stream_max_bytes,
            _ => false,
        };
        let mut sent = send(stored.payload.clone()).await;
        if let Err(error) = &sent
            && !stored.payload.is_empty()
            && never_fits(error)
        {
            error!(endpoint, webhook_id = record.id, %error, "stored without its body");
            sent = send(Bytes::new()).await;
        }
        let ack = match sent {
            Err(error) if error.is_of_the_message() => {
                error!(endpoint, webhook_id = record.id, %error, "a retry cannot be made due; staying parked");
                return Ok(None);
            }
            sent => sent?,
        };
        // It may be gone already: the endpoint was called, failed, and its next record replaced this one.
        reader::delete(self.nats, STREAM_RETRIES, stored.seq).await?;
        Ok((!ack.duplicate).then(|| endpoint.to_owned()))
    }
}
