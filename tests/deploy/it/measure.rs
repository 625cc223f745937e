//! The deployment scripts in their local mode, against `agentforge dev`: figures, verdicts and exit codes.

use crate::english::passes;
use crate::manifests::root;
use agentforge_harness::{Proc, cargo_bin, require};
use serde_json::Value;
use std::time::Duration;

/// Starts a stack, runs, and drains, on a busy machine.
const RUN: Duration = Duration::from_secs(240);

fn jobs() -> u64 {
    if std::env::var("AGENTFORGE_SOAK").is_ok_and(|v| v == "1") { 3_000 } else { 300 }
}

/// Exit code and output of a script in its local mode.
async fn local(script: &str, env: &[(&str, &str)]) -> (i32, String) {
    let builder = Proc::builder(root().join("scripts").join(script)).arg("--local").envs(env.iter().copied());
    let mut proc = builder.env("AGENTFORGE_BIN", cargo_bin("agentforge").display().to_string()).start();
    let code = proc.wait(RUN).await;
    (code, proc.full_log())
}

/// The JSON document among the lines.
fn document(log: &str) -> Value {
    let line = log.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no JSON in:\n{log}"));
    serde_json::from_str(line).unwrap()
}

#[tokio::test]
async fn a_backlog_that_drains_in_time_passes_with_its_figures() {
    let Some(()) = require("nats-server") else { return };
    let count = jobs();
    let (code, log) = local("measure_backlog_drain.sh", &[("RUNS", "3"), ("BACKLOG_COUNT", &count.to_string())]).await;
    assert_eq!(code, 0, "{log}");
    let report = document(&log);
    let durations: Vec<f64> = report["durations"].as_array().unwrap().iter().map(|d| d.as_f64().unwrap()).collect();
    let longest = durations.iter().copied().fold(0.0, f64::max);
    assert!(durations.len() == 3 && durations.iter().all(|d| *d > 0.0), "{report}");
    assert_eq!((report["p95"].as_f64(), report["verdict"].as_str()), (Some(longest), Some("passed")), "{report}");
    assert_eq!(
        (report["objective_s"].as_f64(), report["cap_s"].as_f64(), report["count"].as_u64()),
        (Some(600.0), Some(1200.0), Some(count))
    );
    assert!(report["timestamp"].is_string() && report["commit"].as_str().is_some_and(|c| c.len() == 40), "{report}");
    // The stack's own NATS was asked, too.
    assert!(report["runs"].as_array().unwrap().iter().any(|r| r["peak_backlog"].is_u64()), "{report}");
}

#[tokio::test]
async fn a_missed_objective_is_1_and_a_run_without_an_end_is_2_and_no_figure() {
    let Some(()) = require("nats-server") else { return };
    let missed = [("RUNS", "1"), ("BACKLOG_COUNT", "50"), ("OBJECTIVE", "1ms")];
    let (code, log) = local("measure_backlog_drain.sh", &missed).await;
    assert_eq!((code, document(&log)["verdict"].as_str()), (1, Some("p95_missed")), "{log}");

    let count = (10 * jobs()).to_string();
    let (code, log) =
        local("measure_backlog_drain.sh", &[("RUNS", "1"), ("BACKLOG_COUNT", &count), ("CAP", "100ms")]).await;
    let report = document(&log);
    assert_eq!((code, report["verdict"].as_str()), (2, Some("cap_broken")), "{log}");
    assert_eq!((&report["durations"], &report["p95"]), (&serde_json::json!([]), &Value::Null), "{report}");
    assert_eq!(report["runs"][0]["outcome"], "timed_out");
}

#[tokio::test]
async fn without_an_orchestrator_nothing_is_measured() {
    let mut command = Proc::builder(cargo_bin("agentforge"))
        .args(["backlog", "measure", "--json", "--count", "1", "--server", "http://127.0.0.1:9"])
        .start();
    let code = command.wait(RUN).await;
    let report = document(&command.full_log());
    let found = (code, report["verdict"].as_str(), report["runs"][0]["outcome"].as_str());
    assert_eq!(found, (69, Some("error"), Some("not_started")), "not a broken objective");
    let mut command = Proc::builder(cargo_bin("agentforge"))
        .args(["verify", "--json", "--server", "http://127.0.0.1:9", "--http", "http://127.0.0.1:9"])
        .start();
    assert_eq!(command.wait(RUN).await, 1);
    assert_eq!(document(&command.full_log())["ok"], false);
}

#[tokio::test]
async fn staging_is_verified_here_as_it_is_there() {
    let Some(()) = require("nats-server") else { return };
    let (code, log) = local("verify_staging.sh", &[("GENERATE_BACKLOG", "1"), ("BACKLOG_COUNT", "50")]).await;
    assert_eq!(code, 0, "{log}");
    for check in ["orchestrator is ready", "a job runs", "workers are online", "a backlog drains: 50 jobs"] {
        assert!(log.contains(check), "{check}:\n{log}");
    }
    let (code, log) = local("run_staging_end_to_end.sh", &[("BACKLOG_COUNT", "50")]).await;
    assert!(code == 0 && log.contains("verdict passed"), "{log}");
}

/// An unknown argument does nothing, `--help` explains, and without a cluster nothing is called broken.
#[test]
fn scripts_say_what_they_are_and_where_they_cannot_work() {
    for name in ["run_staging_end_to_end.sh", "verify_staging.sh", "measure_backlog_drain.sh", "install_monitoring.sh"]
    {
        let run = |args: &[&str]| {
            let mut command = std::process::Command::new(root().join("scripts").join(name));
            // Without a cluster, also where this machine has one.
            command.args(args).env("KUBECONFIG", "/dev/null").env("AGENTFORGE_BIN", cargo_bin("agentforge"));
            let out = command.output().unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (out.status.code(), text(&out.stdout), text(&out.stderr))
        };
        let (code, help, _) = run(&["--help"]);
        assert!(code == Some(0) && help.contains(name) && help.contains("--local"), "{name}: {help}");
        let (code, _, told) = run(&["--remote"]);
        assert!(code == Some(64) && told.contains("--remote"), "{name}: {told}");
        let (code, _, told) = run(&[]);
        assert_eq!(code, Some(69), "{name}: {told}");
    }
}

#[test]
fn a_script_that_provides_a_program_is_never_taken_for_it() {
    passes(&["-m", "unittest", "discover", "-s", "scripts/tests", "-p", "test_pinned_program.py"]);
}

#[test]
fn every_script_has_help_and_refuses_what_it_does_not_know() {
    passes(&["-m", "unittest", "discover", "-s", "scripts/tests", "-p", "test_arguments.py"]);
}
