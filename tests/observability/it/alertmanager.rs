//! Alertmanager's configuration: that it is valid, which receivers are notified of what, and what inhibits what.

use crate::files;
use agentforge_harness::{Alertmanager, amtool, eventually, require};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What makes alerts of one kind equal for inhibition.
const SAME: [(&str, &str); 7] = [
    ("namespace", "agentforge"),
    ("mission", "staging"),
    ("queue", "default"),
    ("site", "north"),
    ("service", "orchestrator"),
    ("slo", "availability"),
    ("job", "worker"),
];
/// Pages that may be silenced, because another page has said the cause.
const PAGES_THAT_FOLLOW: [&str; 5] =
    ["EdgeReplayStalled", "ServiceNotReady", "NoWorkersOnline", "AgentsOffline", "JobLatencySLOBurnFast"];

/// Who silences whom while both are about the same thing. No other alert may be silenced.
const SILENCED: [(&str, &[&str]); 10] = [
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
            "NATSStreamFilling",
            "NATSServerDown",
        ],
    ),
    (
        "NATSDown",
        &[
            "NATSServerDown",
            "NATSJetStreamMetricsMissing",
            "HeartbeatFailures",
            "WorkerResultsHeld",
            "BroadcasterEndpointWaits",
            "EdgeLinkDown",
        ],
    ),
    ("DatabaseConnectionErrors", &["ServiceNotReady"]),
    ("ServiceDown", &["NoWorkersOnline", "AgentsOffline"]),
    (
        "JobLatencyCapBurnFast",
        &["JobLatencyCapBurnSlow", "JobLatencySLOBurnFast", "JobLatencySLOBurnSlow", "JobEndToEndP95High"],
    ),
    ("SLOBreached", &["SLOAtRisk"]),
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
    for namespace in ["agentforge-staging", "feature-x"] {
        let labels = ["alertname=NATSDown", "severity=critical"].map(str::to_owned);
        let at_night = receivers_of(&[labels.to_vec(), vec![format!("namespace={namespace}")]].concat());
        assert_eq!(at_night, BTreeSet::from(["broadcaster", "slack"].map(str::to_owned)), "{namespace}");
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
            assert!(!is_page || PAGES_THAT_FOLLOW.contains(target), "{source} would silence a page, {target}");
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

/// What silences in one environment silences nothing in another, even if all else is the same.
#[tokio::test]
async fn nothing_is_silenced_by_another_environment() {
    let Some(()) = require("alertmanager") else { return };
    let document: Value = yaml_serde::from_str(&shipped()).unwrap();
    for rule in document["inhibit_rules"].as_array().unwrap() {
        let equal = rule["equal"].as_array().unwrap_or_else(|| panic!("{rule} silences everywhere"));
        assert!(equal.iter().any(|label| label == "namespace"), "{rule}");
    }
    let configuration = json!({
        "route": {"receiver": "nobody"},
        "inhibit_rules": document["inhibit_rules"],
        "receivers": [{"name": "nobody"}],
    });
    let alertmanager = Alertmanager::start(&configuration.to_string()).await;
    let all = files::alerts();
    let severity = |name: &str| all.iter().find(|a| a.name == name).unwrap().labels["severity"].clone();
    let mut posted = Vec::new();
    for (source, targets) in SILENCED {
        posted.push(alert(source, &severity(source), false));
        // One that silences others itself would do so there.
        for target in targets.iter().filter(|target| SILENCED.iter().all(|(source, _)| source != *target)) {
            let mut elsewhere = alert(target, &severity(target), false);
            elsewhere["labels"]["namespace"] = "agentforge-staging".into();
            posted.push(elsewhere);
        }
    }
    posted.push(alert("EdgeBandwidthLow", "warning", false));
    alertmanager.post(&json!(posted)).await.unwrap();
    eventually(Duration::from_secs(30), "one alert is silent, which is of the same environment", async || {
        let found = alertmanager.alerts().await?;
        let silent = found.iter().filter(|a| a["status"]["state"] == "suppressed");
        // Causes of the one environment silence each other as well.
        let elsewhere = silent.clone().filter(|a| a["labels"]["namespace"] == "agentforge-staging").count();
        let is_known = silent.clone().any(|a| a["labels"]["alertname"] == "EdgeBandwidthLow");
        if is_known && elsewhere == 0 { Ok(()) } else { Err(format!("{elsewhere} silent elsewhere")) }
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
