//! Which web pages may use this port, and by which name it may be called. Pure.
//!
//! A browser sends cookies and client certificates automatically, and a WebSocket has no preflight, so every page that
//! sends its origin is checked, regardless of how its caller is known. Pages of the same origin are allowed, and those
//! in the settings. Where nothing else guards the port, a name that another party's DNS may point to this machine is
//! refused too.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header, uri::Authority};
use std::net::IpAddr;

/// What a proxy says of the name that its caller used.
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// What a proxy says of the scheme that its caller used.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Whether a browser asks for a page of its own site; no page can change it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// A browser's mode: `no-cors` is an image or similar, for which no Origin is sent.
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Scheme, host and port of a page. The port is given if it is not the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// Why a request is refused for where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// A page of another origin.
    #[error("web pages of this origin may not use the API: TACTICAL_ALLOWED_ORIGINS lists those that may")]
    Page,
    /// A name that is not this machine's.
    #[error("without a token this port accepts localhost or an address as its name, not this name")]
    Name,
    /// A proxy that the settings do not name, whose callers may be anyone.
    #[error(
        "without a token requests through a proxy are refused: TACTICAL_TRUSTED_PROXIES lists those that may forward them"
    )]
    Proxy,
}

impl Foreign {
    /// A stable short name.
    pub fn code(self) -> &'static str {
        match self {
            Self::Page => "origin_not_allowed",
            Self::Name => "host_not_allowed",
            Self::Proxy => "proxy_not_allowed",
        }
    }
}

impl Origin {
    /// Reads `scheme://host[:port]`; `None` for anything else, `null` included.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let (host, port) = host_and_port(authority).filter(|_| is_scheme)?;
        let scheme = scheme.to_ascii_lowercase();
        let port = port.filter(|port| Some(*port) != port_of(&scheme));
        Some(Self { scheme, host, port })
    }

    /// Whether a page of this origin was loaded under this name of ours.
    fn is_at(&self, name: &str, scheme: Option<&str>) -> bool {
        let Some(own) = port_of(&self.scheme) else { return false };
        let is_scheme = scheme.is_none_or(|scheme| scheme == self.scheme);
        let place = host_and_port(name).map(|(host, port)| (host, port.unwrap_or(own)));
        is_scheme && place.is_some_and(|(host, port)| host == self.host && port == self.port.unwrap_or(own))
    }
}

fn port_of(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let parsed: Authority = authority.parse().ok()?;
    let is_bare = !authority.contains('@') && !parsed.host().is_empty();
    // A port that is not a number is invalid, and not a missing one either.
    let has_port = authority.len() > parsed.host().len();
    let port = parsed.port_u16();
    (is_bare && has_port == port.is_some()).then(|| (parsed.host().to_ascii_lowercase(), port))
}

/// What is known of a request's way here.
#[derive(Clone, Copy, Debug)]
pub struct Ingress {
    /// It came over TLS of this port.
    pub is_tls: bool,
    /// A proxy that is believed sent it.
    pub is_proxied: bool,
}

/// The origin of the page that asks, if it is one of `allowed` and must be in the answer; `None` for pages of our own
/// and for callers that are not pages.
///
/// # Errors
/// [`Foreign::Page`].
pub fn page<'a>(headers: &'a HeaderMap, way: Ingress, allowed: &[Origin]) -> Result<Option<&'a HeaderValue>, Foreign> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(given) = origins.next() else {
        let text = |name| headers.get(name).map(HeaderValue::as_bytes);
        let is_of_another_site = text(FETCH_SITE).is_some_and(|site| site != b"same-origin" && site != b"none");
        return if is_of_another_site && text(FETCH_MODE).is_some_and(|mode| mode == b"no-cors") {
            Err(Foreign::Page)
        } else {
            Ok(None)
        };
    };
    let origin = given.to_str().ok().and_then(Origin::parse).filter(|_| origins.next().is_none());
    let origin = origin.ok_or(Foreign::Page)?;
    let last = |name| headers.get_all(name).iter().next_back().and_then(|v: &HeaderValue| v.to_str().ok());
    // The entry that was added last is the nearest proxy's.
    let nearest = |name| last(name).filter(|_| way.is_proxied).and_then(|v| v.rsplit(',').next()).map(str::trim);
    let scheme = if way.is_tls { Some("https") } else { nearest(FORWARDED_PROTO) };
    let names = [last(header::HOST), nearest(FORWARDED_HOST)];
    if names.into_iter().flatten().any(|name| origin.is_at(name, scheme)) {
        return Ok(None);
    }
    if allowed.contains(&origin) { Ok(Some(given)) } else { Err(Foreign::Page) }
}

/// Whether a request calls this machine by a name that no other party can give it: an address, localhost, a single
/// word, or the host of an allowed origin. A page may make its own name point here, and then has our origin.
pub fn is_own_name(headers: &HeaderMap, allowed: &[Origin]) -> bool {
    // Without a Host it is no browser.
    let Some(given) = headers.get(header::HOST) else { return true };
    let Some((host, _)) = given.to_str().ok().and_then(host_and_port) else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.ends_with(".localhost")
        || !host.trim_end_matches('.').contains('.') && !host.starts_with('[')
        || bare.parse::<IpAddr>().is_ok()
        || allowed.iter().any(|origin| origin.host == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECT: Ingress = Ingress { is_tls: false, is_proxied: false };

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        map
    }

    fn may(pairs: &[(&str, &str)], way: Ingress) -> bool {
        let allowed = [Origin::parse("https://maps.example").unwrap(), Origin::parse("app://map").unwrap()];
        page(&headers(pairs), way, &allowed).is_ok()
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (text, same) in [
            ("https://Maps.Example", "https://maps.example:443"),
            ("http://localhost:80", "HTTP://localhost"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(Origin::parse(text), Origin::parse(same));
            assert!(Origin::parse(text).is_some(), "{text}");
        }
        for text in
            ["null", "", "https://", "https://a/", "https://a/b", "https://u@a", "//a", "a", "https://a:x", "://a"]
        {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }

    #[test]
    fn pages_of_our_own_and_those_that_are_named_may_come() {
        let host = ("host", "us.example");
        for (given, is_allowed) in [
            (&[host][..], true),
            (&[host, ("origin", "https://us.example")], true),
            (&[host, ("origin", "http://us.example")], true),
            (&[("host", "us.example:443"), ("origin", "https://us.example")], true),
            (&[("host", "us.example:8443"), ("origin", "https://us.example:8443")], true),
            (&[("host", "us.example:8443"), ("origin", "https://us.example")], false),
            (&[("host", "[::1]:8010"), ("origin", "http://[::1]:8010")], true),
            (&[("host", "US.example"), ("origin", "https://us.example")], true),
            (&[host, ("origin", "https://us.example.evil.example")], false),
            (&[host, ("origin", "https://evil.example")], false),
            (&[host, ("origin", "https://us.example:8443")], false),
            (&[host, ("origin", "null")], false),
            (&[host, ("origin", "file://")], false),
            (&[host, ("origin", "https://us.example/")], false),
            (&[host, ("origin", "https://us.example"), ("origin", "https://evil.example")], false),
            (&[("origin", "https://us.example")], false),
            (&[host, ("origin", "https://maps.example")], true),
            (&[host, ("origin", "https://MAPS.example:443")], true),
            (&[host, ("origin", "http://maps.example")], false),
            (&[host, ("origin", "https://sub.maps.example")], false),
            (&[host, ("origin", "app://map")], true),
            (&[("host", "map"), ("origin", "other://map")], false),
            // An image of another site sends no origin.
            (&[host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")], false),
            (&[host, ("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "no-cors")], true),
            (&[host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], true),
        ] {
            assert_eq!(may(given, DIRECT), is_allowed, "{given:?}");
        }
    }

    #[test]
    fn what_proxies_say_counts_from_those_that_are_believed() {
        let given = [("host", "tactical:8010"), ("x-forwarded-host", "us.example"), ("origin", "https://us.example")];
        let proxied = Ingress { is_proxied: true, ..DIRECT };
        assert!(!may(&given, DIRECT) && may(&given, proxied));
        for (proto, is_allowed) in [("https", true), ("http", false), ("http, https", true)] {
            assert_eq!(may(&[&given[..], &[("x-forwarded-proto", proto)]].concat(), proxied), is_allowed, "{proto}");
        }
        // Over TLS of our own a page without it is another one, which anybody on the way could have made.
        let plain = [("host", "us.example"), ("origin", "http://us.example")];
        assert!(may(&plain, DIRECT) && !may(&plain, Ingress { is_tls: true, is_proxied: false }));
    }

    #[test]
    fn names_that_others_can_give_are_known() {
        let allowed = [Origin::parse("https://maps.example").unwrap()];
        for (host, is_own) in [
            ("localhost:8010", true),
            ("LOCALHOST", true),
            ("app.localhost", true),
            ("127.0.0.1:8010", true),
            ("[::1]:8010", true),
            ("10.1.2.3", true),
            ("tactical-api:8010", true),
            ("maps.example:8010", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("a b", false),
        ] {
            assert_eq!(is_own_name(&headers(&[("host", host)]), &allowed), is_own, "{host}");
        }
        assert!(is_own_name(&headers(&[]), &allowed));
    }
}
