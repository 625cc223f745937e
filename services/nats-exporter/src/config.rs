//! The exporter's configuration: every setting, parsed and checked, all faults at once.

use crate::{
    auth::BasicAuth,
    endpoint::{Endpoint, Namespace},
    filter::{Filter, Rule, expression},
    jsz::{Level, MetaKey, Plan},
    table::{as_name, is_name},
    target::{self, Target},
};
use agentforge_config::{ByteSize, CommaList, Common, Reader, Secret, Setting, nearest};
use agentforge_runtime::http::{ClientCertificates, HTTP_PROTOCOLS, ServerTls, TlsSettings};
use regex::Regex;
use std::{collections::BTreeSet, path::PathBuf, time::Duration};

macro_rules! settings {
    ($($name:ident = $key:literal, $default:expr, $values:literal, $help:literal $(, $method:ident($($note:literal)?))?;)*) => {
        $(pub(crate) const $name: Setting = Setting::new($key, $default, $values, $help)$(.$method($($note)?))?;)*
        /// What is read here, in the order of `--help`.
        pub(crate) const SETTINGS: &[Setting] = &[$($name),*];
    };
}

settings! {
    TARGETS = "NATS_EXPORTER_TARGETS", Some("http://localhost:8222"), "comma-separated URLs; each may have an id before it: n1,http://host:8222",
        "Monitoring endpoints of the NATS servers. Without an id the server_id is scheme://host:port.";
    PATH = "NATS_EXPORTER_PATH", Some("/metrics"), "path", "Where the page is served, on METRICS_PORT.";
    ENDPOINTS = "NATS_EXPORTER_ENDPOINTS", None,
        "list of varz, connz, connz_detailed, routez, subsz, healthz, healthz_js_enabled_only, healthz_js_server_only, accstatz, accountz, gatewayz, leafz, jsz",
        "The endpoints that the servers are asked for.", default_note("varz,jsz");
    JSZ = "NATS_EXPORTER_JSZ", None, "list of accounts, streams, consumers, all",
        "The levels of JetStream to read. Setting it adds jsz to the endpoints.", default_note("all if jsz is asked for");
    STREAM_META_KEYS = "NATS_EXPORTER_STREAM_META_KEYS", None, "list of keys, at most 32",
        "Metadata of streams that become labels stream_meta_<key> of the stock family.";
    CONSUMER_META_KEYS = "NATS_EXPORTER_CONSUMER_META_KEYS", None, "list of keys, at most 32",
        "Metadata of consumers that become labels consumer_meta_<key> of the stock family.";
    PREFIX = "NATS_EXPORTER_PREFIX", None, "letters, digits, _ and :",
        "Replaces gnatsd and jetstream at the start of the stock family's names.";
    SERVER_ID = "NATS_EXPORTER_SERVER_ID", Some("configured"), "configured, internal_id or internal_name",
        "Where the stock family's server_id comes from: NATS_EXPORTER_TARGETS, or server_id or server_name of varz at each scrape.";
    STOCK_JETSTREAM = "NATS_EXPORTER_STOCK_JETSTREAM", Some("true"), "true or false",
        "Whether jetstream_* is exported, with every replica's row.";
    COMPACT = "NATS_EXPORTER_COMPACT", Some("true"), "true or false",
        "Whether nats_jetstream_* is exported, with only the leader's rows.";
    SELF_METRICS = "NATS_EXPORTER_SELF_METRICS", Some("true"), "true or false",
        "Whether each page has nats_exporter_target_up, and the duration and success of each endpoint.";
    EPHEMERAL = "NATS_EXPORTER_EPHEMERAL", Some("false"), "true or false",
        "Whether the compact family has consumers that are not durable.";
    CONNECTION_NAMES = "NATS_EXPORTER_CONNECTION_NAMES", Some("false"), "true or false",
        "Whether connz_detailed has the names of connections and of their users.";
    TYPED_COUNTERS = "NATS_EXPORTER_TYPED_COUNTERS", Some("false"), "true or false",
        "Whether counters of varz are also exported as nats_varz_<name>_total, with the type counter.";
    ACCOUNT_INCLUDE = "NATS_EXPORTER_ACCOUNT_INCLUDE", None, "regular expression of the whole name", "Accounts that become series.";
    ACCOUNT_EXCLUDE = "NATS_EXPORTER_ACCOUNT_EXCLUDE", None, "regular expression of the whole name", "Accounts that do not.";
    STREAM_INCLUDE = "NATS_EXPORTER_STREAM_INCLUDE", None, "regular expression of the whole name", "Streams that become series.";
    STREAM_EXCLUDE = "NATS_EXPORTER_STREAM_EXCLUDE", None, "regular expression of the whole name", "Streams that do not.";
    CONSUMER_INCLUDE = "NATS_EXPORTER_CONSUMER_INCLUDE", None, "regular expression of the whole name", "Consumers that become series.";
    CONSUMER_EXCLUDE = "NATS_EXPORTER_CONSUMER_EXCLUDE", None, "regular expression of the whole name", "Consumers that do not.";
    SERIES_MAX = "NATS_EXPORTER_SERIES_MAX", Some("500000"), "number 1-10000000",
        "Maximum number of series on a page; further ones are left out and counted.";
    TIMEOUT = "NATS_EXPORTER_TIMEOUT", Some("9s"), "duration 100ms-10m",
        "How long a server may take to answer, or less if the scrape announces a shorter timeout.";
    RESPONSE_MAX = "NATS_EXPORTER_RESPONSE_MAX", Some("128MiB"), "size 64KiB-4GiB",
        "Longest answer of jsz, which is read as it arrives. Other endpoints are limited to at most 16 MiB.";
    GZIP = "NATS_EXPORTER_GZIP", Some("true"), "true or false", "Whether pages are compressed for clients that accept it.";
    TLS_CERT = "NATS_EXPORTER_TLS_CERT", None, "path of a PEM file", "Certificate of the page's port; makes it HTTPS.";
    TLS_KEY = "NATS_EXPORTER_TLS_KEY", None, "path of a PEM file", "Key of the certificate.";
    TLS_CLIENT_CA = "NATS_EXPORTER_TLS_CLIENT_CA", None, "path of a PEM file",
        "Authorities that client certificates must be signed by.";
    HTTP_USER = "NATS_EXPORTER_HTTP_USER", None, "text without :", "User name for reading the page; needs a password.";
    HTTP_PASSWORD = "NATS_EXPORTER_HTTP_PASSWORD", None, "text of 16 characters or more, or a bcrypt hash that starts with $2", "Its password.", secret();
    NATS_TLS_CA = "NATS_EXPORTER_NATS_TLS_CA", None, "path of a PEM file", "Authorities that sign the servers' certificates.";
    NATS_TLS_CERT = "NATS_EXPORTER_NATS_TLS_CERT", None, "path of a PEM file", "Client certificate for connections to the servers.";
    NATS_TLS_KEY = "NATS_EXPORTER_NATS_TLS_KEY", None, "path of a PEM file", "Key of that certificate.";
}

/// Labels cost on every series.
const META_KEYS_MAX: usize = 32;
/// Names that other families of the page begin with.
const TAKEN: [&str; 4] = ["nats_exporter", "process", "promhttp", "agentforge"];

/// Where a server's label comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerId {
    /// The target's id.
    Configured,
    /// `server_id` of varz.
    InternalId,
    /// `server_name` of varz.
    InternalName,
}

/// TLS towards the servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NatsTls {
    /// Who signs servers' certificates; `None`: those whom the system trusts.
    pub ca: Option<PathBuf>,
    /// Client certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// The exporter's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The settings of every service.
    pub common: Common,
    /// The servers, at least one.
    pub targets: Vec<Target>,
    /// Where the page is.
    pub path: String,
    /// What is asked; each once.
    pub endpoints: BTreeSet<Endpoint>,
    /// What is made of jsz.
    pub jsz: Plan,
    /// Names of the stock family.
    pub names: Namespace,
    /// Where server_id comes from.
    pub server_id: ServerId,
    /// Whether scrapes have series about themselves.
    pub self_metrics: bool,
    /// Whether connections have their names.
    pub connection_names: bool,
    /// Whether counters of varz appear twice.
    pub typed_counters: bool,
    /// What becomes series.
    pub filter: Filter,
    /// Series of a page.
    pub series_max: u64,
    /// What a server may take.
    pub timeout: Duration,
    /// Longest answer, bytes.
    pub response_max: u64,
    /// Whether pages may be compressed.
    pub gzip: bool,
    /// TLS of the page's port.
    pub tls: Option<ServerTls>,
    /// Who may read the page.
    pub auth: Option<BasicAuth>,
    /// TLS towards the servers.
    pub nats_tls: NatsTls,
}

impl Config {
    /// Reads the settings; faults are the reader's.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let common = Common::read(reader);
        let of_process = || ServerTls::of(&common, HTTP_PROTOCOLS).map(ServerTls::without_client_certificates);
        let tls = listen_tls(reader).or_else(of_process);
        let targets = target::parse_list(&reader.get::<CommaList>(&TARGETS)).unwrap_or_else(|problem| {
            reader.fault(TARGETS.key, problem);
            Vec::new()
        });
        let (endpoints, level) = selection(reader);
        let names = Namespace { prefix: prefix(reader) };
        let (stock, is_compact) = (reader.get(&STOCK_JETSTREAM), reader.get(&COMPACT));
        if let Some(prefix) = &names.prefix {
            check_prefix(prefix, stock && is_compact, reader);
        }
        let series_max = reader.get_in(&SERIES_MAX, 1..=10_000_000);
        let jsz = Plan {
            level,
            stock: stock.then(|| names.clone()),
            is_compact,
            has_ephemeral: reader.get(&EPHEMERAL),
            stream_meta: meta_keys(reader, &STREAM_META_KEYS, "stream_meta_"),
            consumer_meta: meta_keys(reader, &CONSUMER_META_KEYS, "consumer_meta_"),
            rows_max: usize::try_from(series_max).unwrap_or(usize::MAX),
        };
        Self {
            common,
            targets,
            path: path(reader),
            endpoints,
            jsz,
            names,
            server_id: server_id(reader),
            self_metrics: reader.get(&SELF_METRICS),
            connection_names: reader.get(&CONNECTION_NAMES),
            typed_counters: reader.get(&TYPED_COUNTERS),
            filter: Filter {
                account: rule(reader, &ACCOUNT_INCLUDE, &ACCOUNT_EXCLUDE),
                stream: rule(reader, &STREAM_INCLUDE, &STREAM_EXCLUDE),
                consumer: rule(reader, &CONSUMER_INCLUDE, &CONSUMER_EXCLUDE),
            },
            series_max,
            timeout: reader.get_in(&TIMEOUT, Duration::from_millis(100)..=Duration::from_secs(600)),
            response_max: reader.get_in(&RESPONSE_MAX, ByteSize(64 << 10)..=ByteSize(4 << 30)).bytes(),
            gzip: reader.get(&GZIP),
            tls,
            auth: auth(reader),
            nats_tls: NatsTls { ca: reader.opt(&NATS_TLS_CA), client: pair(reader, &NATS_TLS_CERT, &NATS_TLS_KEY) },
        }
    }
}

/// What is asked, and how deep. Nothing said: varz and all of jsz. Only a level said: varz and jsz.
fn selection(reader: &mut Reader<'_>) -> (BTreeSet<Endpoint>, Level) {
    let words: Option<CommaList> = reader.opt(&ENDPOINTS);
    let levels: Option<CommaList> = reader.opt(&JSZ);
    let mut level = None;
    for word in levels.iter().flat_map(|list| list.iter()) {
        let known = match word.to_ascii_lowercase().as_str() {
            "account" | "accounts" => Level::Accounts,
            "stream" | "streams" => Level::Streams,
            "consumer" | "consumers" | "all" => Level::Consumers,
            _ => {
                reader.fault(JSZ.key, format!("{word:?} is none of accounts, streams, consumers, all"));
                continue;
            }
        };
        level = level.max(Some(known));
    }
    let mut endpoints = BTreeSet::new();
    match &words {
        None => endpoints.extend([Endpoint::Varz, Endpoint::Jsz]),
        Some(words) => {
            for word in words.iter() {
                match Endpoint::by_name(&word.to_ascii_lowercase()) {
                    Some(endpoint) => {
                        endpoints.insert(endpoint);
                    }
                    None => {
                        let names = Endpoint::ALL.map(Endpoint::as_str);
                        let hint =
                            nearest(word, names, (word.len() / 3).max(1)).map(|n| format!("; did you mean {n}?"));
                        reader.fault(ENDPOINTS.key, format!("{word:?} is not an endpoint{}", hint.unwrap_or_default()));
                    }
                }
            }
        }
    }
    if level.is_some() {
        endpoints.insert(Endpoint::Jsz);
    }
    if endpoints.contains(&Endpoint::ConnzDetailed) {
        // It has all of connz, under the same names.
        endpoints.remove(&Endpoint::Connz);
    }
    (endpoints, level.unwrap_or(Level::Consumers))
}

fn prefix(reader: &mut Reader<'_>) -> Option<String> {
    reader.opt_if(
        &PREFIX,
        |prefix: &String| {
            if is_name(prefix, true) { Ok(()) } else { Err("cannot begin a metric's name".to_owned()) }
        },
    )
}

/// Two families must not have one name with different labels.
fn check_prefix(prefix: &str, both: bool, reader: &mut Reader<'_>) {
    if TAKEN.contains(&prefix) {
        reader.fault(PREFIX.key, format!("{prefix} is the beginning of other families' names on this page"));
    }
    if prefix == "nats_jetstream" && both {
        let problem = "nats_jetstream is the compact family's; turn NATS_EXPORTER_COMPACT or NATS_EXPORTER_STOCK_JETSTREAM off to use it";
        reader.fault(PREFIX.key, problem);
    }
}

fn path(reader: &mut Reader<'_>) -> String {
    let text: String = reader.get(&PATH);
    let path = if text.starts_with('/') { text } else { format!("/{text}") };
    let is_plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.~".contains(&b));
    if !is_plain || ["/healthz", "/readyz"].contains(&path.as_str()) {
        reader.fault(PATH.key, format!("{path:?} cannot be the page's path"));
        return "/metrics".to_owned();
    }
    path
}

fn server_id(reader: &mut Reader<'_>) -> ServerId {
    let text: String = reader.get(&SERVER_ID);
    match text.as_str() {
        "configured" => ServerId::Configured,
        "internal_id" => ServerId::InternalId,
        "internal_name" => ServerId::InternalName,
        _ => {
            reader.fault(SERVER_ID.key, format!("{text:?} is none of configured, internal_id, internal_name"));
            ServerId::Configured
        }
    }
}

fn meta_keys(reader: &mut Reader<'_>, setting: &Setting, prefix: &str) -> Vec<MetaKey> {
    let list: CommaList = reader.opt(setting).unwrap_or_default();
    let mut keys: Vec<MetaKey> = Vec::new();
    for key in list.into_inner() {
        let label = format!("{prefix}{}", as_name(&key));
        match keys.iter().find(|known| known.label == label) {
            Some(known) if known.key == key => {}
            Some(known) => reader.fault(setting.key, format!("{key:?} and {:?} make one label {label}", known.key)),
            None => keys.push(MetaKey { key, label }),
        }
    }
    if keys.len() > META_KEYS_MAX {
        reader.fault(setting.key, format!("names more than {META_KEYS_MAX} keys"));
    }
    keys
}

fn rule(reader: &mut Reader<'_>, include: &Setting, exclude: &Setting) -> Rule {
    let mut read = |setting: &Setting| -> Option<Regex> {
        let text: String = reader.opt(setting)?;
        expression(&text).map_err(|problem| reader.fault(setting.key, format!("{text:?} {problem}"))).ok()
    };
    Rule { include: read(include), exclude: read(exclude) }
}

fn pair(reader: &mut Reader<'_>, cert: &Setting, key: &Setting) -> Option<(PathBuf, PathBuf)> {
    match (reader.opt(cert), reader.opt(key)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            reader.fault(cert.key, format!("needs {}", key.key));
            None
        }
        (None, Some(_)) => {
            reader.fault(key.key, format!("needs {}", cert.key));
            None
        }
    }
}

/// With authorities, a client without a certificate of theirs gets no connection.
fn listen_tls(reader: &mut Reader<'_>) -> Option<ServerTls> {
    let settings = TlsSettings { cert: &TLS_CERT, key: &TLS_KEY, client_ca: &TLS_CLIENT_CA };
    ServerTls::read(reader, settings, ClientCertificates::Required, HTTP_PROTOCOLS)
}

fn auth(reader: &mut Reader<'_>) -> Option<BasicAuth> {
    let user: Option<String> = reader.opt(&HTTP_USER);
    let password: Option<Secret> = reader.opt(&HTTP_PASSWORD);
    match (user, password) {
        (None, None) => None,
        (Some(user), Some(password)) => BasicAuth::new(&user, &password)
            .map_err(|problem| reader.fault(HTTP_PASSWORD.key, problem.to_string()))
            .ok(),
        (Some(_), None) => {
            reader.fault(HTTP_USER.key, format!("needs {}", HTTP_PASSWORD.key));
            None
        }
        (None, Some(_)) => {
            reader.fault(HTTP_PASSWORD.key, format!("needs {}", HTTP_USER.key));
            None
        }
    }
}
