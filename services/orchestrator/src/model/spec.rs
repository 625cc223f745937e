//! What a job is: all that is decided when it is accepted, and never changes.
//!
//! A new job, a stored one and one on its way to a worker have the same description. `admission::admit` makes it,
//! `store::spec` keeps it.

use super::RetryPolicy;
use agentforge_message_id::{JobId, Mission, Queue, ScheduleId, ToolName};
use agentforge_proto::time::Micros;
use std::collections::BTreeMap;
use std::time::Duration;

/// A job's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// Chosen by the caller or made by us.
    pub id: JobId,
    /// The environment or shard that it belongs to.
    pub mission: Mission,
    /// Among the jobs of this queue it is published in order of acceptance.
    pub queue: Queue,
    /// What the worker runs with the arguments.
    pub tool: ToolName,
    /// Part of the operation key.
    pub task: Option<String>,
    /// JSON text of an object.
    pub args: String,
    /// The caller's own, for filters and events.
    pub labels: BTreeMap<String, String>,
    /// Attempts granted (each redrive grants as many again).
    pub max_attempts: u32,
    /// Bound of one attempt.
    pub timeout: Duration,
    /// Waits between attempts.
    pub retry: RetryPolicy,
    /// The earliest moment at which it may run; `None`: at once.
    pub run_at: Option<Micros>,
    /// An equal earlier success may be returned.
    pub reuse: bool,
    /// At most one job per mission and key.
    pub idempotency_key: Option<String>,
    /// The schedule that made it.
    pub schedule_id: Option<ScheduleId>,
    /// The time that the job stands for: its turn of the schedule, however late it runs.
    pub scheduled_at: Option<Micros>,
    /// W3C traceparent of the submission.
    pub traceparent: Option<String>,
    /// X-Request-ID of the submission.
    pub request_id: Option<String>,
    /// The name of the token that submitted it; of a schedule's job, that created the schedule.
    pub submitted_by: Option<String>,
    /// When it was accepted.
    pub created_at: Micros,
}

impl JobSpec {
    /// How much text of the caller's it holds, bytes.
    pub(crate) fn text_bytes(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.args.len() + labels + self.idempotency_key.as_ref().map_or(0, String::len)
    }
}
