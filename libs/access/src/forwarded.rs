//! Which address a request comes from, behind proxies that are believed. Pure.

use http::{HeaderMap, HeaderName, header};
use std::net::{IpAddr, Ipv6Addr};

/// The addresses a request went through, as most proxies report it.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Bits of an IPv6 address that a network gives to one customer.
const SITE_PREFIX: u32 = 64;

/// The peer's address, or, behind trusted proxies, the last one that they report and that is not a trusted proxy
/// itself. `Forwarded` (RFC 7239) is used if there is no X-Forwarded-For.
pub fn address(peer: IpAddr, headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut address = peer.to_canonical();
    for entry in entries(headers) {
        if !is_trusted(address) {
            break;
        }
        match entry.and_then(node) {
            Some(next) => address = next.to_canonical(),
            None => break,
        }
    }
    address
}

/// Whether a request says that it came through a proxy. A surface that asks for nothing must not answer it: the proxy's
/// callers are strangers, also on a loopback listener.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| *name == header::FORWARDED || name.as_str().starts_with("x-forwarded"))
}

/// Who shares a cap: an IPv4 address, or an IPv6 network of the size that one customer gets.
pub fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & (u128::MAX << (128 - SITE_PREFIX))).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The entries, the nearest first: later headers and later entries are nearer.
fn entries(headers: &HeaderMap) -> Vec<Option<&str>> {
    let lines = |name: HeaderName| headers.get_all(name).iter().rev().map(|value| value.to_str().unwrap_or_default());
    if headers.contains_key(FORWARDED_FOR) {
        return lines(FORWARDED_FOR).flat_map(|line| line.rsplit(',')).map(Some).collect();
    }
    lines(header::FORWARDED).flat_map(|line| line.rsplit(',')).map(named_for).collect()
}

/// The `for` of one element of `Forwarded`.
fn named_for(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    Some(value.trim().trim_matches('"'))
}

/// An address, with or without a port: `203.0.113.7`, `203.0.113.7:5000`, `2001:db8::7`, `[2001:db8::7]:5000`.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let is_port = |port: &str| !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    let host = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, ""))) => host,
        Some(Some((host, port))) => port.strip_prefix(':').filter(|port| is_port(port)).map(|_| host)?,
        Some(None) => return None,
        None => match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') => is_port(port).then_some(host)?,
            _ => text,
        },
    };
    // The interface of a link-local address is the proxy's own.
    host.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(peer: &str, pairs: &[(&str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let is_trusted = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets()[0] == 10,
            IpAddr::V6(v6) => v6.octets()[0] == 0xfd,
        };
        address(peer.parse().unwrap(), &headers, is_trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_speak_for_others() {
        for (peer, forwarded, address) in [
            ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
            ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
            ("10.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),
            ("10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
            ("10.0.0.1", "203.0.113.9, nonsense", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("::ffff:10.0.0.1", "2001:db8::7", "2001:db8::7"),
            ("fd00::1", "::ffff:203.0.113.9", "203.0.113.9"),
            // With the port of the caller, as some gateways report it.
            ("10.0.0.1", "203.0.113.7:5000", "203.0.113.7"),
            ("10.0.0.1", "6.6.6.6:1, 203.0.113.7:5000,10.0.0.2:443", "203.0.113.7"),
            ("10.0.0.1", "[2001:db8::7]:5000", "2001:db8::7"),
            ("10.0.0.1", "[2001:db8::7]", "2001:db8::7"),
            ("10.0.0.1", "fe80::7%eth0", "fe80::7"),
            ("10.0.0.1", "203.0.113.7:", "10.0.0.1"),
            ("10.0.0.1", "203.0.113.7:http", "10.0.0.1"),
            ("10.0.0.1", "[2001:db8::7", "10.0.0.1"),
            ("10.0.0.1", "[2001:db8::7]5000", "10.0.0.1"),
            ("10.0.0.1", "unknown", "10.0.0.1"),
        ] {
            assert_eq!(found(peer, &[("x-forwarded-for", forwarded)]), address, "{peer} {forwarded}");
        }
        let two = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(found("10.0.0.1", &two), "203.0.113.9");
    }

    #[test]
    fn the_header_of_the_rfc_counts_where_the_other_is_missing() {
        for (forwarded, address) in [
            ("for=203.0.113.7", "203.0.113.7"),
            ("for=6.6.6.6, for=203.0.113.7;proto=https;by=10.0.0.2", "203.0.113.7"),
            ("proto=https; For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=\"203.0.113.7:5000\"", "203.0.113.7"),
            ("for=_hidden", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
        ] {
            assert_eq!(found("10.0.0.1", &[("forwarded", forwarded)]), address, "{forwarded}");
            let both = [("forwarded", forwarded), ("x-forwarded-for", "203.0.113.9")];
            assert_eq!(found("10.0.0.1", &both), "203.0.113.9", "{forwarded}");
        }
        assert_eq!(found("192.0.2.1", &[("forwarded", "for=203.0.113.7")]), "192.0.2.1");
    }

    #[test]
    fn a_proxy_shows_itself_by_any_of_its_headers() {
        for name in ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded"] {
            let headers = HeaderMap::from_iter([(name.parse::<HeaderName>().unwrap(), "".parse().unwrap())]);
            assert!(is_forwarded(&headers), "{name}");
        }
        let others = ["host", "origin", "x-real-name", "x-forward"]
            .map(|n| (n.parse::<HeaderName>().unwrap(), "x".parse().unwrap()));
        assert!(!is_forwarded(&HeaderMap::from_iter(others)));
    }

    #[test]
    fn addresses_of_one_network_share_a_cap() {
        let of = |text: &str| household(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!((of("203.0.113.7"), of("::ffff:203.0.113.7")), ("203.0.113.7".into(), "203.0.113.7".into()));
    }
}
