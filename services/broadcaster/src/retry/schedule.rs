//! When a message is tried again. Pure: the random number comes from outside.

use agentforge_config::{Parse, parse_duration};
use std::time::Duration;

/// Most pauses of a schedule.
const STEPS_MAX: usize = 32;
/// Shortest and longest pause.
const STEP: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(7 * 24 * 3600);

/// The pauses between attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    steps: Vec<Duration>,
    jitter: f64,
}

impl Schedule {
    /// `jitter` is the share by which a pause may be longer or shorter, 0 to 1.
    pub fn new(steps: Steps, jitter: f64) -> Self {
        Self { steps: steps.0, jitter: jitter.clamp(0.0, 1.0) }
    }

    /// Attempts in all, the first included.
    pub fn attempts(&self) -> usize {
        self.steps.len() + 1
    }

    /// The pause after this many attempts; `None` when there are no more. `wish` is the endpoint's own: the pause is
    /// not shorter. `random` is in 0..1.
    pub fn pause(&self, attempts: u32, wish: Option<Duration>, random: f64) -> Option<Duration> {
        let step = self.steps.get(usize::try_from(attempts).ok()?.checked_sub(1)?)?;
        let jittered = step.mul_f64(1.0 + self.jitter * (2.0 * random - 1.0));
        Some(jittered.max(wish.unwrap_or_default()))
    }
}

/// Pauses as they are written: `5s,5m,30m`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps(Vec<Duration>);

impl Parse for Steps {
    fn parse(s: &str) -> Result<Self, String> {
        let steps = s.split(',').map(|step| parse_duration(step.trim())).collect::<Result<Vec<_>, _>>()?;
        if steps.len() > STEPS_MAX {
            return Err(format!("has more than {STEPS_MAX} pauses"));
        }
        if steps.iter().all(|step| STEP.contains(step)) {
            Ok(Self(steps))
        } else {
            Err("has a pause outside 100ms-7d".to_owned())
        }
    }
    fn placeholder() -> Self {
        Self(vec![Duration::from_secs(5)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Schedule {
        Schedule::new(Steps::parse(text).unwrap(), 0.2)
    }

    #[test]
    fn pauses_follow_the_steps_and_then_end() {
        let s = schedule("5s,5m,30m,2h,5h,10h,10h");
        assert_eq!(s.attempts(), 8);
        let seconds = |n, random| s.pause(n, None, random).map(|d| d.as_secs_f64().round() as u64);
        let middle: Vec<_> = (1..=8).map(|n| seconds(n, 0.5)).collect();
        let expected = [5, 300, 1800, 7200, 18_000, 36_000, 36_000].map(Some);
        assert_eq!(middle, [&expected[..], &[None]].concat());
        assert_eq!((seconds(1, 0.0), seconds(1, 1.0)), (Some(4), Some(6)));
        assert_eq!(seconds(0, 0.5), None, "there is no pause before the first");
    }

    #[test]
    fn a_wish_makes_a_pause_longer_and_never_shorter() {
        let s = schedule("10s");
        assert_eq!(s.pause(1, Some(Duration::from_secs(60)), 1.0), Some(Duration::from_secs(60)));
        assert_eq!(s.pause(1, Some(Duration::from_secs(1)), 0.5), Some(Duration::from_secs(10)));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for bad in ["", "5s,,1m", "0s", "8d", "fast", &["1s"; 33].join(",")] {
            assert!(Steps::parse(bad).is_err(), "{bad}");
        }
    }
}
