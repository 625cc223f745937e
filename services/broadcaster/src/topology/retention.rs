//! Whether events may stay in their stream while their endpoint is not called. Pure.
//!
//! A stream discards its oldest messages at its limits. An event may stay as long as at least half of each limit is
//! between it and that; then it must be set aside. In a stream that discards in another order no event may stay.

use async_nats::jetstream::stream::{Config, RetentionPolicy, State};
use jiff::Timestamp;
use std::time::Duration;

/// The oldest message that may still be wanted.
#[derive(Debug, Clone, Copy)]
pub struct Oldest {
    /// Its place, or one before it.
    pub seq: u64,
    /// When the message there was stored; `None` when there is none.
    pub stored: Option<Timestamp>,
}

/// Whether a place in the stream's content must be known in addition to its age: otherwise `stored` is not read.
pub fn asks_for_age(config: &Config) -> bool {
    !config.max_age.is_zero()
}

/// Whether it may stay, at the server's time `now`.
pub fn may_wait(config: &Config, state: &State, oldest: Oldest, now: Timestamp) -> bool {
    // Only there discarding follows the order of storing.
    let is_plain = config.retention == RetentionPolicy::Limits && config.max_messages_per_subject <= 0;
    is_plain
        && (is_young(config.max_age, oldest.stored, now))
        && (half_free(config.max_bytes, state.bytes) || half_before(state, oldest.seq))
        && (half_free(config.max_messages, state.messages) || half_before(state, oldest.seq))
}

fn is_young(max_age: Duration, stored: Option<Timestamp>, now: Timestamp) -> bool {
    let half = jiff::SignedDuration::try_from(max_age / 2).unwrap_or(jiff::SignedDuration::MAX);
    max_age.is_zero() || stored.is_none_or(|stored| now.duration_since(stored) < half)
}

/// Not above 0: there is no such limit.
fn half_free(limit: i64, used: u64) -> bool {
    u64::try_from(limit).ok().filter(|limit| *limit > 0).is_none_or(|limit| used < limit / 2)
}

/// Whether at least half of what the stream has would go first.
fn half_before(state: &State, seq: u64) -> bool {
    let before = seq.saturating_sub(state.first_sequence);
    before >= (state.last_sequence + 1).saturating_sub(state.first_sequence).div_ceil(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(first: u64, last: u64, bytes: u64) -> State {
        let json = serde_json::json!({
            "messages": last + 1 - first, "bytes": bytes, "first_seq": first, "last_seq": last, "consumer_count": 0,
            "first_ts": "2026-01-01T00:00:00Z", "last_ts": "2026-01-01T00:00:00Z",
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn events_stay_until_half_of_a_limit_is_used_up() {
        let now = Timestamp::from_second(10_000).unwrap();
        let limits = Config { max_age: Duration::from_secs(1000), max_bytes: 1000, ..Config::default() };
        let at = |seq, age: i64| Oldest { seq, stored: Some(Timestamp::from_second(10_000 - age).unwrap()) };
        let cases = [
            ("young, in a stream with room", &limits, state(1, 100, 499), at(1, 499), true),
            ("too old", &limits, state(1, 100, 499), at(1, 500), false),
            ("half full, and the next to go", &limits, state(1, 100, 500), at(1, 0), false),
            ("full, with half of it to go before", &limits, state(1001, 1100, 1000), at(1051, 0), true),
            ("full, with less to go before", &limits, state(1001, 1100, 1000), at(1050, 0), false),
            ("gone already", &limits, state(1001, 1100, 1000), at(7, 0), false),
            ("nothing is stored", &limits, state(1, 100, 10), Oldest { seq: 101, stored: None }, true),
            ("no limits", &Config::default(), state(1, 100, u64::MAX), at(1, 9000), true),
            ("many messages", &Config { max_messages: 100, ..Config::default() }, state(1, 50, 10), at(1, 0), false),
            (
                "one message a subject",
                &Config { max_messages_per_subject: 1, ..Config::default() },
                state(1, 2, 10),
                at(1, 0),
                false,
            ),
            (
                "a work queue",
                &Config { retention: RetentionPolicy::WorkQueue, ..Config::default() },
                state(1, 2, 10),
                at(1, 0),
                false,
            ),
        ];
        for (what, config, state, oldest, expected) in cases {
            assert_eq!(may_wait(config, &state, oldest, now), expected, "{what}");
        }
    }
}
