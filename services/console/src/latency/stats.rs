//! Samples of one service and what is said of them. Pure.
//!
//! Percentiles are by nearest rank: of n values in ascending order the p-th percentile is the one at place ⌈p/100 · n⌉,
//! counted from 1. It is always a value that was measured. Only successful samples count for them: a refused connection
//! is fast, and says nothing about how long an answer takes.

use jiff::Timestamp;
use serde::Serialize;
use std::collections::VecDeque;

/// Samples that are kept of a service.
pub const SAMPLES_MAX: usize = 200;
/// Up to here an answer is good, milliseconds.
pub const GOOD_MS: f64 = 150.0;
/// Up to here it is slow and no more, milliseconds.
pub const WARN_MS: f64 = 400.0;

/// How fast an answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// At most 150 ms.
    Good,
    /// At most 400 ms.
    Warn,
    /// More.
    High,
    /// There was no answer, or one that is an error.
    Na,
}

impl Class {
    /// Of one sample.
    pub fn of(ms: f64, ok: bool) -> Self {
        match ok {
            false => Self::Na,
            true if ms <= GOOD_MS => Self::Good,
            true if ms <= WARN_MS => Self::Warn,
            true => Self::High,
        }
    }

    /// As metrics have it.
    pub fn number(self) -> f64 {
        match self {
            Self::Good => 0.0,
            Self::Warn => 1.0,
            Self::High => 2.0,
            Self::Na => 3.0,
        }
    }
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// When it began.
    pub ts: Timestamp,
    /// Until the end of the answer, or until it was clear that there is none; milliseconds.
    pub ms: f64,
    /// The HTTP status; null without an answer.
    pub status: Option<u16>,
    /// Whether the status is below 400.
    pub ok: bool,
    /// How fast it was.
    pub cls: Class,
}

impl Sample {
    /// Of a probe that took `ms`.
    pub fn new(ts: Timestamp, ms: f64, status: Option<u16>) -> Self {
        let ms = (ms * 1_000.0).round() / 1_000.0;
        let ok = status.is_some_and(|status| status < 400);
        Self { ts, ms, status, ok, cls: Class::of(ms, ok) }
    }
}

/// What is said of the samples that are kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stats {
    /// Of the newest successful sample.
    pub latest_ms: Option<f64>,
    /// The fastest.
    pub min_ms: Option<f64>,
    /// The slowest.
    pub max_ms: Option<f64>,
    /// Half of them were at most so slow.
    pub p50_ms: Option<f64>,
    /// Nine of ten.
    pub p90_ms: Option<f64>,
    /// 99 of a hundred.
    pub p99_ms: Option<f64>,
    /// Samples that are kept, successful or not.
    pub attempts: usize,
    /// The successful ones.
    pub ok: usize,
    /// The share of the others, per cent, with one decimal.
    pub failure_rate_pct: f64,
    /// Of the newest sample; na before the first.
    pub latest_class: Class,
}

/// The newest samples of a service.
#[derive(Clone, Debug, Default)]
pub struct Ring(VecDeque<Sample>);

impl Ring {
    /// Adds a sample; the oldest goes when there are too many.
    pub fn push(&mut self, sample: Sample) {
        if self.0.len() == SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// The newest `limit` samples, oldest first.
    pub fn newest(&self, limit: usize) -> Vec<Sample> {
        self.0.iter().skip(self.0.len().saturating_sub(limit)).cloned().collect()
    }

    /// What is said of all of them.
    pub fn stats(&self) -> Stats {
        let mut sorted: Vec<f64> = self.0.iter().filter(|s| s.ok).map(|s| s.ms).collect();
        sorted.sort_by(f64::total_cmp);
        let (attempts, ok) = (self.0.len(), sorted.len());
        let failed = (attempts - ok) as f64 / attempts.max(1) as f64;
        Stats {
            latest_ms: self.0.iter().rev().find(|s| s.ok).map(|s| s.ms),
            min_ms: sorted.first().copied(),
            max_ms: sorted.last().copied(),
            p50_ms: nearest_rank(&sorted, 50),
            p90_ms: nearest_rank(&sorted, 90),
            p99_ms: nearest_rank(&sorted, 99),
            attempts,
            ok,
            failure_rate_pct: (failed * 1_000.0).round() / 10.0,
            latest_class: self.0.back().map_or(Class::Na, |s| s.cls),
        }
    }
}

/// The value at place ⌈percent/100 · n⌉ of `sorted`, counted from 1; `None` of nothing.
pub fn nearest_rank(sorted: &[f64], percent: usize) -> Option<f64> {
    let place = (sorted.len() * percent).div_ceil(100);
    sorted.get(place.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(ms: f64, status: Option<u16>) -> Sample {
        Sample::new(Timestamp::UNIX_EPOCH, ms, status)
    }

    #[test]
    fn classes_end_where_they_are_documented() {
        for (ms, status, class) in [
            (150.0, Some(200), Class::Good),
            (150.001, Some(200), Class::Warn),
            (400.0, Some(399), Class::Warn),
            (400.001, Some(200), Class::High),
            (1.0, Some(400), Class::Na),
            (1.0, None, Class::Na),
        ] {
            assert_eq!(sample(ms, status).cls, class, "{ms} {status:?}");
        }
        assert_eq!([Class::Good, Class::Warn, Class::High, Class::Na].map(Class::number), [0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn a_failure_counts_and_leaves_the_latency_as_it_was() {
        let mut ring = Ring::default();
        let empty = ring.stats();
        assert_eq!((empty.attempts, empty.failure_rate_pct, empty.latest_class), (0, 0.0, Class::Na));
        assert_eq!((empty.latest_ms, empty.p99_ms), (None, None));
        for (ms, status) in [(10.0, Some(200)), (30.0, Some(204)), (2.0, Some(503))] {
            ring.push(sample(ms, status));
        }
        let stats = ring.stats();
        assert_eq!((stats.latest_ms, stats.min_ms, stats.max_ms), (Some(30.0), Some(10.0), Some(30.0)));
        assert_eq!((stats.attempts, stats.ok, stats.failure_rate_pct), (3, 2, 33.3));
        assert_eq!((stats.latest_class, stats.p50_ms), (Class::Na, Some(10.0)));
    }

    #[test]
    fn the_newest_samples_are_kept_and_no_more() {
        let mut ring = Ring::default();
        (0..SAMPLES_MAX + 7).for_each(|n| ring.push(sample(n as f64, Some(200))));
        let kept = ring.newest(usize::MAX);
        assert_eq!((kept.len(), kept[0].ms, kept[SAMPLES_MAX - 1].ms), (SAMPLES_MAX, 7.0, 206.0));
        assert_eq!(ring.newest(2).iter().map(|s| s.ms).collect::<Vec<_>>(), [205.0, 206.0]);
        assert_eq!(ring.newest(0), []);
    }

    /// Nearest rank from its definition: the smallest value that at least so many per cent of all are not above.
    fn oracle(values: &[f64], percent: f64) -> Option<f64> {
        let reached =
            |v: f64| values.iter().filter(|x| **x <= v).count() as f64 * 100.0 >= percent * values.len() as f64;
        values.iter().copied().filter(|v| reached(*v)).min_by(f64::total_cmp)
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_definition(
            probes in proptest::collection::vec((0u32..900_000, proptest::bool::weighted(0.8)), 0..450)
        ) {
            let mut ring = Ring::default();
            for (micros, is_ok) in &probes {
                ring.push(sample(f64::from(*micros) / 1_000.0, if *is_ok { Some(200) } else { None }));
            }
            let kept = &probes[probes.len().saturating_sub(SAMPLES_MAX)..];
            let good: Vec<f64> = kept.iter().filter(|p| p.1).map(|p| f64::from(p.0) / 1_000.0).collect();
            let stats = ring.stats();
            prop_assert_eq!(stats.p50_ms, oracle(&good, 50.0));
            prop_assert_eq!(stats.p90_ms, oracle(&good, 90.0));
            prop_assert_eq!(stats.p99_ms, oracle(&good, 99.0));
            prop_assert_eq!((stats.attempts, stats.ok), (kept.len(), good.len()));
            prop_assert!(stats.p50_ms <= stats.p90_ms && stats.p90_ms <= stats.p99_ms);
        }
    }
}
