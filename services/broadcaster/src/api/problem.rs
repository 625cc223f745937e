//! The refusals that several handlers give.

pub(super) use agentforge_runtime::http::Problem;

use axum::http::StatusCode;
use std::{borrow::Cow, time::Duration};

/// How long to wait before trying again, where something is unavailable.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The request breaks a rule.
pub(super) fn invalid(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_argument", detail)
}

/// What is asked for does not exist.
pub(super) fn missing(what: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {what}"))
}

/// Something is unavailable; trying again helps.
pub(super) fn unavailable(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::unavailable(detail, RETRY_AFTER)
}
