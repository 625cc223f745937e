//! What became of each attempt, kept beyond this process: a stream of its own, which can be searched.
//!
//! Attempts are written many in a message, by a task of its own, so no delivery waits for it. It is a record for
//! people and not a promise: while NATS is away, or when more comes than can be written, attempts are left out and
//! counted. The stream is bounded in size and age, and drops what is oldest.

use crate::{
    delivery::outcome::chain,
    history::recent::Attempt,
    metrics::HISTORY_DROPPED,
    registry::Context,
    topology::{
        names::{STREAM_DELIVERIES, deliveries},
        reader as walk,
        streams::{base, one},
    },
};
use agentforge_jetstream::{
    HeaderMap, publish,
    topology::{TopologyConfig, ensure},
};
use agentforge_message_id::MsgId;
use agentforge_runtime::Heartbeat;
use async_nats::jetstream::stream::{self, Compression, DiscardPolicy};
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Attempts that wait to be written, at most: some seconds of a busy replica.
pub const WAITING_MAX: usize = 16_384;
/// Attempts in a message, at most, and their bytes.
const TOGETHER: usize = 256;
const TOGETHER_BYTES: usize = 128 << 10;
/// How long the first of a message waits for others.
const GATHER: Duration = Duration::from_millis(400);
/// Before another try to write.
const AGAIN: Duration = Duration::from_secs(1);
/// Between checks that the stream is as planned.
const CHECK_INTERVAL: Duration = Duration::from_secs(20);
/// For writing the last ones at a stop.
const LAST: Duration = Duration::from_secs(2);
/// Messages that one search reads, at most: a page says where to continue.
const SCANNED_MAX: u64 = 4096;
/// Messages that are read at once, going back.
const STEP: u64 = 128;

/// How much of it is kept.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Bytes.
    pub max_bytes: u64,
    /// How long.
    pub max_age: Duration,
}

/// The stream.
fn plan(c: &TopologyConfig, kept: Kept) -> stream::Config {
    stream::Config {
        description: Some("what became of each attempt to deliver an event".to_owned()),
        // Old attempts that are no longer requested are dropped.
        discard: DiscardPolicy::Old,
        max_bytes: i64::try_from(kept.max_bytes).unwrap_or(i64::MAX),
        max_age: kept.max_age,
        compression: Some(Compression::S2),
        ..base(c, STREAM_DELIVERIES, &[&deliveries("*")])
    }
}

/// Makes the stream, or puts it right.
async fn make(context: &Context) -> Result<(), String> {
    let wanted = plan(&context.config.topology, context.config.history);
    ensure(context.nats.jetstream(), &one(wanted)).await.map(drop).map_err(|e| chain(&e))
}

/// Writes what comes, and after `over` what is left; then says that it was `written`.
pub async fn write(
    context: Arc<Context>,
    mut attempts: mpsc::Receiver<Attempt>,
    heartbeat: Heartbeat,
    over: CancellationToken,
    written: CancellationToken,
) -> Result<(), anyhow::Error> {
    let _written = written.drop_guard();
    let mut check = interval(CHECK_INTERVAL);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let subject = deliveries(&context.config.common.env);
    let (mut together, mut is_made, mut told) = (Vec::new(), false, false);
    while !over.is_cancelled() {
        heartbeat.beat();
        tokio::select! {
            n = attempts.recv_many(&mut together, TOGETHER) => if n == 0 { break },
            _ = check.tick() => {
                // An operator may have removed the stream or changed it. Without an attempt there is none to look after.
                if is_made && context.nats.is_connected() {
                    is_made = make(&context).await.is_ok();
                }
                continue;
            }
            () = over.cancelled() => break,
        }
        let until = Instant::now() + GATHER;
        while together.len() < TOGETHER && !over.is_cancelled() {
            let room = TOGETHER - together.len();
            match timeout_at(until, attempts.recv_many(&mut together, room)).await {
                Ok(n) if n > 0 => {}
                _ => break,
            }
        }
        // What comes meanwhile waits in the channel, and is left out when that is full.
        while !over.is_cancelled() && !together.is_empty() {
            heartbeat.beat();
            match send(&context, &subject, &together, &mut is_made).await {
                Ok(()) => {
                    context.log.is_written(together.last().map_or(0, |last| last.n));
                    together.clear();
                    told = false;
                }
                Err(error) => {
                    if !told {
                        warn!(error, "the history of deliveries cannot be written; deliveries continue");
                        told = true;
                    }
                    tokio::select! {
                        () = sleep(AGAIN) => {}
                        () = over.cancelled() => {}
                    }
                }
            }
        }
    }
    while let Ok(attempt) = attempts.try_recv() {
        together.push(attempt);
    }
    let until = Instant::now() + LAST;
    for some in together.chunks(TOGETHER) {
        if !matches!(timeout_at(until, send(&context, &subject, some, &mut is_made)).await, Ok(Ok(()))) {
            HISTORY_DROPPED.add(&[], some.len() as u64);
        }
    }
    Ok(())
}

async fn send(context: &Context, subject: &str, together: &[Attempt], is_made: &mut bool) -> Result<(), String> {
    if !context.nats.is_connected() {
        return Err("NATS is away".to_owned());
    }
    if !*is_made {
        make(context).await?;
        *is_made = true;
    }
    // A server may take less than is usual.
    let bytes_max = TOGETHER_BYTES.min(context.nats.client().server_info().max_payload / 2).max(1);
    let mut body = Vec::new();
    for (n, attempt) in together.iter().enumerate() {
        let line = serde_json::to_vec(attempt).map_err(|e| e.to_string())?;
        if !body.is_empty() && body.len() + line.len() > bytes_max {
            publish_one(context, subject, std::mem::take(&mut body), &together[n - 1], is_made).await?;
        }
        body.extend_from_slice(&line);
        body.push(b'\n');
    }
    match together.last() {
        Some(last) => publish_one(context, subject, body, last, is_made).await,
        None => Ok(()),
    }
}

async fn publish_one(
    context: &Context,
    subject: &str,
    body: Vec<u8>,
    last: &Attempt,
    is_made: &mut bool,
) -> Result<(), String> {
    // Sent again after an answer that was lost, it is known by its last attempt.
    let id = MsgId::outbox(&format!("attempts:{}:{}", last.replica, last.n));
    let sent = publish::publish(&context.nats, subject.to_owned(), id, HeaderMap::new(), body.into()).await;
    sent.map(drop).map_err(|e| {
        // It may be gone.
        *is_made = false;
        chain(&e)
    })
}

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this endpoint.
    pub endpoint: Option<String>,
    /// With this `webhook-id`.
    pub webhook_id: Option<String>,
    /// delivered, retried, dead, disabled, …
    pub outcome: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether it lets an attempt through.
    pub fn takes(&self, attempt: &Attempt) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        is(&self.endpoint, &attempt.endpoint)
            && is(&self.webhook_id, &attempt.webhook_id)
            && is(&self.outcome, &attempt.outcome)
            && self.since.is_none_or(|since| attempt.at >= since)
            && self.until.is_none_or(|until| attempt.at <= until)
    }
}

/// A place in the history: of a message, and of an attempt in it. Earlier places are older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    seq: u64,
    at: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.seq, self.at)
    }
}

impl std::str::FromStr for Place {
    type Err = &'static str;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong = "before is not a place from an answer";
        let (seq, at) = s.split_once('.').ok_or(wrong)?;
        Ok(Self { seq: seq.parse().map_err(|_| wrong)?, at: at.parse().map_err(|_| wrong)? })
    }
}

/// What a search found, the newest first.
#[derive(Debug, Default)]
pub struct Page {
    /// The attempts.
    pub attempts: Vec<Attempt>,
    /// Where to continue; `None` when there is nothing older.
    pub next_before: Option<Place>,
}

/// The place behind all that is written.
///
/// # Errors
/// The stream does not answer.
pub async fn top(context: &Context) -> Result<Place, walk::Error> {
    let (_, last) = walk::bounds(&context.nats, STREAM_DELIVERIES).await?;
    Ok(Place { seq: last + 1, at: 0 })
}

/// Looks for attempts from `before` backwards.
///
/// # Errors
/// The stream does not answer.
pub async fn search(
    context: &Context,
    filter: &Filter,
    before: Option<Place>,
    limit: usize,
) -> Result<Page, walk::Error> {
    let subject = deliveries(&context.config.common.env);
    let (first, last) = walk::bounds(&context.nats, STREAM_DELIVERIES).await?;
    let (mut page, mut scanned) = (Page::default(), 0);
    let mut high = before.map_or(last, |place| place.seq.min(last));
    // Batches are bounded in bytes, too: what one leaves out comes with the next.
    while high >= first.max(1) {
        let low = high.saturating_sub(STEP - 1).max(first).max(1);
        let (mut messages, mut next) = (Vec::new(), low);
        while next <= high {
            let batch = walk::batch(&context.nats, STREAM_DELIVERIES, &subject, next).await?;
            let Some(last) = batch.last() else { break };
            next = last.seq + 1;
            messages.extend(batch.into_iter().filter(|stored| stored.seq <= high));
        }
        scanned += STEP;
        for stored in messages.iter().rev() {
            if filter.since.is_some_and(|since| stored.at < since) {
                return Ok(page);
            }
            let lines: Vec<&[u8]> = stored.payload.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect();
            let upto = before.filter(|place| place.seq == stored.seq).map_or(lines.len(), |place| place.at);
            for (at, line) in lines.iter().enumerate().take(upto).rev() {
                let Ok(attempt) = serde_json::from_slice::<Attempt>(line) else { continue };
                if filter.takes(&attempt) {
                    page.attempts.push(attempt);
                    if page.attempts.len() == limit {
                        page.next_before = Some(Place { seq: stored.seq, at });
                        return Ok(page);
                    }
                }
            }
        }
        high = low - 1;
        if scanned >= SCANNED_MAX && high >= first {
            page.next_before = Some(Place { seq: low, at: 0 });
            break;
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_what_an_answer_gave() {
        let place: Place = "17.3".parse().unwrap();
        assert_eq!((place.to_string(), place), ("17.3".to_owned(), Place { seq: 17, at: 3 }));
        for bad in ["", "17", "17.x", "-1.0", "1.2.3"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_past_makes_room_and_is_bounded() {
        let kept = Kept { max_bytes: 1 << 20, max_age: Duration::from_secs(3600) };
        let stream = plan(&TopologyConfig::default(), kept);
        assert_eq!((stream.discard, stream.max_bytes, stream.max_age), (DiscardPolicy::Old, 1 << 20, kept.max_age));
        assert_eq!(stream.subjects, ["broadcaster.deliveries.*"]);
    }
}
