//! The refusals that several handlers give.

pub(crate) use agentforge_runtime::http::Problem;

use crate::store;
use axum::http::StatusCode;
use std::{borrow::Cow, time::Duration};
use tracing::error;

/// How long to wait before trying again, where something is unavailable.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The request breaks a rule.
pub(crate) fn invalid(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_argument", detail)
}

/// What is asked for does not exist.
pub(crate) fn missing(what: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {what}"))
}

/// The caller may not do this.
pub(crate) fn forbidden(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "permission_denied", detail)
}

/// Something is unavailable; trying again helps.
pub(crate) fn unavailable(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::unavailable(detail, RETRY_AFTER)
}

impl From<store::Error> for Problem {
    fn from(fault: store::Error) -> Self {
        if fault.is_retryable() {
            return unavailable("the console's database is unavailable (DATABASE_URL)");
        }
        error!(error = &fault as &dyn std::error::Error, "the console's database refused a statement");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the console's database refused a statement; see its log",
        )
    }
}
