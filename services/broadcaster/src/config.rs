//! Every setting of the broadcaster, parsed and checked, all faults at once.

use crate::{
    delivery::circuit::Limits,
    endpoints::declaration::{self, CONCURRENCY_MAX, Declaration, Defaults, Endpoint, TIMEOUT, subjects_problem},
    endpoints::reference::is_reference,
    payload::render::Format,
    registry::sealing::StateKeys,
    retry::schedule::{Schedule, Steps},
    settings::{
        BROADCASTER_ALERTS_TOKEN, BROADCASTER_CA_FILE, BROADCASTER_CIRCUIT_FAILURES, BROADCASTER_CIRCUIT_PROBE,
        BROADCASTER_CIRCUIT_PROBE_MAX, BROADCASTER_CONCURRENCY, BROADCASTER_CORE_FALLBACK, BROADCASTER_ENDPOINTS_FILE,
        BROADCASTER_RELOAD_INTERVAL, BROADCASTER_RETRY_4XX, BROADCASTER_RETRY_JITTER, BROADCASTER_RETRY_SCHEDULE,
        BROADCASTER_STATE_KEY, BROADCASTER_SUBJECTS, BROADCASTER_TIMEOUT, BROADCASTER_TOKEN, HTTP_PORT, WEBHOOK_FORMAT,
        WEBHOOK_SECRET, WEBHOOK_URL,
    },
};
use agentforge_access::{Role, Tokens, check_secret};
use agentforge_config::{CommaList, Common, ExposeSecret, Reader, Secret, Setting};
use agentforge_door::{Door, DoorConfig};
use agentforge_egress::{Policy, Resolve};
use agentforge_jetstream::{
    NatsConfig,
    topology::{Maker, TopologyConfig, webhooks::WebhookLimits},
};
use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

/// The name of the endpoint that WEBHOOK_URL makes.
const DEFAULT_NAME: &str = "default";
const HOUR: Duration = Duration::from_secs(3600);

/// A broadcaster's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The settings of every service.
    pub common: Common,
    /// Where NATS is.
    pub nats: NatsConfig,
    /// The stream of events, in case it has to be created.
    pub topology: TopologyConfig,
    /// Whether streams are made here.
    pub maker: Maker,
    /// Port of the HTTP endpoints.
    pub http_port: u16,
    /// The endpoint that WEBHOOK_URL declares, as resolved at the start.
    pub default_endpoint: Option<Arc<Endpoint>>,
    /// Its declaration: the files that it refers to may change.
    pub(crate) default_declaration: Option<Declaration>,
    /// The endpoints of the file, as read at the start.
    pub from_file: Vec<Arc<Endpoint>>,
    /// The file of endpoints, BROADCASTER_ENDPOINTS_FILE; it is read again when it changes.
    pub endpoints_file: Option<PathBuf>,
    /// For endpoints that leave a field out.
    pub defaults: Defaults,
    /// Between reads of the file.
    pub reload_interval: Duration,
    /// Who may call the API.
    pub door: Door,
    /// Encrypt the endpoints of the API in their bucket.
    pub state_keys: StateKeys,
    /// Pauses between attempts.
    pub schedule: Schedule,
    /// Of each endpoint.
    pub circuit: Limits,
    /// Whether subjects without a stream are subscribed to.
    pub core_fallback: bool,
    /// Of the broadcaster's streams.
    pub limits: WebhookLimits,
    /// Certificate authorities in addition to those of the system.
    pub ca_file: Option<PathBuf>,
    /// What may be called.
    pub egress: Policy,
    /// Resolves names; `None`: the system does. For tests.
    pub resolver: Option<Arc<dyn Resolve>>,
}

impl Config {
    /// Reads the settings; faults stay in the reader.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let common = Common::read(reader);
        let subjects = subjects(reader);
        let defaults = Defaults {
            subjects,
            timeout: reader.get_in(&BROADCASTER_TIMEOUT, TIMEOUT),
            concurrency: reader.get_in(&BROADCASTER_CONCURRENCY, 1..=CONCURRENCY_MAX),
            retry_4xx: reader.get(&BROADCASTER_RETRY_4XX),
        };
        // A value out of range was reported under its own key. Without this each endpoint would be blamed for it, too.
        let defaults = Defaults {
            timeout: defaults.timeout.clamp(*TIMEOUT.start(), *TIMEOUT.end()),
            concurrency: defaults.concurrency.clamp(1, CONCURRENCY_MAX),
            ..defaults
        };
        let endpoints_file = reader.opt(&BROADCASTER_ENDPOINTS_FILE);
        let probe = reader.get_in(&BROADCASTER_CIRCUIT_PROBE, Duration::from_millis(50)..=HOUR);
        let probe_max = reader.get_in(&BROADCASTER_CIRCUIT_PROBE_MAX, Duration::from_millis(50)..=24 * HOUR);
        if reader.is_set(&BROADCASTER_CIRCUIT_PROBE_MAX) && probe_max < probe {
            reader.fault(BROADCASTER_CIRCUIT_PROBE_MAX.key, "is shorter than BROADCASTER_CIRCUIT_PROBE");
        }
        let http_port = reader.get(&HTTP_PORT);
        common.check_port(reader, &HTTP_PORT, http_port);
        let steps = reader.get::<Steps>(&BROADCASTER_RETRY_SCHEDULE);
        let default_declaration = default_declaration(reader);
        Self {
            nats: NatsConfig::read(reader),
            topology: TopologyConfig::read(reader),
            maker: Maker::read(reader, &common),
            http_port,
            default_endpoint: default_endpoint(reader, default_declaration.as_ref(), &defaults),
            default_declaration,
            from_file: from_file(reader, endpoints_file.as_ref(), &defaults),
            endpoints_file,
            defaults,
            reload_interval: reader.get_in(&BROADCASTER_RELOAD_INTERVAL, Duration::from_millis(100)..=HOUR),
            door: door(reader, &common),
            state_keys: state_keys(reader),
            schedule: Schedule::new(steps, reader.get_in(&BROADCASTER_RETRY_JITTER, 0.0..=1.0)),
            circuit: Limits {
                failures: reader.get_in(&BROADCASTER_CIRCUIT_FAILURES, 0..=100_000),
                probe,
                probe_max: probe_max.max(probe),
            },
            core_fallback: reader.get(&BROADCASTER_CORE_FALLBACK),
            limits: WebhookLimits::read(reader),
            ca_file: reader.opt(&BROADCASTER_CA_FILE),
            egress: Policy::read(reader),
            resolver: None,
            common,
        }
    }

    /// The endpoints of the environment and of a file's content, with the current content of the references in their
    /// values.
    ///
    /// # Errors
    /// What is wrong with the content.
    pub fn endpoints(&self, text: &str) -> Result<Vec<Arc<Endpoint>>, declaration::Faults> {
        let default_endpoint = declaration::check(self.default_declaration.iter().cloned().collect(), &self.defaults)?;
        Ok(with_default(default_endpoint.first(), &declaration::parse(text, &self.defaults)?))
    }

    /// The files that values of the endpoints refer to.
    pub fn referenced(&self, text: &str) -> BTreeSet<PathBuf> {
        let mut files = declaration::files(text);
        files.extend(self.default_declaration.iter().flat_map(Declaration::files));
        files
    }

    /// The endpoints at the start.
    pub fn first_endpoints(&self) -> Vec<Arc<Endpoint>> {
        with_default(self.default_endpoint.as_ref(), &self.from_file)
    }

    /// Reports every endpoint that may not be called because of its URL. A start continues with the others, so only a
    /// check of the settings makes faults of them.
    pub fn check_urls(&self, reader: &mut Reader<'_>) {
        for endpoint in self.first_endpoints() {
            let Err(problem) = endpoint.target(&self.egress) else { continue };
            let is_default = self.default_endpoint.as_ref().is_some_and(|default| default.name == endpoint.name);
            let key = if is_default { WEBHOOK_URL.key } else { BROADCASTER_ENDPOINTS_FILE.key };
            reader.fault(key, format!("endpoint {}: url: {problem}", endpoint.name));
        }
    }
}

/// An endpoint of the file with the name of the environment's is left out: a name is a consumer.
fn with_default(default_endpoint: Option<&Arc<Endpoint>>, from_file: &[Arc<Endpoint>]) -> Vec<Arc<Endpoint>> {
    let is_free = |e: &&Arc<Endpoint>| default_endpoint.is_none_or(|default| default.name != e.name);
    default_endpoint.into_iter().chain(from_file.iter().filter(is_free)).cloned().collect()
}

fn default_declaration(reader: &mut Reader<'_>) -> Option<Declaration> {
    let url: Option<Secret> = reader.opt(&WEBHOOK_URL);
    let secret: Option<Secret> = reader.opt(&WEBHOOK_SECRET);
    let format: Format = reader.get(&WEBHOOK_FORMAT);
    let secrets = secret.iter().flat_map(|s| s.expose_secret().split(',').map(|s| s.trim().to_owned()));
    let mut secrets: Vec<String> = secrets.filter(|s| !s.is_empty()).collect();
    if secret.is_some() && secrets.is_empty() {
        reader.fault(WEBHOOK_SECRET.key, "names no secret; unset it to sign nothing");
    }
    if secret.is_some() && url.is_none() {
        reader.fault(WEBHOOK_SECRET.key, "needs WEBHOOK_URL");
    }
    if let Some(file) = secrets.first().and_then(|first| followed(reader, &WEBHOOK_SECRET, first)) {
        secrets = vec![file];
    }
    let url = match (url, secrets.is_empty()) {
        (Some(url), _) => {
            let url = url.expose_secret();
            followed(reader, &WEBHOOK_URL, url).unwrap_or_else(|| url.to_owned())
        }
        (None, true) => return None,
        // Only for checking the secrets, too: the start ends with the fault above.
        (None, false) => "https://webhook.invalid/".to_owned(),
    };
    Some(Declaration { name: DEFAULT_NAME.to_owned(), url, secrets, format, ..Declaration::default() })
}

/// The reference to the file that a setting's value comes from (`NAME_FILE`): it is read again when it changes. A file
/// that only refers to another place is not followed itself.
fn followed(reader: &Reader<'_>, setting: &Setting, value: &str) -> Option<String> {
    let file = reader.file_of(setting)?;
    (!is_reference(value)).then(|| format!("file:{}", file.display()))
}

/// For endpoints that name no subjects. A fault is reported here and not for each of them, too.
fn subjects(reader: &mut Reader<'_>) -> Vec<String> {
    let subjects = reader.get::<CommaList>(&BROADCASTER_SUBJECTS).into_inner();
    match subjects_problem(&subjects) {
        None => subjects,
        Some(problem) => {
            reader.fault(BROADCASTER_SUBJECTS.key, problem);
            BROADCASTER_SUBJECTS.default.into_iter().map(str::to_owned).collect()
        }
    }
}

fn default_endpoint(
    reader: &mut Reader<'_>,
    written: Option<&Declaration>,
    defaults: &Defaults,
) -> Option<Arc<Endpoint>> {
    match declaration::check(vec![written?.clone()], defaults) {
        Ok(mut endpoints) => endpoints.pop(),
        Err(faults) => {
            for fault in faults.0 {
                let fault = fault.trim_start_matches("endpoint default: ");
                let is_of_secrets = fault.starts_with("secret") || fault.contains(" secrets");
                reader.fault(if is_of_secrets { WEBHOOK_SECRET.key } else { WEBHOOK_URL.key }, fault);
            }
            None
        }
    }
}

fn from_file(reader: &mut Reader<'_>, path: Option<&PathBuf>, defaults: &Defaults) -> Vec<Arc<Endpoint>> {
    let Some(path) = path else { return Vec::new() };
    let read = std::fs::read_to_string(path).map_err(|e| vec![format!("{} cannot be read: {e}", path.display())]);
    let parsed = read.and_then(|text| declaration::parse(&text, defaults).map_err(|faults| faults.0));
    parsed.unwrap_or_else(|problems| {
        problems.into_iter().for_each(|problem| reader.fault(BROADCASTER_ENDPOINTS_FILE.key, problem));
        Vec::new()
    })
}

fn door(reader: &mut Reader<'_>, common: &Common) -> Door {
    let mut token = |setting: &Setting| {
        let good = |secret: &Secret| check_secret(secret.expose_secret()).map_err(str::to_owned);
        reader.opt_if::<Secret>(setting, good)
    };
    let (admin, alerts) = (token(&BROADCASTER_TOKEN), token(&BROADCASTER_ALERTS_TOKEN));
    let text = |secret: &Option<Secret>| secret.as_ref().map(|s| s.expose_secret().to_owned());
    if admin.is_some() && text(&admin) == text(&alerts) {
        reader.fault(BROADCASTER_ALERTS_TOKEN.key, "is the value of BROADCASTER_TOKEN, which may do everything");
    }
    let admin = Tokens::sharing("admin", Role::Admin, admin.as_ref());
    let own = admin.and(&Tokens::sharing("alerts", Role::Alerts, alerts.as_ref()));
    Door::new(DoorConfig::read(reader, common, own, &BROADCASTER_TOKEN))
}

fn state_keys(reader: &mut Reader<'_>) -> StateKeys {
    let Some(keys) = reader.opt::<Secret>(&BROADCASTER_STATE_KEY) else { return StateKeys::default() };
    StateKeys::parse(keys.expose_secret()).unwrap_or_else(|problem| {
        reader.fault(BROADCASTER_STATE_KEY.key, problem);
        StateKeys::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SETTINGS;
    use std::collections::BTreeMap;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let source: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut reader = Reader::new(&source);
        let config = Config::read(&mut reader);
        reader.finish().map(|_| config).map_err(|faults| faults.to_string())
    }

    #[test]
    fn a_url_alone_is_enough() {
        let config = read(&[("WEBHOOK_URL", "https://h.example/secret")]).unwrap();
        let [endpoint] = &config.first_endpoints()[..] else { panic!() };
        assert_eq!((&*endpoint.name, endpoint.concurrency), ("default", 64));
        assert_eq!(endpoint.subjects, ["todos.events"]);
        assert_eq!((config.http_port, config.schedule.attempts()), (8002, 8));
        assert!(!format!("{config:?}").contains("h.example"));
        assert!(read(&[]).unwrap().first_endpoints().is_empty());
    }

    /// The keys that faults name.
    fn keys(pairs: &[(&str, &str)]) -> Vec<String> {
        let source: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut reader = Reader::new(&source);
        let _ = Config::read(&mut reader);
        let Err(faults) = reader.finish() else { return Vec::new() };
        assert!(!faults.to_string().contains("hunter2"), "{pairs:?}: {faults}");
        faults.iter().map(|fault| fault.key.clone()).collect()
    }

    #[test]
    fn every_fault_is_reported_under_its_own_key_and_without_secrets() {
        let url = ("WEBHOOK_URL", "https://h.example/");
        let dir = tempfile::tempdir().unwrap();
        let (file, missing) = (dir.path().join("endpoints.toml"), dir.path().join("none"));
        std::fs::write(&file, "[[endpoint]]\nname = \"a\"\nurl = \"https://h/\"\n").unwrap();
        let (file, missing) = (("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()), missing.to_str().unwrap());
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            (&[("WEBHOOK_URL", "hunter2")], &["WEBHOOK_URL"]),
            (&[("WEBHOOK_URL", "hunter2"), ("WEBHOOK_SECRET", "hunter2")], &["WEBHOOK_SECRET", "WEBHOOK_URL"]),
            (&[url, ("WEBHOOK_SECRET", "hunter2")], &["WEBHOOK_SECRET"]),
            (&[url, ("WEBHOOK_SECRET", " , ")], &["WEBHOOK_SECRET"]),
            (&[url, ("WEBHOOK_FORMAT", "xml")], &["WEBHOOK_FORMAT"]),
            (&[("WEBHOOK_SECRET", "whsec_hunter2")], &["WEBHOOK_SECRET", "WEBHOOK_SECRET"]),
            (&[("BROADCASTER_TOKEN", "hunter2")], &["BROADCASTER_TOKEN"]),
            (&[("BROADCASTER_ALERTS_TOKEN", "hunter2")], &["BROADCASTER_ALERTS_TOKEN"]),
            (
                &[("BROADCASTER_ALERTS_TOKEN", "0123456789abcdef"), ("BROADCASTER_TOKEN", "0123456789abcdef")],
                &["BROADCASTER_ALERTS_TOKEN"],
            ),
            (&[("ENV", "production"), ("BIND_ADDR", "127.0.0.1")], &["BROADCASTER_TOKEN"]),
            (&[("BIND_ADDR", "0.0.0.0")], &["BROADCASTER_TOKEN"]),
            (&[("BROADCASTER_STATE_KEY", "hunter2")], &["BROADCASTER_STATE_KEY"]),
            // Endpoints that leave these out have what is wrong with them, and are not to blame.
            (&[url, file, ("BROADCASTER_SUBJECTS", "a..b")], &["BROADCASTER_SUBJECTS"]),
            (&[url, file, ("BROADCASTER_SUBJECTS", "a.>,a.b")], &["BROADCASTER_SUBJECTS"]),
            (&[url, file, ("BROADCASTER_CONCURRENCY", "0")], &["BROADCASTER_CONCURRENCY"]),
            (&[url, file, ("BROADCASTER_CONCURRENCY", "2000")], &["BROADCASTER_CONCURRENCY"]),
            (&[url, file, ("BROADCASTER_TIMEOUT", "6m")], &["BROADCASTER_TIMEOUT"]),
            (&[url, file, ("BROADCASTER_RETRY_4XX", "410")], &["BROADCASTER_RETRY_4XX"]),
            (&[("BROADCASTER_RETRY_SCHEDULE", "soon")], &["BROADCASTER_RETRY_SCHEDULE"]),
            (&[("BROADCASTER_RETRY_JITTER", "1.1")], &["BROADCASTER_RETRY_JITTER"]),
            (&[("BROADCASTER_ENDPOINTS_FILE", missing)], &["BROADCASTER_ENDPOINTS_FILE"]),
            (&[("BROADCASTER_RELOAD_INTERVAL", "1ms")], &["BROADCASTER_RELOAD_INTERVAL"]),
            (&[("BROADCASTER_CIRCUIT_FAILURES", "-1")], &["BROADCASTER_CIRCUIT_FAILURES"]),
            (&[("BROADCASTER_CIRCUIT_PROBE", "2h")], &["BROADCASTER_CIRCUIT_PROBE"]),
            (
                &[("BROADCASTER_CIRCUIT_PROBE", "2m"), ("BROADCASTER_CIRCUIT_PROBE_MAX", "1m")],
                &["BROADCASTER_CIRCUIT_PROBE_MAX"],
            ),
            (&[("BROADCASTER_RETRIES_MAX_BYTES", "1KiB")], &["BROADCASTER_RETRIES_MAX_BYTES"]),
            (&[("BROADCASTER_RETRIES_MAX_AGE", "0s")], &["BROADCASTER_RETRIES_MAX_AGE"]),
            (&[("BROADCASTER_DLQ_MAX_BYTES", "0")], &["BROADCASTER_DLQ_MAX_BYTES"]),
            (&[("BROADCASTER_DLQ_MAX_AGE", "1m")], &["BROADCASTER_DLQ_MAX_AGE"]),
            (&[("BROADCASTER_HISTORY_MAX_BYTES", "0")], &["BROADCASTER_HISTORY_MAX_BYTES"]),
            (&[("BROADCASTER_HISTORY_MAX_AGE", "1m")], &["BROADCASTER_HISTORY_MAX_AGE"]),
            (&[("BROADCASTER_CORE_FALLBACK", "maybe")], &["BROADCASTER_CORE_FALLBACK"]),
            (&[("HTTP_PORT", "9000"), ("METRICS_PORT", "9000")], &["HTTP_PORT"]),
            (&[("EGRESS_ALLOW", "https://x")], &["EGRESS_ALLOW"]),
        ];
        for (pairs, expected) in cases {
            let mut found = keys(pairs);
            found.sort();
            assert_eq!(found, *expected, "{pairs:?}: {:?}", read(pairs).err());
        }
        // All at once, regardless of other faults: each case's own setting, where no other case has it.
        let (mut together, mut own): (BTreeMap<&str, &str>, BTreeSet<&str>) = Default::default();
        for (pairs, expected) in cases {
            together.extend(pairs.iter().copied());
            own.extend(expected.iter().copied());
        }
        together.extend([("WEBHOOK_URL", "hunter2"), ("BROADCASTER_CIRCUIT_PROBE", "2m")]);
        own.remove("BROADCASTER_CIRCUIT_PROBE");
        // The last case has one that is right.
        own.remove("BROADCASTER_TOKEN");
        let pairs: Vec<_> = together.into_iter().collect();
        let found = keys(&pairs);
        assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), own, "{:?}", read(&pairs).err());
    }

    #[test]
    fn every_setting_is_declared_once() {
        let keys: BTreeSet<_> = SETTINGS.iter().map(|s| s.key).collect();
        assert_eq!(keys.len(), SETTINGS.len());
    }
}
