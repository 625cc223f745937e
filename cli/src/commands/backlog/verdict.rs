//! What runs mean. Pure: outcomes in, verdict out.

use serde::Serialize;
use std::time::Duration;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Every job succeeded.
    Drained {
        /// From the first submission to the last result, seconds.
        seconds: f64,
        /// The most that was seen waiting or in work on the queue's consumer, where it was looked at.
        peak_backlog: Option<u64>,
    },
    /// The cap passed first.
    TimedOut {
        /// Jobs that were not done.
        open: u64,
    },
    /// Jobs ended, but not all of them succeeded, or not all were taken.
    Failed {
        /// What went wrong, as the command prints it.
        reason: String,
    },
    /// The jobs were not taken: no orchestrator answers, or the token is missing. It says nothing about an objective.
    NotStarted {
        /// Why, as the command prints it.
        reason: String,
    },
}

impl Outcome {
    /// The run's time, if it has one.
    pub fn seconds(&self) -> Option<f64> {
        match self {
            Self::Drained { seconds, .. } => Some(*seconds),
            Self::TimedOut { .. } | Self::Failed { .. } | Self::NotStarted { .. } => None,
        }
    }

    /// The most that waited, if it is known.
    pub fn peak_backlog(&self) -> Option<u64> {
        match self {
            Self::Drained { peak_backlog, .. } => *peak_backlog,
            Self::TimedOut { .. } | Self::Failed { .. } | Self::NotStarted { .. } => None,
        }
    }

    /// The result as a sentence for the terminal; `--json` prints the value instead.
    pub fn words(&self) -> String {
        match self {
            Self::Drained { .. } => "drained".to_owned(),
            Self::TimedOut { open } => format!("timed out with {open} jobs open"),
            Self::Failed { reason } => format!("failed: {reason}"),
            Self::NotStarted { reason } => format!("not started: {reason}"),
        }
    }
}

/// What all runs together say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// P95 is within the objective, and every run within the cap.
    Passed,
    /// P95 is above the objective.
    P95Missed,
    /// A run was above the cap, or did not come to its end.
    CapBroken,
    /// A run could not begin, so there is no measurement.
    Error,
}

impl Verdict {
    /// The exit code of the command.
    pub fn exit(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::P95Missed => 1,
            Self::CapBroken => 2,
            // EX_UNAVAILABLE: a gate can tell an orchestrator that is not there from a broken objective.
            Self::Error => 69,
        }
    }
}

/// The verdict; no runs do not pass.
pub fn judge(runs: &[Outcome], objective: Duration, cap: Duration) -> Verdict {
    if runs.iter().any(|run| matches!(run, Outcome::NotStarted { .. })) {
        return Verdict::Error;
    }
    let is_within = |run: &Outcome| run.seconds().is_some_and(|seconds| seconds <= cap.as_secs_f64());
    match p95(runs) {
        Some(p95) if runs.iter().all(is_within) => {
            if p95 <= objective.as_secs_f64() {
                Verdict::Passed
            } else {
                Verdict::P95Missed
            }
        }
        _ => Verdict::CapBroken,
    }
}

/// The time that 95 of 100 runs were within (nearest rank), seconds; `None` when a run has none.
pub fn p95(runs: &[Outcome]) -> Option<f64> {
    let mut seconds: Vec<f64> = runs.iter().map(Outcome::seconds).collect::<Option<_>>()?;
    seconds.sort_by(f64::total_cmp);
    let rank = (seconds.len() * 95).div_ceil(100);
    seconds.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(seconds: f64) -> Outcome {
        Outcome::Drained { seconds, peak_backlog: None }
    }

    #[test]
    fn verdicts() {
        let (objective, cap) = (Duration::from_secs(600), Duration::from_secs(1200));
        let twenty = |last: f64| (0..19).map(|_| drained(10.0)).chain([drained(last)]).collect::<Vec<_>>();
        let cases = [
            (vec![drained(1.0)], Verdict::Passed),
            (vec![drained(600.0)], Verdict::Passed),
            (vec![drained(600.1)], Verdict::P95Missed),
            (vec![drained(1.0), drained(700.0)], Verdict::P95Missed),
            (twenty(1100.0), Verdict::Passed),
            (twenty(1200.1), Verdict::CapBroken),
            (vec![drained(1.0), Outcome::TimedOut { open: 3 }], Verdict::CapBroken),
            (vec![drained(1.0), Outcome::Failed { reason: "2 of 3 succeeded".into() }], Verdict::CapBroken),
            (vec![], Verdict::CapBroken),
            (vec![drained(700.0), Outcome::NotStarted { reason: "no answer".into() }], Verdict::Error),
        ];
        for (runs, wanted) in cases {
            assert_eq!(judge(&runs, objective, cap), wanted, "{runs:?}");
        }
    }

    #[test]
    fn a_run_without_an_end_leaves_no_figure() {
        assert_eq!(p95(&[drained(1.0), Outcome::TimedOut { open: 1 }]), None);
        assert_eq!(p95(&[drained(3.0), drained(1.0), drained(2.0)]), Some(3.0));
        assert_eq!(p95(&[]), None);
    }

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let all = [Verdict::Passed, Verdict::P95Missed, Verdict::CapBroken, Verdict::Error];
        assert_eq!(all.map(Verdict::exit), [0, 1, 2, 69]);
    }
}
