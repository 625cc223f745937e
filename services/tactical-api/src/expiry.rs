//! Ends what has had its time: a marker's `expires_at` becomes a removal on the stream.
//!
//! Every copy of the service does it. The message id and the expected sequence let one of them be heard,
//! and spare a marker that was renewed meanwhile.

use crate::{api::REMOVED, feature::Kind, live::Live};
use agentforge_jetstream::{HeaderMap, Nats, publish, subjects};
use agentforge_message_id::MsgId;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use bytes::Bytes;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How late an end may be.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// Looks between two at what is older than the stream keeps.
const AGE_CHECK_SWEEPS: u32 = 120;

/// Looks until the stop.
pub async fn run(nats: Nats, live: Live, max_age: Duration, stop: CancellationToken) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0_u32.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        if n % AGE_CHECK_SWEEPS == 0 {
            live.age(max_age);
        }
        for due in live.due() {
            let subject = match due.key.kind {
                Kind::Marker => subjects::tactical_marker(&due.key.site, &due.key.id),
                Kind::Zone => subjects::tactical_zone(&due.key.site, &due.key.id),
            };
            let mut headers = HeaderMap::new();
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, due.seq.to_string());
            let id = MsgId::tactical_expired(due.seq, i128::from(due.stored_unix_ms) * 1_000_000);
            if let Err(error) = publish(&nats, subject, id, headers, Bytes::from_static(REMOVED)).await {
                // A newer state has arrived, or NATS is unavailable and the next check tries again.
                debug!(%error, "a marker's expiry was not published");
                if error.is_retryable() {
                    break;
                }
            }
        }
    }
}
