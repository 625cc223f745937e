//! Settings of the sampler.

use super::targets::{self, Allow, Target};
use agentforge_config::{CommaList, Reader, Setting};
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

const INTERVAL: Setting =
    Setting::new("LATENCY_SAMPLE_INTERVAL", Some("15s"), "duration 1s-1h", "Between two probes of a service.");
const TIMEOUT: Setting = Setting::new(
    "LATENCY_SAMPLE_TIMEOUT",
    Some("5s"),
    "duration 10ms-1m, at most half of LATENCY_SAMPLE_INTERVAL",
    "A probe that takes longer has failed.",
);
const TARGETS: Setting = Setting::new(
    "LATENCY_SAMPLE_TARGETS",
    None,
    "name:url,…; at most 64; http or https, without a login",
    "Services that are sampled. Targets that were set over the API with persist win over them.",
)
.default_note("the services, NATS, Prometheus, Grafana and Alertmanager whose addresses are set");
const ALLOW: Setting = Setting::new(
    "LATENCY_SAMPLE_ALLOW",
    None,
    "comma-separated list of host, host:port or *.ending",
    "What administrators may have sampled over the API, in addition to the hosts and ports of LATENCY_SAMPLE_TARGETS.",
);
const CA_FILE: Setting = Setting::new(
    "LATENCY_SAMPLE_CA_FILE",
    None,
    "path of a PEM file",
    "Certificate authorities of sampled services, in addition to those of the system.",
);

const NATS_MONITOR_URL: Setting = Setting::new(
    "NATS_MONITOR_URL",
    None,
    "http or https URL without a login",
    "The monitoring port of a NATS server, which is sampled too unless LATENCY_SAMPLE_TARGETS is set.",
);

/// All of them.
pub const SETTINGS: &[Setting] = &[INTERVAL, TIMEOUT, TARGETS, ALLOW, CA_FILE, NATS_MONITOR_URL];

/// What is asked for at the address of a service.
const HEALTH: &str = "healthz";
/// The same of those that call it otherwise.
const OTHER_HEALTH: [(&str, &str); 3] =
    [("prometheus", "-/healthy"), ("alertmanager", "-/healthy"), ("grafana", "api/health")];

/// What the sampler needs.
#[derive(Clone, Debug)]
pub struct LatencyConfig {
    /// Between two probes of a service.
    pub interval: Duration,
    /// Of one probe.
    pub timeout: Duration,
    /// Of the settings, or what is sampled without them.
    pub targets: Vec<Target>,
    /// What may be probed.
    pub allow: Allow,
    /// Authorities in addition to those of the system.
    pub ca_file: Option<PathBuf>,
    /// Where the API keeps targets.
    pub data_dir: PathBuf,
}

impl LatencyConfig {
    /// Reads them; `known` are the addresses that the console has of others, which are sampled unless the settings name
    /// targets.
    pub fn read<'a>(
        reader: &mut Reader<'_>,
        known: impl IntoIterator<Item = (&'static str, &'a Url)>,
        data_dir: &Path,
    ) -> Self {
        let interval = reader.get_in(&INTERVAL, Duration::from_secs(1)..=Duration::from_secs(3_600));
        let timeout = reader.get_in(&TIMEOUT, Duration::from_millis(10)..=Duration::from_secs(60));
        if timeout > interval / 2 {
            reader.fault(TIMEOUT.key, "must be at most half of LATENCY_SAMPLE_INTERVAL, so that probes do not pile up");
        }
        let mut targets: Vec<Target> = known.into_iter().filter_map(|(name, url)| at_its_health(name, url)).collect();
        if let Some(url) = reader.opt::<Url>(&NATS_MONITOR_URL) {
            match at_its_health("nats", &url) {
                Some(target) => targets.push(target),
                None => reader.fault(NATS_MONITOR_URL.key, "is not an http or https URL without a login"),
            }
        }
        if let Some(text) = reader.opt::<String>(&TARGETS) {
            match targets::parse(&text) {
                Ok(parsed) => targets = parsed,
                Err(problem) => reader.fault(TARGETS.key, problem),
            }
        }
        let entries = reader.opt::<CommaList>(&ALLOW).unwrap_or_default();
        let allow = Allow::new(&targets, entries.iter().map(String::as_str)).unwrap_or_else(|problem| {
            reader.fault(ALLOW.key, problem);
            Allow::default()
        });
        let ca_file = reader.opt(&CA_FILE);
        Self { interval, timeout, targets, allow, ca_file, data_dir: data_dir.to_owned() }
    }
}

/// A service at the address that it answers probes at; `None` for an address that cannot be sampled.
fn at_its_health(name: &str, base: &Url) -> Option<Target> {
    let path = OTHER_HEALTH.iter().find(|(other, _)| *other == name).map_or(HEALTH, |(_, path)| path);
    Target::new(name, &format!("{}/{path}", base.as_str().trim_end_matches('/'))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(settings: &[(&str, &str)]) -> Result<LatencyConfig, String> {
        let source: BTreeMap<String, String> =
            settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let known =
            [("orchestrator", "http://o:8080"), ("prometheus", "http://p:9090/base/"), ("grafana", "https://g")];
        let known = known.map(|(name, url)| (name, Url::parse(url).unwrap()));
        let mut reader = Reader::new(&source);
        let config = LatencyConfig::read(&mut reader, known.iter().map(|(name, url)| (*name, url)), Path::new("."));
        reader.finish().map(|_| config).map_err(|faults| faults.to_string())
    }

    #[test]
    fn what_is_known_is_sampled_unless_targets_are_named() {
        let urls =
            |config: &LatencyConfig| config.targets.iter().map(|t| format!("{} {}", t.name, t.url)).collect::<Vec<_>>();
        let expected = [
            "orchestrator http://o:8080/healthz",
            "prometheus http://p:9090/base/-/healthy",
            "grafana https://g/api/health",
            "nats http://n:8222/healthz",
        ];
        let nats = ("NATS_MONITOR_URL", "http://n:8222");
        assert_eq!(urls(&read(&[nats]).unwrap()), expected);
        assert_eq!(urls(&read(&[nats, ("LATENCY_SAMPLE_TARGETS", "a:http://a/")]).unwrap()), ["a http://a/"]);
    }

    #[test]
    fn every_fault_names_its_setting() {
        for (key, value) in [
            ("LATENCY_SAMPLE_TARGETS", "a:ftp://x"),
            ("LATENCY_SAMPLE_ALLOW", "*"),
            ("LATENCY_SAMPLE_INTERVAL", "100ms"),
            ("LATENCY_SAMPLE_TIMEOUT", "14s"),
            ("NATS_MONITOR_URL", "http://u:p@n/"),
        ] {
            let said = read(&[(key, value)]).unwrap_err();
            assert!(said.contains(key) && !said.contains("u:p"), "{key}: {said}");
        }
    }
}
