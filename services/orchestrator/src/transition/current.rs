//! A stored job, as decisions see it.

use super::ResultEffect;
use crate::model::{Job, JobError, NewJob, RetryPolicy, State};
use agentforge_message_id::{Attempt, JobId, Mission, Queue, ToolName};
use agentforge_proto::time::Micros;
use std::time::Duration;

/// What decisions need to know of a stored job.
#[derive(Clone, Debug)]
pub struct Current {
    /// Row number: order of acceptance.
    pub seq: i64,
    /// By which reports name the job.
    pub id: JobId,
    /// For subjects of events and labels of metrics.
    pub mission: Mission,
    /// For subjects of dead letters and labels of metrics.
    pub queue: Queue,
    /// Whether a worker announces it decides what a report without it means.
    pub tool: ToolName,
    /// JSON text of the labels, for events; `None` when there are none.
    pub labels: Option<String>,
    /// Where it is in its life; a final one takes no more reports.
    pub state: State,
    /// The only attempt whose reports count.
    pub attempt: Attempt,
    /// The last attempt that may be made.
    pub attempt_limit: u32,
    /// Attempts granted at submission.
    pub max_attempts: u32,
    /// Past it the job ends expired.
    pub deadline: Option<Micros>,
    /// When it was accepted.
    pub created_at: Micros,
    /// While accepted: when it may be published.
    pub available_at: Micros,
    /// When the PubAck of the current attempt came; `None` before.
    pub queued_at: Option<Micros>,
    /// When the last attempt that began did so; not before its publish, and not after our clock.
    pub started_at: Option<Micros>,
    /// When it became final; `None` while it is open.
    pub finished_at: Option<Micros>,
    /// Who ran it last.
    pub worker: Option<String>,
    /// The last error.
    pub error: Option<JobError>,
    /// Sequence of the attempt's message in `swarm_jobs`.
    pub stream_seq: Option<i64>,
    /// How often the current attempt was published again because its message was gone.
    pub republished: u32,
    /// Rises with each change.
    pub version: i64,
    /// From the moment it may run to its first deadline, as a retry grants it again; `None` where there was
    /// no deadline, and for jobs of the version before.
    pub lifetime: Option<Duration>,
    /// Waits between attempts.
    pub retry: RetryPolicy,
    /// Who cancelled it, while it is cancelled.
    pub cancelled_by: Option<String>,
    /// Who submitted it, for events.
    pub submitted_by: Option<String>,
    /// Whether another job has its idempotency key now.
    pub key_released: bool,
}

impl Current {
    /// The worker's clock may be ahead or behind: a job never starts before it was queued or after `now`. The attempt
    /// keeps what the worker reported.
    pub(super) fn started(&mut self, at: Micros, now: Micros) {
        let at = at.max(self.queued_at.unwrap_or(self.created_at)).min(now);
        self.started_at = Some(at);
        self.queued_at.get_or_insert(at);
    }

    /// The job as it is about to be stored for the first time, due at `available_at`.
    pub fn accepted(job: &NewJob, seq: i64, available_at: Micros) -> Self {
        Self {
            seq,
            id: job.id,
            mission: job.mission.clone(),
            queue: job.queue.clone(),
            tool: job.tool.clone(),
            labels: (!job.labels.is_empty())
                .then(|| serde_json::to_string(&job.labels).expect("a map of strings is always JSON")),
            state: State::Accepted,
            attempt: Attempt::FIRST,
            attempt_limit: job.max_attempts,
            max_attempts: job.max_attempts,
            deadline: job.deadline,
            created_at: job.created_at,
            available_at,
            queued_at: None,
            started_at: None,
            finished_at: None,
            worker: None,
            error: None,
            stream_seq: None,
            republished: 0,
            version: 1,
            lifetime: job.lifetime(),
            retry: job.retry,
            cancelled_by: None,
            submitted_by: job.submitted_by.clone(),
            key_released: false,
        }
    }

    /// Brings a job that was read earlier up to here. `result` is what the commit of this state stored, if
    /// it stored one; it counts only where the job succeeded. Older than `job`: does nothing.
    pub fn bring_up(&self, job: &mut Job, result: Option<&ResultEffect>) {
        if self.version <= job.version {
            return;
        }
        job.state = self.state;
        job.attempt = self.attempt;
        job.deadline = self.deadline;
        job.available_at = self.available_at;
        job.queued_at = self.queued_at;
        job.started_at = self.started_at;
        job.finished_at = self.finished_at;
        job.worker.clone_from(&self.worker);
        job.error.clone_from(&self.error);
        job.cancelled_by.clone_from(&self.cancelled_by);
        job.version = self.version;
        if let Some(r) = result.filter(|_| self.state == State::Succeeded) {
            job.result.clone_from(&r.output);
            job.output_ref.clone_from(&r.output_ref);
            job.replay_of = r.replay_of;
        }
    }
}
