//! The orchestrator's settings, parsed once.

use crate::admission::{Limits, ToolRetries, admit_retry};
use crate::api::auth::Auth;
use crate::audit_settings::AuditSettings;
use crate::keys::{self, KeySettings};
use crate::model::RetryPolicy;
use crate::slo::{Target, Targets};
use crate::store::EventMask;
use crate::transition::Backoff;
use agentforge_config::{Common, Parse, Reader, Setting};
use agentforge_jetstream::{
    HubConfig, NatsConfig,
    topology::{Maker, TopologyConfig},
};
use agentforge_message_id::{Mission, Queue, Site, ToolName};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

const HTTP_PORT: Setting = Setting::new(
    "HTTP_PORT",
    Some("8080"),
    "port 0-65535; 0 selects a free one",
    "Where REST, health and docs listen.",
);
const GRPC_PORT: Setting =
    Setting::new("GRPC_PORT", Some("50051"), "port 0-65535; 0 selects a free one", "Where gRPC listens.");
const DATABASE_URL: Setting = Setting::new(
    "DATABASE_URL",
    Some("sqlite://agentforge.db"),
    "sqlite://FILE (under DATA_DIR) or postgres://USER:PASSWORD@HOST/DB",
    "Where jobs are stored. For Postgres, DATABASE_URL_FILE is read again when it changes: new connections log in as it says.",
)
.secret();
const DB_POOL: Setting =
    Setting::new("DB_POOL", Some("8"), "1 to 200", "Maximum number of connections to Postgres; SQLite has its own.");
const API_TOKENS: Setting = Setting::new(
    "API_TOKENS",
    None,
    "name:role:token, comma separated; roles viewer, submitter, operator, admin; tokens of 16 characters or more",
    "Who may call. Without it and ACCESS_TOKENS_FILE the API is open in ENV=dev on a loopback BIND_ADDR; everywhere else one of them is required.",
)
.secret();
/// More jobs than this are in no database that one orchestrator serves.
const JOBS_WAITING_MAX: u64 = 1_000_000_000;
const OUTBOX_MAX: Setting = Setting::new(
    "OUTBOX_MAX",
    None,
    "jobs 1-1000000000",
    "Jobs accepted and not yet published; beyond it submitters get back-pressure. Default 100000, in edge mode 1000000.",
);
const SCHEDULED_MAX: Setting = Setting::new(
    "SCHEDULED_MAX",
    Some("1000000"),
    "jobs 0-1000000000",
    "Jobs with a future run_at and waiting retries; beyond it submissions with run_at get back-pressure.",
);
const QUEUES: Setting = Setting::new(
    "QUEUES",
    None,
    "queues, comma separated",
    "Queues that always have a consumer, in addition to default: those whose workers are scaled from zero. Others have one while a worker announces them.",
);
const QUEUES_MAX: Setting = Setting::new(
    "QUEUES_MAX",
    Some("256"),
    "1 to 4000",
    "Maximum number of queues with jobs or workers; a submission that would exceed it is refused.",
);
const QUEUE_IDLE_AFTER: Setting = Setting::new(
    "QUEUE_IDLE_AFTER",
    Some("24h"),
    "duration 1s-365d",
    "A queue that no worker has announced and that has had no job for this long loses its consumer.",
);
const JOB_DEADLINE: Setting = Setting::new(
    "JOB_DEADLINE",
    None,
    "duration, or off",
    "Deadline of jobs that name none, from max(accepted, run_at). Default 20m, in edge mode off.",
);
const JOB_TIMEOUT: Setting =
    Setting::new("JOB_TIMEOUT", Some("5m"), "duration 1ms-30d", "Timeout of one attempt when the job names none.");
const JOB_TIMEOUT_MAX: Setting =
    Setting::new("JOB_TIMEOUT_MAX", Some("24h"), "duration 1ms-30d", "Longest timeout of one attempt.");
const JOB_MAX_ATTEMPTS: Setting =
    Setting::new("JOB_MAX_ATTEMPTS", Some("12"), "1 to 100", "Attempts when the job names none.");
const TOOL_RETRIES: Setting = Setting::new(
    "TOOL_RETRIES",
    None,
    "tool=ATTEMPTS or tool=ATTEMPTS/BASE/CAP, comma separated, such as http=20/1s/2m,ocr=1",
    "Attempts and waits for a tool's jobs that set none, instead of JOB_MAX_ATTEMPTS, RETRY_BASE and RETRY_CAP.",
);
const JOB_RETENTION: Setting =
    Setting::new("JOB_RETENTION", Some("30d"), "duration 1s-3650d", "How long finished jobs are kept.");
const JOB_EVENTS: Setting = Setting::new(
    "JOB_EVENTS",
    Some("all"),
    "all, final or off",
    "Which life-cycle events go to agentforge.events.job.<mission>.<state>.",
);
const RETRY_BASE: Setting =
    Setting::new("RETRY_BASE", Some("200ms"), "duration 1ms-24h", "Wait before the first retry; doubles from there.");
const RETRY_CAP: Setting = Setting::new(
    "RETRY_CAP",
    Some("30s"),
    "duration 1ms-24h, at least RETRY_BASE",
    "Longest wait before a retry, except for a tool's Retry-After.",
);
const TOOL_GRACE: Setting = Setting::new(
    "TOOL_GRACE",
    Some("30s"),
    "duration 0s-1h",
    "How long a job waits for a worker of its queue to announce its tool before it fails; until then workers without the tool hand it back.",
);
const RECONCILE_AFTER: Setting = Setting::new(
    "RECONCILE_AFTER",
    Some("5m"),
    "duration 1s-24h, above DUPLICATE_WINDOW",
    "A job queued or running for this long is compared with the stream, and published again if its message is gone.",
);
const WATCHES_MAX: Setting =
    Setting::new("WATCHES_MAX", Some("10000"), "1 to 1000000", "Waits and watches open at once.");
const HTTP_CONCURRENCY: Setting =
    Setting::new("HTTP_CONCURRENCY", Some("4096"), "1 to 1000000", "REST requests served at once.");
const SLO_AVAILABILITY: Setting = Setting::new(
    "SLO_AVAILABILITY",
    Some("0.999"),
    "share between 0 and 1, neither included",
    "Seconds of 30 days in which a service must be up, as a share.",
);
const SLO_LATENCY: Setting = Setting::new(
    "SLO_LATENCY",
    Some("0.95"),
    "share between 0 and 1, neither included",
    "Jobs of 30 days that must succeed within ten minutes, as a share.",
);
const SLO_LATENCY_CAP: Setting = Setting::new(
    "SLO_LATENCY_CAP",
    Some("0.999"),
    "share between 0 and 1, neither included",
    "Jobs of 30 days that must succeed within twenty minutes, as a share.",
);

/// The shortest of what may be waited for, and a unit of the longest.
const MOMENT: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Attempts that a job may ask for.
const MAX_ATTEMPTS: u32 = 100;

/// Settings of only this service.
pub const SETTINGS: &[Setting] = &[
    HTTP_PORT,
    GRPC_PORT,
    DATABASE_URL,
    DB_POOL,
    API_TOKENS,
    OUTBOX_MAX,
    SCHEDULED_MAX,
    QUEUES,
    QUEUES_MAX,
    QUEUE_IDLE_AFTER,
    JOB_DEADLINE,
    JOB_TIMEOUT,
    JOB_TIMEOUT_MAX,
    JOB_MAX_ATTEMPTS,
    TOOL_RETRIES,
    JOB_RETENTION,
    JOB_EVENTS,
    RETRY_BASE,
    RETRY_CAP,
    TOOL_GRACE,
    RECONCILE_AFTER,
    WATCHES_MAX,
    HTTP_CONCURRENCY,
    SLO_AVAILABILITY,
    SLO_LATENCY,
    SLO_LATENCY_CAP,
];

/// The orchestrator's settings.
#[derive(Clone)]
pub struct Config {
    /// Shared by all services.
    pub common: Common,
    /// Server, credentials and TLS of the local NATS (`NATS_*`).
    pub nats: NatsConfig,
    /// Streams and consumers.
    pub topology: TopologyConfig,
    /// Whether streams are made here; consumers of queues always are.
    pub maker: Maker,
    /// Where the hub of this site is.
    pub hub: HubConfig,
    /// Port of REST, probes and the admin endpoints (HTTP_PORT); 0: any free one.
    pub http_port: u16,
    /// Port of gRPC (GRPC_PORT); 0: any free one.
    pub grpc_port: u16,
    /// `sqlite://<path>` or `postgres://…`, with credentials: never logged (DATABASE_URL).
    pub database_url: String,
    /// Where that comes from, if from a file (DATABASE_URL_FILE).
    pub database_url_file: Option<PathBuf>,
    /// Most connections to Postgres (DB_POOL); SQLite has a writer and readers of its own.
    pub db_pool: NonZeroU32,
    /// Who may call.
    pub auth: Auth,
    /// What attempts are signed with.
    pub keys: KeySettings,
    /// Bound of the outbox, jobs.
    pub outbox_max: u64,
    /// Bound of jobs that are for later.
    pub scheduled_max: u64,
    /// Queues that always have a consumer.
    pub queues: Vec<Queue>,
    /// Most queues with jobs or workers at a time (QUEUES_MAX).
    pub queues_max: usize,
    /// When an idle queue loses its consumer.
    pub queue_idle_after: Duration,
    /// What submissions may ask for.
    pub limits: Limits,
    /// Waits before a failed attempt is published again, where the job has none of its own.
    pub backoff: Backoff,
    /// How long a tool may be missing before its job fails.
    pub tool_grace: Duration,
    /// Finished jobs are kept so long.
    pub retention: Duration,
    /// What the audit log keeps.
    pub audit: AuditSettings,
    /// Which states are published.
    pub events: EventMask,
    /// When queued and running jobs are checked.
    pub reconcile_after: Duration,
    /// Waits and watches at once.
    pub watches_max: usize,
    /// REST requests at once.
    pub http_concurrency: usize,
    /// Shares that the objectives promise.
    pub slo: Targets,
    /// The mission that this orchestrator serves (MISSION).
    pub mission: Mission,
    /// The site that this process runs at (SITE).
    pub site: Site,
}

impl Config {
    /// Reads everything; faults are collected in `r`.
    pub fn read(r: &mut Reader<'_>) -> Self {
        let common = Common::read(r);
        let nats = NatsConfig::read(r);
        let topology = TopologyConfig::read(r);
        let maker = Maker::read(r, &common);
        let hub = HubConfig::read(r);
        let edge = topology.edge.is_some();
        let mission = Mission::new(&common.mission).unwrap_or_else(|e| {
            r.fault("MISSION", e.to_string());
            Mission::new("dev").expect("fits the grammar")
        });
        let site = Site::new(&common.site).unwrap_or_else(|e| {
            r.fault("SITE", e.to_string());
            Site::new("dev").expect("fits the grammar")
        });
        let auth = Auth::read(r, &common, &API_TOKENS);
        let outbox_max = r.opt_in(&OUTBOX_MAX, 1..=JOBS_WAITING_MAX).unwrap_or(if edge { 1_000_000 } else { 100_000 });
        let queues = r.opt::<String>(&QUEUES).unwrap_or_default();
        let names = queues.split(',').map(str::trim).filter(|name| !name.is_empty());
        let queues = names.filter_map(|name| Queue::new(name).map_err(|e| r.fault(QUEUES.key, e.to_string())).ok());
        let queues: Vec<Queue> = queues.collect();
        let queues_max: usize = r.get_in(&QUEUES_MAX, 1..=4_000);
        if queues.len() > queues_max {
            r.fault(QUEUES.key, format!("names {} queues, more than QUEUES_MAX ({queues_max})", queues.len()));
        }
        let deadline_default = match r.opt::<Deadline>(&JOB_DEADLINE) {
            Some(Deadline(after)) => after,
            None if edge => None,
            None => Some(Duration::from_secs(20 * 60)),
        };
        let events = match r.get::<String>(&JOB_EVENTS).as_str() {
            "all" => EventMask::ALL,
            "final" => EventMask::FINAL,
            "off" => EventMask::OFF,
            other => {
                r.fault(JOB_EVENTS.key, format!("is {other:?}; expected all, final or off"));
                EventMask::ALL
            }
        };
        let slo = Targets {
            availability: target(r, &SLO_AVAILABILITY),
            latency: target(r, &SLO_LATENCY),
            cap: target(r, &SLO_LATENCY_CAP),
        };
        let limits = Limits {
            args_max_bytes: crate::admission::args_max_bytes(1024 * 1024),
            max_attempts_max: MAX_ATTEMPTS,
            max_attempts_default: r.get_in(&JOB_MAX_ATTEMPTS, 1..=100),
            tool_retries: tool_retries(r),
            timeout_default: r.get_in(&JOB_TIMEOUT, MOMENT..=DAY * 30),
            timeout_max: r.get_in(&JOB_TIMEOUT_MAX, MOMENT..=DAY * 30),
            deadline_default,
            run_at_max: Duration::from_secs(366 * 86_400),
            mission_default: mission.clone(),
        };
        let backoff = Backoff {
            base: r.get_in(&RETRY_BASE, MOMENT..=DAY),
            cap: r.get_in(&RETRY_CAP, MOMENT..=DAY),
            ..Backoff::default()
        };
        let config = Self {
            http_port: r.get(&HTTP_PORT),
            tool_grace: r.get_in(&TOOL_GRACE, ..=Duration::from_secs(3600)),
            grpc_port: r.get(&GRPC_PORT),
            database_url: r.get(&DATABASE_URL),
            database_url_file: r.file_of(&DATABASE_URL),
            db_pool: NonZeroU32::new(r.get_in(&DB_POOL, 1..=200)).unwrap_or(NonZeroU32::MIN),
            auth,
            keys: KeySettings::read(r, &common),
            outbox_max,
            scheduled_max: r.get_in(&SCHEDULED_MAX, ..=JOBS_WAITING_MAX),
            queues,
            queues_max,
            queue_idle_after: r.get_in(&QUEUE_IDLE_AFTER, Duration::from_secs(1)..=Duration::from_secs(365 * 86_400)),
            limits,
            backoff,
            retention: r.get_in(&JOB_RETENTION, Duration::from_secs(1)..=DAY * 3650),
            audit: AuditSettings::read(r),
            events,
            reconcile_after: r.get_in(&RECONCILE_AFTER, Duration::from_secs(1)..=DAY),
            watches_max: r.get_in(&WATCHES_MAX, 1..=1_000_000),
            http_concurrency: r.get_in(&HTTP_CONCURRENCY, 1..=1_000_000),
            slo,
            mission,
            site,
            common,
            nats,
            topology,
            maker,
            hub,
        };
        let scheme = config.database_url.split(':').next().unwrap_or_default();
        if !matches!(scheme, "sqlite" | "postgres" | "postgresql") {
            r.fault(DATABASE_URL.key, "must begin with sqlite:// or postgres://");
        }
        config.check_pairs(r);
        config
    }

    /// Settings that must fit together. Each fault is reported under the setting that is to be changed, regardless of
    /// other faults.
    fn check_pairs(&self, r: &mut Reader<'_>) {
        if self.limits.timeout_default > self.limits.timeout_max {
            r.fault(JOB_TIMEOUT.key, "is longer than JOB_TIMEOUT_MAX");
        }
        if self.backoff.cap < self.backoff.base {
            r.fault(RETRY_CAP.key, "is shorter than RETRY_BASE");
        }
        // A message that is published again inside the window would be taken for the one that is gone.
        if self.reconcile_after <= self.topology.duplicate_window {
            r.fault(RECONCILE_AFTER.key, "must be longer than DUPLICATE_WINDOW");
        }
        if self.http_port != 0 && self.http_port == self.grpc_port {
            r.fault(GRPC_PORT.key, "is the port of HTTP_PORT too");
        }
        self.common.check_port(r, &HTTP_PORT, self.http_port);
        self.common.check_port(r, &GRPC_PORT, self.grpc_port);
    }
}

/// A deadline counted from the submission; `off` is none.
struct Deadline(Option<Duration>);

impl Parse for Deadline {
    fn parse(s: &str) -> Result<Self, String> {
        match s {
            "off" => Ok(Self(None)),
            text => match Duration::parse(text)? {
                Duration::ZERO => Err("must be more than 0, or off".to_owned()),
                after => Ok(Self(Some(after))),
            },
        }
    }
    fn placeholder() -> Self {
        Self(None)
    }
}

fn tool_retries(r: &mut Reader<'_>) -> BTreeMap<ToolName, ToolRetries> {
    let text = r.opt::<String>(&TOOL_RETRIES).unwrap_or_default();
    let mut tools = BTreeMap::new();
    for entry in text.split(',').map(str::trim).filter(|e| !e.is_empty()) {
        match tool_retry(entry) {
            Ok((tool, retries)) => _ = tools.insert(tool, retries),
            Err(problem) => r.fault(TOOL_RETRIES.key, format!("has {entry:?}: {problem}")),
        }
    }
    tools
}

fn tool_retry(entry: &str) -> Result<(ToolName, ToolRetries), String> {
    let (tool, rest) = entry.split_once('=').ok_or("expected tool=ATTEMPTS or tool=ATTEMPTS/BASE/CAP")?;
    let tool = ToolName::new(tool.trim()).map_err(|e| e.to_string())?;
    let parts: Vec<&str> = rest.split('/').map(str::trim).collect();
    let (attempts, waits) = match parts[..] {
        [attempts] => (attempts, None),
        [attempts, base, cap] => (attempts, Some((base, cap))),
        _ => return Err("expected ATTEMPTS or ATTEMPTS/BASE/CAP".into()),
    };
    let attempts = attempts.parse().ok().filter(|n| (1..=MAX_ATTEMPTS).contains(n));
    let max_attempts = Some(attempts.ok_or(format!("expected 1 to {MAX_ATTEMPTS} attempts"))?);
    let wait = |text| agentforge_config::parse_duration(text).map_err(|e| format!("{text:?} {e}"));
    let retry = match waits {
        None => RetryPolicy::default(),
        Some((base, cap)) => RetryPolicy { base: Some(wait(base)?), cap: Some(wait(cap)?) },
    };
    let retry = admit_retry(retry).map_err(|e| e.message)?;
    Ok((tool, ToolRetries { max_attempts, retry }))
}

/// A share of an objective; another number is a fault, and a half is used instead until that is reported.
fn target(r: &mut Reader<'_>, setting: &Setting) -> Target {
    Target::new(r.get(setting)).unwrap_or_else(|| {
        r.fault(setting.key, "must be between 0 and 1, neither included");
        Target::new(0.5).expect("a half is between 0 and 1")
    })
}

/// All groups of settings, for --help and the docs.
pub fn groups() -> Vec<(&'static str, Vec<Setting>)> {
    vec![
        ("Orchestrator", SETTINGS.to_vec()),
        ("Access", agentforge_door::SETTINGS.to_vec()),
        ("Audit log", AuditSettings::settings()),
        ("Signatures", keys::SETTINGS.to_vec()),
        ("Streams and consumers", TopologyConfig::SETTINGS.to_vec()),
        ("Topology", Maker::SETTINGS.to_vec()),
        ("Edge site", HubConfig::SETTINGS.to_vec()),
        ("NATS", NatsConfig::SETTINGS.to_vec()),
        ("Common", Common::SETTINGS.to_vec()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn faults(pairs: &[(&str, &str)]) -> Vec<String> {
        let source: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut reader = Reader::new(&source);
        let _config = Config::read(&mut reader);
        reader.finish().err().map(|f| f.iter().map(|f| f.key.clone()).collect()).unwrap_or_default()
    }

    #[test]
    fn what_must_fit_together_is_told_under_its_own_key() {
        assert_eq!(faults(&[]), [""; 0]);
        for (pairs, key) in [
            (vec![("RECONCILE_AFTER", "1s")], "RECONCILE_AFTER"),
            (vec![("RECONCILE_AFTER", "2m")], "RECONCILE_AFTER"),
            (vec![("DUPLICATE_WINDOW", "10m")], "RECONCILE_AFTER"),
            (vec![("RETRY_BASE", "10s"), ("RETRY_CAP", "1s")], "RETRY_CAP"),
            (vec![("RETRY_BASE", "40s")], "RETRY_CAP"),
            (vec![("JOB_TIMEOUT", "2h"), ("JOB_TIMEOUT_MAX", "1h")], "JOB_TIMEOUT"),
            (vec![("HTTP_PORT", "7000"), ("GRPC_PORT", "7000")], "GRPC_PORT"),
            (vec![("HTTP_PORT", "7777")], "HTTP_PORT"),
            (vec![("JOB_RETENTION", "0s")], "JOB_RETENTION"),
            (vec![("JOB_TIMEOUT", "0s")], "JOB_TIMEOUT"),
            (vec![("RETRY_BASE", "0s")], "RETRY_BASE"),
            (vec![("WATCHES_MAX", "0")], "WATCHES_MAX"),
            (vec![("HTTP_CONCURRENCY", "0")], "HTTP_CONCURRENCY"),
        ] {
            assert_eq!(faults(&pairs), [key], "{pairs:?}");
            // Another fault hides none.
            let with_another = [pairs.as_slice(), &[("DB_POOL", "0"), ("LOG_FORMAT", "xml")]].concat();
            let all = faults(&with_another);
            assert!([key, "DB_POOL", "LOG_FORMAT"].iter().all(|k| all.iter().any(|f| f == k)), "{pairs:?}: {all:?}");
        }
        // Loopback may be behind a proxy: only a developer's machine is served without tokens.
        for open in [&[("ENV", "production"), ("BIND_ADDR", "127.0.0.1")][..], &[("BIND_ADDR", "0.0.0.0")]] {
            // Outside of ENV=dev a key is asked for, too.
            let is_asked = |pairs: &[(&str, &str)]| faults(pairs).iter().any(|key| key == "API_TOKENS");
            let with_tokens = [open, &[("API_TOKENS", "ops:admin:0123456789abcdef")]].concat();
            assert!(is_asked(open) && !is_asked(&with_tokens), "{open:?}");
        }
        for pairs in [[("HTTP_PORT", "0"), ("GRPC_PORT", "0")], [("RECONCILE_AFTER", "5s"), ("DUPLICATE_WINDOW", "4s")]]
        {
            assert_eq!(faults(&pairs), [""; 0], "{pairs:?}");
        }
    }
}
