//! An endpoint's consumers: made if missing, put right, and made again where they were when somebody deleted them.
//!
//! What is known of how far one had come is kept by the endpoint while it runs, so that a consumer that went away
//! neither skips what was not delivered nor begins with what was.

use crate::{
    endpoints::declaration::{Endpoint, Start},
    topology::{
        names::{self, STREAM_RETRIES},
        streams::{Error, Sources, api, stream_handle},
    },
};
use async_nats::jetstream::{
    Context,
    consumer::{self, AckPolicy, DeliverPolicy, ReplayPolicy, pull},
    context::ConsumerInfoErrorKind,
    response::Response,
    stream::{RetentionPolicy, Stream},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tracing::{info, warn};

/// Unacknowledged messages of one endpoint in all replicas: far more than they work on.
const MAX_ACK_PENDING: i64 = 8192;
/// JetStream's word for "no limit".
const UNLIMITED: i64 = -1;

/// How far consumers had come when they were last seen, by stream.
#[derive(Debug, Default)]
pub struct Floors(Mutex<BTreeMap<String, Floor>>);

/// How far one had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Floor {
    /// When the consumer was made, nanoseconds since 1970: a stream that is younger is another stream.
    consumer_made: i128,
    /// Everything up to this place is acknowledged.
    seq: u64,
}

impl Floors {
    /// It was seen. One that was recreated may start before where ours had come: that is remembered.
    fn saw(&self, stream: &str, waiting: &Waiting) {
        let floor = Floor { consumer_made: waiting.made, seq: waiting.ack_floor };
        let mut floors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_behind = |known: &Floor| known.consumer_made < floor.consumer_made && known.seq > floor.seq;
        if !floors.get(stream).is_some_and(is_behind) {
            floors.insert(stream.to_owned(), floor);
        }
    }

    /// Where a lost consumer would continue in a stream that existed then; `None` when that is not known.
    fn next(&self, stream: &str, stream_made: i128) -> Option<u64> {
        let floor = *self.0.lock().unwrap_or_else(PoisonError::into_inner).get(stream)?;
        (stream_made <= floor.consumer_made).then_some(floor.seq + 1)
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
    floors: &Floors,
) -> Result<(), Error> {
    let name = names::durable(env, &endpoint.name);
    for (stream, subjects) in &sources.streams {
        let stream = stream_handle(js, stream).await?;
        // A work queue hands out everything or nothing.
        let everything = stream.cached_info().config.retention == RetentionPolicy::WorkQueue;
        let info = stream.cached_info();
        let deliver_policy = match (floors.next(&info.config.name, info.created.unix_timestamp_nanos()), endpoint.start)
        {
            (Some(start_sequence), _) if !everything => DeliverPolicy::ByStartSequence { start_sequence },
            (None, Start::New) if !everything => DeliverPolicy::ByStartTime { start_time: known_since.into() },
            _ => DeliverPolicy::All,
        };
        consumer(&stream, wanted(&name, subjects.clone(), ack_wait, deliver_policy)).await?;
    }
    let retries = stream_handle(js, STREAM_RETRIES).await?;
    let due = vec![names::due(env, &endpoint.name)];
    consumer(&retries, wanted(&name, due, ack_wait, DeliverPolicy::All)).await
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

/// An existing one continues where it is: only differences are changed. One that cannot be changed like this (because
/// it was created differently) is recreated.
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
    if !is_of_our_kind(&found) {
        warn!(consumer = name, "created elsewhere in a way that cannot be changed; recreating");
        stream
            .delete_consumer(&name)
            .await
            .map_err(|e| api(format!("delete {place}, which cannot be changed"))(e.into()))?;
        stream.create_consumer(wanted).await.map_err(|e| api(format!("make {place}"))(e.into()))?;
        return Ok(());
    }
    let Some(changed) = changed(&found, &wanted) else { return Ok(()) };
    let changed = <pull::Config as consumer::FromConsumer>::try_from_consumer_config(changed)
        .map_err(api(format!("read {place}")))?;
    stream.update_consumer(changed).await.map_err(|e| api(format!("change {place}"))(e.into()))?;
    info!(consumer = name, "changed");
    Ok(())
}

/// Whether what cannot be changed is as it must be.
fn is_of_our_kind(found: &consumer::Config) -> bool {
    found.deliver_subject.is_none()
        && found.ack_policy == AckPolicy::Explicit
        && found.replay_policy == ReplayPolicy::Instant
        && found.durable_name.is_some()
}

/// As it must be, where it is not. Each of these fields would lose messages, hold them back or break requests.
fn changed(found: &consumer::Config, wanted: &pull::Config) -> Option<consumer::Config> {
    let changed = consumer::Config {
        filter_subject: wanted.filter_subject.clone(),
        filter_subjects: wanted.filter_subjects.clone(),
        ack_wait: wanted.ack_wait,
        max_ack_pending: wanted.max_ack_pending,
        max_deliver: wanted.max_deliver,
        backoff: Vec::new(),
        headers_only: false,
        max_batch: 0,
        max_bytes: 0,
        max_expires: Duration::ZERO,
        inactive_threshold: Duration::ZERO,
        ..found.clone()
    };
    (changed != *found).then_some(changed)
}

/// What a consumer has before it.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Messages, those included that are out without an acknowledgement.
    pub messages: u64,
    /// Everything up to this place is acknowledged.
    pub ack_floor: u64,
    /// When the consumer was made, nanoseconds since 1970.
    made: i128,
}

/// What a consumer has before it; how far it had come is remembered.
///
/// # Errors
/// The server does not answer, or there is no such consumer.
pub async fn waiting(js: &Context, stream: &str, durable: &str, floors: &Floors) -> Result<Waiting, Error> {
    let waiting = read_waiting(js, stream, durable).await?;
    floors.saw(stream, &waiting);
    Ok(waiting)
}

async fn read_waiting(js: &Context, stream: &str, durable: &str) -> Result<Waiting, Error> {
    let attempt = || format!("read consumer {durable} of stream {stream}");
    let found = js.request(format!("CONSUMER.INFO.{stream}.{durable}"), &serde_json::json!({})).await;
    match found.map_err(|e| api(attempt())(e.into()))? {
        Response::<consumer::Info>::Ok(info) => Ok(Waiting {
            messages: info.num_pending + info.num_ack_pending as u64,
            ack_floor: info.ack_floor.stream_sequence,
            made: info.created.unix_timestamp_nanos(),
        }),
        Response::Err { error } => Err(api(attempt())(error.to_string().into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_goes_on_where_it_was_in_the_same_stream_alone() {
        let floors = Floors::default();
        assert_eq!(floors.next("events", 10), None, "nothing is known");
        floors.saw("events", &Waiting { messages: 3, ack_floor: 41, made: 20 });
        assert_eq!(floors.next("events", 10), Some(42));
        assert_eq!(floors.next("events", 21), None, "the stream is younger than the consumer was");
        assert_eq!(floors.next("others", 10), None);
        floors.saw("events", &Waiting { messages: 41, ack_floor: 0, made: 25 });
        assert_eq!(floors.next("events", 10), Some(42), "somebody made it anew, and it begins at the beginning");
        floors.saw("events", &Waiting { messages: 0, ack_floor: 50, made: 25 });
        assert_eq!(floors.next("events", 10), Some(51));
    }

    #[test]
    fn what_somebody_set_otherwise_is_put_right_and_the_rest_left() {
        let wanted = wanted("c", vec!["a".into()], Duration::from_secs(30), DeliverPolicy::All);
        let ours = <pull::Config as consumer::IntoConsumerConfig>::into_consumer_config(wanted.clone());
        assert!(is_of_our_kind(&ours) && changed(&ours, &wanted).is_none());
        let of_somebody = consumer::Config {
            max_deliver: 5,
            headers_only: true,
            filter_subject: "b".into(),
            description: Some("theirs".into()),
            ..ours.clone()
        };
        let put_right = changed(&of_somebody, &wanted).unwrap();
        assert_eq!((put_right.max_deliver, put_right.headers_only, &*put_right.filter_subject), (-1, false, "a"));
        assert_eq!(put_right.description.as_deref(), Some("theirs"));
        assert!(!is_of_our_kind(&consumer::Config { ack_policy: AckPolicy::None, ..ours }));
    }
}
