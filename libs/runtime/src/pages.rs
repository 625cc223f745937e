//! The pages of documentation that are made from what services declare: settings and metrics.
//!
//! Pure: declarations in, Markdown out. The command that prints the pages and the test that compares
//! them with the committed ones both come here, so that neither can have rules of its own.

use crate::{METRICS, Service};
use agentforge_config::{Common, Setting};
use agentforge_metrics::Metric;

/// What one service declares.
#[derive(Debug, Clone)]
pub struct Declared {
    name: String,
    settings: Vec<(&'static str, Vec<Setting>)>,
    metrics: Vec<&'static [Metric]>,
}

impl Declared {
    /// The declarations of a service, under its name with a capital.
    pub fn of<S: Service>() -> Self {
        Self { name: capitalised(S::NAME), settings: S::settings(), metrics: S::metrics() }
    }

    fn declares(&self, key: &str) -> bool {
        self.lists().flatten().any(|s| s.key == key)
    }

    fn has(&self, setting: &Setting) -> bool {
        self.lists().flatten().any(|s| s == setting)
    }

    fn lists(&self) -> impl Iterator<Item = &Vec<Setting>> {
        self.settings.iter().map(|(_, list)| list)
    }

    fn heading(&self, group: &str) -> String {
        match group.eq_ignore_ascii_case(&self.name) {
            true => self.name.clone(),
            false => format!("{}: {}", self.name, capitalised(group)),
        }
    }
}

/// The settings of all services in groups with headings. What every service has stands once, under
/// "Every service", and what several have alike once, under its own heading; a key that services
/// declare differently, such as HTTP_PORT, stands with each.
pub fn settings_by_group(services: &[Declared]) -> Vec<(String, Vec<Setting>)> {
    let mut out = vec![("Every service".to_owned(), Common::SETTINGS.to_vec())];
    let is_common = |s: &Setting| Common::SETTINGS.iter().any(|c| c.key == s.key);
    for service in services {
        for (name, list) in &service.settings {
            for setting in list.iter().filter(|s| !is_common(s)) {
                let several = services.iter().filter(|s| s.declares(setting.key)).count() > 1;
                let shared = several && services.iter().filter(|s| s.declares(setting.key)).all(|s| s.has(setting));
                let group = if shared { capitalised(name) } else { service.heading(name) };
                add(&mut out, group, *setting);
            }
        }
    }
    out
}

fn add(groups: &mut Vec<(String, Vec<Setting>)>, group: String, setting: Setting) {
    match groups.iter_mut().find(|(name, _)| *name == group) {
        Some((_, list)) if list.contains(&setting) => {}
        Some((_, list)) => list.push(setting),
        None => groups.push((group, vec![setting])),
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

const CONFIGURATION: &str = "\
# Configuration

Every setting is an environment variable, read once at the start. An empty value counts as not set.
A wrong value ends the start with exit code 64 before any port is bound, and every fault is told at
once. `agentforge-<service> --check-config` prints what is in effect, with secrets hidden.

This page is made by `scripts/generate-docs`. Do not edit it: change the declaration.

";

const METRICS_INTRO: &str = "\
# Metrics

Every process serves its metrics at `/metrics` on METRICS_PORT; the all-in-one has one page for all
its services. Labels are bounded: no ids, no paths, and what is beyond a label's limit is `other`.
The `process_` metrics of the usual Prometheus clients stand beside these.

This page is made by `scripts/generate-docs`. Do not edit it: change the declaration.

";

/// docs/configuration.md.
pub fn configuration_page(services: &[Declared]) -> String {
    let groups = settings_by_group(services);
    let borrowed: Vec<(&str, &[Setting])> =
        groups.iter().map(|(name, list)| (name.as_str(), list.as_slice())).collect();
    format!("{CONFIGURATION}{}", agentforge_config::markdown(&borrowed))
}

/// docs/METRICS.md.
pub fn metrics_page(services: &[Declared]) -> String {
    let chassis: [&[Metric]; 1] = [METRICS];
    let mut groups: Vec<(&str, &[&[Metric]])> = vec![("Every service", &chassis)];
    groups.extend(services.iter().map(|s| (s.name.as_str(), s.metrics.as_slice())));
    format!("{METRICS_INTRO}{}", agentforge_metrics::catalogue_markdown(&groups))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: Setting = Setting::new("NATS_URL", Some("nats://localhost:4222"), "URL", "Where NATS is.");
    const PORT_A: Setting = Setting::new("HTTP_PORT", Some("1"), "port", "Of a.");
    const PORT_B: Setting = Setting::new("HTTP_PORT", Some("2"), "port", "Of b.");

    fn declared(name: &str, own: Setting) -> Declared {
        let settings = vec![
            (if name == "A" { "a" } else { "b" }, vec![own]),
            ("NATS", vec![SHARED]),
            ("Common", Common::SETTINGS.to_vec()),
        ];
        Declared { name: name.to_owned(), settings, metrics: vec![] }
    }

    #[test]
    fn what_all_have_stands_once_and_what_differs_stands_with_each() {
        let groups = settings_by_group(&[declared("A", PORT_A), declared("B", PORT_B)]);
        let shown: Vec<_> = groups.iter().map(|(name, list)| (name.as_str(), list.len())).collect();
        assert_eq!(shown, [("Every service", Common::SETTINGS.len()), ("A", 1), ("NATS", 1), ("B", 1)]);
    }

    #[test]
    fn pages_have_a_title_and_a_heading_for_each_group() {
        let services = [declared("A", PORT_A), declared("B", PORT_B)];
        let page = configuration_page(&services);
        assert!(
            page.starts_with("# Configuration\n") && page.contains("\n## NATS\n") && page.contains("| `HTTP_PORT` |"),
            "{page}"
        );
        assert!(metrics_page(&services).contains("| `agentforge_build_info` |"));
    }
}
