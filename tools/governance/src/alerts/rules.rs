//! Alerts as the rule files have them: Prometheus' own files, and PrometheusRule objects of Kubernetes.
//!
//! Reads names, expressions, times and labels with the line of each alert. Whether an expression is one is for promtool.

use crate::{artifact, exit::broken};
use agentforge_terminal::{Failure, Result};
use regex::Regex;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};
use yaml_serde::Value;

/// A longer expression is cut in the taxonomy.
const SUMMARY_CHARACTERS_MAX: usize = 300;
/// So much of a cut expression is kept.
const SUMMARY_CHARACTERS_KEPT: usize = 270;
/// A folder with more rule files than this is a mistake.
const FILES_MAX: usize = 10_000;
/// Recording rules of recording rules are followed so far.
const DEPTH_MAX: usize = 8;

static RANGE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\[\s*([0-9][0-9a-z]*)\s*(?::[^\]]*)?\]").expect("it is a pattern"));
static NAME: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[a-zA-Z_:][a-zA-Z0-9_:]*").expect("it is a pattern"));
static QUOTED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`"#).expect("it is a pattern"));

/// One alert of a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The file.
    pub file: PathBuf,
    /// The line of its name.
    pub line: usize,
    /// The group that it is in.
    pub group: String,
    /// Its name.
    pub alert: String,
    /// Its expression, as written.
    pub expr: String,
    /// How long that must hold, `0s` where the rule does not say.
    pub held: String,
    /// The windows that it looks at, also through recording rules; the shortest first.
    pub windows: Vec<String>,
    /// Its labels but severity.
    pub labels: BTreeMap<String, String>,
    /// Its severity; empty where it has none.
    pub severity: String,
    /// The annotation `description`.
    pub description: String,
    /// The annotation `runbook_url`.
    pub runbook_url: String,
}

#[derive(Debug, Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    name: String,
    #[serde(default)]
    rules: Vec<Written>,
}

#[derive(Debug, Deserialize)]
struct Written {
    alert: Option<String>,
    record: Option<String>,
    #[serde(deserialize_with = "text")]
    expr: String,
    #[serde(rename = "for")]
    held: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// An expression may be a number.
fn text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    match Value::deserialize(from)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(serde::de::Error::custom(format!("expr is not a text: {other:?}"))),
    }
}

/// The alerts of files and folders, in the order of the files' names.
///
/// # Errors
/// Broken input: a file cannot be read, a named file has no rules, or there is no rule file at all.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Rule>> {
    let mut groups = Vec::new();
    for path in paths {
        if !path.is_dir() {
            let text = artifact::read(path)?;
            let found = parse(path, &text)?.ok_or_else(|| broken(path, 0, "there are no groups of rules in it"))?;
            groups.push((path.clone(), text, found));
            continue;
        }
        for file in files(path)? {
            let text = artifact::read(&file)?;
            if let Some(found) = parse(&file, &text)? {
                groups.push((file, text, found));
            }
        }
    }
    if groups.is_empty() {
        return Err(Failure { exit: crate::exit::BROKEN, ..Failure::new(format!("no rule files in {paths:?}")) });
    }
    Ok(alerts(groups))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| broken(folder, 0, e))? {
        let path = entry.map_err(|e| broken(folder, 0, e))?.path();
        if path.is_file() && path.extension().is_some_and(|e| e == "yml" || e == "yaml") {
            found.push(path);
        }
        if found.len() > FILES_MAX {
            return Err(broken(folder, 0, format_args!("more than the limit of {FILES_MAX} files")));
        }
    }
    found.sort();
    Ok(found)
}

/// The groups of every document of a file; `None` where no document has some, as in promtool's tests.
fn parse(path: &Path, text: &str) -> Result<Option<Vec<Group>>> {
    let mut found = None;
    for document in yaml_serde::Deserializer::from_str(text) {
        let value = Value::deserialize(document)
            .map_err(|e: yaml_serde::Error| broken(path, e.location().map_or(0, |at| at.line()), &e))?;
        let holder = if value.get("kind").and_then(Value::as_str) == Some("PrometheusRule") {
            value.get("spec").cloned().unwrap_or_default()
        } else {
            value
        };
        if holder.get("groups").is_none() {
            continue;
        }
        // Values have no lines any more: where the groups begin is where to look.
        let begin = text.lines().position(|line| line.trim_start().starts_with("groups:")).map_or(0, |n| n + 1);
        let groups: Groups = yaml_serde::from_value(holder)
            .map_err(|e| broken(path, begin, format_args!("the groups of rules: {e}")))?;
        found.get_or_insert_with(Vec::new).extend(groups.groups);
    }
    Ok(found)
}

fn alerts(groups: Vec<(PathBuf, String, Vec<Group>)>) -> Vec<Rule> {
    let all = || groups.iter().flat_map(|(_, _, groups)| groups).flat_map(|group| &group.rules);
    let mut records: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for rule in all() {
        if let Some(record) = &rule.record {
            records.entry(record).or_default().push(&rule.expr);
        }
    }
    let mut found = Vec::new();
    for (file, text, groups) in &groups {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for group in groups {
            for rule in &group.rules {
                let Some(alert) = &rule.alert else { continue };
                let nth = seen.entry(alert).or_default();
                let mut labels = rule.labels.clone();
                let severity = labels.remove("severity").unwrap_or_default();
                let annotation = |name: &str| rule.annotations.get(name).cloned().unwrap_or_default();
                found.push(Rule {
                    file: file.clone(),
                    line: line_of(text, alert, *nth),
                    group: group.name.clone(),
                    alert: alert.clone(),
                    expr: rule.expr.clone(),
                    held: rule.held.clone().unwrap_or_else(|| "0s".to_owned()),
                    windows: windows(&rule.expr, &records),
                    labels,
                    severity,
                    description: annotation("description"),
                    runbook_url: annotation("runbook_url"),
                });
                *nth += 1;
            }
        }
    }
    found
}

/// The line of the nth `alert: NAME`; 0 where it is written in another way.
fn line_of(text: &str, alert: &str, nth: usize) -> usize {
    let is_it = |line: &str| {
        let line = line.trim_start().trim_start_matches('-').trim_start();
        let value = line.strip_prefix("alert:").map(str::trim).unwrap_or_default();
        let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
        value == alert
    };
    text.lines().enumerate().filter(|(_, line)| is_it(line)).nth(nth).map_or(0, |(n, _)| n + 1)
}

/// The ranges in an expression and in the recording rules that it names, the shortest first.
fn windows(expr: &str, records: &BTreeMap<&str, Vec<&str>>) -> Vec<String> {
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut open = vec![(expr.to_owned(), 0)];
    while let Some((expr, depth)) = open.pop() {
        // What is in quotes is a value of a label.
        let bare = QUOTED.replace_all(&expr, "\"\"");
        for range in RANGE.captures_iter(&bare) {
            if let Some(length) = milliseconds(&range[1]) {
                found.entry(length).or_insert_with(|| range[1].to_owned());
            }
        }
        for name in NAME.find_iter(&bare).map(|found| found.as_str()) {
            if depth < DEPTH_MAX && records.contains_key(name) && seen.insert(name.to_owned()) {
                open.extend(records[name].iter().map(|expr| ((*expr).to_owned(), depth + 1)));
            }
        }
    }
    found.into_values().collect()
}

/// Prometheus' durations (`1h30m`, `5m`, `0s`) as milliseconds; `None` for what is not one.
pub fn milliseconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (mut sum, mut rest, mut last) = (0_u64, text, u64::MAX);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        if unit >= last {
            return None;
        }
        last = unit;
        sum = sum.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(sum)
}

/// The expression as the taxonomy has it: white space as one space, comments left out; a long one is cut, and the hash of
/// all of it shows whether it changed.
pub fn summary(expr: &str) -> String {
    let lines = expr.lines().map(|line| if line.trim_start().starts_with('#') { "" } else { line });
    let flat = lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
    if flat.chars().count() <= SUMMARY_CHARACTERS_MAX {
        return flat;
    }
    let kept: String = flat.chars().take(SUMMARY_CHARACTERS_KEPT).collect();
    let hash = hex::encode(Sha256::digest(flat.as_bytes()));
    format!("{} … sha256:{}", kept.trim_end(), &hash[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<Rule> {
        let path = PathBuf::from("r.yml");
        let groups = parse(&path, text).unwrap().unwrap();
        alerts(vec![(path, text.to_owned(), groups)])
    }

    #[test]
    fn windows_are_found_through_recording_rules() {
        let text = "groups:\n- name: g\n  rules:\n  - record: ratio_1h\n    expr: rate(a[1h])\n  - record: deep\n    expr: ratio_1h / rate(b{x=\"[9d]\"}[5m])\n  - alert: A\n    expr: deep > 1 and max_over_time(c[2h:1m]) > 0\n    labels: {severity: warning, team: x}\n  - alert: A\n    expr: 1\n";
        let found = rules(text);
        assert_eq!(found[0].windows, ["5m", "1h", "2h"]);
        assert_eq!((found[0].line, found[1].line), (8, 11));
        assert_eq!((found[0].severity.as_str(), found[0].labels["team"].as_str()), ("warning", "x"));
        assert_eq!((found[1].expr.as_str(), found[1].held.as_str()), ("1", "0s"));
    }

    #[test]
    fn objects_of_kubernetes_are_read_and_tests_are_not() {
        let text = "kind: ConfigMap\n---\nkind: PrometheusRule\nspec:\n  groups:\n  - name: g\n    rules:\n    - {alert: B, expr: up == 0, for: 5m}\n";
        assert_eq!(rules(text)[0].held, "5m");
        assert!(parse(Path::new("t.yml"), "tests: []\nrule_files: [r.yml]\n").unwrap().is_none());
        let failure = parse(Path::new("t.yml"), "a: [\n").unwrap_err();
        assert_eq!(failure.exit, crate::exit::BROKEN);
    }

    #[test]
    fn durations_are_those_of_prometheus() {
        for (text, wanted) in [("5m", Some(300_000)), ("1h30m", Some(5_400_000)), ("0s", Some(0)), ("100ms", Some(100))]
        {
            assert_eq!(milliseconds(text), wanted, "{text}");
        }
        for text in ["", "5", "m", "30m1h", "5 m", "five"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_long_expression_is_cut_and_each_change_of_it_shows() {
        assert_eq!(summary("a\n  # why\n  and   b\n"), "a and b");
        let long = format!("{}x", "a + ".repeat(200));
        let other = format!("{}y", "a + ".repeat(200));
        assert!(summary(&long).chars().count() <= SUMMARY_CHARACTERS_MAX);
        assert_ne!(summary(&long), summary(&other));
    }
}
