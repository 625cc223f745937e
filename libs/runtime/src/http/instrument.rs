//! Request ids, one span and the metrics for every request, and an answer after a panic.
//!
//! A caller's X-Request-ID is kept if it is short and printable, else a new one is made; it is in
//! the response, in the request's extensions and on every log line of the request.

use super::problem::Problem;
use crate::{Runtime, metrics};
use agentforge_metrics::Bounded;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use opentelemetry::propagation::Extractor;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;
use tracing::{Instrument, Span, field, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header that carries a request's id, both ways.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id taken from a caller, in characters.
const REQUEST_ID_MAX: usize = 128;

/// Most route templates in metrics; no service has that many.
const ROUTES_MAX: usize = 200;

/// The status that proxies log for a caller that did not wait for the answer.
const CALLER_GONE: &str = "499";

/// The label for a path that no route matches.
const UNMATCHED: &str = "unmatched";

/// A request's id, found by handlers as `Extension<RequestId>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The id: 1 to 128 printable characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The caller's id if it may be used, else a new UUID.
    fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID_HEADER).and_then(|value| value.to_str().ok());
        match given.filter(|id| is_valid(id)) {
            Some(id) => Self(id.into()),
            None => Self(uuid::Uuid::now_v7().to_string().into()),
        }
    }
}

fn is_valid(id: &str) -> bool {
    (1..=REQUEST_ID_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Wraps every route of a service's router. Call it last, after all routes and fallbacks are in.
pub fn instrument(router: Router, runtime: &Runtime) -> Router {
    let state = Observed { service: runtime.name(), routes: Arc::new(Bounded::new(ROUTES_MAX)) };
    router.layer(from_fn_with_state(state, observe))
}

#[derive(Clone)]
struct Observed {
    service: &'static str,
    routes: Arc<Bounded>,
}

async fn observe(State(observed): State<Observed>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = RequestId::of(request.headers());
    let method = method_label(request.method());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let path = matched.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let route = observed.routes.label(path).to_owned();
    let span = span(observed.service, &id, method, &route, request.headers());
    request.extensions_mut().insert(id.clone());

    let mut record = Record { service: observed.service, method, route, started, status: None };
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
    let mut response = answer.unwrap_or_else(|_| after_panic(&id));

    let status = response.status();
    span.record("status", status.as_u16());
    // In the terms of OpenTelemetry's conventions, in addition to those of the log lines.
    span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
        span.set_attribute("error.type", status.as_str().to_owned());
    }
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID_HEADER, value);
    }
    record.status = Some(status);
    response
}

/// Counts the request when it is over, also when its caller went away before the answer.
struct Record {
    service: &'static str,
    method: &'static str,
    route: String,
    started: Instant,
    status: Option<StatusCode>,
}

impl Drop for Record {
    fn drop(&mut self) {
        let status = self.status.as_ref().map_or(CALLER_GONE, StatusCode::as_str);
        metrics::HTTP_REQUESTS.inc(&[self.service, self.method, &self.route, status]);
        let seconds = self.started.elapsed().as_secs_f64();
        metrics::HTTP_REQUEST_SECONDS.observe(&[self.service, self.method, &self.route], seconds);
    }
}

/// Characters of a Host header that a span keeps.
const HOST_MAX: usize = 128;

/// Probes and scrapes are too many and too dull for traces.
fn span(service: &'static str, id: &RequestId, method: &str, route: &str, headers: &HeaderMap) -> Span {
    if matches!(route, "/healthz" | "/readyz" | "/metrics") {
        return Span::none();
    }
    let span = info_span!(
        "request",
        service,
        request_id = id.as_str(),
        method,
        route,
        status = field::Empty,
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = field::Empty,
    );
    let parent = opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&Headers(headers)));
    // Refused only for a disabled span, which has no parent to have.
    let _ = span.set_parent(parent);
    span.set_attribute("http.request.method", method.to_owned());
    span.set_attribute("http.route", route.to_owned());
    if let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) {
        span.set_attribute("server.address", host.chars().take(HOST_MAX).collect::<String>());
    }
    span
}

fn after_panic(id: &RequestId) -> Response {
    let detail = "the request could not be handled; the log has more under its request id";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail).for_request(id.as_str()).into_response()
}

fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// The caller's trace context.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }
    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_printable() {
        for good in ["a", "0190-ab/cd:ef", &"x".repeat(128)] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", "a b", "a\tb", "é", &"x".repeat(129)] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
