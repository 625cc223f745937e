//! A hundred generated changes of an OpenAPI document and of .proto files each: our verdict is that of oasdiff and of buf,
//! or the difference is explained on docs/reference/contract-rules.md.
//!
//! What the two programs say is kept in oasdiff.json and buf.json, so that every run compares. Where the programs are
//! (scripts/oasdiff, scripts/buf), another test compares them with what is kept; AGENTFORGE_RECORD=1 writes it again.

mod documents;
mod openapi;
mod proto;

use agentforge_governance::contract::finding::Level;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, path::PathBuf};

/// How many changes of each kind.
const CHANGES: usize = 100;

/// One change, and what the other program says about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Recorded {
    n: usize,
    /// What was done, and where.
    change: String,
    /// The other program's verdict.
    level: String,
    /// Its rules.
    rules: BTreeSet<String>,
}

/// A small generator of numbers: the same seed gives the same changes, everywhere and always.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n.max(1)
    }
    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { Some(&from[self.below(from.len())]) }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn recorded_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/changes").join(name)
}

fn recorded(name: &str) -> Vec<Recorded> {
    serde_json::from_str(&std::fs::read_to_string(recorded_file(name)).unwrap()).unwrap()
}

/// A difference that the page explains: what was done, what we say and what the other program says.
type Explained = (&'static str, &'static str, &'static str);

/// Compares our verdicts with what is kept. Each difference must be explained, and each explanation used.
fn agree(name: &str, ours: &[(String, Level)], explained: &[Explained]) {
    let kept = recorded(name);
    assert_eq!(kept.len(), CHANGES);
    assert_eq!(ours.len(), CHANGES);
    let page = std::fs::read_to_string(root().join("docs/reference/contract-rules.md")).unwrap();
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for (kept, (change, level)) in kept.iter().zip(ours) {
        assert_eq!(kept.change, *change, "the changes are other ones: record them again");
        let level = level.to_string();
        if level == kept.level {
            continue;
        }
        let kind = change.split(':').next().unwrap();
        match explained.iter().find(|(of, we, they)| *of == kind && *we == level && *they == kept.level) {
            Some(one) => drop(used.insert(one)),
            None => wrong.push(format!("(\"{kind}\", \"{level}\", \"{}\"), // {change} {:?}", kept.level, kept.rules)),
        }
    }
    assert!(wrong.is_empty(), "{} of {CHANGES} are judged otherwise:\n{}", wrong.len(), wrong.join("\n"));
    let unused: Vec<_> = explained.iter().filter(|one| !used.contains(one)).collect();
    assert!(unused.is_empty(), "explained and not so: {unused:?}");
    for (kind, we, they) in explained {
        let row = format!("| `{kind}` | {we} | {they} |");
        assert!(page.contains(&row), "docs/reference/contract-rules.md does not explain: {row}");
    }
}

/// Compares what the other program says now with what is kept; writes it where AGENTFORGE_RECORD=1.
fn compare_or_record(name: &str, now: &[Recorded]) {
    if std::env::var("AGENTFORGE_RECORD").is_ok_and(|v| v == "1") {
        let lines: Vec<String> = now.iter().map(|one| format!("  {}", serde_json::to_string(one).unwrap())).collect();
        std::fs::write(recorded_file(name), format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
    }
    let kept = recorded(name);
    assert_eq!(kept.len(), CHANGES);
    for now in now {
        assert_eq!(&kept[now.n], now, "{name} is out of date: run this test with AGENTFORGE_RECORD=1");
    }
}

/// Which changes the other program is asked about: each takes most of a second, so the usual run takes a sample.
fn asked() -> impl Iterator<Item = usize> {
    let is_on = |name: &str| std::env::var(name).is_ok_and(|v| v == "1");
    let step = if is_on("AGENTFORGE_CONTRACTS") || is_on("AGENTFORGE_RECORD") { 1 } else { 12 };
    (0..CHANGES).step_by(step)
}

/// The other program, if it is here; else says why the test is skipped.
fn program(name: &str) -> Option<PathBuf> {
    match agentforge_harness::program(name) {
        Ok(path) => Some(path),
        Err(why) => {
            eprintln!("SKIPPED {}: {why}", std::thread::current().name().unwrap_or("test"));
            None
        }
    }
}
