//! Events leave for NATS in their order, each until the stream has it.
//!
//! An event is removed after its PubAck: what is sent twice has the same message id, and the stream drops the copy. While
//! NATS is unavailable events wait in the database; nothing else is held up.

use super::board::Intake;
use super::event::SUBJECT;
use super::metrics;
use super::store::Error;
use agentforge_jetstream::{HeaderMap, Nats, publish};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Events that are read at once.
const BATCH: i64 = 100;
/// How often the table is read without a sign: events of other consoles on the same database.
const IDLE: Duration = Duration::from_secs(2);
/// Between two tries, from here on twice as long each time.
const RETRY_MIN: Duration = Duration::from_millis(200);
/// At most.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Counting reads every item, so that not every change is counted by itself.
const COUNT_GAP: Duration = Duration::from_secs(1);
/// How often the gauges are counted from the database.
const COUNT_EVERY: Duration = Duration::from_secs(15);

/// Between two checks of a database that has no tables yet.
const TABLES_RETRY: Duration = Duration::from_millis(250);

/// Waits for the tables; `false` when `stop` fires before.
async fn begins(intake: &Intake, stop: &CancellationToken) -> bool {
    while intake.store().total().await.is_err() {
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(TABLES_RETRY) => {}
        }
    }
    true
}

/// Sends events until `stop`.
pub async fn run(intake: Intake, nats: Nats, stop: CancellationToken) {
    if !begins(&intake, &stop).await {
        return;
    }
    let (mut pause, mut told) = (RETRY_MIN, None);
    // A new one would report at each turn: it reports first what it finds.
    let mut connected = nats.connected();
    loop {
        let done = tokio::select! {
            () = stop.cancelled() => return,
            done = send(&intake, &nats) => done,
        };
        let wait = match done {
            Ok(0) => {
                pause = RETRY_MIN;
                IDLE
            }
            Ok(_) => {
                if told.take().is_some() {
                    info!("events of the intake board leave again");
                }
                pause = RETRY_MIN;
                continue;
            }
            Err(problem) => {
                metrics::OUTBOX_HELD.set(&[], 1.0);
                if told.as_ref() != Some(&problem) {
                    warn!(problem, "events of the intake board wait");
                }
                told = Some(problem);
                pause = (pause * 2).min(RETRY_MAX);
                pause
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = intake.changed(), if told.is_none() => {}
            // At once when the connection is back.
            Ok(()) = connected.changed() => {}
        }
    }
}

/// Sends what waits, at most a batch; says how many left.
async fn send(intake: &Intake, nats: &Nats) -> Result<usize, String> {
    let waiting = intake.store().waiting(BATCH).await.map_err(|e| in_words(&e))?;
    if waiting.is_empty() {
        metrics::OUTBOX_HELD.set(&[], 0.0);
        metrics::OUTBOX.set(&[], 0.0);
        return Ok(0);
    }
    if !nats.is_connected() {
        metrics::OUTBOX.set(&[], count(intake).await);
        return Err("NATS is unavailable".to_owned());
    }
    let (mut last, mut sent, mut problem) = (None, 0, None);
    for event in waiting {
        let id = event.message_id();
        let body = event.body.into_bytes().into();
        match publish::publish(nats, SUBJECT, id, HeaderMap::new(), body).await {
            Ok(_) => {
                (last, sent) = (Some(event.sequence), sent + 1);
                metrics::EVENTS.inc(&[]);
            }
            Err(error) => {
                problem = Some(error.to_string());
                break;
            }
        }
    }
    if let Some(last) = last {
        intake.store().sent(last).await.map_err(|e| in_words(&e))?;
    }
    metrics::OUTBOX.set(&[], count(intake).await);
    match problem {
        None => {
            metrics::OUTBOX_HELD.set(&[], 0.0);
            Ok(sent)
        }
        Some(problem) => Err(problem),
    }
}

async fn count(intake: &Intake) -> f64 {
    intake.store().backlog().await.map_or(0.0, |n| n as f64)
}

fn in_words(error: &Error) -> String {
    error.to_string()
}

/// Counts items by state and owner, again and again, until `stop`.
pub async fn keep_counts(intake: Intake, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(COUNT_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut shown = metrics::Shown::default();
    if !begins(&intake, &stop).await {
        return;
    }
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            () = intake.counted() => {}
        }
        match intake.store().counts().await {
            Ok(counts) => shown.show(&counts),
            Err(error) => warn!(problem = in_words(&error), "items were not counted"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(COUNT_GAP) => {}
        }
    }
}
