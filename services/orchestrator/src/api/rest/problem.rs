//! Errors in REST's form: RFC 9457 `application/problem+json`, one shape for every refusal.
//!
//! A [`Problem`] travels in the response's extensions and is written out in one place, the edge,
//! where the request's id is known. Causes are logged there, never sent.

use crate::api::shown;
use crate::error::{Code, Error};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The media type of problems.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request was refused or failed. Travels by pointer: results that hold it stay small.
#[derive(Clone, Debug)]
pub struct Problem(Box<Body>);

/// Why a request was refused or failed (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Body {
    /// Where the kind of problem is described.
    #[serde(rename = "type")]
    #[schema(example = "/docs#invalid_argument")]
    kind: String,
    /// The kind of problem in a few words.
    #[schema(example = "A field breaks a rule")]
    title: &'static str,
    /// The HTTP status again.
    #[schema(example = 400)]
    status: u16,
    /// What is wrong with this request: the limit, and the setting that changes it.
    detail: String,
    /// The stable code; gRPC has the same.
    #[schema(example = "invalid_argument")]
    code: &'static str,
    /// The field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "tool")]
    field: Option<String>,
    /// The value of the X-Request-ID header.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// Wait so long before trying again, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip)]
    cause: Option<Arc<Error>>,
    /// The `Allow` header.
    #[serde(skip)]
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
        Self(Box::new(Body {
            kind: format!("/docs#{code}"),
            title,
            status,
            detail: detail.into(),
            code,
            field: None,
            request_id: None,
            retry_after_ms: None,
            cause: None,
            allow: None,
        }))
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
        problem.0.field = Some(shown(&field.into())).filter(|f| !f.is_empty());
        problem
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(crate) fn code(&self) -> &'static str {
        self.0.code
    }

    pub(crate) fn detail(&self) -> &str {
        &self.0.detail
    }

    pub(crate) fn field_name(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        self.0.retry_after_ms
    }

    pub(crate) fn cause(&self) -> Option<&Error> {
        self.0.cause.as_deref()
    }

    /// The response with its body, for the caller that made the request `request_id`.
    pub(crate) fn render(mut self, mut response: Response, request_id: &str) -> Response {
        self.0.request_id = Some(request_id.to_owned());
        let body = serde_json::to_vec(&self.0).expect("strings and numbers are JSON");
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(ms) = self.0.retry_after_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
        }
        if self.0.status == 401 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"agentforge\""));
        }
        if let Some(allow) = self.0.allow {
            headers.insert(header::ALLOW, allow);
        }
        *response.body_mut() = body.into();
        response
    }
}

impl From<Error> for Problem {
    fn from(e: Error) -> Self {
        Self(Box::new(Body {
            kind: format!("/docs#{}", e.code.as_str()),
            title: title(e.code),
            status: e.code.http_status(),
            detail: shown(&e.message),
            code: e.code.as_str(),
            field: e.field.map(str::to_owned),
            request_id: None,
            retry_after_ms: e.retry_after.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            cause: Some(Arc::new(e)),
            allow: None,
        }))
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
        let body = serde_json::to_string(&Problem::from(Error::from(source)).0).unwrap();
        assert!(body.contains("internal") && !body.contains("secret detail"), "{body}");
    }
}
