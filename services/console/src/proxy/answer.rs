//! The answers of services: what goes on to the browser of them.
//!
//! A small JSON document gets an ETag, so that a page that asks again learns that nothing changed, and is compressed.
//! Everything else is streamed as it arrives.

use crate::whole::WHOLE_BYTES_MAX;
use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::OwnedSemaphorePermit;

/// Of a service's answer, what browsers may need.
const PASSED: [HeaderName; 11] = [
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_DISPOSITION,
    header::ACCEPT_RANGES,
    header::ETAG,
    header::LAST_MODIFIED,
    header::RETRY_AFTER,
    header::CACHE_CONTROL,
    HeaderName::from_static("x-request-id"),
];

/// The policy of answers that are not documents, in addition to that of the pages.
const NO_PAGE: &str = "sandbox; default-src 'none'";

/// What the browser gets of an answer.
pub(super) enum Passed {
    /// A document, and what may go with it.
    Whole(Bytes, HeaderMap),
    /// All else, as it arrives.
    Streamed(Response),
}

/// Takes of an answer what the browser gets. The place is given back when its last piece is.
pub(super) async fn pass(
    answer: reqwest::Response,
    method: &Method,
    place: OwnedSemaphorePermit,
) -> Result<Passed, ()> {
    let status = answer.status();
    let mut headers: HeaderMap =
        PASSED.iter().filter_map(|name| Some((name.clone(), answer.headers().get(name)?.clone()))).collect();
    // What others wrote is never a page of ours, regardless of its type.
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(NO_PAGE));
    let is_json =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let is_small = answer.content_length().is_some_and(|length| length <= WHOLE_BYTES_MAX);
    if method == Method::GET && status == StatusCode::OK && is_json && is_small {
        let plain = answer.bytes().await.map_err(drop)?;
        headers.remove(header::CONTENT_LENGTH);
        return Ok(Passed::Whole(plain, headers));
    }
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
        // nginx would keep events back until it has some kilobytes of them.
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    }
    let pieces = answer.bytes_stream().map(move |piece| {
        let _held = &place;
        piece
    });
    Ok(Passed::Streamed(of(status, headers, Body::from_stream(pieces))))
}

fn of(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
