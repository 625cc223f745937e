//! The services that exist: one row each. Starts, ports, `--without`, the banner, generated pages, house rules and tests
//! are made from these rows; docs/howto/add-a-service.md says what a new one needs.

use crate::{
    ports::{BACKING, Port, Used, WEBHOOK_SINK},
    program::Program,
    ready::ServiceReady,
    settings::{HUB_DOMAIN, Settings},
};
use agentforge_broadcaster::Broadcaster;
use agentforge_console::Console;
use agentforge_nats_exporter::NatsExporter;
use agentforge_orchestrator::Orchestrator;
use agentforge_syncdaemon::Syncdaemon;
use agentforge_tactical_api::TacticalApi;
use agentforge_worker::WorkerService;
use std::collections::BTreeMap;

/// Settings that a service is given.
pub type Env = BTreeMap<String, String>;

/// One row of the roster: everything that is said of a service in one place.
#[derive(Debug)]
pub struct Service {
    /// Its name: of its folder, its image, its Deployment, in ready files, and with `agentforge-` before it its binary.
    pub name: &'static str,
    /// How its code is configured, built and run.
    pub program: Program,
    /// What it does, for `--without`; `None` when jobs do not run without it.
    pub optional: Option<&'static str>,
    /// Where it listens.
    pub ports: &'static [Port],
    /// What it is given on one machine on top of ports and common settings; false where it cannot run.
    pub settings: fn(&Settings, &mut Env) -> bool,
    /// Its lines in the banner: a label (none continues the line of NATS) and the rest.
    pub lines: fn(&ServiceReady, &Settings) -> Vec<(&'static str, String)>,
    /// Commands to try, of the program that is named.
    pub tries: fn(&str, &ServiceReady) -> Vec<String>,
    /// Its HTTP API as an OpenAPI document.
    pub openapi: Option<fn() -> String>,
}

/// Owns the database; the first to start, the last to stop, and its page of metrics is that of the process.
pub const ORCHESTRATOR: &str = "orchestrator";
/// The service that runs tools.
pub const WORKER: &str = "worker";
/// Delivers files of a site.
pub const SYNCDAEMON: &str = "syncdaemon";
/// Shows what NATS servers report as metrics.
pub const NATS_EXPORTER: &str = "nats-exporter";
/// Sends events to webhooks.
pub const BROADCASTER: &str = "broadcaster";
/// Serves the live picture.
pub const TACTICAL_API: &str = "tactical-api";
/// Shows all of it to people.
pub const CONSOLE: &str = "console";
/// Where the console finds the services, by the setting of each.
const BEHIND: [(&str, &str); 5] = [
    (ORCHESTRATOR, "ORCHESTRATOR_URL"),
    (BROADCASTER, "BROADCASTER_URL"),
    (TACTICAL_API, "TACTICAL_URL"),
    (NATS_EXPORTER, "NATS_EXPORTER_URL"),
    (SYNCDAEMON, "SYNCDAEMON_URL"),
];
/// Signs what the local sink gets: known to everybody, for a place that is reached from this machine only.
const DEV_WEBHOOK_SECRET: &str = "whsec_YWdlbnRmb3JnZSBkZXYgc2luayBzZWNyZXQ=";

/// Every service, in the order of starting. The orchestrator comes first.
pub const SERVICES: &[Service] = &[
    Service {
        name: ORCHESTRATOR,
        program: Program::of::<Orchestrator>(),
        optional: None,
        ports: &[
            port("HTTP_PORT", 8080, 2, "orchestrator HTTP"),
            port("GRPC_PORT", 50051, 3, "orchestrator gRPC"),
            port("METRICS_PORT", 7777, 5, "metrics"),
        ],
        settings: |settings, env| {
            let store = settings.store.clone().unwrap_or_else(|| "sqlite://agentforge.db".to_owned());
            set(env, "DATABASE_URL", store)
        },
        lines: |ready, _| {
            let (http, grpc) = (ready.http.as_deref().unwrap_or_default(), ready.grpc.clone().unwrap_or_default());
            vec![("REST", format!("{http}/v1   docs {http}/docs")), ("gRPC", grpc)]
        },
        tries: |program, _| {
            vec![
                format!("{program} job submit fail '{{}}' --max-attempts 1; {program} dlq list"),
                format!("{program} job list"),
                format!("{program} schedule create every-minute --cron '* * * * *' echo '{{\"tick\":true}}'"),
            ]
        },
        openapi: Some(agentforge_orchestrator::api::rest::openapi_json),
    },
    Service {
        name: WORKER,
        program: Program::of::<WorkerService>(),
        optional: None,
        ports: &[port("HTTP_PORT", 8082, 4, "worker HTTP"), metrics(7778, 6, "worker metrics")],
        settings: |settings, env| {
            if let Some(n) = settings.concurrency {
                set(env, "WORKER_CONCURRENCY", n.to_string());
            }
            if let Some(tools) = &settings.tools {
                set(env, "WORKER_TOOLS_FILE", tools.to_string_lossy());
            }
            if let Some(keys) = &settings.verify_keys {
                set(env, "VERIFY_KEYS", keys);
            }
            true
        },
        lines: |ready, _| vec![("worker", format!("{}/readyz", ready.http.as_deref().unwrap_or_default()))],
        tries: |program, _| vec![format!("{program} agent list")],
        openapi: None,
    },
    Service {
        name: SYNCDAEMON,
        program: Program::of::<Syncdaemon>(),
        optional: Some("Delivers the files of the replay directory"),
        ports: &[port("HTTP_PORT", 8081, 7, "syncdaemon HTTP"), metrics(7779, 8, "syncdaemon metrics")],
        settings: |settings, env| {
            set(env, "SYNC_QUEUE_DIR", settings.replay().to_string_lossy());
            set(env, "SYNC_LEDGER_DIR", settings.ledger().to_string_lossy());
            set(env, "SYNC_SUBJECT", "");
            set(env, "SYNC_JS_DOMAIN", settings.site.as_ref().map_or("", |_| HUB_DOMAIN))
        },
        lines: |ready, settings| {
            let status = ready.http.as_deref().unwrap_or_default();
            vec![("replay", format!("{}   status {status}/status", settings.replay().display()))]
        },
        tries: |_, _| Vec::new(),
        openapi: None,
    },
    Service {
        name: NATS_EXPORTER,
        program: Program::of::<NatsExporter>(),
        optional: Some("Metrics of the NATS server"),
        ports: &[Port { used: Used::WithOwnNats, ..port("METRICS_PORT", 7780, 12, "NATS exporter") }],
        settings: |settings, env| match &settings.nats_monitor {
            Some(monitor) => set(env, "NATS_EXPORTER_TARGETS", monitor),
            None => false,
        },
        lines: |ready, _| ready.metrics.iter().map(|page| ("", format!("as metrics {page}"))).collect(),
        tries: |_, _| Vec::new(),
        openapi: None,
    },
    Service {
        name: BROADCASTER,
        program: Program::of::<Broadcaster>(),
        optional: Some("Sends events to webhooks"),
        ports: &[
            port("HTTP_PORT", 8002, 15, "broadcaster HTTP"),
            metrics(7782, 16, "broadcaster metrics"),
            WEBHOOK_SINK,
        ],
        settings: |settings, env| {
            // Every event to the sink of this process, unless the environment names endpoints.
            if let Some(sink) = &settings.webhook_sink {
                set(env, "WEBHOOK_URL", sink);
                set(env, "WEBHOOK_SECRET", DEV_WEBHOOK_SECRET);
                let allow = ["127.0.0.1", settings.egress_allow.as_str()].join(",");
                set(env, "EGRESS_ALLOW", allow.trim_end_matches(','));
                if !(settings.is_set)("BROADCASTER_SUBJECTS") {
                    set(env, "BROADCASTER_SUBJECTS", "todos.events,agentforge.events.>");
                }
            }
            true
        },
        lines: |ready, settings| {
            let url = ready.http.as_deref().unwrap_or_default();
            let sink = settings.webhook_sink.as_ref().map(|sink| format!("   to a sink at {sink}")).unwrap_or_default();
            vec![("webhooks", format!("{url}/v1/endpoints{sink}"))]
        },
        tries: |program, ready| vec![format!("{program} webhook tail{}", elsewhere(ready, "http://127.0.0.1:8002"))],
        openapi: Some(agentforge_broadcaster::openapi_json),
    },
    Service {
        name: TACTICAL_API,
        program: Program::of::<TacticalApi>(),
        optional: Some("Streams the picture of markers and zones"),
        ports: &[port("HTTP_PORT", 8010, 13, "tactical API"), metrics(7781, 14, "tactical API metrics")],
        // It belongs to the hub, where evidence arrives.
        settings: |settings, env| settings.hub_url.as_ref().is_none_or(|hub| set(env, "NATS_URL", hub)),
        lines: |ready, _| vec![("tactical", format!("{}/events/stream", ready.http.as_deref().unwrap_or_default()))],
        tries: |program, ready| {
            vec![
                format!("{program} marker watch --snapshot{}", elsewhere(ready, "http://127.0.0.1:8010")),
                format!("curl -N {}/events/stream", ready.http.as_deref().unwrap_or_default()),
            ]
        },
        openapi: Some(agentforge_tactical_api::openapi_json),
    },
    Service {
        name: CONSOLE,
        program: Program::of::<Console>(),
        optional: Some("Shows all of it to people"),
        ports: &[port("HTTP_PORT", 5125, 18, "console"), metrics(7783, 19, "console metrics")],
        settings: |settings, env| {
            // In Postgres it has a schema of its own; a file belongs to the orchestrator.
            let shared = settings.store.clone().filter(|store| !store.starts_with("sqlite"));
            set(env, "DATABASE_URL", shared.unwrap_or_else(|| "sqlite://console.db".to_owned()));
            for (key, url) in behind(settings).into_iter().filter(|(key, _)| !(settings.is_set)(key)) {
                set(env, key, url);
            }
            // Its key is in the data directory, as its public part is that the others read.
            set(env, "CONSOLE_SIGNING_KEY", "");
            set(env, "CONSOLE_DEV_LINK", settings.console.link.clone().unwrap_or_default())
        },
        lines: |ready, settings| {
            let url = ready.http.as_deref().unwrap_or_default();
            let login = settings.console.link.as_ref().map(|token| format!("   log in once {url}/once/{token}"));
            vec![("console", format!("{url}{}", login.unwrap_or_default()))]
        },
        tries: |_, _| Vec::new(),
        openapi: None,
    },
];

/// The ports of the services behind the console.
pub fn ports_behind() -> impl Iterator<Item = Port> {
    BEHIND.iter().filter_map(|(name, _)| find(name)?.ports.first().copied())
}

/// The addresses of those that run here, by setting.
fn behind(settings: &Settings) -> Vec<(&'static str, String)> {
    let running = BEHIND.iter().filter(|(name, _)| {
        // The exporter runs only next to a server of our own.
        !settings.without.contains(name) && (*name != NATS_EXPORTER || settings.nats_monitor.is_some())
    });
    let found = running.filter_map(|(name, key)| Some((*key, settings.port(*find(name)?.ports.first()?))));
    found.filter(|(_, port)| *port != 0).map(|(key, port)| (key, format!("http://127.0.0.1:{port}"))).collect()
}

const fn port(key: &'static str, standard: u16, place: u16, what: &'static str) -> Port {
    Port { key, standard, place, what, used: Used::Always }
}

/// A page of metrics; in one process the orchestrator's has all of them.
const fn metrics(standard: u16, place: u16, what: &'static str) -> Port {
    Port { used: Used::InProcesses, ..port("METRICS_PORT", standard, place, what) }
}

fn set(env: &mut Env, key: &str, value: impl AsRef<str>) -> bool {
    env.insert(key.to_owned(), value.as_ref().to_owned());
    true
}

/// The option of a command for a service that is not at its standard address.
fn elsewhere(ready: &ServiceReady, standard: &str) -> String {
    ready.http.as_deref().filter(|url| *url != standard).map(|url| format!(" --url {url}")).unwrap_or_default()
}

/// The service of a name.
pub fn find(name: &str) -> Option<&'static Service> {
    SERVICES.iter().find(|service| service.name == name)
}

/// The last place behind a base that a port takes.
pub fn last_place() -> u16 {
    SERVICES.iter().flat_map(|service| service.ports).chain(&BACKING).map(|port| port.place).max().unwrap_or_default()
}

impl Service {
    /// The name of its program, `agentforge-<name>`.
    pub fn binary(&self) -> String {
        format!("agentforge-{}", self.name)
    }

    /// What it is given on one machine; `None` where it does not run.
    pub fn env(&self, settings: &Settings) -> Option<Env> {
        let mut env = settings.common();
        for port in self.ports.iter().filter(|port| !port.key.is_empty()) {
            set(&mut env, port.key, settings.port(*port).to_string());
        }
        let runs = !settings.without.contains(&self.name) && (self.settings)(settings, &mut env);
        runs.then_some(env)
    }
}

/// The ports that are used.
pub fn ports(without: &[&str], own_nats: bool, processes: bool, edge: bool) -> impl Iterator<Item = Port> {
    let running = SERVICES.iter().filter(move |service| !without.contains(&service.name));
    running.flat_map(|service| service.ports).chain(&BACKING).copied().filter(move |port| match port.used {
        Used::Always => true,
        Used::InProcesses => processes,
        Used::WithOwnNats => own_nats,
        Used::WithHub => edge,
    })
}

/// The sentence of `--help` that names every port, in the order of their places.
pub fn ports_in_words() -> String {
    let mut all: Vec<&Port> = SERVICES.iter().flat_map(|service| service.ports).chain(&BACKING).collect();
    all.sort_by_key(|port| port.place);
    let told = |port: &&Port| {
        let when = match port.used {
            Used::InProcesses => " (with --processes)",
            Used::WithHub => " (with --edge)",
            Used::Always | Used::WithOwnNats => "",
        };
        format!("{} {}{when}", port.what, port.standard)
    };
    all.iter().map(told).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_config::{Reader, Source};
    use agentforge_runtime::Service as _;
    use std::{collections::BTreeSet, path::Path};

    fn settings() -> Settings {
        Settings {
            nats_monitor: Some("http://127.0.0.1:2".into()),
            concurrency: Some(16),
            webhook_sink: Some("http://127.0.0.1:9/".into()),
            ..Settings::new(Path::new("/data"), "nats://127.0.0.1:1")
        }
    }

    fn env(name: &str, settings: &Settings) -> Env {
        find(name).unwrap().env(settings).unwrap()
    }

    fn hostile() -> Env {
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
    fn a_row_is_named_as_its_code_and_ports_never_meet() {
        let (mut standard, mut places) = (BTreeSet::new(), BTreeSet::new());
        for service in SERVICES {
            assert_eq!(service.name, service.program.name);
            let declared = (service.program.settings)();
            for port in service.ports.iter().filter(|port| !port.key.is_empty()) {
                let has = declared.iter().flat_map(|(_, list)| list).any(|setting| setting.key == port.key);
                assert!(has, "{} reads no {}", service.name, port.key);
            }
        }
        for port in SERVICES.iter().flat_map(|service| service.ports).chain(&BACKING) {
            assert!(standard.insert(port.standard) && places.insert(port.place), "{port:?} is taken");
        }
        assert_eq!(places.len(), usize::from(last_place()) + 1, "places follow each other");
        assert_eq!(SERVICES[0].name, ORCHESTRATOR);
    }

    #[test]
    fn what_is_left_out_needs_no_ports() {
        let taken = |without: &[&str], own, processes| -> Vec<u16> {
            ports(without, own, processes, false).map(|port| port.standard).collect()
        };
        assert!(taken(&[], true, false).contains(&8010) && !taken(&[TACTICAL_API], true, false).contains(&8010));
        assert!(!taken(&[], false, false).contains(&4222) && !taken(&[], true, false).contains(&7778));
        assert!(taken(&[], true, true).contains(&7778));
    }

    #[test]
    fn services_accept_what_they_are_given_whatever_the_environment_says() {
        let source = (env(ORCHESTRATOR, &settings()), hostile());
        let mut reader = Reader::new(&source);
        let config = Orchestrator::read_config(&mut reader);
        reader.finish().unwrap();
        assert!(Orchestrator::common(&config).is_dev());
        assert_eq!(source.get("DATABASE_URL").unwrap(), "sqlite://agentforge.db");

        let source = (env(WORKER, &settings()), hostile());
        let mut reader = Reader::new(&source);
        let config = WorkerService::read_config(&mut reader);
        reader.finish().unwrap();
        assert_eq!(config.concurrency, 16);

        let source = (env(BROADCASTER, &settings()), hostile());
        let mut reader = Reader::new(&source);
        let config = Broadcaster::read_config(&mut reader);
        reader.finish().unwrap();
        assert_eq!(config.first_endpoints()[0].subjects, ["todos.events", "agentforge.events.>"]);

        for site in [None, Some("pier".to_owned())] {
            let settings = Settings { site, ..settings() };
            let source = (env(SYNCDAEMON, &settings), hostile());
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
        let own = env(WORKER, &settings());
        assert_eq!(own.get("NATS_USER").map(String::as_str), Some(""));
        let external = env(WORKER, &Settings { nats_is_external: true, ..settings() });
        assert_eq!(external.get("NATS_USER"), None);
        assert_eq!(external.get("READY_FILE").map(String::as_str), Some(""));
    }
}
