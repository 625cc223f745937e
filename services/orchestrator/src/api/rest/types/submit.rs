//! Submissions as JSON.

use super::parse_moment;
use crate::admission::SubmitInput;
use crate::api::trace::Origin;
use crate::error::Error;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::Duration;
use utoipa::ToSchema;

/// A job to be run.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SubmitJobRequest, example = json!({"tool": "echo", "args": {"hello": "world"}, "idempotency_key": "order-17"}))]
pub struct SubmitBody {
    /// A UUID of the caller's choice; made when absent.
    #[schema(format = Uuid)]
    pub id: Option<String>,
    /// The same key and the same body return the first job; another body is a conflict. At most 256 bytes. Also as the header Idempotency-Key.
    pub idempotency_key: Option<String>,
    /// The orchestrator's MISSION when absent.
    pub mission: Option<String>,
    /// Absent: `default`.
    pub queue: Option<String>,
    /// What to run.
    #[serde(default)]
    #[schema(required)]
    pub tool: String,
    /// Passed to the tool byte for byte; at most 1 MiB.
    #[schema(value_type = Option<Object>)]
    pub args: Option<Box<RawValue>>,
    /// At most 32, keys to 63 bytes, values to 256.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// 1 to 100; the default is 3.
    pub max_attempts: Option<u32>,
    /// Bound of one attempt, such as `30s` or `5m`. Default 5 min. Or give `timeout_ms`.
    pub timeout: Option<String>,
    /// The same in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Not before (RFC 3339).
    #[schema(format = DateTime)]
    pub run_at: Option<String>,
    /// Past it the job ends expired (RFC 3339). Default 20 min after max(accepted, run_at).
    #[schema(format = DateTime)]
    pub deadline: Option<String>,
    /// Part of the operation key that `reuse` goes by; at most 256 bytes.
    pub task: Option<String>,
    /// Return an equal earlier success instead of running again.
    #[serde(default)]
    pub reuse: bool,
}

impl SubmitBody {
    /// The submission, with what the request's headers add.
    pub(crate) fn into_input(self, origin: Origin) -> Result<SubmitInput, Error> {
        let timeout = match (self.timeout.filter(|t| !t.is_empty()), self.timeout_ms) {
            (Some(_), Some(_)) => return Err(Error::field("timeout", "give timeout or timeout_ms, not both")),
            (Some(text), None) => Some(
                agentforge_config::parse_duration(&text)
                    .map_err(|e| Error::field("timeout", format!("timeout {text:?} {e}")))?,
            ),
            (None, ms) => ms.map(Duration::from_millis),
        };
        Ok(SubmitInput {
            timeout,
            run_at: parse_moment("run_at", self.run_at.as_deref())?,
            deadline: parse_moment("deadline", self.deadline.as_deref())?,
            id: self.id,
            idempotency_key: self.idempotency_key,
            mission: self.mission,
            queue: self.queue,
            tool: self.tool,
            args: self.args.map(|a| String::from(Box::<str>::from(a))).unwrap_or_default(),
            labels: self.labels,
            max_attempts: self.max_attempts,
            task: self.task,
            reuse: self.reuse,
            traceparent: origin.traceparent,
            request_id: origin.request_id,
        })
    }
}
