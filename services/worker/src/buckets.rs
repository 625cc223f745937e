//! The worker's use of JetStream buckets: hand-backs, finished operations, large outputs.
//!
//! The orchestrator makes the buckets; here they are only opened, on first use. Every call is
//! bounded, because NATS may be away: what that means for a job is the caller's decision.

use agentforge_jetstream::subjects::{BUCKET_HANDBACKS, BUCKET_JOB_OUTPUTS, BUCKET_OPERATIONS};
use agentforge_message_id::{Attempt, JobId, Mission};
use agentforge_proto::{
    bus::{OutputRef, Success},
    time::Micros,
};
use async_nats::jetstream::{
    self, kv,
    object_store::{ObjectMetadata, ObjectStore},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::{sync::OnceCell, time::timeout};

/// For one call to a key-value bucket. A job waits for it, so it is short.
const KV_TIMEOUT: Duration = Duration::from_secs(2);
/// For storing one output.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(60);
/// One message of a large output, at most.
const CHUNK_BYTES: usize = 128 * 1024;
/// The size of a message besides its part of the output; generous.
const CHUNK_HEADERS_BYTES: usize = 1024;
/// Another worker may count a hand-back of the same attempt at the same moment.
const UPDATE_TRIES: usize = 3;

/// Why a bucket gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It took too long; NATS may be away.
    #[error("the bucket {0} did not answer in time")]
    TimedOut(&'static str),
    /// It answered with an error, or does not exist.
    #[error("using the bucket {bucket}")]
    Failed {
        /// Which bucket.
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
        /// Which bucket.
        bucket: &'static str,
        /// How much was to be stored.
        bytes: usize,
        /// Its size.
        max_bytes: usize,
    },
    /// Others changed the entry again and again.
    #[error("the entry in {0} changed at every try")]
    Contended(&'static str),
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
    operations: OnceCell<kv::Store>,
    outputs: OnceCell<ObjectStore>,
}

/// A finished operation, as other workers find it.
#[derive(Serialize, Deserialize)]
struct Operation {
    job: JobId,
    at: Micros,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_ref: Option<OutputRef>,
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

    /// The success of an equal operation inside the window.
    ///
    /// # Errors
    /// [`Error`]; the job is run then.
    pub async fn find_operation(&self, key: &str, now: Micros) -> Result<Option<Success>, Error> {
        within(KV_TIMEOUT, BUCKET_OPERATIONS, async {
            let value = self.operation_store().await?.get(self.operation_key(key)).await;
            let Some(value) = value.map_err(failed(BUCKET_OPERATIONS))? else { return Ok(None) };
            let operation: Operation = serde_json::from_slice(&value).map_err(failed(BUCKET_OPERATIONS))?;
            Ok(operation.into_replay(now, self.reuse_window))
        })
        .await
    }

    /// Keeps a success for equal operations to come.
    ///
    /// # Errors
    /// [`Error`]; later operations are run then.
    pub async fn keep_operation(&self, key: &str, job: JobId, success: &Success, now: Micros) -> Result<(), Error> {
        within(KV_TIMEOUT, BUCKET_OPERATIONS, async {
            let (output, output_ref) = (success.output.clone(), success.output_ref.clone());
            let operation = Operation { job, at: now, output, output_ref };
            let value = serde_json::to_vec(&operation).map_err(failed(BUCKET_OPERATIONS))?;
            let stored = self.operation_store().await?.put(self.operation_key(key), value.into()).await;
            stored.map(drop).map_err(failed(BUCKET_OPERATIONS))
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
            // Not positive: without a limit.
            let max_bytes = usize::try_from(stream.cached_info().config.max_bytes).unwrap_or_default();
            if max_bytes > 0 && bytes.len() > max_bytes {
                return Err(Error::TooLarge { bucket: BUCKET_JOB_OUTPUTS, bytes: bytes.len(), max_bytes });
            }
            let meta =
                ObjectMetadata { name: name.clone(), chunk_size: Some(chunk_bytes(message_max)), ..Default::default() };
            store.put(meta, &mut bytes).await.map_err(failed(BUCKET_JOB_OUTPUTS))?;
            Ok(OutputRef { bucket: BUCKET_JOB_OUTPUTS.to_owned(), name, size, sha256 })
        })
        .await
    }

    async fn handback_store(&self) -> Result<&kv::Store, Error> {
        let open = || async { self.js.get_key_value(BUCKET_HANDBACKS).await.map_err(failed(BUCKET_HANDBACKS)) };
        self.handbacks.get_or_try_init(open).await
    }

    async fn operation_store(&self) -> Result<&kv::Store, Error> {
        let open = || async { self.js.get_key_value(BUCKET_OPERATIONS).await.map_err(failed(BUCKET_OPERATIONS)) };
        self.operations.get_or_try_init(open).await
    }

    /// Missions share the bucket but no operations.
    fn operation_key(&self, key: &str) -> String {
        format!("{}.{key}", self.mission)
    }
}

impl Operation {
    fn into_replay(self, now: Micros, window: Duration) -> Option<Success> {
        let young = now.since(self.at) < window;
        let has_output = self.output.is_some() || self.output_ref.is_some();
        (young && has_output).then_some(Success {
            output: self.output,
            output_ref: self.output_ref,
            idempotent_replay: Some(self.job),
        })
    }
}

/// Bytes of one message of an output: as the client's own, or what the server accepts after subtracting the headers.
fn chunk_bytes(message_max: usize) -> usize {
    CHUNK_BYTES.min(message_max.saturating_sub(CHUNK_HEADERS_BYTES)).max(1024)
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
    fn a_success_is_replayed_inside_its_window_only() {
        let operation = |output: Option<&str>| Operation {
            job: JobId::generate(),
            at: Micros(0),
            output: output.map(|text| RawValue::from_string(text.to_owned()).unwrap()),
            output_ref: None,
        };
        let (young, old) = (Micros(899_999_999), Micros(900_000_000));
        let window = Duration::from_secs(900);
        let first = operation(Some("1"));
        let job = first.job;
        let replay = first.into_replay(young, window).unwrap();
        assert_eq!(replay.idempotent_replay, Some(job));
        assert!(operation(Some("1")).into_replay(old, window).is_none());
        assert!(
            operation(Some("1")).into_replay(Micros(0), Duration::ZERO).is_none(),
            "a window of zero reuses nothing"
        );
        assert!(operation(None).into_replay(young, window).is_none());
    }
}
