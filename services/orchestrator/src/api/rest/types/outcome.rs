//! What came of a try, as JSON: an error, or where a large result is.

use crate::model::JobError;
use agentforge_proto::bus::OutputRef;
use serde::Serialize;
use utoipa::ToSchema;

/// Why an attempt or a job failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobError)]
pub struct ErrorView {
    /// transient, network, timeout, rate_limited (these are retried), validation, tool_not_found, permission, runtime, worker_lost, expired, cancelled or invalid_message.
    class: &'static str,
    /// For people; at most 4 KiB.
    message: String,
    /// The last of what the tool wrote to standard error; at most 8 KiB.
    log_tail: String,
}

impl From<JobError> for ErrorView {
    fn from(e: JobError) -> Self {
        Self { class: e.class.as_str(), message: e.message, log_tail: e.log_tail }
    }
}

/// Where a large result is kept; GET /v1/jobs/{id}/output reads it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OutputRef)]
pub struct OutputRefView {
    /// Object store bucket.
    bucket: String,
    /// Object name.
    name: String,
    /// Bytes.
    size: u64,
    /// Of the bytes, hex.
    sha256: String,
}

impl From<OutputRef> for OutputRefView {
    fn from(o: OutputRef) -> Self {
        Self { bucket: o.bucket, name: o.name, size: o.size, sha256: o.sha256 }
    }
}
