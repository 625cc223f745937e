//! Reserves a part of the retries' quota, after a measurement of their stream where one is needed.
//!
//! The decisions are in `quota`; this is the request that they need.

use crate::{
    metrics::{PARKED, STORED_BYTES},
    retry::{
        quota::{QuotaAnswer, Reservation, RetryQuota},
        server_clock::ServerClock,
    },
    topology::names::STREAM_RETRIES,
};
use agentforge_jetstream::Nats;
use async_nats::jetstream::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::Instant;

/// Why a record may not be stored among the retries.
#[derive(Debug)]
pub enum NoQuota {
    /// Not now, for this reason.
    Now(String),
    /// Its event is larger than the whole quota.
    Never,
}

/// Reserves the part of an event of so many bytes.
///
/// # Errors
/// [`NoQuota`].
pub async fn reserve<'a>(
    nats: &Nats,
    clock: &ServerClock,
    quota: &'a RetryQuota,
    event_bytes: usize,
) -> Result<Reservation<'a>, NoQuota> {
    let full = || NoQuota::Now(format!("{STREAM_RETRIES} holds what it may, {} bytes", quota.limit()));
    if let Some(answered) = resolved(quota.reserve(event_bytes, Instant::now()), full) {
        return answered;
    }
    // One task measures; those that waited for it use its result.
    let _measuring = quota.measuring.lock().await;
    if let Some(answered) = resolved(quota.reserve(event_bytes, Instant::now()), full) {
        return answered;
    }
    if !measure(nats, clock, quota).await {
        return Err(NoQuota::Now(format!("{STREAM_RETRIES} does not answer")));
    }
    resolved(quota.reserve(event_bytes, Instant::now()), full).unwrap_or_else(|| Err(full()))
}

/// `None` where a measurement is needed.
fn resolved<'a>(answer: QuotaAnswer<'a>, full: impl Fn() -> NoQuota) -> Option<Result<Reservation<'a>, NoQuota>> {
    match answer {
        QuotaAnswer::Reserved(reservation) => Some(Ok(reservation)),
        QuotaAnswer::Full => Some(Err(full())),
        QuotaAnswer::TooLarge => Some(Err(NoQuota::Never)),
        QuotaAnswer::MeasureFirst => None,
    }
}

/// Measures the stream of retries, and the server's clock by the way. Returns whether the server answered.
pub async fn measure(nats: &Nats, clock: &ServerClock, quota: &RetryQuota) -> bool {
    #[derive(Deserialize)]
    struct StreamInfo {
        state: Stored,
        ts: Option<Timestamp>,
    }
    #[derive(Deserialize)]
    struct Stored {
        messages: u64,
        bytes: u64,
    }
    if !nats.is_connected() {
        return false;
    }
    let (asked, mark) = (Timestamp::now(), quota.begin_measurement());
    let answer = nats.jetstream().request(format!("STREAM.INFO.{STREAM_RETRIES}"), &serde_json::json!({})).await;
    let Ok(Response::Ok(StreamInfo { state, ts })) = answer else { return false };
    PARKED.set(&[], state.messages as f64);
    STORED_BYTES.set(&[], state.bytes as f64);
    quota.end_measurement(mark, state.bytes, Instant::now());
    if let Some(server_time) = ts {
        clock.set(server_time, asked, Timestamp::now());
    }
    true
}
