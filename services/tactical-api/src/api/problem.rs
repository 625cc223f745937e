//! The refusals that several handlers give.

use crate::access::in_words;
use agentforge_door::Refusal;
use agentforge_runtime::http::Problem;
use axum::http::{HeaderValue, StatusCode, header};
use std::{borrow::Cow, time::Duration};

/// How long to wait before trying again, where something is unavailable.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// With a code that programs act on, and a text for people. No cache keeps it.
pub fn problem(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Problem {
    uncached(Problem::new(status, code, detail))
}

/// A caller that is not let in.
pub fn refused(refusal: &Refusal) -> Problem {
    let (status, code, detail) = in_words(refusal);
    let refused = match status {
        StatusCode::UNAUTHORIZED => uncached(Problem::unauthorized(code, detail)),
        _ => problem(status, code, detail),
    };
    match refusal.retry_after() {
        Some(wait) => refused.with(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1))),
        None => refused,
    }
}

/// Something is unavailable; trying again helps.
pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Problem {
    uncached(Problem::unavailable(detail, RETRY_AFTER))
}

fn uncached(problem: Problem) -> Problem {
    problem.with(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
}
