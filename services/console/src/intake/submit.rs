//! Jobs for approved items: what the board asks of the orchestrator.

use agentforge_access::Principal;
use async_trait::async_trait;
use serde_json::Value;
use uuid::Uuid;

/// Why there is no job.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The caller may not submit it.
    #[error("the orchestrator does not let this caller submit the job: {0}")]
    Forbidden(String),
    /// The submission breaks a rule: the template is wrong, or does not fit this item.
    #[error("the orchestrator refused the job (INTAKE_JOB_TEMPLATE): {0}")]
    Refused(String),
    /// Trying again helps; it leads to the same job.
    #[error("the job was not submitted: {0}")]
    Unavailable(String),
}

/// Submits jobs in the name of a caller.
#[async_trait]
pub trait Submit: Send + Sync + 'static {
    /// Submits a job. The same body again is the same job.
    ///
    /// # Errors
    /// [`SubmitError`].
    async fn submit(&self, caller: &Principal, body: Value) -> Result<Uuid, SubmitError>;

    /// Cancels a job whose item went another way meanwhile. What cannot be cancelled is logged.
    async fn cancel(&self, caller: &Principal, job: Uuid);
}
