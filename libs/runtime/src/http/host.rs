//! Every request of HTTP/1.1 says once which host it means (RFC 9112, 3.2); others are answered with 400.
//!
//! Components that route by Host, before us or in us, and those that compare it with an Origin, must not see two.

use super::problem::Problem;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Lets pass what names its host as it must.
pub(super) async fn named(request: Request, next: Next) -> Response {
    if has_host(request.version(), request.headers()) { next.run(request).await } else { refusal() }
}

/// Whether the Host is present exactly once. HTTP/1.0 needs none, HTTP/2 has its own way.
pub(super) fn has_host(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => false,
        (None, None) => version != Version::HTTP_11,
        (Some(host), None) => {
            // A name with what no name and no address has is not one that was meant.
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte);
            host.as_bytes().iter().all(|byte| is_name(*byte))
        }
    }
}

/// The answer to a request without it.
pub(super) fn refusal() -> Response<Body> {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_argument", "the request must have one Host header")
        .with(header::CONNECTION, HeaderValue::from_static("close"))
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_and_no_other_number_of_them() {
        for (version, hosts, is_fine) in [
            (Version::HTTP_11, &["a.example:80"][..], true),
            (Version::HTTP_11, &["[::1]:8080"], true),
            (Version::HTTP_11, &[""], true),
            (Version::HTTP_11, &[], false),
            (Version::HTTP_11, &["a", "a"], false),
            (Version::HTTP_11, &["a b"], false),
            (Version::HTTP_11, &["u@a"], false),
            (Version::HTTP_11, &["a/b"], false),
            (Version::HTTP_10, &[], true),
            (Version::HTTP_10, &["a", "b"], false),
            (Version::HTTP_2, &[], true),
        ] {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, HeaderValue::from_static(host));
            }
            assert_eq!(has_host(version, &headers), is_fine, "{version:?} {hosts:?}");
        }
    }
}
