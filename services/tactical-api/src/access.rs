//! Who a caller is and whether it may come in: certificate, token, page, the address behind a proxy. Pure.
//!
//! Headers that speak for a caller (X-Forwarded-For, client certificates) count only when the peer is a
//! proxy that the settings name; anybody else may write them as they like.

use crate::{
    event::Sight,
    origin::{self, Foreign, Ingress, Origin},
};
use agentforge_access::{Guard, Keyring, Principal, Role, Scopes, bearer, forwarded, now};
use agentforge_door::TokensFile;
use agentforge_egress::Net;
use axum::http::{HeaderMap, HeaderValue, header};
use std::net::{IpAddr, SocketAddr};

/// The cookie that carries a token for browsers. It must be HttpOnly, which is up to who sets it.
pub const COOKIE: &str = "agentforge_token";
/// The subprotocol that a browser offers together with its token; the server chooses it.
pub const SUBPROTOCOL: &str = "agentforge.v1";
/// The subprotocol that carries a token, before it.
const SUBPROTOCOL_TOKEN: &str = "bearer.";
/// Headers in which proxies report that a client's certificate was verified.
pub const CERTIFICATE_HEADERS: [&str; 3] = ["ssl-client-verify", "x-ssl-client-verify", "x-client-verify"];
/// What they say then.
const VERIFIED: &[u8] = b"SUCCESS";

/// Who may read and publish.
#[derive(Clone, Debug)]
pub struct Access {
    /// Tokens for the streams and for evidence.
    pub readers: Keyring,
    /// Where further ones come from, with scopes, while the service runs.
    pub tokens_file: Option<TokensFile>,
    /// What a reader without a token gets; `None` for nothing.
    pub without_token: Option<Sight>,
    /// What publishing asks for.
    pub publish: Guard,
    /// Streams need a client certificate.
    pub needs_certificate: bool,
    /// The one header in which proxies report a verified certificate; `None` for the usual names.
    pub certificate_header: Option<String>,
    /// Whose headers are believed.
    pub trusted_proxies: Vec<Net>,
    /// Pages of other origins that may come.
    pub allowed_origins: Vec<Origin>,
    /// It is somebody's own machine: ENV=dev on loopback.
    pub is_local: bool,
    /// The port has TLS.
    pub is_tls: bool,
}

impl Access {
    /// Readers need neither a token nor a certificate, and it is not somebody's own machine.
    pub fn is_open_to_strangers(&self) -> bool {
        self.without_token.is_some() && !self.needs_certificate && !self.is_local
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(peer))
    }

    /// The address whose caps a request is under.
    pub fn address(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        forwarded::household(forwarded::address(peer.ip(), headers, |address| self.trusts(address)))
    }

    /// The origin of the page that asks, where it is another one that may; `None` for all that need no word
    /// of it.
    ///
    /// # Errors
    /// `Foreign::Page`.
    pub fn page<'a>(&self, peer: SocketAddr, headers: &'a HeaderMap) -> Result<Option<&'a HeaderValue>, Foreign> {
        let way = Ingress { is_tls: self.is_tls, is_proxied: self.trusts(peer.ip()) };
        origin::page(headers, way, &self.allowed_origins)
    }

    /// Where reading asks for nothing, the name by which this port is called must be one of its own.
    ///
    /// # Errors
    /// `Foreign::Name`.
    pub fn is_named_for_reading(&self, headers: &HeaderMap) -> Result<(), Foreign> {
        self.is_named(self.without_token.is_some() && !self.needs_certificate, headers)
    }

    /// The same for publishing.
    ///
    /// # Errors
    /// `Foreign::Name`.
    pub fn is_named_for_publishing(&self, headers: &HeaderMap) -> Result<(), Foreign> {
        self.is_named(self.publish.is_open(), headers)
    }

    fn is_named(&self, is_open: bool, headers: &HeaderMap) -> Result<(), Foreign> {
        if is_open && self.is_local && !origin::is_own_name(headers, &self.allowed_origins) {
            Err(Foreign::Name)
        } else {
            Ok(())
        }
    }

    /// Whether the required certificate is present.
    pub fn has_certificate(&self, peer: SocketAddr, headers: &HeaderMap, of_connection: bool) -> bool {
        if !self.needs_certificate || of_connection {
            return true;
        }
        // Two values could be one of the proxy and one of the caller; so could two names.
        let names: &[&str] = match &self.certificate_header {
            Some(name) => &[name],
            None => &CERTIFICATE_HEADERS,
        };
        let mut said = names.iter().flat_map(|name| headers.get_all(*name).iter()).peekable();
        let is_told = said.peek().is_some();
        let are_single = names.iter().all(|name| headers.get_all(*name).iter().count() <= 1);
        self.trusts(peer.ip()) && is_told && are_single && said.all(|value| value.as_bytes() == VERIFIED)
    }

    /// What a stream's caller may see, and of which sites; `None` where it needs a token and has none. `is_foreign` is a
    /// page that may not come.
    pub fn sight(&self, headers: &HeaderMap, is_foreign: bool) -> Option<(Sight, Scopes)> {
        match self.reader(headers, is_foreign) {
            Some(reader) => Some((Sight::Evidence, reader.scopes)),
            None => self.without_token.map(|sight| (sight, Scopes::ALL)),
        }
    }

    /// Who a caller with a token for reading is, also where none is asked for.
    pub fn reader(&self, headers: &HeaderMap, is_foreign: bool) -> Option<Principal> {
        let one = |given: &[u8]| self.readers.holder(given, now()).filter(|reader| reader.role.includes(Role::Read));
        bearer(headers.get(header::AUTHORIZATION))
            .and_then(one)
            .or_else(|| {
                let mut given = subprotocols(headers).filter_map(|p| p.strip_prefix(SUBPROTOCOL_TOKEN));
                given.find_map(|token| one(token.as_bytes()))
            })
            // A cookie is sent by pages of any origin.
            .or_else(|| cookies(headers).filter(|_| !is_foreign).find_map(|token| one(token.as_bytes())))
    }

    /// Who a caller that may publish is.
    pub fn publisher(&self, headers: &HeaderMap) -> Option<Principal> {
        self.publish.check(headers.get(header::AUTHORIZATION), Role::Submit).ok()
    }
}

/// Whether a WebSocket's caller offers our subprotocol, which is then chosen.
pub fn offers_subprotocol(headers: &HeaderMap) -> bool {
    subprotocols(headers).any(|p| p == SUBPROTOCOL)
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

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_access::Tokens;
    use agentforge_config::Secret;
    use axum::http::HeaderName;

    fn tokens(role: Role, texts: &[&str]) -> Tokens {
        let secrets: Vec<Secret> = texts.iter().map(|text| Secret::from((*text).to_owned())).collect();
        Tokens::sharing("test", role, &secrets)
    }

    fn access() -> Access {
        Access {
            readers: Keyring::new(tokens(Role::Read, &["one", "two"]), Vec::new()),
            tokens_file: None,
            without_token: None,
            publish: Guard::Tokens(tokens(Role::Submit, &["three"])),
            needs_certificate: true,
            certificate_header: None,
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            allowed_origins: Vec::new(),
            is_local: false,
            is_tls: false,
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
    fn certificates_count_from_the_connection_or_a_trusted_proxy() {
        let (proxy, other) = ("10.0.0.1:1".parse().unwrap(), "192.0.2.1:1".parse().unwrap());
        for name in CERTIFICATE_HEADERS {
            assert!(access().has_certificate(proxy, &headers(&[(name, "SUCCESS")]), false));
            assert!(!access().has_certificate(other, &headers(&[(name, "SUCCESS")]), false));
            assert!(!access().has_certificate(proxy, &headers(&[(name, "FAILED")]), false));
            assert!(!access().has_certificate(proxy, &headers(&[(name, "success")]), false));
            assert!(!access().has_certificate(proxy, &headers(&[(name, "SUCCESS"), (name, "NONE")]), false));
        }
        let verified = |given: &[(&str, &str)]| access().has_certificate(proxy, &headers(given), false);
        assert!(verified(&[("ssl-client-verify", "SUCCESS"), ("x-client-verify", "SUCCESS")]));
        for own in ["NONE", "FAILED", ""] {
            for (name, other) in [("ssl-client-verify", "x-client-verify"), ("x-client-verify", "x-ssl-client-verify")]
            {
                assert!(!verified(&[(name, own), (other, "SUCCESS")]), "{name}: {own}");
            }
        }
        // With one name in the settings the others say nothing.
        let named = Access { certificate_header: Some("x-client-verify".into()), ..access() };
        let verified = |given: &[(&str, &str)]| named.has_certificate(proxy, &headers(given), false);
        assert!(verified(&[("x-client-verify", "SUCCESS"), ("ssl-client-verify", "NONE")]));
        assert!(!verified(&[("ssl-client-verify", "SUCCESS")]));
        assert!(!verified(&[("x-client-verify", "FAILED"), ("ssl-client-verify", "SUCCESS")]));
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
            (&[("sec-websocket-protocol", "agentforge.v1, bearer.one")], true),
            (&[("sec-websocket-protocol", "agentforge.v1, bearer.three")], false),
            (&[], false),
        ] {
            assert_eq!(access().reader(&headers(given), false).is_some(), may, "{given:?}");
        }
        // A page of another origin sends the cookie without knowing it.
        assert!(access().reader(&headers(&[("cookie", "agentforge_token=two")]), true).is_none());
        assert!(access().reader(&headers(&[("authorization", "Bearer one")]), true).is_some());
        // What is open to everybody is less than a token gets.
        let open = Access { without_token: Some(Sight::Picture), ..access() };
        for (given, sight) in [(&[][..], Sight::Picture), (&[("authorization", "Bearer one")], Sight::Evidence)] {
            assert_eq!(open.sight(&headers(given), false).map(|(sight, _)| sight), Some(sight), "{given:?}");
        }
        assert_eq!(access().sight(&headers(&[]), false), None);
        assert!(access().publisher(&headers(&[("authorization", "Bearer three")])).is_some());
        assert!(access().publisher(&headers(&[("authorization", "Bearer one")])).is_none());
        assert!(Access { publish: Guard::Closed, ..access() }.publisher(&headers(&[])).is_none());
    }
}
