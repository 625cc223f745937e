//! The console's settings, as `--help` and docs/configuration.md show them. `config` reads them.

use agentforge_config::Setting;

pub const HTTP_PORT: Setting = Setting::new(
    "HTTP_PORT",
    Some("5125"),
    "port 0-65535; 0 selects a free one",
    "Port of the pages, of their API, and of /healthz and /readyz.",
);
pub const DATABASE_URL: Setting = Setting::new(
    "DATABASE_URL",
    Some("sqlite://console.db"),
    "sqlite://FILE (under DATA_DIR) or postgres://USER:PASSWORD@HOST/DB",
    "Where users, sessions and the board are stored. In Postgres they have a schema of their own, console, so that the database may be the orchestrator's.",
)
.secret();
pub const DB_POOL: Setting = Setting::new(
    "DB_POOL",
    Some("8"),
    "1 to 200",
    "How many connections to Postgres the console holds; SQLite has its own number.",
);
pub const CONSOLE_SIGNING_KEY: Setting = Setting::new(
    "CONSOLE_SIGNING_KEY",
    None,
    "Ed25519 private key (PKCS#8 PEM), as `agentforge keys new` makes it",
    "Signs sessions, and the identity of callers for the services behind the console: they read its public part in ACCESS_CONSOLE_KEYS. Replicas share it. Required unless ENV is dev.",
)
.default_note("in ENV=dev console-signing-key.pem in DATA_DIR, made at the first start with console-keys.json, its public part")
.secret();
pub const CONSOLE_PUBLIC_URL: Setting = Setting::new(
    "CONSOLE_PUBLIC_URL",
    None,
    "http or https URL without a path",
    "Where people reach the console, for one-time links and the way back from an OpenID provider. With https, cookies are for TLS only and browsers keep to it (HSTS).",
)
.default_note("the address of HTTP_PORT");
pub const CONSOLE_ACCESS_TTL: Setting = Setting::new(
    "CONSOLE_ACCESS_TTL",
    Some("10m"),
    "duration 10s-1h",
    "How long a page may work before it renews its session.",
);
pub const CONSOLE_SESSION_TTL: Setting = Setting::new(
    "CONSOLE_SESSION_TTL",
    Some("12h"),
    "duration 1m-30d",
    "How long a session lasts from its login; then the password is asked for again.",
);
pub const CONSOLE_RATE: Setting = Setting::new(
    "CONSOLE_RATE",
    Some("10"),
    "requests per second 0-1000000; 0 for no limit",
    "How many logins, renewals and other requests without a session one address may make, and one user from all addresses; twice as many at once.",
);
pub const CONSOLE_API_RATE: Setting = Setting::new(
    "CONSOLE_API_RATE",
    Some("100"),
    "requests per second 0-1000000; 0 for no limit",
    "How many requests with a session one user may make; twice as many at once.",
);
pub const CONSOLE_LOCKOUT_AFTER: Setting = Setting::new(
    "CONSOLE_LOCKOUT_AFTER",
    Some("5"),
    "number 0-1000; 0 locks nothing",
    "Failed logins after which an address and a user are locked, for 1 s at first and twice as long after each further one, up to 5m. A user who is locked may still log in from an address that the user came from before.",
);
pub const GRAFANA_URL: Setting = Setting::new(
    "GRAFANA_URL",
    None,
    "http or https URL",
    "Where Grafana is, as browsers reach it. Its panels may be framed.",
);

pub const CONSOLE_DEV_LINK: Setting = Setting::new(
    "CONSOLE_DEV_LINK",
    None,
    "32-512 characters, only in ENV=dev on a loopback BIND_ADDR",
    "The token of a one-time link, made at the start, that logs the user admin in; the user is added where it does not exist. `agentforge dev` sets it.",
)
.secret();
pub const CONSOLE_OIDC_ISSUER: Setting = Setting::new(
    "CONSOLE_OIDC_ISSUER",
    None,
    "URL of an OpenID provider, one of ACCESS_ISSUERS",
    "Lets people log in by this provider too (code flow with PKCE; the way back is /auth/oidc/callback below CONSOLE_PUBLIC_URL). Its tokens count as ACCESS_AUDIENCE, ACCESS_ROLE_CLAIM and ACCESS_ROLES have it.",
);
pub const CONSOLE_OIDC_CLIENT: Setting = Setting::new(
    "CONSOLE_OIDC_CLIENT",
    None,
    "text; needed with CONSOLE_OIDC_ISSUER",
    "What the provider knows the console as (client_id).",
);
pub const CONSOLE_OIDC_SECRET: Setting =
    Setting::new("CONSOLE_OIDC_SECRET", None, "text", "The console's secret at the provider, if it has one there.")
        .secret();
pub const CONSOLE_OIDC_SCOPE: Setting = Setting::new(
    "CONSOLE_OIDC_SCOPE",
    Some("openid"),
    "words with blanks between them",
    "What the provider is asked for.",
);
pub const CONSOLE_OIDC_RESOURCE: Setting = Setting::new(
    "CONSOLE_OIDC_RESOURCE",
    None,
    "text",
    "Whom the access token is for (the parameter resource), where the provider wants it said; usually ACCESS_AUDIENCE.",
);
pub const CONSOLE_OIDC_NAME: Setting =
    Setting::new("CONSOLE_OIDC_NAME", Some("OpenID"), "text", "What the login page calls the provider.");
const fn service(key: &'static str, help: &'static str) -> Setting {
    Setting::new(key, None, "http or https URL", help)
}
pub const ORCHESTRATOR_URL: Setting =
    service("ORCHESTRATOR_URL", "The orchestrator's REST API, behind /api/orchestrator.");
pub const BROADCASTER_URL: Setting = service("BROADCASTER_URL", "The broadcaster's API, behind /api/broadcaster.");
pub const TACTICAL_URL: Setting = service("TACTICAL_URL", "The tactical API, behind /api/tactical.");
pub const NATS_EXPORTER_URL: Setting =
    service("NATS_EXPORTER_URL", "The NATS exporter; its page of metrics is /api/exporter/metrics.");
pub const SYNCDAEMON_URL: Setting =
    service("SYNCDAEMON_URL", "A site's syncdaemon; its state is /api/syncdaemon/status.");
pub const PROMETHEUS_URL: Setting =
    service("PROMETHEUS_URL", "Prometheus; its queries, rules and alerts are behind /api/prometheus.");
pub const ALERTMANAGER_URL: Setting =
    service("ALERTMANAGER_URL", "Alertmanager; its alerts and silences are behind /api/alertmanager.");

/// The services behind the console; those that are not set are not there.
pub(crate) const UPSTREAMS: &[Setting] = &[
    ORCHESTRATOR_URL,
    BROADCASTER_URL,
    TACTICAL_URL,
    NATS_EXPORTER_URL,
    SYNCDAEMON_URL,
    PROMETHEUS_URL,
    ALERTMANAGER_URL,
];

/// The settings, in the order of `--help`.
pub(crate) const SETTINGS: &[Setting] = &[
    HTTP_PORT,
    DATABASE_URL,
    DB_POOL,
    CONSOLE_SIGNING_KEY,
    CONSOLE_PUBLIC_URL,
    CONSOLE_ACCESS_TTL,
    CONSOLE_SESSION_TTL,
    CONSOLE_RATE,
    CONSOLE_API_RATE,
    CONSOLE_LOCKOUT_AFTER,
    CONSOLE_OIDC_ISSUER,
    CONSOLE_OIDC_CLIENT,
    CONSOLE_OIDC_SECRET,
    CONSOLE_OIDC_SCOPE,
    CONSOLE_OIDC_RESOURCE,
    CONSOLE_OIDC_NAME,
    CONSOLE_DEV_LINK,
    GRAFANA_URL,
];
