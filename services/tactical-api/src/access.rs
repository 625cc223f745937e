//! Who a caller is and whether it may come in: certificate, token, the address behind a proxy. Pure.
//!
//! Headers that speak for a caller (X-Forwarded-For, client certificates) count only when the peer is a
//! proxy that the settings name; anybody else may write them as they like.

use crate::config::Access;
use agentforge_config::{ExposeSecret, Secret};
use axum::http::{HeaderMap, HeaderName, header};
use std::net::{IpAddr, SocketAddr};
use subtle::ConstantTimeEq;

/// The cookie that carries a token for browsers. It must be HttpOnly, which is up to who sets it.
pub const COOKIE: &str = "agentforge_token";
/// The subprotocol that a browser offers beside its token; the server chooses it.
pub const SUBPROTOCOL: &str = "agentforge.v1";
/// The subprotocol that carries a token, before it.
const SUBPROTOCOL_TOKEN: &str = "bearer.";
/// Headers in which proxies tell that a client's certificate was verified.
const CERTIFICATE_HEADERS: [&str; 3] = ["ssl-client-verify", "x-ssl-client-verify", "x-client-verify"];
/// What they say then.
const VERIFIED: &[u8] = b"SUCCESS";
/// The addresses a request went through.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl Access {
    fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(peer))
    }

    /// The address a request comes from: the peer's, or, behind trusted proxies, the last one in
    /// X-Forwarded-For that is not a trusted proxy itself.
    pub fn address(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        let mut address = peer.ip().to_canonical();
        // Later headers and later entries are nearer.
        let values: Vec<_> = headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).collect();
        for entry in values.iter().rev().flat_map(|value| value.rsplit(',')) {
            if !self.trusts(address) {
                break;
            }
            match entry.trim().parse::<IpAddr>() {
                Ok(next) => address = next.to_canonical(),
                Err(_) => break,
            }
        }
        address
    }

    /// Whether the certificate that is asked for is there.
    pub fn has_certificate(&self, peer: SocketAddr, headers: &HeaderMap, of_connection: bool) -> bool {
        if !self.needs_certificate || of_connection {
            return true;
        }
        // Two values could be one of the proxy and one of the caller.
        let says = |name: &str| {
            let mut values = headers.get_all(name).iter();
            values.next().is_some_and(|value| value.as_bytes() == VERIFIED) && values.next().is_none()
        };
        self.trusts(peer.ip()) && CERTIFICATE_HEADERS.into_iter().any(says)
    }

    /// Whether a stream's caller has a token, where one is asked for.
    pub fn may_read(&self, headers: &HeaderMap) -> bool {
        let Some(tokens) = &self.read_tokens else { return true };
        let is_one = |given: &str| is_one_of(given, tokens);
        bearer(headers).is_some_and(is_one)
            || subprotocols(headers).filter_map(|p| p.strip_prefix(SUBPROTOCOL_TOKEN)).any(is_one)
            // A cookie is sent by pages of any origin: only our own may use it.
            || (is_same_origin(headers) && cookies(headers).any(is_one))
    }

    /// Whether a caller may publish.
    pub fn may_publish(&self, headers: &HeaderMap) -> bool {
        match &self.publish_token {
            None => self.publish_is_open,
            Some(token) => bearer(headers).is_some_and(|given| is_one_of(given, std::slice::from_ref(token))),
        }
    }
}

/// Whether a WebSocket's caller offers our subprotocol, which is then chosen.
pub fn offers_subprotocol(headers: &HeaderMap) -> bool {
    subprotocols(headers).any(|p| p == SUBPROTOCOL)
}

/// Compares with each, in a time that does not depend on what is given.
fn is_one_of(given: &str, tokens: &[Secret]) -> bool {
    let equal = |token: &Secret| bool::from(given.as_bytes().ct_eq(token.expose_secret().as_bytes()));
    tokens.iter().fold(false, |found, token| found | equal(token))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// No Origin is no browser, or a page of our own.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    match (text(header::ORIGIN), text(header::HOST)) {
        (None, _) => true,
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, o)| o.eq_ignore_ascii_case(host)),
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access {
            read_tokens: Some(vec!["one".to_owned().into(), "two".to_owned().into()]),
            publish_token: Some("three".to_owned().into()),
            publish_is_open: false,
            needs_certificate: true,
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        }
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(k, v): &(&str, &str)| (k.parse::<HeaderName>().unwrap(), v.parse().unwrap());
        let mut map = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn only_trusted_proxies_speak_for_others() {
        for (peer, forwarded, address) in [
            ("192.0.2.1:1", "203.0.113.9", "192.0.2.1"),
            ("10.0.0.1:1", "203.0.113.9", "203.0.113.9"),
            ("10.0.0.1:1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),
            ("10.0.0.1:1", "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
            ("10.0.0.1:1", "203.0.113.9, nonsense", "10.0.0.1"),
            ("10.0.0.1:1", "", "10.0.0.1"),
            ("[::ffff:10.0.0.1]:1", "2001:db8::7", "2001:db8::7"),
            ("[fd00::1]:1", "::ffff:203.0.113.9", "203.0.113.9"),
        ] {
            let given = headers(&[("x-forwarded-for", forwarded)]);
            assert_eq!(access().address(peer.parse().unwrap(), &given).to_string(), address, "{peer} {forwarded}");
        }
        let two = headers(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.9")]);
        assert_eq!(access().address("10.0.0.1:1".parse().unwrap(), &two).to_string(), "203.0.113.9");
    }

    #[test]
    fn certificates_count_from_the_connection_or_a_trusted_proxy() {
        let (proxy, other) = ("10.0.0.1:1".parse().unwrap(), "192.0.2.1:1".parse().unwrap());
        for name in CERTIFICATE_HEADERS {
            assert!(access().has_certificate(proxy, &headers(&[(name, "SUCCESS")]), false));
            assert!(!access().has_certificate(other, &headers(&[(name, "SUCCESS")]), false));
            assert!(!access().has_certificate(proxy, &headers(&[(name, "FAILED")]), false));
            assert!(!access().has_certificate(proxy, &headers(&[(name, "success")]), false));
            assert!(!access().has_certificate(proxy, &headers(&[(name, "SUCCESS"), (name, "NONE")]), false));
        }
        assert!(access().has_certificate(other, &headers(&[]), true));
        assert!(!access().has_certificate(proxy, &headers(&[]), false));
        assert!(Access { needs_certificate: false, ..access() }.has_certificate(other, &headers(&[]), false));
    }

    #[test]
    fn tokens_come_in_three_ways_and_never_in_another() {
        for (given, may) in [
            (&[("authorization", "Bearer one")][..], true),
            (&[("authorization", "bearer two")], true),
            (&[("authorization", "Basic one")], false),
            (&[("authorization", "Bearer one two")], false),
            (&[("authorization", "Bearer ")], false),
            (&[("cookie", "a=b; agentforge_token=two")], true),
            (
                &[("cookie", "a=b; agentforge_token=two"), ("origin", "https://evil.example"), ("host", "us.example")],
                false,
            ),
            (&[("cookie", "agentforge_token=two"), ("origin", "https://us.example"), ("host", "us.example")], true),
            (&[("sec-websocket-protocol", "agentforge.v1, bearer.one")], true),
            (&[("sec-websocket-protocol", "agentforge.v1, bearer.three")], false),
            (&[], false),
        ] {
            assert_eq!(access().may_read(&headers(given)), may, "{given:?}");
        }
        assert!(access().may_publish(&headers(&[("authorization", "Bearer three")])));
        assert!(!access().may_publish(&headers(&[("authorization", "Bearer one")])));
        assert!(!Access { publish_token: None, ..access() }.may_publish(&headers(&[])));
    }
}
