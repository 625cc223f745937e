//! The settings that every service shares: who it is, how it logs, where it listens, how it stops.

use crate::otlp::{self, Otlp};
use crate::{ByteSize, Parse, Reader, Setting};
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The environment's name.
pub const ENV: Setting = Setting::new(
    "ENV",
    Some("dev"),
    "1-63 of A-Z a-z 0-9 -, not - first",
    "The environment. `dev` is lenient on loopback listeners only; images set production.",
);
/// The mission, a subject token.
pub const MISSION: Setting = Setting::new(
    "MISSION",
    None,
    "1-63 of A-Z a-z 0-9 -, not - first",
    "The environment or shard whose jobs this process handles.",
)
.default_note("value of ENV");
/// The name of the place where a process runs; it is part of subjects, labels and the workers' reports.
pub const SITE: Setting =
    Setting::new("SITE", None, "1-63 of A-Z a-z 0-9 -, not - first", "The place this process runs at.")
        .default_note("value of ENV");
/// What is logged.
pub const LOG_LEVEL: Setting = Setting::new(
    "LOG_LEVEL",
    Some("info"),
    "error, warn, info, debug, trace, off, or a list such as info,async_nats=warn",
    "What is logged.",
);
/// How it is logged.
pub const LOG_FORMAT: Setting = Setting::new(
    "LOG_FORMAT",
    None,
    "json or text",
    "One JSON object per line, or text for people. Written to stderr.",
)
.default_note("json; text when stderr is a terminal");
/// Traces at all.
pub const OTEL_SDK_DISABLED: Setting = Setting::new(
    "OTEL_SDK_DISABLED",
    Some("false"),
    "true or false",
    "Turns traces off: no ids in logs, none in messages except a caller's own, nothing exported.",
);
/// Metrics at all.
pub const METRICS: Setting = Setting::new(
    "METRICS",
    Some("on"),
    "on or off",
    "Whether metrics are recorded. off: /metrics is empty and nothing is counted, for installations without Prometheus.",
);
/// The metrics listener.
pub const METRICS_PORT: Setting = Setting::new(
    "METRICS_PORT",
    Some("7777"),
    "port 0-65535; 0 selects a free one",
    "Where probes (/healthz, /readyz) and /metrics are served, with places of their own.",
);
/// Connections of a listener.
pub const CONNECTIONS_MAX: Setting = Setting::new(
    "CONNECTIONS_MAX",
    Some("8192"),
    "1 to 1000000",
    "Connections that one listener holds. When all places are taken, connections that sent no request yet or wait between two make room. The limit of open files bounds all listeners together.",
);
/// Connections of one address.
pub const CONNECTIONS_PER_ADDRESS: Setting = Setting::new(
    "CONNECTIONS_PER_ADDRESS",
    None,
    "1 to 1000000",
    "Of these, connections from one address (IPv6: one /64 network). Behind a proxy all callers have the address of the proxy.",
)
.default_note("half of CONNECTIONS_MAX");
/// Memory for bodies.
pub const REQUEST_BODIES_MAX: Setting = Setting::new(
    "REQUEST_BODIES_MAX",
    None,
    "size 1MiB-64GiB",
    "Bodies of requests and gRPC messages in memory at once, in the whole process; beyond it requests are refused, to be sent again.",
)
.default_note("an eighth of the memory limit of the cgroup or machine, 32MiB-256MiB");
/// How long a stop may take.
pub const SHUTDOWN_GRACE: Setting = Setting::new(
    "SHUTDOWN_GRACE",
    Some("25s"),
    "duration 0s-1h",
    "How long work in flight may take to finish after a stop was requested; the rest is handed back.",
);
/// How long endpoints have to be removed.
pub const SHUTDOWN_PAUSE: Setting = Setting::new(
    "SHUTDOWN_PAUSE",
    None,
    "duration 0s-5m",
    "How long the process stays up but not ready before it stops accepting, so that load balancers notice.",
)
.default_note("0s in ENV=dev, else 3s");
/// The address listeners bind.
pub const BIND_ADDR: Setting = Setting::new("BIND_ADDR", None, "IP address", "The address that listeners bind.")
    .default_note("127.0.0.1 in ENV=dev, else 0.0.0.0");
/// Where local state lives.
pub const DATA_DIR: Setting =
    Setting::new("DATA_DIR", Some("./agentforge-data"), "path", "The directory that holds local state.");
/// The certificate of the process's listeners.
pub const TLS_CERT: Setting = Setting::new(
    "TLS_CERT",
    None,
    "path of a PEM file",
    "Certificate chain of the process's listeners; turns TLS on. A renewed file is used within 5 s.",
);
/// Its key.
pub const TLS_KEY: Setting = Setting::new("TLS_KEY", None, "path of a PEM file", "Private key of TLS_CERT.");
/// Who signs the certificates of callers.
pub const TLS_CLIENT_CA: Setting = Setting::new(
    "TLS_CLIENT_CA",
    None,
    "path of a PEM file",
    "Authorities of the client certificates that HTTP_PORT and GRPC_PORT require. METRICS_PORT requires none.",
);
/// Reports which ports were taken.
pub const READY_FILE: Setting = Setting::new(
    "READY_FILE",
    None,
    "path",
    "A file that is written when the listeners are open: a JSON object with each service's addresses and process id.",
);

const SETTINGS: [Setting; 23] = [
    ENV,
    MISSION,
    SITE,
    LOG_LEVEL,
    LOG_FORMAT,
    otlp::OTEL_EXPORTER_OTLP_ENDPOINT,
    otlp::OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    otlp::OTEL_EXPORTER_OTLP_PROTOCOL,
    otlp::OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
    OTEL_SDK_DISABLED,
    METRICS,
    METRICS_PORT,
    CONNECTIONS_MAX,
    CONNECTIONS_PER_ADDRESS,
    REQUEST_BODIES_MAX,
    SHUTDOWN_GRACE,
    SHUTDOWN_PAUSE,
    BIND_ADDR,
    DATA_DIR,
    TLS_CERT,
    TLS_KEY,
    TLS_CLIENT_CA,
    READY_FILE,
];

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people, coloured on terminals unless NO_COLOR is set.
    Text,
}

impl Parse for LogFormat {
    fn parse(s: &str) -> Result<Self, String> {
        match s.to_ascii_lowercase().as_str() {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("is not a log format".to_owned()),
        }
    }
    fn placeholder() -> Self {
        Self::Json
    }
}

/// The files for TLS of the process's listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Authorities of callers; `None` asks callers for no certificate.
    pub client_ca: Option<PathBuf>,
}

/// The shared settings as values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Common {
    /// The environment's name; see [`is_dev`](Self::is_dev).
    pub env: String,
    /// The mission, one subject token.
    pub mission: String,
    /// The site, one subject token.
    pub site: String,
    /// A filter such as `info,async_nats=warn`.
    pub log_level: String,
    /// How logs are written.
    pub log_format: LogFormat,
    /// The OTLP gRPC collector; `None` exports no traces.
    pub otlp: Option<Otlp>,
    /// Whether there are traces.
    pub traces: bool,
    /// Whether metrics are recorded.
    pub metrics: bool,
    /// The port of /metrics; 0 selects a free one.
    pub metrics_port: u16,
    /// Most connections of one listener.
    pub connections_max: usize,
    /// Most of them from one address.
    pub connections_per_address: usize,
    /// Most bytes of request bodies in memory; `None` for a share of what the process may have.
    pub request_bodies_max: Option<ByteSize>,
    /// How long a drain may take after the stop.
    pub shutdown_grace: Duration,
    /// Between "not ready" and the stop.
    pub shutdown_pause: Duration,
    /// The address listeners bind.
    pub bind_addr: IpAddr,
    /// The directory of local state; not created here.
    pub data_dir: PathBuf,
    /// TLS of the listeners; `None` without.
    pub tls: Option<ListenerTls>,
    /// The file that receives the addresses once the listeners are open.
    pub ready_file: Option<PathBuf>,
}

impl Common {
    /// The declarations, in the order of reading.
    pub const SETTINGS: &'static [Setting] = &SETTINGS;

    /// Reads the shared settings.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let env = reader.get::<Token>(&ENV).0;
        let is_dev = is_dev(&env);
        let mission = reader.get_or::<Token>(&MISSION, &env).0;
        let site = reader.get_or::<Token>(&SITE, &env).0;
        let log_level = reader.get::<Filter>(&LOG_LEVEL).0;
        let format = if std::io::stderr().is_terminal() { "text" } else { "json" };
        let log_format = reader.get_or(&LOG_FORMAT, format);
        let connections_max = reader.get_in(&CONNECTIONS_MAX, 1..=1_000_000);
        let per_address = reader.opt_in(&CONNECTIONS_PER_ADDRESS, 1..=1_000_000);
        Self {
            connections_max,
            connections_per_address: per_address.unwrap_or(connections_max.div_ceil(2)),
            request_bodies_max: reader.opt_in(&REQUEST_BODIES_MAX, ByteSize(1 << 20)..=ByteSize(64 << 30)),
            log_level,
            log_format,
            otlp: Otlp::read(reader),
            traces: !reader.get::<bool>(&OTEL_SDK_DISABLED),
            metrics: reader.get(&METRICS),
            metrics_port: reader.get(&METRICS_PORT),
            shutdown_grace: reader.get_in(&SHUTDOWN_GRACE, ..=Duration::from_secs(3600)),
            shutdown_pause: reader.get_or::<Pause>(&SHUTDOWN_PAUSE, if is_dev { "0s" } else { "3s" }).0,
            bind_addr: reader.get_or(&BIND_ADDR, if is_dev { "127.0.0.1" } else { "0.0.0.0" }),
            data_dir: reader.get(&DATA_DIR),
            tls: read_tls(reader),
            ready_file: reader.opt(&READY_FILE),
            env,
            mission,
            site,
        }
    }

    /// Whether this is the lenient environment of a developer's machine.
    pub fn is_dev(&self) -> bool {
        is_dev(&self.env)
    }

    /// A fault where a port that was read for another listener is the one of /metrics.
    pub fn check_port(&self, reader: &mut Reader<'_>, setting: &Setting, port: u16) {
        if port != 0 && port == self.metrics_port {
            reader.fault(setting.key, format!("is the port of {} too", METRICS_PORT.key));
        }
    }

    /// The address to bind for a port of this process.
    pub fn listen(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.bind_addr, port)
    }
}

fn read_tls(reader: &mut Reader<'_>) -> Option<ListenerTls> {
    let (cert, key) = (reader.opt(&TLS_CERT), reader.opt(&TLS_KEY));
    let client_ca = reader.opt(&TLS_CLIENT_CA);
    match (cert, key) {
        (Some(cert), Some(key)) => return Some(ListenerTls { cert, key, client_ca }),
        (None, None) if client_ca.is_some() => {
            reader.fault(TLS_CLIENT_CA.key, "needs TLS_CERT and TLS_KEY");
        }
        (None, None) => {}
        (Some(_), None) => reader.fault(TLS_CERT.key, "needs TLS_KEY"),
        (None, Some(_)) => reader.fault(TLS_KEY.key, "needs TLS_CERT"),
    }
    None
}

fn is_dev(env: &str) -> bool {
    env == "dev"
}

/// A token of a subject that is also a valid part of a consumer's name.
struct Token(String);

impl Parse for Token {
    fn parse(s: &str) -> Result<Self, String> {
        let bytes = s.as_bytes();
        let fits = (1..=63).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
        if fits { Ok(Self(s.to_owned())) } else { Err("is not a name".to_owned()) }
    }
    fn placeholder() -> Self {
        Self("dev".to_owned())
    }
}

/// A log filter. The log library has the last word on it; this catches what users get wrong.
struct Filter(String);

impl Parse for Filter {
    fn parse(s: &str) -> Result<Self, String> {
        let level = |text: &str| {
            let text = text.trim().to_ascii_lowercase();
            matches!(text.as_str(), "off" | "error" | "warn" | "info" | "debug" | "trace")
        };
        let good = s.split(',').map(str::trim).all(|part| match part.rsplit_once('=') {
            Some((target, name)) => !target.is_empty() && level(name),
            None => level(part),
        });
        if good { Ok(Self(s.to_owned())) } else { Err("is not a log level".to_owned()) }
    }
    fn placeholder() -> Self {
        Self("info".to_owned())
    }
}

struct Pause(Duration);

impl Parse for Pause {
    fn parse(s: &str) -> Result<Self, String> {
        match crate::parse_duration(s)? {
            pause if pause <= Duration::from_secs(300) => Ok(Self(pause)),
            _ => Err("is out of range".to_owned()),
        }
    }
    fn placeholder() -> Self {
        Self(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(pairs: &[(&str, &str)]) -> (Common, Result<crate::Effective, crate::Faults>) {
        let source: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut reader = Reader::new(&source);
        (Common::read(&mut reader), reader.finish())
    }

    #[test]
    fn every_default_parses_and_every_declared_key_is_read() {
        let (common, effective) = read(&[]);
        let effective = effective.unwrap();
        let declared: Vec<_> = Common::SETTINGS.iter().map(|setting| setting.key).collect();
        let mut keys: Vec<_> = effective.keys().collect();
        keys.sort_unstable();
        let mut sorted = declared.clone();
        sorted.sort_unstable();
        assert_eq!(keys, sorted);
        assert!(common.is_dev());
        assert_eq!((common.mission.as_str(), common.site.as_str()), ("dev", "dev"));
        assert_eq!(common.metrics_port, 7777);
        assert_eq!(common.shutdown_grace, Duration::from_secs(25));
        assert_eq!((common.connections_max, common.connections_per_address), (8192, 4096));
        assert_eq!(common.request_bodies_max, None);
        let (common, effective) = read(&[("CONNECTIONS_MAX", "7"), ("REQUEST_BODIES_MAX", "64MiB")]);
        assert!(effective.is_ok());
        assert_eq!((common.connections_per_address, common.request_bodies_max), (4, Some(ByteSize(64 << 20))));
    }

    #[test]
    fn a_forgotten_variable_opens_nothing_and_production_binds_everywhere() {
        assert_eq!(read(&[]).0.bind_addr.to_string(), "127.0.0.1");
        assert_eq!(read(&[]).0.shutdown_pause, Duration::ZERO);
        let (common, _) = read(&[("ENV", "production")]);
        assert_eq!(common.bind_addr.to_string(), "0.0.0.0");
        assert_eq!(common.shutdown_pause, Duration::from_secs(3));
        assert_eq!(common.mission, "production");
        assert!(!common.is_dev());
    }

    #[test]
    fn mission_grammar() {
        for good in ["a", "staging", "north-1", "A9", &"m".repeat(63)] {
            assert_eq!(read(&[("MISSION", good)]).0.mission, good);
        }
        for bad in ["-a", "a.b", "a_b", "a b", "é", ">", "*", &"m".repeat(64)] {
            let faults = read(&[("MISSION", bad)]).1.unwrap_err();
            assert!(faults.names("MISSION"), "{bad}");
        }
    }

    #[test]
    fn tls_is_a_certificate_with_its_key() {
        let (cert, key, ca) = (("TLS_CERT", "/c"), ("TLS_KEY", "/k"), ("TLS_CLIENT_CA", "/a"));
        assert_eq!(read(&[]).0.tls, None);
        let tls = read(&[cert, key, ca]).0.tls.unwrap();
        assert_eq!((tls.cert, tls.key, tls.client_ca), ("/c".into(), "/k".into(), Some("/a".into())));
        for (half, named) in [(cert, "TLS_KEY"), (key, "TLS_CERT"), (ca, "TLS_CERT")] {
            let faults = read(&[half]).1.unwrap_err();
            assert!(faults.names(half.0) && faults.to_string().contains(named), "{faults}");
        }
    }

    #[test]
    fn faults_name_their_own_key() {
        let cases = [
            ("LOG_LEVEL", "loud"),
            ("LOG_FORMAT", "xml"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://x"),
            ("OTEL_SDK_DISABLED", "perhaps"),
            ("METRICS", "some"),
            ("METRICS_PORT", "70000"),
            ("SHUTDOWN_GRACE", "2h"),
            ("SHUTDOWN_PAUSE", "1h"),
            ("BIND_ADDR", "localhost"),
        ];
        let faults = read(&cases).1.unwrap_err();
        let keys: Vec<_> = faults.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, cases.map(|(key, _)| key));
        for level in ["debug", "INFO", "info,async_nats=warn", "warn,agentforge_worker::tools=trace"] {
            assert!(read(&[("LOG_LEVEL", level)]).1.is_ok(), "{level}");
        }
    }
}
