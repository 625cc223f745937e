//! Values of the wire as JSON has them.

use agentforge_proto::time::{Micros, duration_from_proto};
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::time::Duration;

/// A moment as JSON has it: RFC 3339 in UTC, always with microseconds, as the REST API writes it.
#[derive(Clone, Copy, Debug)]
pub struct Moment(pub Timestamp);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{:.6}", self.0))
    }
}

/// A moment of the wire; `None` when it is absent or out of range.
pub fn at(t: Option<&prost_types::Timestamp>) -> Option<Moment> {
    t.and_then(Micros::from_proto).map(|m| Moment(m.timestamp()))
}

/// The time between two moments; `None` when one is missing.
pub fn between(from: Option<Moment>, to: Option<Moment>) -> Option<Duration> {
    from.zip(to).map(|(from, to)| to.0.duration_since(from.0).unsigned_abs())
}

pub(super) fn millis(d: Option<&prost_types::Duration>) -> Option<u64> {
    d.and_then(duration_from_proto).map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// JSON text as JSON; text that is none becomes a string.
pub(super) fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned())
        .or_else(|_| serde_json::value::to_raw_value(text))
        .expect("a string is always valid JSON")
}

pub(super) fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
