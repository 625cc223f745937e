//! Every setting of the console, parsed and checked, all faults at once.

use crate::accounts::OidcConfig;
use crate::intake::settings::IntakeConfig;
use crate::latency::settings::LatencyConfig;
use crate::settings::{
    ALERTMANAGER_URL, BROADCASTER_URL, CONSOLE_ACCESS_TTL, CONSOLE_API_RATE, CONSOLE_DEV_LINK, CONSOLE_LOCKOUT_AFTER,
    CONSOLE_OIDC_CLIENT, CONSOLE_OIDC_ISSUER, CONSOLE_OIDC_NAME, CONSOLE_OIDC_RESOURCE, CONSOLE_OIDC_SCOPE,
    CONSOLE_OIDC_SECRET, CONSOLE_PUBLIC_URL, CONSOLE_RATE, CONSOLE_SESSION_TTL, CONSOLE_SIGNING_KEY, DATABASE_URL,
    DB_POOL, GRAFANA_URL, HTTP_PORT, NATS_EXPORTER_URL, ORCHESTRATOR_URL, PROMETHEUS_URL, SYNCDAEMON_URL, TACTICAL_URL,
};
use agentforge_access::Tokens;
use agentforge_config::{Common, ExposeSecret, Reader, Secret, Setting};
use agentforge_door::{Door, DoorConfig};
use agentforge_jetstream::NatsConfig;
use std::{num::NonZeroU32, time::Duration};
use url::Url;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The services behind the console, where they are configured.
#[derive(Debug, Clone, Default)]
pub struct Upstreams {
    /// ORCHESTRATOR_URL.
    pub orchestrator: Option<Url>,
    /// BROADCASTER_URL.
    pub broadcaster: Option<Url>,
    /// TACTICAL_URL.
    pub tactical: Option<Url>,
    /// NATS_EXPORTER_URL.
    pub exporter: Option<Url>,
    /// SYNCDAEMON_URL.
    pub syncdaemon: Option<Url>,
    /// PROMETHEUS_URL.
    pub prometheus: Option<Url>,
    /// ALERTMANAGER_URL.
    pub alertmanager: Option<Url>,
}

impl Upstreams {
    fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            orchestrator: url(reader, &ORCHESTRATOR_URL),
            broadcaster: url(reader, &BROADCASTER_URL),
            tactical: url(reader, &TACTICAL_URL),
            exporter: url(reader, &NATS_EXPORTER_URL),
            syncdaemon: url(reader, &SYNCDAEMON_URL),
            prometheus: url(reader, &PROMETHEUS_URL),
            alertmanager: url(reader, &ALERTMANAGER_URL),
        }
    }

    /// Those that are configured, with the names of samples.
    fn named<'a>(&'a self, grafana: Option<&'a Url>) -> impl Iterator<Item = (&'static str, &'a Url)> {
        let all = [
            ("orchestrator", self.orchestrator.as_ref()),
            ("broadcaster", self.broadcaster.as_ref()),
            ("tactical-api", self.tactical.as_ref()),
            ("nats-exporter", self.exporter.as_ref()),
            ("syncdaemon", self.syncdaemon.as_ref()),
            ("prometheus", self.prometheus.as_ref()),
            ("alertmanager", self.alertmanager.as_ref()),
            ("grafana", grafana),
        ];
        all.into_iter().filter_map(|(name, url)| Some((name, url?)))
    }
}

/// The console's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The settings of every service.
    pub common: Common,
    /// Where NATS is.
    pub nats: NatsConfig,
    /// Port of the pages.
    pub http_port: u16,
    /// Where users and sessions are, with credentials: never logged.
    pub database_url: Secret,
    /// Most connections to Postgres.
    pub db_pool: NonZeroU32,
    /// PEM of the key that signs; `None` makes one in the data directory.
    pub signing_key: Option<Secret>,
    /// Bearer tokens, and whose headers are believed.
    pub door: Door,
    /// Where people reach the console.
    pub public_url: Option<Url>,
    /// Of an access token.
    pub access_ttl: Duration,
    /// Of a session.
    pub session_ttl: Duration,
    /// Logins and renewals of one address or user per second.
    pub rate: u32,
    /// Requests of one user per second.
    pub api_rate: u32,
    /// Failed logins before the first pause.
    pub lockout_after: u32,
    /// What may be framed.
    pub grafana: Option<Url>,
    /// The sampler.
    pub(crate) latency: LatencyConfig,
    /// The intake board.
    pub(crate) intake: IntakeConfig,
    /// The services behind it.
    pub upstreams: Upstreams,
    /// The OpenID provider of logins.
    pub oidc: Option<OidcConfig>,
    /// The token of the first login on a developer's machine.
    pub dev_link: Option<Secret>,
}

impl Config {
    /// Reads the settings; faults stay in the reader.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let common = Common::read(reader);
        let http_port = reader.get(&HTTP_PORT);
        common.check_port(reader, &HTTP_PORT, http_port);
        let signing_key = reader.opt::<Secret>(&CONSOLE_SIGNING_KEY);
        match &signing_key {
            Some(key) => {
                if let Err(problem) = crate::accounts::check_key(key) {
                    reader.fault(CONSOLE_SIGNING_KEY.key, problem);
                }
            }
            None if common.is_dev() => {}
            None => reader.fault(
                CONSOLE_SIGNING_KEY.key,
                "is required unless ENV is dev: sessions are signed; `agentforge keys new` makes one",
            ),
        }
        // A session is always a way in, so the door may have none.
        let door = DoorConfig::read_closed(reader, &common, Tokens::default(), "the console");
        let upstreams = Upstreams::read(reader);
        let grafana = url(reader, &GRAFANA_URL);
        let latency = LatencyConfig::read(reader, upstreams.named(grafana.as_ref()), &common.data_dir);
        Self {
            nats: NatsConfig::read(reader),
            http_port,
            database_url: reader.get(&DATABASE_URL),
            db_pool: NonZeroU32::new(reader.get_in(&DB_POOL, 1..=200)).unwrap_or(NonZeroU32::MIN),
            signing_key,
            door: Door::new(door),
            public_url: url(reader, &CONSOLE_PUBLIC_URL),
            access_ttl: reader.get_in(&CONSOLE_ACCESS_TTL, Duration::from_secs(10)..=Duration::from_secs(3600)),
            session_ttl: reader.get_in(&CONSOLE_SESSION_TTL, Duration::from_secs(60)..=30 * DAY),
            rate: reader.get_in(&CONSOLE_RATE, ..=1_000_000),
            api_rate: reader.get_in(&CONSOLE_API_RATE, ..=1_000_000),
            lockout_after: reader.get_in(&CONSOLE_LOCKOUT_AFTER, ..=1_000),
            grafana,
            latency,
            intake: IntakeConfig::read(reader),
            upstreams,
            oidc: oidc(reader),
            dev_link: dev_link(reader, &common),
            common,
        }
    }

    /// Whether browsers reach the console by TLS, its own or a proxy's.
    pub fn is_tls(&self) -> bool {
        self.common.tls.is_some() || self.public_url.as_ref().is_some_and(|url| url.scheme() == "https")
    }

    /// Whether cookies go over TLS only: everywhere but on a developer's machine.
    pub fn is_secure(&self) -> bool {
        self.is_tls() || !(self.common.is_dev() && self.common.bind_addr.is_loopback())
    }
}

fn oidc(reader: &mut Reader<'_>) -> Option<OidcConfig> {
    let client: Option<String> = reader.opt(&CONSOLE_OIDC_CLIENT);
    let config = OidcConfig {
        issuer: url(reader, &CONSOLE_OIDC_ISSUER).map(String::from).unwrap_or_default(),
        client: client.unwrap_or_default(),
        secret: reader.opt(&CONSOLE_OIDC_SECRET),
        scope: reader.get(&CONSOLE_OIDC_SCOPE),
        resource: reader.opt(&CONSOLE_OIDC_RESOURCE),
        name: reader.get(&CONSOLE_OIDC_NAME),
    };
    if !reader.is_set(&CONSOLE_OIDC_ISSUER) {
        return None;
    }
    if config.client.is_empty() {
        reader.fault(CONSOLE_OIDC_CLIENT.key, format!("is required with {}", CONSOLE_OIDC_ISSUER.key));
    }
    // As it is written: the provider's own documents have it to the letter.
    let issuer = reader.opt::<String>(&CONSOLE_OIDC_ISSUER).unwrap_or_default();
    Some(OidcConfig { issuer, ..config })
}

/// Everybody who knows it is admin: not where others can come.
fn dev_link(reader: &mut Reader<'_>, common: &Common) -> Option<Secret> {
    let link = reader.opt::<Secret>(&CONSOLE_DEV_LINK)?;
    if !(common.is_dev() && common.bind_addr.is_loopback()) {
        reader.fault(
            CONSOLE_DEV_LINK.key,
            "is only for ENV=dev on a loopback BIND_ADDR; `agentforge user link` makes links",
        );
    }
    if !(32..=512).contains(&link.expose_secret().len()) {
        reader.fault(CONSOLE_DEV_LINK.key, "has fewer than 32 or more than 512 characters");
    }
    Some(link)
}

/// An address of HTTP, with a host and without a user.
pub(crate) fn url(reader: &mut Reader<'_>, setting: &Setting) -> Option<Url> {
    let fits = |text: &String| match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty() => Ok(()),
        _ => Err("is not an http or https URL without a user".to_owned()),
    };
    reader.opt_if::<String>(setting, fits).and_then(|text| Url::parse(&text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let source: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let mut reader = Reader::new(&source);
        let config = Config::read(&mut reader);
        reader.finish().map(|_| config).map_err(|faults| faults.to_string())
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let config = read(&[]).unwrap();
        assert_eq!((config.http_port, config.rate, config.lockout_after), (5125, 10, 5));
        assert_eq!((config.access_ttl, config.session_ttl), (Duration::from_secs(600), DAY / 2));
        assert!(!config.is_secure(), "plain HTTP on a developer's machine");
        assert!(read(&[("BIND_ADDR", "0.0.0.0")]).unwrap().is_secure());
    }

    #[test]
    fn faults_name_their_setting() {
        for (pairs, key) in [
            (&[("ENV", "production")][..], "CONSOLE_SIGNING_KEY"),
            (&[("CONSOLE_SIGNING_KEY", "not a key at all")], "CONSOLE_SIGNING_KEY"),
            (&[("CONSOLE_PUBLIC_URL", "javascript:alert(1)")], "CONSOLE_PUBLIC_URL"),
            (&[("CONSOLE_OIDC_ISSUER", "https://login.example")], "CONSOLE_OIDC_CLIENT"),
            (&[("GRAFANA_URL", "https://u:p@h")], "GRAFANA_URL"),
            (&[("CONSOLE_ACCESS_TTL", "1s")], "CONSOLE_ACCESS_TTL"),
        ] {
            assert!(read(pairs).unwrap_err().contains(key), "{pairs:?}");
        }
    }
}
