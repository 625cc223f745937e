//! Streams, the bucket and an endpoint's consumers: made if missing, put right, never deleted.
//!
//! Retries and dead letters are ours. The stream of events belongs to whoever was first: its limits are
//! left as they are.

use crate::{
    config::{Config, Keeping},
    endpoint_file::{Endpoint, Start},
    margin::{self, Oldest},
    names::{self, BUCKET_STATE, DLQ_FILTER, DUE_FILTER, PARKED_FILTER, STREAM_DLQ, STREAM_RETRIES},
    outcome::chain,
};
use agentforge_jetstream::{
    Nats,
    topology::{self, Plan, TopologyConfig, ensure, ensure_keeping_limits, events_plan},
};
use async_nats::jetstream::{
    Context, ErrorCode,
    consumer::{self, AckPolicy, DeliverPolicy, pull},
    context::{ConsumerInfoErrorKind, GetStreamErrorKind},
    kv,
    response::Response,
    stream::{self, DiscardPolicy, RetentionPolicy, StorageType, Stream},
};
use jiff::Timestamp;
use std::time::{Duration, SystemTime};
use tracing::{info, warn};

/// Unacknowledged messages of one endpoint in all replicas: far more than they work on.
const MAX_ACK_PENDING: i64 = 8192;
/// What the state of endpoints may take, bytes.
const STATE_MAX_BYTES: i64 = 4 << 20;
/// JetStream's word for "no limit".
const UNLIMITED: i64 = -1;

/// Why there is not everything yet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A stream cannot be as it must be.
    #[error(transparent)]
    Topology(#[from] topology::Error),
    /// The bucket cannot be made.
    #[error("make the bucket {BUCKET_STATE}")]
    Bucket(#[source] async_nats::jetstream::context::CreateKeyValueError),
    /// The server does not answer, or refuses.
    #[error("{attempt}: {reason}")]
    Api {
        /// What was attempted.
        attempt: String,
        /// What the server said.
        reason: String,
    },
}

fn api(attempt: impl Into<String>) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Error {
    let attempt = attempt.into();
    move |e| Error::Api { attempt, reason: chain(&*e) }
}

/// The streams of retries and dead letters.
fn own_plan(c: &TopologyConfig, keeping: &Keeping) -> Plan {
    let base = |name: &str, subjects: &[&str], max_bytes: u64, max_age| stream::Config {
        name: name.to_owned(),
        subjects: subjects.iter().map(|s| (*s).to_owned()).collect(),
        storage: StorageType::File,
        // What must not be lost is refused, and whoever wants to store it waits.
        discard: DiscardPolicy::New,
        max_bytes: i64::try_from(max_bytes).unwrap_or(i64::MAX),
        max_age,
        max_messages: UNLIMITED,
        max_messages_per_subject: UNLIMITED,
        max_consumers: -1,
        num_replicas: c.replicas,
        duplicate_window: c.duplicate_window,
        allow_direct: true,
        ..Default::default()
    };
    let Keeping { retries_max_bytes, dlq_max_bytes, dlq_max_age, .. } = *keeping;
    let retries = stream::Config {
        retention: RetentionPolicy::WorkQueue,
        allow_message_schedules: true,
        // A schedule takes the place of the one before it on its subject.
        allow_rollup: true,
        // Without an age: what waits too long becomes a dead letter, and does not vanish.
        ..base(STREAM_RETRIES, &[PARKED_FILTER, DUE_FILTER], retries_max_bytes, Duration::ZERO)
    };
    Plan { streams: vec![retries, base(STREAM_DLQ, &[DLQ_FILTER], dlq_max_bytes, dlq_max_age)], consumers: Vec::new() }
}

/// What came of making everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Whether the server brings retries when they are due; else our own look does.
    pub schedules: bool,
}

/// Makes streams and bucket.
///
/// # Errors
/// The first that could not be made.
pub async fn make(nats: &Nats, config: &Config) -> Result<Made, Error> {
    let js = nats.jetstream();
    if let Err(error) = ensure_keeping_limits(js, events_plan(&config.topology)).await {
        match error.is_retryable() {
            true => return Err(error.into()),
            // Somebody keeps these subjects in a stream of another name: that one is read.
            false => warn!(error = %chain(&error), "the stream of events is not made; another may have its subjects"),
        }
    }
    ensure(js, &own_plan(&config.topology, &config.keeping)).await?;
    let made = Made { schedules: takes_schedules(js).await? };
    if js.get_key_value(BUCKET_STATE).await.is_err() {
        let bucket = kv::Config {
            bucket: BUCKET_STATE.to_owned(),
            history: 1,
            max_bytes: STATE_MAX_BYTES,
            num_replicas: config.topology.replicas,
            ..Default::default()
        };
        js.create_key_value(bucket).await.map_err(Error::Bucket)?;
    }
    Ok(made)
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
        warn!(error, "stream {STREAM_RETRIES} takes no schedules; retries are brought by our own look");
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

/// Makes an endpoint's consumers: one on each stream of its events, one for its due retries.
///
/// # Errors
/// The first that could not be made.
pub async fn consumers(
    js: &Context,
    env: &str,
    endpoint: &Endpoint,
    sources: &Sources,
    ack_wait: Duration,
    known_since: SystemTime,
) -> Result<(), Error> {
    let name = names::durable(env, &endpoint.name);
    for (stream, subjects) in &sources.streams {
        let stream = stream_handle(js, stream).await?;
        // A work queue hands out everything or nothing.
        let everything = stream.cached_info().config.retention == RetentionPolicy::WorkQueue;
        let deliver_policy = match endpoint.start {
            Start::New if !everything => DeliverPolicy::ByStartTime { start_time: known_since.into() },
            _ => DeliverPolicy::All,
        };
        consumer(&stream, wanted(&name, subjects.clone(), ack_wait, deliver_policy)).await?;
    }
    let retries = stream_handle(js, STREAM_RETRIES).await?;
    let due = vec![names::due(env, &endpoint.name)];
    consumer(&retries, wanted(&name, due, ack_wait, DeliverPolicy::All)).await
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

async fn stream_handle(js: &Context, name: &str) -> Result<Stream, Error> {
    js.get_stream(name).await.map_err(|e| {
        let attempt = match e.kind() {
            GetStreamErrorKind::JetStream(_) => format!("read stream {name}, which is gone"),
            _ => format!("read stream {name}"),
        };
        api(attempt)(e.into())
    })
}

fn wanted(name: &str, mut subjects: Vec<String>, ack_wait: Duration, deliver_policy: DeliverPolicy) -> pull::Config {
    let (filter_subject, filter_subjects) = match subjects.len() {
        1 => (subjects.remove(0), Vec::new()),
        _ => (String::new(), subjects),
    };
    pull::Config {
        durable_name: Some(name.to_owned()),
        name: Some(name.to_owned()),
        description: Some("webhooks of one endpoint".to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait,
        filter_subject,
        filter_subjects,
        deliver_policy,
        max_ack_pending: MAX_ACK_PENDING,
        // Who gives up on a message is decided here, and written into its record.
        max_deliver: UNLIMITED,
        ..Default::default()
    }
}

/// One that exists goes on where it is: only what may change is changed.
async fn consumer(stream: &Stream, wanted: pull::Config) -> Result<(), Error> {
    let name = wanted.name.clone().unwrap_or_default();
    let place = format!("consumer {name} of stream {}", stream.cached_info().config.name);
    let found = match stream.consumer_info(&name).await {
        Ok(info) => info.config,
        Err(e) if e.kind() == ConsumerInfoErrorKind::NotFound => {
            stream.create_consumer(wanted).await.map_err(|e| api(format!("make {place}"))(e.into()))?;
            info!(consumer = name, "created");
            return Ok(());
        }
        Err(e) => return Err(api(format!("read {place}"))(e.into())),
    };
    let is_same = found.filter_subject == wanted.filter_subject
        && found.filter_subjects == wanted.filter_subjects
        && found.ack_wait == wanted.ack_wait
        && found.max_ack_pending == wanted.max_ack_pending;
    if is_same {
        return Ok(());
    }
    let changed = consumer::Config {
        filter_subject: wanted.filter_subject,
        filter_subjects: wanted.filter_subjects,
        ack_wait: wanted.ack_wait,
        max_ack_pending: wanted.max_ack_pending,
        ..found
    };
    let changed = <pull::Config as consumer::FromConsumer>::try_from_consumer_config(changed)
        .map_err(api(format!("read {place}")))?;
    stream.update_consumer(changed).await.map_err(|e| api(format!("change {place}"))(e.into()))?;
    info!(consumer = name, "changed");
    Ok(())
}

/// What a consumer has before it.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Messages, those included that are out without an acknowledgement.
    pub messages: u64,
    /// Everything up to this place is acknowledged.
    pub ack_floor: u64,
}

/// What a consumer has before it.
///
/// # Errors
/// The server does not answer, or there is no such consumer.
pub async fn waiting(js: &Context, stream: &str, durable: &str) -> Result<Waiting, Error> {
    let attempt = || format!("read consumer {durable} of stream {stream}");
    let found = js.request(format!("CONSUMER.INFO.{stream}.{durable}"), &serde_json::json!({})).await;
    match found.map_err(|e| api(attempt())(e.into()))? {
        Response::<consumer::Info>::Ok(info) => Ok(Waiting {
            messages: info.num_pending + info.num_ack_pending as u64,
            ack_floor: info.ack_floor.stream_sequence,
        }),
        Response::Err { error } => Err(api(attempt())(error.to_string().into())),
    }
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
    fn what_must_not_be_lost_is_refused_and_not_discarded() {
        let keeping = Keeping {
            retries_max_bytes: 1 << 20,
            retries_max_age: Duration::from_secs(3600),
            dlq_max_bytes: 1 << 20,
            dlq_max_age: Duration::from_secs(3600),
        };
        let plan = own_plan(&TopologyConfig::default(), &keeping);
        for s in &plan.streams {
            assert!(s.discard == DiscardPolicy::New && s.storage == StorageType::File && s.max_bytes > 0, "{}", s.name);
        }
        let retries = &plan.streams[0];
        assert!(retries.allow_message_schedules && retries.retention == RetentionPolicy::WorkQueue);
        assert_eq!(retries.max_age, Duration::ZERO, "what waits too long must not vanish");
    }
}
