//! Makes a cancel true outside the database: in the relay, at the workers, in the stream.
//!
//! The commit has happened by then, and the fence stops late reports. This only saves work: the relay forgets the job,
//! workers are notified, the queued message is deleted. No step waits for the one after it, and the queue is bounded:
//! a cancel that finds no room reaches its worker with the answer to the next heartbeat.

use crate::deletions::Deletions;
use crate::relay::Forgets;
use agentforge_jetstream::{Nats, subjects};
use agentforge_message_id::{Attempt, JobId, Mission};
use agentforge_proto::bus::CancelSignal;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Cancels that wait to be sent.
const WAITING_MAX: usize = 8_192;

/// What is cancelled: job, attempt, row number, and where the stream keeps its message.
pub type Cancelled = (JobId, Attempt, i64, Option<i64>);

/// Hands cancels to the loop.
pub struct Cancels(mpsc::Sender<Cancelled>);

/// The loop's side.
pub struct CancelLoop(mpsc::Receiver<Cancelled>);

/// The handle, and the loop that it hands to.
pub fn cancels() -> (Cancels, CancelLoop) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Cancels(sender), CancelLoop(receiver))
}

impl Cancels {
    /// Has a committed cancel made true elsewhere, unless too many wait. Never waits.
    pub fn send(&self, cancelled: Cancelled) {
        if self.0.try_send(cancelled).is_err() {
            debug!(job = %cancelled.0, "too many waiting cancels; the next heartbeat's answer repeats this one");
        }
    }
}

impl CancelLoop {
    /// Runs until `stop` fires.
    ///
    /// # Errors
    /// Never; the type is the supervisor's.
    pub async fn run(
        mut self,
        nats: Nats,
        mission: Mission,
        forgets: Forgets,
        deletions: Deletions,
        stop: CancellationToken,
    ) -> Result<(), anyhow::Error> {
        let subject = subjects::control_cancel(&mission);
        loop {
            let (job, attempt, seq, stream_seq) = tokio::select! {
                Some(cancelled) = self.0.recv() => cancelled,
                () = stop.cancelled() => return Ok(()),
            };
            forgets.forget(seq);
            if let Some(stream_seq) = stream_seq {
                deletions.delete(job, stream_seq);
            }
            let signal = CancelSignal { job, attempt: Some(attempt) };
            let signal = serde_json::to_vec(&signal).expect("a signal holds an id and a number");
            if let Err(error) = nats.client().publish(subject.clone(), signal.into()).await {
                debug!(%error, %job, "a cancel could not be sent; the next heartbeat's answer repeats it");
            }
        }
    }
}
