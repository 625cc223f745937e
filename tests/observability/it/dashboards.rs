//! Dashboards: JSON that Grafana takes, with queries that Prometheus takes.

use crate::files;
use agentforge_harness::{promtool, require};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;

/// What operators look for, by file, and a metric that each must show.
const PANELS: [(&str, &[&str]); 12] = [
    (
        "jetstream.json",
        &[
            "jetstream_backlog",
            "jetstream_backlog_drain_rate",
            "jetstream_backlog_drain_estimate_minutes",
            "jetstream_ack_pending",
            "jetstream_redelivery_rate",
        ],
    ),
    (
        "jobs.json",
        &[
            "agentforge_jobs_submitted_total",
            "agentforge_job_end_to_end_seconds_bucket",
            "agentforge_jobs_completed_total",
        ],
    ),
    ("edge.json", &["edge_link_status", "replay_queue_depth", "edge_bandwidth_bps", "replay_oldest_file_age_seconds"]),
    (
        "tactical.json",
        &["tactical_stream_clients", "tactical_alerts_published_total", "tactical_delivery_lag_seconds_bucket"],
    ),
    (
        "broadcaster.json",
        &["broadcaster_messages_processed_total", "broadcaster_endpoint_circuit_state", "broadcaster_pending"],
    ),
    (
        "agents.json",
        &[
            "agentforge_agents",
            "agentforge_agent_certificate_expiry_timestamp_seconds",
            "agentforge_heartbeat_failures_total",
        ],
    ),
    ("slo.json", &["agentforge_slo_status", "agentforge_error_budget_used_seconds"]),
    (
        "internal-latency.json",
        &[
            "internal_service_latency_class",
            "internal_service:p99_latency_seconds_5m",
            "internal_service:failure_rate_5m",
            "internal_service_latency_targets",
        ],
    ),
    ("api.json", &["agentforge_http_requests_total", "agentforge_http_request_duration_seconds_bucket"]),
    ("alerts.json", &["ALERTS"]),
    (
        "bridge.json",
        &["bridge_inputs_total", "bridge_experiments_total", "bridge_inputs_by_status", "bridge_inputs_by_owner"],
    ),
    ("nats-server.json", &["gnatsd_varz_connections", "nats_jetstream_server_storage_bytes"]),
];

/// The queries of a dashboard with the titles of their panels.
pub fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().unwrap() {
            found.push((title.to_owned(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    found
}

#[test]
fn every_dashboard_has_a_stable_id_a_choice_of_source_and_units() {
    let mut uids = BTreeSet::new();
    for (file, dashboard) in files::dashboards() {
        let uid = dashboard["uid"].as_str().unwrap();
        assert_eq!(format!("agentforge-{}", file.trim_end_matches(".json")), uid, "the uid is that of the file");
        assert!(uid.len() <= 40 && uids.insert(uid.to_owned()), "{uid}");
        assert!(dashboard.get("id").is_none(), "{file}: an id is of one Grafana only");
        assert!(dashboard["title"].as_str().is_some_and(|t| t.starts_with("AgentForge")), "{file}");
        assert!(dashboard["schemaVersion"].as_u64().is_some_and(|v| v >= 36), "{file}");
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let source =
            variables.iter().find(|v| v["type"] == "datasource").unwrap_or_else(|| panic!("{file}: no source"));
        assert_eq!((&source["name"], &source["query"]), (&json!("datasource"), &json!("prometheus")), "{file}");
        assert!(variables.iter().any(|v| v["name"] == "namespace"), "{file}: no choice of the environment");
        for (panel, expr) in queries(&dashboard) {
            assert!(expr.contains("namespace=~\"$namespace\""), "{file}, {panel}: of all environments at once");
        }
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<u64> = panels.iter().map(|p| p["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{file}: two panels have one id");
        for panel in panels {
            let place = format!("{file}, {}", panel["title"]);
            assert!(panel["title"].as_str().is_some_and(|t| !t.is_empty()), "{place}");
            assert!(
                panel["fieldConfig"]["defaults"]["unit"].as_str().is_some_and(|u| !u.is_empty()),
                "{place}: no unit"
            );
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{place}");
            for target in panel["targets"].as_array().unwrap() {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{place}");
            }
            let at = &panel["gridPos"];
            assert!(at["x"].as_u64().unwrap() + at["w"].as_u64().unwrap() <= 24, "{place}: beyond the right edge");
        }
        let cells = |p: &Value| {
            let n = |key: &str| p["gridPos"][key].as_u64().unwrap();
            (n("y")..n("y") + n("h"))
                .flat_map(move |y| (n("x")..n("x") + n("w")).map(move |x| (x, y)))
                .collect::<Vec<_>>()
        };
        let mut taken = BTreeSet::new();
        assert!(panels.iter().flat_map(cells).all(|cell| taken.insert(cell)), "{file}: panels overlap");
    }
}

#[test]
fn every_variable_that_a_query_uses_is_declared() {
    for (file, dashboard) in files::dashboards() {
        let declared: BTreeSet<&str> =
            dashboard["templating"]["list"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
        for (panel, expr) in queries(&dashboard) {
            for after in expr.split('$').skip(1) {
                let name: String = after.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                assert!(declared.contains(name.as_str()), "{file}, {panel}: ${name}");
            }
        }
    }
}

#[test]
fn every_query_is_one_that_prometheus_takes() {
    let Some(()) = require("prometheus") else { return };
    let rules: Vec<Value> = files::dashboards()
        .iter()
        .flat_map(|(_, dashboard)| queries(dashboard))
        .map(|(_, expr)| json!({"record": "query", "expr": expr}))
        .collect();
    // A query is checked as what a rule would record.
    let groups: Vec<Value> =
        rules.iter().enumerate().map(|(n, rule)| json!({"name": format!("q{n}"), "rules": [rule]})).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({"groups": groups}).to_string()).unwrap();
    let (is_content, said) = promtool(&["check", "rules", "--lint=none", file.path().to_str().unwrap()], b"");
    assert!(is_content && said.contains(&format!("{} rules found", rules.len())), "{said}");
}

#[test]
fn what_operators_look_for_is_there() {
    let all = files::dashboards();
    assert_eq!(all.len(), PANELS.len());
    for (file, metrics) in PANELS {
        let (_, dashboard) = all.iter().find(|(name, _)| name == file).unwrap_or_else(|| panic!("no {file}"));
        for metric in metrics {
            assert!(queries(dashboard).iter().any(|(_, expr)| expr.contains(metric)), "{file} does not show {metric}");
        }
    }
}

#[test]
fn the_files_are_those_that_the_script_writes() {
    let out = Command::new("python3").arg(files::root().join("scripts/generate-dashboards")).arg("--check").output();
    let out = out.expect("python3 is needed to build, too");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
