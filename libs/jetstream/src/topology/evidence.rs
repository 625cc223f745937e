//! The stream and the bucket of evidence that edge sites deliver: their settings and their definition.
//!
//! A plan of its own, because they belong to the hub and every site's syncdaemon makes sure of them:
//! what carries the promise (one message per subject, nothing discarded) is enforced, while sizes, ages
//! and copies that are there already are the hub's and are kept.

use super::{
    ensure::{Error, Report, ensure_by},
    maker::Maker,
    plan::{Plan, UNLIMITED, object_store_stream, signed},
};
use crate::{
    api::{self, ApiError},
    subjects::{BUCKET_EVIDENCE_BLOBS, EVIDENCE_FILTER, STREAM_EVIDENCE},
};
use agentforge_config::{ByteSize, Reader, Setting};
use async_nats::jetstream::{
    Context, ErrorCode,
    stream::{self, DiscardPolicy, RetentionPolicy, StorageType},
};
use std::time::Duration;

const EVIDENCE_MAX_BYTES: Setting = Setting::new(
    "EVIDENCE_MAX_BYTES",
    Some("4GiB"),
    "size 1MiB-1PiB",
    "Size of edge_evidence when it is created. When it is full, files stay at their site.",
);
const EVIDENCE_BLOBS_MAX_BYTES: Setting = Setting::new(
    "EVIDENCE_BLOBS_MAX_BYTES",
    Some("4GiB"),
    "size 1MiB-1PiB",
    "Size of the bucket of large files when it is created. When it is full, large files stay at their site.",
);
const EVIDENCE_MAX_AGE: Setting = Setting::new(
    "EVIDENCE_MAX_AGE",
    Some("0s"),
    "duration 1h-10y, or 0s for unlimited",
    "How long evidence is kept, set when its stream is created. Content that arrives again later is stored again.",
);
const EVIDENCE_DUPLICATE_WINDOW: Setting = Setting::new(
    "EVIDENCE_DUPLICATE_WINDOW",
    Some("2m"),
    "duration 100ms-1h",
    "How long edge_evidence remembers message ids, set when it is created. Later duplicates are found by their subject.",
);
const EVIDENCE_REPLICAS: Setting = Setting::new(
    "EVIDENCE_REPLICAS",
    Some("1"),
    "1, 3 or 5",
    "Replicas of the evidence, set when its stream is created.",
);

const SETTINGS: [Setting; 5] =
    [EVIDENCE_MAX_BYTES, EVIDENCE_BLOBS_MAX_BYTES, EVIDENCE_MAX_AGE, EVIDENCE_DUPLICATE_WINDOW, EVIDENCE_REPLICAS];

/// The limits of the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceConfig {
    /// Size of the stream, in bytes.
    pub max_bytes: u64,
    /// Size of the bucket, in bytes.
    pub blobs_max_bytes: u64,
    /// Age at which evidence goes; zero keeps it.
    pub max_age: Duration,
    /// How long message ids are remembered.
    pub duplicate_window: Duration,
    /// Copies of stream and bucket.
    pub replicas: usize,
}

impl EvidenceConfig {
    /// The declarations, in the order of reading.
    pub const SETTINGS: &'static [Setting] = &SETTINGS;

    /// Reads the settings; faults are the reader's.
    pub fn read(r: &mut Reader<'_>) -> Self {
        let bytes = |r: &mut Reader<'_>, s| r.get_in(s, ByteSize(1 << 20)..=ByteSize(1 << 50)).bytes();
        let max_age: Duration = r.get_in(&EVIDENCE_MAX_AGE, ..=Duration::from_secs(3650 * 24 * 3600));
        if !max_age.is_zero() && max_age < Duration::from_secs(3600) {
            r.fault(EVIDENCE_MAX_AGE.key, format!("{max_age:?} is too short (allowed: {})", EVIDENCE_MAX_AGE.values));
        }
        let replicas = r.get::<usize>(&EVIDENCE_REPLICAS);
        if ![1, 3, 5].contains(&replicas) {
            let problem = format!("{replicas} copies are not possible (allowed: {})", EVIDENCE_REPLICAS.values);
            r.fault(EVIDENCE_REPLICAS.key, problem);
        }
        Self {
            max_bytes: bytes(r, &EVIDENCE_MAX_BYTES),
            blobs_max_bytes: bytes(r, &EVIDENCE_BLOBS_MAX_BYTES),
            max_age,
            duplicate_window: r
                .get_in(&EVIDENCE_DUPLICATE_WINDOW, Duration::from_millis(100)..=Duration::from_secs(3600)),
            replicas,
        }
    }
}

impl Default for EvidenceConfig {
    /// The declared defaults.
    fn default() -> Self {
        let nothing_set = std::collections::BTreeMap::<String, String>::new();
        Self::read(&mut Reader::new(&nothing_set))
    }
}

/// The stream of evidence and the bucket of large files.
pub fn evidence_plan(c: &EvidenceConfig) -> Plan {
    let evidence = stream::Config {
        name: STREAM_EVIDENCE.to_owned(),
        subjects: vec![EVIDENCE_FILTER.to_owned()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        // The subject ends with the hash of the content: an equal content is refused, however late it comes.
        max_messages_per_subject: 1,
        discard_new_per_subject: true,
        discard: DiscardPolicy::New,
        max_bytes: signed(c.max_bytes),
        max_messages: UNLIMITED,
        max_consumers: -1,
        max_age: c.max_age,
        num_replicas: c.replicas,
        duplicate_window: window(c),
        allow_direct: true,
        ..Default::default()
    };
    let blobs = stream::Config {
        // One message with a roll-up header would remove the chunks of all sites.
        allow_rollup: false,
        max_age: c.max_age,
        num_replicas: c.replicas,
        duplicate_window: window(c),
        ..object_store_stream(BUCKET_EVIDENCE_BLOBS, c.blobs_max_bytes)
    };
    Plan { streams: vec![evidence, blobs], consumers: Vec::new() }
}

/// The server refuses a window that is longer than the age.
fn window(c: &EvidenceConfig) -> Duration {
    if c.max_age.is_zero() { c.duplicate_window } else { c.duplicate_window.min(c.max_age) }
}

/// Makes sure of the evidence's stream and bucket. With `keep_limits`, sizes, ages, windows and copies of
/// what exists are left as they are: many sites share one hub, and its operators decide about them.
///
/// # Errors
/// As [`super::ensure`].
pub async fn ensure_evidence(
    js: &Context,
    config: &EvidenceConfig,
    keep_limits: bool,
    maker: Maker,
) -> Result<Report, Error> {
    let plan = evidence_plan(config);
    if keep_limits { ensure_keeping_limits(js, plan, maker).await } else { ensure_by(js, &plan, maker).await }
}

/// As [`super::ensure`], but sizes, ages, windows and copies of streams that exist are left as they are: for those
/// that another service owns, too.
///
/// # Errors
/// As [`super::ensure`].
pub async fn ensure_keeping_limits(js: &Context, mut plan: Plan, maker: Maker) -> Result<Report, Error> {
    if maker == Maker::Wait {
        return ensure_by(js, &plan, maker).await;
    }
    for planned in &mut plan.streams {
        let subject = format!("STREAM.INFO.{}", planned.name);
        match api::call::<stream::Info>(js, subject, &serde_json::json!({})).await {
            Ok(found) => *planned = with_limits_of(planned, &found.config),
            Err(e) if e.is(ErrorCode::STREAM_NOT_FOUND) => {}
            Err(source) => return Err(unreadable(planned, source)),
        }
    }
    ensure_by(js, &plan, maker).await
}

fn unreadable(planned: &stream::Config, source: ApiError) -> Error {
    Error::Api { attempt: "read", kind: "stream", name: planned.name.clone(), source }
}

fn with_limits_of(planned: &stream::Config, found: &stream::Config) -> stream::Config {
    stream::Config {
        max_bytes: found.max_bytes,
        max_messages: found.max_messages,
        max_age: found.max_age,
        num_replicas: found.num_replicas,
        duplicate_window: found.duplicate_window,
        ..planned.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_kept_once_per_subject_and_never_evicted() {
        let plan = evidence_plan(&EvidenceConfig::default());
        for s in &plan.streams {
            assert_eq!(
                (s.discard, s.retention, s.storage),
                (DiscardPolicy::New, RetentionPolicy::Limits, StorageType::File)
            );
            assert!(s.max_bytes > 0 && s.allow_direct && s.max_age.is_zero(), "{}", s.name);
        }
        let [evidence, blobs] = &plan.streams[..] else { panic!("{plan:?}") };
        assert_eq!((evidence.max_messages_per_subject, evidence.discard_new_per_subject), (1, true));
        assert!(!blobs.allow_rollup && !evidence.allow_rollup, "no site can remove what another delivered");
        assert_eq!(blobs.name, "OBJ_edge_evidence_blobs");
    }

    #[test]
    fn limits_that_the_hub_chose_are_kept_and_promises_are_not_given_up() {
        let [planned, _] = &evidence_plan(&EvidenceConfig::default()).streams[..] else { panic!() };
        let found = stream::Config {
            max_bytes: 7,
            num_replicas: 3,
            max_age: Duration::from_secs(9),
            discard: DiscardPolicy::Old,
            discard_new_per_subject: false,
            ..planned.clone()
        };
        let wanted = with_limits_of(planned, &found);
        assert_eq!((wanted.max_bytes, wanted.num_replicas, wanted.max_age), (7, 3, Duration::from_secs(9)));
        assert!(wanted.discard == DiscardPolicy::New && wanted.discard_new_per_subject);
    }

    #[test]
    fn a_window_is_never_longer_than_the_age() {
        let config = EvidenceConfig {
            max_age: Duration::from_secs(3600),
            duplicate_window: Duration::from_secs(7200),
            ..EvidenceConfig::default()
        };
        assert!(evidence_plan(&config).streams.iter().all(|s| s.duplicate_window <= s.max_age));
    }
}
