//! Where a request without a session comes from, and whether our own page sent it.

use super::state::Accounts;
use crate::problem::{Problem, forbidden};
use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{HeaderMap, header, request::Parts},
};
use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
};
use url::Url;

/// A request's address, and its headers.
pub(super) struct Caller {
    pub(super) address: IpAddr,
    pub(super) headers: HeaderMap,
}

impl FromRequestParts<Accounts> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, accounts: &Accounts) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        Ok(Self { address: accounts.0.door.address(peer, &parts.headers), headers: parts.headers.clone() })
    }
}

impl Caller {
    /// What the browser says it is.
    pub(super) fn agent(&self) -> &str {
        self.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default()
    }

    /// Refuses what another site's page sends: it could log a browser in as someone else. Programs send neither header.
    pub(super) fn is_own_page(&self, public: Option<&Url>) -> Result<(), Problem> {
        own_page(&self.headers, public)
    }
}

fn own_page(headers: &HeaderMap, public: Option<&Url>) -> Result<(), Problem> {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let foreign = || forbidden("requests of another site's page are refused (Origin, Sec-Fetch-Site)");
    let site = headers.get("sec-fetch-site").map(|value| value.to_str().unwrap_or("?"));
    if site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return Err(foreign());
    }
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let host = text(header::HOST).unwrap_or_default();
    let is_own = origin.split_once("://").is_some_and(|(_, authority)| authority == host)
        || public.is_some_and(|url| url.origin().ascii_serialization() == origin);
    if is_own { Ok(()) } else { Err(foreign()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    #[test]
    fn only_our_own_page_may_log_in() {
        let public = Url::parse("https://console.example").unwrap();
        for (pairs, is_own) in [
            (&[("host", "a:5125")][..], true),
            (&[("host", "a:5125"), ("origin", "http://a:5125"), ("sec-fetch-site", "same-origin")], true),
            (&[("host", "a:5125"), ("origin", "https://console.example")], true),
            (&[("host", "a:5125"), ("origin", "http://evil.example")], false),
            (&[("host", "a:5125"), ("origin", "http://a:5126")], false),
            (&[("host", "a:5125"), ("origin", "null")], false),
            (&[("host", "a:5125"), ("sec-fetch-site", "cross-site")], false),
            (&[("host", "a:5125"), ("sec-fetch-site", "same-site")], false),
        ] {
            let headers = pairs.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), HeaderValue::from_static(v)));
            assert_eq!(own_page(&headers.collect(), Some(&public)).is_ok(), is_own, "{pairs:?}");
        }
    }
}
