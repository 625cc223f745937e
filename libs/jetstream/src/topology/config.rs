//! The settings of the topology, edge mode included.

use agentforge_config::{ByteSize, Reader, Setting};
use std::time::Duration;

const fn setting(key: &'static str, default: &'static str, values: &'static str, help: &'static str) -> Setting {
    Setting::new(key, Some(default), values, help)
}

const BYTES: &str = "size 1MiB-1PiB";

const NATS_REPLICAS: Setting =
    setting("NATS_REPLICAS", "1", "1, 3 or 5", "Replicas of each stream; 3 on a cluster of three servers or more.");
const JOBS_MAX_BYTES: Setting = setting(
    "JOBS_MAX_BYTES",
    "1GiB",
    BYTES,
    "Size of swarm_jobs. When it is full, accepted jobs wait in the database.",
);
const RESULTS_MAX_BYTES: Setting =
    setting("RESULTS_MAX_BYTES", "1GiB", BYTES, "Size of swarm_results. When it is full, workers keep their results.");
const DLQ_MAX_BYTES: Setting =
    setting("DLQ_MAX_BYTES", "1GiB", BYTES, "Size of swarm_dlq. When it is full, dead letters wait in the database.");
const DLQ_MAX_AGE: Setting =
    setting("DLQ_MAX_AGE", "30d", "duration 1h-10y", "How long dead letters are kept on the stream.");
const EVENTS_MAX_BYTES: Setting = setting(
    "EVENTS_MAX_BYTES",
    "1GiB",
    BYTES,
    "Size of the events stream. When it is full, the oldest events are discarded.",
);
const EVENTS_MAX_AGE: Setting = setting("EVENTS_MAX_AGE", "7d", "duration 1h-10y", "How long events are kept.");
const ADVISORIES_MAX_AGE: Setting =
    setting("ADVISORIES_MAX_AGE", "7d", "duration 1h-10y", "How long the server's advisories are kept.");
const OUTPUTS_MAX_BYTES: Setting =
    setting("OUTPUTS_MAX_BYTES", "1GiB", BYTES, "Size of the bucket of large job outputs.");
const OUTPUTS_MAX_AGE: Setting =
    setting("OUTPUTS_MAX_AGE", "30d", "duration 1h-10y", "How long large job outputs are kept.");
const DUPLICATE_WINDOW: Setting = setting(
    "DUPLICATE_WINDOW",
    "2m",
    "duration 1s-1h",
    "How long a stream remembers message ids. The database remembers longer.",
);
const ACK_WAIT: Setting = setting(
    "ACK_WAIT",
    "30s",
    "duration 1s-1h",
    "How long a worker may be silent about a job before it is delivered to another.",
);
const MAX_ACK_PENDING: Setting = setting(
    "MAX_ACK_PENDING",
    "4096",
    "1-1000000",
    "Jobs in work at once per queue; at least 4 times the concurrency of all its workers. 256 in edge mode.",
);
const OPERATIONS_TTL: Setting = setting(
    "OPERATIONS_TTL",
    "15m",
    "duration 1s-30d",
    "How long a success may be reused by an equal job that asks for it.",
);
const HANDBACKS_TTL: Setting =
    setting("HANDBACKS_TTL", "24h", "duration 1m-30d", "How long hand-backs of stopping workers are remembered.");
/// Turns edge mode on; the one declaration of it.
pub const EDGE_MODE: Setting = setting(
    "EDGE_MODE",
    "off",
    "1, true, yes, on, 0, false, no, off",
    "Limits for a small site with an unreliable link.",
);
const EDGE_JS_MAX_MSGS_PER_SUBJECT: Setting = setting(
    "EDGE_JS_MAX_MSGS_PER_SUBJECT",
    "10000",
    "1-1000000000",
    "Edge mode: messages per subject on the queue streams; more are refused, none evicted.",
);
const EDGE_JS_MAX_BYTES: Setting = setting("EDGE_JS_MAX_BYTES", "1073741824", BYTES, "Edge mode: size of each stream.");
const EDGE_ACK_WAIT_S: Setting = setting("EDGE_ACK_WAIT_S", "120", "seconds 1-3600", "Edge mode: replaces ACK_WAIT.");

const SETTINGS: [Setting; 19] = [
    NATS_REPLICAS,
    JOBS_MAX_BYTES,
    RESULTS_MAX_BYTES,
    DLQ_MAX_BYTES,
    DLQ_MAX_AGE,
    EVENTS_MAX_BYTES,
    EVENTS_MAX_AGE,
    ADVISORIES_MAX_AGE,
    OUTPUTS_MAX_BYTES,
    OUTPUTS_MAX_AGE,
    DUPLICATE_WINDOW,
    ACK_WAIT,
    MAX_ACK_PENDING,
    OPERATIONS_TTL,
    HANDBACKS_TTL,
    EDGE_MODE,
    EDGE_JS_MAX_MSGS_PER_SUBJECT,
    EDGE_JS_MAX_BYTES,
    EDGE_ACK_WAIT_S,
];

/// Unacknowledged messages per consumer at an edge site, unless MAX_ACK_PENDING is set.
const EDGE_MAX_ACK_PENDING: u32 = 256;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The caps of a small site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Messages per subject on the work queues; more are refused.
    pub max_msgs_per_subject: u64,
    /// Size of each stream, in bytes.
    pub max_bytes: u64,
    /// Takes the place of the ack wait.
    pub ack_wait: Duration,
}

/// The limits that make up the topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyConfig {
    /// Copies of each stream.
    pub replicas: usize,
    /// Size of `swarm_jobs`, in bytes. In edge mode the edge's cap takes the place of all stream sizes.
    pub jobs_max_bytes: u64,
    /// Size of `swarm_results`.
    pub results_max_bytes: u64,
    /// Size of `swarm_dlq`.
    pub dlq_max_bytes: u64,
    /// Age at which dead letters go.
    pub dlq_max_age: Duration,
    /// Size of `events`.
    pub events_max_bytes: u64,
    /// Age at which events go.
    pub events_max_age: Duration,
    /// Age at which advisories go.
    pub advisories_max_age: Duration,
    /// Size of the bucket of job outputs.
    pub outputs_max_bytes: u64,
    /// Age at which job outputs go.
    pub outputs_max_age: Duration,
    /// How long message ids are remembered.
    pub duplicate_window: Duration,
    /// Silence after which a message is delivered again. In edge mode the edge's takes its place.
    pub ack_wait: Duration,
    /// Unacknowledged messages per consumer.
    pub max_ack_pending: u32,
    /// Age at which finished operations go.
    pub operations_ttl: Duration,
    /// Age at which remembered hand-backs go.
    pub handbacks_ttl: Duration,
    /// Set in edge mode.
    pub edge: Option<Edge>,
}

impl TopologyConfig {
    /// The declarations, in the order of reading.
    pub const SETTINGS: &'static [Setting] = &SETTINGS;

    /// Reads the settings; faults are the reader's.
    pub fn read(r: &mut Reader<'_>) -> Self {
        let bytes = |r: &mut Reader<'_>, s| r.get_in(s, ByteSize(1 << 20)..=ByteSize(1 << 50)).bytes();
        let age = |r: &mut Reader<'_>, s| r.get_in(s, HOUR..=DAY * 3650);
        let replicas = r.get::<usize>(&NATS_REPLICAS);
        if ![1, 3, 5].contains(&replicas) {
            r.fault(
                NATS_REPLICAS.key,
                format!("{replicas} copies are not possible (allowed: {})", NATS_REPLICAS.values),
            );
        }
        let mut config = Self {
            replicas,
            jobs_max_bytes: bytes(r, &JOBS_MAX_BYTES),
            results_max_bytes: bytes(r, &RESULTS_MAX_BYTES),
            dlq_max_bytes: bytes(r, &DLQ_MAX_BYTES),
            dlq_max_age: age(r, &DLQ_MAX_AGE),
            events_max_bytes: bytes(r, &EVENTS_MAX_BYTES),
            events_max_age: age(r, &EVENTS_MAX_AGE),
            advisories_max_age: age(r, &ADVISORIES_MAX_AGE),
            outputs_max_bytes: bytes(r, &OUTPUTS_MAX_BYTES),
            outputs_max_age: age(r, &OUTPUTS_MAX_AGE),
            duplicate_window: r.get_in(&DUPLICATE_WINDOW, Duration::from_secs(1)..=HOUR),
            ack_wait: r.get_in(&ACK_WAIT, Duration::from_secs(1)..=HOUR),
            max_ack_pending: r.get_in(&MAX_ACK_PENDING, 1..=1_000_000),
            operations_ttl: r.get_in(&OPERATIONS_TTL, Duration::from_secs(1)..=DAY * 30),
            handbacks_ttl: r.get_in(&HANDBACKS_TTL, Duration::from_secs(60)..=DAY * 30),
            edge: None,
        };
        let edge_mode: bool = r.get(&EDGE_MODE);
        let edge = Edge {
            max_msgs_per_subject: r.get_in(&EDGE_JS_MAX_MSGS_PER_SUBJECT, 1..=1_000_000_000),
            max_bytes: bytes(r, &EDGE_JS_MAX_BYTES),
            ack_wait: Duration::from_secs(r.get_in(&EDGE_ACK_WAIT_S, 1..=3600)),
        };
        if edge_mode {
            if !r.is_set(&MAX_ACK_PENDING) {
                config.max_ack_pending = EDGE_MAX_ACK_PENDING;
            }
            config.edge = Some(edge);
        }
        config
    }

    /// The ack wait that holds: the edge's in edge mode.
    pub fn effective_ack_wait(&self) -> Duration {
        self.edge.as_ref().map_or(self.ack_wait, |edge| edge.ack_wait)
    }
}

impl Default for TopologyConfig {
    /// The declared defaults.
    fn default() -> Self {
        let nothing_set = std::collections::BTreeMap::<String, String>::new();
        Self::read(&mut Reader::new(&nothing_set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(pairs: &[(&str, &str)]) -> Result<TopologyConfig, String> {
        let source: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let mut reader = Reader::new(&source);
        let config = TopologyConfig::read(&mut reader);
        reader.finish().map(|_| config).map_err(|f| f.to_string())
    }

    #[test]
    fn defaults_are_valid_and_those_of_the_contract() {
        let config = read(&[]).unwrap();
        assert_eq!(config, TopologyConfig::default());
        assert_eq!((config.replicas, config.max_ack_pending), (1, 4096));
        assert_eq!(config.effective_ack_wait(), Duration::from_secs(30));
        assert_eq!(config.jobs_max_bytes, 1 << 30);
        assert_eq!(config.edge, None);
    }

    #[test]
    fn edge_mode_brings_its_caps() {
        for on in ["1", "true", "YES", "On"] {
            let config = read(&[("EDGE_MODE", on), ("EDGE_ACK_WAIT_S", "60")]).unwrap();
            assert_eq!(config.effective_ack_wait(), Duration::from_secs(60));
            assert_eq!(config.max_ack_pending, 256);
            let edge = config.edge.unwrap();
            assert_eq!((edge.max_msgs_per_subject, edge.max_bytes), (10_000, 1_073_741_824));
        }
        let config = read(&[("EDGE_MODE", "on"), ("MAX_ACK_PENDING", "512")]).unwrap();
        assert_eq!(config.max_ack_pending, 512);
    }

    #[test]
    fn impossible_limits_are_faults() {
        for (key, value) in [
            ("NATS_REPLICAS", "2"),
            ("JOBS_MAX_BYTES", "1"),
            ("ACK_WAIT", "0s"),
            ("MAX_ACK_PENDING", "0"),
            ("EDGE_MODE", "maybe"),
        ] {
            assert!(read(&[(key, value)]).unwrap_err().contains(key), "{key}");
        }
    }
}
