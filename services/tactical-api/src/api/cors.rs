//! Pages of other origins: what they may read, and which of them are kept out.
//!
//! A browser lets a page read an answer only if the answer names the page's origin. Allowed origins come only from the
//! settings and are returned one at a time, never as `*`, so that credentials may be sent.

use super::{problem::problem, state::Api};
use crate::{links, origin::Foreign};
use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{net::SocketAddr, sync::Arc};

/// Headers that a page may send in addition to the default ones.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, cache-control, content-type, idempotency-key, if-match, if-none-match, if-range, last-event-id, range, x-request-id",
);
/// What a page may do.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, DELETE");
/// Headers of an answer that a page may read in addition to the default ones.
const RESPONSE_HEADERS: &str =
    "accept-ranges, content-disposition, content-range, etag, repr-digest, retry-after, x-request-id";
/// For how long a browser need not ask again, seconds.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// Asks whether a request may be sent.
const PREFLIGHT: HeaderName = header::ACCESS_CONTROL_REQUEST_METHOD;

/// The headers of a stream's answer, each with its line's end.
pub fn of_stream(page: Option<&HeaderValue>, is_closed: bool) -> String {
    match page.and_then(|origin| origin.to_str().ok()) {
        Some(origin) => format!(
            "Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: {RESPONSE_HEADERS}\r\nVary: Origin\r\n"
        ),
        None if is_closed => String::new(),
        None => "Vary: Origin\r\n".to_owned(),
    }
}

/// Answers preflight requests, keeps out pages where nothing else guards the port, and lets the browsers of other pages
/// read answers.
pub async fn pages(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let page = api.access.page(peer, headers).map(Option::<&HeaderValue>::cloned);
    let is_preflight = request.method() == Method::OPTIONS && headers.contains_key(PREFLIGHT);
    let refused = match is_preflight {
        true => page.as_ref().err().copied(),
        // A link is its own guard.
        false if request.uri().path().starts_with(links::PREFIX) => None,
        false => guard(&api, peer, headers, page.as_ref().err().copied()),
    };
    let mut response = match refused {
        Some(foreign) => problem(StatusCode::FORBIDDEN, foreign.code(), foreign.to_string()).into_response(),
        None if is_preflight && matches!(page, Ok(Some(_))) => preflight(),
        None => next.run(request).await,
    };
    add_headers(response.headers_mut(), page.ok().flatten(), api.access.allowed_origins.is_empty());
    response
}

fn guard(api: &Api, peer: SocketAddr, headers: &HeaderMap, page: Option<Foreign>) -> Option<Foreign> {
    if api.access.is_publishing_open { page.or(api.access.is_named_for_publishing(peer, headers).err()) } else { None }
}

fn preflight() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE);
    response
}

fn add_headers(headers: &mut HeaderMap, page: Option<HeaderValue>, is_closed: bool) {
    if let Some(origin) = page {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(RESPONSE_HEADERS));
    }
    if !is_closed {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}
