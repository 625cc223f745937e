//! The broadcaster's configuration: every setting, parsed and checked, all faults at once.

use crate::{
    delivery::circuit::Limits,
    endpoints::declaration::{
        self as endpoint_file, CONCURRENCY_MAX, Defaults, Endpoint, TIMEOUT, Written, subjects_problem,
    },
    history::stream as history,
    payload::render::Format,
    retry::schedule::{Schedule, Steps},
};
use agentforge_config::{ByteSize, CommaList, Common, ExposeSecret, Reader, Secret, Setting};
use agentforge_egress::{Policy, Resolve};
use agentforge_jetstream::{NatsConfig, topology::TopologyConfig};
use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

const HTTP_PORT: Setting = Setting::new(
    "HTTP_PORT",
    Some("8002"),
    "port 0-65535; 0 selects a free one",
    "Port of /health, /healthz, /readyz, /metrics and of the API below /v1.",
);
const BROADCASTER_SUBJECTS: Setting = Setting::new(
    "BROADCASTER_SUBJECTS",
    Some("todos.events"),
    "comma-separated subjects; * and > stand for tokens",
    "Subjects of endpoints that name none. agentforge.events.job.> are the events of jobs.",
);
const WEBHOOK_URL: Setting = Setting::new(
    "WEBHOOK_URL",
    None,
    "http or https URL, file:PATH or env:NAME",
    "An endpoint named default, with or without an endpoints file.",
)
.secret();
const WEBHOOK_SECRET: Setting = Setting::new(
    "WEBHOOK_SECRET",
    None,
    "whsec_…, whsk_…, file:PATH or env:NAME, several with commas",
    "Signs requests to WEBHOOK_URL. Two during a rotation. Unset: requests are not signed.",
)
.secret();
const WEBHOOK_FORMAT: Setting = Setting::new(
    "WEBHOOK_FORMAT",
    Some("json"),
    "json, raw, cloudevents, slack, teams or discord",
    "The format of bodies sent to WEBHOOK_URL.",
);
const BROADCASTER_ENDPOINTS_FILE: Setting = Setting::new(
    "BROADCASTER_ENDPOINTS_FILE",
    None,
    "path of a TOML file",
    "Declares endpoints. Changes take effect without a restart, also those of files that its values refer to.",
);
const BROADCASTER_RELOAD_INTERVAL: Setting = Setting::new(
    "BROADCASTER_RELOAD_INTERVAL",
    Some("2s"),
    "duration 100ms-1h",
    "How often the endpoints file and the files that its values refer to are checked.",
);
const BROADCASTER_TOKEN: Setting = Setting::new(
    "BROADCASTER_TOKEN",
    None,
    "16-512 characters",
    "Bearer token of the API below /v1, including alerts. Unset: the API is open in ENV=dev on a \
     loopback listener, and closed everywhere else.",
)
.secret();
const BROADCASTER_RETRY_SCHEDULE: Setting = Setting::new(
    "BROADCASTER_RETRY_SCHEDULE",
    Some("5s,5m,30m,2h,5h,10h,10h"),
    "durations 100ms-7d with commas, at most 32",
    "Pauses between attempts. After the last one a message becomes a dead letter.",
);
const BROADCASTER_RETRY_JITTER: Setting = Setting::new(
    "BROADCASTER_RETRY_JITTER",
    Some("0.2"),
    "number 0-1",
    "The share by which a pause may be longer or shorter, so that messages that failed together are spread out.",
);
const BROADCASTER_TIMEOUT: Setting = Setting::new(
    "BROADCASTER_TIMEOUT",
    Some("10s"),
    "duration 100ms-5m",
    "How long a request may take, including the connection. An endpoint may override it.",
);
const BROADCASTER_CONCURRENCY: Setting = Setting::new(
    "BROADCASTER_CONCURRENCY",
    Some("64"),
    "number 1-1024",
    "Concurrent requests to one endpoint, in each replica. An endpoint may override it.",
);
const BROADCASTER_RETRY_4XX: Setting = Setting::new(
    "BROADCASTER_RETRY_4XX",
    Some("off"),
    "on, off, or statuses 400-499 with commas, without 410",
    "Client errors that are retried by the schedule; the others make a dead letter at once, unless the circuit is \
     open. 408, 425 and 429 are always retried. An endpoint may say otherwise.",
);
const BROADCASTER_CIRCUIT_FAILURES: Setting = Setting::new(
    "BROADCASTER_CIRCUIT_FAILURES",
    Some("20"),
    "number 0-100000; 0 never opens",
    "Failures in a row, including client errors, that open an endpoint's circuit, in each replica.",
);
const BROADCASTER_CIRCUIT_PROBE: Setting = Setting::new(
    "BROADCASTER_CIRCUIT_PROBE",
    Some("1s"),
    "duration 50ms-1h",
    "How long an open circuit waits before its first probe; each failed probe doubles it.",
);
const BROADCASTER_CIRCUIT_PROBE_MAX: Setting =
    Setting::new("BROADCASTER_CIRCUIT_PROBE_MAX", Some("1m"), "duration 50ms-1d", "The longest wait between probes.");
const BROADCASTER_CORE_FALLBACK: Setting = Setting::new(
    "BROADCASTER_CORE_FALLBACK",
    Some("off"),
    "1, true, yes, on, 0, false, no, off",
    "Subscribe to subjects without a stream, in queue group broadcaster-workers. Events published while no \
     broadcaster listens are lost.",
);
const BROADCASTER_RETRIES_MAX_BYTES: Setting = Setting::new(
    "BROADCASTER_RETRIES_MAX_BYTES",
    Some("1GiB"),
    "size 1MiB-1PiB",
    "Size of the stream of retries. When it is full, failing endpoints are not read; nothing is \
     discarded.",
);
const BROADCASTER_RETRIES_MAX_AGE: Setting = Setting::new(
    "BROADCASTER_RETRIES_MAX_AGE",
    Some("14d"),
    "duration 1s-1000d",
    "How long a due message waits for an endpoint that does not recover, or is no longer configured. Then it \
     becomes a dead letter.",
);
const BROADCASTER_DLQ_MAX_BYTES: Setting = Setting::new(
    "BROADCASTER_DLQ_MAX_BYTES",
    Some("256MiB"),
    "size 1MiB-1PiB",
    "Size of the stream of dead letters. When it is full, endpoints that need it are not read.",
);
const BROADCASTER_DLQ_MAX_AGE: Setting =
    Setting::new("BROADCASTER_DLQ_MAX_AGE", Some("30d"), "duration 1h-1000d", "How long dead letters are kept.");
const BROADCASTER_HISTORY_MAX_BYTES: Setting = Setting::new(
    "BROADCASTER_HISTORY_MAX_BYTES",
    Some("256MiB"),
    "size 1MiB-1PiB",
    "Size of the stream of delivery attempts. When it is full, the oldest are discarded.",
);
const BROADCASTER_HISTORY_MAX_AGE: Setting = Setting::new(
    "BROADCASTER_HISTORY_MAX_AGE",
    Some("7d"),
    "duration 1h-1000d",
    "How long delivery attempts are kept.",
);
const BROADCASTER_CA_FILE: Setting = Setting::new(
    "BROADCASTER_CA_FILE",
    None,
    "path of a PEM file",
    "Authorities trusted for endpoints' certificates, in addition to those of the system.",
);

/// What is read here, in the order of `--help`.
pub(crate) const SETTINGS: &[Setting] = &[
    HTTP_PORT,
    BROADCASTER_SUBJECTS,
    WEBHOOK_URL,
    WEBHOOK_SECRET,
    WEBHOOK_FORMAT,
    BROADCASTER_ENDPOINTS_FILE,
    BROADCASTER_RELOAD_INTERVAL,
    BROADCASTER_TOKEN,
    BROADCASTER_RETRY_SCHEDULE,
    BROADCASTER_RETRY_JITTER,
    BROADCASTER_TIMEOUT,
    BROADCASTER_CONCURRENCY,
    BROADCASTER_RETRY_4XX,
    BROADCASTER_CIRCUIT_FAILURES,
    BROADCASTER_CIRCUIT_PROBE,
    BROADCASTER_CIRCUIT_PROBE_MAX,
    BROADCASTER_CORE_FALLBACK,
    BROADCASTER_RETRIES_MAX_BYTES,
    BROADCASTER_RETRIES_MAX_AGE,
    BROADCASTER_DLQ_MAX_BYTES,
    BROADCASTER_DLQ_MAX_AGE,
    BROADCASTER_HISTORY_MAX_BYTES,
    BROADCASTER_HISTORY_MAX_AGE,
    BROADCASTER_CA_FILE,
];

/// The name of the endpoint that WEBHOOK_URL makes.
const DEFAULT_NAME: &str = "default";
const HOUR: Duration = Duration::from_secs(3600);
const DAYS_1000: Duration = Duration::from_secs(1000 * 24 * 3600);
const TOKEN_CHARS: std::ops::RangeInclusive<usize> = 16..=512;

/// Sizes and ages of our streams.
#[derive(Debug, Clone, Copy)]
pub struct Keeping {
    /// What retries may take, bytes.
    pub retries_max_bytes: u64,
    /// Of retries.
    pub retries_max_age: Duration,
    /// Of dead letters, bytes.
    pub dlq_max_bytes: u64,
    /// Of dead letters.
    pub dlq_max_age: Duration,
}

/// A broadcaster's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The settings of every service.
    pub common: Common,
    /// Where NATS is.
    pub nats: NatsConfig,
    /// The stream of events, when it has to be made.
    pub topology: TopologyConfig,
    /// Port of the HTTP endpoints.
    pub http_port: u16,
    /// The endpoint of WEBHOOK_URL, as it was at the start.
    pub fixed: Option<Arc<Endpoint>>,
    /// The same as it was written: what it names may change.
    pub(crate) fixed_written: Option<Written>,
    /// Those of the file, as it was at the start.
    pub from_file: Vec<Arc<Endpoint>>,
    /// The file.
    pub endpoints_file: Option<PathBuf>,
    /// What endpoints have that do not say otherwise.
    pub defaults: Defaults,
    /// Between looks at the file.
    pub reload_interval: Duration,
    /// Of the API.
    pub token: Option<Secret>,
    /// Pauses between attempts.
    pub schedule: Schedule,
    /// Of each endpoint.
    pub circuit: Limits,
    /// Whether subjects without a stream are subscribed to.
    pub core_fallback: bool,
    /// Our streams.
    pub keeping: Keeping,
    /// The history of deliveries.
    pub history: history::Kept,
    /// More authorities.
    pub ca_file: Option<PathBuf>,
    /// What may be called.
    pub egress: Policy,
    /// Who knows names; `None`: the system. For tests of what names lead to.
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
        // What is out of range was reported under its own key; endpoints that leave it out are not to blame.
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
        let fixed_written = fixed_written(reader);
        Self {
            nats: NatsConfig::read(reader),
            topology: TopologyConfig::read(reader),
            http_port,
            fixed: fixed(reader, fixed_written.as_ref(), &defaults),
            fixed_written,
            from_file: from_file(reader, endpoints_file.as_ref(), &defaults),
            endpoints_file,
            defaults,
            reload_interval: reader.get_in(&BROADCASTER_RELOAD_INTERVAL, Duration::from_millis(100)..=HOUR),
            token: token(reader),
            schedule: Schedule::new(steps, reader.get_in(&BROADCASTER_RETRY_JITTER, 0.0..=1.0)),
            circuit: Limits {
                failures: reader.get_in(&BROADCASTER_CIRCUIT_FAILURES, 0..=100_000),
                probe,
                probe_max: probe_max.max(probe),
            },
            core_fallback: reader.get(&BROADCASTER_CORE_FALLBACK),
            keeping: keeping(reader),
            history: history::Kept {
                max_bytes: reader.get_in(&BROADCASTER_HISTORY_MAX_BYTES, ByteSize(1 << 20)..=ByteSize(1 << 50)).bytes(),
                max_age: reader.get_in(&BROADCASTER_HISTORY_MAX_AGE, HOUR..=DAYS_1000),
            },
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
    pub fn endpoints(&self, text: &str) -> Result<Vec<Arc<Endpoint>>, endpoint_file::Faults> {
        let fixed = endpoint_file::check(self.fixed_written.iter().cloned().collect(), &self.defaults)?;
        Ok(with_fixed(fixed.first(), &endpoint_file::parse(text, &self.defaults)?))
    }

    /// The files that values of the endpoints refer to.
    pub fn referenced(&self, text: &str) -> BTreeSet<PathBuf> {
        let mut files = endpoint_file::files(text);
        files.extend(self.fixed_written.iter().flat_map(Written::files));
        files
    }

    /// The endpoints at the start.
    pub fn first_endpoints(&self) -> Vec<Arc<Endpoint>> {
        with_fixed(self.fixed.as_ref(), &self.from_file)
    }

    /// Reports every endpoint that may not be called because of its URL. A start continues with the others, so only a
    /// check of the settings makes faults of them.
    pub fn check_urls(&self, reader: &mut Reader<'_>) {
        for endpoint in self.first_endpoints() {
            let Err(problem) = endpoint.target(&self.egress) else { continue };
            let is_fixed = self.fixed.as_ref().is_some_and(|fixed| fixed.name == endpoint.name);
            let key = if is_fixed { WEBHOOK_URL.key } else { BROADCASTER_ENDPOINTS_FILE.key };
            reader.fault(key, format!("endpoint {}: url: {problem}", endpoint.name));
        }
    }
}

/// One of the file that is named as the environment's is left out: names are consumers.
fn with_fixed(fixed: Option<&Arc<Endpoint>>, from_file: &[Arc<Endpoint>]) -> Vec<Arc<Endpoint>> {
    let is_free = |e: &&Arc<Endpoint>| fixed.is_none_or(|fixed| fixed.name != e.name);
    fixed.into_iter().chain(from_file.iter().filter(is_free)).cloned().collect()
}

fn fixed_written(reader: &mut Reader<'_>) -> Option<Written> {
    let url: Option<Secret> = reader.opt(&WEBHOOK_URL);
    let secret: Option<Secret> = reader.opt(&WEBHOOK_SECRET);
    let format: Format = reader.get(&WEBHOOK_FORMAT);
    let secrets = secret.iter().flat_map(|s| s.expose_secret().split(',').map(|s| s.trim().to_owned()));
    let secrets: Vec<String> = secrets.filter(|s| !s.is_empty()).collect();
    if secret.is_some() && secrets.is_empty() {
        reader.fault(WEBHOOK_SECRET.key, "names no secret; unset it to sign nothing");
    }
    if secret.is_some() && url.is_none() {
        reader.fault(WEBHOOK_SECRET.key, "needs WEBHOOK_URL");
    }
    let url = match (url, secrets.is_empty()) {
        (Some(url), _) => url.expose_secret().to_owned(),
        (None, true) => return None,
        // So that the secrets are checked, too; the start ends anyway.
        (None, false) => "https://webhook.invalid/".to_owned(),
    };
    Some(Written { name: DEFAULT_NAME.to_owned(), url, secrets, format, ..Written::default() })
}

/// What endpoints get that name no subjects. A fault is reported here and nowhere else.
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

fn fixed(reader: &mut Reader<'_>, written: Option<&Written>, defaults: &Defaults) -> Option<Arc<Endpoint>> {
    match endpoint_file::check(vec![written?.clone()], defaults) {
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
    let parsed = read.and_then(|text| endpoint_file::parse(&text, defaults).map_err(|faults| faults.0));
    parsed.unwrap_or_else(|problems| {
        problems.into_iter().for_each(|problem| reader.fault(BROADCASTER_ENDPOINTS_FILE.key, problem));
        Vec::new()
    })
}

fn token(reader: &mut Reader<'_>) -> Option<Secret> {
    let token: Secret = reader.opt(&BROADCASTER_TOKEN)?;
    let text = token.expose_secret();
    if !TOKEN_CHARS.contains(&text.chars().count()) || !text.bytes().all(|b| b.is_ascii_graphic()) {
        reader.fault(BROADCASTER_TOKEN.key, "is not 16 to 512 printable characters");
    }
    Some(token)
}

fn keeping(reader: &mut Reader<'_>) -> Keeping {
    let bytes = |r: &mut Reader<'_>, s| r.get_in(s, ByteSize(1 << 20)..=ByteSize(1 << 50)).bytes();
    Keeping {
        retries_max_bytes: bytes(reader, &BROADCASTER_RETRIES_MAX_BYTES),
        retries_max_age: reader.get_in(&BROADCASTER_RETRIES_MAX_AGE, Duration::from_secs(1)..=DAYS_1000),
        dlq_max_bytes: bytes(reader, &BROADCASTER_DLQ_MAX_BYTES),
        dlq_max_age: reader.get_in(&BROADCASTER_DLQ_MAX_AGE, HOUR..=DAYS_1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let cases: &[(&[(&str, &str)], &[&str])] = &[
            (&[("WEBHOOK_URL", "hunter2")], &["WEBHOOK_URL"]),
            (&[("WEBHOOK_URL", "hunter2"), ("WEBHOOK_SECRET", "hunter2")], &["WEBHOOK_SECRET", "WEBHOOK_URL"]),
            (&[url, ("WEBHOOK_SECRET", "hunter2")], &["WEBHOOK_SECRET"]),
            (&[url, ("WEBHOOK_SECRET", " , ")], &["WEBHOOK_SECRET"]),
            (&[url, ("WEBHOOK_FORMAT", "xml")], &["WEBHOOK_FORMAT"]),
            (&[("WEBHOOK_SECRET", "whsec_hunter2")], &["WEBHOOK_SECRET", "WEBHOOK_SECRET"]),
            (&[("BROADCASTER_TOKEN", "hunter2")], &["BROADCASTER_TOKEN"]),
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
