//! An endpoint's rate: so many messages per second, evenly. Pure: the clock comes from outside.

use std::time::Duration;
use tokio::time::Instant;

/// Hands out moments, each a step after the one before. Reserve a moment only with a message in hand: an unused one
/// would let two messages out together later.
#[derive(Debug)]
pub struct RateLimiter {
    step: Duration,
    next: Option<Instant>,
}

impl RateLimiter {
    /// `per_second` is above 0.
    pub fn new(per_second: f64) -> Self {
        Self { step: Duration::from_secs_f64(1.0 / per_second.max(f64::MIN_POSITIVE)), next: None }
    }

    /// When the next message may go, without reserving that moment.
    pub fn next(&self, now: Instant) -> Instant {
        self.next.map_or(now, |next| next.max(now))
    }

    /// Reserves the moment at which the next message may go. Unused time is not saved up.
    pub fn reserve(&mut self, now: Instant) -> Instant {
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
        let mut limiter = RateLimiter::new(10.0);
        let moments: Vec<_> = (0..3).map(|_| (limiter.reserve(now) - now).as_millis()).collect();
        assert_eq!(moments, [0, 100, 200]);
        let later = now + Duration::from_secs(60);
        assert_eq!(limiter.next(later), later, "asking takes nothing");
        assert_eq!((limiter.reserve(later), limiter.reserve(later)), (later, later + Duration::from_millis(100)));
    }
}
