//! Submissions as JSON.

use super::{parse_moment, parse_span};
use crate::admission::SubmitInput;
use crate::api::trace::Origin;
use crate::error::Error;
use crate::model::{KeyReuse, RetryPolicy};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
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
    /// 1 to 100; the default is 12.
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: Option<u32>,
    /// Waits between attempts.
    pub retry: Option<RetryPolicyBody>,
    /// Bound of one attempt, such as `30s` or `5m`. Default 5 min. Or give `timeout_ms`.
    #[schema(pattern = "^([1-9][0-9]{0,2}(ms|s|m)|([1-9]|1[0-9]|2[0-4])h)$")]
    pub timeout: Option<String>,
    /// The same in milliseconds.
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub timeout_ms: Option<u64>,
    /// Not before (RFC 3339).
    #[schema(format = DateTime)]
    pub run_at: Option<String>,
    /// Not before so long from now, such as `10m`; instead of `run_at`, and the same when sent again.
    #[schema(pattern = "^([1-9][0-9]{0,2}(s|m|h)|([1-9][0-9]?|[12][0-9]{2}|3[0-5][0-9])d)$")]
    pub run_in: Option<String>,
    /// Past it the job ends expired (RFC 3339). Default 20 min after max(accepted, run_at).
    #[schema(format = DateTime)]
    pub deadline: Option<String>,
    /// The job ends expired so long after it may run, such as `1h`; instead of `deadline`, and the same when sent again.
    #[schema(pattern = "^([1-9][0-9]{0,2}(s|m|h)|([1-9][0-9]?|[12][0-9]{2}|3[0-5][0-9])d)$")]
    pub deadline_in: Option<String>,
    /// Whether the key may be taken from an earlier job that ended: `never` (the default), `after_stop` (it was cancelled or expired) or `after_failure` (it did not succeed).
    pub key_reuse: Option<KeyReuseWord>,
    /// Part of the operation key that `reuse` goes by; at most 256 bytes.
    pub task: Option<String>,
    /// Return an equal earlier success instead of running again.
    #[serde(default)]
    pub reuse: bool,
}

/// The words of `key_reuse`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = KeyReuse)]
pub enum KeyReuseWord {
    /// A key stands for one job.
    Never,
    /// From a job that was cancelled or expired.
    AfterStop,
    /// From a job that ended without success.
    AfterFailure,
}

/// Waits between attempts; what is absent is the orchestrator's. 10 ms to 24 h.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RetryPolicyRequest, example = json!({"base": "1s", "cap": "1m"}))]
pub struct RetryPolicyBody {
    /// Before the first retry, such as `1s`; doubles from there, each spread between half and whole.
    #[schema(pattern = "^([1-9][0-9]{1,3}ms|[1-9][0-9]{0,2}(s|m)|([1-9]|1[0-9]|2[0-4])h)$")]
    pub base: Option<String>,
    /// The same in milliseconds.
    #[schema(minimum = 10, maximum = 86_400_000)]
    pub base_ms: Option<u64>,
    /// The longest wait, such as `1m`.
    #[schema(pattern = "^([1-9][0-9]{1,3}ms|[1-9][0-9]{0,2}(s|m)|([1-9]|1[0-9]|2[0-4])h)$")]
    pub cap: Option<String>,
    /// The same in milliseconds.
    #[schema(minimum = 10, maximum = 86_400_000)]
    pub cap_ms: Option<u64>,
}

impl RetryPolicyBody {
    fn into_policy(self) -> Result<RetryPolicy, Error> {
        Ok(RetryPolicy {
            base: parse_span("retry.base", self.base.as_deref(), self.base_ms)?,
            cap: parse_span("retry.cap", self.cap.as_deref(), self.cap_ms)?,
        })
    }
}

impl SubmitBody {
    /// The submission, with what the request's headers add.
    pub(crate) fn into_input(self, origin: Origin) -> Result<SubmitInput, Error> {
        let key_reuse = match self.key_reuse {
            None | Some(KeyReuseWord::Never) => KeyReuse::Never,
            Some(KeyReuseWord::AfterStop) => KeyReuse::AfterStop,
            Some(KeyReuseWord::AfterFailure) => KeyReuse::AfterFailure,
        };
        if self.max_attempts == Some(0) {
            return Err(Error::field("max_attempts", "max_attempts is 0; expected 1 or more, or nothing"));
        }
        Ok(SubmitInput {
            timeout: parse_span("timeout", self.timeout.as_deref(), self.timeout_ms)?,
            retry: self.retry.unwrap_or_default().into_policy()?,
            run_in: parse_span("run_in", self.run_in.as_deref(), None)?,
            deadline_in: parse_span("deadline_in", self.deadline_in.as_deref(), None)?,
            key_reuse,
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
