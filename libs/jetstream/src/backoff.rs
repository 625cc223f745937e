//! Delays between tries: exponential, with full jitter, under a cap.

use rand::Rng;
use std::time::Duration;

/// A random delay between zero and `base × 2^(attempt − 1)`, never above `cap`.
/// Full jitter: a fleet that lost its server together does not come back together.
pub(crate) fn full_jitter(attempt: usize, base: Duration, cap: Duration) -> Duration {
    rand::rng().random_range(Duration::ZERO..=ceiling(attempt, base, cap))
}

/// The largest delay that [`full_jitter`] may give. Attempts count from 1.
fn ceiling(attempt: usize, base: Duration, cap: Duration) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    2u32.checked_pow(doublings).and_then(|factor| base.checked_mul(factor)).map_or(cap, |d| d.min(cap))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let cases =
            [(0, 100), (1, 100), (2, 200), (3, 400), (8, 12_800), (9, 15_000), (40, 15_000), (usize::MAX, 15_000)];
        for (attempt, expected) in cases {
            assert_eq!(ceiling(attempt, MS(100), MS(15_000)), MS(expected), "attempt {attempt}");
        }
        assert_eq!(ceiling(1, MS(100), MS(50)), MS(50));
    }

    #[test]
    fn delays_spread_over_the_whole_range() {
        let delays: Vec<_> = (0..1000).map(|_| full_jitter(5, MS(100), MS(15_000))).collect();
        assert!(delays.iter().all(|d| *d <= MS(1600)));
        assert!(delays.iter().any(|d| *d < MS(400)) && delays.iter().any(|d| *d > MS(1200)));
    }
}
