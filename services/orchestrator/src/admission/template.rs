//! What a schedule repeats.

use super::{SubmitInput, given};
use crate::error::Error;
use crate::model::RetryPolicy;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a schedule repeats: a submission without identity or times. Stored as JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Template {
    /// Mission.
    pub mission: Option<String>,
    /// Queue.
    pub queue: Option<String>,
    /// Tool.
    pub tool: String,
    /// JSON text of an object.
    pub args: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Attempts.
    pub max_attempts: Option<u32>,
    /// Bound of one attempt, milliseconds.
    pub timeout_ms: Option<u64>,
    /// Part of the operation key.
    pub task: Option<String>,
    /// An equal earlier success may be returned.
    #[serde(default)]
    pub reuse: bool,
    /// Wait before the first retry, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_base_ms: Option<u64>,
    /// Longest wait before a retry, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_cap_ms: Option<u64>,
    /// Each job ends expired so long after its turn, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_in_ms: Option<u64>,
}

impl Template {
    /// The submission of one turn, under a key that makes the turn unique.
    pub fn to_input(&self, idempotency_key: String) -> SubmitInput {
        SubmitInput {
            idempotency_key: Some(idempotency_key),
            mission: self.mission.clone(),
            queue: self.queue.clone(),
            tool: self.tool.clone(),
            args: self.args.clone(),
            labels: self.labels.clone(),
            max_attempts: self.max_attempts,
            timeout: self.timeout_ms.map(Duration::from_millis),
            task: self.task.clone(),
            reuse: self.reuse,
            retry: RetryPolicy {
                base: self.retry_base_ms.map(Duration::from_millis),
                cap: self.retry_cap_ms.map(Duration::from_millis),
            },
            deadline_in: self.deadline_in_ms.map(Duration::from_millis),
            ..SubmitInput::default()
        }
    }

    /// Keeps what a schedule may repeat.
    ///
    /// # Errors
    /// Names a field that belongs to one submission only.
    pub fn from_input(input: SubmitInput) -> Result<Self, Error> {
        let single = [
            ("id", given(&input.id).is_some()),
            ("idempotency_key", given(&input.idempotency_key).is_some()),
            ("key_reuse", input.key_reuse != Default::default()),
            ("run_at", input.run_at.is_some()),
            ("run_in", input.run_in.is_some()),
            ("deadline", input.deadline.is_some()),
        ];
        if let Some((field, _)) = single.into_iter().find(|(_, set)| *set) {
            return Err(Error::field(
                field,
                format!("{field} belongs to a single job and cannot be part of a schedule"),
            ));
        }
        let ms = |d: Option<Duration>| d.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        Ok(Self {
            mission: input.mission.filter(|s| !s.is_empty()),
            queue: input.queue.filter(|s| !s.is_empty()),
            tool: input.tool,
            args: input.args,
            labels: input.labels,
            max_attempts: input.max_attempts,
            timeout_ms: ms(input.timeout),
            task: input.task.filter(|s| !s.is_empty()),
            reuse: input.reuse,
            retry_base_ms: ms(input.retry.base),
            retry_cap_ms: ms(input.retry.cap),
            deadline_in_ms: ms(input.deadline_in),
        })
    }
}
