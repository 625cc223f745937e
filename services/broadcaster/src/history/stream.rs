//! The history of attempts beyond this process: a stream of its own, which can be searched.
//!
//! Attempts are written in batches by a task of its own, so no delivery waits for them. The history is for people and is
//! not complete: while NATS is unavailable, or when more attempts come than can be written, some are left out and counted.
//! The stream is bounded in size and age, and drops its oldest messages.

use crate::{
    error::chain,
    history::attempt::{Attempt, Filter},
    metrics::HISTORY_DROPPED,
    registry::context::Context,
    topology::{
        names::{STREAM_DELIVERIES, deliveries},
        reader,
    },
};
use agentforge_jetstream::{
    HeaderMap, publish,
    topology::{ensure_by, webhooks::deliveries_plan},
};
use agentforge_message_id::MsgId;
use agentforge_runtime::Heartbeat;
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
const BATCH_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 128 << 10;
/// How long the first attempt of a batch waits for others.
const BATCH_WAIT_MAX: Duration = Duration::from_millis(400);
/// Between attempts to write.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Between checks that the stream is as planned.
const CHECK_INTERVAL: Duration = Duration::from_secs(20);
/// For writing the rest at a stop.
const FINAL_WRITE_MAX: Duration = Duration::from_secs(2);
/// Messages that one search reads, at most: a page says where to continue.
const SCANNED_MAX: u64 = 4096;
/// Messages of one read: a search reads backwards, block by block.
const READ_STEP: u64 = 128;

/// Creates or corrects the stream.
async fn ensure_stream(context: &Context) -> Result<(), String> {
    let plan = deliveries_plan(&context.config.topology, &context.config.limits);
    ensure_by(context.nats.jetstream(), &plan, context.config.maker).await.map(drop).map_err(|e| chain(&e))
}

/// Writes attempts until `over`, then the rest; cancels `written` when it ends.
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
    let (mut batch, mut is_ensured, mut reported) = (Vec::new(), false, false);
    while !over.is_cancelled() {
        heartbeat.beat();
        tokio::select! {
            n = attempts.recv_many(&mut batch, BATCH_MAX) => if n == 0 { break },
            _ = check.tick() => {
                // An operator may have deleted or changed the stream. It is created with the first attempt, so before that
                // there is nothing to check.
                if is_ensured && context.nats.is_connected() {
                    is_ensured = ensure_stream(&context).await.is_ok();
                }
                continue;
            }
            () = over.cancelled() => break,
        }
        let until = Instant::now() + BATCH_WAIT_MAX;
        while batch.len() < BATCH_MAX && !over.is_cancelled() {
            let room = BATCH_MAX - batch.len();
            match timeout_at(until, attempts.recv_many(&mut batch, room)).await {
                Ok(n) if n > 0 => {}
                _ => break,
            }
        }
        // New attempts wait in the channel meanwhile; when it is full they are left out.
        while !over.is_cancelled() && !batch.is_empty() {
            heartbeat.beat();
            match send(&context, &subject, &batch, &mut is_ensured).await {
                Ok(()) => {
                    context.recent.is_written(batch.last().map_or(0, |last| last.n));
                    batch.clear();
                    reported = false;
                }
                Err(error) => {
                    if !reported {
                        warn!(error, "the history of deliveries cannot be written; deliveries continue");
                        reported = true;
                    }
                    tokio::select! {
                        () = sleep(RETRY_INTERVAL) => {}
                        () = over.cancelled() => {}
                    }
                }
            }
        }
    }
    while let Ok(attempt) = attempts.try_recv() {
        batch.push(attempt);
    }
    let until = Instant::now() + FINAL_WRITE_MAX;
    for some in batch.chunks(BATCH_MAX) {
        if !matches!(timeout_at(until, send(&context, &subject, some, &mut is_ensured)).await, Ok(Ok(()))) {
            HISTORY_DROPPED.add(&[], some.len() as u64);
        }
    }
    Ok(())
}

async fn send(context: &Context, subject: &str, batch: &[Attempt], is_ensured: &mut bool) -> Result<(), String> {
    if !context.nats.is_connected() {
        return Err("NATS is unavailable".to_owned());
    }
    if !*is_ensured {
        ensure_stream(context).await?;
        *is_ensured = true;
    }
    // A server may accept smaller messages than usual.
    let bytes_max = BATCH_BYTES_MAX.min(context.nats.client().server_info().max_payload / 2).max(1);
    let mut body = Vec::new();
    for (n, attempt) in batch.iter().enumerate() {
        let line = serde_json::to_vec(attempt).map_err(|e| e.to_string())?;
        if !body.is_empty() && body.len() + line.len() > bytes_max {
            publish_one(context, subject, std::mem::take(&mut body), &batch[n - 1], is_ensured).await?;
        }
        body.extend_from_slice(&line);
        body.push(b'\n');
    }
    match batch.last() {
        Some(last) => publish_one(context, subject, body, last, is_ensured).await,
        None => Ok(()),
    }
}

async fn publish_one(
    context: &Context,
    subject: &str,
    body: Vec<u8>,
    last: &Attempt,
    is_ensured: &mut bool,
) -> Result<(), String> {
    // The same id if it is sent again because an acknowledgement was lost.
    let id = MsgId::outbox(&format!("attempts:{}:{}", last.replica, last.n));
    let sent = publish::publish(&context.nats, subject.to_owned(), id, HeaderMap::new(), body.into()).await;
    sent.map(drop).map_err(|e| {
        // The stream may be gone.
        *is_ensured = false;
        chain(&e)
    })
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
    pub attempts: Vec<Attempt>,
    /// Where to continue; `None` when there is nothing older.
    pub next_before: Option<Place>,
}

/// The place behind all that is written.
///
/// # Errors
/// The stream does not answer.
pub async fn end(context: &Context) -> Result<Place, reader::Error> {
    let (_, last) = reader::bounds(&context.nats, STREAM_DELIVERIES).await?;
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
) -> Result<Page, reader::Error> {
    let subject = deliveries(&context.config.common.env);
    let (first, last) = reader::bounds(&context.nats, STREAM_DELIVERIES).await?;
    let (mut page, mut scanned) = (Page::default(), 0);
    let mut high = before.map_or(last, |place| place.seq.min(last));
    // Batches are bounded in bytes, too: what one leaves out comes with the next.
    while high >= first.max(1) {
        let low = high.saturating_sub(READ_STEP - 1).max(first).max(1);
        let (mut messages, mut next) = (Vec::new(), low);
        while next <= high {
            let batch = reader::batch(&context.nats, STREAM_DELIVERIES, &subject, next).await?;
            let Some(last) = batch.last() else { break };
            next = last.seq + 1;
            messages.extend(batch.into_iter().filter(|stored| stored.seq <= high));
        }
        scanned += READ_STEP;
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
}
