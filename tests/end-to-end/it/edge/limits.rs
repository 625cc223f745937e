//! The limits of edge mode are on the server, and a full edge stream loses nothing.

use super::{SITE, Site};
use crate::stack::Options;
use agentforge_harness::{EdgeSite, eventually, require};
use async_nats::jetstream::{self, consumer, stream};
use serde_json::json;
use std::time::Duration;

const CAP: i64 = 8;
const MAX_BYTES: i64 = 64 << 20;

fn small() -> Options {
    Options::new()
        .workers(0)
        .orchestrator("EDGE_JS_MAX_MSGS_PER_SUBJECT", &CAP.to_string())
        .orchestrator("EDGE_JS_MAX_BYTES", &MAX_BYTES.to_string())
        .worker("WORKER_CONCURRENCY", "1")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limits_of_edge_mode_show_in_stream_info() {
    let Some(()) = require("nats-server") else { return };
    let site = Site::start(EdgeSite::start(SITE).await, small().orchestrator("EDGE_ACK_WAIT_S", "90")).await;
    let leaf = jetstream::new(async_nats::connect(site.stack.nats.url()).await.unwrap());
    for (stream, durable) in [("swarm_jobs", "worker-dev"), ("swarm_results", "orchestrator-dev")] {
        let info = eventually(Duration::from_secs(20), "the orchestrator makes its consumers", || async {
            leaf.get_consumer_from_stream::<consumer::pull::Config, _, _>(durable, stream).await
        })
        .await;
        let found = info.cached_info().config.clone();
        assert_eq!((found.max_ack_pending, found.ack_wait), (256, Duration::from_secs(90)), "{durable}");
        assert_eq!(found.ack_policy, consumer::AckPolicy::Explicit);
        let stream = leaf.get_stream(stream).await.unwrap().cached_info().config.clone();
        assert_eq!((stream.max_messages_per_subject, stream.max_bytes), (CAP, MAX_BYTES), "{}", stream.name);
        assert!(stream.discard_new_per_subject && stream.discard == stream::DiscardPolicy::New, "{}", stream.name);
        assert_eq!(stream.storage, stream::StorageType::File);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_edge_stream_holds_jobs_back_and_loses_none() {
    let Some(()) = require("nats-server") else { return };
    let mut site = Site::start(EdgeSite::start(SITE).await, small()).await;
    let api = site.api();
    let mut ids = vec![];
    for n in 0..10 * CAP {
        ids.push(api.job("echo", json!({"n": n})).await);
    }
    eventually(Duration::from_secs(20), "the relay says that the stream is full", || async {
        api.metric("agentforge_relay_held", &["lane=\"jobs\"", "reason=\"full\""]).await >= 1.0
    })
    .await;
    let leaf = jetstream::new(async_nats::connect(site.stack.nats.url()).await.unwrap());
    let mut jobs = leaf.get_stream("swarm_jobs").await.unwrap();
    assert_eq!(jobs.info().await.unwrap().state.messages, CAP as u64, "the cap holds, and nothing was evicted");

    // The link makes no difference to what is accepted here.
    site.link.cut();
    let mut worker = site.stack.spawn_worker();
    worker.ready(Duration::from_secs(60)).await;
    site.stack.workers.push(worker);
    for (n, id) in ids.iter().enumerate() {
        let job = api.finished(id).await;
        assert_eq!((job["state"].as_str(), job["attempts"].as_u64()), (Some("succeeded"), Some(1)), "job {n}");
    }
}
