//! `scripts/check-english`: its own tests pass, and no file has more of what docs/style.md avoids than its baseline allows.

use crate::manifests::root;
use std::process::Command;

/// Runs Python from the root of the repository; it must succeed.
pub fn passes(arguments: &[&str]) {
    let out = Command::new("python3").args(arguments).current_dir(root()).output().unwrap();
    let printed = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{}:\n{printed}", arguments.join(" "));
}

#[test]
fn the_checker_of_english_finds_what_it_is_for() {
    passes(&["-m", "unittest", "discover", "-s", "scripts/tests", "-p", "test_check_english.py"]);
}

#[test]
fn everything_that_people_read_is_written_as_the_style_sheet_asks() {
    passes(&["scripts/check-english"]);
}
