//! Deletes messages of jobs that are final from `swarm_jobs`, so that no worker takes them for nothing.
//!
//! It only saves work: the fence ignores what comes of such a message. So the queue is bounded, and what finds no room
//! is left to the worker that will get it.

use agentforge_jetstream::{Nats, subjects};
use agentforge_message_id::JobId;
use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Messages that wait to be deleted.
const WAITING_MAX: usize = 8_192;
/// Deletes at once: each may take as long as JetStream takes to answer.
const AT_ONCE: usize = 16;

/// Hands messages to the loop. Cheap to clone.
#[derive(Clone)]
pub struct Deletions(mpsc::Sender<(JobId, i64)>);

/// The loop's side.
pub struct DeletionLoop(mpsc::Receiver<(JobId, i64)>);

/// The handle, and the loop that it hands to.
pub fn deletions() -> (Deletions, DeletionLoop) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Deletions(sender), DeletionLoop(receiver))
}

impl Deletions {
    /// Has the message of a final job deleted, unless too many wait. Never waits.
    pub fn delete(&self, job: JobId, stream_seq: i64) {
        if self.0.try_send((job, stream_seq)).is_err() {
            debug!(%job, stream_seq, "a message of a final job is not deleted; its worker's result will be ignored");
        }
    }
}

impl DeletionLoop {
    /// Runs until `stop` fires.
    ///
    /// # Errors
    /// Never; the type is the supervisor's.
    pub async fn run(mut self, nats: Nats, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let waiting = poll_fn(|cx| self.0.poll_recv(cx));
        let all = waiting.for_each_concurrent(AT_ONCE, |(job, seq)| delete(&nats, job, seq));
        tokio::select! {
            () = all => stop.cancelled().await,
            () = stop.cancelled() => {}
        }
        Ok(())
    }
}

/// A message that was acknowledged meanwhile is gone already: that is not an error.
async fn delete(nats: &Nats, job: JobId, stream_seq: i64) {
    let Ok(seq) = u64::try_from(stream_seq) else { return };
    let deleted = async {
        let stream = nats.jetstream().get_stream_no_info(subjects::STREAM_JOBS).await.map_err(|e| e.to_string())?;
        stream.delete_message(seq).await.map_err(|e| e.to_string())
    };
    if let Err(problem) = deleted.await {
        debug!(problem, %job, seq, "a message of a final job was not deleted; its worker's result will be ignored");
    }
}
