//! An endpoint's consumers: created if missing, corrected if changed, and created again where they were if deleted.

use crate::{
    endpoints::declaration::{Endpoint, Start},
    topology::{
        backlog::AckFloors,
        error::{Error, api},
        names::{self, STREAM_RETRIES},
        sources::{EventSources, stream_handle},
    },
};
use async_nats::jetstream::{
    Context,
    consumer::{self, AckPolicy, DeliverPolicy, ReplayPolicy, pull},
    context::ConsumerInfoErrorKind,
    stream::{RetentionPolicy, Stream},
};
use std::time::{Duration, SystemTime};
use tracing::{info, warn};

/// Unacknowledged messages of one endpoint in all replicas, at most: far more than they process at once.
const MAX_ACK_PENDING: i64 = 8192;
/// What JetStream's API takes for "no limit".
const UNLIMITED: i64 = -1;

/// Creates or corrects an endpoint's consumers: one on each stream of its events, one for its due retries.
///
/// A consumer that is missing starts behind the last message that is known to be acknowledged. Where nothing is known,
/// it starts with the events since the broadcaster has known the endpoint (`known_since`), unless the endpoint wants all.
///
/// # Errors
/// The first that could not be created or corrected.
pub async fn ensure_consumers(
    js: &Context,
    env: &str,
    endpoint: &Endpoint,
    sources: &EventSources,
    ack_wait: Duration,
    known_since: SystemTime,
    floors: &AckFloors,
) -> Result<(), Error> {
    let name = names::durable(env, &endpoint.name);
    for (stream, subjects) in &sources.streams {
        let stream = stream_handle(js, stream).await?;
        // On a work queue the server allows no other start.
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
        // When to give up on a message is decided by the retry schedule, and written into its record.
        max_deliver: UNLIMITED,
        ..Default::default()
    }
}

/// A consumer that exists keeps its position: only fields that differ are changed. One that cannot be changed so (another
/// tool created it) is recreated.
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

/// Whether the fields that cannot be changed are as needed.
fn is_of_our_kind(found: &consumer::Config) -> bool {
    found.deliver_subject.is_none()
        && found.ack_policy == AckPolicy::Explicit
        && found.replay_policy == ReplayPolicy::Instant
        && found.durable_name.is_some()
}

/// The corrected configuration, if one of these fields differs: each would lose messages, delay them or break requests.
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

#[cfg(test)]
mod tests {
    use super::*;

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
