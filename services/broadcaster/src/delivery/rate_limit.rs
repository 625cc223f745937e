//! An endpoint's rate: a number of messages per second, evenly. Pure: the clock comes from outside.

use std::time::Duration;
use tokio::time::Instant;

/// Hands out moments, each a step after the one before. A moment is taken when a message is in hand: one that is
/// held for later would go out together with the next.
#[derive(Debug)]
pub struct Pace {
    step: Duration,
    next: Option<Instant>,
}

impl Pace {
    /// `per_second` is above 0.
    pub fn new(per_second: f64) -> Self {
        Self { step: Duration::from_secs_f64(1.0 / per_second.max(f64::MIN_POSITIVE)), next: None }
    }

    /// When the next message may go, without taking that moment.
    pub fn next(&self, now: Instant) -> Instant {
        self.next.map_or(now, |next| next.max(now))
    }

    /// Takes the time at which the next message may be sent. Unused time is not saved up.
    pub fn take(&mut self, now: Instant) -> Instant {
        let at = self.next(now);
        self.next = Some(at + self.step);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_follow_each_other_and_rest_is_not_saved() {
        let now = Instant::now();
        let mut pace = Pace::new(10.0);
        let moments: Vec<_> = (0..3).map(|_| (pace.take(now) - now).as_millis()).collect();
        assert_eq!(moments, [0, 100, 200]);
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.next(later), later, "asking takes nothing");
        assert_eq!((pace.take(later), pace.take(later)), (later, later + Duration::from_millis(100)));
    }
}
