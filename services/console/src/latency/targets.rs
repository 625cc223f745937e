//! What is sampled: names and URLs, parsed once, and the list of hosts that may be probed at all.
//!
//! Pure. A target of the settings is the operator's own word, so its host and port are on the list; one that comes over
//! the API, or from the file that the API writes, must be on it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use url::Url;

/// Targets at most: each costs a connection per interval and 200 samples of memory.
pub const TARGETS_MAX: usize = 64;
/// Characters of a name at most: it is a label.
pub const NAME_MAX: usize = 40;
/// Bytes of a URL at most.
pub const URL_MAX: usize = 512;

/// A service that is sampled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its name, which is the label `service`.
    pub name: String,
    /// What is asked for.
    pub url: Url,
}

/// A target as callers and the file write it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// Its name.
    pub name: String,
    /// Its URL.
    pub url: String,
}

impl Target {
    /// Checks a name and a URL.
    ///
    /// # Errors
    /// What is wrong with them, with the limit.
    pub fn new(name: &str, url: &str) -> Result<Self, String> {
        let (name, url) = (name.trim(), url.trim());
        let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !is_name || name.len() > NAME_MAX {
            return Err(format!(
                "{:?} is not a name: 1 to {NAME_MAX} letters, digits, -, _ and ., beginning with a letter or digit",
                shortened(name)
            ));
        }
        if url.len() > URL_MAX {
            return Err(format!("the URL of {name} is longer than {URL_MAX} bytes"));
        }
        let url = Url::parse(url).map_err(|e| format!("the URL of {name} is not valid: {e}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(format!("the URL of {name} must begin with http:// or https:// and name a host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!("the URL of {name} has a login, which every reader of the page would see"));
        }
        Ok(Self { name: name.to_owned(), url })
    }

    /// Host and port, as the list has them.
    fn place(&self) -> (String, u16) {
        let host = self.url.host_str().unwrap_or_default();
        (normal(host), self.url.port_or_known_default().unwrap_or_default())
    }

    /// The host as the rules for outgoing calls name it: without the brackets of an IPv6 address.
    pub fn host(&self) -> String {
        let (host, _) = self.place();
        host.trim_start_matches('[').trim_end_matches(']').to_owned()
    }
}

/// Reads `name:url,…`. Empty entries are skipped.
///
/// # Errors
/// What is wrong with the first entry that is none.
pub fn parse(text: &str) -> Result<Vec<Target>, String> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let targets = entries.map(|entry| match entry.split_once(':') {
        Some((name, url)) => Target::new(name, url),
        None => Err(format!("{:?} is not name:url", shortened(entry))),
    });
    checked(targets.collect::<Result<_, _>>()?)
}

/// Checks targets one by one and together.
///
/// # Errors
/// What is wrong with the first that is none.
pub fn from_given(given: &[Given]) -> Result<Vec<Target>, String> {
    checked(given.iter().map(|given| Target::new(&given.name, &given.url)).collect::<Result<_, _>>()?)
}

/// The other way round: what `given` becomes on the page and in the file.
pub fn to_given(targets: &[Target]) -> Vec<Given> {
    targets.iter().map(|t| Given { name: t.name.clone(), url: t.url.to_string() }).collect()
}

fn checked(targets: Vec<Target>) -> Result<Vec<Target>, String> {
    if targets.len() > TARGETS_MAX {
        return Err(format!("{} targets; the limit is {TARGETS_MAX}", targets.len()));
    }
    let mut names = BTreeSet::new();
    match targets.iter().find(|target| !names.insert(target.name.as_str())) {
        Some(twice) => Err(format!("{} is there twice", twice.name)),
        None => Ok(targets),
    }
}

/// What may be probed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// Exactly these.
    places: BTreeSet<(String, u16)>,
    /// On every port.
    hosts: BTreeSet<String>,
    /// Hosts that end so, on every port; each begins with a dot.
    endings: BTreeSet<String>,
}

impl Allow {
    /// The places of these targets, and the entries of a setting: `host`, `host:port` or `*.ending`.
    ///
    /// # Errors
    /// The entry that is none of these.
    pub fn new<'a>(targets: &[Target], entries: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut allow = Self { places: targets.iter().map(Target::place).collect(), ..Self::default() };
        for entry in entries.into_iter().map(str::trim).filter(|entry| !entry.is_empty()) {
            let refused = || Err(format!("{:?} is not host, host:port or *.ending", shortened(entry)));
            if let Some(ending) = entry.strip_prefix('*') {
                // At least two labels: `*.com` would open half the world.
                if !ending.starts_with('.') || ending.matches('.').count() < 2 || !is_host(&ending[1..]) {
                    return refused();
                }
                allow.endings.insert(normal(ending));
            } else if let Some((host, port)) = with_port(entry) {
                let Ok(port) = port.parse::<u16>() else { return refused() };
                if !is_host(host) {
                    return refused();
                }
                allow.places.insert((normal(host), port));
            } else if is_host(entry) {
                allow.hosts.insert(normal(entry));
            } else {
                return refused();
            }
        }
        Ok(allow)
    }

    /// Whether a target may be probed.
    ///
    /// # Errors
    /// That it may not, with the setting that changes it.
    pub fn check(&self, target: &Target) -> Result<(), String> {
        let (host, port) = target.place();
        let ends = || self.endings.iter().any(|ending| host.len() > ending.len() && host.ends_with(ending.as_str()));
        if self.hosts.contains(&host) || ends() || self.places.contains(&(host.clone(), port)) {
            return Ok(());
        }
        Err(format!("{host}:{port} (of {}) may not be probed; LATENCY_SAMPLE_ALLOW names what may be", target.name))
    }

    /// The same of several.
    ///
    /// # Errors
    /// The first that may not be probed.
    pub fn check_all(&self, targets: &[Target]) -> Result<(), String> {
        targets.iter().try_for_each(|target| self.check(target))
    }
}

/// A port behind the host; an IPv6 address has brackets.
fn with_port(entry: &str) -> Option<(&str, &str)> {
    match entry.rfind(']') {
        Some(end) => entry[end + 1..].strip_prefix(':').map(|port| (&entry[..=end], port)),
        None => entry.split_once(':'),
    }
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && !text.contains('*') && url::Host::parse(text).is_ok()
}

fn normal(host: &str) -> String {
    let lower = host.to_ascii_lowercase();
    lower.strip_suffix('.').map(str::to_owned).unwrap_or(lower)
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_what_is_no_target_is_refused_with_its_reason() {
        let targets = parse("api:http://127.0.0.1:8080/readyz, nats:http://[::1]:8222/healthz,,").unwrap();
        let names: Vec<_> = targets.iter().map(|t| (t.name.as_str(), t.url.as_str())).collect();
        assert_eq!(names, [("api", "http://127.0.0.1:8080/readyz"), ("nats", "http://[::1]:8222/healthz")]);
        assert_eq!(parse(" , ").unwrap(), []);
        for (text, part) in [
            ("api", "not name:url"),
            ("a b:http://x/", "not a name"),
            ("-a:http://x/", "not a name"),
            ("a:ftp://x/", "http://"),
            ("a:http://", "not valid"),
            ("a:http://u:p@x/", "login"),
            ("a:http://x/,a:http://y/", "twice"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(part) && !problem.contains("u:p"), "{text}: {problem}");
        }
        let long = format!("a:http://x/{}", "y".repeat(URL_MAX));
        assert!(parse(&long).unwrap_err().contains("512"));
        let many: Vec<String> = (0..=TARGETS_MAX).map(|n| format!("s{n}:http://x/")).collect();
        assert!(parse(&many.join(",")).unwrap_err().contains("64"));
    }

    #[test]
    fn only_what_is_listed_may_be_probed() {
        let own = parse("api:http://api.local:8080/").unwrap();
        let entries = ["grafana", "prom:9090", "*.svc.cluster.local", "[::1]:8222", "10.0.0.7"];
        let allow = Allow::new(&own, entries).unwrap();
        for (url, is) in [
            ("http://api.local:8080/other", true),
            ("http://API.local.:8080/", true),
            ("http://api.local:8081/", false),
            ("http://grafana:3000/", true),
            ("https://grafana/", true),
            ("http://prom:9090/", true),
            ("http://prom:9091/", false),
            ("http://a.svc.cluster.local:1/", true),
            ("http://svc.cluster.local/", false),
            ("http://evilsvc.cluster.local/", false),
            ("http://a.svc.cluster.local.evil.example/", false),
            ("http://[::1]:8222/", true),
            ("http://[::1]:8223/", false),
            ("http://10.0.0.7/", true),
            ("http://0xa.0.0.7/", true),
            ("http://169.254.169.254/", false),
        ] {
            let target = Target::new("t", url).unwrap();
            let said = allow.check(&target);
            assert_eq!(said.is_ok(), is, "{url}: {said:?}");
            assert!(said.err().is_none_or(|text| text.contains("LATENCY_SAMPLE_ALLOW")));
        }
        for entry in ["*", "*.com", "a*b.example", "http://x/", "x:y", "a b"] {
            assert!(Allow::new(&[], [entry]).is_err(), "{entry}");
        }
    }
}
