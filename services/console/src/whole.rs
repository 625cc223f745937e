//! Documents that are answered whole: with an ETag, so that a page that asks again learns that nothing changed, and compressed.

use crate::assets::{compressed, is_known, takes_gzip};
use crate::problem::unavailable;
use axum::{
    body::{Body, HttpBody, to_bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use ring::digest;

/// Larger documents are streamed, and have no ETag.
pub(crate) const WHOLE_BYTES_MAX: u64 = 1 << 20;

/// A document of a service or of the console, as the browser that asked takes it.
pub(crate) fn whole(plain: &[u8], mut headers: HeaderMap, asked: &HeaderMap) -> Response {
    let tag = hex::encode(&digest::digest(&digest::SHA256, plain).as_ref()[..16]);
    // Weak: the compressed document has the same.
    let tag = HeaderValue::from_str(&format!("W/\"{tag}\"")).expect("hexadecimal digits are ASCII");
    let is_same = is_known(asked, &tag);
    headers.insert(header::ETAG, tag);
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding, cookie"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if is_same {
        headers.remove(header::CONTENT_TYPE);
        return of(StatusCode::NOT_MODIFIED, headers, Body::empty());
    }
    match compressed(plain).filter(|_| takes_gzip(asked)) {
        Some(packed) => {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            of(StatusCode::OK, headers, packed.into())
        }
        None => of(StatusCode::OK, headers, plain.to_vec().into()),
    }
}

/// The same for the console's own documents. One that has an ETag already (the version of an item) keeps it.
pub(crate) async fn tagged(request: Request, next: Next) -> Response {
    let asked = (request.method() == Method::GET).then(|| request.headers().clone());
    let response = next.run(request).await;
    let Some(asked) = asked.filter(|_| is_document(&response)) else { return response };
    let (mut parts, body) = response.into_parts();
    match to_bytes(body, WHOLE_BYTES_MAX as usize).await {
        Ok(plain) => {
            parts.headers.remove(header::CONTENT_LENGTH);
            whole(&plain, parts.headers, &asked)
        }
        Err(_) => unavailable("the answer could not be made").into_response(),
    }
}

fn is_document(response: &Response) -> bool {
    let headers = response.headers();
    let is_json =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let is_small = response.body().size_hint().upper().is_some_and(|length| length <= WHOLE_BYTES_MAX);
    response.status() == StatusCode::OK && is_json && is_small && !headers.contains_key(header::ETAG)
}

fn of(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
