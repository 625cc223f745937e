//! The page that leads from old names to those of today: every name on its right side exists.

use crate::manifests::{Object, jobs, overlay, read, render, root};
use agentforge_harness::{cargo_bin, require};
use std::collections::BTreeSet;
use std::process::Command;

const PAGE: &str = "docs/deploy/old-names.md";
/// What people look for first: the page has a row for each.
const SOUGHT: [&str; 9] = [
    "`k8s/staging`",
    "`nats-worker`",
    "`nats-metrics`",
    "`broadcaster-svc`",
    "`broadcaster-metrics`",
    "`grafana-tool-executor-dashboard`",
    "`HighLatencyP95`",
    "`LowSuccessRatio`",
    "`edge_sync_manifest`",
];

/// The two cells of each row.
fn rows() -> Vec<(String, String)> {
    let page = read(PAGE);
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Before"));
    let cells = rows.map(|row| row.trim_matches('|').split_once(" | ").expect("two cells"));
    cells.map(|(old, new)| (old.trim().to_owned(), new.trim().to_owned())).collect()
}

/// The names in a cell, each with the word before it.
fn names(cell: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = cell.split('`').collect();
    parts.chunks(2).filter(|pair| pair.len() == 2).map(|pair| (last_word(pair[0]), pair[1])).collect()
}

fn last_word(text: &str) -> &str {
    text.split_whitespace().last().unwrap_or_default()
}

#[test]
fn what_people_look_for_is_on_the_page() {
    let rows = rows();
    assert!(rows.len() > 40, "the rows were not found");
    for name in SOUGHT {
        assert!(rows.iter().any(|(old, _)| old.contains(name)), "{name} is not on the page");
    }
    assert!(read("docs/deploy/README.md").contains("(old-names.md)"), "nothing leads to the page");
}

#[test]
fn every_new_name_is_there() {
    let Some(()) = require("kubectl") else { return };
    let mut objects: Vec<Object> = ["feature", "staging", "production", "edge", "azure-production"]
        .iter()
        .flat_map(|name| overlay(name))
        .collect();
    for folder in ["k8s/argocd", "k8s/cluster/monitoring"] {
        objects.extend(render(folder));
    }
    objects.extend(jobs());
    let kinds: BTreeSet<&str> = objects.iter().map(Object::kind).collect();
    let rules: String = std::fs::read_dir(root().join("monitoring/alerts"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".rules.yml"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let (settings, metrics) = (read("docs/configuration.md"), read("docs/METRICS.md"));
    let template = read("k8s/base/shared/secrets.template.yaml");
    let mut checked = 0;
    for (old, new) in rows() {
        let mut found = 0;
        for (word, name) in names(&new) {
            let is_there = match word {
                kind if kinds.contains(kind) => objects.iter().any(|o| o.kind() == kind && o.name() == name),
                "alert" => rules.contains(&format!("alert: {name}\n")),
                "metric" => metrics.contains(&format!("\n| `{name}` |")),
                "setting" => settings.contains(&format!("\n| `{name}` |")),
                _ if name.starts_with("agentforge ") => is_a_command(name),
                _ if name.contains('/') || name == "Containerfile" => root().join(name).exists(),
                _ => settings.contains(&format!("`{name}`")) || template.contains(name) || read_of(&new).contains(name),
            };
            assert!(is_there, "{old}: there is no {word} {name}");
            found += 1;
        }
        checked += usize::from(found > 0);
        assert!(found > 0 || new.starts_with("nothing"), "{old}: {new} names nothing");
    }
    assert!(checked > 40, "{checked} rows were checked");
}

/// The pages that a cell leads to, for names that are only explained there.
fn read_of(cell: &str) -> String {
    names(cell).into_iter().filter(|(_, name)| name.ends_with(".md")).map(|(_, name)| read(name)).collect()
}

fn is_a_command(line: &str) -> bool {
    let mut command = Command::new(cargo_bin("agentforge"));
    let out = command.args(line.split(' ').skip(1)).arg("--help").output().unwrap();
    out.status.success()
}
