//! Reads a stream's messages in order of storing, by subject and without a consumer, many with one request.
//!
//! Relies on direct gets in batches (server 2.11). Holds one batch, which is bounded in messages and bytes.

use agentforge_jetstream::{HeaderMap, Nats};
use async_nats::jetstream::{ErrorCode, context::GetStreamErrorKind};
use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::timeout;

/// Messages in one answer.
const BATCH: usize = 256;
/// Bytes in one answer, and one message more.
const BATCH_BYTES: usize = 4 << 20;
/// For the next message of an answer.
const WAIT: Duration = Duration::from_secs(5);

/// One stored message.
#[derive(Debug)]
pub struct StoredMessage {
    /// Its sequence in the stream.
    pub seq: u64,
    /// Where it was published.
    pub subject: String,
    /// Its headers, and those of the server.
    pub headers: HeaderMap,
    pub payload: Bytes,
    /// When it was stored, by the server's clock.
    pub at: Timestamp,
}

/// The stream does not answer.
#[derive(Debug, thiserror::Error)]
#[error("stream {stream} does not answer: {reason}")]
pub struct Error {
    stream: String,
    reason: String,
}

/// The messages from `seq` on whose subject `filter` takes: at most a batch, none at the end.
///
/// # Errors
/// [`Error`].
pub async fn batch(nats: &Nats, stream: &str, filter: &str, seq: u64) -> Result<Vec<StoredMessage>, Error> {
    ask(nats, stream, serde_json::json!({ "seq": seq.max(1), "next_by_subj": filter })).await
}

/// The messages that were stored since a moment, by the server's clock.
///
/// # Errors
/// [`Error`].
pub async fn batch_since(
    nats: &Nats,
    stream: &str,
    filter: &str,
    since: Timestamp,
) -> Result<Vec<StoredMessage>, Error> {
    ask(nats, stream, serde_json::json!({ "start_time": since, "next_by_subj": filter })).await
}

async fn ask(nats: &Nats, stream: &str, mut request: serde_json::Value) -> Result<Vec<StoredMessage>, Error> {
    let failed = |reason: String| Error { stream: stream.to_owned(), reason };
    if !nats.is_connected() {
        return Err(failed("not connected to NATS".to_owned()));
    }
    let client = nats.client();
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|e| failed(e.to_string()))?;
    (request["batch"], request["max_bytes"]) = (BATCH.into(), BATCH_BYTES.into());
    let request = request.to_string();
    let subject = format!("$JS.API.DIRECT.GET.{stream}");
    client.publish_with_reply(subject, inbox, request.into()).await.map_err(|e| failed(e.to_string()))?;
    let mut found = Vec::new();
    loop {
        let Ok(Some(message)) = timeout(WAIT, answers.next()).await else {
            return Err(failed("no answer in time".to_owned()));
        };
        match message.status.map(|s| s.as_u16()) {
            None => {}
            // The end of the batch; nothing more; nothing at all.
            Some(204 | 404) => return Ok(found),
            Some(code) => {
                let words = message.description.as_deref().unwrap_or_default();
                return Err(failed(format!("{code} {words}")));
            }
        }
        let headers = message.headers.unwrap_or_default();
        let get = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        let (Some(seq), Some(subject), Some(at)) = (
            get("Nats-Sequence").and_then(|s| s.parse().ok()),
            get("Nats-Subject"),
            get("Nats-Time-Stamp").and_then(|s| s.parse().ok()),
        ) else {
            return Err(failed("an answer that is none".to_owned()));
        };
        found.push(StoredMessage { seq, subject, headers, payload: message.payload, at });
    }
}

/// One message.
///
/// # Errors
/// [`Error`].
pub async fn one(nats: &Nats, stream: &str, filter: &str, seq: u64) -> Result<Option<StoredMessage>, Error> {
    let found = batch(nats, stream, filter, seq).await?;
    Ok(found.into_iter().next().filter(|stored| stored.seq == seq))
}

/// The place of the last message that was stored.
///
/// # Errors
/// [`Error`].
pub async fn end(nats: &Nats, stream: &str) -> Result<u64, Error> {
    let found = nats
        .jetstream()
        .get_stream(stream)
        .await
        .map_err(|e| Error { stream: stream.to_owned(), reason: e.to_string() })?;
    Ok(found.cached_info().state.last_sequence)
}

/// The places of the first message that is still there, and of the last that was stored; a stream that was not made
/// yet is as an empty one.
///
/// # Errors
/// [`Error`].
pub async fn bounds(nats: &Nats, stream: &str) -> Result<(u64, u64), Error> {
    let failed = |reason: String| Error { stream: stream.to_owned(), reason };
    if !nats.is_connected() {
        return Err(failed("not connected to NATS".to_owned()));
    }
    match nats.jetstream().get_stream(stream).await {
        Ok(found) => {
            let state = &found.cached_info().state;
            Ok((state.first_sequence, state.last_sequence))
        }
        Err(e) => match e.kind() {
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok((1, 0)),
            _ => Err(failed(e.to_string())),
        },
    }
}

/// Deletes one message; `false` when it was not there.
///
/// # Errors
/// [`Error`].
pub async fn delete(nats: &Nats, stream: &str, seq: u64) -> Result<bool, Error> {
    #[derive(serde::Deserialize)]
    struct Deleted {
        #[serde(default)]
        success: bool,
    }
    use async_nats::jetstream::response::Response;
    let body = serde_json::json!({ "seq": seq, "no_erase": true });
    let answer = nats.jetstream().request(format!("STREAM.MSG.DELETE.{stream}"), &body).await;
    match answer.map_err(|e| Error { stream: stream.to_owned(), reason: e.to_string() })? {
        Response::Ok(Deleted { success }) => Ok(success),
        Response::Err { .. } => Ok(false),
    }
}
