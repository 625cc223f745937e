//! The broadcaster's streams and its bucket: created if missing, corrected if changed, never deleted.
//!
//! Retries, dead letters and states are the broadcaster's own. The stream of events belongs to the service that created
//! it first, so its limits stay as they are.

use crate::{
    error::chain,
    topology::{
        error::Error,
        names::{BUCKET_STATE, DLQ_FILTER, DUE_FILTER, PARKED_FILTER, STREAM_DLQ, STREAM_RETRIES},
        sources::stream_handle,
    },
};
use agentforge_jetstream::{
    Nats,
    topology::{Plan, Report, TopologyConfig, ensure, ensure_keeping_limits, events_plan},
};
use async_nats::jetstream::{
    Context, ErrorCode,
    stream::{self, DiscardPolicy, RetentionPolicy, StorageType},
};
use std::time::Duration;
use tracing::warn;

/// The size of the bucket of states: some thousand endpoints, and the document of those that the API made.
const STATE_BYTES_MAX: i64 = 4 << 20;
/// The server's default for a bucket, so that buckets of earlier releases stay as they are.
const STATE_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// What JetStream's API takes for "no limit".
const UNLIMITED: i64 = -1;
/// Where an account insists on a limit for each stream, that of retries is this many times the quota.
const BACKSTOP_FACTOR: u64 = 2;

/// Sizes and ages of the broadcaster's streams.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// The quota of retries, which `retry::quota` keeps.
    pub retries_max_bytes: u64,
    /// A retry that has been due for longer becomes a dead letter.
    pub retries_max_age: Duration,
    pub dlq_max_bytes: u64,
    pub dlq_max_age: Duration,
    pub history_max_bytes: u64,
    pub history_max_age: Duration,
}

/// The stream of retries has no limit that the server enforces. Servers from 2.12.9 and 2.14.2 on refuse a stream that
/// takes schedules and discards new messages, and do not even load a stored one; a stream that discards old messages
/// would lose events. So `retry::quota` keeps the limit, before each store.
fn retries_config(c: &TopologyConfig) -> stream::Config {
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
fn dlq_config(c: &TopologyConfig, limits: &StreamLimits) -> stream::Config {
    stream::Config {
        discard: DiscardPolicy::New,
        max_bytes: i64::try_from(limits.dlq_max_bytes).unwrap_or(i64::MAX),
        max_age: limits.dlq_max_age,
        ..base(c, STREAM_DLQ, &[DLQ_FILTER])
    }
}

/// What all streams of the broadcaster have in common.
pub(crate) fn base(c: &TopologyConfig, name: &str, subjects: &[&str]) -> stream::Config {
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

/// Creates the stream of retries. An account may insist on a limit for each stream: then it is far above the quota, so
/// that the server never discards a retry.
async fn ensure_retries(js: &Context, c: &TopologyConfig, limits: &StreamLimits) -> Result<Report, Error> {
    let wanted = retries_config(c);
    let error = match ensure(js, &plan_of(wanted.clone())).await {
        Ok(report) => {
            if report.created.iter().any(|name| name == STREAM_RETRIES) {
                report_recovered(js).await;
            }
            return Ok(report);
        }
        Err(error) => error,
    };
    if !error.is_refused_with(ErrorCode::STREAM_MAX_BYTES_REQUIRED) {
        return Err(error.into());
    }
    let has = js.get_stream(STREAM_RETRIES).await.map_or(0, |found| found.cached_info().config.max_bytes);
    let enough = i64::try_from(limits.retries_max_bytes.saturating_mul(BACKSTOP_FACTOR)).unwrap_or(i64::MAX);
    Ok(ensure(js, &plan_of(stream::Config { max_bytes: has.max(enough), ..wanted })).await?)
}

/// A plan of one stream.
pub(crate) fn plan_of(config: stream::Config) -> Plan {
    Plan { streams: vec![config], consumers: Vec::new() }
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

/// What the server and its streams can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether the server moves retries when they are due; otherwise the sweep does.
    pub schedules: bool,
}

/// Creates or corrects streams and bucket, and returns the names of those that were missing. One that cannot be created
/// does not keep the others from being created.
///
/// # Errors
/// The first that could not be created or corrected.
pub async fn ensure_all(
    nats: &Nats,
    config: &TopologyConfig,
    limits: &StreamLimits,
) -> Result<(Capabilities, Vec<String>), Error> {
    /// This runs every few seconds; one log line is enough.
    static REPORTED: std::sync::Once = std::sync::Once::new();
    let js = nats.jetstream();
    let mut created = Vec::new();
    match ensure_keeping_limits(js, events_plan(config)).await {
        Ok(report) => created.extend(report.created),
        Err(error) if error.is_retryable() => return Err(error.into()),
        // Another stream has these subjects: that one is read.
        Err(error) => REPORTED.call_once(|| {
            warn!(error = %chain(&error), "the stream of events is not created; another stream may have its subjects");
        }),
    }
    let retries = match ensure_retries(js, config, limits).await {
        // A server that did not answer this request will not answer the next ones.
        Err(error) if error.is_retryable() => return Err(error),
        retries => retries,
    };
    let dead_letters = ensure(js, &plan_of(dlq_config(config, limits))).await.map_err(Error::from);
    let bucket = ensure(js, &plan_of(bucket_config(config))).await;
    created.extend(retries?.created);
    created.extend(dead_letters?.created);
    created.extend(bucket?.created.into_iter().map(|_| BUCKET_STATE.to_owned()));
    Ok((Capabilities { schedules: takes_schedules(js).await? }, created))
}

/// The bucket's stream, as the client creates it for one value per key. No age: a paused endpoint stays paused.
fn bucket_config(c: &TopologyConfig) -> stream::Config {
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

/// Whether the stream of retries takes schedules. One that was created without them is changed, if permissions allow.
async fn takes_schedules(js: &Context) -> Result<bool, Error> {
    let config = stream_handle(js, STREAM_RETRIES).await?.cached_info().config.clone();
    if config.allow_message_schedules {
        return Ok(true);
    }
    let changed = js.update_stream(stream::Config { allow_message_schedules: true, ..config }).await;
    if let Err(error) = &changed {
        let error = chain(error);
        warn!(error, "stream {STREAM_RETRIES} takes no schedules; retries become due by the broadcaster's own sweep");
    }
    Ok(changed.is_ok_and(|info| info.config.allow_message_schedules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_lost_is_never_discarded() {
        let limits = StreamLimits {
            retries_max_bytes: 1 << 20,
            retries_max_age: Duration::from_secs(3600),
            dlq_max_bytes: 1 << 20,
            dlq_max_age: Duration::from_secs(3600),
            history_max_bytes: 1 << 20,
            history_max_age: Duration::from_secs(3600),
        };
        let dlq = dlq_config(&TopologyConfig::default(), &limits);
        assert!(dlq.discard == DiscardPolicy::New && dlq.max_bytes == 1 << 20 && dlq.storage == StorageType::File);
        let retries = retries_config(&TopologyConfig::default());
        assert!(retries.allow_message_schedules && retries.retention == RetentionPolicy::WorkQueue);
        assert_eq!(retries.storage, StorageType::File);
        assert_eq!(retries.discard, DiscardPolicy::Old, "with schedules the server takes no other");
        let limits = (retries.max_bytes, retries.max_messages, retries.max_messages_per_subject, retries.max_age);
        assert_eq!(limits, (UNLIMITED, UNLIMITED, UNLIMITED, Duration::ZERO), "so nothing is ever discarded");
    }
}
