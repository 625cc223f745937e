//! What travels with an event in our own streams: parked for a retry, or dead. Pure.
//!
//! The event's bytes are the message's body, unchanged; everything else is headers. So a record of a
//! million needs nothing in memory, and a person can read one with the nats command.

use crate::{endpoints::declaration::Endpoint, topology::names};
use agentforge_jetstream::{AckInfo, HeaderMap, trace::REQUEST_ID};
use jiff::Timestamp;
use ring::digest;
use serde::Serialize;
use std::borrow::Cow;
use utoipa::ToSchema;

const WEBHOOK_ID: &str = "Af-Webhook-Id";
const SUBJECT: &str = "Af-Subject";
const ORIGIN: &str = "Af-Origin";
const ATTEMPTS: &str = "Af-Attempts";
const EVENT_AT: &str = "Af-Event-At";
const REASON: &str = "Af-Reason";
const DETAIL: &str = "Af-Detail";
const DEAD_AT: &str = "Af-Dead-At";
/// When a parked one is due, in milliseconds since 1970: for the sweep over overdue ones.
pub const DUE_AT: &str = "Af-Due-At";
/// What leads back to where an event came from: the two headers of W3C trace context, and the request's id.
const TRACE: [&str; 3] = ["traceparent", "tracestate", REQUEST_ID];
/// Characters of a detail that are kept.
const DETAIL_CHARS: usize = 300;
/// Longest id that is taken as it is.
const ID_BYTES_MAX: usize = 128;

/// What is known of an event on its way to one endpoint.
#[derive(Debug, Clone)]
pub struct Record {
    /// `webhook-id`: the same in every attempt and after a redelivery.
    pub id: String,
    /// The place that it was read from first, or was redelivered from: one event on one way.
    pub origin: String,
    /// Where the event was published.
    pub subject: String,
    /// Attempts that were made.
    pub attempts: u32,
    /// When the event was stored first.
    pub at: Timestamp,
    /// Its trace and the id of its request, as they came.
    pub trace: Option<HeaderMap>,
}

impl Record {
    /// Of an event as its stream gave it. The id is the publisher's `Nats-Msg-Id`; without one it is made of
    /// stream, sequence and time of storage, which no other message has.
    pub fn of_event(info: &AckInfo, subject: &str, headers: Option<&HeaderMap>) -> Self {
        let origin = format!("{}-{}-{:x}", info.stream, info.stream_seq, info.stored_at_ns / 1_000_000);
        let at = Timestamp::from_nanosecond(info.stored_at_ns).unwrap_or_default();
        Self { id: id(headers, &origin), origin, subject: subject.to_owned(), attempts: 0, at, trace: trace(headers) }
    }

    /// Of an event that no stream keeps.
    pub fn of_core(subject: &str, headers: Option<&HeaderMap>, now: Timestamp) -> Self {
        let origin = uuid::Uuid::now_v7().to_string();
        Self {
            id: id(headers, &origin),
            origin,
            subject: subject.to_owned(),
            attempts: 0,
            at: now,
            trace: trace(headers),
        }
    }

    /// Of a message of our own streams; `None` when its headers are not ours.
    pub fn of_headers(headers: Option<&HeaderMap>) -> Option<Self> {
        let headers = headers?;
        let get = |name| headers.get(name).map(|value| value.as_str());
        Some(Self {
            id: get(WEBHOOK_ID)?.to_owned(),
            origin: get(ORIGIN)?.to_owned(),
            subject: get(SUBJECT)?.to_owned(),
            attempts: get(ATTEMPTS)?.parse().ok()?,
            at: get(EVENT_AT)?.parse().ok()?,
            trace: trace(Some(headers)),
        })
    }

    /// The origin in one token of a subject.
    pub fn token(&self) -> String {
        hex::encode(&digest::digest(&digest::SHA256, self.origin.as_bytes()).as_ref()[..16])
    }

    /// The headers of a record.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = self.trace.clone().unwrap_or_default();
        headers.insert(WEBHOOK_ID, self.id.as_str());
        headers.insert(ORIGIN, self.origin.as_str());
        headers.insert(SUBJECT, self.subject.as_str());
        headers.insert(ATTEMPTS, self.attempts.to_string().as_str());
        headers.insert(EVENT_AT, self.at.to_string().as_str());
        headers
    }

    /// Adds why the last attempt failed.
    pub fn headers_with_reason(&self, reason: &str, detail: &str) -> HeaderMap {
        let mut headers = self.headers();
        headers.insert(REASON, reason);
        let detail: String = detail.chars().filter(|c| !c.is_control()).take(DETAIL_CHARS).collect();
        headers.insert(DETAIL, detail.as_str());
        headers
    }

    /// The headers of one that is parked until `due`. A schedule moves it to `target`; without one the sweep
    /// does. Either takes the place of what was parked for the event before.
    pub fn parked(&self, reason: &str, detail: &str, due: Timestamp, target: Option<&str>) -> HeaderMap {
        let mut headers = self.headers_with_reason(reason, detail);
        headers.insert(DUE_AT, due.as_millisecond().to_string().as_str());
        match target {
            Some(target) => {
                headers.insert("Nats-Schedule", format!("@at {due}").as_str());
                headers.insert("Nats-Schedule-Target", target);
            }
            None => headers.insert("Nats-Rollup", "sub"),
        }
        headers
    }

    /// The headers of a dead letter.
    pub fn dead(&self, reason: &str, detail: &str, now: Timestamp) -> HeaderMap {
        let mut headers = self.headers_with_reason(reason, detail);
        headers.insert(DEAD_AT, now.to_string().as_str());
        headers
    }
}

/// The publisher's id; without one the origin, which no other message has.
fn id(headers: Option<&HeaderMap>, origin: &str) -> String {
    let given = headers.and_then(|h| h.get("Nats-Msg-Id")).map(|v| v.as_str()).filter(|id| !id.is_empty());
    safe(given.unwrap_or(origin)).into_owned()
}

/// An id that fits into a header and into the text that is signed: printable, without dots, not too long.
fn safe(id: &str) -> Cow<'_, str> {
    let fits = id.len() <= ID_BYTES_MAX && id.bytes().all(|b| b.is_ascii_graphic() && b != b'.');
    if fits {
        Cow::Borrowed(id)
    } else {
        Cow::Owned(format!("sha256-{}", hex::encode(digest::digest(&digest::SHA256, id.as_bytes()))))
    }
}

fn trace(headers: Option<&HeaderMap>) -> Option<HeaderMap> {
    let headers = headers?;
    let mut kept = HeaderMap::new();
    for name in TRACE {
        if let Some(value) = headers.get(name) {
            kept.insert(name, value.as_str());
        }
    }
    (!kept.is_empty()).then_some(kept)
}

/// A dead letter, as it is listed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeadLetter {
    /// Its place in the stream: what it is redelivered by.
    pub seq: u64,
    /// The endpoint that did not get it.
    pub endpoint: String,
    /// The event's `webhook-id`, as all attempts had it.
    pub webhook_id: String,
    /// Where the event was published.
    pub subject: String,
    /// Attempts that were made.
    pub attempts: u32,
    /// Short name of what went wrong.
    pub reason: String,
    /// Why the last attempt failed, in words.
    pub detail: String,
    /// When the event was stored first.
    pub event_at: Timestamp,
    /// When it was given up.
    pub dead_at: Timestamp,
    /// Bytes of the event.
    pub size: usize,
    /// The event, when one letter is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub event: Option<serde_json::Value>,
}

impl DeadLetter {
    /// Reads one; `None` for a message that is none.
    pub fn read(seq: u64, subject: &str, headers: &HeaderMap, payload: &[u8], with_event: bool) -> Option<Self> {
        let record = Record::of_headers(Some(headers))?;
        let get = |name| headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default();
        let shown = || {
            serde_json::from_slice(payload)
                .unwrap_or_else(|_| serde_json::Value::String(String::from_utf8_lossy(payload).into_owned()))
        };
        Some(Self {
            seq,
            endpoint: names::endpoint_of(subject)?.to_owned(),
            webhook_id: record.id,
            subject: record.subject,
            attempts: record.attempts,
            reason: get(REASON),
            detail: get(DETAIL),
            event_at: record.at,
            dead_at: get(DEAD_AT).parse().unwrap_or_default(),
            size: payload.len(),
            event: with_event.then(shown),
        })
    }
}

/// Where the messages of one endpoint are kept.
#[derive(Debug, Clone)]
pub struct RetrySubjects {
    pub due: String,
    pub dlq: String,
    /// Parked retries; a token for the id follows.
    pub parked: String,
}

impl RetrySubjects {
    /// Of an endpoint in an environment.
    pub fn new(env: &str, endpoint: &Endpoint) -> Self {
        let name = &endpoint.name;
        Self { due: names::due(env, name), dlq: names::dlq(env, name), parked: names::parked(env, name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(seq: u64) -> AckInfo {
        AckInfo {
            domain: None,
            stream: "events".into(),
            consumer: "c".into(),
            delivered: 1,
            stream_seq: seq,
            consumer_seq: 1,
            stored_at_ns: 1_767_225_600_000_000_000,
            pending: 0,
        }
    }

    #[test]
    fn an_id_is_the_publishers_or_that_of_the_place_in_the_stream() {
        let headers = |id: &str| HeaderMap::from_iter([("Nats-Msg-Id".parse().unwrap(), id.parse().unwrap())]);
        let id = |headers: Option<HeaderMap>| Record::of_event(&info(7), "todos.events", headers.as_ref()).id;
        assert_eq!(id(Some(headers("job:dead:1"))), "job:dead:1");
        assert_eq!(id(None), "events-7-19b76daa800");
        assert_eq!(id(None), id(None));
        for odd in ["a.b", &"x".repeat(200)] {
            let made = id(Some(headers(odd)));
            assert!(made.starts_with("sha256-") && made.len() == 71, "{made}");
        }
    }

    #[test]
    fn a_record_survives_its_headers_and_keeps_its_trace() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        headers.insert("Other", "x");
        let record = Record { attempts: 3, ..Record::of_event(&info(7), "todos.events", Some(&headers)) };
        let scheduled = record.parked("timeout", "no answer\r\nEvil: 1", Timestamp::UNIX_EPOCH, Some("t"));
        let read = Record::of_headers(Some(&scheduled)).unwrap();
        assert_eq!(
            (read.id, read.subject, read.attempts, read.at),
            (record.id.clone(), record.subject.clone(), 3, record.at)
        );
        assert!(read.trace.unwrap().get("traceparent").is_some());
        assert!(scheduled.get("Other").is_none());
        assert_eq!(scheduled.get("Nats-Schedule").unwrap().as_str(), "@at 1970-01-01T00:00:00Z");
        assert!(!scheduled.get(DETAIL).unwrap().as_str().contains('\n'));
        let parked = record.parked("timeout", "", Timestamp::UNIX_EPOCH, None);
        assert!(parked.get("Nats-Schedule").is_none() && parked.get(DUE_AT).is_some());
        assert!(Record::of_headers(Some(&headers)).is_none());

        let dead = record.dead("client_error", "answered 400", Timestamp::UNIX_EPOCH);
        let letter = DeadLetter::read(9, "broadcaster.dlq.dev.ops", &dead, b"{\"a\":1}", true).unwrap();
        assert_eq!((letter.seq, &*letter.endpoint, &*letter.reason, letter.attempts), (9, "ops", "client_error", 3));
        assert_eq!(letter.event.unwrap()["a"], 1);
    }
}
