//! The files under test, read once as what they are: rules, dashboards, runbooks.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Files in a folder of the repository whose names end so, sorted.
pub fn listed(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no {ending} in {folder}");
    found
}

pub fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

pub fn yaml(path: &Path) -> Value {
    yaml_serde::from_str(&fs::read_to_string(path).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// An alert or a recording rule.
#[derive(Clone, Debug)]
pub struct Rule {
    pub file: String,
    /// The alert's name, or what is recorded.
    pub name: String,
    pub is_alert: bool,
    pub expr: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub has_for: bool,
}

pub fn rules() -> Vec<Rule> {
    let mut all = Vec::new();
    for path in listed("monitoring/alerts", ".rules.yml") {
        let document = yaml(&path);
        for rule in document["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
            let text = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
            let map = |key: &str| {
                let pairs = rule[key].as_object().into_iter().flatten();
                pairs.map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect()
            };
            let is_alert = rule["alert"].is_string();
            all.push(Rule {
                file: name(&path),
                name: text(if is_alert { "alert" } else { "record" }),
                is_alert,
                expr: text("expr"),
                labels: map("labels"),
                annotations: map("annotations"),
                has_for: rule["for"].is_string(),
            });
        }
    }
    all
}

pub fn alerts() -> Vec<Rule> {
    rules().into_iter().filter(|rule| rule.is_alert).collect()
}

/// Dashboards by file name.
pub fn dashboards() -> Vec<(String, Value)> {
    let read = |path: &PathBuf| (name(path), serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap());
    listed("monitoring/dashboards", ".json").iter().map(read).collect()
}

/// Runbooks by file name, the list of them left out.
pub fn runbooks() -> Vec<(String, String)> {
    listed("docs/runbooks", ".md")
        .iter()
        .filter(|path| !path.ends_with("README.md"))
        .map(|path| (name(path), fs::read_to_string(path).unwrap()))
        .collect()
}

/// The lines of fenced shell blocks, backslashes joined.
pub fn commands(page: &str) -> Vec<String> {
    let mut inside = false;
    let mut lines: Vec<String> = Vec::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            inside = line.trim() == "```sh";
        } else if inside && !line.trim().is_empty() {
            match lines.last_mut().filter(|last| last.ends_with('\\')) {
                Some(last) => {
                    last.pop();
                    last.push_str(line.trim());
                }
                None => lines.push(line.trim().to_owned()),
            }
        }
    }
    lines
}
