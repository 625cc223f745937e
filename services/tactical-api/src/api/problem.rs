//! The refusals that several handlers give.

use agentforge_runtime::http::Problem;
use axum::http::{HeaderValue, StatusCode, header};
use std::{borrow::Cow, time::Duration};

/// How long to wait before trying again, where something is unavailable.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// With a code that programs act on, and a text for people. No cache keeps it.
pub fn problem(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Problem {
    uncached(Problem::new(status, code, detail))
}

/// No token, or none that is valid.
pub fn unauthorized() -> Problem {
    uncached(Problem::unauthorized("unauthorized", "a valid bearer token is needed"))
}

/// Something is unavailable; trying again helps.
pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Problem {
    uncached(Problem::unavailable(detail, RETRY_AFTER))
}

fn uncached(problem: Problem) -> Problem {
    problem.with(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
}
