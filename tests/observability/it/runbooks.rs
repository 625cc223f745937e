//! Runbooks: one for each family of alerts, with everything that somebody needs at night, all of it real.

use crate::files;
use agentforge_harness::{cargo_bin, promtool, require};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;

/// What a page must have, in this order.
const SECTIONS: [&str; 6] =
    ["What it means", "Impact", "Triage", "Causes and what to do", "Mitigation", "How to know that it is over"];

/// Programs that a command may begin with.
const PROGRAMS: [&str; 7] = ["agentforge", "promtool", "curl", "kubectl", "openssl", "df", "scripts/promote"];

/// The PromQL of a page's `promtool query instant` commands.
pub fn expressions(page: &str) -> Vec<String> {
    let commands = files::commands(page);
    let queries = commands.iter().filter(|command| command.starts_with("promtool query instant "));
    queries.map(|query| query.split('\'').nth(1).unwrap_or_else(|| panic!("{query}")).to_owned()).collect()
}

#[test]
fn every_page_has_its_sections_and_alerts_that_exist() {
    let alerts: BTreeSet<String> = files::alerts().into_iter().map(|alert| alert.name).collect();
    let mut named = BTreeSet::new();
    for (file, page) in files::runbooks() {
        let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(sections, SECTIONS, "{file}");
        let line = page.lines().find_map(|line| line.strip_prefix("Alerts: ")).unwrap_or_else(|| panic!("{file}"));
        for name in line.split('`').skip(1).step_by(2) {
            assert!(alerts.contains(name), "{file} is about {name}, which is no alert");
            assert!(named.insert(name.to_owned()), "{name} has two pages");
        }
        assert!(!files::commands(&page).is_empty(), "{file} has no command");
        assert!(!expressions(&page).is_empty() || file == "keda.md", "{file} looks at no metric");
    }
    assert_eq!(named, alerts, "every alert has a page");
}

#[test]
fn the_list_of_pages_is_whole() {
    let list = std::fs::read_to_string(files::root().join("docs/runbooks/README.md")).unwrap();
    for (file, _) in files::runbooks() {
        assert!(list.contains(&format!("]({file})")), "the list lacks {file}");
    }
    for alert in files::alerts() {
        assert!(list.contains(&format!("`{}`", alert.name)), "the list lacks {}", alert.name);
    }
}

#[test]
fn shell_and_agentforge_take_the_commands_as_they_are_written() {
    let (mut run, mut ours) = (String::new(), 0);
    for (file, page) in files::runbooks() {
        for command in files::commands(&page) {
            let program = command.split(' ').next().unwrap_or_default();
            assert!(PROGRAMS.contains(&program), "{file}: {command}: what is {program}?");
            assert!(!command.contains('<') && !command.contains('…'), "{file}: a placeholder is no command: {command}");
            run += &format!("{command}\n");
            if program == "agentforge" {
                is_taken(&file, &command);
                ours += 1;
            }
        }
        // Also those in the text, such as `agentforge job cancel --help`.
        for span in page.split('`').skip(1).step_by(2).filter(|s| s.starts_with("agentforge ") && !s.contains('\n')) {
            is_taken(&file, span);
        }
    }
    assert!(ours > 10, "the commands were not found");
    let shell = Command::new("bash").args(["-n", "-c", &run]).output().unwrap();
    assert!(shell.status.success(), "{}", String::from_utf8_lossy(&shell.stderr));
}

/// With `--help` appended nothing is done; the words before it must parse nevertheless.
fn is_taken(file: &str, command: &str) {
    let words = command.split(' ').skip(1).map(|word| word.trim_matches('"').replace("$JOB_ID", "x"));
    let out = Command::new(cargo_bin("agentforge")).args(words).arg("--help").output().unwrap();
    assert!(out.status.success(), "{file}: {command}: {}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn prometheus_takes_the_queries_as_they_are_written() {
    let Some(()) = require("prometheus") else { return };
    let all: Vec<String> = files::runbooks().iter().flat_map(|(_, page)| expressions(page)).collect();
    let rule =
        |(n, expr): (usize, &String)| json!({"name": format!("q{n}"), "rules": [{"record": "query", "expr": expr}]});
    let groups: Vec<Value> = all.iter().enumerate().map(rule).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({"groups": groups}).to_string()).unwrap();
    let (is_content, said) = promtool(&["check", "rules", "--lint=none", file.path().to_str().unwrap()], b"");
    assert!(is_content && said.contains(&format!("{} rules found", all.len())), "{said}");
    assert!(all.len() > 40, "the queries were not found");
}
