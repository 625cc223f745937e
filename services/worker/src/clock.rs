//! The orchestrator's clock, from its answers to heartbeats.
//!
//! Deadlines are the orchestrator's: a worker whose own clock is wrong must neither throw a job away nor run one that is
//! over. So moments that are compared with its words, or reported to it, are read here. What was heard is carried on by
//! the monotonic clock, so that a wall clock that jumps between two heartbeats changes nothing. Before the first answer
//! the worker's own clock is all there is.

use agentforge_proto::time::Micros;
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Shared between the lifeline, which measures, and the jobs, which read.
#[derive(Debug, Default)]
pub struct Clock(Mutex<Option<Heard>>);

#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Instant,
    time: Micros,
}

impl Clock {
    /// Takes the orchestrator's time out of an answer that took `round_trip` and came at `received`. Half of the way
    /// counts as the way back, which is wrong by half of the round trip at most.
    pub fn hear(&self, orchestrator_time: Micros, round_trip: Duration, received: Instant) {
        let heard = Heard { at: received, time: orchestrator_time.plus(round_trip / 2) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(heard);
    }

    /// The time at the orchestrator.
    pub fn now(&self) -> Micros {
        self.heard().map_or_else(Micros::now, |heard| heard.time.plus(heard.at.elapsed()))
    }

    /// How far the worker's own clock is ahead of the orchestrator's, microseconds; behind it is negative.
    pub fn skew_us(&self) -> Option<i64> {
        self.heard().map(|heard| Micros::now().0 - heard.time.plus(heard.at.elapsed()).0)
    }

    fn heard(&self) -> Option<Heard> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn what_was_heard_counts_and_goes_on() {
        let clock = Clock::default();
        assert_eq!(clock.skew_us(), None);
        assert!((clock.now().0 - Micros::now().0).abs() < HOUR);
        let behind = Micros(Micros::now().0 - HOUR);
        clock.hear(behind, Duration::from_secs(2), Instant::now() - Duration::from_secs(10));
        let expected = behind.0 + 11_000_000;
        assert!((clock.now().0 - expected).abs() < 5_000_000, "half of the way and what passed since are added");
        assert!((clock.skew_us().unwrap() - (HOUR - 11_000_000)).abs() < 5_000_000);
        clock.hear(Micros::now(), Duration::ZERO, Instant::now());
        assert!(clock.skew_us().unwrap().abs() < 5_000_000, "the last word counts");
    }
}
