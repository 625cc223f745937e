//! Whether the things that a worker needs besides its consumers exist: the stream of results, and the buckets.
//!
//! The orchestrator creates them. Here they are only checked, now and then and whenever something was not found, so
//! that a worker that cannot store its results reports it. Existing ones that refuse them are named too.

use crate::worker::Worker;
use agentforge_jetstream::subjects::{
    BUCKET_HANDBACKS, BUCKET_JOB_OUTPUTS, BUCKET_OPERATIONS, STREAM_RESULTS, bucket_stream,
};
use agentforge_runtime::Gate;
use async_nats::jetstream::{ErrorCode, context::GetStreamErrorKind};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// Between two periodic checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);
/// While something is missing, and between complaints.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);
/// For one answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Keeps the gate until the drain.
pub(crate) async fn watch(worker: Arc<Worker>, gate: Gate) -> Result<(), anyhow::Error> {
    let names = [
        STREAM_RESULTS.to_owned(),
        bucket_stream(BUCKET_JOB_OUTPUTS),
        format!("KV_{BUCKET_OPERATIONS}"),
        format!("KV_{BUCKET_HANDBACKS}"),
    ];
    let (mut connected, mut complaints) = (worker.nats.connected(), worker.nats.missing().reports());
    let mut reported = Vec::new();
    loop {
        let look = async {
            if connected.wait_for(|c| *c).await.is_err() {
                std::future::pending::<()>().await;
            }
            complaints.borrow_and_update();
            let mut missing = Vec::new();
            for name in &names {
                if is_missing(&worker, name).await {
                    missing.push(name.as_str());
                }
            }
            missing
        };
        let missing = tokio::select! {
            missing = look => missing,
            () = worker.draining.cancelled() => return Ok(()),
        };
        match (missing.as_slice(), worker.refusals.summary()) {
            ([], refused) if refused.is_empty() => gate.set(true, "there"),
            ([], refused) => gate.set(false, format!("results are refused, {refused}")),
            (missing, _) => gate.set(false, format!("waiting for {}", missing.join(", "))),
        }
        if missing != reported {
            if missing.is_empty() {
                info!("the stream of results and all buckets exist")
            } else {
                warn!(
                    ?missing,
                    "results or outputs cannot be stored; waiting for the orchestrator to create their streams"
                )
            }
        }
        let rest = if missing.is_empty() { CHECK_INTERVAL } else { RECHECK_INTERVAL };
        reported = missing;
        let soon = async {
            let _ = complaints.changed().await;
            sleep(RECHECK_INTERVAL).await;
        };
        tokio::select! {
            () = sleep(rest) => {}
            () = soon => {}
            () = worker.refusals.changed() => {}
            () = worker.draining.cancelled() => return Ok(()),
        }
    }
}

/// Only an explicit answer of the server makes it missing: a server that is silent, or does not let us ask, does not.
async fn is_missing(worker: &Worker, name: &str) -> bool {
    match timeout(ANSWER_MAX, worker.nats.jetstream().get_stream(name)).await {
        Ok(Err(e)) => {
            matches!(e.kind(), GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND)
        }
        _ => false,
    }
}
