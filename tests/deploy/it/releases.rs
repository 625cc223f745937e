//! The changelog has the version that is built, and what people need for it; a release is made of a commit.

use crate::manifests::{read, root};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Headings such as `## [0.2.0] - 2026-11-30`, newest first.
fn releases(changelog: &str) -> Vec<(&str, &str)> {
    let headings = changelog.lines().filter_map(|line| line.strip_prefix("## ["));
    headings.filter_map(|rest| rest.split_once(']')).collect()
}

#[test]
fn the_changelogs_newest_release_is_the_workspaces_version() {
    let changelog = read("CHANGELOG.md");
    let released: Vec<_> = releases(&changelog).into_iter().filter(|(version, _)| *version != "Unreleased").collect();
    let manifest = read("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap().trim_matches('"');
    assert_eq!(released[0].0, version, "CHANGELOG.md and Cargo.toml name different versions");

    for (version, date) in &released {
        let date = date.strip_prefix(" - ").unwrap_or_else(|| panic!("{version} has no date"));
        let is_date = date.len() == 10 && date.split('-').all(|part| part.parse::<u16>().is_ok());
        assert!(is_date, "{version}: {date} is not a date");
        assert!(changelog.contains(&format!("\n[{version}]: ")), "{version} leads nowhere");
    }
    let in_order = released.windows(2).all(|pair| pair[0].1 >= pair[1].1);
    assert!(in_order, "the newest release comes first: {released:?}");
}

/// The commit as a repository of its own, with the script as it is here.
fn copy() -> Option<TempDir> {
    if !root().join(".git").exists() {
        eprintln!("SKIPPED: without git there is no commit to release");
        return None;
    }
    let dir = TempDir::new().unwrap();
    run(Command::new("git").args(["clone", "--quiet", "--shared"]).arg(root()).arg(dir.path()));
    for path in ["scripts/release", "scripts/bill-of-materials"] {
        std::fs::copy(root().join(path), dir.path().join(path)).unwrap();
    }
    git(dir.path(), &["add", "--all"]);
    git(dir.path(), &["commit", "--quiet", "--allow-empty", "--message", "Release"]);
    Some(dir)
}

fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn git(dir: &Path, args: &[&str]) {
    let who = ["-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"];
    run(Command::new("git").args(who).args(args).current_dir(dir));
}

/// A release into a folder, signed with a key of its own.
fn release(dir: &Path, output: &Path, key: &Path) -> Command {
    let mut command = Command::new(dir.join("scripts/release"));
    command.arg("--output").arg(output).env("RELEASE_SIGNING_KEY", key).current_dir(dir);
    command
}

#[test]
fn a_release_has_its_files_whose_sums_are_signed_and_is_the_same_twice() {
    let Some(copy) = copy() else { return };
    let work = TempDir::new().unwrap();
    let key = work.path().join("key.pem");
    run(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&key));
    let folders = ["one", "two"].map(|name| work.path().join(name));
    for folder in &folders {
        run(&mut release(copy.path(), folder, &key));
    }
    let names = |folder: &Path| -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let version = read("Cargo.toml").lines().find_map(|l| l.strip_prefix("version = ")).unwrap().replace('"', "");
    let (chart, bill) = (format!("agentforge-{version}.tgz"), format!("agentforge-{version}.cdx.json"));
    let wanted = [&chart, &bill, "RELEASE_NOTES.md", "SHA256SUMS", "SHA256SUMS.sig", "release.pub"];
    assert_eq!(names(&folders[0]), wanted.iter().map(|name| (*name).to_owned()).collect());
    for name in names(&folders[0]) {
        let [one, two] = folders.each_ref().map(|folder| std::fs::read(folder.join(&name)).unwrap());
        assert!(one == two, "{name} differs between two runs");
    }
    let first = &folders[0];
    run(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(first));
    let verify = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "release.pub", "-sigfile", "SHA256SUMS.sig"];
    run(Command::new("openssl").args(verify).args(["-in", "SHA256SUMS"]).current_dir(first));
    // The chart in it is the one of the tree.
    run(Command::new("tar").args(["-xzf", &chart]).current_dir(first));
    for file in ["Chart.yaml", "values.yaml", "values.schema.json", "templates/secrets.yaml"] {
        let packed = std::fs::read_to_string(first.join("agentforge").join(file)).unwrap();
        assert_eq!(packed, std::fs::read_to_string(copy.path().join("deploy/helm/agentforge").join(file)).unwrap());
    }
    let notes = std::fs::read_to_string(first.join("RELEASE_NOTES.md")).unwrap();
    assert!(notes.starts_with(&format!("# AgentForge {version}, ")) && notes.contains("# Upgrading"), "{notes}");
    let bill: serde_json::Value = serde_json::from_slice(&std::fs::read(first.join(bill)).unwrap()).unwrap();
    assert!(bill["bomFormat"] == "CycloneDX" && bill["components"].as_array().unwrap().len() > 100);
}

/// In place of what builds and pushes: one line for each image.
fn pushes(copy: &Path, digest: &str) {
    let script = format!("#!/bin/sh\nfor s in orchestrator worker; do echo \"$s {digest}\"; done\n");
    std::fs::write(copy.join("scripts/build-images"), script).unwrap();
    git(copy, &["commit", "--quiet", "--all", "--message", "Images"]);
}

#[test]
fn the_signature_is_about_the_images_digests_too() {
    let Some(copy) = copy() else { return };
    let work = TempDir::new().unwrap();
    let (folder, key) = (work.path().join("out"), work.path().join("key.pem"));
    run(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&key));
    let digest = format!("sha256:{}", "ab".repeat(32));
    pushes(copy.path(), &digest);
    run(release(copy.path(), &folder, &key).arg("--images"));
    let images = std::fs::read_to_string(folder.join("images.txt")).unwrap();
    assert_eq!(images, format!("orchestrator {digest}\nworker {digest}\n"));
    let verify = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "release.pub", "-sigfile", "SHA256SUMS.sig"];
    run(Command::new("openssl").args(verify).args(["-in", "SHA256SUMS"]).current_dir(&folder));
    let check = || Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&folder).output();
    assert!(check().unwrap().status.success());
    // Another digest is not what was signed.
    std::fs::write(folder.join("images.txt"), images.replace("ab", "cd")).unwrap();
    assert!(!check().unwrap().status.success());
    // What names no digest cannot be signed.
    pushes(copy.path(), "registry.example/worker:1");
    let out = release(copy.path(), &work.path().join("other"), &key).arg("--images").output().unwrap();
    assert_eq!(out.status.code(), Some(69), "{out:?}");
}

#[test]
fn what_cannot_be_released_is_refused() {
    let Some(copy) = copy() else { return };
    let work = TempDir::new().unwrap();
    let (folder, key) = (work.path().join("out"), work.path().join("none"));
    let refused = |command: &mut Command| {
        let out = command.output().unwrap();
        assert_eq!(out.status.code(), Some(64), "{out:?}");
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    let told = refused(release(copy.path(), &folder, &key).args(["--tag", "v99.0.0"]));
    assert!(told.contains("v99.0.0"), "{told}");
    refused(release(copy.path(), &folder, &key).arg("--imagse"));
    let changelog = copy.path().join("CHANGELOG.md");
    let text = std::fs::read_to_string(&changelog).unwrap();
    std::fs::write(&changelog, text.replace("] - 2026", "] in 2026")).unwrap();
    assert!(refused(&mut release(copy.path(), &folder, &key)).contains("in no commit"));
    git(copy.path(), &["commit", "--quiet", "--all", "--message", "Changed"]);
    assert!(refused(&mut release(copy.path(), &folder, &key)).contains("no section"));
    assert!(!folder.exists(), "nothing is written");
}

/// What a workflow does runs on any machine: by a target of the Makefile, or by a script.
#[test]
fn every_workflow_runs_what_runs_here() {
    let makefile = read("Makefile");
    let mut found = 0;
    for entry in std::fs::read_dir(root().join(".github/workflows")).unwrap() {
        let path = entry.unwrap().path();
        let workflow: serde_json::Value = yaml_serde::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let jobs = workflow["jobs"].as_object().unwrap().values();
        let steps = jobs.flat_map(|job| job["steps"].as_array().unwrap());
        let lines: Vec<&str> = steps.filter_map(|step| step["run"].as_str()).flat_map(str::lines).collect();
        let mut ours = 0;
        for words in lines.iter().map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            for (i, word) in words.iter().enumerate() {
                if *word == "make" && i == 0 {
                    let is_target = |word: &&&str| !word.starts_with('-') && !word.contains('=');
                    for target in words[1..].iter().take_while(|word| **word != ">>").filter(is_target) {
                        assert!(makefile.contains(&format!("\n{target}: ")), "{}: make {target}", path.display());
                        ours += 1;
                    }
                } else if word.starts_with("scripts/") || *word == ".ci/run" {
                    assert!(root().join(word).is_file(), "{}: {word}", path.display());
                    ours += 1;
                }
            }
        }
        assert!(ours > 0, "{} runs nothing of ours", path.display());
        // A step is one command, which runs anywhere; only the files of a release are made with a key of the forge.
        let is_release = path.ends_with("release.yml");
        let inline = lines.iter().filter(|line| !["make ", "sudo "].iter().any(|start| line.starts_with(start)));
        assert!(is_release || inline.clone().count() == 0, "{}: {:?}", path.display(), inline.collect::<Vec<_>>());
        found += 1;
    }
    assert!(found > 13, "the workflows were not found");
}
