//! Attempts in the stream that no worker would run: published by a version that did not sign, with a key that is no longer
//! in the file, or too long ago. They are taken out before anything is published; the reconciler finds their jobs without
//! a message and publishes them again, signed.
//!
//! What is unsigned is older than what is signed, so this ends at the first attempt that is good: usually the first one.

use super::marks::attempt_of;
use super::tail::messages;
use crate::app::App;
use agentforge_jetstream::{Nats, subjects};
use agentforge_proto::time::Micros;
use agentforge_signing::{HEADER, Verifier, leaf};
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::message::StreamMessage;
use futures_util::TryStreamExt;

/// Messages read at most; behind them workers find what is left.
const SCANNED_MAX: u64 = 262_144;

/// Takes them out; returns how many there were.
pub(super) async fn take_out(app: &App, nats: &Nats) -> Result<usize, String> {
    let stream = nats.jetstream().get_stream(subjects::STREAM_JOBS).await.map_err(|e| e.to_string())?;
    let (first, last) = (stream.cached_info().state.first_sequence.max(1), stream.cached_info().state.last_sequence);
    let (prefix, now) = (subjects::job_prefix(app.mission()), Micros::now().millis());
    let verifier = Verifier::new(app.keys().now().public_keys());
    let is_good = |message: &StreamMessage| {
        let header = |name: &str| message.headers.get(name).map(|value| value.as_str());
        let id = header(NATS_MESSAGE_ID.as_ref()).unwrap_or_default();
        verifier.verify(header(HEADER), leaf(&message.subject, id, &message.payload), now).is_ok()
    };
    let mut found = std::pin::pin!(messages(&stream, first, last.min(first.saturating_add(SCANNED_MAX))));
    let mut taken = 0;
    while let Some(message) = found.try_next().await? {
        if !message.subject.starts_with(&prefix) {
            continue;
        }
        if is_good(&message) {
            break;
        }
        // What was never an attempt is left to a worker, which reports it.
        if attempt_of(&message).is_some() {
            stream.delete_message(message.sequence).await.map_err(|e| e.to_string())?;
            taken += 1;
        }
    }
    Ok(taken)
}
