//! What the findings of a comparison add up to: announced or not, and operation by operation.

use super::{
    finding::{Finding, Level},
    openapi::OperationName,
    tree::Tree,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A breaking change that was decided on, and is written down for those whom it breaks.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// The rule.
    pub rule: String,
    /// The place that the finding has.
    pub place: String,
    /// Where in it; all of the place when it is left out.
    #[serde(default)]
    pub at: Option<String>,
    /// What those who are affected need to know.
    pub reason: String,
}

impl Announcement {
    fn covers(&self, finding: &Finding) -> bool {
        self.rule == finding.rule && self.place == finding.place && self.at.as_ref().is_none_or(|at| *at == finding.at)
    }
}

/// status/contract-diff.json.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Of this format.
    pub schema_version: u32,
    /// Whether anything breaks, announced or not.
    pub breaking: bool,
    /// How many findings of each level.
    pub counts: Counts,
    /// Breaking changes that were announced.
    pub announced: Vec<Finding>,
    /// Announcements of changes that are not there.
    pub unused_announcements: Vec<Announcement>,
    /// All others.
    pub findings: Vec<Finding>,
}

/// How many findings of each level.
#[derive(Debug, Default, Serialize)]
pub struct Counts {
    /// Breaking, without those that were announced.
    pub breaking: usize,
    /// Breaking, and announced.
    pub announced: usize,
    /// Warnings.
    pub warning: usize,
    /// Compatible changes.
    pub compatible: usize,
}

impl Report {
    /// Of findings, with what was announced.
    #[must_use]
    pub fn new(all: Vec<Finding>, announcements: &[Announcement]) -> Self {
        let is_announced = |f: &Finding| f.level == Level::Breaking && announcements.iter().any(|a| a.covers(f));
        let breaking = all.iter().any(|f| f.level == Level::Breaking);
        let unused_announcements = announcements.iter().filter(|a| !all.iter().any(|f| a.covers(f))).cloned().collect();
        let (announced, findings): (Vec<_>, Vec<_>) = all.into_iter().partition(is_announced);
        let count = |level| findings.iter().filter(|f: &&Finding| f.level == level).count();
        let counts = Counts {
            breaking: count(Level::Breaking),
            announced: announced.len(),
            warning: count(Level::Warning),
            compatible: count(Level::Compatible),
        };
        Self { schema_version: 1, breaking, counts, announced, unused_announcements, findings }
    }
}

/// status/operations-classification.json.
#[derive(Debug, Default, Serialize)]
pub struct Operations {
    /// Of this format.
    pub schema_version: u32,
    /// New ones.
    pub added: Vec<OperationName>,
    /// Those that are gone.
    pub removed: Vec<OperationName>,
    /// Those with a breaking change.
    pub breaking: Vec<Changed>,
    /// Those with other changes.
    pub compatible: Vec<Changed>,
}

/// An operation that changed, and the rules that say how.
#[derive(Debug, Serialize)]
pub struct Changed {
    /// Which.
    #[serde(flatten)]
    pub operation: OperationName,
    /// The rules of its most important changes.
    pub rules: BTreeSet<&'static str>,
}

impl Operations {
    /// Of two contracts and what differs between them.
    #[must_use]
    pub fn new(old: &Tree, new: &Tree, all: &[&Finding]) -> Self {
        let (before, after) = (old.operations(), new.operations());
        let named = |op: &OperationName| format!("{} {}", op.method, op.path);
        let of_rule = |rule: &str| -> BTreeSet<&str> {
            all.iter().filter(|f| f.rule == rule).map(|f| f.place.as_str()).collect()
        };
        // By the comparison, which knows that a path's parameter may have another name.
        let (gone, come) = (of_rule("operation-removed"), of_rule("operation-added"));
        let mut by_place: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
        for finding in all {
            by_place.entry(finding.place.as_str()).or_default().push(finding);
        }
        let mut operations = Self { schema_version: 1, ..Self::default() };
        operations.removed = before.iter().filter(|op| gone.contains(named(op).as_str())).cloned().collect();
        operations.added = after.iter().filter(|op| come.contains(named(op).as_str())).cloned().collect();
        for op in before.iter().filter(|op| !gone.contains(named(op).as_str())) {
            let Some(found) = by_place.get(named(op).as_str()) else { continue };
            let worst = found.iter().map(|f| f.level).max().unwrap_or(Level::Compatible);
            let rules = found.iter().filter(|f| f.level == worst).map(|f| f.rule).collect();
            let of = if worst == Level::Breaking { &mut operations.breaking } else { &mut operations.compatible };
            of.push(Changed { operation: op.clone(), rules });
        }
        operations
    }
}
