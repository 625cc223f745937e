//! What a comparison of two contracts finds, and the rules that say how much it matters.
//!
//! Every rule is declared here once, with its level; docs/reference/contract-rules.md lists the same rules, and a test
//! compares both. A finding names its rule, where it applies and what changed.

use serde::Serialize;
use std::{collections::BTreeSet, fmt};

/// How much a change matters to those who use the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Every user of the old contract can use the new one.
    Compatible,
    /// Some users may notice, although the contract allows it.
    Warning,
    /// A user that kept to the old contract fails with the new one.
    Breaking,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compatible => "compatible",
            Self::Warning => "warning",
            Self::Breaking => "breaking",
        })
    }
}

/// A kind of change.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// How findings, announcements and the page name it.
    pub id: &'static str,
    /// How much it matters.
    pub level: Level,
    /// What changed, in one sentence.
    pub meaning: &'static str,
}

/// One change between two contracts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// The rule that says so.
    pub rule: &'static str,
    /// The document it is in, relative to the compared folders.
    pub file: String,
    /// The operation, message, setting or metric.
    pub place: String,
    /// Where in it, such as `request.body.tool`; empty for the whole.
    pub at: String,
    /// What changed.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}: {}", self.level, self.rule, self.file, self.place)?;
        if !self.at.is_empty() {
            write!(f, ": {}", self.at)?;
        }
        write!(f, ": {}", self.text)
    }
}

/// Collects the findings of one document.
#[derive(Debug)]
pub struct Findings {
    file: String,
    found: Vec<Finding>,
    /// Pairs of schemas that were compared without a finding: another place that refers to both needs no comparison.
    clean: BTreeSet<Pair>,
}

/// Two schemas by their addresses in documents that live longer, and whether they are of a request.
pub type Pair = (usize, usize, bool);

impl Findings {
    /// Of the document with this name.
    #[must_use]
    pub fn of(file: &str) -> Self {
        Self { file: file.to_owned(), found: Vec::new(), clean: BTreeSet::new() }
    }

    /// Adds one.
    pub fn add(&mut self, rule: &'static Rule, place: &str, at: &str, text: impl Into<String>) {
        self.found.push(Finding {
            level: rule.level,
            rule: rule.id,
            file: self.file.clone(),
            place: place.to_owned(),
            at: at.to_owned(),
            text: text.into(),
        });
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.found.len()
    }

    /// Whether two schemas were compared before, without a finding.
    #[must_use]
    pub fn is_clean(&self, pair: Pair) -> bool {
        self.clean.contains(&pair)
    }

    /// Remembers pairs without a finding.
    pub fn remember_clean(&mut self, pairs: impl IntoIterator<Item = Pair>) {
        self.clean.extend(pairs);
    }

    /// All, in the order of their level, rule and place; each once.
    #[must_use]
    pub fn sorted(mut self) -> Vec<Finding> {
        self.found.sort_by(|a, b| b.level.cmp(&a.level).then_with(|| a.cmp(b)));
        self.found.dedup();
        self.found
    }
}
