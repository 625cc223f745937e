//! What `dev` tells each service: a few settings on top of the environment.
//!
//! Settings that would send jobs or credentials elsewhere (DATABASE_URL, NATS_URL and its
//! credentials) are never taken from the environment here: `--store` and `--nats-url` name servers.

use crate::{ports::Ports, roster::Extra};
use std::{collections::BTreeMap, path::PathBuf};

/// An empty value counts as not set: what the environment says about NATS is meant for other servers.
const NOT_FROM_ENVIRONMENT: [&str; 9] = [
    "NATS_CREDS",
    "NATS_NKEY",
    "NATS_USER",
    "NATS_PASSWORD",
    "NATS_TLS_CA",
    "NATS_TLS_CERT",
    "NATS_TLS_KEY",
    "READY_FILE",
    "METRICS_PORT",
];

/// Sizes of streams that are too large for two servers on a small disk: a server reserves what its streams
/// may hold. The environment may say otherwise.
const SIZES: [(&str, &str); 7] = [
    ("EVIDENCE_MAX_BYTES", "1GiB"),
    ("EVIDENCE_BLOBS_MAX_BYTES", "1GiB"),
    ("EDGE_JS_MAX_BYTES", "256MiB"),
    ("TACTICAL_MAX_BYTES", "256MiB"),
    ("BROADCASTER_RETRIES_MAX_BYTES", "256MiB"),
    ("BROADCASTER_DLQ_MAX_BYTES", "64MiB"),
    ("BROADCASTER_HISTORY_MAX_BYTES", "32MiB"),
];
/// Signs what the local sink gets: known to everybody, for a place that nobody else reaches.
const DEV_WEBHOOK_SECRET: &str = "whsec_YWdlbnRmb3JnZSBkZXYgc2luayBzZWNyZXQ=";
/// The JetStream domain of the hub, with `--edge`.
pub const HUB_DOMAIN: &str = "hub";

/// What the services are told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Absolute.
    pub data: PathBuf,
    /// For clients.
    pub nats_url: String,
    /// The hub's, with `--edge`.
    pub hub_url: Option<String>,
    /// Its monitoring endpoint, if it is ours.
    pub nats_monitor: Option<String>,
    /// NATS is not ours, so its credentials may come from the environment.
    pub nats_is_external: bool,
    /// `--store`.
    pub store: Option<String>,
    /// Where they listen.
    pub ports: Ports,
    /// `--without`.
    pub without: Vec<Extra>,
    /// `--concurrency`.
    pub concurrency: Option<usize>,
    /// The tools file, unless the environment names one.
    pub tools: Option<PathBuf>,
    /// The site's name, with `--edge`.
    pub site: Option<String>,
    /// The sink of this process, unless the environment names endpoints.
    pub webhook_sink: Option<String>,
    /// EGRESS_ALLOW of the environment.
    pub egress_allow: String,
    /// Whether the environment sets a key.
    pub is_set: fn(&str) -> bool,
}

impl Settings {
    fn common(&self) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        let mut set = |key: &str, value: String| {
            map.insert(key.to_owned(), value);
        };
        for key in NOT_FROM_ENVIRONMENT {
            if !(self.nats_is_external && key.starts_with("NATS_")) {
                set(key, String::new());
            }
        }
        set("ENV", "dev".to_owned());
        set("DATA_DIR", self.data.to_string_lossy().into_owned());
        set("NATS_URL", self.nats_url.clone());
        for (key, size) in SIZES.into_iter().filter(|(key, _)| !(self.is_set)(key)) {
            set(key, size.to_owned());
        }
        if let Some(site) = &self.site {
            set("SITE", site.clone());
            set("EDGE_MODE", "on".to_owned());
            set("EDGE_HUB_DOMAIN", HUB_DOMAIN.to_owned());
        }
        map
    }

    /// The replay directory.
    pub fn replay(&self) -> PathBuf {
        self.data.join("replay")
    }

    /// The directory of the ledger.
    pub fn ledger(&self) -> PathBuf {
        self.data.join("ledger")
    }

    /// For the orchestrator.
    pub fn orchestrator(&self) -> BTreeMap<String, String> {
        let mut map = self.common();
        map.insert("HTTP_PORT".to_owned(), self.ports.http.to_string());
        map.insert("GRPC_PORT".to_owned(), self.ports.grpc.to_string());
        map.insert("METRICS_PORT".to_owned(), self.ports.metrics.to_string());
        map.insert(
            "DATABASE_URL".to_owned(),
            self.store.clone().unwrap_or_else(|| "sqlite://agentforge.db".to_owned()),
        );
        map
    }

    /// For the worker.
    pub fn worker(&self) -> BTreeMap<String, String> {
        let mut map = self.common();
        map.insert("HTTP_PORT".to_owned(), self.ports.worker_http.to_string());
        map.insert("METRICS_PORT".to_owned(), self.ports.worker_metrics.to_string());
        if let Some(n) = self.concurrency {
            map.insert("WORKER_CONCURRENCY".to_owned(), n.to_string());
        }
        if let Some(tools) = &self.tools {
            map.insert("WORKER_TOOLS_FILE".to_owned(), tools.to_string_lossy().into_owned());
        }
        map
    }

    /// The common settings for a service that may be left out; `None` if it is.
    fn unless_left_out(&self, extra: Extra) -> Option<BTreeMap<String, String>> {
        (!self.without.contains(&extra)).then(|| self.common())
    }

    /// For the syncdaemon; `None` without it.
    pub fn syncdaemon(&self) -> Option<BTreeMap<String, String>> {
        let mut map = self.unless_left_out(Extra::Syncdaemon)?;
        let domain = self.site.as_ref().map_or("", |_| HUB_DOMAIN);
        for (key, value) in [
            ("HTTP_PORT", self.ports.sync_http.to_string()),
            ("METRICS_PORT", self.ports.sync_metrics.to_string()),
            ("SYNC_QUEUE_DIR", self.replay().to_string_lossy().into_owned()),
            ("SYNC_LEDGER_DIR", self.ledger().to_string_lossy().into_owned()),
            ("SYNC_SUBJECT", String::new()),
            ("SYNC_JS_DOMAIN", domain.to_owned()),
        ] {
            map.insert(key.to_owned(), value);
        }
        Some(map)
    }

    /// For the tactical API; `None` without it. It belongs to the hub, where evidence arrives.
    pub fn tactical_api(&self) -> Option<BTreeMap<String, String>> {
        let mut map = self.unless_left_out(Extra::TacticalApi)?;
        map.insert("HTTP_PORT".to_owned(), self.ports.tactical_http.to_string());
        map.insert("METRICS_PORT".to_owned(), self.ports.tactical_metrics.to_string());
        if let Some(hub) = &self.hub_url {
            map.insert("NATS_URL".to_owned(), hub.clone());
        }
        Some(map)
    }

    /// For the broadcaster: every event to the sink of this process, unless the environment names endpoints. `None`
    /// without it.
    pub fn broadcaster(&self) -> Option<BTreeMap<String, String>> {
        let mut map = self.unless_left_out(Extra::Broadcaster)?;
        map.insert("HTTP_PORT".to_owned(), self.ports.broadcaster_http.to_string());
        map.insert("METRICS_PORT".to_owned(), self.ports.broadcaster_metrics.to_string());
        if let Some(sink) = &self.webhook_sink {
            map.insert("WEBHOOK_URL".to_owned(), sink.clone());
            map.insert("WEBHOOK_SECRET".to_owned(), DEV_WEBHOOK_SECRET.to_owned());
            let allow = ["127.0.0.1", self.egress_allow.as_str()].join(",");
            map.insert("EGRESS_ALLOW".to_owned(), allow.trim_end_matches(',').to_owned());
            if !(self.is_set)("BROADCASTER_SUBJECTS") {
                map.insert("BROADCASTER_SUBJECTS".to_owned(), "todos.events,agentforge.events.>".to_owned());
            }
        }
        Some(map)
    }

    /// For the NATS exporter; `None` without it, and where nobody knows the monitoring endpoint.
    pub fn nats_exporter(&self) -> Option<BTreeMap<String, String>> {
        let mut map = self.unless_left_out(Extra::NatsExporter)?;
        map.insert("NATS_EXPORTER_TARGETS".to_owned(), self.nats_monitor.clone()?);
        map.insert("METRICS_PORT".to_owned(), self.ports.nats_exporter.to_string());
        Some(map)
    }

    /// In one process the terminal belongs to `dev`: quiet logs as text, unless asked otherwise.
    pub fn quiet(&self, mut map: BTreeMap<String, String>) -> BTreeMap<String, String> {
        for (key, value) in [("LOG_LEVEL", "warn"), ("LOG_FORMAT", "text")] {
            if !(self.is_set)(key) {
                map.insert(key.to_owned(), value.to_owned());
            }
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_broadcaster::Broadcaster;
    use agentforge_config::{Reader, Source};
    use agentforge_orchestrator::Orchestrator;
    use agentforge_runtime::Service;
    use agentforge_syncdaemon::Syncdaemon;
    use agentforge_worker::WorkerService;

    fn settings() -> Settings {
        Settings {
            data: "/data".into(),
            nats_url: "nats://127.0.0.1:1".into(),
            hub_url: None,
            nats_monitor: Some("http://127.0.0.1:2".into()),
            nats_is_external: false,
            store: None,
            ports: Ports::plan(Some(0)).unwrap(),
            without: Vec::new(),
            concurrency: Some(16),
            tools: None,
            site: None,
            webhook_sink: Some("http://127.0.0.1:9/".into()),
            egress_allow: String::new(),
            is_set: |_| false,
        }
    }

    fn hostile() -> BTreeMap<String, String> {
        [
            ("DATABASE_URL", "postgres://elsewhere/prod"),
            ("NATS_URL", "nats://elsewhere"),
            ("NATS_TLS_CA", "/no/such"),
            ("ENV", "production"),
            ("SYNC_SUBJECT", "edge.evidence.elsewhere"),
            ("SYNC_JS_DOMAIN", "elsewhere"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
    }

    #[test]
    fn services_accept_what_they_are_told_whatever_the_environment_says() {
        let source = (settings().orchestrator(), hostile());
        let mut reader = Reader::new(&source);
        let config = Orchestrator::read_config(&mut reader);
        reader.finish().unwrap();
        assert!(Orchestrator::common(&config).is_dev());
        assert_eq!(source.get("DATABASE_URL").unwrap(), "sqlite://agentforge.db");

        let source = (settings().worker(), hostile());
        let mut reader = Reader::new(&source);
        let config = WorkerService::read_config(&mut reader);
        reader.finish().unwrap();
        assert_eq!(config.concurrency, 16);

        let source = (settings().broadcaster().unwrap(), hostile());
        let mut reader = Reader::new(&source);
        let config = Broadcaster::read_config(&mut reader);
        reader.finish().unwrap();
        assert_eq!(config.first_endpoints()[0].subjects, ["todos.events", "agentforge.events.>"]);

        for site in [None, Some("pier".to_owned())] {
            let settings = Settings { site, ..settings() };
            let source = (settings.syncdaemon().unwrap(), hostile());
            let mut reader = Reader::new(&source);
            let config = Syncdaemon::read_config(&mut reader);
            reader.finish().unwrap();
            let name = settings.site.as_deref().unwrap_or("dev");
            assert_eq!((config.subject, config.queue_dir), (format!("edge.evidence.{name}"), "/data/replay".into()));
            assert_eq!(config.domain.is_some(), settings.site.is_some());
            assert_eq!(config.evidence.max_bytes, 1 << 30);
        }
    }

    #[test]
    fn credentials_of_the_environment_go_to_an_external_server_only() {
        let own = settings().worker();
        assert_eq!(own.get("NATS_USER").map(String::as_str), Some(""));
        let external = Settings { nats_is_external: true, ..settings() }.worker();
        assert_eq!(external.get("NATS_USER"), None);
        assert_eq!(external.get("READY_FILE").map(String::as_str), Some(""));
    }
}
