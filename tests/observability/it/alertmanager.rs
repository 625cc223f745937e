//! Alertmanager's configuration: that it is valid, which receivers are notified of what, and what inhibits what.

use crate::files;
use agentforge_harness::{Alertmanager, amtool, eventually, require};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What makes alerts of one kind equal for inhibition.
const SAME: [(&str, &str); 3] = [("mission", "staging"), ("queue", "default"), ("site", "north")];

/// Who silences whom while both are about the same thing. No other alert may be silenced.
const SILENCED: [(&str, &[&str]); 5] = [
    ("SustainedNATSBacklogCritical", &["SustainedNATSBacklogWarning"]),
    ("NATSBacklogDrainSLOBurnFast", &["NATSBacklogDrainSLOBurnSlow"]),
    ("JobLatencySLOBurnFast", &["JobLatencySLOBurnSlow", "JobEndToEndP95High"]),
    (
        "NATSExporterDown",
        &[
            "NATSJetStreamMetricsMissing",
            "SustainedNATSBacklogWarning",
            "NATSBacklogDrainSLOBurnSlow",
            "NATSConsumerAckPendingHigh",
            "NATSStorageFilling",
        ],
    ),
    ("EdgeLinkDown", &["EdgeReplayStalled", "EdgeBandwidthLow"]),
];

fn shipped() -> String {
    std::fs::read_to_string(files::root().join("monitoring/alertmanager/alertmanager.yml")).unwrap()
}

fn path() -> String {
    files::root().join("monitoring/alertmanager/alertmanager.yml").to_str().unwrap().to_owned()
}

#[test]
fn the_configuration_is_one_and_holds_no_secret() {
    let Some(()) = require("alertmanager") else { return };
    let (is_content, said) = amtool(&["check-config", &path()]);
    assert!(is_content, "{said}");
    for line in shipped().lines() {
        let key = line.trim().trim_start_matches("- ").split(':').next().unwrap_or_default();
        let is_secret = ["api_url", "routing_key", "service_key", "credentials", "password", "smtp_auth_password"];
        assert!(!is_secret.contains(&key), "a secret stands in the file: {key}");
    }
}

#[test]
fn every_alert_is_told_to_those_who_shall_know() {
    let Some(()) = require("alertmanager") else { return };
    let receivers_of = |labels: &[String]| {
        let mut args = vec!["config", "routes", "test", "--config.file", ""];
        let path = path();
        args[4] = &path;
        args.extend(labels.iter().map(String::as_str));
        let (is_content, said) = amtool(&args);
        assert!(is_content, "{said}");
        let last = said.lines().find(|line| !line.contains("Warning") && !line.is_empty()).unwrap_or_default();
        last.split(',').map(str::to_owned).collect::<BTreeSet<_>>()
    };
    for alert in files::alerts() {
        let labels = [format!("alertname={}", alert.name), format!("severity={}", alert.labels["severity"])];
        let expected = match alert.labels["severity"].as_str() {
            "critical" => ["broadcaster", "pagerduty"],
            "warning" => ["broadcaster", "slack"],
            other => panic!("{}: {other} is no severity", alert.name),
        };
        assert_eq!(receivers_of(&labels), BTreeSet::from(expected.map(str::to_owned)), "{}", alert.name);
    }
    let other = receivers_of(&["alertname=SomebodyElses".to_owned()]);
    assert_eq!(other, BTreeSet::from(["mail".to_owned()]), "what has no severity is not lost");
}

fn alert(name: &str, severity: &str, other: bool) -> Value {
    let mut labels: BTreeMap<&str, String> =
        SAME.iter().map(|(k, v)| (*k, if other { format!("{v}-2") } else { (*v).to_owned() })).collect();
    labels.insert("alertname", name.to_owned());
    labels.insert("severity", severity.to_owned());
    json!({"labels": labels, "annotations": {"summary": "s", "runbook_url": "r"}})
}

/// Every pair of alerts: one inhibits another if, and only if, the table lists it.
#[tokio::test]
async fn what_says_more_silences_what_follows_and_nothing_else() {
    let Some(()) = require("alertmanager") else { return };
    // The real rules; no person is notified.
    let document: Value = yaml_serde::from_str(&shipped()).unwrap();
    let configuration = json!({
        "route": {"receiver": "nobody"},
        "inhibit_rules": document["inhibit_rules"],
        "receivers": [{"name": "nobody"}],
    });
    let alertmanager = Alertmanager::start(&configuration.to_string()).await;
    let alerts = files::alerts();
    let all: Vec<Value> =
        alerts.iter().flat_map(|a| [false, true].map(|other| alert(&a.name, &a.labels["severity"], other))).collect();
    // Only alerts with a firing source may be inhibited, so each source fires by itself first.
    for (source, expected) in SILENCED {
        let severity = |name: &str| &alerts.iter().find(|a| a.name == name).unwrap().labels["severity"];
        for target in expected {
            assert!(alerts.iter().any(|a| a.name == *target), "{source} silences {target}, which is no alert");
            let is_page = severity(target) == "critical";
            assert!(!is_page || *target == "EdgeReplayStalled", "{source} would silence a page, {target}");
        }
    }
    alertmanager.post(&Value::Array(all.clone())).await.unwrap();
    eventually(Duration::from_secs(30), "all alerts are there and their inhibition is known", async || {
        let found = alertmanager.alerts().await?;
        if found.len() != all.len() {
            return Err(format!("{} of {} alerts", found.len(), all.len()));
        }
        let name = |alert: &Value| alert["labels"]["alertname"].as_str().unwrap().to_owned();
        let by_id: BTreeMap<String, &Value> =
            found.iter().map(|a| (a["fingerprint"].as_str().unwrap().to_owned(), a)).collect();
        let mut silenced: BTreeSet<(String, String)> = BTreeSet::new();
        for target in &found {
            for source in target["status"]["inhibitedBy"].as_array().unwrap() {
                let source = by_id[source.as_str().unwrap()];
                silenced.insert((name(source), name(target)));
            }
        }
        // Alertmanager names one source of several; each target must be silent for a reason in the table.
        let allowed: BTreeSet<(String, String)> = SILENCED
            .iter()
            .flat_map(|(s, targets)| targets.iter().map(|t| ((*s).to_owned(), (*t).to_owned())))
            .collect();
        let targets =
            |pairs: &BTreeSet<(String, String)>| pairs.iter().map(|(_, t)| t.clone()).collect::<BTreeSet<_>>();
        match (silenced.difference(&allowed).next(), targets(&silenced) == targets(&allowed)) {
            (None, true) => Ok(()),
            (Some(wrong), _) => Err(format!("{wrong:?} is not in the table")),
            (None, false) => Err(format!("only {:?} are silent", targets(&silenced))),
        }
    })
    .await;
}

/// The higher step of one mission leaves that of another alone.
#[tokio::test]
async fn an_alert_about_something_else_is_not_silenced() {
    let Some(()) = require("alertmanager") else { return };
    let document: Value = yaml_serde::from_str(&shipped()).unwrap();
    let configuration = json!({
        "route": {"receiver": "nobody"},
        "inhibit_rules": document["inhibit_rules"],
        "receivers": [{"name": "nobody"}],
    });
    let alertmanager = Alertmanager::start(&configuration.to_string()).await;
    let pairs = [
        alert("SustainedNATSBacklogCritical", "critical", false),
        alert("SustainedNATSBacklogWarning", "warning", false),
        alert("SustainedNATSBacklogWarning", "warning", true),
        alert("EdgeLinkDown", "warning", false),
        alert("EdgeReplayStalled", "critical", false),
        alert("EdgeReplayStalled", "critical", true),
    ];
    alertmanager.post(&json!(pairs)).await.unwrap();
    eventually(Duration::from_secs(30), "two of them are silent", async || {
        let found = alertmanager.alerts().await?;
        let silent: Vec<String> = found
            .iter()
            .filter(|a| a["status"]["state"] == "suppressed")
            .map(|a| format!("{} {}", a["labels"]["alertname"], a["labels"]["site"]))
            .collect();
        if silent.len() == 2 && silent.iter().all(|s| s.ends_with("\"north\"")) {
            Ok(())
        } else {
            Err(format!("{silent:?}"))
        }
    })
    .await;
}
