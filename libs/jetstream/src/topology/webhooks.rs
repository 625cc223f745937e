//! The streams and the bucket of webhooks: retries, dead letters, attempts, states; their settings and definitions.
//!
//! A plan of its own, because only the broadcaster reads and writes them and is independent of jobs.

use super::{
    config::TopologyConfig,
    ensure::{Error, Report, ensure_by},
    maker::Maker,
    plan::{Plan, UNLIMITED, signed},
};
use agentforge_config::{ByteSize, Reader, Setting};
use async_nats::jetstream::{
    Context, ErrorCode,
    stream::{self, Compression, DiscardPolicy, RetentionPolicy, StorageType},
};
use std::time::Duration;
use tracing::warn;

/// Retries: parked until they are due, and due.
pub const STREAM_RETRIES: &str = "broadcaster_retries";
/// Messages that no endpoint was given.
pub const STREAM_WEBHOOK_DLQ: &str = "broadcaster_dlq";
/// What became of each attempt.
pub const STREAM_DELIVERIES: &str = "broadcaster_deliveries";
/// Disabled endpoints and open circuits.
pub const BUCKET_STATE: &str = "broadcaster_state";
/// The subjects of retries that wait for their time.
pub const PARKED_FILTER: &str = "broadcaster.parked.>";
/// The subjects of retries whose time has come.
pub const DUE_FILTER: &str = "broadcaster.due.>";
/// Every dead letter of a webhook.
pub const WEBHOOK_DLQ_FILTER: &str = "broadcaster.dlq.>";
/// Every record of an attempt.
pub const DELIVERIES_FILTER: &str = "broadcaster.deliveries.*";

/// The quota of retries.
pub const BROADCASTER_RETRIES_MAX_BYTES: Setting = Setting::new(
    "BROADCASTER_RETRIES_MAX_BYTES",
    Some("1GiB"),
    "size 1MiB-1PiB",
    "Size of the stream of retries. When it is full, failing endpoints are not read; nothing is \
     discarded.",
);
/// How long a retry may be due.
pub const BROADCASTER_RETRIES_MAX_AGE: Setting = Setting::new(
    "BROADCASTER_RETRIES_MAX_AGE",
    Some("14d"),
    "duration 1s-1000d",
    "How long a due message waits for an endpoint that does not recover, or is no longer configured. Then it \
     becomes a dead letter.",
);
/// The size of the stream of dead letters.
pub const BROADCASTER_DLQ_MAX_BYTES: Setting = Setting::new(
    "BROADCASTER_DLQ_MAX_BYTES",
    Some("256MiB"),
    "size 1MiB-1PiB",
    "Size of the stream of dead letters. When it is full, endpoints that need it are not read.",
);
/// The age at which dead letters go.
pub const BROADCASTER_DLQ_MAX_AGE: Setting =
    Setting::new("BROADCASTER_DLQ_MAX_AGE", Some("30d"), "duration 1h-1000d", "How long dead letters are kept.");
/// The size of the stream of attempts.
pub const BROADCASTER_HISTORY_MAX_BYTES: Setting = Setting::new(
    "BROADCASTER_HISTORY_MAX_BYTES",
    Some("256MiB"),
    "size 1MiB-1PiB",
    "Size of the stream of delivery attempts. When it is full, the oldest are discarded.",
);
/// The age at which attempts go.
pub const BROADCASTER_HISTORY_MAX_AGE: Setting = Setting::new(
    "BROADCASTER_HISTORY_MAX_AGE",
    Some("7d"),
    "duration 1h-1000d",
    "How long delivery attempts are kept.",
);

const SETTINGS: [Setting; 6] = [
    BROADCASTER_RETRIES_MAX_BYTES,
    BROADCASTER_RETRIES_MAX_AGE,
    BROADCASTER_DLQ_MAX_BYTES,
    BROADCASTER_DLQ_MAX_AGE,
    BROADCASTER_HISTORY_MAX_BYTES,
    BROADCASTER_HISTORY_MAX_AGE,
];

/// The size of the bucket of states: some thousand endpoints, and the document of those that the API made.
const STATE_BYTES_MAX: i64 = 4 << 20;
/// The server's default for a bucket, so that buckets of earlier releases stay as they are.
const STATE_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// Where an account insists on a limit for each stream, that of retries is this many times the quota.
const BACKSTOP_FACTOR: u64 = 2;
const HOUR: Duration = Duration::from_secs(3600);
const DAYS_1000: Duration = Duration::from_secs(1000 * 24 * 3600);

/// Sizes and ages of the streams of webhooks.
#[derive(Debug, Clone, Copy)]
pub struct WebhookLimits {
    /// The quota of retries, which the broadcaster keeps.
    pub retries_max_bytes: u64,
    /// A retry that has been due for longer becomes a dead letter.
    pub retries_max_age: Duration,
    /// Size of the stream of dead letters, in bytes.
    pub dlq_max_bytes: u64,
    /// Age at which dead letters go.
    pub dlq_max_age: Duration,
    /// Size of the stream of attempts, in bytes.
    pub history_max_bytes: u64,
    /// Age at which attempts go.
    pub history_max_age: Duration,
}

impl WebhookLimits {
    /// The declarations, in the order of reading.
    pub const SETTINGS: &'static [Setting] = &SETTINGS;

    /// Reads the settings; faults are the reader's.
    pub fn read(r: &mut Reader<'_>) -> Self {
        let bytes = |r: &mut Reader<'_>, s| r.get_in(s, ByteSize(1 << 20)..=ByteSize(1 << 50)).bytes();
        Self {
            retries_max_bytes: bytes(r, &BROADCASTER_RETRIES_MAX_BYTES),
            retries_max_age: r.get_in(&BROADCASTER_RETRIES_MAX_AGE, Duration::from_secs(1)..=DAYS_1000),
            dlq_max_bytes: bytes(r, &BROADCASTER_DLQ_MAX_BYTES),
            dlq_max_age: r.get_in(&BROADCASTER_DLQ_MAX_AGE, HOUR..=DAYS_1000),
            history_max_bytes: bytes(r, &BROADCASTER_HISTORY_MAX_BYTES),
            history_max_age: r.get_in(&BROADCASTER_HISTORY_MAX_AGE, HOUR..=DAYS_1000),
        }
    }
}

impl Default for WebhookLimits {
    /// The declared defaults.
    fn default() -> Self {
        let nothing_set = std::collections::BTreeMap::<String, String>::new();
        Self::read(&mut Reader::new(&nothing_set))
    }
}

/// The stream of retries has no limit that the server enforces. Servers from 2.12.9 and 2.14.2 on refuse a stream that
/// takes schedules and discards new messages, and do not even load a stored one; a stream that discards old messages
/// would lose events. So the broadcaster keeps the limit, before each store.
fn retries(c: &TopologyConfig) -> stream::Config {
    stream::Config {
        retention: RetentionPolicy::WorkQueue,
        allow_message_schedules: true,
        // A schedule replaces the one before it on its subject.
        allow_rollup: true,
        discard: DiscardPolicy::Old,
        max_bytes: UNLIMITED,
        // No age: a retry that waits too long becomes a dead letter instead of vanishing.
        max_age: Duration::ZERO,
        ..base(c, STREAM_RETRIES, &[PARKED_FILTER, DUE_FILTER])
    }
}

/// The stream of dead letters. When it is full it refuses new ones, and their endpoints wait: nothing is lost.
fn dead_letters(c: &TopologyConfig, limits: &WebhookLimits) -> stream::Config {
    stream::Config {
        discard: DiscardPolicy::New,
        max_bytes: signed(limits.dlq_max_bytes),
        max_age: limits.dlq_max_age,
        ..base(c, STREAM_WEBHOOK_DLQ, &[WEBHOOK_DLQ_FILTER])
    }
}

/// The bucket's stream, as the client creates it for one value per key. No age: a paused endpoint stays paused.
fn states(c: &TopologyConfig) -> stream::Config {
    stream::Config {
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        max_messages_per_subject: 1,
        max_bytes: STATE_BYTES_MAX,
        duplicate_window: STATE_DUPLICATE_WINDOW,
        ..base(c, &format!("KV_{BUCKET_STATE}"), &[&format!("$KV.{BUCKET_STATE}.>")])
    }
}

/// The stream of attempts, which are for people: old ones that are no longer requested are dropped.
pub fn deliveries_plan(c: &TopologyConfig, limits: &WebhookLimits) -> Plan {
    plan_of(stream::Config {
        description: Some("what became of each attempt to deliver an event".to_owned()),
        discard: DiscardPolicy::Old,
        max_bytes: signed(limits.history_max_bytes),
        max_age: limits.history_max_age,
        compression: Some(Compression::S2),
        ..base(c, STREAM_DELIVERIES, &[DELIVERIES_FILTER])
    })
}

/// The stream of dead letters and the bucket of states.
pub fn webhooks_plan(c: &TopologyConfig, limits: &WebhookLimits) -> Plan {
    Plan { streams: vec![dead_letters(c, limits), states(c)], consumers: Vec::new() }
}

/// What all of them have in common.
fn base(c: &TopologyConfig, name: &str, subjects: &[&str]) -> stream::Config {
    stream::Config {
        name: name.to_owned(),
        subjects: subjects.iter().map(|s| (*s).to_owned()).collect(),
        storage: StorageType::File,
        max_messages: UNLIMITED,
        max_messages_per_subject: UNLIMITED,
        max_consumers: -1,
        num_replicas: c.replicas,
        duplicate_window: c.duplicate_window,
        allow_direct: true,
        ..Default::default()
    }
}

fn plan_of(config: stream::Config) -> Plan {
    Plan { streams: vec![config], consumers: Vec::new() }
}

/// Creates the stream of retries. An account may insist on a limit for each stream: then it is far above the quota, so
/// that the server never discards a retry.
///
/// # Errors
/// See [`Error`].
pub async fn ensure_retries(
    js: &Context,
    c: &TopologyConfig,
    limits: &WebhookLimits,
    maker: Maker,
) -> Result<Report, Error> {
    let wanted = retries(c);
    let error = match ensure_by(js, &plan_of(wanted.clone()), maker).await {
        Ok(report) => {
            if report.created.iter().any(|name| name == STREAM_RETRIES) {
                report_recovered(js).await;
            }
            return Ok(report);
        }
        Err(error) => error,
    };
    if !error.is_refused_with(ErrorCode::STREAM_MAX_BYTES_REQUIRED) {
        return Err(error);
    }
    let has = js.get_stream(STREAM_RETRIES).await.map_or(0, |found| found.cached_info().config.max_bytes);
    let enough = signed(limits.retries_max_bytes.saturating_mul(BACKSTOP_FACTOR));
    ensure_by(js, &plan_of(stream::Config { max_bytes: has.max(enough), ..wanted }), maker).await
}

/// A server that cannot load a stream leaves its files, and a stream that is created in the same place reads them.
async fn report_recovered(js: &Context) {
    let Ok(stream) = js.get_stream(STREAM_RETRIES).await else { return };
    let messages = stream.cached_info().state.messages;
    if messages > 0 {
        warn!(
            messages,
            "stream {STREAM_RETRIES} was not loaded by the server; recreated with the contents of its files"
        );
    }
}

/// Whether the stream of retries takes schedules, as far as it is ours to change: one that was created without them is
/// changed, if permissions allow.
///
/// # Errors
/// The server does not answer, or the stream is gone.
pub async fn takes_schedules(
    js: &Context,
    maker: Maker,
) -> Result<bool, async_nats::jetstream::context::GetStreamError> {
    let config = js.get_stream(STREAM_RETRIES).await?.cached_info().config.clone();
    if config.allow_message_schedules || maker == Maker::Wait {
        return Ok(config.allow_message_schedules);
    }
    let changed = js.update_stream(stream::Config { allow_message_schedules: true, ..config }).await;
    if let Err(error) = &changed {
        let error = error as &dyn std::error::Error;
        warn!(error, "stream {STREAM_RETRIES} takes no schedules; retries become due by the broadcaster's own sweep");
    }
    Ok(changed.is_ok_and(|info| info.config.allow_message_schedules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_lost_is_never_discarded() {
        let (config, limits) = (TopologyConfig::default(), WebhookLimits::default());
        let [dlq, _] = &webhooks_plan(&config, &limits).streams[..] else { panic!() };
        assert!(dlq.discard == DiscardPolicy::New && dlq.max_bytes == 256 << 20 && dlq.storage == StorageType::File);
        let retries = retries(&config);
        assert!(retries.allow_message_schedules && retries.retention == RetentionPolicy::WorkQueue);
        assert_eq!(retries.storage, StorageType::File);
        assert_eq!(retries.discard, DiscardPolicy::Old, "with schedules the server takes no other");
        let limits = (retries.max_bytes, retries.max_messages, retries.max_messages_per_subject, retries.max_age);
        assert_eq!(limits, (UNLIMITED, UNLIMITED, UNLIMITED, Duration::ZERO), "so nothing is ever discarded");
    }

    #[test]
    fn the_past_makes_room_and_is_bounded() {
        let limits = WebhookLimits { history_max_bytes: 1 << 20, ..WebhookLimits::default() };
        let [attempts] = &deliveries_plan(&TopologyConfig::default(), &limits).streams[..] else { panic!() };
        assert_eq!(
            (attempts.discard, attempts.max_bytes, attempts.max_age),
            (DiscardPolicy::Old, 1 << 20, limits.history_max_age)
        );
        assert_eq!(attempts.subjects, ["broadcaster.deliveries.*"]);
    }
}
