//! The settings that `dev` gives each service: a few on top of the environment.
//!
//! Settings that would send jobs or credentials elsewhere (DATABASE_URL, NATS_URL and its
//! credentials) are never taken from the environment here: `--store` and `--nats-url` name servers.

use crate::{
    console::ConsoleStart,
    ports::{Port, Ports},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

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
/// The sizes that the environment does not set.
pub fn sizes(is_set: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    SIZES.into_iter().filter(|(key, _)| !is_set(key)).map(|(key, size)| (key.to_owned(), size.to_owned())).collect()
}

/// The JetStream domain of the hub, with `--edge`.
pub const HUB_DOMAIN: &str = "hub";

/// The services' settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory for data, as an absolute path.
    pub data: PathBuf,
    /// The URL of NATS for clients.
    pub nats_url: String,
    /// The hub's, with `--edge`.
    pub hub_url: Option<String>,
    /// Its monitoring endpoint, if it is ours.
    pub nats_monitor: Option<String>,
    /// NATS is not ours, so its credentials may come from the environment.
    pub nats_is_external: bool,
    /// What `--store` names: the URL of a database instead of a file.
    pub store: Option<String>,
    /// Where they listen.
    pub ports: Ports,
    /// The services that `--without` leaves out.
    pub without: Vec<&'static str>,
    /// Jobs at once of each worker, `--concurrency`.
    pub concurrency: Option<usize>,
    /// The tools file, unless the environment names one.
    pub tools: Option<PathBuf>,
    /// The site's name, with `--edge`.
    pub site: Option<String>,
    /// The sink of this process, unless the environment names endpoints.
    pub webhook_sink: Option<String>,
    /// Whose attempts the worker runs.
    pub verify_keys: Option<String>,
    /// What the console needs.
    pub console: ConsoleStart,
    /// EGRESS_ALLOW of the environment.
    pub egress_allow: String,
    /// Whether the environment sets a key.
    pub is_set: fn(&str) -> bool,
}

impl Settings {
    /// Everything plain: a NATS server of our own, free ports, all services.
    pub fn new(data: &Path, nats_url: &str) -> Self {
        Self {
            data: data.to_owned(),
            nats_url: nats_url.to_owned(),
            hub_url: None,
            nats_monitor: None,
            nats_is_external: false,
            store: None,
            ports: Ports::free(),
            without: Vec::new(),
            concurrency: None,
            tools: None,
            site: None,
            webhook_sink: None,
            verify_keys: None,
            console: ConsoleStart::default(),
            egress_allow: String::new(),
            is_set: |_| false,
        }
    }

    /// What every service is given.
    pub fn common(&self) -> BTreeMap<String, String> {
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
        if let Some(keys) = &self.console.keys {
            set("ACCESS_CONSOLE_KEYS", keys.clone());
        }
        if let Some(site) = &self.site {
            set("SITE", site.clone());
            set("EDGE_MODE", "on".to_owned());
            set("EDGE_HUB_DOMAIN", HUB_DOMAIN.to_owned());
        }
        map
    }

    /// Where a port is; 0 selects a free one.
    pub fn port(&self, port: Port) -> u16 {
        match self.ports.of(port) {
            0 => self.console.pinned.get(&port.place).copied().unwrap_or_default(),
            fixed => fixed,
        }
    }

    /// The replay directory.
    pub fn replay(&self) -> PathBuf {
        self.data.join("replay")
    }

    /// The directory of the ledger.
    pub fn ledger(&self) -> PathBuf {
        self.data.join("ledger")
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
