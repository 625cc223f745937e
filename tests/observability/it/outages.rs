//! Two environments for thirty days and through outages: silence while all is well, and one page for each component that
//! is down for ten minutes.

use crate::environments::{run, run_every};
use crate::files;
use agentforge_harness::require;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const ONE: &str = "agentforge";
const OTHER: &str = "agentforge-staging";
/// The services that are scraped, with one replica that has all of its series.
const SERVICES: [&str; 7] =
    ["topology", "orchestrator", "worker", "broadcaster", "tactical-api", "syncdaemon", "console"];

/// What a healthy environment exports: a series, and how its values go from one scrape to the next.
fn healthy(namespace: &str) -> Vec<(String, Goes)> {
    let mut all = Vec::new();
    let mut add = |name: &str, labels: &str, goes: Goes| {
        all.push((format!("{name}{{namespace=\"{namespace}\", {labels}}}"), goes));
    };
    for service in SERVICES {
        let at = format!("job=\"{service}\", instance=\"{service}-0\"");
        add("up", &at, Goes::Stays(1));
        add("agentforge_ready", &format!("service=\"{service}\", {at}"), Goes::Stays(1));
        add("agentforge_nats_connected", &at, Goes::Stays(1));
        if !["syncdaemon", "topology", "console"].contains(&service) {
            add("agentforge_loop_last_progress_timestamp_seconds", &format!("loop=\"{service}\", {at}"), Goes::Time);
        }
    }
    add("up", "job=\"nats-exporter\", instance=\"e\"", Goes::Stays(1));
    for n in 0..3 {
        add("nats_exporter_target_up", &format!("server_id=\"nats-{n}\", job=\"nats-exporter\""), Goes::Stays(1));
        let server = format!("server_name=\"nats-{n}\", job=\"nats-exporter\"");
        add("nats_jetstream_server_storage_bytes", &server, Goes::Stays(10));
        add("nats_jetstream_server_max_storage_bytes", &server, Goes::Stays(100));
    }
    let consumer = "account=\"$G\", stream=\"swarm_jobs\", consumer=\"worker-main\", job=\"nats-exporter\"";
    add("nats_jetstream_consumer_num_pending", consumer, Goes::Stays(0));
    add("nats_jetstream_consumer_num_ack_pending", consumer, Goes::Stays(3));
    add("nats_jetstream_consumer_max_ack_pending", consumer, Goes::Stays(4096));
    let at = "job=\"orchestrator\", instance=\"orchestrator-0\"";
    for (name, labels, goes) in [
        ("agentforge_agents", "status=\"online\", ", Goes::Stays(8)),
        ("agentforge_agents", "status=\"offline\", ", Goes::Stays(0)),
        ("agentforge_outbox_jobs", "", Goes::Stays(3)),
        ("agentforge_outbox_max_jobs", "", Goes::Stays(100_000)),
        ("agentforge_outbox_parked", "", Goes::Stays(0)),
        ("agentforge_streams_amiss", "", Goes::Stays(0)),
        ("agentforge_audit_findings", "", Goes::Stays(0)),
        ("agentforge_db_connection_errors_total", "", Goes::Stays(7)),
        ("agentforge_relay_held", "lane=\"jobs\", queue=\"*\", reason=\"unavailable\", ", Goes::Stays(0)),
        ("agentforge_slo_status", "service=\"orchestrator\", slo=\"availability\", ", Goes::Stays(1)),
        ("agentforge_job_end_to_end_seconds_bucket", "mission=\"main\", le=\"600\", ", Goes::Rises(99)),
        ("agentforge_job_end_to_end_seconds_bucket", "mission=\"main\", le=\"1200\", ", Goes::Rises(100)),
        ("agentforge_job_end_to_end_seconds_bucket", "mission=\"main\", le=\"+Inf\", ", Goes::Rises(100)),
        ("agentforge_job_end_to_end_seconds_count", "mission=\"main\", ", Goes::Rises(100)),
        (
            "agentforge_http_requests_total",
            "service=\"orchestrator\", route=\"/v1/jobs\", status=\"202\", ",
            Goes::Rises(500),
        ),
        (
            "agentforge_http_requests_total",
            "service=\"orchestrator\", route=\"/v1/jobs\", status=\"503\", ",
            Goes::Rises(1),
        ),
        ("edge_site_last_seen_timestamp_seconds", "site=\"north\", ", Goes::Time),
    ] {
        add(name, &format!("{labels}{at}"), goes);
    }
    let at = "job=\"worker\", instance=\"worker-0\"";
    add("agentforge_heartbeat_failures_total", at, Goes::Stays(2));
    add("agentforge_job_redeliveries_total", &format!("mission=\"main\", queue=\"default\", {at}"), Goes::Stays(4));
    let at = "job=\"broadcaster\", instance=\"broadcaster-0\"";
    add("broadcaster_endpoint_circuit_state", &format!("endpoint=\"default\", {at}"), Goes::Stays(0));
    add("broadcaster_messages_processed_total", &format!("status=\"delivered\", {at}"), Goes::Rises(50));
    let at = "job=\"syncdaemon\", instance=\"syncdaemon-0\", site=\"hub\"";
    add("replay_queue_depth", at, Goes::Stays(0));
    add("replay_quarantine_files", at, Goes::Stays(0));
    all
}

#[derive(Clone, Copy)]
enum Goes {
    Stays(u64),
    Rises(u64),
    /// Of the clock.
    Time,
}

impl Goes {
    /// Values of `n` scrapes, `seconds` apart.
    fn values(self, n: usize, seconds: u64) -> String {
        match self {
            Self::Stays(value) => format!("{value}x{n}"),
            Self::Rises(by) => format!("0+{by}x{n}"),
            Self::Time => format!("0+{seconds}x{n}"),
        }
    }

    /// An hour of health, ten minutes of something else, and an hour more.
    fn through(self, away: &str) -> String {
        let (before, after) = (self.values(59, 60), 4200);
        match self {
            Self::Stays(value) => format!("{before} {away} {value}x60"),
            Self::Rises(by) => format!("{before} {away} {}+{by}x60", 60 * by),
            Self::Time => format!("{before} {away} {after}+60x60"),
        }
    }
}

/// A day in steps of a minute, and the long windows in steps of five: a week of them, and with AGENTFORGE_SOAK=1 all thirty
/// days. In longer steps what rules record would be gone before others read it.
#[test]
fn thirty_days_without_a_fault_are_silent() {
    let Some(()) = require("prometheus") else { return };
    let long = if std::env::var("AGENTFORGE_SOAK").is_ok_and(|v| v == "1") { 30 } else { 7 };
    for (step, every, days) in [(60, "1m", 1), (300, "5m", long)] {
        let scrapes = days * 86_400 / step;
        let input: Vec<Value> = [ONE, OTHER]
            .iter()
            .flat_map(|namespace| healthy(namespace))
            .map(|(series, goes)| json!({"series": series, "values": goes.values(scrapes, step as u64)}))
            .collect();
        let end = format!("{days}d");
        let test = json!({
            "name": "health", "interval": format!("{step}s"), "input_series": input,
            "promql_expr_test": [
                {"expr": format!("count_over_time(ALERTS[{end}])"), "eval_time": end, "exp_samples": []},
                // Not because there are no series.
                {"expr": "count(jetstream_backlog)", "eval_time": end, "exp_samples": [{"labels": "{}", "value": 2}]},
            ],
        });
        let (is_content, said) = run_every(every, &[test]);
        assert!(is_content, "{said}");
    }
}

/// What is down, what its series are meanwhile, and the pages in the order of their names: the alert and one label.
struct Outage {
    name: &'static str,
    /// Parts of a series' text, and its values meanwhile; the first that fits.
    meanwhile: Vec<(String, &'static str)>,
    fires: Vec<(&'static str, &'static str, &'static str)>,
    pages: (&'static str, &'static str),
}

/// Ten minutes without a sample: a scrape that fails says that its series are stale.
const GONE: &str = "stale _x8";
const NO: &str = "0x9";

fn outages() -> Vec<Outage> {
    let mut all = Vec::new();
    for service in SERVICES {
        all.push(Outage {
            name: service,
            meanwhile: vec![
                (format!("up{{namespace=\"{ONE}\", job=\"{service}\""), NO),
                // Heartbeats are not answered.
                (
                    if service == "orchestrator" { "agentforge_heartbeat_failures_total{" } else { "none" }.to_owned(),
                    "2+30x9",
                ),
                (format!("instance=\"{service}-0\""), GONE),
                // The orchestrator sees that its workers are gone, and jobs wait.
                (if service == "worker" { "status=\"online\"" } else { "none" }.to_owned(), NO),
                (if service == "worker" { "status=\"offline\"" } else { "none" }.to_owned(), "8x9"),
                (if service == "worker" { "num_pending{" } else { "none" }.to_owned(), "100x9"),
            ],
            fires: vec![("ServiceDown", "job", service)],
            pages: ("ServiceDown", service),
        });
    }
    all.push(Outage {
        name: "the exporter",
        meanwhile: vec![
            (format!("up{{namespace=\"{ONE}\", job=\"nats-exporter\""), NO),
            ("job=\"nats-exporter\"".to_owned(), GONE),
        ],
        fires: vec![("NATSExporterDown", "job", "nats-exporter")],
        pages: ("NATSExporterDown", "nats-exporter"),
    });
    all.push(Outage {
        name: "NATS",
        meanwhile: vec![
            ("agentforge_nats_connected{".to_owned(), NO),
            ("agentforge_ready{".to_owned(), NO),
            ("loop_last_progress".to_owned(), "3540x9"),
            ("target_up{".to_owned(), NO),
            ("nats_jetstream_".to_owned(), GONE),
            ("status=\"online\"".to_owned(), NO),
            ("status=\"offline\"".to_owned(), "8x9"),
            ("streams_amiss".to_owned(), "5x9"),
            ("relay_held".to_owned(), "1x9"),
            ("edge_site_last_seen".to_owned(), "3540x9"),
            ("agentforge_heartbeat_failures_total{".to_owned(), "2+30x9"),
        ],
        fires: vec![("NATSDown", "severity", "critical")],
        pages: ("NATSDown", "critical"),
    });
    all.push(Outage {
        name: "the database",
        meanwhile: vec![
            ("db_connection_errors_total".to_owned(), "8+30x9"),
            (format!("agentforge_ready{{namespace=\"{ONE}\", service=\"orchestrator\""), NO),
        ],
        fires: vec![
            ("DatabaseConnectionErrors", "job", "orchestrator"),
            ("ServiceNotReady", "service", "orchestrator"),
        ],
        pages: ("DatabaseConnectionErrors", "orchestrator"),
    });
    all
}

#[test]
fn each_component_away_for_ten_minutes_is_one_page_that_names_it() {
    let Some(()) = require("prometheus") else { return };
    let mut tests = Vec::new();
    for outage in outages() {
        let mut used = 0;
        let one = healthy(ONE).into_iter().map(|(series, goes)| {
            let found = outage.meanwhile.iter().find(|(part, _)| series.contains(part.as_str()));
            used += usize::from(found.is_some());
            json!({"series": series, "values": found.map_or_else(|| goes.values(130, 60), |(_, away)| goes.through(away))})
        });
        let one: Vec<Value> = one.collect();
        assert!(used > 0, "{}: nothing is down", outage.name);
        let other =
            healthy(OTHER).into_iter().map(|(series, goes)| json!({"series": series, "values": goes.values(130, 60)}));
        let samples = outage.fires.iter().map(|(alert, label, value)| {
            let labels = match *label {
                "severity" => format!("{{alertname=\"{alert}\", namespace=\"{ONE}\", of=\"{value}\"}}"),
                _ => format!("{{alertname=\"{alert}\", {label}=\"{value}\", namespace=\"{ONE}\", of=\"critical\"}}"),
            };
            json!({"labels": labels, "value": 1})
        });
        let fired = "max by (alertname, namespace, job, service, of) (max_over_time(label_replace(ALERTS{alertstate=\"firing\", \
                     severity=\"critical\"}, \"of\", \"$1\", \"severity\", \"(.*)\")[2h:1m]))";
        tests.push(json!({
            "name": outage.name, "interval": "1m", "input_series": one.into_iter().chain(other).collect::<Vec<_>>(),
            "promql_expr_test": [{"expr": fired, "eval_time": "125m", "exp_samples": samples.collect::<Vec<_>>()}],
        }));
        let told = silenced(&outage.fires);
        assert_eq!(told, vec![outage.pages], "{}: one page", outage.name);
    }
    let (is_content, said) = run(&tests);
    assert!(is_content, "{said}");
}

/// Which of these Alertmanager passes on, by the rules of the shipped configuration.
fn silenced(fires: &[(&'static str, &'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let document = files::yaml(&files::root().join("monitoring/alertmanager/alertmanager.yml"));
    let labels = |fire: &(&str, &str, &str)| {
        BTreeMap::from([("alertname".to_owned(), fire.0.to_owned()), (fire.1.to_owned(), fire.2.to_owned())])
    };
    let fits = |matchers: &Value, of: &BTreeMap<String, String>| {
        matchers.as_array().unwrap().iter().all(|matcher| {
            let (label, value) = matcher.as_str().unwrap().split_once('=').unwrap();
            let value = value.trim_start_matches('~').trim_matches('"');
            of.get(label).is_some_and(|found| value.split('|').any(|one| one == found))
        })
    };
    let rules = document["inhibit_rules"].as_array().unwrap();
    let is_silent = |target: &(&str, &str, &str)| {
        rules.iter().any(|rule| {
            fires.iter().any(|source| source.0 != target.0 && fits(&rule["source_matchers"], &labels(source)))
                && fits(&rule["target_matchers"], &labels(target))
        })
    };
    fires.iter().filter(|fire| !is_silent(fire)).map(|fire| (fire.0, fire.2)).collect()
}

/// A Prometheus that has lost its data, or has just been installed, has windows that are younger than their names.
#[test]
fn a_young_prometheus_pages_nobody() {
    let Some(()) = require("prometheus") else { return };
    let series = |namespace: &str| {
        healthy(namespace).into_iter().map(|(series, goes)| {
            let waits = series.starts_with("nats_jetstream_consumer_num_pending");
            // What waited before, and is worked off after a while: no page with a history, and none without.
            let values = if waits { "150x25 0x60".to_owned() } else { goes.values(85, 60) };
            json!({"series": series, "values": values})
        })
    };
    let pages = "max_over_time(ALERTS{alertstate=\"firing\", severity=\"critical\"}[90m])";
    let test = json!({
        "name": "young", "interval": "1m", "input_series": series(ONE).chain(series(OTHER)).collect::<Vec<_>>(),
        "promql_expr_test": [{"expr": pages, "eval_time": "80m", "exp_samples": []}],
    });
    let (is_content, said) = run(&[test]);
    assert!(is_content, "{said}");
}
