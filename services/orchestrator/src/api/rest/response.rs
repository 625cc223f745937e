//! Answers as handlers give them.

use super::problem::Problem;
use crate::error::{Code, Error};
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

/// On an answer that every caller of a role who sees the whole installation would get alike: no part of it is hidden from
/// some of them, and no entry in the audit log has who read it. The console shares such answers.
pub(super) const ALIKE: &str = "x-agentforge-alike";

/// A JSON answer, marked where it is the same for all callers of a role.
pub(super) fn json_to<T: Serialize>(is_alike: bool, value: &T) -> Result<Response, Problem> {
    let mut answer = json(StatusCode::OK, value)?;
    if is_alike {
        answer.headers_mut().insert(HeaderName::from_static(ALIKE), HeaderValue::from_static("role"));
    }
    Ok(answer)
}

/// A JSON answer.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value)
        .map_err(|e| Problem::from(Error::new(Code::Internal, format!("the answer could not be written: {e}"))))?;
    Ok((status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
}
