//! Our verdicts on changes of an OpenAPI document, and oasdiff's.

use super::{CHANGES, Explained, Recorded, agree, asked, compare_or_record, documents::changed, program, root};
use agentforge_governance::contract::{
    finding::{Findings, Level},
    openapi::{Document, compare},
};
use serde_json::Value;
use std::{collections::BTreeSet, process::Command};

const KEPT: &str = "oasdiff.json";
/// What was done, what we say, what oasdiff says; the page has the reasons.
const EXPLAINED: &[Explained] = &[
    ("operation id changed", "warning", "compatible"),
    ("request field removed", "breaking", "warning"),
    ("optional response field removed", "breaking", "compatible"),
    ("enum value of a field removed", "breaking", "compatible"),
];

/// The document of a release, which does not change anymore, with a few fields of a kind that it does not have.
fn base() -> Value {
    let text = std::fs::read_to_string(root().join("docs/contracts/0.2.0/openapi.json")).unwrap();
    let mut document: Value = serde_json::from_str(&text).unwrap();
    for (schema, name) in [("Agent", "mode"), ("Job", "mode"), ("SubmitJobRequest", "mode")] {
        let fields = document["components"]["schemas"][schema]["properties"].as_object_mut().unwrap();
        fields.insert(name.to_owned(), serde_json::json!({"type": "string", "enum": ["a", "b", "c"]}));
    }
    document
}

#[test]
fn a_hundred_changes_are_judged_as_by_oasdiff_or_the_difference_is_explained() {
    let base = base();
    let old = Document::new(base.clone()).unwrap();
    let ours: Vec<(String, Level)> = (0..CHANGES)
        .map(|n| {
            let (document, change) = changed(&base, n);
            let new = Document::new(document).unwrap();
            let mut findings = Findings::of("openapi.json");
            compare(&old, &new, &mut findings);
            let level = findings.sorted().iter().map(|f| f.level).max().unwrap_or(Level::Compatible);
            (change, level)
        })
        .collect();
    agree(KEPT, &ours, EXPLAINED);
}

#[test]
fn what_is_kept_is_what_oasdiff_says() {
    let Some(oasdiff) = program("oasdiff") else { return };
    let base = base();
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, value: &Value| {
        let path = home.path().join(name);
        std::fs::write(&path, value.to_string()).unwrap();
        path
    };
    let old = file("old.json", &base);
    let now: Vec<Recorded> = asked()
        .map(|n| {
            let (document, change) = changed(&base, n);
            let new = file("new.json", &document);
            let out =
                Command::new(&oasdiff).args(["changelog", "--format", "json"]).args([&old, &new]).output().unwrap();
            assert!(out.status.success(), "{change}: {}", String::from_utf8_lossy(&out.stderr));
            let said: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
            let all = said.as_array().cloned().unwrap_or_default();
            let level = all.iter().filter_map(|one| one["level"].as_u64()).max().unwrap_or(1);
            let highest = all.iter().filter(|one| one["level"] == level);
            let rules: BTreeSet<String> = highest.filter_map(|one| one["id"].as_str()).map(str::to_owned).collect();
            let level = ["compatible", "warning", "breaking"][usize::try_from(level).unwrap() - 1].to_owned();
            Recorded { n, change, level, rules }
        })
        .collect();
    compare_or_record(KEPT, &now);
}
