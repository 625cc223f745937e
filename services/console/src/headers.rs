//! The headers that every answer has: what a browser may do with it, and with the page that asked.
//!
//! Nothing is loaded from outside, no script or style is inline, no other page frames ours. The answer's own headers are
//! overwritten: a service behind the console decides nothing here.

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};
use std::sync::Arc;
use url::Url;

/// What pages have no use for.
const PERMISSIONS: &str = "accelerometer=(), browsing-topics=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), \
    hid=(), magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=(), xr-spatial-tracking=()";
/// A year.
const HSTS: &str = "max-age=31536000; includeSubDomains";

/// The headers of this installation. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Headers(Arc<Vec<(HeaderName, HeaderValue)>>);

impl Headers {
    /// `grafana` may be framed; behind TLS browsers learn to keep to it.
    pub(crate) fn new(grafana: Option<&Url>, is_tls: bool) -> Self {
        let frames = grafana.map_or_else(|| "'none'".to_owned(), |url| url.origin().ascii_serialization());
        let policy = format!(
            "default-src 'self'; img-src 'self' data:; font-src 'self' data:; object-src 'none'; base-uri 'none'; \
             form-action 'self'; frame-ancestors 'none'; frame-src {frames}"
        );
        let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'self'"));
        let mut list = vec![
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (HeaderName::from_static("permissions-policy"), HeaderValue::from_static(PERMISSIONS)),
            (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
            (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
        ];
        if is_tls {
            list.push((header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS)));
        }
        Self(Arc::new(list))
    }
}

/// Writes them onto every answer. What no one may keep is said where a handler says nothing else.
pub(crate) async fn with_headers(State(headers): State<Headers>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let into = response.headers_mut();
    into.remove(header::SERVER);
    let stricter = into.remove(header::CONTENT_SECURITY_POLICY);
    for (name, value) in headers.0.iter() {
        into.insert(name, value.clone());
    }
    if let Some(stricter) = stricter {
        // Browsers keep to both.
        into.append(header::CONTENT_SECURITY_POLICY, stricter);
    }
    if !into.contains_key(header::CACHE_CONTROL) {
        into.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grafana_may_be_framed_and_hsts_is_for_tls() {
        let of = |headers: &Headers, name: &str| {
            headers.0.iter().find(|(n, _)| n.as_str() == name).map(|(_, v)| v.to_str().unwrap().to_owned())
        };
        let plain = Headers::new(None, false);
        assert!(of(&plain, "content-security-policy").unwrap().ends_with("frame-src 'none'"));
        assert_eq!(of(&plain, "strict-transport-security"), None);
        let url = Url::parse("https://grafana.example/d/1?x=y; script-src *").unwrap();
        let full = Headers::new(Some(&url), true);
        let policy = of(&full, "content-security-policy").unwrap();
        assert!(policy.ends_with("frame-src https://grafana.example") && !policy.contains("unsafe"), "{policy}");
        assert!(of(&full, "strict-transport-security").is_some());
    }
}
