//! The numbers of a taxonomy: as a snapshot, and for Prometheus. Pure.

use super::{
    delta::{Delta, Runbooks, Tenths},
    taxonomy::{SEVERITIES, Taxonomy, risk},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write};

/// Churn is counted over so many days.
pub const CHURN_DAYS: i64 = 30;

/// The numbers at one moment; `null` is unknown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The form of this file, 1.
    pub schema_version: u32,
    /// When they were taken.
    pub at: Timestamp,
    /// When the taxonomy says that it last changed; empty where that is not a time.
    pub last_updated: String,
    /// Days since then.
    pub age_days: Option<i64>,
    /// All alerts.
    pub alerts_total: u64,
    /// Those of them that are deprecated.
    pub alerts_deprecated: u64,
    /// All alerts by severity.
    pub by_severity: BTreeMap<String, u64>,
    /// Active alerts without a runbook.
    pub runbook_missing: u64,
    /// Of a hundred active alerts so many have a runbook.
    pub runbook_percent: f64,
    /// Alerts added and removed in 30 days; unknown where the history does not reach back so far.
    pub churn_30d: Option<u64>,
    /// The same, each counted by its severity.
    pub risk_churn_30d: Option<u64>,
    /// 1 − churn / alerts, not below 0.
    pub stability: Option<f64>,
    /// 1 − risk churn / risk of all alerts, not below 0.
    pub risk_stability: Option<f64>,
}

impl Snapshot {
    /// Of a taxonomy, compared with that of 30 days ago where it is known.
    pub fn of(now: &Taxonomy, before: Option<&Taxonomy>, at: Timestamp) -> Self {
        let runbooks = Runbooks::of(now);
        let mut by_severity: BTreeMap<String, u64> = SEVERITIES.iter().map(|s| ((*s).to_owned(), 0)).collect();
        for entry in &now.alerts {
            *by_severity.entry(entry.severity.clone()).or_default() += 1;
        }
        let delta = before.map(|before| Delta::between(before, now));
        let all_risk = now.alerts.iter().map(|entry| risk(&entry.severity)).sum();
        let updated: Option<Timestamp> = now.last_updated.parse().ok();
        Self {
            schema_version: 1,
            at,
            last_updated: updated.map(|at| at.to_string()).unwrap_or_default(),
            age_days: updated.map(|updated| (at.duration_since(updated).as_hours() / 24).max(0)),
            alerts_total: now.alerts.len() as u64,
            alerts_deprecated: now.alerts.iter().filter(|entry| entry.deprecated).count() as u64,
            by_severity,
            runbook_missing: runbooks.missing,
            runbook_percent: tenths(runbooks.percent()),
            churn_30d: delta.as_ref().map(|delta| delta.churn),
            risk_churn_30d: delta.as_ref().map(|delta| delta.risk_churn),
            stability: delta.as_ref().map(|delta| kept(delta.churn, now.alerts.len() as u64)),
            risk_stability: delta.as_ref().map(|delta| kept(delta.risk_churn, all_risk)),
        }
    }

    /// As Prometheus reads it. `taxonomy_alerts_total` has the name that dashboards know, and is not a counter: its
    /// type is left open.
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, rows: Vec<(String, String)>| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in rows {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let severities =
            self.by_severity.iter().map(|(severity, n)| (format!("{{severity={severity:?}}}"), n.to_string()));
        let one = |value: String| vec![(String::new(), value)];
        family(
            "taxonomy_alerts_total",
            "untyped",
            "Alerts of the taxonomy, also deprecated ones.",
            severities.collect(),
        );
        let missing = one(self.runbook_missing.to_string());
        family("taxonomy_alerts_runbook_missing", "gauge", "Active alerts without a runbook.", missing);
        let percent = one(self.runbook_percent.to_string());
        family(
            "taxonomy_alerts_runbook_coverage_percent",
            "gauge",
            "Active alerts with a runbook, of a hundred.",
            percent,
        );
        text
    }
}

fn tenths(of: Tenths) -> f64 {
    of.0 as f64 / 10.0
}

/// What is left of 1, to four digits.
fn kept(churn: u64, all: u64) -> f64 {
    match all {
        0 => f64::from(u8::from(churn == 0)),
        all => (all.saturating_sub(churn) * 10_000 / all) as f64 / 10_000.0,
    }
}
