//! Errors in REST's form: RFC 9457 `application/problem+json`, one shape for every refusal.
//!
//! A [`Problem`] travels in the response's extensions and is written out in one place, the edge,
//! where the request's id is known. Causes are logged there, never sent.

use crate::api::shown;
use crate::error::{Code, Error};
use agentforge_runtime::http as writer;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use std::sync::Arc;

pub(crate) use agentforge_runtime::http::{PROBLEM_MEDIA_TYPE as MEDIA_TYPE, ProblemBody as Body};

/// Why a request was refused or failed. Travels by pointer: results that hold it stay small.
#[derive(Clone, Debug)]
pub struct Problem(Box<Refusal>);

#[derive(Clone, Debug)]
struct Refusal {
    body: Body,
    cause: Option<Arc<Error>>,
    /// The `Allow` header.
    allow: Option<HeaderValue>,
}

/// Problems that only HTTP has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpOnly {
    MethodNotAllowed,
    UnsupportedMediaType,
    RequestTimeout,
}

impl HttpOnly {
    pub(crate) const ALL: [Self; 3] = [Self::MethodNotAllowed, Self::UnsupportedMediaType, Self::RequestTimeout];

    pub(crate) const fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::MethodNotAllowed => (405, "method_not_allowed", "The route does not have this method"),
            Self::UnsupportedMediaType => {
                (415, "unsupported_media_type", "The body is not of a type that is read here")
            }
            Self::RequestTimeout => (408, "request_timeout", "The body did not arrive in time"),
        }
    }
}

/// The kind of problem in a few words.
pub(crate) const fn title(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "A field breaks a rule",
        Code::TooLarge => "The body or a field is larger than its limit",
        Code::Unauthenticated => "A known token is needed",
        Code::PermissionDenied => "The caller's role does not allow it",
        Code::NotFound => "There is no such thing",
        Code::Conflict => "The id, key or name is taken by something else",
        Code::FailedPrecondition => "The state does not allow it",
        Code::OutboxFull => "Too many jobs wait to be queued",
        Code::TooManyRequests => "Too many requests at once",
        Code::Unavailable => "The orchestrator cannot do it now",
        Code::Internal => "A defect of the orchestrator",
    }
}

impl Problem {
    pub(crate) fn http(kind: HttpOnly, detail: impl Into<String>) -> Self {
        let (status, code, title) = kind.parts();
        let detail: String = detail.into();
        let body = Body {
            kind: format!("/docs#{code}").into(),
            title,
            status,
            detail: detail.into(),
            code,
            field: None,
            request_id: None,
            retry_after_ms: None,
        };
        Self(Box::new(Refusal { body, cause: None, allow: None }))
    }

    /// A method that the route does not have; `allow` lists those that it has.
    pub(crate) fn method(detail: String, allow: &str) -> Self {
        let mut problem = Self::http(HttpOnly::MethodNotAllowed, detail);
        problem.0.allow = HeaderValue::from_str(allow).ok();
        problem
    }

    /// A field of the body or query that breaks a rule; its name may come from the caller.
    pub(crate) fn field(field: impl Into<String>, detail: impl AsRef<str>) -> Self {
        let mut problem = Self::from(Error::new(Code::InvalidArgument, detail.as_ref()));
        problem.0.body.field = Some(shown(&field.into())).filter(|f| !f.is_empty());
        problem
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.body.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(crate) fn code(&self) -> &'static str {
        self.0.body.code
    }

    pub(crate) fn detail(&self) -> &str {
        &self.0.body.detail
    }

    pub(crate) fn field_name(&self) -> Option<&str> {
        self.0.body.field.as_deref()
    }

    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        self.0.body.retry_after_ms
    }

    pub(crate) fn cause(&self) -> Option<&Error> {
        self.0.cause.as_deref()
    }

    /// The response with its body, for the caller that made the request `request_id`.
    pub(crate) fn render(self, mut response: Response, request_id: &str) -> Response {
        let Refusal { body, allow, .. } = *self.0;
        let mut written = writer::Problem::of(body).for_request(request_id);
        if written.status() == StatusCode::UNAUTHORIZED {
            written = written.with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"agentforge\""));
        }
        if let Some(allow) = allow {
            written = written.with(header::ALLOW, allow);
        }
        written.write_into(&mut response);
        response
    }
}

impl From<Error> for Problem {
    fn from(e: Error) -> Self {
        let body = Body {
            kind: format!("/docs#{}", e.code.as_str()).into(),
            title: title(e.code),
            status: e.code.http_status(),
            detail: shown(&e.message).into(),
            code: e.code.as_str(),
            field: e.field.map(str::to_owned),
            request_id: None,
            retry_after_ms: e.retry_after.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        };
        Self(Box::new(Refusal { body, cause: Some(Arc::new(e)), allow: None }))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn retry_after_is_told_in_whole_seconds_of_one_or_more() {
        for (wait, want) in [(Duration::from_millis(1), "1"), (Duration::from_millis(1001), "2")] {
            let problem = Problem::from(Error::new(Code::OutboxFull, "full").retry_after(wait));
            let response = problem.render(StatusCode::TOO_MANY_REQUESTS.into_response(), "r");
            assert_eq!(response.headers()[header::RETRY_AFTER], want);
        }
    }

    #[test]
    fn causes_are_never_sent() {
        let source = crate::store::Error::Corrupt { what: "job", problem: "secret detail".into() };
        let body = serde_json::to_string(&Problem::from(Error::from(source)).0.body).unwrap();
        assert!(body.contains("internal") && !body.contains("secret detail"), "{body}");
    }
}
