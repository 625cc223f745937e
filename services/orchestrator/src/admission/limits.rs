//! Bounds on submissions: those that are settings, with what is granted when nothing is asked for, and the fixed ones.

use crate::model::RetryPolicy;
use agentforge_message_id::{Mission, ToolName};
use std::collections::BTreeMap;
use std::time::Duration;

/// Largest and smallest of what a submission may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of `args`: min(1 MiB, the server's max_payload − 64 KiB).
    pub args_max_bytes: usize,
    /// Attempts that may be asked for.
    pub max_attempts_max: u32,
    /// Attempts granted when nothing is asked for (JOB_MAX_ATTEMPTS).
    pub max_attempts_default: u32,
    /// What is granted to tools when nothing is asked for (TOOL_RETRIES).
    pub tool_retries: BTreeMap<ToolName, ToolRetries>,
    /// Timeout of one attempt when nothing is asked for (JOB_TIMEOUT).
    pub timeout_default: Duration,
    /// Longest timeout of one attempt (JOB_TIMEOUT_MAX).
    pub timeout_max: Duration,
    /// Deadline when nothing is asked for (JOB_DEADLINE), from max(accepted, run_at); `None`: no deadline.
    pub deadline_default: Option<Duration>,
    /// How far ahead `run_at` may be.
    pub run_at_max: Duration,
    /// Mission when nothing is asked for.
    pub mission_default: Mission,
}

/// How often and how patiently a tool is tried when its job does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToolRetries {
    /// How many attempts its jobs are granted; `None`: as many as other tools.
    pub max_attempts: Option<u32>,
    /// Waits between them.
    pub retry: RetryPolicy,
}

/// Longest wait before a retry that may be asked for.
pub const RETRY_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Shortest wait before a first retry that may be asked for: less would only be load.
pub const RETRY_WAIT_MIN: Duration = Duration::from_millis(10);
/// Longest `deadline_in`: as far as `run_at` may be ahead.
pub const DEADLINE_IN_MAX: Duration = Duration::from_secs(366 * 86_400);
/// Most labels of one job.
pub const LABELS_MAX: usize = 32;
/// Longest label key, bytes.
pub const LABEL_KEY_MAX_BYTES: usize = 63;
/// Longest label value, bytes.
pub const LABEL_VALUE_MAX_BYTES: usize = 256;
/// Longest idempotency key and task, bytes.
pub const KEY_MAX_BYTES: usize = 256;
/// Largest `args` regardless of the server's limit, bytes.
pub const ARGS_MAX_BYTES: usize = 1024 * 1024;
/// What a message needs in addition to `args`, bytes.
pub const MESSAGE_OVERHEAD_BYTES: usize = 64 * 1024;

/// The bound on `args` under a NATS server's max_payload, bytes.
pub fn args_max_bytes(max_payload: usize) -> usize {
    ARGS_MAX_BYTES.min(max_payload.saturating_sub(MESSAGE_OVERHEAD_BYTES))
}
