//! The badges of a snapshot. Pure.

use super::metrics::Snapshot;
use crate::badge::{BLUE, Badge, GREEN, GREY, LIGHT_GREEN, RED, YELLOW};

/// Each badge with the name of its file.
pub fn badges(of: &Snapshot) -> Vec<(&'static str, Badge)> {
    let date = of.last_updated.split('T').next().filter(|date| !date.is_empty());
    let unknown = || ("unknown".to_owned(), GREY);
    let shown = |value: Option<(String, &'static str)>| value.unwrap_or_else(unknown);
    let badge = |label: &str, (message, color): (String, &'static str)| Badge::new(label, message, color);
    let deprecated = format!("{}/{}", of.alerts_deprecated, of.alerts_total);
    let runbooks = (format!("{}%", of.runbook_percent), by_share(of.runbook_percent / 100.0));
    let age = |days: i64| {
        (
            format!("{days} d"),
            if days <= 30 {
                GREEN
            } else if days <= 180 {
                YELLOW
            } else {
                RED
            },
        )
    };
    vec![
        ("badge-taxonomy.json", badge("alert taxonomy", shown(date.map(|date| (date.to_owned(), BLUE))))),
        ("badge-alerts-total.json", badge("alerts", (of.alerts_total.to_string(), BLUE))),
        ("badge-alerts-deprecated.json", badge("alerts deprecated", (deprecated, BLUE))),
        (
            "badge-alerts-churn.json",
            badge("alert churn 30 d", shown(of.churn_30d.map(|n| (n.to_string(), by_count(n, 5))))),
        ),
        (
            "badge-alerts-risk-churn.json",
            badge("alert risk churn 30 d", shown(of.risk_churn_30d.map(|n| (n.to_string(), by_count(n, 10))))),
        ),
        ("badge-alerts-stability.json", badge("alert stability", shown(of.stability.map(share)))),
        ("badge-alerts-risk-stability.json", badge("alert risk stability", shown(of.risk_stability.map(share)))),
        ("badge-runbook-completeness.json", badge("runbooks", runbooks)),
        ("badge-taxonomy-age.json", badge("taxonomy changed", shown(of.age_days.map(age)))),
    ]
}

fn share(value: f64) -> (String, &'static str) {
    (format!("{value}"), by_share(value))
}

fn by_share(value: f64) -> &'static str {
    match value {
        v if v >= 0.95 => GREEN,
        v if v >= 0.9 => LIGHT_GREEN,
        v if v >= 0.75 => YELLOW,
        _ => RED,
    }
}

fn by_count(n: u64, limit: u64) -> &'static str {
    match n {
        0 => GREEN,
        n if n <= limit => LIGHT_GREEN,
        n if n <= 2 * limit => YELLOW,
        _ => RED,
    }
}
