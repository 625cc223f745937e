//! The decision: may this URL, may this address be called?
//!
//! Pure: no name is resolved here. Relies on `ranges` for what an address is; what an operator
//! opened by name in `EGRESS_ALLOW` is the only exception, and it opens exactly that.

use crate::{
    net::Net,
    ranges::{Kind, effective, kind_of},
};
use agentforge_config::{CommaList, Reader, Setting};
use std::{collections::BTreeSet, net::IpAddr};
use url::{Host, Url};

/// What may be called. The default opens nothing: https to public addresses only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    hosts: BTreeSet<String>,
    nets: Vec<Net>,
}

/// An entry of `EGRESS_ALLOW` that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{entry:?} {problem}")]
pub struct PolicyFault {
    entry: String,
    problem: &'static str,
}

/// Why a URL or an address was refused. Names the host, never the rest of the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither https nor http.
    #[error("the scheme {0:?} is not allowed: use https, or http for hosts in EGRESS_ALLOW")]
    Scheme(String),
    /// http to a host that was not opened.
    #[error("http to {0} is not allowed: use https, or name the host in EGRESS_ALLOW")]
    PlainHttp(String),
    /// A URL without a host.
    #[error("the URL has no host")]
    NoHost,
    /// An address that is not public and was not opened. The text has the kind and not the address: callers who may
    /// name any host would learn the addresses of a network that they are not in.
    #[error("{host} is at a {kind} address, which is not allowed unless EGRESS_ALLOW names it")]
    Address {
        /// The host as asked for.
        host: String,
        /// What it leads to; not in the text.
        ip: IpAddr,
        /// What kind of address that is.
        kind: Kind,
    },
}

impl Policy {
    /// The one setting of the egress rules.
    pub const SETTING: Setting = Setting::new(
        "EGRESS_ALLOW",
        None,
        "comma-separated list of host names, addresses and CIDR ranges",
        "Opens exactly what it names for outgoing calls: http, and addresses that are not public. A host \
         name opens that host (link-local and metadata addresses only open by address). Empty: https to \
         public addresses only, in every ENV.",
    );

    /// Reads [`Policy::SETTING`]; every entry that is none becomes a fault.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let entries = reader.opt::<CommaList>(&Self::SETTING).unwrap_or_default();
        let (policy, faults) = Self::from_entries(entries.iter().map(String::as_str));
        for fault in faults {
            reader.fault(Self::SETTING.key, fault.to_string());
        }
        policy
    }

    /// Takes entries one by one; returns the good ones together with the faults.
    pub fn from_entries<'a>(entries: impl IntoIterator<Item = &'a str>) -> (Self, Vec<PolicyFault>) {
        let (mut policy, mut faults) = (Self::default(), Vec::new());
        for entry in entries {
            match parse_entry(entry) {
                Ok(Entry::Net(net)) => policy.nets.push(net),
                Ok(Entry::Host(host)) => {
                    policy.hosts.insert(host);
                }
                Err(problem) => faults.push(PolicyFault { entry: entry.chars().take(80).collect(), problem }),
            }
        }
        (policy, faults)
    }

    /// Whether a request to this URL may be made at all. A name's addresses are judged later, by
    /// [`Policy::check_ip`], when it is resolved; an address written in the URL is judged here.
    ///
    /// # Errors
    /// [`Refusal`] says which rule forbids it.
    pub fn check_url(&self, url: &Url) -> Result<(), Refusal> {
        let is_tls = match url.scheme() {
            "https" => true,
            "http" => false,
            other => return Err(Refusal::Scheme(other.chars().take(20).collect())),
        };
        self.check(&url.host().ok_or(Refusal::NoHost)?, is_tls)
    }

    /// As [`Policy::check_url`], of a URL that was taken apart.
    pub(crate) fn check<S: AsRef<str>>(&self, host: &Host<S>, is_tls: bool) -> Result<(), Refusal> {
        let (shown, opened) = match host {
            Host::Domain(name) => (name.as_ref().to_owned(), self.names(name.as_ref())),
            Host::Ipv4(ip) => (ip.to_string(), self.holds((*ip).into())),
            Host::Ipv6(ip) => (format!("[{ip}]"), self.holds((*ip).into())),
        };
        match host {
            Host::Domain(_) => {}
            Host::Ipv4(ip) => self.check_ip((*ip).into(), &ip.to_string())?,
            Host::Ipv6(ip) => self.check_ip((*ip).into(), &ip.to_string())?,
        }
        if !is_tls && !opened {
            return Err(Refusal::PlainHttp(shown));
        }
        Ok(())
    }

    /// Whether a connection to this address may be made for this host.
    ///
    /// # Errors
    /// [`Refusal::Address`] for one that is not public and was not opened.
    pub fn check_ip(&self, ip: IpAddr, host: &str) -> Result<(), Refusal> {
        let kind = kind_of(ip);
        if kind == Kind::Public || self.holds(ip) || (kind.opened_by_host_name() && self.names(host)) {
            return Ok(());
        }
        Err(Refusal::Address { host: host.chars().take(253).collect(), ip, kind })
    }

    fn names(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.hosts.contains(&host.to_ascii_lowercase())
    }

    fn holds(&self, ip: IpAddr) -> bool {
        let ip = effective(ip);
        self.nets.iter().any(|net| net.contains(ip))
    }
}

enum Entry {
    Host(String),
    Net(Net),
}

fn parse_entry(entry: &str) -> Result<Entry, &'static str> {
    if entry.contains("://") {
        return Err("is a URL; write only the host name");
    }
    if entry.contains('*') {
        return Err("has a wildcard; name each host");
    }
    if entry.contains('/') || entry.parse::<IpAddr>().is_ok() {
        return entry.parse().map(Entry::Net);
    }
    if entry.contains(':') {
        return Err("has a port or brackets; write only the host name or the address");
    }
    // Through the URL parser, so that the name is compared in the form in which URLs carry it.
    match Host::parse(entry) {
        Ok(Host::Domain(name)) => Ok(Entry::Host(name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase())),
        Ok(_) => Err("is an address in an unusual form; write it as a.b.c.d"),
        Err(_) => Err("is neither a host name nor a range"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(entries: &str) -> Policy {
        let (policy, faults) = Policy::from_entries(entries.split(',').filter(|e| !e.is_empty()));
        assert_eq!(faults, []);
        policy
    }

    #[test]
    fn urls_are_judged_by_scheme_and_host() {
        let cases = [
            ("", "https://example.org/x", true),
            ("", "http://example.org/x", false),
            ("example.org", "http://example.org/x", true),
            ("Example.ORG.", "http://example.org./x", true),
            ("example.org", "http://sub.example.org/", false),
            ("example.org", "http://example.org.evil.net/", false),
            ("", "https://8.8.8.8/", true),
            ("", "http://8.8.8.8/", false),
            ("8.8.8.8", "http://8.8.8.8/", true),
            ("", "https://127.0.0.1/", false),
            ("", "https://127.1/", false),
            ("", "https://0x7f000001/", false),
            ("", "https://2130706433/", false),
            ("", "https://0177.0.0.1/", false),
            ("", "https://[::1]/", false),
            ("", "https://[::ffff:127.0.0.1]/", false),
            ("", "https://[64:ff9b::a9fe:a9fe]/", false),
            ("127.0.0.1", "http://[::ffff:7f00:1]/", true),
            ("10.0.0.0/8", "https://10.1.2.3/", true),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "https://192.168.0.1/", false),
            ("", "https://169.254.169.254/latest/meta-data", false),
            ("169.254.169.254", "http://169.254.169.254/", true),
            ("", "ftp://example.org/", false),
            ("example.org", "file:///etc/passwd", false),
            ("example.org", "gopher://example.org/", false),
            ("", "data:text/plain,x", false),
        ];
        for (allow, url, expected) in cases {
            let verdict = policy(allow).check_url(&Url::parse(url).unwrap());
            assert_eq!(verdict.is_ok(), expected, "allow {allow:?}: {url}: {verdict:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_kind_and_never_the_address() {
        for (ip, kind) in [("10.1.2.3", "private"), ("fd12::7", "private"), ("169.254.169.254", "metadata")] {
            let told = policy("").check_ip(ip.parse().unwrap(), "db.internal.example").unwrap_err().to_string();
            assert!(told.contains("db.internal.example") && told.contains(kind) && !told.contains(ip), "{told}");
        }
    }

    #[test]
    fn a_name_that_leads_inside_is_refused_unless_it_was_named() {
        let cases = [
            ("", "1.1.1.1", "a.example", true),
            ("", "10.0.0.1", "a.example", false),
            ("", "::ffff:10.0.0.1", "a.example", false),
            ("a.example", "10.0.0.1", "a.example", true),
            ("a.example", "127.0.0.1", "A.example.", true),
            ("a.example", "10.0.0.1", "b.example", false),
            ("localhost", "::1", "localhost", true),
            ("10.0.0.0/8", "10.0.0.1", "b.example", true),
            ("a.example", "169.254.169.254", "a.example", false),
            ("a.example", "fd00:ec2::254", "a.example", false),
            ("a.example", "224.0.0.1", "a.example", false),
            ("a.example", "0.0.0.0", "a.example", false),
            ("169.254.0.0/16", "169.254.169.254", "a.example", true),
        ];
        for (allow, ip, host, expected) in cases {
            let verdict = policy(allow).check_ip(ip.parse().unwrap(), host);
            assert_eq!(verdict.is_ok(), expected, "allow {allow:?}: {host} at {ip}: {verdict:?}");
        }
    }

    #[test]
    fn entries_that_name_nothing_exactly_are_faults() {
        let bad = ["*.example.org", "https://example.org", "example.org:8080", "10.1.2.3/8", "127.1", "[::1]", "a b"];
        let (policy, faults) = Policy::from_entries(bad.iter().copied().chain(["good.example"]));
        assert_eq!(faults.len(), bad.len(), "{faults:?}");
        assert!(policy.names("good.example"));
    }

    #[test]
    fn dev_opens_nothing_by_itself() {
        let source = std::collections::BTreeMap::from([("ENV".to_owned(), "dev".to_owned())]);
        let mut reader = Reader::new(&source);
        assert_eq!(Policy::read(&mut reader), Policy::default());
    }
}
