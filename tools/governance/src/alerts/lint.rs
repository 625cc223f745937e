//! Whether each entry is complete and true to itself. Pure.

use super::{
    rules::milliseconds,
    taxonomy::{CATEGORIES, Entry, OF_TWO_WINDOWS, Placed, SCOPES, SEVERITIES, is_placeholder},
};
use crate::exit::Fault;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use std::collections::BTreeMap;

/// What is asked of deprecated alerts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Days after which one should be gone; 0 is off.
    pub max_days: u32,
    /// Too old is a fault.
    pub strict: bool,
}

/// What is wrong, and what is to be looked at.
#[derive(Debug, Default)]
pub struct Found {
    /// Hard failures.
    pub faults: Vec<Fault>,
    /// What does not fail.
    pub warnings: Vec<Fault>,
}

/// Judges every entry.
pub fn lint(placed: &Placed, policy: Policy, now: Timestamp) -> Found {
    let mut found = Found { faults: placed.faults.clone(), warnings: Vec::new() };
    if placed.taxonomy.last_updated.parse::<Timestamp>().is_err() {
        let message = format!("last_updated {:?} is not a time such as {now}", placed.taxonomy.last_updated);
        found.faults.push(Fault::new(&placed.path, 0, "last-updated", message));
    }
    let mut ids = BTreeMap::new();
    let mut names = BTreeMap::new();
    for (index, entry) in placed.taxonomy.alerts.iter().enumerate() {
        let mut fault = |field: &str, rule, message: String| {
            let message = format!("{}: {message}", entry.alert);
            found.faults.push(Fault::new(&placed.path, placed.line(index, field), rule, message));
        };
        of_values(entry, &mut fault);
        of_texts(entry, &mut fault);
        of_times(entry, &mut fault);
        if ids.insert(&entry.id, index).is_some() || entry.id.trim().is_empty() {
            fault("id", "id", format!("the id {:?} is empty or taken", entry.id));
        }
        if names.insert((&entry.alert, &entry.severity), index).is_some() || entry.alert.trim().is_empty() {
            fault("alert", "alert", format!("there is another entry of it with severity {}", entry.severity));
        }
        if !entry.deprecated {
            continue;
        }
        let Some(since) = entry.deprecated_since.as_deref().and_then(moment) else {
            let given = entry.deprecated_since.as_deref().unwrap_or_default();
            fault(
                "deprecated_since",
                "deprecated-since",
                format!("deprecated_since {given:?} is not a time or a date"),
            );
            continue;
        };
        let age = now.duration_since(since).as_hours() / 24;
        if policy.max_days > 0 && age > i64::from(policy.max_days) {
            let message = format!(
                "{}: it has been deprecated for {age} days, more than TAXONOMY_DEPRECATION_MAX_DAYS {}",
                entry.alert, policy.max_days
            );
            let line = placed.line(index, "deprecated_since");
            let to = if policy.strict { &mut found.faults } else { &mut found.warnings };
            to.push(Fault::new(&placed.path, line, "deprecated-age", message));
        }
    }
    found
}

fn of_values(entry: &Entry, fault: &mut impl FnMut(&str, &'static str, String)) {
    for (field, value, allowed) in [
        ("scope", &entry.scope, &SCOPES[..]),
        ("category", &entry.category, &CATEGORIES[..]),
        ("severity", &entry.severity, &SEVERITIES[..]),
    ] {
        if !allowed.contains(&value.as_str()) {
            let rule = match field {
                "scope" => "scope",
                "category" => "category",
                _ => "severity",
            };
            fault(field, rule, format!("{field} {value:?} is not one of {}", allowed.join(", ")));
        }
    }
}

fn of_texts(entry: &Entry, fault: &mut impl FnMut(&str, &'static str, String)) {
    if entry.deprecated {
        if !entry.description.to_lowercase().contains("deprecated") {
            fault("description", "deprecated-word", "the description does not say that it is deprecated".to_owned());
        }
        return;
    }
    if is_placeholder(&entry.description) {
        let message = format!("the description {:?} is a placeholder", entry.description);
        fault("description", "placeholder-description", message);
    }
    if entry.lacks_runbook() {
        let message = format!("the runbook {:?} is a placeholder", entry.runbook);
        fault("runbook", "placeholder-runbook", message);
    }
}

/// What `for` and `windows` say must be possible at the same time.
fn of_times(entry: &Entry, fault: &mut impl FnMut(&str, &'static str, String)) {
    if entry.created_at.parse::<Timestamp>().is_err() {
        fault("created_at", "created-at", format!("created_at {:?} is not a time", entry.created_at));
    }
    let held = milliseconds(&entry.held);
    if held.is_none() {
        fault("for", "for-windows", format!("for {:?} is not a duration such as 5m", entry.held));
    }
    let windows: Option<Vec<u64>> = entry.windows.iter().map(|window| milliseconds(window)).collect();
    let Some(windows) = windows else {
        fault("windows", "for-windows", format!("windows {:?} are not durations such as 5m", entry.windows));
        return;
    };
    if windows.contains(&0) || !windows.is_sorted_by(|a, b| a < b) {
        fault("windows", "for-windows", "windows are not each longer than the one before".to_owned());
    }
    if entry.deprecated || !OF_TWO_WINDOWS.contains(&entry.category.as_str()) {
        return;
    }
    if windows.len() < 2 {
        let message =
            format!("category {} compares a short window with a long one; windows has not two", entry.category);
        fault("windows", "for-windows", message);
    }
    if let (Some(held), Some(longest)) = (held, windows.last())
        && held > *longest
    {
        let message =
            format!("for {} is longer than the longest window: it would outlast what it looks at", entry.held);
        fault("for", "for-windows", message);
    }
}

/// A time, or a date's begin in UTC.
fn moment(text: &str) -> Option<Timestamp> {
    let of_date = |date: Date| date.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    text.parse().ok().or_else(|| text.parse().ok().and_then(of_date))
}
