//! Refusals as RFC 9457 wants them: the one writer of `application/problem+json` of all services.
//!
//! A problem has a stable code, which programs act on, and a text for people. What else it says, and which codes there
//! are, is the service's.

use axum::body::Body as HttpBody;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::borrow::Cow;
use std::time::Duration;
use utoipa::ToSchema;

/// The media type of problems.
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// The `type` of problems that are described by their code only.
const BLANK: &str = "about:blank";

/// Why a request was refused or failed (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Where the kind of problem is described.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "/docs#invalid_argument")]
    pub kind: Cow<'static, str>,
    /// The kind of problem in a few words.
    #[schema(example = "A field breaks a rule")]
    pub title: &'static str,
    /// The HTTP status again.
    #[schema(example = 400)]
    pub status: u16,
    /// What is wrong with this request: the limit, and the setting that changes it.
    #[schema(value_type = String)]
    pub detail: Cow<'static, str>,
    /// The stable code; gRPC has the same.
    #[schema(example = "invalid_argument")]
    pub code: &'static str,
    /// The field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "tool")]
    pub field: Option<String>,
    /// The value of the X-Request-ID header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Wait so long before trying again, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// A refusal, with the headers that belong to it.
#[derive(Clone, Debug)]
pub struct Problem {
    body: Box<ProblemBody>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// With a code that programs act on, and a text for people.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::of(ProblemBody {
            kind: BLANK.into(),
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            field: None,
            request_id: None,
            retry_after_ms: None,
        })
    }

    /// With a body that the service has filled in. A wait becomes the header `Retry-After` too.
    pub fn of(body: ProblemBody) -> Self {
        let wait = body.retry_after_ms.map(|ms| (header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1))));
        Self { body: Box::new(body), headers: wait.into_iter().collect() }
    }

    /// No bearer token, or none that is known. The header `WWW-Authenticate` says what is asked for.
    pub fn unauthorized(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
            .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// Something is unavailable; trying again after `wait` helps.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>, wait: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
            .with(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)))
    }

    /// With a header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// For the caller that made this request.
    #[must_use]
    pub fn for_request(mut self, id: &str) -> Self {
        self.body.request_id = Some(id.to_owned());
        self
    }

    /// The HTTP status that the answer has; 500 if the body's is not a status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.body.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The body as text, for what writes to a socket itself.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.body).expect("strings and numbers are JSON")
    }

    /// Writes body and headers into a response, which keeps its status and its other headers.
    pub fn write_into(self, response: &mut Response) {
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
        let body = self.to_json();
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        *response.body_mut() = HttpBody::from(body);
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(HttpBody::empty());
        *response.status_mut() = self.status();
        self.write_into(&mut response);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_problem_has_its_members_and_no_empty_ones() {
        let problem = Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here");
        let body: Value = serde_json::from_str(&problem.to_json()).unwrap();
        let wanted = json!({
            "type": "about:blank", "title": "Not Found", "status": 404,
            "code": "not_found", "detail": "there is nothing here",
        });
        assert_eq!(body, wanted);
        let body: Value = serde_json::from_str(&problem.for_request("r-1").to_json()).unwrap();
        assert_eq!(body["request_id"], "r-1");
    }

    #[test]
    fn headers_belong_to_the_problem() {
        let response = Problem::unavailable("away", Duration::from_secs(5)).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_MEDIA_TYPE);
        let response = Problem::unauthorized("unauthenticated", "send a token").into_response();
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
        for (ms, seconds) in [(1, "1"), (1001, "2")] {
            let mut body = *Problem::new(StatusCode::TOO_MANY_REQUESTS, "outbox_full", "full").body;
            body.retry_after_ms = Some(ms);
            assert_eq!(Problem::of(body).into_response().headers()[header::RETRY_AFTER], seconds);
        }
    }

    #[test]
    fn a_response_keeps_what_is_not_the_problems() {
        let mut response = (StatusCode::GONE, [("x-a", "b"), ("content-length", "3")], "old").into_response();
        Problem::new(StatusCode::GONE, "gone", "over").write_into(&mut response);
        assert_eq!((response.status(), &response.headers()["x-a"]), (StatusCode::GONE, &HeaderValue::from_static("b")));
        assert!(!response.headers().contains_key(header::CONTENT_LENGTH));
    }
}
