//! The settings of the syncdaemon: every one, parsed and checked, all faults at once.

use crate::directory::separation;
use agentforge_config::{ByteSize, Common, Reader, Setting};
use agentforge_jetstream::{
    Domain, NatsConfig, subjects,
    topology::{EvidenceConfig, Maker},
};
use agentforge_message_id::Site;
use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

const HTTP_PORT: Setting = Setting::new(
    "HTTP_PORT",
    Some("8081"),
    "port 0-65535; 0 selects a free one",
    "Port of /healthz, /readyz, /metrics and /status.",
);
const SYNC_QUEUE_DIR: Setting = Setting::new(
    "SYNC_QUEUE_DIR",
    Some("/agentforge/replay"),
    "path",
    "The replay directory. It is created at the start if it does not exist, and never afterwards.",
);
const SYNC_LEDGER_DIR: Setting = Setting::new(
    "SYNC_LEDGER_DIR",
    Some("/agentforge/ledger"),
    "path, apart from SYNC_QUEUE_DIR",
    "Where the ledger is stored. It is created at the start if it does not exist. Neither directory may be inside the other, by any path.",
);
const SYNC_SUBJECT: Setting = Setting::new(
    "SYNC_SUBJECT",
    None,
    "subject below edge.evidence",
    "Where messages are published; the SHA-256 of the content is added as the last token.",
)
.default_note("edge.evidence. and the value of SITE");
const SYNC_MAX_INFLIGHT: Setting =
    Setting::new("SYNC_MAX_INFLIGHT", Some("64"), "number 1-4096", "Maximum number of unacknowledged messages.");
const SYNC_JS_DOMAIN: Setting = Setting::new(
    "SYNC_JS_DOMAIN",
    None,
    "JetStream domain: 1-63 letters, digits, hyphens or underscores",
    "The hub's domain, so that only its acknowledgements count. Unset: those of any stream count.",
);
const SYNC_MAX_BANDWIDTH_BPS: Setting = Setting::new(
    "SYNC_MAX_BANDWIDTH_BPS",
    None,
    "number 1000-1000000000000, bits per second",
    "Bandwidth limit for evidence on the uplink, including headers.",
)
.default_note("unlimited");
const SYNC_SETTLE: Setting = Setting::new(
    "SYNC_SETTLE",
    Some("2s"),
    "duration 0s-1h",
    "How long a file that was not renamed into place must be unchanged before it is taken.",
);
const SYNC_RESCAN: Setting = Setting::new(
    "SYNC_RESCAN",
    Some("60s"),
    "duration 100ms-1d",
    "How often the whole replay directory is read, in addition to events.",
);
const SYNC_LINGER: Setting = Setting::new(
    "SYNC_LINGER",
    Some("10s"),
    "duration 0s-1h",
    "How long a delivered file stays in .sent before it is checked again and unlinked, if the kernel cannot tell whether a writer has it open.",
);
const SYNC_EMPTY_DIRS_AFTER: Setting = Setting::new(
    "SYNC_EMPTY_DIRS_AFTER",
    Some("0s"),
    "duration 1s-10y, or 0s for never",
    "Age at which an empty directory is removed from the replay directory, such as 1d; priority/ stays.",
);
const SYNC_MAX_FILE_BYTES: Setting = Setting::new(
    "SYNC_MAX_FILE_BYTES",
    Some("64GiB"),
    "size 1-1PiB",
    "Larger files are never sent and are moved to quarantine.",
);

/// What is read here, in the order of `--help`.
pub(crate) const SETTINGS: &[Setting] = &[
    HTTP_PORT,
    SYNC_QUEUE_DIR,
    SYNC_LEDGER_DIR,
    SYNC_SUBJECT,
    SYNC_MAX_INFLIGHT,
    SYNC_JS_DOMAIN,
    SYNC_MAX_BANDWIDTH_BPS,
    SYNC_SETTLE,
    SYNC_RESCAN,
    SYNC_LINGER,
    SYNC_EMPTY_DIRS_AFTER,
    SYNC_MAX_FILE_BYTES,
];

/// Below it nothing would ever arrive before its acknowledgement is due.
const BANDWIDTH_RANGE_BPS: RangeInclusive<u64> = 1_000..=1_000_000_000_000;
/// What the stream of evidence takes.
const SUBJECT_ROOT: &str = "edge.evidence.";

/// A syncdaemon's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What all services share.
    pub common: Common,
    /// Where NATS is.
    pub nats: NatsConfig,
    /// Stream and bucket, when they have to be made.
    pub evidence: EvidenceConfig,
    /// Whether they are made here.
    pub maker: Maker,
    /// Port of the HTTP endpoints.
    pub http_port: u16,
    /// Where it is.
    pub site: Site,
    /// The replay directory.
    pub queue_dir: PathBuf,
    /// The ledger's directory.
    pub ledger_dir: PathBuf,
    /// Where messages go, without the last token.
    pub subject: String,
    /// Messages in flight.
    pub max_inflight: usize,
    /// The hub's domain.
    pub domain: Option<Domain>,
    /// Bits per second on the uplink.
    pub max_bandwidth_bps: Option<u64>,
    /// Rest before a file is taken.
    pub settle: Duration,
    /// Between two full scans.
    pub rescan: Duration,
    /// From the move of a delivered file to its end, where writers cannot be known.
    pub linger: Duration,
    /// Age at which empty directories go; zero keeps them.
    pub empty_dirs_after: Duration,
    /// A larger file is quarantined, in bytes.
    pub max_file_bytes: u64,
}

impl Config {
    /// Reads the settings; faults stay in the reader.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let common = Common::read(reader);
        let site = Site::new(&common.site).unwrap_or_else(|_| Site::new("dev").expect("a constant that is a site"));
        let subject: String = reader.get_or(&SYNC_SUBJECT, &subjects::evidence(&site));
        if !is_subject(&subject) {
            reader
                .fault(SYNC_SUBJECT.key, format!("{subject:?} is not a subject below edge.evidence without wildcards"));
        }
        let (queue_dir, ledger_dir): (PathBuf, PathBuf) = (reader.get(&SYNC_QUEUE_DIR), reader.get(&SYNC_LEDGER_DIR));
        if let Some(problem) = separation::problem(&queue_dir, &ledger_dir) {
            reader.fault(SYNC_LEDGER_DIR.key, problem);
        }
        let max_bandwidth_bps = reader.opt_in(&SYNC_MAX_BANDWIDTH_BPS, BANDWIDTH_RANGE_BPS);
        let http_port = reader.get(&HTTP_PORT);
        common.check_port(reader, &HTTP_PORT, http_port);
        let empty_dirs_after: Duration = reader.get_in(&SYNC_EMPTY_DIRS_AFTER, ..=Duration::from_secs(3650 * 86_400));
        if !empty_dirs_after.is_zero() && empty_dirs_after < Duration::from_secs(1) {
            let problem = format!("{empty_dirs_after:?} is too short (allowed: {})", SYNC_EMPTY_DIRS_AFTER.values);
            reader.fault(SYNC_EMPTY_DIRS_AFTER.key, problem);
        }
        Self {
            empty_dirs_after,
            nats: NatsConfig::read(reader),
            evidence: EvidenceConfig::read(reader),
            maker: Maker::read(reader, &common),
            http_port,
            site,
            queue_dir,
            ledger_dir,
            subject,
            max_inflight: reader.get_in(&SYNC_MAX_INFLIGHT, 1..=4096),
            domain: reader.opt(&SYNC_JS_DOMAIN),
            max_bandwidth_bps,
            settle: reader.get_in(&SYNC_SETTLE, ..=Duration::from_secs(3600)),
            rescan: reader.get_in(&SYNC_RESCAN, Duration::from_millis(100)..=Duration::from_secs(24 * 3600)),
            linger: reader.get_in(&SYNC_LINGER, ..=Duration::from_secs(3600)),
            max_file_bytes: reader.get_in(&SYNC_MAX_FILE_BYTES, ByteSize(1)..=ByteSize(1 << 50)).bytes(),
            common,
        }
    }

    /// The domain as text.
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_ref().map(Domain::as_str)
    }
}

fn is_subject(subject: &str) -> bool {
    let token = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>');
    subject.starts_with(SUBJECT_ROOT) && subject.split('.').all(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn read(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let source: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut reader = Reader::new(&source);
        let config = Config::read(&mut reader);
        reader.finish().map(|_| config).map_err(|faults| faults.to_string())
    }

    #[test]
    fn a_site_needs_to_be_told_nothing() {
        let config = read(&[("SITE", "pier-7")]).unwrap();
        assert_eq!(config.subject, "edge.evidence.pier-7");
        assert_eq!((config.http_port, config.max_inflight), (8081, 64));
        assert_eq!(config.queue_dir, PathBuf::from("/agentforge/replay"));
        assert_eq!(config.ledger_dir, PathBuf::from("/agentforge/ledger"));
        assert_eq!((config.domain(), config.max_bandwidth_bps), (None, None));
        assert_eq!(config.settle, Duration::from_secs(2));
    }

    #[test]
    fn every_fault_is_told_with_its_key() {
        let cases = [
            ("SYNC_SUBJECT", "swarm.jobs.x"),
            ("SYNC_SUBJECT", "edge.evidence.a.>"),
            ("SYNC_SUBJECT", "edge.evidence."),
            ("SYNC_LEDGER_DIR", "/agentforge/replay/ledger"),
            ("SYNC_LEDGER_DIR", "/agentforge"),
            ("SYNC_EMPTY_DIRS_AFTER", "5ms"),
            ("SYNC_MAX_INFLIGHT", "0"),
            ("SYNC_JS_DOMAIN", "a.b"),
            ("SYNC_MAX_BANDWIDTH_BPS", "10"),
            ("SYNC_SETTLE", "2d"),
            ("SYNC_MAX_FILE_BYTES", "0"),
            ("EVIDENCE_MAX_AGE", "5s"),
        ];
        for (key, value) in cases {
            let fault = read(&[(key, value)]).unwrap_err();
            assert!(fault.contains(key), "{key}={value}: {fault}");
        }
    }

    #[test]
    fn every_setting_is_declared_once() {
        let keys: BTreeSet<_> = SETTINGS.iter().map(|s| s.key).collect();
        assert_eq!(keys.len(), SETTINGS.len());
    }
}
