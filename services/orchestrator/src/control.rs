//! Makes a cancel true outside the database: in the relay, at the workers, in the stream.
//! The commit has happened by then, and the fence stops late reports. This only saves work: the relay forgets the job,
//! workers are notified, the queued message is deleted.

use agentforge_jetstream::{Nats, subjects};
use agentforge_message_id::{Attempt, JobId, Mission};
use agentforge_proto::bus::CancelSignal;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// What is cancelled: job, attempt, row number, and where the stream keeps its message.
pub type Cancelled = (JobId, Attempt, i64, Option<i64>);

/// Runs until `stop` fires.
///
/// # Errors
/// Never; the type is the supervisor's.
pub async fn run(
    nats: Nats,
    mission: Mission,
    mut cancels: mpsc::UnboundedReceiver<Cancelled>,
    mut orphans: mpsc::UnboundedReceiver<(JobId, i64)>,
    forgets: mpsc::UnboundedSender<i64>,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let subject = subjects::control_cancel(&mission);
    loop {
        tokio::select! {
            Some((job, attempt, seq, stream_seq)) = cancels.recv() => {
                let _ = forgets.send(seq);
                let signal = serde_json::to_vec(&CancelSignal { job, attempt: Some(attempt) }).expect("a signal holds an id and a number");
                if let Err(error) = nats.client().publish(subject.clone(), signal.into()).await {
                    debug!(%error, %job, "a cancel could not be sent; the next heartbeat's answer repeats it");
                }
                if let Some(stream_seq) = stream_seq {
                    delete(&nats, job, stream_seq).await;
                }
            }
            Some((job, stream_seq)) = orphans.recv() => delete(&nats, job, stream_seq).await,
            () = stop.cancelled() => return Ok(()),
        }
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
