//! Keeps the served endpoints in step with the document of those that the API made.
//!
//! Each replica polls the document, so that a change through one of them takes effect in all. A document that was lost
//! with its bucket is written again from memory by the first replica that misses it.

use crate::registry::{Registry, managed::ManagedEndpoints};
use agentforge_runtime::{Gate, Heartbeat};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between reads of the document; a change through this replica is read at once.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Follows the document until the stop.
pub async fn follow(
    registry: Registry,
    gate: Gate,
    heartbeat: Heartbeat,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let context = registry.context().clone();
    let store = &context.managed;
    let (mut known, mut applied, mut reported) = (None::<ManagedEndpoints>, Vec::new(), Vec::new());
    // Replicas with other keys, during a rollout, would otherwise encrypt against each other forever.
    let mut may_encrypt = true;
    loop {
        heartbeat.beat();
        let changed = store.changed();
        if context.nats.is_connected() && context.capabilities.borrow().is_some() {
            let read = store.document().await;
            match &read {
                Ok(_) => gate.set(true, "read"),
                Err(error) => gate.set(false, format!("the current ones are kept: {error}")),
            }
            match read {
                Ok(Some(document)) => {
                    if !document.is_current && std::mem::take(&mut may_encrypt) {
                        match store.change(|_| Ok(())).await {
                            Ok(_) => info!("encrypted the endpoints of the API with the first key"),
                            Err(error) => {
                                warn!(%error, "the endpoints of the API are not encrypted with the first key yet");
                                may_encrypt = true;
                            }
                        }
                    }
                    known = Some(document.endpoints);
                }
                // The bucket was lost and recreated: what we know is restored, by the first replica to notice.
                Ok(None) => {
                    if let Some(managed) = known.as_ref().filter(|managed| !managed.is_empty()) {
                        warn!("the bucket lost the endpoints of the API; restoring them");
                        let _ = store.write(managed, 0).await;
                    }
                }
                Err(error) => warn!(%error, "the endpoints of the API cannot be read; keeping the current ones"),
            }
            // Even without a change: the overlap of a secret may be over.
            let (now, faults) = match &known {
                Some(managed) => managed.endpoints(&context.config.defaults, Timestamp::now()),
                None => (Vec::new(), Vec::new()),
            };
            if now != applied {
                registry.apply_managed(now.clone());
                applied = now;
            }
            if faults != reported {
                faults.iter().for_each(|problem| warn!(problem, "an endpoint of the API is left out"));
                reported = faults;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = changed => {}
            () = sleep(POLL_INTERVAL) => {}
        }
    }
}
