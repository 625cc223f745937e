//! The server's clock, as far as ours is known to differ from it. Values only.
//!
//! Schedules are kept by the server. A machine whose clock is an hour behind would make every pause be over
//! at once, and burn all attempts; so pauses are reckoned from here.

use jiff::{SignedDuration, Timestamp};
use std::sync::atomic::{AtomicI64, Ordering};

/// How far the server's clock is ahead of ours, in milliseconds; 0 until it was measured.
#[derive(Debug, Default)]
pub struct ServerClock(AtomicI64);

impl ServerClock {
    /// The server reported `server_time` between two of our times. A value between them is not a difference.
    pub fn set(&self, server_time: Timestamp, asked: Timestamp, answered: Timestamp) {
        let ahead = match server_time {
            server_time if server_time < asked => server_time.duration_since(asked),
            server_time if server_time > answered => server_time.duration_since(answered),
            _ => SignedDuration::ZERO,
        };
        self.0.store(i64::try_from(ahead.as_millis()).unwrap_or_default(), Ordering::Relaxed);
    }

    /// The server's time at a moment of ours.
    pub fn at(&self, ours: Timestamp) -> Timestamp {
        let ahead = SignedDuration::from_millis(self.0.load(Ordering::Relaxed));
        ours.checked_add(ahead).unwrap_or(ours)
    }

    /// The server's time now.
    pub fn now(&self) -> Timestamp {
        self.at(Timestamp::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_wrong_is_corrected_and_the_way_of_an_answer_is_not_taken_for_a_difference() {
        let (clock, second) = (ServerClock::default(), |s| Timestamp::from_second(s).unwrap());
        assert_eq!(clock.at(second(1000)), second(1000), "not known yet");
        clock.set(second(1001), second(1000), second(1003));
        assert_eq!(clock.at(second(1010)), second(1010), "the server answered in between");
        clock.set(second(4603), second(1000), second(1003));
        assert_eq!(clock.at(second(1010)), second(4610), "ours is an hour behind");
        clock.set(second(400), second(1000), second(1003));
        assert_eq!(clock.at(second(1010)), second(410), "ours was set ten minutes ahead");
    }
}
