//! Whether rules and entries agree, and the entries that rules still lack. Pure.

use super::{
    rules::{Rule, summary},
    taxonomy::{Entry, Placed, Taxonomy},
};
use crate::exit::Fault;
use jiff::Timestamp;
use std::path::Path;

/// Holds every rule against its entry, and the reverse.
pub fn check(placed: &Placed, rules: &[Rule]) -> Vec<Fault> {
    let mut faults = placed.faults.clone();
    let mut used = vec![false; placed.taxonomy.alerts.len()];
    for rule in rules {
        let Some(index) = find(&placed.taxonomy, rule) else {
            let message = format!("{} has no entry in {}", rule.alert, placed.path.display());
            faults.push(Fault::new(&rule.file, rule.line, "no-entry", message));
            continue;
        };
        used[index] = true;
        let entry = &placed.taxonomy.alerts[index];
        if entry.deprecated {
            let message = format!("{} is deprecated in {} and still in the rules", rule.alert, placed.path.display());
            faults.push(Fault::new(&rule.file, rule.line, "deprecated-rule", message));
        }
        for (field, of_entry, of_rule) in differences(entry, rule) {
            let message = format!(
                "{}: {field} is {of_entry:?}, in {}:{} it is {of_rule:?}",
                entry.alert,
                rule.file.display(),
                rule.line
            );
            faults.push(Fault::new(&placed.path, placed.line(index, field), "differs", message));
        }
    }
    for (index, entry) in placed.taxonomy.alerts.iter().enumerate() {
        if !used[index] && !entry.deprecated {
            let message = format!("{} is in no rule file: deprecate it, or remove it", entry.alert);
            faults.push(Fault::new(&placed.path, placed.line(index, "alert"), "no-rule", message));
        }
    }
    faults
}

/// A runbook that is a file must be there, below `root`.
pub fn missing_runbooks(placed: &Placed, root: &Path) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, entry) in placed.taxonomy.alerts.iter().enumerate() {
        let file = entry.runbook.split('#').next().unwrap_or_default();
        if entry.deprecated || entry.lacks_runbook() || file.contains("://") || root.join(file).is_file() {
            continue;
        }
        let message = format!("{}: the runbook {file:?} is not a file of {}", entry.alert, root.display());
        faults.push(Fault::new(&placed.path, placed.line(index, "runbook"), "runbook-missing", message));
    }
    faults
}

/// The entry of a rule: of its name and severity, else of its name.
fn find(taxonomy: &Taxonomy, rule: &Rule) -> Option<usize> {
    let of_name = |severity: bool| {
        taxonomy.alerts.iter().position(|e| e.alert == rule.alert && (!severity || e.severity == rule.severity))
    };
    of_name(true).or_else(|| of_name(false))
}

/// Fields in which they differ: name, of the entry, of the rule.
fn differences(entry: &Entry, rule: &Rule) -> Vec<(&'static str, String, String)> {
    let summary = summary(&rule.expr);
    let mut found = Vec::new();
    for (field, of_entry, of_rule) in [
        ("severity", &entry.severity, &rule.severity),
        ("expr_summary", &entry.expr_summary, &summary),
        ("for", &entry.held, &rule.held),
        ("group", &entry.group, &rule.group),
    ] {
        if of_entry != of_rule {
            found.push((field, of_entry.clone(), of_rule.clone()));
        }
    }
    if entry.windows != rule.windows {
        found.push(("windows", entry.windows.join(" "), rule.windows.join(" ")));
    }
    if entry.labels != rule.labels {
        found.push(("labels", format!("{:?}", entry.labels), format!("{:?}", rule.labels)));
    }
    if !rule.runbook_url.is_empty() && !rule.runbook_url.ends_with(&entry.runbook) {
        found.push(("runbook", entry.runbook.clone(), rule.runbook_url.clone()));
    }
    found
}

/// Adds an entry for each rule without one, and with `refresh` copies into the others what the rules say. What a person
/// must decide is left to be filled in, so that lint refuses it. Says how many were added and how many changed.
pub fn scaffold(taxonomy: &mut Taxonomy, rules: &[Rule], refresh: bool, now: Timestamp) -> (usize, usize) {
    let (mut added, mut changed) = (0, 0);
    for rule in rules {
        match find(taxonomy, rule) {
            None => {
                let id = free_id(taxonomy, rule);
                taxonomy.alerts.push(Entry {
                    id,
                    alert: rule.alert.clone(),
                    group: rule.group.clone(),
                    severity: rule.severity.clone(),
                    description: "TODO: what it means that this fires".to_owned(),
                    slo: None,
                    scope: "TODO".to_owned(),
                    category: "TODO".to_owned(),
                    expr_summary: summary(&rule.expr),
                    held: rule.held.clone(),
                    windows: rule.windows.clone(),
                    runbook: "TODO: the file or URL that says what to do".to_owned(),
                    labels: rule.labels.clone(),
                    deprecated: false,
                    deprecated_since: None,
                    created_at: now.to_string(),
                });
                added += 1;
            }
            Some(index) if refresh => {
                let entry = &mut taxonomy.alerts[index];
                let before = entry.clone();
                entry.group.clone_from(&rule.group);
                entry.expr_summary = summary(&rule.expr);
                entry.held.clone_from(&rule.held);
                entry.windows.clone_from(&rule.windows);
                entry.labels.clone_from(&rule.labels);
                changed += usize::from(*entry != before);
            }
            Some(_) => {}
        }
    }
    if added + changed > 0 {
        taxonomy.last_updated = now.to_string();
    }
    (added, changed)
}

/// The name in small letters and hyphens, with the severity where it is taken.
fn free_id(taxonomy: &Taxonomy, rule: &Rule) -> String {
    let mut id = String::new();
    let letters: Vec<char> = rule.alert.chars().collect();
    for (n, c) in letters.iter().enumerate() {
        let before = n.checked_sub(1).and_then(|n| letters.get(n));
        let begins = before.is_some_and(|b| !b.is_uppercase()) || letters.get(n + 1).is_some_and(|a| a.is_lowercase());
        if n > 0 && c.is_uppercase() && begins {
            id.push('-');
        }
        id.extend(if c.is_alphanumeric() { c.to_lowercase().next() } else { Some('-') });
    }
    let is_taken = |id: &str| taxonomy.alerts.iter().any(|entry| entry.id == id);
    if is_taken(&id) {
        id = format!("{id}-{}", rule.severity);
    }
    let numbered = (2..).map(|n| format!("{id}-{n}"));
    std::iter::once(id.clone()).chain(numbered).find(|id| !is_taken(id)).expect("numbers do not end")
}
