//! The topology on a real server: made, left alone when right, changed where possible, else refused.

use super::{SOON, Setup};
use agentforge_harness::eventually;
use agentforge_jetstream::{
    HeaderMap, PullOptions, Puller, publish, subjects,
    topology::{Edge, Error, Maker, Plan, TopologyConfig, ensure, ensure_by, keep, plan},
};
use agentforge_message_id::{Mission, MsgId, Queue};
use async_nats::jetstream::{consumer::pull, kv, object_store, stream};
use std::time::Duration;
use tokio::io::AsyncReadExt;

fn small() -> TopologyConfig {
    let mib = 64 << 20;
    TopologyConfig {
        jobs_max_bytes: mib,
        results_max_bytes: mib,
        dlq_max_bytes: mib,
        events_max_bytes: mib,
        outputs_max_bytes: mib,
        ..TopologyConfig::default()
    }
}

fn planned(config: &TopologyConfig) -> Plan {
    plan(config, &mission(), &[Queue::new("gpu").unwrap()])
}

fn mission() -> Mission {
    Mission::new("staging").unwrap()
}

#[tokio::test]
async fn everything_is_made_once_and_then_left_alone() {
    let Some(Setup { nats, server: _server }) = Setup::new().await else { return };
    let js = nats.jetstream();
    let plan = planned(&small());
    let report = ensure(js, &plan).await.unwrap();
    let mut created = report.created.clone();
    created.sort();
    assert_eq!(
        created,
        [
            "KV_handbacks",
            "KV_operations",
            "OBJ_job_outputs",
            "events",
            "orchestrator-staging",
            "orchestrator-staging_audit",
            "swarm_advisories",
            "swarm_dlq",
            "swarm_jobs",
            "swarm_results",
            "worker-staging",
            "worker-staging_gpu",
        ]
    );
    assert!(report.updated.is_empty(), "what was just made differs: {report:?}");
    assert_eq!(ensure(js, &plan).await.unwrap(), Default::default(), "a second run changed something");
}

#[tokio::test]
async fn a_service_that_waits_makes_the_consumers_of_queues_and_nothing_else() {
    let Some(Setup { nats, server: _server }) = Setup::new().await else { return };
    let js = nats.jetstream();
    let plan = planned(&small());
    let missing = ensure_by(js, &plan, Maker::Wait).await.unwrap_err();
    assert!(missing.is_retryable() && missing.to_string().contains("swarm_jobs is missing"), "{missing}");
    let inspection = keep(js, &plan, Maker::Wait).await;
    assert_eq!((inspection.faults.len(), inspection.report), (plan.streams.len(), Default::default()));
    // Others make the streams, with sizes of their own: those are left as they are.
    let theirs = TopologyConfig { jobs_max_bytes: 32 << 20, ..small() };
    ensure(js, &Plan { consumers: vec![], ..planned(&theirs) }).await.unwrap();
    let inspection = keep(js, &plan, Maker::Wait).await;
    let mut made = inspection.report.created;
    made.sort();
    assert_eq!(made, ["worker-staging", "worker-staging_gpu"]);
    assert!(inspection.report.updated.is_empty());
    let faults: Vec<_> = inspection.faults.iter().map(Error::name).collect();
    assert_eq!(faults, ["orchestrator-staging", "orchestrator-staging_audit"], "readers are not its own to make");
    let jobs = js.get_stream("swarm_jobs").await.unwrap();
    assert_eq!(jobs.cached_info().config.max_bytes, 32 << 20);
}

#[tokio::test]
async fn many_orchestrators_may_start_at_once() {
    let Some(Setup { nats, server: _server }) = Setup::new().await else { return };
    let plan = planned(&small());
    let (a, b, c) =
        tokio::join!(ensure(nats.jetstream(), &plan), ensure(nats.jetstream(), &plan), ensure(nats.jetstream(), &plan));
    for report in [a, b, c] {
        assert!(report.unwrap().updated.is_empty());
    }
}

#[tokio::test]
async fn what_differs_is_updated_where_that_is_possible_and_the_rest_is_kept() {
    let Some(Setup { nats, server: _server }) = Setup::new().await else { return };
    let js = nats.jetstream();
    ensure(js, &planned(&small())).await.unwrap();
    let mut by_hand = js.get_stream("swarm_jobs").await.unwrap().cached_info().config.clone();
    by_hand.max_bytes = 1 << 20;
    by_hand.metadata.insert("team".into(), "blue".into());
    js.update_stream(by_hand).await.unwrap();

    let changed =
        TopologyConfig { ack_wait: Duration::from_secs(45), operations_ttl: Duration::from_secs(60), ..small() };
    let mut report = ensure(js, &planned(&changed)).await.unwrap();
    report.updated.sort();
    assert_eq!(
        report.updated,
        [
            "KV_operations",
            "orchestrator-staging",
            "orchestrator-staging_audit",
            "swarm_jobs",
            "worker-staging",
            "worker-staging_gpu"
        ]
    );
    let stream = js.get_stream("swarm_jobs").await.unwrap();
    let config = &stream.cached_info().config;
    assert_eq!((config.max_bytes, config.metadata.get("team").map(String::as_str)), (64 << 20, Some("blue")));
    let consumer = js.get_consumer_from_stream::<pull::Config, _, _>("worker-staging", "swarm_jobs").await.unwrap();
    assert_eq!(consumer.cached_info().config.ack_wait, Duration::from_secs(45));
}

#[tokio::test]
async fn another_retention_is_refused_and_nothing_is_touched() {
    let Some(Setup { nats, server: _server }) = Setup::new().await else { return };
    let js = nats.jetstream();
    let wrong =
        stream::Config { name: "swarm_jobs".into(), subjects: vec!["swarm.jobs.>".into()], ..Default::default() };
    js.create_stream(wrong).await.unwrap();
    let before = js.get_stream("swarm_jobs").await.unwrap().cached_info().config.clone();
    let error = ensure(js, &planned(&small())).await.unwrap_err();
    assert!(matches!(error, Error::Incompatible { kind: "stream", field: "retention", .. }) && !error.is_retryable());
    let text = error.to_string();
    for part in ["swarm_jobs", "retention", "Limits", "expected WorkQueue", "nats stream rm swarm_jobs"] {
        assert!(text.contains(part), "{part} missing in: {text}");
    }
    assert_eq!(js.get_stream("swarm_jobs").await.unwrap().cached_info().config, before);
}

#[tokio::test]
async fn a_consumer_that_cannot_be_changed_is_refused_too() {
    let Some(Setup { nats, server: _server }) = Setup::new().await else { return };
    let js = nats.jetstream();
    let plan = planned(&small());
    ensure(js, &Plan { consumers: vec![], ..plan.clone() }).await.unwrap();
    let by_hand = pull::Config {
        durable_name: Some("worker-staging".into()),
        filter_subject: "swarm.jobs.staging.default".into(),
        max_waiting: 7,
        ..Default::default()
    };
    js.create_consumer_on_stream(by_hand, "swarm_jobs").await.unwrap();
    let error = ensure(js, &plan).await.unwrap_err().to_string();
    for part in ["worker-staging", "max_waiting 7", "expected 4096", "nats consumer rm swarm_jobs worker-staging"] {
        assert!(error.contains(part), "{part} missing in: {error}");
    }
}

#[tokio::test]
async fn edge_caps_come_and_go_on_what_exists_and_refuse_rather_than_evict() {
    let Some(Setup { nats, server: _server }) = Setup::new().await else { return };
    let js = nats.jetstream();
    ensure(js, &planned(&small())).await.unwrap();
    let edge = Edge { max_msgs_per_subject: 3, max_bytes: 32 << 20, ack_wait: Duration::from_secs(120) };
    let at_edge = TopologyConfig { edge: Some(edge), max_ack_pending: 256, ..small() };
    ensure(js, &planned(&at_edge)).await.unwrap();
    let consumer = js.get_consumer_from_stream::<pull::Config, _, _>("worker-staging", "swarm_jobs").await.unwrap();
    let config = &consumer.cached_info().config;
    assert_eq!((config.ack_wait, config.max_ack_pending), (Duration::from_secs(120), 256));

    let subject = subjects::job(&mission(), &Queue::default());
    let put =
        |n: u64| publish::publish(&nats, subject.clone(), MsgId::outbox(&n.to_string()), HeaderMap::new(), "x".into());
    for n in 0..3 {
        put(n).await.unwrap();
    }
    let full = put(3).await.unwrap_err();
    assert!(matches!(full, publish::Error::Full { .. }), "{full:?}");
    let stream = js.get_stream("swarm_jobs").await.unwrap();
    let info = stream.cached_info();
    assert_eq!((info.state.messages, info.state.first_sequence, info.config.max_bytes), (3, 1, 32 << 20));
    ensure(js, &planned(&small())).await.unwrap();
    put(3).await.unwrap();
}

#[tokio::test]
async fn buckets_serve_the_clients_own_stores() {
    let Some(Setup { nats, server: _server }) = Setup::new().await else { return };
    let js = nats.jetstream();
    ensure(js, &planned(&small())).await.unwrap();
    for bucket in [subjects::BUCKET_OPERATIONS, subjects::BUCKET_HANDBACKS] {
        let store: kv::Store = js.get_key_value(bucket).await.unwrap();
        store.put("key", "one".into()).await.unwrap();
        store.put("key", "two".into()).await.unwrap();
        assert_eq!(store.get("key").await.unwrap().unwrap(), "two");
        assert_eq!(store.create("key", "x".into()).await.unwrap_err().kind(), kv::CreateErrorKind::AlreadyExists);
        store.delete("key").await.unwrap();
        assert!(store.get("key").await.unwrap().is_none());
    }
    let outputs: object_store::ObjectStore = js.get_object_store(subjects::BUCKET_JOB_OUTPUTS).await.unwrap();
    let body = vec![7u8; 1_000_000];
    outputs.put("job/1", &mut &body[..]).await.unwrap();
    let mut back = Vec::new();
    outputs.get("job/1").await.unwrap().read_to_end(&mut back).await.unwrap();
    assert!(back == body);
}

#[tokio::test]
async fn advisories_of_terminated_messages_are_kept() {
    let Some(Setup { nats, server: _server }) = Setup::new().await else { return };
    let js = nats.jetstream();
    ensure(js, &planned(&small())).await.unwrap();
    let (mission, queue) = (mission(), Queue::new("gpu").unwrap());
    let id = MsgId::outbox("poison");
    publish::publish(&nats, subjects::job(&mission, &queue), id, HeaderMap::new(), "?".into()).await.unwrap();
    let durable = subjects::worker_durable(&mission, &queue);
    let mut puller = Puller::start(nats.clone(), subjects::STREAM_JOBS, durable, PullOptions::new("test", 1));
    puller.grant(1);
    super::pulling::next(&mut puller).await.term("does not decode").await.unwrap();
    let kept = eventually(SOON, "the advisory is stored", || async {
        let stream = js.get_stream(subjects::STREAM_ADVISORIES).await.map_err(|e| e.to_string())?;
        stream.get_raw_message(1).await.map_err(|e| e.to_string())
    })
    .await;
    let text = String::from_utf8_lossy(&kept.payload).into_owned();
    assert!(text.contains("worker-staging_gpu") && text.contains("does not decode"), "{text}");
}
