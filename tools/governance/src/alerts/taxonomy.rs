//! The taxonomy: one entry for each alert, read with the line of each, written in one form.
//!
//! Reading is lenient about values, which `lint` judges, and strict about shape: an unknown field is a typing mistake.
//! Owns the one scale of severities that churn, stability and risk are counted in.

use crate::{
    artifact::{self, json},
    exit::{Fault, broken},
};
use agentforge_terminal::Result;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The version of the file's form.
pub const SCHEMA_VERSION: u32 = 1;
/// The severities that an entry may have.
pub const SEVERITIES: [&str; 3] = ["info", "warning", "critical"];
/// What an alert may be about.
pub const SCOPES: [&str; 7] = ["service", "system", "multi-service", "dimension", "route", "agent", "fleet"];
/// What an alert may measure.
pub const CATEGORIES: [&str; 11] = [
    "latency",
    "error-rate",
    "throughput",
    "quality",
    "guardrail",
    "availability",
    "latency-acceleration",
    "error-acceleration",
    "error-budget-burn",
    "error-burn-fast",
    "error-burn-slow",
];
/// Those that compare two windows.
pub const OF_TWO_WINDOWS: [&str; 5] =
    ["latency-acceleration", "error-acceleration", "error-budget-burn", "error-burn-fast", "error-burn-slow"];

/// What a change of an alert of this severity counts in risk, on the one scale of all artifacts; the names of older
/// taxonomies have their place on it. Anything else counts as the highest: it may be.
pub fn risk(severity: &str) -> u64 {
    match severity {
        "info" | "low" => 1,
        "warning" | "medium" => 2,
        "high" => 3,
        _ => 5,
    }
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// A name that never changes, also when the alert's does.
    pub id: String,
    /// The alert's name in the rules.
    pub alert: String,
    /// The group of rules that it is in.
    pub group: String,
    /// One of [`SEVERITIES`].
    pub severity: String,
    /// What it means that it fires.
    pub description: String,
    /// The objective that it protects, if it does.
    #[serde(default)]
    pub slo: Option<String>,
    /// One of [`SCOPES`].
    pub scope: String,
    /// One of [`CATEGORIES`].
    pub category: String,
    /// The rule's expression, see [`super::rules::summary`].
    pub expr_summary: String,
    /// How long the expression must hold.
    #[serde(rename = "for")]
    pub held: String,
    /// The ranges of time that the expression looks at, the shortest first.
    pub windows: Vec<String>,
    /// What to do: a file of the repository, or a URL.
    pub runbook: String,
    /// The rule's labels but severity.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// It is not in the rules any more.
    #[serde(default)]
    pub deprecated: bool,
    /// Since when; RFC 3339, or a date.
    #[serde(default)]
    pub deprecated_since: Option<String>,
    /// When the entry was made, RFC 3339.
    pub created_at: String,
}

impl Entry {
    /// Whether the runbook is still to be written.
    pub fn lacks_runbook(&self) -> bool {
        is_placeholder(&self.runbook)
    }
}

/// Empty, or a word for what is still to be written.
pub fn is_placeholder(text: &str) -> bool {
    let text = text.trim().to_lowercase();
    text.is_empty() || text == "tbd" || text == "placeholder" || text.starts_with("todo")
}

/// All alerts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Taxonomy {
    /// The form, [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// When it last changed, RFC 3339.
    pub last_updated: String,
    /// In the order of the file.
    pub alerts: Vec<Entry>,
}

impl Taxonomy {
    /// None yet.
    pub fn empty(at: jiff::Timestamp) -> Self {
        Self { schema_version: SCHEMA_VERSION, last_updated: at.to_string(), alerts: Vec::new() }
    }

    /// The file's text: entries in order of group and name.
    pub fn text(&self) -> String {
        let mut sorted = self.clone();
        sorted.alerts.sort_by(|a, b| (&a.group, &a.alert, &a.severity).cmp(&(&b.group, &b.alert, &b.severity)));
        json(&sorted)
    }

    /// Those that are not deprecated.
    pub fn active(&self) -> impl Iterator<Item = &Entry> {
        self.alerts.iter().filter(|entry| !entry.deprecated)
    }
}

/// A taxonomy with the place of everything in it.
#[derive(Debug)]
pub struct Placed {
    /// The file.
    pub path: PathBuf,
    /// What is in it, without the entries that could not be read.
    pub taxonomy: Taxonomy,
    /// Entries that are not ones.
    pub faults: Vec<Fault>,
    /// The text and the first line of each entry.
    places: Vec<(String, usize)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape<'a> {
    schema_version: u32,
    last_updated: String,
    #[serde(borrow)]
    alerts: Vec<&'a RawValue>,
    #[serde(rename = "$schema", default)]
    _schema: Option<String>,
}

impl Placed {
    /// Reads a file.
    ///
    /// # Errors
    /// Broken input: it is not JSON, or not a taxonomy.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(path, &artifact::read(path)?)
    }

    /// The same of a text that was read already.
    ///
    /// # Errors
    /// As [`Placed::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let shape: Shape<'_> = serde_json::from_str(text).map_err(|e| broken(path, e.line(), e))?;
        if shape.schema_version != SCHEMA_VERSION {
            let message = format!("schema_version is {}, this program reads {SCHEMA_VERSION}", shape.schema_version);
            return Err(broken(path, line_of(text, "schema_version"), message));
        }
        let (mut alerts, mut faults, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for raw in shape.alerts {
            // Both point into the same text.
            let offset = (raw.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
            let line = text.get(..offset).map_or(0, |before| before.matches('\n').count() + 1);
            match serde_json::from_str::<Entry>(raw.get()) {
                Ok(entry) => {
                    alerts.push(entry);
                    places.push((raw.get().to_owned(), line));
                }
                Err(e) => faults.push(Fault::new(path, line + e.line().saturating_sub(1), "shape", e.to_string())),
            }
        }
        let taxonomy = Taxonomy { schema_version: shape.schema_version, last_updated: shape.last_updated, alerts };
        Ok(Self { path: path.to_owned(), taxonomy, faults, places })
    }

    /// The taxonomy, when every entry of it is one.
    ///
    /// # Errors
    /// Broken input, with the first entry that is not one.
    pub fn whole(self) -> Result<Taxonomy> {
        match self.faults.first() {
            None => Ok(self.taxonomy),
            Some(fault) => Err(broken(&self.path, fault.line, &fault.message)),
        }
    }

    /// The line of a field of the entry at `index`; the entry's own where it has no such field.
    pub fn line(&self, index: usize, field: &str) -> usize {
        let Some((text, first)) = self.places.get(index) else { return 0 };
        match line_of(text, field) {
            0 => *first,
            line => first + line - 1,
        }
    }
}

/// The line of a key in a text of JSON; 0 where it is not.
fn line_of(text: &str, key: &str) -> usize {
    let quoted = format!("\"{key}\"");
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find(&quoted)) {
        let end = at + found + quoted.len();
        if text[end..].trim_start().starts_with(':') {
            return text[..end].matches('\n').count() + 1;
        }
        at = end;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_told_from_texts() {
        for text in ["", "  ", "TBD", "tbd ", "Placeholder", "todo", "TODO: write it"] {
            assert!(is_placeholder(text), "{text:?}");
        }
        for text in ["docs/runbooks/todo.md", "tbd soon", "placeholders", "x"] {
            assert!(!is_placeholder(text), "{text:?}");
        }
    }

    #[test]
    fn an_entry_that_is_none_is_named_with_its_line() {
        let text = "{\"schema_version\":1,\"last_updated\":\"x\",\"alerts\":[\n{\"id\":\"a\"},\n{\n\"id\": \"b\",\n\"colour\": 1}]}";
        let placed = Placed::parse(Path::new("t.json"), text).unwrap();
        let lines: Vec<_> = placed.faults.iter().map(|f| f.line).collect();
        assert_eq!(lines, [2, 5], "{:?}", placed.faults);
        assert!(placed.whole().unwrap_err().message.starts_with("t.json:2: missing field"));
    }

    #[test]
    fn another_version_is_refused() {
        let text = "{\n\"schema_version\": 2, \"last_updated\": \"x\", \"alerts\": []}";
        let failure = Placed::parse(Path::new("t.json"), text).unwrap_err();
        assert!(failure.message.starts_with("t.json:2: schema_version is 2"), "{failure}");
    }

    #[test]
    fn there_is_one_scale_of_severities() {
        let scale: Vec<_> = ["low", "info", "medium", "warning", "high", "critical", "?"].map(risk).into();
        assert_eq!(scale, [1, 1, 2, 2, 3, 5, 5]);
    }
}
