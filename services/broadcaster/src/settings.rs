//! The broadcaster's settings, as `--help` and docs/configuration.md show them. `config` reads them.

use agentforge_config::Setting;

pub const HTTP_PORT: Setting = Setting::new(
    "HTTP_PORT",
    Some("8002"),
    "port 0-65535; 0 selects a free one",
    "Port of /health, /healthz, /readyz, /metrics and of the API below /v1.",
);
pub const BROADCASTER_SUBJECTS: Setting = Setting::new(
    "BROADCASTER_SUBJECTS",
    Some("todos.events"),
    "comma-separated subjects; * and > stand for tokens",
    "Subjects of endpoints that name none. agentforge.events.job.> are the events of jobs.",
);
pub const WEBHOOK_URL: Setting = Setting::new(
    "WEBHOOK_URL",
    None,
    "http or https URL, file:PATH or env:NAME",
    "An endpoint named default, with or without an endpoints file. A file is read again when it changes.",
)
.secret();
pub const WEBHOOK_SECRET: Setting = Setting::new(
    "WEBHOOK_SECRET",
    None,
    "whsec_…, whsk_…, file:PATH or env:NAME, several with commas",
    "Signs requests to WEBHOOK_URL. Two during a rotation. A file is read again when it changes. Unset: requests are not signed.",
)
.secret();
pub const WEBHOOK_FORMAT: Setting = Setting::new(
    "WEBHOOK_FORMAT",
    Some("json"),
    "json, raw, cloudevents, slack, teams or discord",
    "The format of bodies sent to WEBHOOK_URL.",
);
pub const BROADCASTER_ENDPOINTS_FILE: Setting = Setting::new(
    "BROADCASTER_ENDPOINTS_FILE",
    None,
    "path of a TOML file",
    "Declares endpoints. Changes take effect without a restart, also those of files that its values refer to.",
);
pub const BROADCASTER_RELOAD_INTERVAL: Setting = Setting::new(
    "BROADCASTER_RELOAD_INTERVAL",
    Some("2s"),
    "duration 100ms-1h",
    "How often the endpoints file and the files that its values refer to are checked.",
);
pub const BROADCASTER_TOKEN: Setting = Setting::new(
    "BROADCASTER_TOKEN",
    None,
    "16-512 characters",
    "Bearer token of an admin of the API below /v1. Without any token the API is open in ENV=dev on a loopback \
     BIND_ADDR; everywhere else one is required.",
)
.secret();
pub const BROADCASTER_ALERTS_TOKEN: Setting = Setting::new(
    "BROADCASTER_ALERTS_TOKEN",
    None,
    "16-512 characters, another than BROADCASTER_TOKEN",
    "Bearer token that hands over alerts (POST /v1/alerts) and does nothing else, for Alertmanager.",
)
.secret();
pub const BROADCASTER_STATE_KEY: Setting = Setting::new(
    "BROADCASTER_STATE_KEY",
    None,
    "base64 of 32 bytes, at most 4 with commas",
    "Encrypts endpoints created through the API in their bucket. The first key encrypts, all decrypt. Unset: they are \
     stored in plain text, secrets included.",
)
.secret();
pub const BROADCASTER_RETRY_SCHEDULE: Setting = Setting::new(
    "BROADCASTER_RETRY_SCHEDULE",
    Some("5s,5m,30m,2h,5h,10h,10h"),
    "durations 100ms-7d with commas, at most 32",
    "Pauses between attempts. After the last one a message becomes a dead letter.",
);
pub const BROADCASTER_RETRY_JITTER: Setting = Setting::new(
    "BROADCASTER_RETRY_JITTER",
    Some("0.2"),
    "number 0-1",
    "The share by which a pause may be longer or shorter, so that messages that failed together are spread out.",
);
pub const BROADCASTER_TIMEOUT: Setting = Setting::new(
    "BROADCASTER_TIMEOUT",
    Some("10s"),
    "duration 100ms-5m",
    "How long a request may take, including the connection. An endpoint may override it.",
);
pub const BROADCASTER_CONCURRENCY: Setting = Setting::new(
    "BROADCASTER_CONCURRENCY",
    Some("64"),
    "number 1-1024",
    "Concurrent requests to one endpoint, in each replica. An endpoint may override it.",
);
pub const BROADCASTER_RETRY_4XX: Setting = Setting::new(
    "BROADCASTER_RETRY_4XX",
    Some("off"),
    "on, off, or statuses 400-499 with commas, without 410",
    "Client errors that are retried by the schedule; the others make a dead letter at once, unless the circuit is \
     open. 408, 425 and 429 are always retried. An endpoint may say otherwise.",
);
pub const BROADCASTER_CIRCUIT_FAILURES: Setting = Setting::new(
    "BROADCASTER_CIRCUIT_FAILURES",
    Some("20"),
    "number 0-100000; 0 never opens",
    "Failures in a row, including client errors, that open an endpoint's circuit, in each replica.",
);
pub const BROADCASTER_CIRCUIT_PROBE: Setting = Setting::new(
    "BROADCASTER_CIRCUIT_PROBE",
    Some("1s"),
    "duration 50ms-1h",
    "How long an open circuit waits before its first probe; each failed probe doubles it.",
);
pub const BROADCASTER_CIRCUIT_PROBE_MAX: Setting =
    Setting::new("BROADCASTER_CIRCUIT_PROBE_MAX", Some("1m"), "duration 50ms-1d", "The longest wait between probes.");
pub const BROADCASTER_CORE_FALLBACK: Setting = Setting::new(
    "BROADCASTER_CORE_FALLBACK",
    Some("off"),
    "1, true, yes, on, 0, false, no, off",
    "Subscribe to subjects without a stream, in queue group broadcaster-workers. Events published while no \
     broadcaster listens are lost.",
);
pub const BROADCASTER_CA_FILE: Setting = Setting::new(
    "BROADCASTER_CA_FILE",
    None,
    "path of a PEM file",
    "Authorities trusted for endpoints' certificates, in addition to those of the system.",
);

/// The settings, in the order of `--help`.
pub(crate) const SETTINGS: &[Setting] = &[
    HTTP_PORT,
    BROADCASTER_SUBJECTS,
    WEBHOOK_URL,
    WEBHOOK_SECRET,
    WEBHOOK_FORMAT,
    BROADCASTER_ENDPOINTS_FILE,
    BROADCASTER_RELOAD_INTERVAL,
    BROADCASTER_TOKEN,
    BROADCASTER_ALERTS_TOKEN,
    BROADCASTER_STATE_KEY,
    BROADCASTER_RETRY_SCHEDULE,
    BROADCASTER_RETRY_JITTER,
    BROADCASTER_TIMEOUT,
    BROADCASTER_CONCURRENCY,
    BROADCASTER_RETRY_4XX,
    BROADCASTER_CIRCUIT_FAILURES,
    BROADCASTER_CIRCUIT_PROBE,
    BROADCASTER_CIRCUIT_PROBE_MAX,
    BROADCASTER_CORE_FALLBACK,
    BROADCASTER_CA_FILE,
];
