//! The worker's use of JetStream buckets: hand-backs, large outputs, and successes that the orchestrator kept, which are
//! only read here.
//!
//! The orchestrator creates the buckets; here they are only opened, on first use. Every call is bounded, because NATS
//! may be unavailable: what that means for a job is the caller's decision.

use crate::patience::Answer;
use crate::{metrics::OPERATIONS_REFUSED, orders::Orders};
use agentforge_jetstream::subjects::{self, BUCKET_HANDBACKS, BUCKET_JOB_OUTPUTS, BUCKET_OPERATIONS};
use agentforge_message_id::{Attempt, JobId, Mission};
use agentforge_proto::{
    bus::{OutputRef, Success},
    operation::Kept,
    time::Micros,
};
use agentforge_signing::HEADER;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::{
    self, kv,
    object_store::{ObjectMetadata, ObjectStore},
    stream::{self, DirectGetErrorKind},
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::{sync::OnceCell, time::timeout};
use tracing::warn;

/// For one call to a key-value bucket. A job waits for it, so it is short.
const KV_TIMEOUT: Duration = Duration::from_secs(2);
/// For storing one output.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(60);
/// One message of a large output, at most.
const CHUNK_BYTES: usize = 128 * 1024;
/// One message, at least: an output in smaller ones would be a flood.
const CHUNK_MIN_BYTES: usize = 512;
/// The size of a message besides its part of the output; generous.
const CHUNK_HEADERS_BYTES: usize = 1024;
/// What the subjects of outputs begin with.
pub(crate) const OUTPUT_SUBJECTS: &str = "$O.job_outputs.";
/// The header of a key's end.
const KV_OPERATION: &str = "KV-Operation";
/// Another worker may count a hand-back of the same attempt at the same moment.
const UPDATE_TRIES: usize = 3;

/// Why a bucket gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It took too long; NATS may be unavailable.
    #[error("the bucket {0} did not answer in time")]
    TimedOut(&'static str),
    /// It answered with an error, or does not exist.
    #[error("using the bucket {bucket}")]
    Failed {
        /// The bucket that was asked.
        bucket: &'static str,
        /// What the client says.
        #[source]
        source: async_nats::Error,
    },
    /// It would never fit.
    #[error(
        "{bytes} bytes do not fit into the bucket {bucket}, which takes {max_bytes}; OUTPUTS_MAX_BYTES of the orchestrator is its size"
    )]
    TooLarge {
        /// The bucket that does not take it.
        bucket: &'static str,
        /// How much was to be stored.
        bytes: usize,
        /// The bucket's size, in bytes.
        max_bytes: usize,
    },
    /// The bucket is made so that it never fits, or nothing does.
    #[error("the bucket {bucket} {problem}; the orchestrator creates it")]
    Unfit {
        /// The bucket that takes nothing.
        bucket: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Others changed the entry again and again.
    #[error("the entry in {0} changed at every attempt")]
    Contended(&'static str),
}

impl Error {
    /// What it says about further tries.
    pub(crate) fn answer(&self) -> Answer {
        match self {
            Self::TooLarge { .. } => Answer::RefusedForGood,
            Self::Unfit { .. } => Answer::Refused,
            Self::TimedOut(_) | Self::Failed { .. } | Self::Contended(_) => Answer::NotNow,
        }
    }

    /// Why an output is refused, as readiness reports it; `None` while the bucket is only unavailable or full.
    ///
    /// The server does not answer a publish that it denies, so that comes from elsewhere.
    pub fn refusal(&self, is_denied: bool) -> Option<String> {
        match self.answer() {
            Answer::RefusedForGood | Answer::Refused => Some(self.chain()),
            Answer::NotNow => is_denied.then(|| "publishing there is denied".to_owned()),
        }
    }

    /// With its causes, in one line.
    pub fn chain(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        causes.fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }
}

fn failed<E: Into<async_nats::Error>>(bucket: &'static str) -> impl Fn(E) -> Error {
    move |source| Error::Failed { bucket, source: source.into() }
}

async fn within<T>(
    limit: Duration,
    bucket: &'static str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limit, work).await.unwrap_or(Err(Error::TimedOut(bucket)))
}

/// The buckets of one worker. Cheap to share.
pub struct Buckets {
    js: jetstream::Context,
    mission: Mission,
    reuse_window: Duration,
    handbacks: OnceCell<kv::Store>,
    operations: OnceCell<stream::Stream>,
    outputs: OnceCell<ObjectStore>,
}

impl Buckets {
    /// Opens nothing yet.
    pub fn new(js: jetstream::Context, mission: Mission, reuse_window: Duration) -> Self {
        let (handbacks, operations, outputs) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { js, mission, reuse_window, handbacks, operations, outputs }
    }

    /// How often the attempt was handed back on purpose.
    ///
    /// # Errors
    /// [`Error`]; the caller then knows nothing.
    pub async fn handbacks(&self, job: JobId, attempt: Attempt) -> Result<u64, Error> {
        within(KV_TIMEOUT, BUCKET_HANDBACKS, async {
            let entry = self.handback_store().await?.entry(handback_key(job, attempt)).await;
            Ok(count_in(entry.map_err(failed(BUCKET_HANDBACKS))?.as_ref()))
        })
        .await
    }

    /// Counts a hand-back, before the message is given back.
    ///
    /// # Errors
    /// [`Error`]; the hand-back then counts as a lost worker.
    pub async fn count_handback(&self, job: JobId, attempt: Attempt) -> Result<(), Error> {
        within(KV_TIMEOUT, BUCKET_HANDBACKS, async {
            let (store, key) = (self.handback_store().await?, handback_key(job, attempt));
            for _ in 0..UPDATE_TRIES {
                let entry = store.entry(&key).await.map_err(failed(BUCKET_HANDBACKS))?;
                let value = (count_in(entry.as_ref()) + 1).to_string().into();
                let revision = entry.map_or(0, |entry| entry.revision);
                match store.update(&key, value, revision).await {
                    Ok(_) => return Ok(()),
                    Err(e) if e.kind() == kv::UpdateErrorKind::WrongLastRevision => {}
                    Err(e) => return Err(failed(BUCKET_HANDBACKS)(e)),
                }
            }
            Err(Error::Contended(BUCKET_HANDBACKS))
        })
        .await
    }

    /// The success of an equal operation inside the window, as the orchestrator kept it.
    ///
    /// # Errors
    /// [`Error`]; the job is run then.
    pub(crate) async fn find_operation(
        &self,
        key: &str,
        orders: &Orders,
        now: Micros,
    ) -> Result<Option<Success>, Error> {
        within(KV_TIMEOUT, BUCKET_OPERATIONS, async {
            let subject = subjects::operation(&self.mission, key);
            let found = self.operation_stream().await?.direct_get_last_for_subject(&*subject).await;
            let message = match found {
                Ok(message) => message,
                Err(e) if e.kind() == DirectGetErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(failed(BUCKET_OPERATIONS)(e)),
            };
            if message.headers.get(KV_OPERATION).is_some() {
                // Its end, not a value.
                return Ok(None);
            }
            let header = |name: &str| message.headers.get(name).map(|value| value.as_str());
            let id = header(NATS_MESSAGE_ID.as_ref()).unwrap_or_default();
            if let Err(refused) = orders.check_value(header(HEADER), &subject, id, &message.payload, now) {
                OPERATIONS_REFUSED.inc(&[refused.as_str()]);
                warn!(%refused, subject, "a kept success is not the orchestrator's; the job is run");
                return Ok(None);
            }
            let kept: Kept = serde_json::from_slice(&message.payload).map_err(failed(BUCKET_OPERATIONS))?;
            Ok(kept.into_replay(now, self.reuse_window))
        })
        .await
    }

    /// Stores an output that is too large for a message. The name has the delivery in it, so that
    /// a reference always leads to the very bytes it was made for.
    ///
    /// `message_max` is the server's `max_payload`: the output is cut into messages that it takes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when it will never fit; else the caller holds the output and tries again.
    pub async fn store_output(
        &self,
        job: JobId,
        attempt: Attempt,
        delivery: u64,
        output: &RawValue,
        message_max: usize,
    ) -> Result<OutputRef, Error> {
        within(OUTPUT_TIMEOUT, BUCKET_JOB_OUTPUTS, async {
            let open =
                || async { self.js.get_object_store(BUCKET_JOB_OUTPUTS).await.map_err(failed(BUCKET_JOB_OUTPUTS)) };
            let store = self.outputs.get_or_try_init(open).await?;
            let (name, mut bytes) = (format!("{job}/{attempt}/{delivery}"), output.get().as_bytes());
            let (size, sha256) = (bytes.len() as u64, hex::encode(Sha256::digest(bytes)));
            let stream =
                self.js.get_stream(format!("OBJ_{BUCKET_JOB_OUTPUTS}")).await.map_err(failed(BUCKET_JOB_OUTPUTS))?;
            let chunk_size = Some(chunk_bytes(&stream.cached_info().config, bytes.len(), message_max)?);
            let meta = ObjectMetadata { name: name.clone(), chunk_size, ..Default::default() };
            store.put(meta, &mut bytes).await.map_err(failed(BUCKET_JOB_OUTPUTS))?;
            Ok(OutputRef { bucket: BUCKET_JOB_OUTPUTS.to_owned(), name, size, sha256 })
        })
        .await
    }

    async fn handback_store(&self) -> Result<&kv::Store, Error> {
        let open = || async { self.js.get_key_value(BUCKET_HANDBACKS).await.map_err(failed(BUCKET_HANDBACKS)) };
        self.handbacks.get_or_try_init(open).await
    }

    async fn operation_stream(&self) -> Result<&stream::Stream, Error> {
        let name = subjects::bucket_of_keys(BUCKET_OPERATIONS);
        let open = || async { self.js.get_stream(name).await.map_err(failed(BUCKET_OPERATIONS)) };
        self.operations.get_or_try_init(open).await
    }
}

/// Bytes of one message of an output: as the client's own, or what server and bucket accept after subtracting the
/// headers. An error where the bucket accepts no such output.
fn chunk_bytes(bucket: &stream::Config, output_bytes: usize, message_max: usize) -> Result<usize, Error> {
    // Not positive: without a limit.
    let limit = |n: i64| usize::try_from(n).ok().filter(|n| *n > 0);
    let unfit = |problem: String| Error::Unfit { bucket: BUCKET_JOB_OUTPUTS, problem };
    if let Some(max_bytes) = limit(bucket.max_bytes).filter(|max_bytes| output_bytes > *max_bytes) {
        return Err(Error::TooLarge { bucket: BUCKET_JOB_OUTPUTS, bytes: output_bytes, max_bytes });
    }
    if bucket.sealed {
        return Err(unfit("is sealed".to_owned()));
    }
    let message_max = limit(bucket.max_message_size.into()).map_or(message_max, |max| max.min(message_max));
    let chunk = CHUNK_BYTES.min(message_max.saturating_sub(CHUNK_HEADERS_BYTES));
    if chunk < CHUNK_MIN_BYTES {
        return Err(unfit(format!("takes no message larger than {message_max} bytes")));
    }
    // One more says what the object is.
    let messages = output_bytes.div_ceil(chunk) + 1;
    match limit(bucket.max_messages) {
        Some(max) if messages > max => Err(unfit(format!("takes {max} messages, and the output is {messages}"))),
        _ => Ok(chunk),
    }
}

fn handback_key(job: JobId, attempt: Attempt) -> String {
    format!("{job}.{attempt}")
}

/// A deleted entry, or one that cannot be parsed, counts nothing.
fn count_in(entry: Option<&kv::Entry>) -> u64 {
    let put = entry.filter(|entry| entry.operation == kv::Operation::Put);
    put.and_then(|entry| std::str::from_utf8(&entry.value).ok()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_cut_as_server_and_bucket_take_it_or_refused_with_the_reason() {
        let bucket = stream::Config { max_bytes: 1 << 20, max_messages: -1, ..Default::default() };
        let chunk = |bucket: &stream::Config, bytes, max| chunk_bytes(bucket, bytes, max).map_err(|e| e.to_string());
        assert_eq!(chunk(&bucket, 1000, 1 << 20), Ok(CHUNK_BYTES));
        assert_eq!(chunk(&bucket, 1000, 4096), Ok(4096 - CHUNK_HEADERS_BYTES));
        let small = stream::Config { max_message_size: 2048, ..bucket.clone() };
        assert_eq!(chunk(&small, 1000, 1 << 20), Ok(2048 - CHUNK_HEADERS_BYTES));
        for (unfit, words) in [
            (stream::Config { sealed: true, ..bucket.clone() }, "is sealed"),
            (stream::Config { max_message_size: 1000, ..bucket.clone() }, "larger than 1000 bytes"),
            (stream::Config { max_messages: 2, max_message_size: 2048, ..bucket.clone() }, "takes 2 messages"),
        ] {
            let error = chunk_bytes(&unfit, 100_000, 1 << 20).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.answer(), Answer::Refused, "{error}");
        }
        assert_eq!(chunk_bytes(&bucket, 2 << 20, 1 << 20).unwrap_err().answer(), Answer::RefusedForGood);
    }

    #[test]
    fn only_an_output_that_is_unfit_or_denied_is_refused() {
        const BUCKET: &str = BUCKET_JOB_OUTPUTS;
        let unfit = || Error::Unfit { bucket: BUCKET, problem: "is sealed".to_owned() };
        let full = || Error::Failed { bucket: BUCKET, source: "maximum bytes exceeded".into() };
        for (error, is_denied, words) in [
            (unfit(), false, Some("is sealed")),
            (unfit(), true, Some("is sealed")),
            (Error::TimedOut(BUCKET), true, Some("denied")),
            (full(), true, Some("denied")),
            (Error::TimedOut(BUCKET), false, None),
            (full(), false, None),
        ] {
            let refusal = error.refusal(is_denied);
            assert_eq!(refusal.is_some(), words.is_some(), "{error} {is_denied}: {refusal:?}");
            assert!(refusal.unwrap_or_default().contains(words.unwrap_or_default()), "{error} {is_denied}");
        }
        for error in [Error::TimedOut(BUCKET), full(), Error::Contended(BUCKET)] {
            assert_eq!(error.answer(), Answer::NotNow, "{error}");
        }
    }
}
