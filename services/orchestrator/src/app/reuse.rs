//! Whether the success of an attempt may be kept for equal operations, and under which key.

use super::App;
use agentforge_message_id::{Attempt, JobId};
use agentforge_proto::operation::operation_key;
use serde_json::value::RawValue;
use tracing::debug;

impl App {
    /// The key of what an open job's current attempt does, if the job asked for reuse. What the worker says of it does not
    /// count: the description is the stored one.
    pub(crate) async fn operation_of(&self, id: JobId, attempt: Attempt) -> Option<String> {
        let job = self.store().job(id).await.unwrap_or_else(|error| {
            debug!(
                error = &error as &dyn std::error::Error,
                "a job could not be read; its success is not kept for reuse"
            );
            None
        })?;
        if !job.reuse || job.attempt != attempt || job.state.is_final() {
            return None;
        }
        let args = RawValue::from_string(job.args.clone()).ok()?;
        operation_key(&job.tool, &args, job.task.as_deref())
    }
}
