//! How NATS is reached: the settings, read into values that can be used without further checks.
//!
//! Secrets and URLs with credentials never show in `Debug`. No file is read here.

use agentforge_config::{CommaList, ExposeSecret, Reader, Secret, Setting, without_credentials};
use async_nats::ServerAddr;
use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

/// Where the servers are.
pub const NATS_URL: Setting = Setting::new(
    "NATS_URL",
    Some("nats://localhost:4222"),
    "comma-separated URLs; schemes nats and tls",
    "The NATS servers of one cluster.",
);
/// A credentials file.
pub const NATS_CREDS: Setting =
    Setting::new("NATS_CREDS", None, "path", "A .creds file (JWT and seed). Excludes NATS_NKEY and NATS_USER.");
/// An NKey seed or the file that holds it.
pub const NATS_NKEY: Setting = Setting::new(
    "NATS_NKEY",
    None,
    "seed (SU…) or path of a file with it",
    "The NKey to log in with. A file is read again at each connect, so that the key can change without a restart.",
)
.secret();
/// A user name.
pub const NATS_USER: Setting = Setting::new("NATS_USER", None, "text", "User name; needs NATS_PASSWORD.");
/// The password that belongs to [`NATS_USER`]; a secret.
pub const NATS_PASSWORD: Setting = Setting::new("NATS_PASSWORD", None, "text", "Password of NATS_USER.").secret();
/// Where replies go.
pub const NATS_INBOX_PREFIX: Setting = Setting::new(
    "NATS_INBOX_PREFIX",
    None,
    "subject without wildcards, such as _INBOX.worker",
    "Below which subject replies arrive, where the server lets this client listen to no other.",
)
.default_note("_INBOX. and NATS_USER, or _INBOX");
/// Who signs the server's certificate.
pub const NATS_TLS_CA: Setting =
    Setting::new("NATS_TLS_CA", None, "path of a PEM file", "Trusted certificate authorities; makes TLS required.");
/// The client's certificate.
pub const NATS_TLS_CERT: Setting =
    Setting::new("NATS_TLS_CERT", None, "path of a PEM file", "Client certificate; needs NATS_TLS_KEY.");
/// The client's key.
pub const NATS_TLS_KEY: Setting =
    Setting::new("NATS_TLS_KEY", None, "path of a PEM file", "Key of the client certificate.");
/// The longest pause between two tries to connect.
pub const NATS_MAX_RECONNECT_WAIT: Setting = Setting::new(
    "NATS_MAX_RECONNECT_WAIT",
    Some("15s"),
    "duration 100ms-10m",
    "Longest wait between reconnects; the backoff is exponential with full jitter and never gives up.",
);

const SETTINGS: [Setting; 10] = [
    NATS_URL,
    NATS_CREDS,
    NATS_NKEY,
    NATS_USER,
    NATS_PASSWORD,
    NATS_INBOX_PREFIX,
    NATS_TLS_CA,
    NATS_TLS_CERT,
    NATS_TLS_KEY,
    NATS_MAX_RECONNECT_WAIT,
];

/// How a client logs in.
#[derive(Clone)]
pub enum Auth {
    /// Not at all, or as the URL says.
    None,
    /// With a `.creds` file, read when connecting.
    Creds(PathBuf),
    /// With an NKey seed, or a file that holds one.
    NKey(Secret),
    /// With user name and password.
    UserPassword(String, Secret),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Creds(_) => "Creds",
            Self::NKey(_) => "NKey",
            Self::UserPassword(..) => "UserPassword",
        })
    }
}

/// Files for TLS. The client reads them at each connect, so renewed ones are taken up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Trusted authorities; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Client certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// Whose certificates of servers are trusted, in words.
    pub(crate) fn authorities(&self) -> String {
        match &self.ca {
            Some(ca) => format!("an authority in {}", ca.display()),
            None => "an authority of the system".to_owned(),
        }
    }
}

/// Where NATS is and how to log in.
#[derive(Clone)]
pub struct NatsConfig {
    /// At least one server.
    pub servers: Vec<ServerAddr>,
    /// How to log in.
    pub auth: Auth,
    /// Below which subject replies arrive, when it is set.
    pub inbox_prefix: Option<String>,
    /// The files for TLS towards the servers; all absent when it is not configured.
    pub tls: Tls,
    /// Cap of the reconnect backoff.
    pub max_reconnect_wait: Duration,
}

impl fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self.servers.iter().map(|s| without_credentials(s.as_url_str())).collect();
        f.debug_struct("NatsConfig")
            .field("servers", &servers)
            .field("auth", &self.auth)
            .field("tls", &self.tls)
            .field("max_reconnect_wait", &self.max_reconnect_wait)
            .finish()
    }
}

impl NatsConfig {
    /// The declarations, in the order of reading.
    pub const SETTINGS: &'static [Setting] = &SETTINGS;

    /// Reads the settings; faults are the reader's.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let urls = reader.get::<CommaList>(&NATS_URL).into_inner();
        let servers = urls.iter().filter_map(|url| server(url, reader)).collect();
        Self {
            servers,
            auth: read_auth(reader),
            inbox_prefix: read_inbox_prefix(reader),
            tls: read_tls(reader),
            max_reconnect_wait: reader
                .get_in(&NATS_MAX_RECONNECT_WAIT, Duration::from_millis(100)..=Duration::from_secs(600)),
        }
    }

    /// For tests and tools: one server, no login, a short backoff.
    ///
    /// # Errors
    /// When `url` is not a NATS URL.
    pub fn for_url(url: &str) -> Result<Self, std::io::Error> {
        Ok(Self {
            servers: url.split(',').map(ServerAddr::from_str).collect::<Result<_, _>>()?,
            auth: Auth::None,
            inbox_prefix: None,
            tls: Tls::default(),
            max_reconnect_wait: Duration::from_millis(500),
        })
    }
}

fn server(url: &str, reader: &mut Reader<'_>) -> Option<ServerAddr> {
    match ServerAddr::from_str(url) {
        Ok(server) if matches!(server.scheme(), "nats" | "tls") => Some(server),
        Ok(server) => {
            reader.fault(NATS_URL.key, format!("scheme {} is not known (allowed: nats, tls)", server.scheme()));
            None
        }
        Err(_) => {
            reader.fault(NATS_URL.key, format!("{:?} is not a URL such as nats://host:4222", without_credentials(url)));
            None
        }
    }
}

fn read_auth(reader: &mut Reader<'_>) -> Auth {
    let creds: Option<PathBuf> = reader.opt(&NATS_CREDS);
    let nkey: Option<Secret> = reader.opt(&NATS_NKEY);
    let user: Option<String> = reader.opt(&NATS_USER);
    let password: Option<Secret> = reader.opt(&NATS_PASSWORD);
    match (user.is_some(), password.is_some()) {
        (true, false) => reader.fault(NATS_USER.key, "needs NATS_PASSWORD"),
        (false, true) => reader.fault(NATS_PASSWORD.key, "needs NATS_USER"),
        _ => {}
    }
    let ways = [(NATS_CREDS, creds.is_some()), (NATS_NKEY, nkey.is_some()), (NATS_USER, user.is_some())];
    let given: Vec<_> = ways.iter().filter(|(_, is_given)| *is_given).map(|(setting, _)| setting.key).collect();
    for key in given.iter().filter(|_| given.len() > 1) {
        reader.fault(key, "only one of NATS_CREDS, NATS_NKEY and NATS_USER may be set");
    }
    if nkey.as_ref().is_some_and(|seed| seed.expose_secret().is_empty()) {
        reader.fault(NATS_NKEY.key, "is empty");
    }
    match (creds, nkey, user, password) {
        (Some(path), ..) => Auth::Creds(path),
        (None, Some(seed), ..) => Auth::NKey(seed),
        (None, None, Some(user), Some(password)) => Auth::UserPassword(user, password),
        _ => Auth::None,
    }
}

fn read_inbox_prefix(reader: &mut Reader<'_>) -> Option<String> {
    let is_token = |t: &str| !t.is_empty() && !t.contains(['*', '>', ' ', '\t']);
    reader.opt_if(&NATS_INBOX_PREFIX, |prefix: &String| {
        if prefix.split('.').all(is_token) { Ok(()) } else { Err("is not a subject without wildcards".to_owned()) }
    })
}

fn read_tls(reader: &mut Reader<'_>) -> Tls {
    let ca = reader.opt(&NATS_TLS_CA);
    let client = match (reader.opt(&NATS_TLS_CERT), reader.opt(&NATS_TLS_KEY)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            reader.fault(NATS_TLS_CERT.key, "needs NATS_TLS_KEY");
            None
        }
        (None, Some(_)) => {
            reader.fault(NATS_TLS_KEY.key, "needs NATS_TLS_CERT");
            None
        }
    };
    Tls { ca, client }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(pairs: &[(&str, &str)]) -> Result<NatsConfig, String> {
        let source: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let mut reader = Reader::new(&source);
        let config = NatsConfig::read(&mut reader);
        reader.finish().map(|_| config).map_err(|f| f.to_string())
    }

    #[test]
    fn defaults_and_lists_of_servers_are_read() {
        let config = read(&[]).unwrap();
        assert_eq!(config.servers[0].as_url_str(), "nats://localhost:4222");
        assert_eq!(config.max_reconnect_wait, Duration::from_secs(15));
        let config = read(&[("NATS_URL", "nats://a:1, tls://b:2"), ("NATS_MAX_RECONNECT_WAIT", "20")]).unwrap();
        assert_eq!(config.servers.len(), 2);
        assert_eq!(config.max_reconnect_wait, Duration::from_secs(20));
    }

    #[test]
    fn wrong_settings_are_named_and_no_secret_is_told() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("NATS_URL", "http://u:hunter2@h")], "NATS_URL"),
            (&[("NATS_URL", "nats://u:hunter2@h:port")], "NATS_URL"),
            (&[("NATS_USER", "u")], "NATS_PASSWORD"),
            (&[("NATS_PASSWORD", "hunter2")], "NATS_USER"),
            (&[("NATS_CREDS", "/x"), ("NATS_USER", "u"), ("NATS_PASSWORD", "hunter2")], "only one of"),
            (&[("NATS_NKEY", "SUx"), ("NATS_USER", "u")], "NATS_NKEY: only one of"),
            (&[("NATS_NKEY", "SUx"), ("NATS_USER", "u")], "NATS_USER: needs NATS_PASSWORD"),
            (&[("NATS_TLS_CERT", "/x")], "NATS_TLS_KEY"),
            (&[("NATS_INBOX_PREFIX", "_INBOX.>")], "NATS_INBOX_PREFIX"),
            (&[("NATS_TLS_KEY", "/x")], "NATS_TLS_CERT"),
            (&[("NATS_MAX_RECONNECT_WAIT", "0s")], "NATS_MAX_RECONNECT_WAIT"),
        ];
        for (pairs, expected) in cases {
            let fault = read(pairs).unwrap_err();
            assert!(fault.contains(expected) && !fault.contains("hunter2"), "{fault}");
        }
    }

    #[test]
    fn debug_shows_no_credentials() {
        let config = read(&[("NATS_URL", "nats://u:hunter2@h:4222")]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let config = read(&[("NATS_USER", "u"), ("NATS_PASSWORD", "hunter2")]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
