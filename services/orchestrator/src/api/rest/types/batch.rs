//! The answers of a batch as JSON.

use crate::api::rest::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;

/// One answer of a batch: either accepted or refused.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchItem {
    /// Counts the submissions of the batch from 0.
    pub(crate) index: usize,
    /// Stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) accepted: Option<Accepted>,
    /// Not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<Refused>,
}

/// A stored submission of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct Accepted {
    /// The job.
    pub(crate) id: String,
    /// False when the same submission was stored before.
    pub(crate) created: bool,
}

/// A refused submission of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct Refused {
    /// The stable code.
    code: &'static str,
    /// What is wrong.
    message: String,
    /// The field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Wait so long before trying again, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl From<&Problem> for Refused {
    fn from(p: &Problem) -> Self {
        Self {
            code: p.code(),
            message: p.detail().to_owned(),
            field: p.field_name().map(str::to_owned),
            retry_after_ms: p.retry_after_ms(),
        }
    }
}

/// The answers of a batch, in its order.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchAnswer {
    /// Stored now or before.
    pub(crate) accepted: usize,
    /// Not stored.
    pub(crate) refused: usize,
    /// One answer a submission.
    pub(crate) items: Vec<BatchItem>,
}
