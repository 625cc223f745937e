//! Handles retries that nothing else would: those that are overdue, and those that waited too long.
//!
//! A parked retry is overdue when the server lost its schedule, or keeps none: then it is brought. A due one
//! that waited longer than it may, for an endpoint that never recovered or is declared no more, becomes a dead
//! letter: nothing leaves the stream without a trace. Several replicas may look at once: what they write has
//! the same id.

use crate::{
    metrics::{self, PARKED, RESCUED, STORED_BYTES},
    retry::{
        quota::{Answer, Place, RECORD_BYTES, Room},
        record::{DUE_AT, Record},
        server_clock::ServerClock,
    },
    topology::{
        names::{self, STREAM_RETRIES},
        reader::{self as walk, Stored},
    },
};
use agentforge_jetstream::{HeaderMap, Nats, publish};
use agentforge_message_id::MsgId;
use async_nats::jetstream::response::Response;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{error, warn};

/// Between looks, where the server keeps the schedules.
pub const RARELY: Duration = Duration::from_secs(300);
/// Between sweeps, if they are the only way that retries become due.
pub const OFTEN: Duration = Duration::from_secs(1);
/// How late a schedule of the server may be before it counts as lost: a backlog of them takes a while.
const LATE: Duration = Duration::from_secs(120);
/// What waits a short time only is looked at so many times in it.
const LOOKS: u32 = 10;

/// How often to look.
pub fn every(schedules: bool, max_age: Duration) -> Duration {
    match schedules {
        false => OFTEN,
        true => (max_age / LOOKS).clamp(OFTEN, RARELY),
    }
}

/// Why a sweep ended early; the next one continues.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream does not answer.
    #[error(transparent)]
    Walk(#[from] walk::Error),
    /// What moves on cannot be stored.
    #[error("a retry cannot be made due")]
    Publish(#[from] publish::Error),
}

/// What becomes of a retry that is looked after.
struct Fate {
    /// Where it goes.
    subject: String,
    /// By this id, regardless of who does it.
    id: MsgId,
    headers: HeaderMap,
}

/// One look at all retries.
pub struct Sweep<'a> {
    /// The connection.
    pub nats: &'a Nats,
    /// The environment's name.
    pub env: &'a str,
    /// What the stream of dead letters may hold, bytes.
    pub dlq_max_bytes: u64,
    /// By the server's clock.
    pub now: Timestamp,
    /// Called at each step: a sweep over millions of retries takes long.
    pub progress: &'a (dyn Fn() + Sync),
}

impl Sweep<'_> {
    /// Brings what is overdue. Returns how many.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn bring_overdue(&self, schedules: bool) -> Result<u64, Error> {
        let patience = if schedules { LATE } else { Duration::ZERO };
        let overdue = self.now.checked_sub(patience).unwrap_or(Timestamp::MIN).as_millisecond();
        let (env, mut next, mut brought) = (self.env, 1, 0);
        loop {
            let batch = walk::batch(self.nats, STREAM_RETRIES, &names::parked(env, ">"), next).await?;
            (self.progress)();
            let Some(last) = batch.last() else { break };
            next = last.seq + 1;
            for stored in batch {
                let due_at = stored.headers.get(DUE_AT).and_then(|value| value.as_str().parse::<i64>().ok());
                if due_at.is_none_or(|at| at <= overdue) {
                    let fate = |record: &Record, endpoint: &str| Fate {
                        subject: names::due(env, endpoint),
                        id: MsgId::webhook("due", env, endpoint, &record.origin, record.attempts),
                        headers: record.headers(),
                    };
                    if self.move_on(&stored, u64::MAX, fate).await?.is_some() {
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

    /// Makes dead letters of what has been due for longer than `max_age`. Returns how many.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn bury_expired(&self, max_age: Duration) -> Result<u64, Error> {
        let limit = self.now.checked_sub(max_age).unwrap_or(Timestamp::MIN);
        let (env, mut next, mut buried) = (self.env, 1, 0);
        loop {
            // In order of storing: behind the first that is younger all are.
            let batch = walk::batch(self.nats, STREAM_RETRIES, &names::due(env, ">"), next).await?;
            (self.progress)();
            let old: Vec<Stored> = batch.into_iter().take_while(|stored| stored.at < limit).collect();
            let Some(last) = old.last() else { break };
            next = last.seq + 1;
            for stored in old {
                let detail = format!("waited for its endpoint since {}", stored.at);
                let fate = |record: &Record, endpoint: &str| Fate {
                    subject: names::dlq(env, endpoint),
                    id: MsgId::webhook("expired", env, endpoint, &record.origin, record.attempts),
                    headers: record.dead("expired", &detail, self.now),
                };
                if let Some(endpoint) = self.move_on(&stored, self.dlq_max_bytes, fate).await? {
                    metrics::dead(&endpoint, "expired");
                    buried += 1;
                }
            }
        }
        if buried > 0 {
            warn!(buried, "retries waited too long for their endpoints; now dead letters");
        }
        Ok(buried)
    }

    /// Stores it where it goes, in a stream of so many bytes, then deletes it: killed in between, it is there twice
    /// under one `webhook-id`. The endpoint, when this replica was the one that stored it. What can never be stored
    /// there stays where it is, is logged at each look, and holds up nothing behind it.
    async fn move_on(
        &self,
        stored: &Stored,
        stream_max_bytes: u64,
        fate: impl FnOnce(&Record, &str) -> Fate,
    ) -> Result<Option<String>, Error> {
        (self.progress)();
        let (Some(record), Some(endpoint)) =
            (Record::of_headers(Some(&stored.headers)), names::endpoint_of(&stored.subject))
        else {
            // No record: nothing that could be delivered.
            walk::delete(self.nats, STREAM_RETRIES, stored.seq).await?;
            return Ok(None);
        };
        let Fate { subject, id, headers } = fate(&record, endpoint);
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
        // Gone already when the endpoint was quick and failed: another record took its place.
        walk::delete(self.nats, STREAM_RETRIES, stored.seq).await?;
        Ok((!ack.duplicate).then(|| endpoint.to_owned()))
    }
}

/// Why nothing may be put to the retries.
#[derive(Debug)]
pub enum NoRoom {
    /// Not now; in words.
    Now(String),
    /// It is larger than all of them may be together.
    Never,
}

/// Room for an event of this many bytes, after a check of the stream if one is needed.
///
/// # Errors
/// There is none.
pub async fn room_for<'a>(
    nats: &Nats,
    clock: &ServerClock,
    room: &'a Room,
    event_bytes: usize,
) -> Result<Place<'a>, NoRoom> {
    let full = || NoRoom::Now(format!("{STREAM_RETRIES} holds what it may, {} bytes", room.limit()));
    if let Some(answered) = settled(room.take(event_bytes, Instant::now()), full) {
        return answered;
    }
    // One looks, those behind it see what it found.
    let _looking = room.looking.lock().await;
    if let Some(answered) = settled(room.take(event_bytes, Instant::now()), full) {
        return answered;
    }
    if !measure(nats, clock, room).await {
        return Err(NoRoom::Now(format!("{STREAM_RETRIES} does not answer")));
    }
    settled(room.take(event_bytes, Instant::now()), full).unwrap_or_else(|| Err(full()))
}

/// `None` if a check is needed.
fn settled<'a>(answer: Answer<'a>, full: impl Fn() -> NoRoom) -> Option<Result<Place<'a>, NoRoom>> {
    match answer {
        Answer::Taken(place) => Some(Ok(place)),
        Answer::Full => Some(Err(full())),
        Answer::Never => Some(Err(NoRoom::Never)),
        Answer::Look => None,
    }
}

/// Checks the stream of retries: how much is in it, and the server's time. Whether it answered.
pub async fn measure(nats: &Nats, clock: &ServerClock, room: &Room) -> bool {
    #[derive(Deserialize)]
    struct Seen {
        state: Held,
        ts: Option<Timestamp>,
    }
    #[derive(Deserialize)]
    struct Held {
        messages: u64,
        bytes: u64,
    }
    if !nats.is_connected() {
        return false;
    }
    let (asked, mark) = (Timestamp::now(), room.begin_look());
    let answer = nats.jetstream().request(format!("STREAM.INFO.{STREAM_RETRIES}"), &serde_json::json!({})).await;
    let Ok(Response::Ok(Seen { state, ts })) = answer else { return false };
    PARKED.set(&[], state.messages as f64);
    STORED_BYTES.set(&[], state.bytes as f64);
    room.end_look(mark, state.bytes, Instant::now());
    if let Some(told) = ts {
        clock.set(told, asked, Timestamp::now());
    }
    true
}
