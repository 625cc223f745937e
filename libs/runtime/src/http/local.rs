//! Whether a request comes from a program of this machine, where a port asks for nothing else.
//!
//! A web page in a browser here could reach a loopback port, by a request across sites, by a WebSocket, or by a name that
//! its owner points to 127.0.0.1. Browsers reveal all of that: by Origin, by Host and by Sec-Fetch-Site. A proxy here
//! brings strangers, and reveals that by what it adds. Pure.

use super::problem::Problem;
use axum::Router;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::OnceLock;

/// Which site's page makes a browser ask; no page can change it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// How it asks: `navigate` is a link, whose page cannot read the answer.
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// What proxies add.
static OF_PROXIES: [HeaderName; 5] = [
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
];

static IS_LOCAL: OnceLock<bool> = OnceLock::new();

/// Why a request is not one of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// It calls the port by a name that others can give it.
    #[error("the host must be localhost or an IP address")]
    Host,
    /// A page of another origin makes it.
    #[error("requests from web pages of other origins are refused")]
    Page,
    /// It came through a proxy.
    #[error("requests through a proxy (Forwarded, X-Forwarded-*) are refused")]
    Proxy,
}

/// Whether a request comes from this machine, and from no web page but those of its own origin.
///
/// # Errors
/// [`Foreign`], in words for the caller.
pub fn same_machine(headers: &HeaderMap, uri: &Uri) -> Result<(), Foreign> {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let host = match uri.authority() {
        Some(authority) => Some(authority.as_str().to_owned()),
        // Without a Host it is not a browser; one that cannot be read is not a name of ours.
        None => headers.get(header::HOST).map(|host| text(host).unwrap_or_default()),
    };
    if host.as_deref().is_some_and(|host| !is_local_name(host)) {
        return Err(Foreign::Host);
    }
    if OF_PROXIES.iter().any(|name| headers.contains_key(name)) {
        return Err(Foreign::Proxy);
    }
    let is_own = |origin: &HeaderValue| {
        let origin = text(origin);
        let authority = origin.as_deref().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
        authority.is_some() && authority == host.as_deref()
    };
    if !headers.get_all(header::ORIGIN).iter().all(is_own) {
        return Err(Foreign::Page);
    }
    // Images, scripts and the like are asked for without an Origin.
    let is = |name, values: &[&[u8]]| headers.get(name).is_none_or(|value| values.contains(&value.as_bytes()));
    let is_link = headers.contains_key(FETCH_MODE) && is(FETCH_MODE, &[b"navigate"]);
    if is(FETCH_SITE, &[b"same-origin", b"none"]) || is_link { Ok(()) } else { Err(Foreign::Page) }
}

fn is_local_name(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host().to_ascii_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_own = host == "localhost" || host.ends_with(".localhost") || bare.parse::<IpAddr>().is_ok();
    is_own && !authority.as_str().contains('@')
}

/// Notes whether the listeners of this process are those of a developer's machine: ENV=dev on loopback.
pub(super) fn configure(is_local: bool) {
    IS_LOCAL.get_or_init(|| is_local);
}

/// Whether strangers may reach the listeners of this process.
pub(crate) fn is_public() -> bool {
    IS_LOCAL.get() == Some(&false)
}

/// Routes that ask for no token, such as probes and metrics: on a developer's machine they answer programs of this
/// machine only. Elsewhere they answer all that the network lets in. Call it after all of these routes are in.
pub fn for_this_machine<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    if *IS_LOCAL.get().unwrap_or(&false) { router.route_layer(from_fn(only_here)) } else { router }
}

async fn only_here(request: Request, next: Next) -> Response {
    match same_machine(request.headers(), request.uri()) {
        Ok(()) => next.run(request).await,
        Err(foreign) => {
            let detail = format!("in ENV=dev this port answers programs of this machine: {foreign}");
            Problem::new(StatusCode::FORBIDDEN, "permission_denied", detail).into_response()
        }
    }
}

/// Refuses with 415 what changes something and has a body that does not say that it is JSON: a page of another site can
/// send text without asking first. A layer below the one that knows the caller.
pub async fn json_only(request: Request, next: Next) -> Response {
    let changes = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    if !changes || axum::body::HttpBody::is_end_stream(request.body()) || says_json(request.headers()) {
        return next.run(request).await;
    }
    let detail = "the body must say that it is JSON: send content-type: application/json";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail).into_response()
}

fn says_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.strip_prefix("application/").is_some_and(|rest| rest.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&str, &str)]) -> Result<(), Foreign> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        same_machine(&headers, &Uri::from_static("/v1/jobs"))
    }

    #[test]
    fn a_port_has_the_names_that_nobody_can_give_it() {
        assert_eq!(check(&[]), Ok(()), "no browser sends that");
        for host in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "app.localhost", "LOCALHOST", "10.0.0.1"] {
            assert_eq!(check(&[("host", host)]), Ok(()), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "", "a b"]
        {
            assert_eq!(check(&[("host", host)]), Err(Foreign::Host), "{host}");
        }
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("localhost"))]);
        let absolute = Uri::from_static("http://evil.example/v1/jobs");
        assert_eq!(same_machine(&headers, &absolute), Err(Foreign::Host), "the target wins over the header");
    }

    #[test]
    fn pages_of_other_origins_cannot_use_it() {
        let here = ("host", "localhost:8080");
        assert_eq!(check(&[here, ("origin", "http://localhost:8080")]), Ok(()));
        assert_eq!(check(&[here, ("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")]), Ok(()));
        assert_eq!(check(&[here, ("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")]), Ok(()));
        assert_eq!(check(&[here, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]), Ok(()), "a link");
        for origin in ["http://evil.example", "http://localhost:9090", "null", "localhost:8080", ""] {
            assert_eq!(check(&[here, ("origin", origin)]), Err(Foreign::Page), "{origin}");
        }
        let two = [here, ("origin", "http://localhost:8080"), ("origin", "http://evil.example")];
        assert_eq!(check(&two), Err(Foreign::Page));
        for mode in ["no-cors", "websocket", "cors"] {
            for site in ["cross-site", "same-site"] {
                let page = [here, ("sec-fetch-site", site), ("sec-fetch-mode", mode)];
                assert_eq!(check(&page), Err(Foreign::Page), "{site} {mode}");
            }
        }
        let form = [here, ("origin", "null"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!(check(&form), Err(Foreign::Page));
    }

    #[test]
    fn what_a_proxy_brings_is_not_of_this_machine() {
        for name in ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"] {
            assert_eq!(check(&[("host", "localhost"), (name, "203.0.113.9")]), Err(Foreign::Proxy), "{name}");
        }
    }

    #[test]
    fn json_says_that_it_is() {
        let says = |kind: &'static str| {
            says_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]))
        };
        assert!(says("application/json") && says("Application/JSON; charset=utf-8") && says("application/geo+json"));
        for kind in
            ["", "text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data", "a+json"]
        {
            assert!(!says(kind), "{kind}");
        }
        assert!(!says_json(&HeaderMap::new()));
    }
}
