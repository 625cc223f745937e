//! A cancel does not depend on JetStream: it is committed, answered and sent to workers while no delete is answered.

use crate::process::Orchestrator;
use agentforge_harness::{NatsOptions, NatsProxy, NatsServer, eventually, require};
use agentforge_proto::bus::CancelSignal;
use futures_util::StreamExt;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(120);
/// More than are cancelled in [`ALL_WITHIN`] when each one waits out the 10 s after which a request to JetStream fails.
const JOBS: usize = 20;
const ALL_WITHIN: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_never_waits_for_the_delete_of_its_message() {
    let Some(()) = require("nats-server") else { return };
    let nats = NatsServer::start(NatsOptions::default()).await;
    let proxy = NatsProxy::start(nats.address()).await;
    proxy.withhold("$JS.API.STREAM.MSG.DELETE.");
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite://{}", dir.path().join("jobs.db").display());
    let orchestrator = Orchestrator::start(&store, &[("NATS_URL", &proxy.nats_url())]).await;

    let mut ids = BTreeSet::new();
    for _ in 0..JOBS {
        let job = orchestrator.post("/v1/jobs", &json!({"tool": "echo"})).await;
        ids.insert(job["id"].as_str().unwrap().to_owned());
    }
    // Only a queued job has a message to delete. No worker runs.
    eventually(SOON, "all jobs are queued", async || {
        let queued = orchestrator.get("/v1/jobs?limit=1000&state=queued").await["jobs"].as_array().unwrap().len();
        if queued == JOBS { Ok(()) } else { Err(queued) }
    })
    .await;

    let worker = async_nats::connect(nats.url()).await.unwrap();
    let mut signals = worker.subscribe("swarm.control.dev.cancel").await.unwrap();
    worker.flush().await.unwrap();
    let cancelled = async {
        for id in &ids {
            let job = orchestrator.post(&format!("/v1/jobs/{id}/cancel"), &json!({})).await;
            assert_eq!(job["state"], "cancelled", "{job}");
        }
        let mut signalled = BTreeSet::new();
        while signalled != ids {
            let signal = signals.next().await.expect("the server is up");
            let signal: CancelSignal = serde_json::from_slice(&signal.payload).unwrap();
            signalled.insert(signal.job.to_string());
        }
    };
    timeout(ALL_WITHIN, cancelled).await.expect("cancels reach the workers while no delete is answered");
    eventually(SOON, "a delete was asked for", async || proxy.withheld() > 0).await;
}
