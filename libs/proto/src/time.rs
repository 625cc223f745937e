//! Moments as they travel: microseconds since 1970 on the bus and in the stores, `Timestamp` in gRPC.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Microseconds since 1970-01-01T00:00:00Z. The unit of both databases and of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

impl Micros {
    /// The system clock's now.
    pub fn now() -> Self {
        Self(Timestamp::now().as_microsecond())
    }
    /// In milliseconds since 1970; what is before is 0.
    pub fn millis(self) -> u64 {
        u64::try_from(self.0 / 1_000).unwrap_or(0)
    }
    /// Later by `d`; stays at the largest value rather than wrap.
    pub fn plus(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }
    /// Earlier by `d`.
    pub fn minus(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }
    /// Time from `earlier` to this; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
    /// As a jiff timestamp, for printing; clamped to what jiff can hold.
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_microsecond(self.0).unwrap_or(if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX })
    }
    /// As protobuf's timestamp.
    pub fn to_proto(self) -> prost_types::Timestamp {
        prost_types::Timestamp {
            seconds: self.0.div_euclid(1_000_000),
            nanos: i32::try_from(self.0.rem_euclid(1_000_000)).expect("less than a million") * 1_000,
        }
    }
    /// From protobuf's timestamp; `None` when it is outside years −9999 to 9999.
    pub fn from_proto(t: &prost_types::Timestamp) -> Option<Self> {
        Timestamp::new(t.seconds, t.nanos).ok().map(|t| Self(t.as_microsecond()))
    }
}

impl From<Timestamp> for Micros {
    fn from(t: Timestamp) -> Self {
        Self(t.as_microsecond())
    }
}

/// Protobuf's duration from std's, clamped to its range.
pub fn duration_to_proto(d: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(d.subsec_nanos()).expect("less than a billion"),
    }
}

/// Std's duration from protobuf's; `None` when negative or malformed.
pub fn duration_from_proto(d: &prost_types::Duration) -> Option<Duration> {
    Some(Duration::new(u64::try_from(d.seconds).ok()?, u32::try_from(d.nanos).ok().filter(|n| *n < 1_000_000_000)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micros_round_trip_through_protobuf() {
        for n in [0, 1, -1, 1_700_000_000_123_456, -1_700_000_000_123_456] {
            assert_eq!(Micros::from_proto(&Micros(n).to_proto()), Some(Micros(n)));
        }
    }

    #[test]
    fn negative_durations_are_refused() {
        assert_eq!(duration_from_proto(&prost_types::Duration { seconds: -1, nanos: 0 }), None);
        let d = Duration::from_millis(1_500);
        assert_eq!(duration_from_proto(&duration_to_proto(d)), Some(d));
    }
}
