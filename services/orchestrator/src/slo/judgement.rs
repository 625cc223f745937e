//! How a window of minutes is judged: budget, rates of burning, and the status that they come to.

use super::objective::{Objective, Unit};
use super::window::{Tally, Window};

/// From this share of the budget on an objective is at risk.
const RISK_CONSUMED: f64 = 0.8;

/// Fewer events than this in the long window of a pair say nothing about a rate.
pub(super) const EVENTS_MIN: i64 = 50;

/// Windows (long, short, in minutes) and the rate of burning at which they page.
const PAGING: [(i64, i64, f64); 2] = [(60, 5, 14.4), (360, 30, 6.0)];

/// What a judgement says of an objective, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The budget is not at risk.
    Healthy,
    /// Four fifths of the budget are gone, or it goes at a rate that pages.
    AtRisk,
    /// The budget is gone.
    Breached,
}

impl Status {
    /// As the metric has it: 1, 0, −1.
    pub const fn gauge(self) -> f64 {
        match self {
            Self::Healthy => 1.0,
            Self::AtRisk => 0.0,
            Self::Breached => -1.0,
        }
    }

    /// The word for people and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::AtRisk => "at_risk",
            Self::Breached => "breached",
        }
    }
}

/// The state of one objective at a time. Counts are in its unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// What was judged.
    pub objective: Objective,
    /// Good and bad of the window.
    pub tally: Tally,
    /// What may be bad in the window.
    pub allowed: f64,
    /// Share of the budget that is gone; above 1 when more than all is.
    pub consumed: f64,
    /// How fast it burns, by window in minutes; 1 is just as fast as it may.
    pub burn: Vec<(i64, f64)>,
    /// The word on it.
    pub status: Status,
}

impl Judgement {
    /// Share of the budget that is left; negative when it is overdrawn.
    pub fn remaining(&self) -> f64 {
        1.0 - self.consumed
    }
}

/// Judges `window` at `now` (a minute, itself included). `None` without a single count: without data there is no
/// judgement, least of all a good one.
pub fn judge(objective: &Objective, window: &Window, now: i64) -> Option<Judgement> {
    let tally = window.tally(now, objective.window_minutes);
    if tally.total == 0 {
        return None;
    }
    let slack = objective.target.slack();
    let allowed = match objective.unit {
        // All of the window, including the part that was not observed: otherwise a young system had no budget.
        Unit::Seconds => slack * (objective.window_minutes * 60) as f64,
        Unit::Events => slack * tally.total as f64,
    };
    let consumed = tally.bad() as f64 / allowed;
    let rate = |minutes: i64| {
        let of = window.tally(now, minutes);
        let burn = if of.total == 0 { 0.0 } else { of.bad() as f64 / of.total as f64 / slack };
        (of, burn)
    };
    let pages = PAGING.iter().any(|&(long, short, limit)| {
        let (of_long, long_burn) = rate(long);
        let enough = objective.unit == Unit::Seconds || of_long.total >= EVENTS_MIN;
        enough && long_burn > limit && rate(short).1 > limit
    });
    // Divided, the last second of a budget could be missed by a rounding.
    let is_gone = tally.bad() as f64 >= allowed - 1e-6;
    let status = if is_gone {
        Status::Breached
    } else if consumed >= RISK_CONSUMED - 1e-9 || pages {
        Status::AtRisk
    } else {
        Status::Healthy
    };
    let burn = [5, 60, 360, 1440, 4320].map(|minutes| (minutes, rate(minutes).1)).to_vec();
    Some(Judgement { objective: objective.clone(), tally, allowed, consumed, burn, status })
}
