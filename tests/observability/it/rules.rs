//! Rules and alerts, checked by promtool: that they are rules, and what each alert does.

use crate::files;
use agentforge_harness::{cargo_bin, promtool, require};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// What every alert is tried with.
const CASES: [&str; 5] = ["fires", "quiet", "boundary", "missing series", "reset"];

/// The alerts that there are to be, with their severity: one that goes missing is noticed here.
const ALERTS: &[(&str, &str)] = &[
    ("SustainedNATSBacklogWarning", "warning"),
    ("SustainedNATSBacklogCritical", "critical"),
    ("NATSBacklogDrainSLOAtRisk", "critical"),
    ("NATSBacklogDrainSLOBurnFast", "critical"),
    ("NATSBacklogDrainSLOBurnSlow", "warning"),
    ("QueuePausedLong", "warning"),
    ("JobLatencySLOBurnFast", "critical"),
    ("JobLatencySLOBurnSlow", "warning"),
    ("JobEndToEndP95High", "warning"),
    ("NATSConsumerAckPendingHigh", "warning"),
    ("NATSConsumerRedeliveriesRateHigh", "warning"),
    ("NATSExporterDown", "critical"),
    ("NATSJetStreamMetricsMissing", "warning"),
    ("NATSStorageFilling", "warning"),
    ("KEDAScalerErrors", "warning"),
    ("HighErrorRate", "warning"),
    ("AgentsOffline", "critical"),
    ("HeartbeatFailures", "warning"),
    ("CertificateExpiringSoon", "warning"),
    ("ListenerCertificateExpiringSoon", "warning"),
    ("ListenerTlsFilesUnusable", "warning"),
    ("NatsCertificateExpiringSoon", "warning"),
    ("AgentClockSkew", "warning"),
    ("DatabaseConnectionErrors", "critical"),
    ("LoopStandsStill", "critical"),
    ("StreamsAmiss", "critical"),
    ("DeadLettersGrowing", "warning"),
    ("AttemptsRefused", "critical"),
    ("ResultsRefused", "warning"),
    ("OutboxParked", "warning"),
    ("ScheduleTurnsSkipped", "warning"),
    ("EdgeLinkDown", "warning"),
    ("EdgeReplayStalled", "critical"),
    ("EdgeBandwidthLow", "warning"),
    ("TacticalClientsDropped", "warning"),
    ("BroadcasterDeadLetters", "warning"),
    ("BroadcasterEndpointWaits", "warning"),
    ("BroadcasterRetriesNearlyFull", "warning"),
    ("FailedLogins", "warning"),
    ("AccessTokensFileUnusable", "warning"),
    ("AuditVerificationFailed", "critical"),
    ("WorkerDisputes", "warning"),
    ("ServiceDown", "critical"),
    ("ReplicaDown", "warning"),
    ("ServiceNotReady", "critical"),
    ("NATSDown", "critical"),
    ("NATSServerDown", "warning"),
    ("NATSStreamFilling", "warning"),
    ("NoWorkersOnline", "critical"),
    ("RelayHeld", "warning"),
    ("OutboxFilling", "critical"),
    ("SLOBreached", "warning"),
    ("SLOAtRisk", "warning"),
    ("JobLatencyCapBurnFast", "critical"),
    ("JobLatencyCapBurnSlow", "warning"),
    ("EdgeFilesQuarantined", "warning"),
    ("KEDADown", "warning"),
    ("WorkerResultsHeld", "warning"),
    ("InternalServiceP99LatencyHigh", "warning"),
    ("InternalServiceFailureRateHigh", "warning"),
    ("InternalServiceP99LatencyBurnFast", "critical"),
    ("InternalServiceP99LatencyBurnSlow", "warning"),
    ("HighLatencyP95", "warning"),
    ("LowSuccessRatio", "warning"),
    ("NoExperimentsIn1h", "warning"),
    ("HighRejectedShare", "warning"),
];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn every_alert_that_is_promised_is_there_with_its_severity() {
    let found: BTreeSet<(String, String)> =
        files::alerts().into_iter().map(|alert| (alert.name, alert.labels["severity"].clone())).collect();
    let promised = ALERTS.iter().map(|(name, severity)| ((*name).to_owned(), (*severity).to_owned())).collect();
    assert_eq!(found, promised);
}

#[test]
fn every_alert_says_what_it_is_and_leads_to_a_page_that_knows_it() {
    for alert in files::alerts() {
        for key in ["summary", "description", "runbook_url"] {
            assert!(alert.annotations.get(key).is_some_and(|text| !text.is_empty()), "{} has no {key}", alert.name);
        }
        assert!(alert.has_for, "{} fires at once", alert.name);
        let url = &alert.annotations["runbook_url"];
        let page = url.rsplit_once("{{ end }}").unwrap_or(("", url)).1;
        let file = files::root().join(page);
        let content = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {page}: {e}", alert.name));
        assert!(content.contains(&format!("`{}`", alert.name)), "{page} does not name {}", alert.name);
    }
}

#[test]
fn promtool_takes_the_rules_and_each_alert_does_as_its_cases_say() {
    let Some(()) = require("prometheus") else { return };
    for rules in files::listed("monitoring/alerts", ".rules.yml") {
        let (is_content, said) = promtool(&["check", "rules", "--lint=all", "--lint-fatal", text(&rules)], b"");
        assert!(is_content, "{said}");
    }
    let all = files::listed("monitoring/alerts", ".test.yml");
    let said: Vec<(bool, String)> = std::thread::scope(|scope| {
        let run = |tests: &'_ Path| promtool(&["test", "rules", text(tests)], b"");
        let running: Vec<_> = all.iter().map(|tests| scope.spawn(move || run(tests))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (tests, (is_content, said)) in all.iter().zip(said) {
        assert!(is_content, "{}: {said}", tests.display());
    }
}

#[test]
fn every_alert_is_tried_firing_quiet_at_its_boundary_without_series_and_after_a_reset() {
    let mut tried: BTreeSet<(String, &str)> = BTreeSet::new();
    for path in files::listed("monitoring/alerts", "-alerts.test.yml") {
        let document = files::yaml(&path);
        for case in document["tests"].as_array().unwrap() {
            let Some((alert, word)) = case["name"].as_str().unwrap().split_once(": ") else { continue };
            let asked = case["promql_expr_test"].as_array().unwrap();
            let is_about = |test: &serde_json::Value| test["expr"].as_str().unwrap().contains(&format!("\"{alert}\""));
            assert!(asked.iter().all(is_about), "{alert}: {word}");
            let fires = asked.iter().any(|test| !test["exp_samples"].as_array().unwrap().is_empty());
            let kind =
                CASES.into_iter().find(|kind| word.starts_with(kind)).unwrap_or_else(|| panic!("{alert}: {word}"));
            assert!(kind != "fires" || fires, "{alert}: {word}: it does not fire");
            assert!(kind != "quiet" || !fires, "{alert}: {word}: it fires");
            tried.insert((alert.to_owned(), kind));
        }
    }
    for alert in files::alerts() {
        for kind in CASES {
            assert!(tried.contains(&(alert.name.clone(), kind)), "{} is not tried: {kind}", alert.name);
        }
    }
}

#[test]
fn rendered_rules_are_rules_with_shorter_times() {
    let Some(()) = require("prometheus") else { return };
    let folder = tempfile::tempdir().unwrap();
    let render = |args: &[&str]| {
        let out = Command::new(cargo_bin("agentforge")).args(["rules", "render"]).args(args).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    render(&["--scale", "60", "--out", folder.path().to_str().unwrap()]);
    for shipped in files::listed("monitoring/alerts", ".rules.yml") {
        let rendered = folder.path().join(files::name(&shipped));
        let (is_content, said) = promtool(&["check", "rules", text(&rendered)], b"");
        assert!(is_content, "{said}");
        assert_ne!(std::fs::read(&rendered).unwrap(), std::fs::read(&shipped).unwrap(), "nothing is shorter");
    }
    let one = folder.path().join("all.yml");
    std::fs::write(&one, render(&[])).unwrap();
    let (is_content, said) = promtool(&["check", "rules", text(&one)], b"");
    assert!(is_content && said.contains(&format!("{} rules found", files::rules().len())), "{said}");
}
