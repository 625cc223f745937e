//! The backlog of an endpoint's consumers, how far they had come, and whether events may stay in their stream for now.
//!
//! How far a consumer had come is remembered by the endpoint while it runs: a consumer that was deleted is created again
//! behind the last acknowledged message, and neither skips events nor repeats all of them.

use crate::topology::{
    error::{Error, api},
    retention::{self, Oldest},
    sources::stream_handle,
};
use async_nats::jetstream::{Context, ErrorCode, consumer, response::Response};
use jiff::Timestamp;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// What waits for a consumer.
#[derive(Debug, Clone, Copy)]
pub struct Backlog {
    /// Messages, including those that are delivered and not acknowledged.
    pub messages: u64,
    /// Every message up to this sequence is acknowledged.
    pub ack_floor: u64,
    /// When the consumer was created, in nanoseconds since 1970.
    created_ns: i128,
}

/// Reads what waits for a consumer, and remembers how far it has come.
///
/// # Errors
/// The server does not answer, or there is no such consumer.
pub async fn backlog(js: &Context, stream: &str, durable: &str, floors: &AckFloors) -> Result<Backlog, Error> {
    let backlog = read_backlog(js, stream, durable).await?;
    floors.saw(stream, &backlog);
    Ok(backlog)
}

async fn read_backlog(js: &Context, stream: &str, durable: &str) -> Result<Backlog, Error> {
    let attempt = || format!("read consumer {durable} of stream {stream}");
    let found = js.request(format!("CONSUMER.INFO.{stream}.{durable}"), &serde_json::json!({})).await;
    match found.map_err(|e| api(attempt())(e.into()))? {
        Response::<consumer::Info>::Ok(info) => Ok(Backlog {
            messages: info.num_pending + info.num_ack_pending as u64,
            ack_floor: info.ack_floor.stream_sequence,
            created_ns: info.created.unix_timestamp_nanos(),
        }),
        Response::Err { error } => Err(api(attempt())(error.to_string().into())),
    }
}

/// How far consumers had come when they were last seen, by stream.
#[derive(Debug, Default)]
pub struct AckFloors(Mutex<BTreeMap<String, AckFloor>>);

/// How far a consumer had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AckFloor {
    /// When the consumer was created, in nanoseconds since 1970. A stream that is younger is a different stream.
    consumer_created_ns: i128,
    /// Every message up to this sequence is acknowledged.
    seq: u64,
}

impl AckFloors {
    /// Remembers how far a consumer has come. One that was recreated may be behind ours; then ours counts.
    fn saw(&self, stream: &str, backlog: &Backlog) {
        let floor = AckFloor { consumer_created_ns: backlog.created_ns, seq: backlog.ack_floor };
        let mut floors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_behind =
            |known: &AckFloor| known.consumer_created_ns < floor.consumer_created_ns && known.seq > floor.seq;
        if !floors.get(stream).is_some_and(is_behind) {
            floors.insert(stream.to_owned(), floor);
        }
    }

    /// Where a deleted consumer continues in a stream that was created at `stream_created_ns`; `None` when that is not known.
    pub fn next(&self, stream: &str, stream_created_ns: i128) -> Option<u64> {
        let floor = *self.0.lock().unwrap_or_else(PoisonError::into_inner).get(stream)?;
        (stream_created_ns <= floor.consumer_created_ns).then_some(floor.seq + 1)
    }
}

/// Whether the backlog may stay in its stream for now, at the server's time. See [`retention`].
///
/// # Errors
/// The server does not answer.
pub async fn may_wait(js: &Context, stream: &str, backlog: Backlog, now: Timestamp) -> Result<bool, Error> {
    if backlog.messages == 0 {
        return Ok(true);
    }
    let seq = backlog.ack_floor + 1;
    let stream = stream_handle(js, stream).await?;
    let info = stream.cached_info();
    let stored =
        if retention::asks_for_age(&info.config) { stored_at(js, &info.config.name, seq).await? } else { None };
    Ok(retention::may_wait(&info.config, &info.state, Oldest { seq, stored }, now))
}

/// When the first message from `seq` on was stored.
async fn stored_at(js: &Context, stream: &str, seq: u64) -> Result<Option<Timestamp>, Error> {
    #[derive(serde::Deserialize)]
    struct Found {
        message: Message,
    }
    #[derive(serde::Deserialize)]
    struct Message {
        time: Timestamp,
    }
    let attempt = || format!("read stream {stream} from {seq} on");
    let wanted = serde_json::json!({ "seq": seq, "next_by_subj": ">" });
    match js.request(format!("STREAM.MSG.GET.{stream}"), &wanted).await.map_err(|e| api(attempt())(e.into()))? {
        Response::Ok(Found { message }) => Ok(Some(message.time)),
        Response::Err { error } if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(None),
        Response::Err { error } => Err(api(attempt())(error.to_string().into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_goes_on_where_it_was_in_the_same_stream_alone() {
        let floors = AckFloors::default();
        assert_eq!(floors.next("events", 10), None, "nothing is known");
        floors.saw("events", &Backlog { messages: 3, ack_floor: 41, created_ns: 20 });
        assert_eq!(floors.next("events", 10), Some(42));
        assert_eq!(floors.next("events", 21), None, "the stream is younger than the consumer was");
        assert_eq!(floors.next("others", 10), None);
        floors.saw("events", &Backlog { messages: 41, ack_floor: 0, created_ns: 25 });
        assert_eq!(floors.next("events", 10), Some(42), "it was recreated, and begins at the beginning");
        floors.saw("events", &Backlog { messages: 0, ack_floor: 50, created_ns: 25 });
        assert_eq!(floors.next("events", 10), Some(51));
    }
}
