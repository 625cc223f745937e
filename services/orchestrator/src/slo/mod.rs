//! Service level objectives: what is promised, and how a window of minutes is judged.
//!
//! Pure: minutes in, a judgement out. `window` holds the minutes, `observe` makes seconds of checks, `keeper` does the
//! I/O. Nothing here reads a clock, and unobserved time never counts as good.

mod keeper;
mod observe;
mod window;

#[cfg(test)]
mod tests;

pub use keeper::{Board, Keeper, Sight};
pub use observe::Observer;
pub use window::{Bucket, Finished, Tally, Window};

use agentforge_proto::time::Micros;

/// The window over which a budget is spent, in minutes: 30 days.
pub const WINDOW_MINUTES: i64 = 30 * 24 * 60;
/// A job is fast when it ends within this time, microseconds.
pub const FAST_US: i64 = 600 * 1_000_000;
/// No job may take longer, microseconds.
pub const CAP_US: i64 = 1_200 * 1_000_000;
/// From this share of the budget on an objective is at risk.
const RISK_CONSUMED: f64 = 0.8;
/// Fewer events than this in the long window of a pair say nothing about a rate.
const EVENTS_MIN: i64 = 50;

/// Windows (long, short, in minutes) and the rate of burning at which they page.
const PAGING: [(i64, i64, f64); 2] = [(60, 5, 14.4), (360, 30, 6.0)];

/// The minute of a moment, counted from 1970.
pub const fn minute_of(at: Micros) -> i64 {
    at.0.div_euclid(60_000_000)
}

/// What one count of a minute means. An objective has one unit and never mixes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds: up out of those that somebody observed.
    Seconds,
    /// Events: good out of all.
    Events,
}

impl Unit {
    /// The word for people and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Events => "events",
        }
    }
}

/// A share between 0 and 1, neither included: at 1 there is no budget, at 0 no promise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target(f64);

impl Target {
    /// The share, if it is one.
    pub fn new(share: f64) -> Option<Self> {
        (share > 0.0 && share < 1.0).then_some(Self(share))
    }

    /// The share.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// What may go wrong, as a share.
    fn slack(self) -> f64 {
        1.0 - self.0
    }
}

/// One promise.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// Whose it is.
    pub service: &'static str,
    /// Its name among those of the service.
    pub name: &'static str,
    /// What is counted.
    pub unit: Unit,
    /// The share that must be good.
    pub target: Target,
    /// The window, minutes.
    pub window_minutes: i64,
    /// One sentence for people.
    pub meaning: &'static str,
}

impl Objective {
    /// Its name in the store, unique among all.
    pub fn key(&self) -> String {
        format!("{}/{}", self.service, self.name)
    }
}

/// Its status.
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

/// The shares that the objectives promise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Targets {
    /// Of a service's seconds.
    pub availability: Target,
    /// Of jobs that end well within ten minutes.
    pub latency: Target,
    /// Of jobs that end well within twenty minutes.
    pub cap: Target,
}

/// What is promised. The order is that of reports.
pub fn objectives(targets: Targets) -> Vec<Objective> {
    let time = |service, meaning| Objective {
        service,
        name: "availability",
        unit: Unit::Seconds,
        target: targets.availability,
        window_minutes: WINDOW_MINUTES,
        meaning,
    };
    let jobs = |name, target, meaning| Objective {
        service: "jobs",
        name,
        unit: Unit::Events,
        target,
        window_minutes: WINDOW_MINUTES,
        meaning,
    };
    vec![
        time("orchestrator", "Seconds in which an orchestrator could accept jobs and commit results."),
        time("worker", "Seconds in which a worker was online, of those in which one was expected."),
        time("nats", "Seconds in which an orchestrator was connected to NATS."),
        jobs("latency", targets.latency, "Jobs that succeeded within 600 s of acceptance."),
        jobs("latency-cap", targets.cap, "Jobs that succeeded within 1200 s of acceptance."),
    ]
}
