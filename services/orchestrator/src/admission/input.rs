//! A submission as the protocols and the schedules hand it over: fields as they were given, nothing checked.

use crate::model::{KeyReuse, RetryPolicy};
use agentforge_proto::time::Micros;
use std::collections::BTreeMap;
use std::time::Duration;

/// A submission as it came in: nothing checked yet. Empty strings mean "not given".
#[derive(Clone, Debug, Default)]
pub struct SubmitInput {
    /// UUID of the caller's choice.
    pub id: Option<String>,
    /// Key.
    pub idempotency_key: Option<String>,
    /// Mission.
    pub mission: Option<String>,
    /// Queue.
    pub queue: Option<String>,
    /// Tool.
    pub tool: String,
    /// JSON text of an object; empty is `{}`.
    pub args: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Attempts.
    pub max_attempts: Option<u32>,
    /// Bound of one attempt.
    pub timeout: Option<Duration>,
    /// Waits between attempts.
    pub retry: RetryPolicy,
    /// Not before.
    pub run_at: Option<Micros>,
    /// Not before so long from now; instead of `run_at`.
    pub run_in: Option<Duration>,
    /// Past it the job ends expired.
    pub deadline: Option<Micros>,
    /// The job ends expired so long after it may run; instead of `deadline`.
    pub deadline_in: Option<Duration>,
    /// Whether the key may be taken from an earlier job that ended.
    pub key_reuse: KeyReuse,
    /// Part of the operation key.
    pub task: Option<String>,
    /// An equal earlier success may be returned.
    pub reuse: bool,
    /// W3C traceparent of the request.
    pub traceparent: Option<String>,
    /// X-Request-ID of the request.
    pub request_id: Option<String>,
}
