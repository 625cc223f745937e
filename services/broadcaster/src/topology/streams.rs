//! Streams and the bucket: made if missing, put right, never deleted; and where an endpoint's events come from.
//! Retries and dead letters are ours. The stream of events belongs to the service that created it: its limits are left
//! unchanged.

use crate::{
    config::{Config, Keeping},
    delivery::outcome::chain,
    endpoints::declaration::Endpoint,
    topology::{
        consumers::Waiting,
        names::{self, BUCKET_STATE, DLQ_FILTER, DUE_FILTER, PARKED_FILTER, STREAM_DLQ, STREAM_RETRIES},
        retention::{self as margin, Oldest},
    },
};
use agentforge_jetstream::{
    Nats,
    topology::{self, Plan, Report, TopologyConfig, ensure, ensure_keeping_limits, events_plan},
};
use async_nats::jetstream::{
    Context, ErrorCode,
    context::GetStreamErrorKind,
    response::Response,
    stream::{self, DiscardPolicy, RetentionPolicy, StorageType, Stream},
};
use jiff::Timestamp;
use std::time::Duration;
use tracing::warn;

/// What the state of endpoints may take, bytes.
const STATE_MAX_BYTES: i64 = 4 << 20;
/// The server's own default for a bucket.
const STATE_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// JetStream's word for "no limit".
const UNLIMITED: i64 = -1;
/// Where the server insists on a limit of the stream of retries, it is so many times ours.
const BACKSTOP: u64 = 2;

/// Why there is not everything yet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A stream cannot be as it must be.
    #[error(transparent)]
    Topology(#[from] topology::Error),
    /// The server does not answer, or refuses.
    #[error("{attempt}: {reason}")]
    Api {
        /// What was attempted.
        attempt: String,
        /// What the server said.
        reason: String,
    },
}

impl Error {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Topology(error) if error.is_retryable())
    }
}

pub(crate) fn api(attempt: impl Into<String>) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Error {
    let attempt = attempt.into();
    move |e| Error::Api { attempt, reason: chain(&*e) }
}

/// The stream of retries: without a limit that the server keeps. A stream that takes schedules may not refuse what is
/// new (servers from 2.12.9 and 2.14.2 on do not even load such a one), and one that discards what is old would lose
/// events; so the room for retries is looked after before each store.
fn retries_config(c: &TopologyConfig) -> stream::Config {
    stream::Config {
        retention: RetentionPolicy::WorkQueue,
        allow_message_schedules: true,
        // A schedule takes the place of the one before it on its subject.
        allow_rollup: true,
        discard: DiscardPolicy::Old,
        max_bytes: UNLIMITED,
        // Without an age: what waits too long becomes a dead letter, and does not vanish.
        max_age: Duration::ZERO,
        ..base(c, STREAM_RETRIES, &[PARKED_FILTER, DUE_FILTER])
    }
}

/// The stream of dead letters. It refuses when full, and messages that should be stored wait.
fn dlq_config(c: &TopologyConfig, keeping: &Keeping) -> stream::Config {
    stream::Config {
        discard: DiscardPolicy::New,
        max_bytes: i64::try_from(keeping.dlq_max_bytes).unwrap_or(i64::MAX),
        max_age: keeping.dlq_max_age,
        ..base(c, STREAM_DLQ, &[DLQ_FILTER])
    }
}

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

/// Makes the stream of retries. An account may want a limit for each stream: then it is far above what is stored, so
/// that nothing is ever discarded.
async fn ensure_retries(js: &Context, c: &TopologyConfig, keeping: &Keeping) -> Result<Report, Error> {
    let wanted = retries_config(c);
    let error = match ensure(js, &one(wanted.clone())).await {
        Ok(report) => {
            if report.created.iter().any(|name| name == STREAM_RETRIES) {
                tell_what_was_found(js).await;
            }
            return Ok(report);
        }
        Err(error) => error,
    };
    if !error.is_refused_with(ErrorCode::STREAM_MAX_BYTES_REQUIRED) {
        return Err(error.into());
    }
    let has = js.get_stream(STREAM_RETRIES).await.map_or(0, |found| found.cached_info().config.max_bytes);
    let enough = i64::try_from(keeping.retries_max_bytes.saturating_mul(BACKSTOP)).unwrap_or(i64::MAX);
    Ok(ensure(js, &one(stream::Config { max_bytes: has.max(enough), ..wanted })).await?)
}

pub(crate) fn one(config: stream::Config) -> Plan {
    Plan { streams: vec![config], consumers: Vec::new() }
}

/// A server that could not load a stream leaves its files, and one that is made in the same place has what is in them.
async fn tell_what_was_found(js: &Context) {
    let Ok(stream) = js.get_stream(STREAM_RETRIES).await else { return };
    let messages = stream.cached_info().state.messages;
    if messages > 0 {
        warn!(
            messages,
            "stream {STREAM_RETRIES} was not loaded by the server; recreated with the contents of its files"
        );
    }
}

/// What came of making everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Whether the server brings retries when they are due; else our own look does.
    pub schedules: bool,
}

/// Makes streams and bucket, and says which were not there. One that cannot be made does not keep the others from
/// being made.
///
/// # Errors
/// The first that could not be made.
pub async fn make(nats: &Nats, config: &Config) -> Result<(Made, Vec<String>), Error> {
    /// It is looked at every few seconds.
    static SAID: std::sync::Once = std::sync::Once::new();
    let js = nats.jetstream();
    let mut created = Vec::new();
    match ensure_keeping_limits(js, events_plan(&config.topology)).await {
        Ok(report) => created.extend(report.created),
        Err(error) if error.is_retryable() => return Err(error.into()),
        // Somebody keeps these subjects in a stream of another name: that one is read.
        Err(error) => SAID.call_once(|| {
            warn!(error = %chain(&error), "the stream of events is not created; another stream may have its subjects");
        }),
    }
    let retries = match ensure_retries(js, &config.topology, &config.keeping).await {
        // A server that does not answer this does not answer the rest.
        Err(error) if error.is_retryable() => return Err(error),
        retries => retries,
    };
    let dead_letters = ensure(js, &one(dlq_config(&config.topology, &config.keeping))).await.map_err(Error::from);
    let bucket = ensure(js, &one(bucket_config(&config.topology))).await;
    created.extend(retries?.created);
    created.extend(dead_letters?.created);
    created.extend(bucket?.created.into_iter().map(|_| BUCKET_STATE.to_owned()));
    Ok((Made { schedules: takes_schedules(js).await? }, created))
}

/// The bucket's stream, as the client makes it for a bucket of one value per key. Without an age: what is paused stays so.
fn bucket_config(c: &TopologyConfig) -> stream::Config {
    stream::Config {
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        max_messages_per_subject: 1,
        max_bytes: STATE_MAX_BYTES,
        duplicate_window: STATE_DUPLICATE_WINDOW,
        ..base(c, &format!("KV_{BUCKET_STATE}"), &[&format!("$KV.{BUCKET_STATE}.>")])
    }
}

/// Whether the stream of retries takes schedules. One that somebody made without them is changed, where we may.
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

/// Where an endpoint's events come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Streams with the subjects that are read from each.
    pub streams: Vec<(String, Vec<String>)>,
    /// Subjects that no stream keeps.
    pub homeless: Vec<String>,
}

/// Finds the streams of an endpoint's subjects.
///
/// # Errors
/// The server does not answer.
pub async fn sources(js: &Context, endpoint: &Endpoint) -> Result<Sources, Error> {
    let mut sources = Sources::default();
    for subject in &endpoint.subjects {
        match stream_of(js, subject).await? {
            None => sources.homeless.push(subject.clone()),
            Some(stream) => match sources.streams.iter_mut().find(|(name, _)| *name == stream) {
                Some((_, subjects)) => subjects.push(subject.clone()),
                None => sources.streams.push((stream, vec![subject.clone()])),
            },
        }
    }
    Ok(sources)
}

async fn stream_of(js: &Context, subject: &str) -> Result<Option<String>, Error> {
    #[derive(serde::Deserialize)]
    struct Names {
        #[serde(default)]
        streams: Option<Vec<String>>,
    }
    let attempt = || format!("find the stream of {subject}");
    let found = js.request("STREAM.NAMES", &serde_json::json!({ "subject": subject })).await;
    match found.map_err(|e| api(attempt())(e.into()))? {
        Response::Ok(Names { streams }) => {
            Ok(streams.unwrap_or_default().into_iter().find(|name| !name.starts_with("KV_")))
        }
        Response::Err { error } => Err(api(attempt())(error.to_string().into())),
    }
}

/// Removes an endpoint's consumers.
///
/// # Errors
/// The server does not answer.
pub async fn forget(js: &Context, env: &str, endpoint: &Endpoint) -> Result<(), Error> {
    let name = names::durable(env, &endpoint.name);
    let streams = sources(js, endpoint).await?.streams.into_iter().map(|(stream, _)| stream);
    for stream in streams.chain([STREAM_RETRIES.to_owned()]) {
        let stream = stream_handle(js, &stream).await?;
        // Another replica may have been first.
        let _ = stream.delete_consumer(&name).await;
    }
    Ok(())
}

pub(crate) async fn stream_handle(js: &Context, name: &str) -> Result<Stream, Error> {
    js.get_stream(name).await.map_err(|e| {
        let attempt = match e.kind() {
            GetStreamErrorKind::JetStream(_) => format!("read stream {name}, which is gone"),
            _ => format!("read stream {name}"),
        };
        api(attempt)(e.into())
    })
}

/// Whether what a consumer has before it may stay in the stream for now, at the server's time.
///
/// # Errors
/// The server does not answer.
pub async fn may_wait(js: &Context, stream: &str, waiting: Waiting, now: Timestamp) -> Result<bool, Error> {
    if waiting.messages == 0 {
        return Ok(true);
    }
    let seq = waiting.ack_floor + 1;
    let stream = stream_handle(js, stream).await?;
    let info = stream.cached_info();
    let stored = match margin::asks_for_age(&info.config) {
        true => stored_at(js, &info.config.name, seq).await?,
        false => None,
    };
    Ok(margin::may_wait(&info.config, &info.state, Oldest { seq, stored }, now))
}

/// When the first message from `seq` on was stored.
async fn stored_at(js: &Context, stream: &str, seq: u64) -> Result<Option<Timestamp>, Error> {
    #[derive(serde::Deserialize)]
    struct Found {
        message: Stored,
    }
    #[derive(serde::Deserialize)]
    struct Stored {
        time: Timestamp,
    }
    let attempt = || format!("read stream {stream} from {seq} on");
    let wanted = serde_json::json!({ "seq": seq, "next_by_subj": ">" });
    match js.request(format!("STREAM.MSG.GET.{stream}"), &wanted).await.map_err(|e| api(attempt())(e.into()))? {
        Response::Ok(Found { message }) => Ok(Some(message.time)),
        Response::Err { error } if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(None),
        Response::Err { error } => Err(api(attempt())(error.to_string().into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_lost_is_never_discarded() {
        let keeping = Keeping {
            retries_max_bytes: 1 << 20,
            retries_max_age: Duration::from_secs(3600),
            dlq_max_bytes: 1 << 20,
            dlq_max_age: Duration::from_secs(3600),
        };
        let dlq = dlq_config(&TopologyConfig::default(), &keeping);
        assert!(dlq.discard == DiscardPolicy::New && dlq.max_bytes == 1 << 20 && dlq.storage == StorageType::File);
        let retries = retries_config(&TopologyConfig::default());
        assert!(retries.allow_message_schedules && retries.retention == RetentionPolicy::WorkQueue);
        assert_eq!(retries.storage, StorageType::File);
        assert_eq!(retries.discard, DiscardPolicy::Old, "with schedules the server takes no other");
        let limits = (retries.max_bytes, retries.max_messages, retries.max_messages_per_subject, retries.max_age);
        assert_eq!(limits, (UNLIMITED, UNLIMITED, UNLIMITED, Duration::ZERO), "so nothing is ever discarded");
    }
}
