//! What is promised: each objective with its unit, target and window.

use agentforge_proto::time::Micros;

/// The window over which a budget is spent, in minutes: 30 days.
pub const WINDOW_MINUTES: i64 = 30 * 24 * 60;
/// A job is fast when it ends within this time, microseconds.
pub const FAST_US: i64 = 600 * 1_000_000;
/// No job may take longer, microseconds.
pub const CAP_US: i64 = 1_200 * 1_000_000;

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

/// A share between 0 and 1, neither included: 1 leaves no budget, 0 promises nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target(f64);

impl Target {
    /// The share, if it is one.
    pub fn new(share: f64) -> Option<Self> {
        (share > 0.0 && share < 1.0).then_some(Self(share))
    }

    /// Between 0 and 1, neither included.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// What may go wrong, as a share.
    pub(super) fn slack(self) -> f64 {
        1.0 - self.0
    }
}

/// What is promised: a share of seconds or of jobs, over a window that slides.
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
