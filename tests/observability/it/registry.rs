//! The registry: what the services declare, and the check that nothing else is named anywhere.
//!
//! A rule over a metric that does not exist is silent forever. So every metric and every label in rules, dashboards and
//! runbooks must be declared, recorded by a rule, or listed here as foreign.

use crate::files;
use crate::promql::{Named, named};
use agentforge_metrics::{Kind, Metric};
use agentforge_stack::roster::{SERVICES, Service};
use std::collections::{BTreeMap, BTreeSet};

/// Labels that the scrape adds, not the service.
const TARGET_LABELS: [&str; 4] = ["job", "instance", "namespace", "pod"];

/// Metrics of others that rules, dashboards and runbooks name, with their labels.
const OTHERS: &[(&str, &[&str])] = &[
    // Prometheus itself.
    ("up", &[]),
    ("scrape_duration_seconds", &[]),
    ("ALERTS", &["alertname", "alertstate", "severity"]),
    // KEDA's operator, before and since 2.15.
    ("keda_scaler_errors_total", &["exported_namespace", "scaledObject"]),
    ("keda_scaler_detail_errors_total", &["exported_namespace", "scaledObject"]),
    // The known exporter's names, which ours makes of what the server says. A scrape shows them, see `scrape`.
    ("gnatsd_varz_connections", &["server_id"]),
    ("gnatsd_varz_slow_consumers", &["server_id"]),
    ("gnatsd_varz_cpu", &["server_id"]),
    ("gnatsd_varz_mem", &["server_id"]),
    ("gnatsd_varz_in_msgs", &["server_id"]),
    ("gnatsd_varz_out_msgs", &["server_id"]),
    ("gnatsd_varz_in_bytes", &["server_id"]),
    ("gnatsd_varz_out_bytes", &["server_id"]),
];

/// Names of the stock family that a dashboard uses.
pub fn stock_names() -> impl Iterator<Item = &'static str> {
    OTHERS.iter().map(|(name, _)| *name).filter(|name| name.starts_with("gnatsd_"))
}

/// Everything that each service declares, the chassis's own among it.
pub fn declared() -> Vec<(&'static str, Vec<Metric>)> {
    let of = |service: &'static Service| {
        let lists = (service.program.metrics)();
        (service.name, lists.into_iter().chain([agentforge_runtime::METRICS]).flatten().copied().collect())
    };
    SERVICES.iter().map(of).collect()
}

/// Every series name that may be asked for, with its labels. Histograms have three.
struct Known(BTreeMap<String, BTreeSet<String>>);

impl Known {
    fn new() -> Self {
        let mut known = Self(BTreeMap::new());
        for metric in declared().into_iter().flat_map(|(_, metrics)| metrics) {
            let labels = || metric.labels.iter().copied();
            match metric.kind {
                Kind::Histogram(_) => {
                    known.add(&format!("{}_bucket", metric.name), labels().chain(["le"]));
                    known.add(&format!("{}_sum", metric.name), labels());
                    known.add(&format!("{}_count", metric.name), labels());
                }
                Kind::Counter | Kind::Gauge => known.add(metric.name, labels()),
            }
        }
        for (name, labels) in OTHERS {
            known.add(name, labels.iter().copied());
        }
        known.add_recorded();
        known
    }

    fn add<'a>(&mut self, name: &str, labels: impl Iterator<Item = &'a str>) {
        let all = labels.chain(TARGET_LABELS).map(str::to_owned);
        self.0.entry(name.to_owned()).or_default().extend(all);
    }

    /// What a rule records has the labels that it groups by or makes, or else those of what it is made of.
    fn add_recorded(&mut self) {
        for rule in files::rules().iter().filter(|rule| !rule.is_alert) {
            let found = named(&rule.expr);
            let mut labels: BTreeSet<String> = found.grouping.union(&found.made).cloned().collect();
            if labels.is_empty() {
                labels.extend(found.metrics.keys().filter_map(|name| self.0.get(name)).flatten().cloned());
            }
            self.0.entry(rule.name.clone()).or_default().extend(labels);
        }
    }

    /// Unknown names in an expression, one per line.
    fn faults(&self, place: &str, found: &Named) -> Vec<String> {
        let mut faults = Vec::new();
        let mut at_hand: BTreeSet<&str> = found.made.iter().map(String::as_str).collect();
        for (name, labels) in &found.metrics {
            let Some(known) = self.0.get(name) else {
                faults.push(format!("{place}: nobody has the metric {name}"));
                continue;
            };
            at_hand.extend(known.iter().map(String::as_str));
            faults.extend(labels.difference(known).map(|label| format!("{place}: {name} has no label {label}")));
        }
        let unknown = found.grouping.iter().filter(|label| !at_hand.contains(label.as_str()));
        faults.extend(unknown.map(|label| format!("{place}: no metric of the expression has the label {label}")));
        faults
    }
}

/// Names that a page of text gives as metrics: words in code whose first part is that of a known metric.
fn mentioned(page: &str, known: &Known) -> BTreeSet<String> {
    let begins: BTreeSet<&str> = known.0.keys().filter_map(|name| Some(name.split_once('_')?.0)).collect();
    let mut words = BTreeSet::new();
    for span in page.split('`').skip(1).step_by(2).filter(|span| !span.contains('\n')) {
        let word = span.split(['{', ' ', '=']).next().unwrap_or_default();
        let is_metric = word.split_once('_').is_some_and(|(first, _)| begins.contains(first)) && !word.ends_with('*');
        // Streams, buckets and consumers have similar names, and have no such endings or are not metrics.
        if is_metric && word != "edge_evidence" && word != "broadcaster_dlq" {
            words.insert(word.to_owned());
        }
    }
    words
}

#[test]
fn rules_name_only_metrics_and_labels_that_exist() {
    let known = Known::new();
    let rules = files::rules();
    let faults: Vec<String> = rules
        .iter()
        .flat_map(|rule| known.faults(&format!("{} {}", rule.file, rule.name), &named(&rule.expr)))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(rules.len() > 40, "the rules were not found");
}

#[test]
fn alerts_speak_only_of_labels_that_their_expressions_leave() {
    let known = Known::new();
    for rule in files::alerts() {
        let found = named(&rule.expr);
        let of_metrics = found.metrics.keys().filter_map(|name| known.0.get(name)).flatten();
        let left: BTreeSet<&str> = of_metrics.chain(&found.grouping).chain(&found.made).map(String::as_str).collect();
        for text in rule.annotations.values() {
            for label in text.split("$labels.").skip(1) {
                let label: String = label.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                assert!(left.contains(label.as_str()), "{}: {label} is no label of {}", rule.name, rule.expr);
            }
        }
    }
}

#[test]
fn dashboards_name_only_metrics_and_labels_that_exist() {
    let known = Known::new();
    let (mut faults, mut queries) = (Vec::new(), 0);
    for (file, dashboard) in files::dashboards() {
        for (panel, expr) in crate::dashboards::queries(&dashboard) {
            faults.extend(known.faults(&format!("{file}, {panel}"), &named(&expr)));
            queries += 1;
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(queries > 80, "the queries were not found");
}

#[test]
fn runbooks_name_only_metrics_and_labels_that_exist() {
    let known = Known::new();
    let mut faults = Vec::new();
    for (file, page) in files::runbooks() {
        for expr in crate::runbooks::expressions(&page) {
            faults.extend(known.faults(&file, &named(&expr)));
        }
        for word in mentioned(&page, &known) {
            let is_known = known.0.contains_key(&word) || known.0.contains_key(&format!("{word}_count"));
            faults.extend((!is_known).then(|| format!("{file}: nobody has the metric {word}")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_is_not_there_is_found_out() {
    let known = Known::new();
    let faults = |expr: &str| known.faults("x", &named(expr)).len();
    assert_eq!(faults("sum by (mission) (rate(agentforge_jobs_submitted_total[5m]))"), 0);
    assert_eq!(faults("sum(rate(agentforge_jobs_submited_total[5m]))"), 1, "a name is wrong");
    assert_eq!(faults(r#"agentforge_agents{state="offline"}"#), 1, "a label is wrong");
    assert_eq!(faults("sum by (mision) (agentforge_pending_jobs)"), 1, "a grouping is wrong");
    assert_eq!(faults("agentforge_job_end_to_end_seconds"), 1, "a histogram has no series of its own name");
    assert_eq!(faults("sum by (mission, queue) (jetstream_backlog)"), 0, "a rule records it with these");
    assert_eq!(faults("sum by (tool) (jetstream_backlog)"), 1);
}

#[test]
fn declarations_of_all_services_agree_and_keep_the_rules_of_names() {
    let all = declared();
    let lists: Vec<&[Metric]> = all.iter().map(|(_, metrics)| metrics.as_slice()).collect();
    assert_eq!(agentforge_metrics::check(&lists), Vec::<String>::new());
    assert!(all.iter().map(|(_, metrics)| metrics.len()).sum::<usize>() > 100);
}
