//! What there must be on the server. Pure: settings in, configurations out.

use super::TopologyConfig;
use crate::subjects::{
    AUDIT_REPORTED_FILTER, BUCKET_HANDBACKS, BUCKET_JOB_OUTPUTS, BUCKET_OPERATIONS, STREAM_ADVISORIES, STREAM_DLQ,
    STREAM_EVENTS, STREAM_JOBS, STREAM_RESULTS, audit_durable, bucket_chunks, bucket_info, bucket_stream, job,
    orchestrator_durable, results_filter, worker_durable,
};
use agentforge_message_id::{Mission, Queue};
use async_nats::jetstream::{
    consumer::{self, AckPolicy, DeliverPolicy, ReplayPolicy},
    stream::{self, DiscardPolicy, RetentionPolicy, StorageType},
};
use std::{collections::BTreeSet, time::Duration};

/// Pull requests that may wait at a consumer: 8 for each of 512 workers. It cannot be changed later.
const MAX_WAITING: i64 = 4096;
/// Advisories are small; this is far more than their age lets gather.
const ADVISORIES_MAX_BYTES: u64 = 64 << 20;
/// Keys of running and recent jobs.
const KEY_VALUE_MAX_BYTES: u64 = 64 << 20;
/// JetStream's word for "no limit".
pub(super) const UNLIMITED: i64 = -1;

/// A consumer and its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedConsumer {
    /// The stream it reads.
    pub stream: String,
    /// Its configuration; the durable name is set.
    pub config: consumer::Config,
}

/// Everything that must be there. Buckets are streams with names of their own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Streams, buckets included, in the order of creation.
    pub streams: Vec<stream::Config>,
    /// Consumers, after all streams.
    pub consumers: Vec<PlannedConsumer>,
}

/// The plan of a mission. The default queue is always served; `queues` names the others.
pub fn plan(config: &TopologyConfig, mission: &Mission, queues: &[Queue]) -> Plan {
    let queues: BTreeSet<Queue> = queues.iter().cloned().chain([Queue::default()]).collect();
    let workers = queues.iter().map(|queue| PlannedConsumer {
        stream: STREAM_JOBS.to_owned(),
        config: durable(config, worker_durable(mission, queue), job(mission, queue)),
    });
    let orchestrator = PlannedConsumer {
        stream: STREAM_RESULTS.to_owned(),
        config: durable(config, orchestrator_durable(mission), results_filter(mission)),
    };
    let audit = PlannedConsumer {
        stream: STREAM_EVENTS.to_owned(),
        config: durable(config, audit_durable(mission), AUDIT_REPORTED_FILTER.to_owned()),
    };
    Plan { streams: streams(config), consumers: workers.chain([orchestrator, audit]).collect() }
}

fn streams(c: &TopologyConfig) -> Vec<stream::Config> {
    vec![
        work_queue(c, STREAM_JOBS, "swarm.jobs.>", c.jobs_max_bytes),
        work_queue(c, STREAM_RESULTS, "swarm.results.>", c.results_max_bytes),
        stream::Config {
            discard: DiscardPolicy::New,
            max_age: c.dlq_max_age,
            ..base(c, STREAM_DLQ, &["swarm.dlq.>"], c.dlq_max_bytes)
        },
        events(c),
        stream::Config {
            max_age: c.advisories_max_age,
            ..base(
                c,
                STREAM_ADVISORIES,
                &["$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>", "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>"],
                ADVISORIES_MAX_BYTES,
            )
        },
        object_store(c, BUCKET_JOB_OUTPUTS),
        key_value(c, BUCKET_OPERATIONS, c.operations_ttl),
        key_value(c, BUCKET_HANDBACKS, c.handbacks_ttl),
    ]
}

/// The setting that bounds a stream or bucket.
pub(super) fn setting_of(stream: &str) -> Option<&'static str> {
    Some(match stream {
        STREAM_JOBS => "JOBS_MAX_BYTES",
        STREAM_RESULTS => "RESULTS_MAX_BYTES",
        STREAM_DLQ => "DLQ_MAX_BYTES",
        STREAM_EVENTS => "EVENTS_MAX_BYTES",
        name if name == bucket_stream(BUCKET_JOB_OUTPUTS) => "OUTPUTS_MAX_BYTES",
        _ => return None,
    })
}

/// Only the stream of events, for services that read events and are independent of jobs.
pub fn events_plan(config: &TopologyConfig) -> Plan {
    Plan { streams: vec![events(config)], consumers: Vec::new() }
}

fn events(c: &TopologyConfig) -> stream::Config {
    stream::Config {
        max_age: c.events_max_age,
        ..base(c, STREAM_EVENTS, &["agentforge.events.>", "todos.events"], c.events_max_bytes)
    }
}

/// Each message is for one reader, and a full stream refuses: `discard old` would drop jobs that have not run, and so
/// would a limit per subject without `discard_new_per_subject`.
fn work_queue(c: &TopologyConfig, name: &str, subject: &str, max_bytes: u64) -> stream::Config {
    let per_subject = c.edge.as_ref().map(|edge| edge.max_msgs_per_subject);
    stream::Config {
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        max_messages_per_subject: per_subject.map_or(UNLIMITED, signed),
        // The server refuses this flag without a cap.
        discard_new_per_subject: per_subject.is_some(),
        ..base(c, name, &[subject], max_bytes)
    }
}

/// As the client's object store makes it.
fn object_store(c: &TopologyConfig, bucket: &str) -> stream::Config {
    stream::Config {
        max_age: c.outputs_max_age,
        num_replicas: c.replicas,
        duplicate_window: c.duplicate_window,
        ..object_store_stream(bucket, c.edge.as_ref().map_or(c.outputs_max_bytes, |edge| edge.max_bytes))
    }
}

/// The stream of an object store's bucket; a full one refuses.
pub(super) fn object_store_stream(bucket: &str, max_bytes: u64) -> stream::Config {
    stream::Config {
        name: bucket_stream(bucket),
        subjects: vec![bucket_chunks(bucket, ">"), bucket_info(bucket, ">")],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        max_bytes: signed(max_bytes),
        max_messages: UNLIMITED,
        max_messages_per_subject: UNLIMITED,
        max_consumers: -1,
        allow_direct: true,
        ..Default::default()
    }
}

/// As the client's key-value store makes it, one value per key.
fn key_value(c: &TopologyConfig, bucket: &str, ttl: Duration) -> stream::Config {
    stream::Config {
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        max_messages_per_subject: 1,
        max_age: ttl,
        duplicate_window: c.duplicate_window.min(ttl),
        ..base(c, &format!("KV_{bucket}"), &[&format!("$KV.{bucket}.>")], KEY_VALUE_MAX_BYTES)
    }
}

fn base(c: &TopologyConfig, name: &str, subjects: &[&str], max_bytes: u64) -> stream::Config {
    stream::Config {
        name: name.to_owned(),
        subjects: subjects.iter().map(|s| (*s).to_owned()).collect(),
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        max_bytes: signed(c.edge.as_ref().map_or(max_bytes, |edge| edge.max_bytes)),
        max_messages: UNLIMITED,
        max_messages_per_subject: UNLIMITED,
        max_consumers: -1,
        num_replicas: c.replicas,
        duplicate_window: c.duplicate_window,
        allow_direct: true,
        ..Default::default()
    }
}

fn durable(c: &TopologyConfig, name: String, filter: String) -> consumer::Config {
    consumer::Config {
        durable_name: Some(name.clone()),
        name: Some(name),
        filter_subject: filter,
        deliver_policy: DeliverPolicy::All,
        replay_policy: ReplayPolicy::Instant,
        ack_policy: AckPolicy::Explicit,
        ack_wait: c.effective_ack_wait(),
        max_ack_pending: i64::from(c.max_ack_pending),
        // Who gives up on a job is the orchestrator's decision, kept in its database.
        max_deliver: UNLIMITED,
        max_waiting: MAX_WAITING,
        ..Default::default()
    }
}

pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::Edge;
    use super::*;

    fn names() -> (Mission, Vec<Queue>) {
        (Mission::new("staging").unwrap(), ["gpu", "default", "gpu"].map(|q| Queue::new(q).unwrap()).to_vec())
    }

    #[test]
    fn consumers_are_one_per_queue_with_filters_that_do_not_overlap() {
        let (mission, queues) = names();
        let plan = plan(&TopologyConfig::default(), &mission, &queues);
        let made: Vec<_> = plan
            .consumers
            .iter()
            .map(|c| (&*c.stream, c.config.durable_name.as_deref().unwrap(), &*c.config.filter_subject))
            .collect();
        assert_eq!(
            made,
            [
                ("swarm_jobs", "worker-staging", "swarm.jobs.staging.default"),
                ("swarm_jobs", "worker-staging_gpu", "swarm.jobs.staging.gpu"),
                ("swarm_results", "orchestrator-staging", "swarm.results.staging.>"),
                ("events", "orchestrator-staging_audit", "agentforge.events.audit.reported.>"),
            ]
        );
    }

    #[test]
    fn no_stream_that_must_not_lose_discards_the_old() {
        let (mission, queues) = names();
        for edge in
            [None, Some(Edge { max_msgs_per_subject: 10, max_bytes: 1 << 20, ack_wait: Duration::from_secs(120) })]
        {
            let config = TopologyConfig { edge: edge.clone(), ..Default::default() };
            for s in plan(&config, &mission, &queues).streams {
                let may_lose = [STREAM_EVENTS, STREAM_ADVISORIES].contains(&&*s.name);
                assert_eq!(s.discard == DiscardPolicy::Old, may_lose, "{}", s.name);
                assert!(s.max_bytes > 0 && s.duplicate_window > Duration::ZERO && s.allow_direct, "{}", s.name);
                assert_eq!(s.storage, StorageType::File);
                if s.retention == RetentionPolicy::WorkQueue {
                    assert_eq!(s.max_messages_per_subject > 0, edge.is_some());
                    assert_eq!(s.discard_new_per_subject, edge.is_some());
                    assert_eq!(s.max_bytes, if edge.is_some() { 1 << 20 } else { 1 << 30 });
                }
            }
        }
    }
}
