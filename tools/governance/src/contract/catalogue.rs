//! Settings, metrics and subjects, read from the tables of the pages that list them.
//!
//! The pages are made from the code's declarations, so a release's pages are what its code declared. A table is known by
//! the heading of its first column.

use super::{
    finding::{Finding, Findings},
    rules::{self as r},
};
use std::collections::{BTreeMap, BTreeSet};

/// Stands for no value in a cell.
const NOTHING: &str = "–";

/// What a page of tables lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `docs/configuration.md`.
    Settings,
    /// `docs/METRICS.md`.
    Metrics,
    /// The subjects of `docs/messages.md`.
    Subjects,
}

impl Kind {
    /// The heading of the table's first column, and another that it has.
    fn headings(self) -> (&'static str, &'static str) {
        match self {
            Self::Settings => ("Variable", "Default"),
            Self::Metrics => ("Metric", "Type"),
            Self::Subjects => ("Subject", "Stored in"),
        }
    }

    fn is_table(self, headings: &[String]) -> bool {
        let (first, other) = self.headings();
        headings[0] == first && headings.iter().any(|heading| heading == other)
    }
}

/// A name, and the section that it is in: services have settings of the same name.
type Key = (String, String);
/// The rows of one kind, with the other cells by their headings.
type Rows = BTreeMap<Key, BTreeMap<String, String>>;

/// The kinds of tables that a page has.
#[must_use]
pub fn kinds(text: &str) -> Vec<Kind> {
    [Kind::Settings, Kind::Metrics, Kind::Subjects].into_iter().filter(|kind| !rows(text, *kind).is_empty()).collect()
}

fn rows(text: &str, kind: Kind) -> Rows {
    let (mut found, mut section, mut headings) = (Rows::new(), String::new(), Vec::new());
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.trim().to_owned();
        }
        let Some(cells) = cells(line) else {
            headings.clear();
            continue;
        };
        if headings.is_empty() {
            headings = cells;
        } else if kind.is_table(&headings) && !cells[0].starts_with("---") {
            let name = cells[0].trim_matches('`').to_owned();
            // A subject is one wherever it is listed.
            let within = if kind == Kind::Subjects { String::new() } else { section.clone() };
            let rest = headings.iter().cloned().zip(cells).skip(1).collect();
            found.insert((name, within), rest);
        }
    }
    found
}

/// The cells of a row of a table; `\|` belongs to its cell.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let inner = inner.replace("\\|", "\u{1}");
    Some(inner.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect())
}

/// Compares two versions of a page.
#[must_use]
pub fn compare(old: &str, new: &str, kind: Kind, file: &str) -> Vec<Finding> {
    let (before, after) = (rows(old, kind), rows(new, kind));
    let mut found = Findings::of(file);
    let moved = moved(&before, &after);
    for (key, was) in &before {
        let Some(is) = after.get(moved.get(key).unwrap_or(key)) else {
            let rule = match kind {
                Kind::Settings => &r::SETTING_REMOVED,
                Kind::Metrics => &r::METRIC_REMOVED,
                Kind::Subjects => &r::SUBJECT_REMOVED,
            };
            found.add(rule, &key.0, &key.1, "it is gone");
            continue;
        };
        match kind {
            Kind::Settings => setting(key, was, is, &mut found),
            Kind::Metrics => metric(key, was, is, &mut found),
            Kind::Subjects => subject(key, was, is, &mut found),
        }
    }
    let is_new = |key: &Key| !before.contains_key(key) && !moved.values().any(|to| to == key);
    for (key, is) in after.iter().filter(|(key, _)| is_new(key)) {
        let rule = match kind {
            Kind::Settings if is_required(is) => &r::SETTING_ADDED_REQUIRED,
            Kind::Settings => &r::SETTING_ADDED,
            Kind::Metrics => &r::METRIC_ADDED,
            Kind::Subjects => &r::SUBJECT_ADDED,
        };
        found.add(rule, &key.0, &key.1, "it is new");
    }
    found.sorted()
}

/// Rows that are in another section now, or in the same one under another title: the only ones of their name on both sides.
fn moved(before: &Rows, after: &Rows) -> BTreeMap<Key, Key> {
    let only = |name: &str, of: &Rows, other: &Rows| -> Option<Key> {
        let mut found = of.keys().filter(|key| key.0 == name && !other.contains_key(*key));
        found.next().filter(|_| found.next().is_none()).cloned()
    };
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    gone.filter_map(|key| {
        only(&key.0, before, after)?;
        Some((key.clone(), only(&key.0, after, before)?))
    })
    .collect()
}

type Row = BTreeMap<String, String>;

fn cell<'a>(row: &'a Row, heading: &str) -> &'a str {
    row.get(heading).map_or(NOTHING, String::as_str)
}

fn is_required(row: &Row) -> bool {
    cell(row, "Default").trim_matches('`').eq_ignore_ascii_case("required")
}

fn setting(key: &(String, String), was: &Row, is: &Row, found: &mut Findings) {
    let (old, new) = (cell(was, "Default"), cell(is, "Default"));
    if is_required(is) && !is_required(was) {
        found.add(&r::SETTING_BECAME_REQUIRED, &key.0, &key.1, "it must be given");
    } else if old != new && !is_required(was) {
        found.add(&r::SETTING_DEFAULT_CHANGED, &key.0, &key.1, format!("the default was {old} and is {new}"));
    }
    let (old, new) = (cell(was, "Values"), cell(is, "Values"));
    if old != new {
        found.add(&r::SETTING_VALUES_CHANGED, &key.0, &key.1, format!("values were {old:?} and are {new:?}"));
    }
}

fn metric(key: &(String, String), was: &Row, is: &Row, found: &mut Findings) {
    for heading in ["Type", "Unit"] {
        let (old, new) = (cell(was, heading), cell(is, heading));
        if old != new {
            found.add(&r::METRIC_TYPE_CHANGED, &key.0, &key.1, format!("{heading} was {old} and is {new}"));
        }
    }
    let (before, after) = (labels(cell(was, "Labels")), labels(cell(is, "Labels")));
    for (label, values) in &before {
        let Some(now) = after.get(label) else {
            found.add(&r::METRIC_LABEL_REMOVED, &key.0, &key.1, format!("label {label} is gone"));
            continue;
        };
        // A list that was not there promises nothing.
        if now.is_empty() || values.is_empty() {
            continue;
        }
        for value in values.difference(now) {
            found.add(&r::METRIC_LABEL_REMOVED, &key.0, &key.1, format!("{label}=\"{value}\" is gone"));
        }
        for value in now.difference(values) {
            found.add(&r::METRIC_LABEL_VALUE_ADDED, &key.0, &key.1, format!("{label}=\"{value}\" is new"));
        }
    }
    for label in after.keys().filter(|label| !before.contains_key(*label)) {
        found.add(&r::METRIC_LABEL_ADDED, &key.0, &key.1, format!("label {label} is new"));
    }
}

/// `` `reason` (silent, head), `service` `` as labels with their values.
fn labels(cell: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    let mut rest = cell;
    while let Some((_, after)) = rest.split_once('`') {
        let Some((name, tail)) = after.split_once('`') else { break };
        let listed = tail.trim_start().strip_prefix('(').and_then(|inner| inner.split_once(')'));
        let values = listed.map(|(inner, _)| inner.split(',').map(|v| v.trim().to_owned()).collect());
        found.insert(name.to_owned(), values.unwrap_or_default());
        rest = listed.map_or(tail, |(_, tail)| tail);
    }
    found
}

fn subject(key: &(String, String), was: &Row, is: &Row, found: &mut Findings) {
    let (old, new) = (cell(was, "Stored in"), cell(is, "Stored in"));
    if old != new {
        found.add(&r::SUBJECT_MOVED, &key.0, "", format!("it was stored in {old} and is in {new}"));
    }
    for heading in ["From", "To"] {
        let (old, new) = (cell(was, heading), cell(is, heading));
        if old != new {
            found.add(&r::SUBJECT_PEERS_CHANGED, &key.0, heading, format!("{old:?} became {new:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(old: &str, new: &str, kind: Kind) -> Vec<&'static str> {
        let page = |row: &str| {
            format!(
                "# P\n\n## Worker\n\n| {} |\n|---|\n{row}\n",
                match kind {
                    Kind::Settings => "Variable | Values | Default | Meaning",
                    Kind::Metrics => "Metric | Type | Unit | Labels | Meaning",
                    Kind::Subjects => "Subject | From | To | Stored in",
                }
            )
        };
        compare(&page(old), &page(new), kind, "p.md").into_iter().map(|f| f.rule).collect()
    }

    #[test]
    fn a_table_of_settings() {
        let was = "| `A` | 1 to 9 | `5` | Text. |";
        for (is, expected) in [
            (was, &[][..]),
            ("| `A` | 1 to 9 | `5` | Better text. |", &[]),
            ("", &["setting-removed"]),
            ("| `A` | 1 to 9 | `6` | Text. |", &["setting-default-changed"]),
            ("| `A` | 1 to 9 | required | Text. |", &["setting-became-required"]),
            ("| `A` | 2 to 9 | `5` | Text. |", &["setting-values-changed"]),
            ("| `A` | 1 to 9 | `5` | Text. |\n| `B` | x | – | T |", &["setting-added"]),
            ("| `A` | 1 to 9 | `5` | Text. |\n| `B` | x | required | T |", &["setting-added-required"]),
        ] {
            assert_eq!(rules(was, is, Kind::Settings), expected, "{is}");
        }
    }

    #[test]
    fn a_row_may_move_to_another_section() {
        let page = |title: &str, value: &str| {
            format!(
                "## {title}\n\n| Variable | Default |\n|---|---|\n| `A` | {value} |\n\n## Z\n\n| Variable | Default |\n|---|---|\n| `A` | 1 |\n"
            )
        };
        let rules = |old: &str, new: &str| -> Vec<&str> {
            compare(old, new, Kind::Settings, "p").into_iter().map(|f| f.rule).collect()
        };
        assert!(rules(&page("X", "`5`"), &page("Y", "`5`")).is_empty());
        assert_eq!(rules(&page("X", "`5`"), &page("Y", "`6`")), ["setting-default-changed"]);
    }

    #[test]
    fn a_table_of_metrics() {
        let was = "| `m_total` | counter | count | `service`, `reason` (a, b) | Text. |";
        for (is, expected) in [
            ("| `m_total` | counter | count | `service`, `reason` (a, b) | Other \\| text. |", &[][..]),
            ("| `n_total` | counter | count | – | Text. |", &["metric-removed", "metric-added"]),
            ("| `m_total` | gauge | count | `service`, `reason` (a, b) | Text. |", &["metric-type-changed"]),
            ("| `m_total` | counter | bytes | `service`, `reason` (a, b) | Text. |", &["metric-type-changed"]),
            ("| `m_total` | counter | count | `reason` (a, b) | Text. |", &["metric-label-removed"]),
            ("| `m_total` | counter | count | `service`, `reason` (a) | Text. |", &["metric-label-removed"]),
            ("| `m_total` | counter | count | `service`, `reason` (a, b, c) | Text. |", &["metric-label-value-added"]),
            ("| `m_total` | counter | count | `service`, `reason` (a, b), `q` | Text. |", &["metric-label-added"]),
        ] {
            assert_eq!(rules(was, is, Kind::Metrics), expected, "{is}");
        }
    }

    #[test]
    fn a_table_of_subjects() {
        let was = "| `a.<b>` | x | y | `s` |";
        for (is, expected) in [
            (was, &[][..]),
            ("", &["subject-removed"]),
            ("| `a.<b>` | x | y | `t` |", &["subject-moved"]),
            ("| `a.<b>` | z | y | `s` |", &["subject-peers-changed"]),
            ("| `a.<b>` | x | y | `s` |\n| `c` | x | y | – |", &["subject-added"]),
        ] {
            assert_eq!(rules(was, is, Kind::Subjects), expected, "{is}");
        }
    }
}
