//! What every REST request passes through: its id, the gate, the role, and the writing of problems.
//!
//! The order matters: the id first, so that every answer has one; then the gate, so that a flood costs
//! little; then the guard. Nothing below it checks a role.

use super::problem::Problem;
use crate::api::auth::{Auth, Role};
use crate::api::limits::Gate;
use crate::api::operations::{self, Access};
use crate::api::{log_failure, trace};
use crate::app::App;
use crate::error::{Code, Error};
use agentforge_runtime::http::RequestId;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;

/// What the edge needs.
#[derive(Clone)]
pub(crate) struct Edge {
    pub(crate) auth: Auth,
    pub(crate) gate: Gate,
    pub(crate) app: App,
}

/// Admits a request: a known token, its role, a place under the limit of requests. Writes problems into answers.
pub(crate) async fn edge(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    // The chassis gives every request an id and a span; a router without it does so here.
    let given = request.extensions().get::<RequestId>().map(|id| id.as_str().to_owned());
    let request_id = given.unwrap_or_else(|| trace::request_id(request.headers()));
    let id_header = HeaderValue::from_str(&request_id).expect("printable, or a UUID");
    let route = request.extensions().get::<MatchedPath>().map(|m| m.as_str().to_owned()).unwrap_or_default();
    request.headers_mut().insert(HeaderName::from_static(trace::REQUEST_ID), id_header.clone());
    let mut response = pass(&edge, &route, request, next).await;
    if response.status().is_client_error() || response.status().is_server_error() {
        let problem = response.extensions_mut().remove::<Problem>().unwrap_or_else(|| unnamed(&response));
        if let Some(cause) = problem.cause() {
            log_failure(cause, &route, Some(&request_id));
        }
        response = problem.render(response, &request_id);
    }
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static(trace::REQUEST_ID), id_header);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn pass(edge: &Edge, route: &str, request: Request, next: Next) -> Response {
    let _place = match edge.gate.enter() {
        Ok(place) => place,
        Err(e) => return Problem::from(e).into_response(),
    };
    if let Err(refusal) = guard(edge, route, &request) {
        return refusal.into_response();
    }
    if matches!(operations::of_route(request.method(), route), Access::Guarded(_))
        && let Err(e) = edge.app.opened().await
    {
        return Problem::from(e).into_response();
    }
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        // The panic hook has logged where.
        Err(_) => Problem::from(Error::new(Code::Internal, "a defect ended this request; see the orchestrator's log"))
            .into_response(),
    }
}

/// Lets pass what the table of operations allows.
fn guard(edge: &Edge, route: &str, request: &Request) -> Result<(), Problem> {
    if edge.auth.is_open() {
        same_machine(request.headers(), request.uri())?;
    }
    if route.is_empty() {
        let detail = format!("there is no route {}; GET /docs lists them", request.uri().path());
        return Err(Error::new(Code::NotFound, detail).into());
    }
    match operations::of_route(request.method(), route) {
        Access::Open => Ok(()),
        Access::Guarded(operation) => {
            let caller = edge.auth.check(request.headers().get(header::AUTHORIZATION), operation.role)?;
            if operation.role == Role::Admin {
                tracing::info!(caller, operation = operation.name, path = request.uri().path(), "admin request");
            }
            Ok(())
        }
        Access::MethodUnknown => {
            let allow = operations::methods_of(route);
            Err(Problem::method(format!("{route} has no method {}; it has {allow}", request.method()), &allow))
        }
        Access::Unknown => Err(Error::new(Code::PermissionDenied, "this route is not open to anyone").into()),
    }
}

/// Without tokens a web page in a browser could reach a loopback port, by a cross-site request or by a name that it
/// points to 127.0.0.1. Browsers reveal both: by Origin and by Host.
fn same_machine(headers: &HeaderMap, uri: &Uri) -> Result<(), Error> {
    let host = match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(header::HOST).and_then(|h| h.to_str().ok()),
    };
    let refused = |what: &str| {
        let message = format!("{what}; set API_TOKENS to serve other callers than this machine's");
        Err(Error::new(Code::PermissionDenied, message))
    };
    if host.is_some_and(|h| !is_local_name(h)) {
        return refused("without API_TOKENS the host must be localhost or an IP address");
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().ok().and_then(|o| o.split_once("://")).map(|(_, authority)| authority);
    if origin.is_none() || origin != host {
        return refused("without API_TOKENS requests from web pages of other origins are refused");
    }
    Ok(())
}

fn is_local_name(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else { return false };
    let host = authority.host().to_ascii_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.ends_with(".localhost") || bare.parse::<IpAddr>().is_ok()
}

/// A refusal that did not come from our code, such as axum's own.
fn unnamed(response: &Response) -> Problem {
    let status = response.status();
    let code = match status.as_u16() {
        404 => Code::NotFound,
        413 => Code::TooLarge,
        400..=499 => Code::InvalidArgument,
        503 => Code::Unavailable,
        _ => Code::Internal,
    };
    Problem::from(Error::new(code, status.canonical_reason().unwrap_or("the request failed").to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(host: Option<&str>, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(h) = host {
            headers.insert(header::HOST, HeaderValue::from_str(h).unwrap());
        }
        if let Some(o) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(o).unwrap());
        }
        same_machine(&headers, &Uri::from_static("/v1/jobs")).is_ok()
    }

    #[test]
    fn web_pages_of_others_cannot_use_an_open_port() {
        assert!(allowed(None, None), "no browser sends that");
        for host in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "::1", "app.localhost", "10.0.0.1"] {
            // A bare IPv6 address is not an authority.
            assert_eq!(allowed(Some(host), None), host != "::1", "{host}");
        }
        assert!(allowed(Some("localhost:8080"), Some("http://localhost:8080")));
        for (host, origin) in [
            ("evil.example", None),
            ("localhost.evil.example", None),
            ("localhost:8080", Some("http://evil.example")),
            ("localhost:8080", Some("http://localhost:9090")),
            ("localhost:8080", Some("null")),
        ] {
            assert!(!allowed(Some(host), origin), "{host} {origin:?}");
        }
    }
}
