//! Replays: events that were delivered before are sent again, by time or by id, to one endpoint.
//!
//! Events are read from their streams as long as those keep them, and stored among the due retries of the endpoint, with
//! fresh attempts and their `webhook-id`. The name of the run is part of each record's id, so a request that is repeated
//! with it sends nothing twice.

use crate::{
    delivery::rate_limit::RateLimiter,
    endpoints::declaration::Endpoint,
    redelivery::requeue::{self, Refused, Requeue},
    registry::context::Context,
    retry::record::Record,
    topology::{
        reader::{self, StoredMessage},
        sources::{self, EventSources},
    },
};
use agentforge_jetstream::{AckInfo, publish};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tokio::time::{Instant, sleep_until};
use tracing::warn;
use utoipa::ToSchema;

/// Events that one request sends again, at most.
pub const LIMIT_MAX: usize = 1000;
/// Ids in one request, at most.
pub const IDS_MAX: usize = 1000;
/// Events a second, at most.
pub const RATE_MAX: f64 = 1000.0;
/// Events that one request reads, at most.
const SCANNED_MAX: usize = 20_000;

/// What is to be sent again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayRequest {
    /// To this endpoint: those of its subjects.
    pub endpoint: String,
    /// Stored not before.
    pub since: Option<Timestamp>,
    /// Stored not after; now, when it is not said.
    pub until: Option<Timestamp>,
    /// With one of these as `webhook-id`.
    pub ids: BTreeSet<String>,
    /// At most so many; 1000 at most.
    pub limit: Option<usize>,
    /// So many a second; 1000 at most.
    pub rate: Option<f64>,
    /// Counts the events that would be sent, and sends none.
    pub dry_run: bool,
    /// Where to continue, from an answer.
    pub after: Option<String>,
    /// The name of the run, as an answer gave it: the same events in the same run are sent once.
    pub run: Option<String>,
}

/// What came of it.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Replayed {
    /// Events that were meant.
    pub matched: u64,
    /// Of them put to the due retries.
    pub replayed: u64,
    /// Events that can never be sent again; those behind them were.
    pub refused: Vec<Refused>,
    /// Events that were read.
    pub scanned: u64,
    /// The name of the run.
    pub run: String,
    /// Where to continue; absent when there is nothing after it.
    pub next_after: Option<String>,
}

/// Why events cannot be sent again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for is wrong.
    #[error("{0}")]
    Invalid(&'static str),
    /// A stream does not answer.
    #[error(transparent)]
    Walk(#[from] reader::Error),
    /// Its streams cannot be found.
    #[error(transparent)]
    Topology(#[from] crate::topology::error::Error),
    /// The part of the retries' stream that is for what waits is used up.
    #[error("after {done} events: the stream of retries has no room; continue when some have been delivered")]
    Full {
        /// So many were sent again.
        done: u64,
    },
    /// One could not be put to the retries; those before it were.
    #[error("after {done} events")]
    Publish {
        /// So many were sent again.
        done: u64,
        /// Why no more.
        source: publish::Error,
    },
}

/// Where a replay is: in which of the endpoint's subjects, and behind which message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    part: usize,
    seq: u64,
}

impl Place {
    fn read(text: &str) -> Result<Self, &'static str> {
        let wrong = "after is not a place from an answer";
        let (part, seq) = text.split_once('.').ok_or(wrong)?;
        Ok(Self { part: part.parse().map_err(|_| wrong)?, seq: seq.parse().map_err(|_| wrong)? })
    }
}

/// Sends events again, or counts them.
///
/// # Errors
/// [`Error`]; what was sent before it stays sent.
pub async fn replay(context: &Context, endpoint: &Endpoint, wanted: ReplayRequest) -> Result<Replayed, Error> {
    if wanted.since.is_none() && wanted.ids.is_empty() {
        return Err(Error::Invalid("say since when, or name ids"));
    }
    if wanted.ids.len() > IDS_MAX {
        return Err(Error::Invalid("more than 1000 ids"));
    }
    let run = match wanted.run {
        Some(run) if run.len() > 64 || !run.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => {
            return Err(Error::Invalid("run is not 1 to 64 letters, digits or hyphens"));
        }
        Some(run) => run,
        None => uuid::Uuid::now_v7().to_string(),
    };
    let reservation = wanted.after.as_deref().map(Place::read).transpose().map_err(Error::Invalid)?;
    let reservation = reservation.unwrap_or(Place { part: 0, seq: 0 });
    let limit = wanted.limit.unwrap_or(LIMIT_MAX).clamp(1, LIMIT_MAX);
    let until = wanted.until.unwrap_or_else(|| context.clock.now());
    let mut limiter = wanted.rate.map(|rate| RateLimiter::new(rate.clamp(0.01, RATE_MAX)));
    let mut done = Replayed { run, ..Replayed::default() };
    let sources = sources::sources(context.nats.jetstream(), endpoint).await?;
    for (part, (stream, subject)) in parts(&sources).enumerate().skip(reservation.part) {
        let mut next = if part == reservation.part { reservation.seq + 1 } else { 1 };
        // Its messages are in order of storing: the first page begins at the time, the others behind each other.
        let mut since = wanted.since.filter(|_| next == 1);
        'part: loop {
            let batch = match since.take() {
                Some(since) => reader::batch_since(&context.nats, stream, subject, since).await?,
                None => reader::batch(&context.nats, stream, subject, next).await?,
            };
            let Some(last) = batch.last() else { break };
            next = last.seq + 1;
            for stored in &batch {
                if stored.at > until {
                    break 'part;
                }
                done.scanned += 1;
                let record = record_of(stream, stored);
                if wanted.ids.is_empty() || wanted.ids.contains(&record.id) {
                    done.matched += 1;
                    if !wanted.dry_run {
                        if let Some(limiter) = &mut limiter {
                            sleep_until(limiter.reserve(Instant::now())).await;
                        }
                        send_again(context, endpoint, record, stored, &mut done).await?;
                    }
                }
                let is_full = !wanted.dry_run && done.matched as usize >= limit;
                if is_full || done.scanned as usize >= SCANNED_MAX {
                    done.next_after = Some(format!("{part}.{}", stored.seq));
                    return Ok(done);
                }
            }
        }
    }
    Ok(done)
}

/// The streams and subjects of an endpoint, in the same order each time.
fn parts(sources: &EventSources) -> impl Iterator<Item = (&str, &str)> {
    sources
        .streams
        .iter()
        .flat_map(|(stream, subjects)| subjects.iter().map(|subject| (stream.as_str(), subject.as_str())))
}

/// As the event's delivery had it: the same `webhook-id`.
fn record_of(stream: &str, stored: &StoredMessage) -> Record {
    let info = AckInfo {
        domain: None,
        stream: stream.to_owned(),
        consumer: String::new(),
        delivered: 1,
        stream_seq: stored.seq,
        consumer_seq: 1,
        stored_at_ns: stored.at.as_nanosecond(),
        pending: 0,
    };
    Record::of_event(&info, &stored.subject, Some(&stored.headers))
}

async fn send_again(
    context: &Context,
    endpoint: &Endpoint,
    record: Record,
    stored: &StoredMessage,
    done: &mut Replayed,
) -> Result<(), Error> {
    // Another way of the same event: its attempts are counted from zero.
    let record = Record { origin: format!("replay-{}-{}", done.run, record.origin), ..record };
    let (env, quota) = (&context.config.common.env, &context.quota);
    let requeue = Requeue { nats: &context.nats, env, clock: &context.clock, quota };
    match requeue.send("replay", &endpoint.name, &record, &stored.payload).await {
        Ok(ack) if ack.duplicate => {}
        Ok(_) => done.replayed += 1,
        Err(requeue::Error::Never(reason)) => {
            warn!(endpoint = endpoint.name, webhook_id = record.id, reason, "an event cannot be sent again");
            done.refused.push(Refused { seq: stored.seq, reason });
        }
        Err(requeue::Error::Now(publish::Error::Full { .. })) => return Err(Error::Full { done: done.replayed }),
        Err(requeue::Error::Now(source)) => return Err(Error::Publish { done: done.replayed, source }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_what_an_answer_gave() {
        assert_eq!(Place::read("1.99").unwrap(), Place { part: 1, seq: 99 });
        for bad in ["", "1", "x.1", "1.x", "-1.1"] {
            assert!(Place::read(bad).is_err(), "{bad}");
        }
    }
}
