//! What may be submitted: raw requests in, [`crate::model::NewJob`] or a refusal that names field, limit and knob.
//!
//! Pure: the clock and the limits are passed in. gRPC, REST and schedules all come through here.

mod checks;
#[cfg(test)]
mod hash_tests;
mod limits;
mod submission;
#[cfg(test)]
pub(crate) mod tests;

pub use checks::{admit_deadline_in, admit_retry};
pub use limits::{
    ARGS_MAX_BYTES, DEADLINE_IN_MAX, KEY_MAX_BYTES, LABEL_KEY_MAX_BYTES, LABEL_VALUE_MAX_BYTES, LABELS_MAX, Limits,
    MESSAGE_OVERHEAD_BYTES, RETRY_WAIT_MAX, RETRY_WAIT_MIN, ToolRetries, args_max_bytes,
};
pub use submission::{JobRequest, SubmitInput, admit};
