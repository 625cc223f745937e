//! A site as its own Prometheus sees it: from the pages of its services, with the labels that the operator gives, to the
//! alerts and their receivers. What is scraped and how is what `overlays/edge-monitored` renders.

use crate::files;
use crate::stack::{Options, Stack, services};
use agentforge_governance::manifests::{Object, parse};
use agentforge_harness::{Prometheus, amtool, cargo_bin, eventually, program, require};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

/// For an alert of a quarter of an hour, which is a quarter of a minute here, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);

fn rendered() -> Vec<Object> {
    let folder = files::root().join("overlays/edge-monitored");
    let out = Command::new(program("kubectl").unwrap()).arg("kustomize").arg(folder).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    parse(&String::from_utf8_lossy(&out.stdout)).unwrap()
}

/// What the operator makes of the monitor: a job for each Service that it selects, with the labels of its target.
fn scraped(objects: &[Object], pages: &BTreeMap<&str, String>) -> Vec<Value> {
    let monitor = objects.iter().find(|o| o.kind() == "ServiceMonitor").expect("the site has a monitor");
    let endpoint = &monitor.list("/spec/endpoints")[0];
    let label = monitor.text("/spec/jobLabel");
    let wanted = monitor.at("/spec/selector/matchLabels").as_object().unwrap();
    let mut jobs = Vec::new();
    for service in objects.iter().filter(|o| o.kind() == "Service") {
        let labels = service.labels();
        let is_wanted = wanted.iter().all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str());
        if !is_wanted || !service.list("/spec/ports").iter().any(|port| port["name"] == endpoint["port"]) {
            continue;
        }
        let job = &labels[label];
        // The topology is a part of the orchestrator's binary, which makes the streams here.
        let Some(url) = pages.get(job.as_str()) else {
            assert_eq!(job, "topology", "it is monitored and does not run");
            continue;
        };
        jobs.push(json!({
            "job_name": job,
            "honor_labels": endpoint["honorLabels"],
            "metrics_path": endpoint["path"],
            "static_configs": [{
                "targets": [url.strip_prefix("http://").unwrap().trim_end_matches("/metrics")],
                "labels": {"namespace": service.namespace(), "service": service.name(), "pod": format!("{job}-0"),
                    "container": job, "endpoint": endpoint["port"]},
            }],
        }));
    }
    jobs
}

#[tokio::test]
async fn a_site_that_cannot_deliver_is_seen_by_its_own_prometheus() {
    if ["kubectl", "nats-server", "prometheus"].into_iter().any(|needed| require(needed).is_none()) {
        return;
    }
    let objects = rendered();
    let of_a_site: BTreeSet<&str> = objects.iter().filter(|o| o.kind() == "Deployment").map(Object::name).collect();
    let site = objects.iter().find(|o| o.kind() == "ConfigMap" && o.name().starts_with("agentforge-env")).unwrap();
    let site = site.text("/data/SITE");
    // A server without a leaf: the hub's domain answers nothing, as when the link is down.
    let options =
        Options { without: services().filter(|name| !of_a_site.contains(name)).collect(), ..Options::default() }
            .all("SITE", site)
            .set("orchestrator", "EDGE_MODE", "on")
            .set("orchestrator", "EDGE_HUB_DOMAIN", "hub")
            .set("syncdaemon", "SYNC_JS_DOMAIN", "hub");
    let stack = Stack::start(options).await;
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules");
    let render = ["rules", "render", "--scale", "60", "--out", rules.to_str().unwrap()];
    let out = Command::new(cargo_bin("agentforge")).args(render).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let jobs = scraped(&objects, &stack.pages());
    let names: BTreeSet<&str> = jobs.iter().map(|job| job["job_name"].as_str().unwrap()).collect();
    for needed in ["syncdaemon", "orchestrator", "worker", "nats-exporter", "console"] {
        assert!(names.contains(needed), "{needed} is not scraped: {names:?}");
    }
    let configuration = json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [format!("{}/*.rules.yml", rules.display())],
        "scrape_configs": jobs,
    });
    let prometheus = Prometheus::start(&configuration.to_string()).await;
    std::fs::write(stack.replay_dir().join("picture.jpg"), "evidence").unwrap();

    let namespace = objects.iter().find_map(Object::namespace).unwrap();
    for (what, series) in [
        ("a series of the link", format!("edge_link_status{{job=\"orchestrator\", site=\"{site}\"}} == 0")),
        ("a series of the queue", format!("replay_queue_depth{{job=\"syncdaemon\", site=\"{site}\"}} == 1")),
        ("the exporter's page", "up{job=\"nats-exporter\"} == 1".to_owned()),
        ("an alert about the link", "ALERTS{alertname=\"EdgeLinkDown\", alertstate=\"firing\"}".to_owned()),
        ("an alert about the queue", "ALERTS{alertname=\"EdgeReplayStalled\", alertstate=\"firing\"}".to_owned()),
    ] {
        eventually(PATIENCE, what, async || {
            let found = prometheus.query(&series).await?;
            let is_there = |labels: &BTreeMap<String, String>| {
                labels.get("namespace").is_some_and(|n| n == namespace)
                    && (labels.get("site").is_some_and(|s| s == site) || series.starts_with("up{"))
            };
            if found.iter().any(|one| is_there(&one.labels.clone().into_iter().collect())) {
                Ok(())
            } else {
                Err(format!("{series}: {found:?}; {:?}", prometheus.query("ALERTS").await))
            }
        })
        .await;
    }
    let down = prometheus.query("ALERTS{alertname=~\"ServiceDown|NATSExporterDown\", alertstate=\"firing\"}").await;
    assert!(down.as_ref().is_ok_and(Vec::is_empty), "all that is monitored is there: {down:?}");
}

/// As Helm puts values together: maps are merged, all else is replaced.
fn merged(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merged(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}

#[test]
fn alerts_of_a_site_have_receivers_and_say_which_site() {
    let Some(()) = require("alertmanager") else { return };
    let values = |name: &str| files::yaml(&files::root().join("monitoring/kube-prometheus-stack").join(name));
    let mut all = values("values.yaml");
    for name in ["alertmanager.yaml", "site.yaml"] {
        merged(&mut all, &values(name));
    }
    let labels = &all["prometheus"]["prometheusSpec"]["externalLabels"];
    assert!(labels["cluster"].is_string() && labels["repository"].is_string(), "{labels}");
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    std::fs::write(file.path(), all["alertmanager"]["config"].to_string()).unwrap();
    let path = file.path().to_str().unwrap();
    let (is_content, said) = amtool(&["check-config", path]);
    assert!(is_content, "{said}");
    let text = all["alertmanager"]["config"].to_string();
    assert!(!text.contains("broadcaster:"), "a site has none");
    for (severity, expected) in [("critical", "pagerduty,slack"), ("warning", "slack")] {
        let severity = format!("severity={severity}");
        let asked = ["config", "routes", "test", "--config.file", path, "namespace=agentforge-edge", &severity];
        let (is_content, said) = amtool(&asked);
        assert!(is_content && said.lines().any(|line| line == expected), "{severity}: {said}");
    }
}
