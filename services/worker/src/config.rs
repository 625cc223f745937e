//! The worker's configuration: every setting, parsed and checked, all faults at once.
//!
//! Reads the tools file too, because a fault in it is a fault in the configuration. Connects to
//! nothing and starts nothing.

use crate::{
    orders::VerifySettings,
    tools::{Toolbox, exec::Spec},
    tools_file::{self, Defaults, ProcessEnvironment},
};
use agentforge_config::{ByteSize, CommaList, Common, Reader, Setting};
use agentforge_egress::Policy;
use agentforge_jetstream::NatsConfig;
use agentforge_message_id::{AgentId, Mission, Queue, Site, ToolName};
use std::{collections::BTreeSet, path::PathBuf, time::Duration};

const HTTP_PORT: Setting =
    Setting::new("HTTP_PORT", Some("8082"), "port 0-65535; 0 selects a free one", "Port of /healthz and /readyz.");
const WORKER_ID: Setting = Setting::new(
    "WORKER_ID",
    None,
    "1-128 of A-Z a-z 0-9 . - _, starting with a letter or digit",
    "The worker's name among the agents, unique for each process.",
)
.default_note("host name and a random suffix");
const WORKER_QUEUES: Setting = Setting::new(
    "WORKER_QUEUES",
    Some("default"),
    "comma-separated list, at most 32 queues",
    "The queues of the mission that are served.",
);
const WORKER_CONCURRENCY: Setting = Setting::new(
    "WORKER_CONCURRENCY",
    None,
    "number 1-4096, at least one per queue",
    "Jobs in flight at once, all queues together.",
)
.default_note("4 per processor, at least 4");
const WORKER_TOOLS_FILE: Setting = Setting::new(
    "WORKER_TOOLS_FILE",
    None,
    "path of a TOML file",
    "Commands declared as tools; docs/samples/tools.toml shows the format.",
);
const WORKER_MAX_DELIVERIES: Setting = Setting::new(
    "WORKER_MAX_DELIVERIES",
    Some("5"),
    "number 1-1000",
    "How many workers an attempt may lose before its job fails as worker_lost. Hand-backs do not count.",
);
const STARTED_AFTER: Setting = Setting::new(
    "STARTED_AFTER",
    Some("5ms"),
    "duration 0s-1m",
    "A run that lasts longer is reported as started; the start of a shorter one is reported with its result, which saves a message.",
);
const HEARTBEAT_INTERVAL: Setting = Setting::new(
    "HEARTBEAT_INTERVAL",
    Some("5s"),
    "duration 100ms-5m",
    "How often the worker sends a heartbeat; after three missed ones it counts as offline.",
);
const REUSE_WINDOW: Setting = Setting::new(
    "REUSE_WINDOW",
    Some("15m"),
    "duration 0s-30d; 0s never reuses",
    "How old the success of an equal operation may be for a job with reuse to get it instead of running; limited by the bucket's OPERATIONS_TTL.",
);
const OUTPUT_INLINE_MAX: Setting = Setting::new(
    "OUTPUT_INLINE_MAX",
    Some("256KiB"),
    "size 0-512KiB",
    "Longest output that is part of the result; a longer one goes to the object store.",
);
const EXEC_OUTPUT_MAX: Setting = Setting::new(
    "EXEC_OUTPUT_MAX",
    Some("16MiB"),
    "size 1KiB-1GiB",
    "Longest output of a command without output_max; each running command may hold this much in memory.",
);
const EXEC_TEMP_MAX: Setting = Setting::new(
    "EXEC_TEMP_MAX",
    Some("1GiB"),
    "size 64KiB-1TiB",
    "Temporary files of a command without temp_max; each running command may hold this much on the disk of TMPDIR.",
);
const HTTP_BODY_MAX: Setting = Setting::new(
    "HTTP_BODY_MAX",
    Some("1MiB"),
    "size 0-64MiB",
    "How much of a response the http tool reads; the rest is cut off, and the result is marked as truncated.",
);

/// What is read here, in the order of `--help`.
pub(crate) const SETTINGS: &[Setting] = &[
    HTTP_PORT,
    WORKER_ID,
    WORKER_QUEUES,
    WORKER_CONCURRENCY,
    WORKER_TOOLS_FILE,
    WORKER_MAX_DELIVERIES,
    STARTED_AFTER,
    HEARTBEAT_INTERVAL,
    REUSE_WINDOW,
    OUTPUT_INLINE_MAX,
    EXEC_OUTPUT_MAX,
    EXEC_TEMP_MAX,
    HTTP_BODY_MAX,
];

/// Names of the tools that every worker has.
pub const BUILT_IN: [&str; 4] = ["echo", "fail", "http", "sleep"];
/// Each idle queue keeps one slot, and has a loop of its own.
const QUEUES_MAX: usize = 32;
/// As many as one worker can sensibly hold; the fleet's ceiling is the consumer's max_ack_pending.
const CONCURRENCY_MAX: usize = 4096;

/// A worker's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The settings of every service.
    pub common: Common,
    /// Where NATS is.
    pub nats: NatsConfig,
    /// Whose attempts are run.
    pub verify: VerifySettings,
    /// Port of /healthz and /readyz.
    pub http_port: u16,
    /// The worker's name among the agents.
    pub id: AgentId,
    /// Whose jobs it runs.
    pub mission: Mission,
    /// Where it is.
    pub site: Site,
    /// Which queues it serves, each once.
    pub queues: Vec<Queue>,
    /// Jobs in flight at once.
    pub concurrency: usize,
    /// How many workers an attempt may lose.
    pub max_lost: u64,
    /// Runs that last longer are reported as started.
    pub started_after: Duration,
    /// Between two heartbeats.
    pub heartbeat_interval: Duration,
    /// How old a success may be that is used again.
    pub reuse_window: Duration,
    /// Longest output in a result, bytes.
    pub output_inline_max_bytes: usize,
    /// How much of a response the http tool reads, bytes.
    pub http_body_max_bytes: usize,
    /// What the http tool may call.
    pub egress: Policy,
    /// Tools of the tools file.
    pub commands: Vec<(ToolName, Spec)>,
    /// Tools that are compiled in, in addition to the built-in ones.
    pub extra: Toolbox,
}

impl Config {
    /// Reads the settings; faults stay in the reader. `extra` are tools that are compiled in.
    pub fn read(reader: &mut Reader<'_>, extra: Toolbox) -> Self {
        let common = Common::read(reader);
        let (queues, output_max) =
            (read_queues(reader), reader.get_in(&EXEC_OUTPUT_MAX, ByteSize(1024)..=ByteSize(1 << 30)));
        let temp_max = reader.get_in(&EXEC_TEMP_MAX, ByteSize(64 << 10)..=ByteSize(1 << 40));
        for name in extra.names().filter(|name| BUILT_IN.contains(&name.as_str())) {
            reader.fault(WORKER_TOOLS_FILE.key, format!("the compiled-in tool {name} has the name of a built-in one"));
        }
        let http_port = reader.get(&HTTP_PORT);
        common.check_port(reader, &HTTP_PORT, http_port);
        Self {
            nats: NatsConfig::read(reader),
            verify: VerifySettings::read(reader, &common),
            http_port,
            id: read_id(reader),
            mission: Mission::new(&common.mission)
                .unwrap_or_else(|_| Mission::new("dev").expect("a constant that is a mission")),
            site: Site::new(&common.site).unwrap_or_else(|_| Site::new("dev").expect("a constant that is a site")),
            concurrency: read_concurrency(reader, queues.len()),
            max_lost: reader.get_in(&WORKER_MAX_DELIVERIES, 1..=1000),
            started_after: reader.get_in(&STARTED_AFTER, ..=Duration::from_secs(60)),
            heartbeat_interval: reader
                .get_in(&HEARTBEAT_INTERVAL, Duration::from_millis(100)..=Duration::from_secs(300)),
            reuse_window: reader.get_in(&REUSE_WINDOW, ..=Duration::from_secs(30 * 24 * 3600)),
            output_inline_max_bytes: bytes(reader.get_in(&OUTPUT_INLINE_MAX, ..=ByteSize(512 << 10))),
            http_body_max_bytes: bytes(reader.get_in(&HTTP_BODY_MAX, ..=ByteSize(64 << 20))),
            egress: Policy::read(reader),
            commands: read_commands(
                reader,
                Defaults { output_max_bytes: bytes(output_max), temp_max_bytes: temp_max.0 },
                &extra,
            ),
            queues,
            common,
            extra,
        }
    }
}

fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}

fn read_queues(reader: &mut Reader<'_>) -> Vec<Queue> {
    let mut queues = Vec::new();
    let names = reader.get::<CommaList>(&WORKER_QUEUES).into_inner();
    if names.is_empty() || names.len() > QUEUES_MAX {
        reader.fault(WORKER_QUEUES.key, format!("names {} queues; 1 to {QUEUES_MAX} can be served", names.len()));
    }
    for name in names {
        match Queue::new(&name) {
            Ok(queue) if queues.contains(&queue) => reader.fault(WORKER_QUEUES.key, format!("{queue} appears twice")),
            Ok(queue) => queues.push(queue),
            Err(e) => reader.fault(WORKER_QUEUES.key, e.to_string()),
        }
    }
    queues
}

fn read_concurrency(reader: &mut Reader<'_>, queues: usize) -> usize {
    let default = std::thread::available_parallelism().map_or(4, |n| 4 * n.get()).max(queues).min(CONCURRENCY_MAX);
    let concurrency: usize = reader.get_or(&WORKER_CONCURRENCY, &default.to_string());
    if !(queues.max(1)..=CONCURRENCY_MAX).contains(&concurrency) {
        let problem =
            format!("{concurrency} is out of range ({} queues need 1 each; at most {CONCURRENCY_MAX})", queues);
        reader.fault(WORKER_CONCURRENCY.key, problem);
    }
    concurrency
}

fn read_id(reader: &mut Reader<'_>) -> AgentId {
    let default = default_id();
    let id: String = reader.get_or(&WORKER_ID, default.as_str());
    AgentId::new(id).unwrap_or_else(|e| {
        reader.fault(WORKER_ID.key, e.to_string());
        default
    })
}

fn default_id() -> AgentId {
    let host: String =
        host_name().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '.').take(100).collect();
    let suffix = format!("{:06x}", rand::random::<u32>() >> 8);
    AgentId::new(format!("{host}-{suffix}"))
        .or_else(|_| AgentId::new(format!("worker-{suffix}")))
        .expect("letters, digits and a hyphen make an agent id")
}

/// The machine's name, as the kernel knows it.
pub(crate) fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "worker".to_owned(), |name| name.trim().to_owned())
}

fn read_commands(reader: &mut Reader<'_>, defaults: Defaults, extra: &Toolbox) -> Vec<(ToolName, Spec)> {
    let Some(path) = reader.opt::<PathBuf>(&WORKER_TOOLS_FILE) else { return Vec::new() };
    let mut taken: BTreeSet<ToolName> = extra.names().cloned().collect();
    taken.extend(BUILT_IN.iter().filter_map(|name| ToolName::new(name).ok()));
    tools_file::load(&path, defaults, &taken, &ProcessEnvironment).unwrap_or_else(|faults| {
        for fault in faults {
            reader.fault(WORKER_TOOLS_FILE.key, fault);
        }
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, io::Write};

    fn read(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let source: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut reader = Reader::new(&source);
        let config = Config::read(&mut reader, Toolbox::new());
        reader.finish().map(|_| config).map_err(|faults| faults.to_string())
    }

    #[test]
    fn a_worker_needs_to_be_told_nothing() {
        let config = read(&[]).unwrap();
        assert_eq!(config.queues, [Queue::default()]);
        assert!(config.concurrency >= 4);
        assert_eq!((config.http_port, config.max_lost), (8082, 5));
        assert_eq!(config.output_inline_max_bytes, 256 * 1024);
        assert_ne!(config.id, read(&[]).unwrap().id, "two workers on one machine have two names");
    }

    #[test]
    fn every_fault_is_told_with_its_key() {
        let faults = read(&[
            ("WORKER_QUEUES", "a,a,b_c"),
            ("WORKER_CONCURRENCY", "0"),
            ("WORKER_ID", "a b"),
            ("WORKER_TOOLS_FILE", "/no/such/file"),
            ("OUTPUT_INLINE_MAX", "2MiB"),
            ("EGRESS_ALLOW", "*.example.org"),
            ("HTTP_PORT", "http"),
        ])
        .unwrap_err();
        for key in [
            "WORKER_QUEUES",
            "WORKER_CONCURRENCY",
            "WORKER_ID",
            "WORKER_TOOLS_FILE",
            "OUTPUT_INLINE_MAX",
            "EGRESS_ALLOW",
            "HTTP_PORT",
        ] {
            assert!(faults.contains(key), "{key} is missing in\n{faults}");
        }
        assert_eq!(faults.matches("WORKER_QUEUES").count(), 2, "{faults}");
    }

    #[test]
    fn a_command_cannot_take_the_name_of_a_built_in_tool() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(
            file,
            "[[tool]]\nname = \"http\"\nargv = [\"cat\"]\n[[tool]]\nname = \"x\"\nargv = [\"cat\"]\nshell = true"
        )
        .unwrap();
        let faults = read(&[("WORKER_TOOLS_FILE", file.path().to_str().unwrap())]).unwrap_err();
        assert!(faults.contains("taken") && faults.contains("shell"), "{faults}");
    }

    #[test]
    fn every_setting_is_declared_once() {
        let keys: BTreeSet<_> = SETTINGS.iter().map(|s| s.key).collect();
        assert_eq!(keys.len(), SETTINGS.len());
    }
}
