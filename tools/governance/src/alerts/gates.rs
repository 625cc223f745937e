//! The limits that alerts must keep as a whole. Pure.
//!
//! What is unknown neither passes nor fails a gate of churn: it is said, and the run continues. Runbooks are always known.

use super::metrics::Snapshot;
use clap::builder::BoolishValueParser;
use serde::Serialize;

/// The limits.
#[derive(Clone, Debug, clap::Args)]
pub struct Limits {
    /// Of a hundred active alerts so many must have a runbook
    #[arg(long, value_name = "PERCENT", env = "RUNBOOK_MIN_PERCENT", default_value_t = 90.0)]
    pub runbook_min_percent: f64,
    /// Churn of 30 days may rise by so much from one entry of the history to the next
    #[arg(long, value_name = "N", env = "MAX_CHURN_DELTA", default_value_t = 5)]
    pub max_churn_delta: u64,
    /// The same for risk churn
    #[arg(long, value_name = "N", env = "MAX_RISK_CHURN_DELTA", default_value_t = 10)]
    pub max_risk_churn_delta: u64,
    /// Risk churn that is so many times what it was is a spike
    #[arg(long, value_name = "FACTOR", env = "RISK_CHURN_SPIKE_THRESHOLD", default_value_t = 2.0)]
    pub risk_churn_spike_threshold: f64,
    /// A spike fails
    #[arg(long, env = "RISK_CHURN_SPIKE_FAIL", value_parser = BoolishValueParser::new())]
    pub risk_churn_spike_fail: bool,
}

/// How a gate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Within the limit.
    Ok,
    /// Not known.
    Unknown,
    /// Beyond what is usual, and allowed.
    Warn,
    /// Beyond the limit.
    Fail,
}

/// One gate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gate {
    /// Its name.
    pub gate: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// Why.
    pub message: String,
}

/// One of the two kinds of churn.
type Churn = fn(&Snapshot) -> Option<u64>;

/// Judges a snapshot against the one before it.
pub fn judge(now: &Snapshot, before: Option<&Snapshot>, limits: &Limits) -> Vec<Gate> {
    let gate = |gate, outcome, message| Gate { gate, outcome, message };
    let percent = now.runbook_percent;
    let least = limits.runbook_min_percent;
    let enough = if percent >= least { Outcome::Ok } else { Outcome::Fail };
    let mut gates = vec![gate("runbooks", enough, format!("{percent} % have a runbook, at least {least} % must"))];
    let of_churn: [(&str, Churn, u64); 2] = [
        ("churn", |s| s.churn_30d, limits.max_churn_delta),
        ("risk-churn", |s| s.risk_churn_30d, limits.max_risk_churn_delta),
    ];
    for (name, of, limit) in of_churn {
        gates.push(match (of(now), before.and_then(of)) {
            (Some(now), Some(before)) => {
                let outcome = if now.saturating_sub(before) > limit { Outcome::Fail } else { Outcome::Ok };
                gate(name, outcome, format!("it went from {before} to {now}, at most {limit} more are allowed"))
            }
            _ => gate(name, Outcome::Unknown, "unknown now or before".to_owned()),
        });
    }
    gates.push(match (now.risk_churn_30d, before.and_then(|before| before.risk_churn_30d)) {
        (Some(now), Some(before)) if is_spike(before, now, limits.risk_churn_spike_threshold) => {
            let outcome = if limits.risk_churn_spike_fail { Outcome::Fail } else { Outcome::Warn };
            gate("risk-churn-spike", outcome, format!("it went from {before} to {now}"))
        }
        (Some(now), Some(before)) => gate("risk-churn-spike", Outcome::Ok, format!("it went from {before} to {now}")),
        _ => gate("risk-churn-spike", Outcome::Unknown, "unknown now or before".to_owned()),
    });
    gates
}

/// Whether churn jumped: something after nothing, or `threshold` times what it was.
pub fn is_spike(before: u64, now: u64, threshold: f64) -> bool {
    now > before && now as f64 >= threshold * before as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_after_nothing_is_a_spike_and_nothing_is_not() {
        for (before, now, wanted) in
            [(0, 0, false), (0, 5, true), (0, 1, true), (5, 5, false), (5, 9, false), (5, 10, true)]
        {
            assert_eq!(is_spike(before, now, 2.0), wanted, "{before} -> {now}");
        }
        assert!(!is_spike(5, 5, 0.5), "what does not rise is no spike");
    }
}
