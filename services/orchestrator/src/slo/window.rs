//! The minutes of one objective, merged from what several processes observed.
//!
//! A minute of seconds is two sets of 60 bits: observed, and up. Merging is "or", so a second that two
//! replicas observed counts once, and it was up if anybody saw it up. A minute of events is two counts
//! that only rise. Merging twice changes nothing in either.

use super::objective::Unit;
use std::collections::BTreeMap;

/// One minute of an objective, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The objective, as `Objective::key` has it.
    pub slo: String,
    /// Minutes since 1970.
    pub minute: i64,
    /// Seconds: a bit for each that was observed. Events: how many.
    pub seen: i64,
    /// Seconds: a bit for each that was up. Events: how many were good.
    pub good: i64,
}

/// Jobs that became final in one minute, as the database counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Minutes since 1970.
    pub minute: i64,
    /// All but the cancelled.
    pub total: i64,
    /// Succeeded within ten minutes.
    pub fast: i64,
    /// Succeeded within twenty minutes.
    pub capped: i64,
}

/// Counts over some minutes, in the objective's unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All that was observed.
    pub total: i64,
    /// What of it was good.
    pub good: i64,
}

impl Tally {
    /// What of it was not good.
    pub const fn bad(self) -> i64 {
        self.total - self.good
    }
}

/// The minutes of one objective.
#[derive(Clone, Debug)]
pub struct Window {
    unit: Unit,
    minutes: BTreeMap<i64, (i64, i64)>,
}

impl Window {
    /// An empty one.
    pub const fn new(unit: Unit) -> Self {
        Self { unit, minutes: BTreeMap::new() }
    }

    /// Takes a minute in. Again, or together with another's word on it, changes nothing more.
    pub fn merge(&mut self, minute: i64, seen: i64, good: i64) {
        let known = self.minutes.entry(minute).or_default();
        *known = merged(self.unit, *known, (seen, good));
    }

    /// Drops what is older than `minute`.
    pub fn forget_before(&mut self, minute: i64) {
        self.minutes = self.minutes.split_off(&minute);
    }

    /// Counts of the last `minutes` minutes up to `now`, which is one of them.
    pub fn tally(&self, now: i64, minutes: i64) -> Tally {
        self.minutes.range(now - minutes + 1..=now).fold(Tally::default(), |sum, (_, &(seen, good))| {
            let (seen, good) = match self.unit {
                Unit::Seconds => (i64::from(seen.count_ones()), i64::from(good.count_ones())),
                Unit::Events => (seen, good),
            };
            Tally { total: sum.total + seen, good: sum.good + good }
        })
    }
}

/// What two words on one minute come to. The stores do the same in SQL.
pub(crate) fn merged(unit: Unit, (seen, good): (i64, i64), (more_seen, more_good): (i64, i64)) -> (i64, i64) {
    match unit {
        Unit::Seconds => (seen | more_seen, good | more_good),
        Unit::Events => (seen.max(more_seen), good.max(more_good)),
    }
}
