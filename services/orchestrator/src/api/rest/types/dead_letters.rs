//! Dead letters and their redrive as JSON.

use super::{ErrorView, Moment, NotPutBackView, moment};
use crate::model::DeadLetter;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A job that could not be completed, or a message that was not a job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub struct DeadLetterView {
    /// Its key; also the Nats-Msg-Id of its message in swarm_dlq.
    id: String,
    /// The job; null for bytes that were none.
    job_id: Option<String>,
    /// Mission.
    mission: String,
    /// Queue.
    queue: String,
    /// Tool.
    tool: String,
    /// attempts_exhausted, not_retryable, worker_lost, invalid_message or invalid_signature.
    reason: String,
    /// The last error.
    error: ErrorView,
    /// When it died.
    #[schema(value_type = String, format = DateTime)]
    created_at: Moment,
    /// When it was put back.
    #[schema(value_type = Option<String>, format = DateTime)]
    redriven_at: Option<Moment>,
}

impl From<DeadLetter> for DeadLetterView {
    fn from(d: DeadLetter) -> Self {
        Self {
            id: d.id,
            job_id: d.job.map(|id| id.to_string()),
            mission: d.mission,
            queue: d.queue,
            tool: d.tool,
            reason: d.reason,
            error: d.error.into(),
            created_at: Moment(d.created_at),
            redriven_at: moment(d.redriven_at),
        }
    }
}

/// A page of dead letters, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterList {
    /// The dead letters.
    pub(crate) dead_letters: Vec<DeadLetterView>,
    /// Give it as `cursor` to get the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

/// Which dead jobs to put back.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RedriveDeadLettersRequest, example = json!({"queue": "default", "rate": 20}))]
pub struct RedriveBody {
    /// These jobs; or, when empty, all that the filters let through.
    #[serde(default)]
    #[schema(max_items = 10000)]
    pub job_ids: Vec<String>,
    /// Of this mission.
    pub mission: Option<String>,
    /// Of this queue.
    pub queue: Option<String>,
    /// With this reason.
    pub reason: Option<String>,
    /// Jobs a second, at most 1000; the default is 50.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1000)]
    pub rate: f64,
    /// At most so many; the default is 10000.
    #[serde(default)]
    pub limit: u32,
    /// Continue without this connection: the answer is 202 and names the operation to ask about. `Prefer:
    /// respond-async` says the same.
    #[serde(default)]
    pub r#async: bool,
}

/// Which dead letters to discard.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DiscardDeadLettersRequest, example = json!({"queue": "default", "reason": "invalid_message"}))]
pub struct DiscardBody {
    /// These letters, by their ids or by their jobs'; or, when empty, all that the filters let through.
    #[serde(default)]
    pub ids: Vec<String>,
    /// Of this mission.
    pub mission: Option<String>,
    /// Of this queue.
    pub queue: Option<String>,
    /// With this reason.
    pub reason: Option<String>,
    /// At most so many; the default is 10000.
    #[serde(default)]
    pub limit: u32,
}

/// What was discarded.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DiscardDeadLettersResponse)]
pub struct DiscardAnswer {
    /// How many there were.
    pub(crate) discarded: u64,
}

/// How far a redrive is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RedriveProgress)]
pub struct RedriveView {
    /// Put back.
    pub(crate) redriven: u64,
    /// Not dead any more, or no job.
    pub(crate) skipped: u64,
    /// Whether this is the last word.
    pub(crate) done: bool,
    /// Why jobs were skipped, at most 100 of a call; of a line, those since the line before. Left out when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) not_put_back: Vec<NotPutBackView>,
}
