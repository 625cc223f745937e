//! Keeps successes that equal jobs may be answered with, in the bucket `operations`, where workers only read.
//!
//! A success is kept before the commit that makes it true: a caller that saw it may rely on the reuse. It is signed as an
//! attempt is, so that no other entry is believed. Trouble with the bucket costs a run of a later job, nothing else.

use crate::app::App;
use agentforge_jetstream::{Nats, publish, subjects};
use agentforge_message_id::MsgId;
use agentforge_proto::bus::{Finished, Outcome};
use agentforge_proto::operation::Kept;
use agentforge_proto::time::Micros;
use agentforge_signing::{HEADER, leaf};
use async_nats::HeaderMap;
use std::time::Duration;
use tracing::debug;

/// For one success. Its report waits for it, so it is short.
const KEEP_MAX: Duration = Duration::from_secs(2);
/// The longest REUSE_WINDOW of a worker, which judges by the time in the entry.
const VALID_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// Keeps what an attempt gave, where its job asked for that.
pub(crate) async fn keep(app: &App, nats: &Nats, finished: &Finished) {
    let Outcome::Succeeded(success) = &finished.outcome else { return };
    if !nats.is_connected() {
        return;
    }
    let Some(key) = app.operation_of(finished.job, finished.attempt).await else { return };
    let now = Micros::now();
    let body = serde_json::to_vec(&Kept::new(finished.job, success, now)).expect("it holds strings and numbers only");
    let subject = subjects::operation(app.mission(), &key);
    let id = MsgId::outbox(&format!("{key}:{}:{}", finished.job, finished.attempt));
    let mut headers = HeaderMap::new();
    let (issued, until) = (now.millis(), now.plus(VALID_FOR).millis());
    let signature = app.keys().now().sign(&[leaf(&subject, id.as_str(), &body)], issued, until);
    signature.iter().for_each(|signature| headers.insert(HEADER, signature.as_str()));
    if let Err(error) = publish::publish_within(nats, subject, id, headers, body.into(), KEEP_MAX).await {
        debug!(%error, "a success was not kept for reuse");
    }
}
