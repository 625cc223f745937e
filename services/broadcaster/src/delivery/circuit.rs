//! The circuit breaker of one endpoint. Pure: the clock comes from outside.
//!
//! Closed, until so many failures follow each other; then open, and one message at a time probes after a
//! pause that doubles up to its maximum. A success closes it.

use std::time::Duration;
use tokio::time::Instant;

/// When a circuit opens, and how it probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Failures in a row that open it; 0 never does.
    pub failures: u32,
    /// The first pause.
    pub probe: Duration,
    /// The longest pause.
    pub probe_max: Duration,
}

/// What may be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Closed,
    /// Nothing until then.
    Open {
        /// When a probe is due.
        until: Instant,
    },
    /// One message, as a probe.
    ProbeDue,
    /// Nothing until the probe is back.
    Probing,
}

/// That the circuit changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It opened, or a probe failed.
    Opened {
        /// Until the next probe.
        pause: Duration,
    },
    Closed,
}

#[derive(Debug)]
enum State {
    Closed,
    Open { until: Instant },
    Probing,
}

#[derive(Debug)]
pub struct Circuit {
    limits: Limits,
    state: State,
    failures: u32,
    pause: Duration,
}

impl Circuit {
    /// A closed circuit.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Closed, failures: 0, pause: limits.probe }
    }

    /// Open with a probe due: as one that was open when the last process ended.
    pub fn reopen(&mut self, now: Instant) {
        self.state = State::Open { until: now };
    }

    /// What may be done now.
    pub fn phase(&self, now: Instant) -> Phase {
        match self.state {
            State::Closed => Phase::Closed,
            State::Open { until } if until <= now => Phase::ProbeDue,
            State::Open { until } => Phase::Open { until },
            State::Probing => Phase::Probing,
        }
    }

    /// A message goes out as the probe.
    pub fn begin_probe(&mut self) {
        self.state = State::Probing;
    }

    /// The probe came to no end; the next one is due at once.
    pub fn abandon_probe(&mut self, now: Instant) {
        if matches!(self.state, State::Probing) {
            self.state = State::Open { until: now };
        }
    }

    /// The endpoint took a message.
    pub fn succeeded(&mut self) -> Option<Change> {
        self.failures = 0;
        self.pause = self.limits.probe;
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Closed => None,
            _ => Some(Change::Closed),
        }
    }

    /// It may not be called at all, which no number of failures has to show: opens, and probes as ever.
    pub fn held(&mut self, was_probe: bool, now: Instant) -> Option<Change> {
        match self.state {
            State::Closed => Some(self.open(now)),
            State::Probing if was_probe => Some(self.open(now)),
            State::Open { .. } | State::Probing => None,
        }
    }

    fn open(&mut self, now: Instant) -> Change {
        let pause = self.pause;
        self.state = State::Open { until: now + pause };
        self.pause = (pause * 2).min(self.limits.probe_max);
        Change::Opened { pause }
    }

    /// It failed. What was on its way when the circuit opened does not make the pause longer; a probe does.
    pub fn failed(&mut self, was_probe: bool, now: Instant) -> Option<Change> {
        self.failures = self.failures.saturating_add(1);
        let opens = match self.state {
            State::Closed => self.limits.failures > 0 && self.failures >= self.limits.failures,
            State::Open { .. } => false,
            State::Probing => was_probe,
        };
        opens.then(|| self.open(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { failures: 3, probe: Duration::from_secs(1), probe_max: Duration::from_secs(3) };

    #[test]
    fn it_opens_after_failures_in_a_row_probes_and_closes() {
        let (mut c, now) = (Circuit::new(LIMITS), Instant::now());
        assert_eq!((c.failed(false, now), c.failed(false, now), c.succeeded()), (None, None, None));
        assert_eq!((c.failed(false, now), c.failed(false, now)), (None, None), "a success restarts the count");
        assert_eq!(c.failed(false, now), Some(Change::Opened { pause: LIMITS.probe }));
        assert_eq!(c.phase(now), Phase::Open { until: now + LIMITS.probe });
        assert_eq!(c.failed(false, now), None, "what was on its way changes nothing");
        let later = now + LIMITS.probe;
        assert_eq!(c.phase(later), Phase::ProbeDue);
        c.begin_probe();
        assert_eq!(c.phase(later), Phase::Probing);
        assert_eq!(c.failed(false, later), None, "only the probe decides");
        assert_eq!(c.failed(true, later), Some(Change::Opened { pause: Duration::from_secs(2) }));
        c.begin_probe();
        assert_eq!(c.failed(true, later), Some(Change::Opened { pause: Duration::from_secs(3) }), "the maximum");
        c.begin_probe();
        assert_eq!(c.succeeded(), Some(Change::Closed));
        assert_eq!(c.phase(later), Phase::Closed);
        (0..2).for_each(|_| assert_eq!(c.failed(false, later), None));
        assert_eq!(c.failed(false, later), Some(Change::Opened { pause: LIMITS.probe }), "the pause restarts");
    }

    #[test]
    fn a_success_that_was_on_its_way_closes_it() {
        let (mut c, now) = (Circuit::new(LIMITS), Instant::now());
        for _ in 0..3 {
            let _ = c.failed(false, now);
        }
        assert_eq!(c.succeeded(), Some(Change::Closed));
    }

    #[test]
    fn an_abandoned_probe_and_a_restart_make_the_next_one_due() {
        let now = Instant::now();
        let mut c = Circuit::new(LIMITS);
        c.reopen(now);
        assert_eq!(c.phase(now), Phase::ProbeDue);
        c.begin_probe();
        c.abandon_probe(now);
        assert_eq!(c.phase(now), Phase::ProbeDue);
    }

    #[test]
    fn one_that_may_not_be_called_is_open_at_once_and_probed() {
        let (mut c, now) = (Circuit::new(Limits { failures: 0, ..LIMITS }), Instant::now());
        assert_eq!(c.held(false, now), Some(Change::Opened { pause: LIMITS.probe }));
        assert_eq!(c.held(false, now), None, "what was on its way changes nothing");
        c.begin_probe();
        assert_eq!(c.held(true, now), Some(Change::Opened { pause: Duration::from_secs(2) }));
        c.begin_probe();
        assert_eq!(c.succeeded(), Some(Change::Closed));
    }

    #[test]
    fn it_can_be_turned_off() {
        let mut c = Circuit::new(Limits { failures: 0, ..LIMITS });
        let now = Instant::now();
        assert!((0..1000).all(|_| c.failed(false, now).is_none()));
    }
}
