//! This repository's own contracts: nothing breaks that is not announced, and the rules of Spectral and buf hold.

use super::support::run;
use agentforge_governance::contract::classify::Announcement;
use agentforge_harness::program;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The contract of the newest release, by the number of its version.
fn last_release() -> PathBuf {
    let folders = fs::read_dir(root().join("docs/contracts")).unwrap().flatten().map(|entry| entry.path());
    let version = |path: &PathBuf| -> Option<Vec<u64>> {
        path.file_name()?.to_str()?.split('.').map(|n| n.parse().ok()).collect()
    };
    folders.filter(|path| path.is_dir()).max_by_key(version).unwrap()
}

#[test]
fn nothing_breaks_since_the_last_release_that_is_not_announced() {
    let home = tempfile::tempdir().unwrap();
    let now = home.path().join("now");
    assert!(Command::new(root().join("scripts/contracts")).arg(&now).status().unwrap().success());
    let announced = root().join("docs/contracts/announced.json");
    let (old, new, announced) = (last_release(), now, announced.display().to_string());
    let words = ["contract", "diff", old.to_str().unwrap(), new.to_str().unwrap(), "--announced", &announced];
    let ended = run(home.path(), &words);
    assert_eq!(
        ended.code, 0,
        "announce it in docs/contracts/announced.json and CHANGELOG.md, or make it compatible:\n{}{}",
        ended.out, ended.err
    );
    let report: Value =
        serde_json::from_str(&fs::read_to_string(home.path().join("status/contract-diff.json")).unwrap()).unwrap();
    assert_eq!(report["unused_announcements"], serde_json::json!([]), "announced, and not there");
}

#[test]
fn announcements_say_why() {
    let text = fs::read_to_string(root().join("docs/contracts/announced.json")).unwrap();
    let all: Vec<Announcement> = serde_json::from_str(&text).unwrap();
    assert!(all.iter().all(|one| one.reason.len() > 10), "{all:?}");
}

#[test]
fn the_rules_of_spectral_hold_for_our_documents() {
    if let Err(why) = program("governance-programs") {
        return eprintln!("SKIPPED spectral: {why}");
    }
    let out = Command::new(root().join("scripts/spectral")).output().unwrap();
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}

#[test]
fn the_rules_of_buf_hold_for_our_proto_files() {
    let buf = match program("buf") {
        Ok(path) => path,
        Err(why) => return eprintln!("SKIPPED buf: {why}"),
    };
    let home = tempfile::tempdir().unwrap();
    // Of a folder that this workspace does not have, so that it is one of its own.
    let old = home.path().join("old");
    copy(&last_release().join("proto"), &old);
    let config = r#"{"version":"v2","breaking":{"use":["PACKAGE"]}}"#;
    for words in
        [vec!["lint"], vec!["breaking", "proto", "--against", old.to_str().unwrap(), "--against-config", config]]
    {
        let out =
            Command::new(&buf).args(&words).current_dir(root()).env("BUF_CACHE_DIR", home.path()).output().unwrap();
        let told = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "buf {words:?}: {told}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(path, to).unwrap();
        }
    }
}
