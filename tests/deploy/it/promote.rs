//! `scripts/promote` in a clone of the overlays: moves all images of an environment in one commit, or nothing.

use crate::environments::NOT_IN_CLUSTERS;
use crate::manifests::root;
use agentforge_stack::roster::SERVICES;
use std::path::Path;
use std::process::{Command, Output};

fn run(dir: &Path, program: &str, args: &[&str]) -> Output {
    let who = [
        ("GIT_AUTHOR_NAME", "t"),
        ("GIT_AUTHOR_EMAIL", "t@t"),
        ("GIT_COMMITTER_NAME", "t"),
        ("GIT_COMMITTER_EMAIL", "t@t"),
    ];
    Command::new(program).args(args).current_dir(dir).envs(who).output().unwrap()
}

fn git(dir: &Path, args: &[&str]) -> String {
    let out = run(dir, "git", args);
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// A repository with the overlays and the script.
fn clone() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for part in ["overlays", "scripts"] {
        let out = run(&root(), "cp", &["-r", part, dir.path().to_str().unwrap()]);
        assert!(out.status.success());
    }
    git(dir.path(), &["init", "-q"]);
    git(dir.path(), &["add", "."]);
    git(dir.path(), &["commit", "-q", "-m", "start"]);
    dir
}

#[test]
fn an_environment_moves_whole_and_in_one_commit() {
    let dir = clone();
    let promote = |args: &[&str]| {
        let out = run(dir.path(), dir.path().join("scripts/promote").to_str().unwrap(), args);
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
    };
    let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
    let commits = || git(dir.path(), &["rev-list", "--count", "HEAD"]).trim().to_owned();
    let commit = "0123456789abcdef0123456789abcdef01234567";

    assert_eq!(promote(&["staging", "v1.2"]).0, Some(1), "only a commit's full name is taken");
    assert_eq!(commits(), "1");

    let (code, told) = promote(&["staging", commit]);
    assert_eq!(code, Some(0), "{told}");
    for file in ["overlays/staging/kustomization.yaml", "overlays/staging/jobs/kustomization.yaml"] {
        let text = read(file);
        assert!(
            text.matches("newName:").count() > 0
                && text.matches("newName:").count() == text.matches(&format!("newTag: {commit}\n")).count()
        );
    }
    assert_eq!((commits().as_str(), git(dir.path(), &["status", "--porcelain"]).as_str()), ("2", ""));

    // What staging was tested with, and nothing else; then there is nothing to do.
    assert_eq!(promote(&["production", "--from", "staging"]).0, Some(0));
    let text = read("overlays/production/kustomization.yaml");
    assert_eq!(text.matches("newName:").count(), text.matches(&format!("newTag: {commit}\n")).count());
    let (code, told) = promote(&["production", "--from", "staging"]);
    assert!(code == Some(0) && told.contains("there already") && commits() == "3", "{told}");

    // By digest: all of them or none.
    let digest = format!("sha256:{}", "ab".repeat(32));
    let names = SERVICES.iter().map(|service| service.name).filter(|name| !NOT_IN_CLUSTERS.contains(name));
    let services: Vec<&str> = names.chain(["nats-server"]).collect();
    let lines = |services: &[&str]| services.iter().map(|s| format!("{s} {digest}\n")).collect::<String>();
    let file =
        dir.path().parent().unwrap().join(format!("{}.digests", dir.path().file_name().unwrap().to_string_lossy()));
    std::fs::write(&file, lines(&services[1..])).unwrap();
    let (code, told) = promote(&["production", "--digests", file.to_str().unwrap()]);
    assert!(code == Some(1) && told.contains("orchestrator") && commits() == "3", "{told}");
    std::fs::write(&file, lines(&services)).unwrap();
    assert_eq!(promote(&["production", "--digests", file.to_str().unwrap()]).0, Some(0));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(
        read("overlays/production/kustomization.yaml").matches(&format!("digest: {digest}\n")).count(),
        services.len()
    );

    // Uncommitted changes are not included.
    std::fs::write(
        dir.path().join("overlays/production/kustomization.yaml"),
        read("overlays/production/kustomization.yaml") + "# mine\n",
    )
    .unwrap();
    assert_eq!(promote(&["production", commit]).0, Some(1));
    assert_eq!(commits(), "4");
}

/// What an environment names can be built: its commit has the folder and the Containerfile of each image.
#[test]
fn every_pinned_commit_has_what_its_images_are_made_of() {
    for name in ["staging", "staging/jobs", "production", "edge"] {
        let text = crate::manifests::read(&format!("overlays/{name}/kustomization.yaml"));
        let entries: Vec<&str> = text.lines().map(str::trim).collect();
        let pinned = entries.windows(3).filter_map(|lines| {
            let service = lines[0].strip_prefix("- name: agentforge/")?;
            Some((service, lines[2].strip_prefix("newTag: ")?))
        });
        let pinned: Vec<_> = pinned.collect();
        for (service, commit) in &pinned {
            let has =
                |what: &str| run(&root(), "git", &["cat-file", "-e", &format!("{commit}{what}")]).status.success();
            if !has("^{commit}") {
                eprintln!("SKIPPED: this clone does not have the commit {commit}");
                continue;
            }
            let folder = match *service {
                "cli" => ":cli",
                "nats-server" => ":scripts/nats-server",
                _ => &format!(":services/{service}"),
            };
            for what in [folder, ":Containerfile", ":scripts/build-images"] {
                assert!(has(what), "{name}: {service} cannot be built from {commit}: it has no {what}");
            }
        }
        assert!(!pinned.is_empty(), "{name}");
    }
}

/// With a substitute for the engine: what is pushed, and the lines that a promotion by digest reads.
#[test]
fn what_is_pushed_is_said_by_its_digest() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let digest = format!("sha256:{}", "cd".repeat(32));
    let engine = format!(
        "#!/bin/sh\necho \"$*\" >>{0}/calls\ncase \"$1\" in inspect) echo \"r.example/af/worker@{digest}\" ;; esac\n",
        dir.path().display()
    );
    let path = dir.path().join("docker");
    std::fs::write(&path, engine).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let found = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let build = |args: &[&str], tag: &str| {
        let mut command = Command::new(root().join("scripts/build-images"));
        command.args(args).env("PATH", &found).env("MODE", "source").env("ENGINE", "docker").env("TAG", tag);
        command.env("REGISTRY", "r.example/af").output().unwrap()
    };
    let out = build(&["--push", "worker"], "abc");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && said == format!("worker {digest}\n"), "{out:?}");
    let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
    assert!(calls.contains("push r.example/af/worker:abc"), "{calls}");
    assert_eq!(build(&["--push", "worker"], "abc-dirty").status.code(), Some(64), "no commit has it");
    assert_eq!(build(&["--pusch"], "abc").status.code(), Some(64));
    assert!(build(&["--help"], "abc").status.success());
}
