//! Looks after parked retries that are overdue: a schedule that the server lost, or does not know.
//!
//! With the server's schedules it finds nothing and looks rarely; without them it is what brings retries.
//! Several replicas may look at once: what they bring has the same id.

use crate::{
    metrics::{PARKED, RESCUED},
    names::{self, STREAM_RETRIES},
    record::{DUE_AT, Record},
    walk,
};
use agentforge_jetstream::{Nats, publish};
use agentforge_message_id::MsgId;
use jiff::Timestamp;
use std::time::Duration;
use tracing::{debug, warn};

/// Between looks, where the server keeps the schedules.
pub const RARELY: Duration = Duration::from_secs(300);
/// Between looks, where nobody else brings retries.
pub const OFTEN: Duration = Duration::from_secs(1);
/// How late a schedule of the server may be before it counts as lost: a backlog of them takes a while.
const LATE: Duration = Duration::from_secs(120);

/// Brings what is overdue. Returns how many.
///
/// # Errors
/// The stream does not answer; what was not brought is at the next look.
pub async fn sweep(nats: &Nats, env: &str, schedules: bool) -> Result<u64, walk::Error> {
    let filter = format!("broadcaster.parked.{env}.>");
    let patience = if schedules { LATE } else { Duration::ZERO };
    let (mut next, mut brought) = (1, 0);
    loop {
        let batch = walk::batch(nats, STREAM_RETRIES, &filter, next).await?;
        let Some(last) = batch.last() else { break };
        next = last.seq + 1;
        let overdue = Timestamp::now().checked_sub(patience).unwrap_or(Timestamp::MIN).as_millisecond();
        for stored in batch {
            let due_at = stored.headers.get(DUE_AT).and_then(|value| value.as_str().parse::<i64>().ok());
            if due_at.is_none_or(|at| at <= overdue) {
                brought += u64::from(bring(nats, env, &stored).await?);
            }
        }
    }
    if brought > 0 && schedules {
        warn!(brought, "retries were overdue: the server did not bring them");
    }
    RESCUED.add(&[], brought);
    Ok(brought)
}

async fn bring(nats: &Nats, env: &str, stored: &walk::Stored) -> Result<bool, walk::Error> {
    let (Some(record), Some(endpoint)) =
        (Record::of_headers(Some(&stored.headers)), names::endpoint_of(&stored.subject))
    else {
        // No record: nothing that could be delivered.
        return walk::delete(nats, STREAM_RETRIES, stored.seq).await;
    };
    let id = MsgId::webhook("due", env, endpoint, &record.origin, record.attempts);
    let due = names::due(env, endpoint);
    if let Err(error) = publish::publish(nats, due, id, record.headers(), stored.payload.clone()).await {
        debug!(%error, "an overdue retry could not be brought");
        return Ok(false);
    }
    walk::delete(nats, STREAM_RETRIES, stored.seq).await
}

/// Sets the gauge of stored retries.
pub async fn measure(nats: &Nats) {
    if let Ok(stream) = nats.jetstream().get_stream(STREAM_RETRIES).await {
        PARKED.set(&[], stream.cached_info().state.messages as f64);
    }
}
