//! Who a caller is and whether it may come in: certificate, token, page, the address behind a proxy.
//!
//! Headers that speak for a caller (X-Forwarded-For, client certificates) count only when the peer is a
//! proxy that the settings name; anybody else may write them as they like.

use crate::{
    event::Sight,
    origin::{self, Foreign, Ingress, Origin},
};
use agentforge_access::{Denied, Principal, Role, Scopes, Tokens, VERIFIED, VERIFY_HEADERS, forwarded};
use agentforge_config::{ExposeSecret, Secret};
use agentforge_door::{Door, Refusal, Shown};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

/// The cookie that carries a token for browsers. It must be HttpOnly, which is up to who sets it.
pub const COOKIE: &str = "agentforge_token";
/// The subprotocol that a browser offers together with its token; the server chooses it.
pub const SUBPROTOCOL: &str = "agentforge.v1";
/// The subprotocol that carries a token, before it.
const SUBPROTOCOL_TOKEN: &str = "bearer.";
/// The name of callers with TACTICAL_PUBLISH_TOKEN, which publishes and does not read.
pub const PUBLISHER: &str = "publisher";

/// Who may read and publish.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where tokens are checked. Closed where there are none.
    pub door: Door,
    /// What a reader without a token gets; `None` for nothing.
    pub without_token: Option<Sight>,
    /// Publishing asks for nothing.
    pub is_publishing_open: bool,
    /// Streams need a client certificate.
    pub needs_certificate: bool,
    /// The one header in which proxies report a verified certificate; `None` for the usual names.
    pub certificate_header: Option<String>,
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

    /// The address whose caps a request is under.
    pub fn address(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        self.door.address(Some(peer.ip()), headers)
    }

    /// The origin of the page that asks, where it is another one that may; `None` for all that need no word
    /// of it.
    ///
    /// # Errors
    /// `Foreign::Page`.
    pub fn page<'a>(&self, peer: SocketAddr, headers: &'a HeaderMap) -> Result<Option<&'a HeaderValue>, Foreign> {
        let way = Ingress { is_tls: self.is_tls, is_proxied: self.door.trusts(peer.ip()) };
        origin::page(headers, way, &self.allowed_origins)
    }

    /// Where reading asks for nothing, the name by which this port is called must be one of its own, and no proxy may be in
    /// between but those of the settings.
    ///
    /// # Errors
    /// `Foreign::Name`, `Foreign::Proxy`.
    pub fn is_named_for_reading(&self, peer: SocketAddr, headers: &HeaderMap) -> Result<(), Foreign> {
        self.is_named(self.without_token.is_some() && !self.needs_certificate, peer, headers)
    }

    /// The same for publishing.
    ///
    /// # Errors
    /// `Foreign::Name`, `Foreign::Proxy`.
    pub fn is_named_for_publishing(&self, peer: SocketAddr, headers: &HeaderMap) -> Result<(), Foreign> {
        self.is_named(self.is_publishing_open, peer, headers)
    }

    fn is_named(&self, is_open: bool, peer: SocketAddr, headers: &HeaderMap) -> Result<(), Foreign> {
        match is_open && self.is_local {
            true if !origin::is_own_name(headers, &self.allowed_origins) => Err(Foreign::Name),
            true if forwarded::is_forwarded(headers) && !self.door.trusts(peer.ip()) => Err(Foreign::Proxy),
            _ => Ok(()),
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
            None => &VERIFY_HEADERS,
        };
        let mut said = names.iter().flat_map(|name| headers.get_all(*name).iter()).peekable();
        let is_told = said.peek().is_some();
        let are_single = names.iter().all(|name| headers.get_all(*name).iter().count() <= 1);
        self.door.trusts(peer.ip()) && is_told && are_single && said.all(|value| value.as_bytes() == VERIFIED)
    }

    /// What a stream's caller may see, and of which sites. `is_foreign` is a page that may not come.
    ///
    /// # Errors
    /// Why it needs a token, or to wait.
    pub async fn sight(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
        certificate: &[String],
        is_foreign: bool,
    ) -> Result<(Sight, Scopes), Refusal> {
        let shown = shown(peer, headers, certificate, is_foreign);
        let open = self.without_token.map(|sight| (sight, Scopes::ALL));
        let known = match &open {
            Some(_) => self.door.recognise(&shown, Role::Read).await,
            None => self.door.admit(&shown, Role::Read).await.map(Some),
        };
        let refusal = match known {
            Ok(Some(reader)) if &*reader.name != PUBLISHER => return Ok((Sight::Evidence, reader.scopes)),
            Ok(Some(publisher)) => Refusal::Denied(Denied::Role(publisher)),
            Ok(None) => Refusal::Denied(Denied::Missing),
            Err(refusal) => refusal,
        };
        match (refusal, open) {
            // What could be somebody else's is refused.
            (refusal @ Refusal::Denied(Denied::Certificate), _) => Err(refusal),
            // A token that is not accepted gets no more than none at all, and no less.
            (Refusal::Denied(_) | Refusal::LockedOut(_), Some(open)) => Ok(open),
            (refusal, _) => Err(refusal),
        }
    }

    /// Who makes a request of the API that needs this role.
    ///
    /// # Errors
    /// Why it may not.
    pub async fn caller(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
        certificate: &[String],
        is_foreign: bool,
        needed: Role,
    ) -> Result<Principal, Refusal> {
        if self.is_publishing_open {
            return Ok(Principal::anyone());
        }
        let shown = if needed == Role::Read {
            shown(peer, headers, certificate, is_foreign)
        } else {
            // A cookie is for reading.
            Shown::new(Some(peer.ip()), headers).with_certificate(if is_foreign { &[] } else { certificate })
        };
        self.door.admit(&shown, needed).await
    }
}

/// What a request shows of who makes it: browsers cannot set the header for a stream.
fn shown<'r>(peer: SocketAddr, headers: &'r HeaderMap, certificate: &'r [String], is_foreign: bool) -> Shown<'r> {
    let of_subprotocols = subprotocols(headers).filter_map(|p| p.strip_prefix(SUBPROTOCOL_TOKEN));
    // A cookie is sent by pages of any origin.
    let of_cookies = cookies(headers).filter(move |_| !is_foreign);
    let shown = Shown::new(Some(peer.ip()), headers).with_certificate(if is_foreign { &[] } else { certificate });
    shown.with_tokens(of_subprotocols.chain(of_cookies).map(str::as_bytes))
}

/// A refusal as an answer has it: status, code and detail.
pub fn in_words(refusal: &Refusal) -> (StatusCode, &'static str, Cow<'static, str>) {
    let (unauthorized, forbidden) = ((StatusCode::UNAUTHORIZED, "unauthorized"), StatusCode::FORBIDDEN);
    let ((status, code), detail): (_, Cow<'static, str>) = match refusal {
        Refusal::Denied(Denied::Missing | Denied::Unknown | Denied::Closed) => {
            (unauthorized, "a valid token is needed: Authorization header, or for streams cookie or subprotocol".into())
        }
        Refusal::Denied(Denied::Certificate) => {
            (unauthorized, "the proxy's headers do not agree about the client's certificate".into())
        }
        Refusal::Denied(Denied::Expired(_)) => (unauthorized, "the token has expired; a new one is needed".into()),
        Refusal::Denied(Denied::Jwt(fault)) if fault.is_without_rights() => {
            ((forbidden, "permission_denied"), fault.in_words().into())
        }
        Refusal::Denied(Denied::Jwt(fault)) => (unauthorized, fault.in_words().into()),
        Refusal::Denied(Denied::Role(caller)) => {
            let (name, role) = (&caller.name, caller.role.as_str());
            let detail = format!("the token {name} has the role {role}, which does not allow this");
            ((forbidden, "permission_denied"), detail.into())
        }
        Refusal::Proxy => ((forbidden, "permission_denied"), refusal.to_string().into()),
        Refusal::LockedOut(_) | Refusal::CallerRate(_) | Refusal::AddressRate(_) => {
            ((StatusCode::TOO_MANY_REQUESTS, "too_many_requests"), refusal.to_string().into())
        }
    };
    (status, code, detail)
}

/// The settings of [`own_tokens`], for a fault about a name that they share with the file of tokens.
pub const OWN_TOKENS: &str = "TACTICAL_READ_TOKENS or TACTICAL_PUBLISH_TOKEN";

/// The token that publishes reads only where it is among those that read.
pub fn own_tokens(readers: &[Secret], publisher: Option<&Secret>) -> Tokens {
    let both = |secret: &&Secret| readers.iter().any(|reader| reader.expose_secret() == secret.expose_secret());
    let name = if publisher.as_ref().is_some_and(both) { "reader-and-publisher" } else { PUBLISHER };
    Tokens::sharing(name, Role::Submit, publisher).and(&Tokens::sharing("reader", Role::Read, readers))
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
    use agentforge_access::{Guard, Keyring};
    use agentforge_door::DoorConfig;
    use axum::http::HeaderName;

    fn tokens(role: Role, texts: &[&str]) -> Tokens {
        let secrets: Vec<Secret> = texts.iter().map(|text| Secret::from((*text).to_owned())).collect();
        Tokens::sharing("test", role, &secrets)
    }

    const PROXY: &str = "10.0.0.1:1";

    fn access() -> Access {
        let readers = tokens(Role::Read, &["one", "two"]);
        let publisher = Tokens::sharing(PUBLISHER, Role::Submit, &[Secret::from("three".to_owned())]);
        let door = DoorConfig {
            guard: Guard::Keyring(Keyring::new(readers.and(&publisher), Vec::new())),
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            ..DoorConfig::open()
        };
        Access {
            door: Door::new(door),
            without_token: None,
            is_publishing_open: false,
            needs_certificate: true,
            certificate_header: None,
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
        let (proxy, other) = (PROXY.parse().unwrap(), "192.0.2.1:1".parse().unwrap());
        for name in VERIFY_HEADERS {
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

    /// What a caller sees, or the code of its refusal.
    async fn sight(access: &Access, given: &[(&str, &str)], is_foreign: bool) -> Result<Sight, &'static str> {
        let seen = access.sight(PROXY.parse().unwrap(), &headers(given), &[], is_foreign).await;
        seen.map(|(sight, _)| sight).map_err(|refusal| in_words(&refusal).1)
    }

    #[tokio::test]
    async fn tokens_come_in_three_ways_and_never_in_another() {
        let (seen, none) = (Ok(Sight::Evidence), Err("unauthorized"));
        for (given, wanted) in [
            (&[("authorization", "Bearer one")][..], seen),
            (&[("authorization", "bearer two")], seen),
            (&[("authorization", "Basic one")], none),
            (&[("authorization", "Bearer one two")], none),
            (&[("authorization", "Bearer ")], none),
            (&[("cookie", "a=b; agentforge_token=two")], seen),
            (&[("authorization", "Bearer stale"), ("cookie", "agentforge_token=two")], seen),
            (&[("sec-websocket-protocol", "agentforge.v1, bearer.one")], seen),
            // It publishes, and does not read.
            (&[("sec-websocket-protocol", "agentforge.v1, bearer.three")], Err("permission_denied")),
            (&[], none),
        ] {
            assert_eq!(sight(&access(), given, false).await, wanted, "{given:?}");
        }
        // A page of another origin sends the cookie without knowing it.
        assert_eq!(sight(&access(), &[("cookie", "agentforge_token=two")], true).await, none);
        assert_eq!(sight(&access(), &[("authorization", "Bearer one")], true).await, seen);
        // What is open to everybody is less than a token gets, and no less with a wrong one.
        let open = Access { without_token: Some(Sight::Picture), ..access() };
        for (given, wanted) in [
            (&[][..], Sight::Picture),
            (&[("authorization", "Bearer wrong")], Sight::Picture),
            (&[("authorization", "Bearer one")], Sight::Evidence),
        ] {
            assert_eq!(sight(&open, given, false).await, Ok(wanted), "{given:?}");
        }
    }

    #[tokio::test]
    async fn publishing_needs_its_role_in_the_header() {
        let caller = async |access: Access, given: &[(&str, &str)]| {
            let caller = access.caller(PROXY.parse().unwrap(), &headers(given), &[], false, Role::Submit).await;
            caller.map(|caller| caller.name.to_string()).map_err(|refusal| in_words(&refusal).1)
        };
        assert_eq!(caller(access(), &[("authorization", "Bearer three")]).await, Ok(PUBLISHER.to_owned()));
        assert_eq!(caller(access(), &[("authorization", "Bearer one")]).await, Err("permission_denied"));
        assert_eq!(caller(access(), &[("cookie", "agentforge_token=three")]).await, Err("unauthorized"));
        let page = access().caller(PROXY.parse().unwrap(), &headers(&[]), &["x".to_owned()], true, Role::Submit).await;
        assert_eq!(page.unwrap_err().as_str(), "missing");
        let closed = Access { door: Door::new(DoorConfig { guard: Guard::Closed, ..DoorConfig::open() }), ..access() };
        assert_eq!(caller(closed.clone(), &[]).await, Err("unauthorized"));
        let open = Access { is_publishing_open: true, ..closed };
        assert_eq!(caller(open, &[]).await, Ok("anyone".to_owned()));
    }

    #[test]
    fn the_token_that_publishes_reads_only_where_it_is_among_those_that_read() {
        let of = |readers: &[&str], publisher: &str| {
            let secret = |text: &str| Secret::from(text.to_owned());
            let readers: Vec<_> = readers.iter().map(|text| secret(text)).collect();
            let tokens = own_tokens(&readers, Some(&secret(publisher)));
            let found = tokens.find(publisher.as_bytes()).unwrap().principal.clone();
            (found.name.to_string(), found.role, tokens.len())
        };
        assert_eq!(of(&["reads"], "publishes"), (PUBLISHER.to_owned(), Role::Submit, 2));
        assert_eq!(of(&["reads", "both"], "both"), ("reader-and-publisher".to_owned(), Role::Submit, 2));
    }
}
