//! Background loops of the whole service: its streams, its connection, its retries.
//!
//! Each takes a turn every few seconds for as long as the service runs, and shows it by its heartbeat.

use crate::{
    error::chain,
    metrics::NATS_CONNECTED,
    registry::context::Context,
    retry::{reserve, sweep},
    topology::streams::{self, Capabilities},
};
use agentforge_runtime::{Gate, Heartbeat};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Between checks of the streams. An operator may delete one while the service runs, and what is published meanwhile is
/// not stored.
const ENSURE_INTERVAL: Duration = Duration::from_secs(5);
/// The same after a failure, and at least this between checks that are asked for.
const ENSURE_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Between measurements of the stream of retries.
const MEASURE_INTERVAL: Duration = Duration::from_secs(5);

/// Creates streams and bucket as soon as NATS is connected, and again when they are deleted: checks them every few
/// seconds, and at once when a part of the service misses one.
pub async fn keep_streams(
    context: Arc<Context>,
    capabilities: watch::Sender<Option<Capabilities>>,
    gate: Gate,
    heartbeat: Heartbeat,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let mut connected = context.nats.connected();
    loop {
        heartbeat.beat();
        let checked_at = Instant::now();
        let pause = if !context.nats.is_connected() {
            ENSURE_INTERVAL
        } else {
            let config = &context.config;
            match streams::ensure_all(&context.nats, &config.topology, &config.limits, config.maker).await {
                Ok((now, created)) => {
                    let had_all = capabilities.borrow().is_some();
                    capabilities.send_if_modified(|was| was.replace(now) != Some(now));
                    if had_all && !created.is_empty() {
                        // Readers and writers find it in a moment; the next check confirms that it stayed.
                        let created = created.join(", ");
                        warn!(created, "was gone, and is made again");
                        gate.set(false, format!("was gone, and is made again: {created}"));
                        ENSURE_RETRY_INTERVAL
                    } else {
                        gate.set(true, "made");
                        ENSURE_INTERVAL
                    }
                }
                Err(error) => {
                    warn!(error = %chain(&error), "streams are not as planned");
                    gate.set(false, chain(&error));
                    ENSURE_RETRY_INTERVAL
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = connected.changed() => if changed.is_err() {
                stop.cancelled().await;
                return Ok(());
            },
            // A missing object is reported repeatedly; one check per second is enough.
            () = context.topology_check.notified() => sleep_until(checked_at + ENSURE_RETRY_INTERVAL).await,
            () = sleep(pause) => {}
        }
    }
}

/// Sets gate and gauge by the connection.
pub async fn watch_connection(context: Arc<Context>, gate: Gate, stop: CancellationToken) -> Result<(), anyhow::Error> {
    let mut connected = context.nats.connected();
    loop {
        let is_connected = *connected.borrow_and_update();
        NATS_CONNECTED.set(&[], if is_connected { 1.0 } else { 0.0 });
        let (usable, words) = context.nats.readiness();
        gate.set(usable, words);
        tokio::select! {
            changed = connected.changed() => if changed.is_err() {
                stop.cancelled().await;
                return Ok(());
            },
            // The server may be another one after a short break.
            () = sleep(ENSURE_INTERVAL) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Measures the stream of retries, and moves retries that no endpoint will.
pub async fn sweep_retries(
    context: Arc<Context>,
    heartbeat: Heartbeat,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let max_age = context.config.limits.retries_max_age;
    let mut measure = interval(MEASURE_INTERVAL);
    measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        heartbeat.beat();
        let capabilities = *context.capabilities.borrow();
        let interval = sweep::interval(capabilities.is_none_or(|capabilities| capabilities.schedules), max_age);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = measure.tick() => {
                reserve::measure(&context.nats, &context.clock, &context.quota).await;
            }
            () = sleep_until(last + interval) => {
                last = Instant::now();
                let Some(capabilities) = capabilities.filter(|_| context.nats.is_connected()) else { continue };
                let sweep = sweep::Sweep {
                    nats: &context.nats,
                    env: &context.config.common.env,
                    dlq_max_bytes: context.config.limits.dlq_max_bytes,
                    now: context.clock.now(),
                    progress: &|| heartbeat.beat(),
                };
                // Each runs even if the other failed: a full stream of dead letters must not delay overdue retries.
                for swept in [sweep.bring_overdue(capabilities.schedules).await, sweep.dead_letter_expired(max_age).await] {
                    if let Err(error) = swept {
                        warn!(error = chain(&error), "the sweep over retries was incomplete; continuing with the next one");
                    }
                }
            }
        }
    }
}
