//! What changed between two taxonomies, and what that counts. Pure.

use super::taxonomy::{Entry, Taxonomy, risk};
use serde::Serialize;
use std::collections::BTreeMap;

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Delta {
    /// Alerts that are new, by name.
    pub added: Vec<Named>,
    /// Alerts that are gone.
    pub removed: Vec<Named>,
    /// Alerts of which fields changed.
    pub modified: Vec<Modified>,
    /// Alerts whose severity changed; they are among `modified` too.
    pub severity_transitions: Vec<Transition>,
    /// Added and removed alerts.
    pub churn: u64,
    /// The same, each counted by its severity.
    pub risk_churn: u64,
    /// Active alerts without a runbook now, less those before.
    pub runbook_missing_delta: i64,
    /// Runbook completeness now less before, in percent points.
    pub runbook_percent_delta: Tenths,
}

/// A number with one digit behind the point: the same input gives the same bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenths(pub i64);

impl Serialize for Tenths {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(self.0 as f64 / 10.0)
    }
}

/// An alert.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Named {
    /// Its name.
    pub alert: String,
    /// Its severity.
    pub severity: String,
}

/// Fields of an alert that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Modified {
    /// Its name.
    pub alert: String,
    /// Each field with what it was and what it is, as text.
    pub fields: BTreeMap<&'static str, [String; 2]>,
}

/// Another severity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Transition {
    /// Its name.
    pub alert: String,
    /// Before.
    pub from: String,
    /// Now.
    pub to: String,
}

impl Delta {
    /// Between two versions.
    pub fn between(prev: &Taxonomy, curr: &Taxonomy) -> Self {
        let (before, now) = (by_name(prev), by_name(curr));
        let mut delta = Self::default();
        let names: std::collections::BTreeSet<_> = before.keys().chain(now.keys()).copied().collect();
        for name in names {
            let none = Vec::new();
            let (pairs, old, new) = paired(before.get(name).unwrap_or(&none), now.get(name).unwrap_or(&none));
            delta.removed.extend(old.into_iter().map(named));
            delta.added.extend(new.into_iter().map(named));
            for (old, new) in pairs {
                delta.compare(old, new);
            }
        }
        let changed = || delta.added.iter().chain(&delta.removed);
        delta.churn = changed().count() as u64;
        delta.risk_churn = changed().map(|named| risk(&named.severity)).sum();
        let (before, now) = (Runbooks::of(prev), Runbooks::of(curr));
        delta.runbook_missing_delta = now.missing as i64 - before.missing as i64;
        delta.runbook_percent_delta = Tenths(now.percent().0 - before.percent().0);
        delta
    }

    fn compare(&mut self, old: &Entry, new: &Entry) {
        let mut fields = BTreeMap::new();
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        let labels = |entry: &Entry| entry.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
        for (field, was, is) in [
            ("group", old.group.clone(), new.group.clone()),
            ("severity", old.severity.clone(), new.severity.clone()),
            ("scope", old.scope.clone(), new.scope.clone()),
            ("category", old.category.clone(), new.category.clone()),
            ("description", old.description.clone(), new.description.clone()),
            ("slo", optional(&old.slo), optional(&new.slo)),
            ("expr_summary", old.expr_summary.clone(), new.expr_summary.clone()),
            ("for", old.held.clone(), new.held.clone()),
            ("windows", old.windows.join(" "), new.windows.join(" ")),
            ("runbook", old.runbook.clone(), new.runbook.clone()),
            ("labels", labels(old), labels(new)),
            ("deprecated", old.deprecated.to_string(), new.deprecated.to_string()),
            ("deprecated_since", optional(&old.deprecated_since), optional(&new.deprecated_since)),
        ] {
            if was != is {
                fields.insert(field, [was, is]);
            }
        }
        if let Some([from, to]) = fields.get("severity") {
            let (alert, from, to) = (new.alert.clone(), from.clone(), to.clone());
            self.severity_transitions.push(Transition { alert, from, to });
        }
        if !fields.is_empty() {
            self.modified.push(Modified { alert: new.alert.clone(), fields });
        }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.modified.is_empty()
    }
}

/// Runbooks of the active alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runbooks {
    /// Active alerts.
    pub active: u64,
    /// Those without a runbook.
    pub missing: u64,
}

impl Runbooks {
    /// Of a taxonomy.
    pub fn of(taxonomy: &Taxonomy) -> Self {
        let missing = taxonomy.active().filter(|entry| entry.lacks_runbook()).count() as u64;
        Self { active: taxonomy.active().count() as u64, missing }
    }

    /// Of a hundred active alerts so many have one, rounded down; no alert lacks one where there is none.
    pub fn percent(self) -> Tenths {
        Tenths(match self.active {
            0 => 1_000,
            active => ((active - self.missing) * 1_000 / active) as i64,
        })
    }
}

fn by_name(taxonomy: &Taxonomy) -> BTreeMap<&str, Vec<&Entry>> {
    let mut found: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in &taxonomy.alerts {
        found.entry(&entry.alert).or_default().push(entry);
    }
    found
}

fn named(entry: &Entry) -> Named {
    Named { alert: entry.alert.clone(), severity: entry.severity.clone() }
}

type Paired<'a> = (Vec<(&'a Entry, &'a Entry)>, Vec<&'a Entry>, Vec<&'a Entry>);

/// Entries of one name: those of equal severity belong together, then the others in their order; what is left over.
fn paired<'a>(old: &[&'a Entry], new: &[&'a Entry]) -> Paired<'a> {
    let (mut old, mut new, mut pairs) = (old.to_vec(), new.to_vec(), Vec::new());
    for any in [false, true] {
        let mut at = 0;
        while at < old.len() {
            match new.iter().position(|entry| any || entry.severity == old[at].severity) {
                Some(found) => pairs.push((old.remove(at), new.remove(found))),
                None => at += 1,
            }
        }
    }
    (pairs, old, new)
}
