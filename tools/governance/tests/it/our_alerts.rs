//! Our own taxonomy against our own rules: what every other repository would have to keep, we keep.

use super::support::{faults_by_schema, run};
use agentforge_harness::require;
use std::path::Path;

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

#[test]
fn every_alert_that_we_ship_has_an_entry_that_is_complete_and_agrees() {
    for words in [["alerts", "lint"], ["alerts", "check"]] {
        let said = run(&root(), &words);
        assert_eq!(said.code, 0, "{words:?}: {}{}", said.out, said.err);
    }
    if require("python3-jsonschema").is_some() {
        let taxonomy = std::fs::read_to_string(root().join("monitoring/alerts_taxonomy.json")).unwrap();
        assert_eq!(faults_by_schema("alerts_taxonomy.schema.json", &taxonomy), "");
    }
}

#[test]
fn every_alert_that_we_ship_has_a_runbook() {
    let home = tempfile::tempdir().unwrap();
    let output = home.path().to_str().unwrap();
    for words in [["alerts", "metrics"], ["alerts", "gate"]] {
        let said = run(&root(), &[&words[..], &["--output", output]].concat());
        assert_eq!(said.code, 0, "{words:?}: {}{}", said.out, said.err);
    }
}
