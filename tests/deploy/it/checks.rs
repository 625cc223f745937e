//! The quick checks of the gate find what they are for: a fault of each kind is planted in a copy of the repository.

use crate::manifests::root;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// A step of `scripts/check`, the file that gets the fault, and the text that is added to it.
const FAULTS: &[(&str, &str, &str)] = &[
    ("spelling", "docs/planted.md", MISSPELT),
    ("markdown", "docs/skipped.md", "# Planted\n\n### A level is left out\n"),
    ("python", "scripts/planted.py", "import os\n"),
    ("shell", "scripts/planted", "#!/usr/bin/env bash\nrm -r $1\n"),
    ("english", "docs/stiff.md", "# Planted\n\nEverything is made anew.\n"),
    ("workflows", ".github/workflows/planted.yml", "name: planted\non: push\njobs:\n  a:\n    steps: []\n"),
    ("formatting", "libs/message-id/src/lib.rs", "fn  planted( ) { }\n"),
    // A table of its own is merged by no reader: this one ends the manifest's last table.
    ("unused", "libs/message-id/Cargo.toml", "\n[target.'cfg(unix)'.dependencies]\nlibc.workspace = true\n"),
];

// Put together here, so that this file does not have it.
const MISSPELT: &str = concat!("# Planted\n\nThis is t", "eh end.\n");

/// A copy of what is committed, with the checks as they are here.
fn copy() -> Option<TempDir> {
    if !root().join(".git").exists() {
        eprintln!("SKIPPED: without git there is no copy to plant faults in");
        return None;
    }
    let dir = TempDir::new().unwrap();
    let cloned =
        Command::new("git").args(["clone", "--quiet", "--shared"]).arg(root()).arg(dir.path()).output().unwrap();
    assert!(cloned.status.success(), "{cloned:?}");
    for script in ["check", "checker", "check-english", "pinned_program.py"] {
        std::fs::copy(root().join("scripts").join(script), dir.path().join("scripts").join(script)).unwrap();
    }
    Some(dir)
}

fn plant(dir: &Path, file: &str, text: &str) {
    let path = dir.join(file);
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(path, before + text).unwrap();
}

fn git(dir: &Path, args: &[&str]) {
    let author = ["-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"];
    let done = Command::new("git").args(author).args(args).current_dir(dir).output().unwrap();
    assert!(done.status.success(), "{args:?}: {done:?}");
}

fn check(dir: &Path, args: &[&str]) -> Output {
    Command::new(dir.join("scripts/check")).args(args).current_dir(dir).output().unwrap()
}

/// Rows of the table at the end, such as `spelling      FAILED     0 min  0.6 s`.
fn outcome(output: &Output, step: &str) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, table) = text.split_once("--- times\n").unwrap_or_else(|| panic!("no table: {output:?}"));
    let row = table.lines().find(|line| line.split_whitespace().next() == Some(step));
    row.unwrap_or_else(|| panic!("no {step} in {table}")).split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn each_quick_check_fails_on_the_fault_that_it_is_for() {
    let Some(dir) = copy() else { return };
    let dir = dir.path();
    for (_, file, text) in FAULTS {
        plant(dir, file, text);
    }
    plant(dir, "libs/message-id/src/planted.rs", &"// A line.\n".repeat(501));
    git(dir, &["add", "--all"]);
    git(dir, &["commit", "--quiet", "--message", &"A subject that says more than fits ".repeat(3)]);

    let steps: Vec<&str> = FAULTS.iter().map(|(step, ..)| *step).chain(["lengths", "subjects"]).collect();
    let found = check(dir, &["--quick"]);
    let text = String::from_utf8_lossy(&found.stdout);
    for step in steps {
        let outcome = outcome(&found, step);
        // Without its program a step is skipped, and fails with CI=true: then for the program's sake.
        assert!(["FAILED", "skipped"].contains(&outcome.as_str()), "{step} is {outcome}:\n{text}");
        assert!(outcome == "FAILED" || text.contains(&format!("{step} is skipped: ")), "{step}: {text}");
    }
    assert_eq!(found.status.code(), Some(1));
    for trace in
        ["planted.rs: 501 lines", concat!("t", "eh"), "skipped.md:3", "planted.py", "SC2086", "stiff.md", "libc"]
    {
        assert!(text.contains(trace) || text.contains(" is skipped: "), "{trace} is not reported:\n{text}");
    }
}

#[test]
fn a_licence_that_is_not_allowed_and_a_banned_crate_fail_the_check() {
    for (line, replaced) in [("\"ISC\", ", ""), ("crate = \"chrono\"", "crate = \"tokio\"")] {
        let Some(dir) = copy() else { return };
        let path = dir.path().join("deny.toml");
        let rules = std::fs::read_to_string(&path).unwrap();
        assert!(rules.contains(line), "{line}");
        std::fs::write(&path, rules.replace(line, replaced)).unwrap();
        let found = check(dir.path(), &["dependencies"]);
        let outcome = outcome(&found, "dependencies");
        assert!(["FAILED", "skipped"].contains(&outcome.as_str()), "{line}: {found:?}");
    }
}

#[test]
fn what_compiles_does_not_run_after_a_quick_fault() {
    let Some(dir) = copy() else { return };
    plant(dir.path(), "docs/planted.md", MISSPELT);
    git(dir.path(), &["add", "--all"]);
    let found = check(dir.path(), &["spelling", "clippy", "rustdoc"]);
    if outcome(&found, "spelling") == "FAILED" {
        assert_eq!(outcome(&found, "clippy"), "not");
        assert_eq!(outcome(&found, "rustdoc"), "not");
    }
}
