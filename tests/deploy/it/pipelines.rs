//! What workflows run besides the gate: the scripts do it, here as on a forge, and leave the files that are kept.

use crate::english::passes;
use crate::manifests::root;
use agentforge_harness::{cargo_bin, require};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn run(script: &str, args: &[&str]) -> Output {
    let mut command = Command::new(root().join(script));
    command.args(args).env("AGENTFORGE_BIN", cargo_bin("agentforge")).env_remove("SECURITY_HEADER_URLS");
    command.output().unwrap_or_else(|e| panic!("{script}: {e}"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn scans_base_images_and_logins_end_as_they_say() {
    passes(&["-m", "unittest", "discover", "-s", "scripts/tests", "-p", "test_pipelines.py"]);
}

#[test]
fn the_consoles_headers_are_checked_directly_and_through_a_proxy() {
    let (Some(()), Some(())) = (require("nats-server"), require("nginx")) else { return };
    let out = run("scripts/check-headers", &[]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(text.matches("with all headers").count(), 2, "{text}");
    // Nothing listens there.
    assert_eq!(run("scripts/check-headers", &["http://127.0.0.1:1/"]).status.code(), Some(1));
    assert_eq!(run("scripts/check-headers", &["127.0.0.1"]).status.code(), Some(64));
}

#[test]
fn the_manifest_of_a_site_has_each_file_that_its_hub_has() {
    let Some(()) = require("nats-server") else { return };
    let dir = tempfile::tempdir().unwrap();
    let out = run("scripts/edge-manifest", &[dir.path().to_str().unwrap()]);
    assert!(out.status.success(), "{out:?}");
    let verified: Value = serde_json::from_str(&read(&dir.path().join("edge_sync_verify.json"))).unwrap();
    assert_eq!(
        (&verified["ok"], &verified["checked"], &verified["contents"]),
        (&true.into(), &true.into(), &20.into())
    );
    let lines = read(&dir.path().join("edge_sync_manifest.json"));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sent: Vec<&Value> = lines.iter().filter(|line| line["event"] == "replayed").collect();
    assert_eq!(sent.len(), 20);
    assert!(sent.iter().all(|line| line["sha256"].as_str().unwrap().len() == 64 && line["domain"] == "hub"));
}

#[test]
fn the_profile_of_a_run_has_all_its_files() {
    let Some(()) = require("nats-server") else { return };
    let dir = tempfile::tempdir().unwrap();
    // Built next to the command.
    cargo_bin("agentforge-governance");
    let out = run("scripts/qa-profile", &[dir.path().to_str().unwrap()]);
    assert!(out.status.success(), "{out:?}");
    let results: Value = serde_json::from_str(&read(&dir.path().join("smoke_results.json"))).unwrap();
    assert!(results["ok"] == true && results["checks"].as_array().unwrap().len() > 3, "{results}");
    for (file, part) in [
        ("smoke_metrics.prom", "agentforge_jobs_"),
        ("resource_usage.prom", "resource_trend_cpu_pct{container=\"agentforge\"}"),
        ("resource_usage.prom", "resource_trend_mem_pct_bucket"),
        ("taxonomy_dashboard_metrics.prom", "taxonomy_alerts_total"),
        ("severity_runbook_dashboard.html", "<table"),
    ] {
        let text = read(&dir.path().join(file));
        assert!(text.contains(part), "{file} has no {part}");
    }
    assert!(read(&dir.path().join("resource_usage.jsonl")).lines().count() >= 4, "two processes, before and after");
}

/// Two runs: the second compares with the first, and adds to its history.
#[test]
fn a_night_of_the_contracts_adds_to_the_history() {
    if !root().join(".git").exists() {
        eprintln!("SKIPPED: without git there is no commit to compare with");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for runs in 1..=2 {
        let mut command = Command::new(root().join("scripts/stability"));
        command.arg(dir.path()).env("AGENTFORGE_GOVERNANCE", cargo_bin("agentforge-governance"));
        // What a commit changes is judged elsewhere: the first night may fail, and counts.
        let out = command.env("GOVERNANCE_STABILITY_MIN", "0").env_remove("GOVERNANCE_WEBHOOK").output().unwrap();
        assert!([Some(0), Some(1)].contains(&out.status.code()), "{out:?}");
        let history = read(&dir.path().join("status/stability-history.jsonl"));
        assert_eq!(history.lines().count(), runs, "{out:?}");
        assert!(dir.path().join("contract/openapi.json").is_file());
    }
    let metrics: Value = serde_json::from_str(&read(&dir.path().join("status/stability-metrics.json"))).unwrap();
    assert!(metrics["current_stable_streak"].as_u64().unwrap() >= 1, "the same contract is stable: {metrics}");
}
