//! The broadcaster's streams and its bucket: created if missing, corrected if changed, never deleted, where it is the one
//! that makes them; else looked at.
//!
//! Retries, dead letters and states are the broadcaster's own. The stream of events belongs to the service that created
//! it first, so its limits stay as they are.

use crate::{
    error::chain,
    topology::{
        error::{Error, api},
        names::BUCKET_STATE,
    },
};
use agentforge_jetstream::{
    Nats,
    topology::{
        Maker, TopologyConfig, ensure_by, ensure_keeping_limits, events_plan,
        webhooks::{self, WebhookLimits},
    },
};
use tracing::warn;

/// What the server and its streams can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether the server moves retries when they are due; otherwise the sweep does.
    pub schedules: bool,
}

/// Creates or corrects streams and bucket, and returns the names of those that were missing. One that cannot be created
/// does not keep the others from being created. With [`Maker::Wait`] all must exist.
///
/// # Errors
/// The first that could not be created or corrected.
pub async fn ensure_all(
    nats: &Nats,
    config: &TopologyConfig,
    limits: &WebhookLimits,
    maker: Maker,
) -> Result<(Capabilities, Vec<String>), Error> {
    /// This runs every few seconds; one log line is enough.
    static REPORTED: std::sync::Once = std::sync::Once::new();
    let js = nats.jetstream();
    let mut created = Vec::new();
    match ensure_keeping_limits(js, events_plan(config), maker).await {
        Ok(report) => created.extend(report.created),
        Err(error) if error.is_retryable() => return Err(error.into()),
        // Another stream has these subjects: that one is read.
        Err(error) => REPORTED.call_once(|| {
            warn!(error = %chain(&error), "the stream of events is not created; another stream may have its subjects");
        }),
    }
    let retries = match webhooks::ensure_retries(js, config, limits, maker).await.map_err(Error::from) {
        // A server that did not answer this request will not answer the next ones.
        Err(error) if error.is_retryable() => return Err(error),
        retries => retries,
    };
    // Dead letters and the bucket.
    let mut others = Vec::new();
    for stream in webhooks::webhooks_plan(config, limits).streams {
        let plan = agentforge_jetstream::topology::Plan { streams: vec![stream], consumers: Vec::new() };
        others.push(ensure_by(js, &plan, maker).await);
    }
    created.extend(retries?.created);
    for other in others {
        let bucket = format!("KV_{BUCKET_STATE}");
        created
            .extend(other?.created.into_iter().map(|name| if name == bucket { BUCKET_STATE.to_owned() } else { name }));
    }
    let schedules =
        webhooks::takes_schedules(js, maker).await.map_err(|e| api("read the stream of retries")(e.into()))?;
    Ok((Capabilities { schedules }, created))
}
