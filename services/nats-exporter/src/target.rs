//! The servers to ask: URLs with ids, and credentials that never come back out.

use agentforge_config::{ExposeSecret, Secret, Url, without_credentials};
use std::{collections::BTreeSet, fmt};

/// Each target is asked at every scrape; a fleet of more needs more exporters.
const TARGETS_MAX: usize = 256;
const ID_MAX_CHARS: usize = 256;

/// One server's monitoring endpoint.
#[derive(Clone)]
pub struct Target {
    /// The label `server_id`.
    pub id: String,
    /// Ends with `/`; holds no credentials.
    pub base: Url,
    /// For a proxy in front of it; nats-server itself asks for none.
    pub credentials: Option<(String, Secret)>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("id", &self.id).field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Target {
    /// The URL of a request.
    ///
    /// # Panics
    /// Never: `path` is one of ours and the base can be a base.
    pub fn url(&self, path: &str) -> Url {
        self.base.join(path).expect("an http URL and a relative path make a URL")
    }

    /// The password in plain text.
    pub fn basic_auth(&self) -> Option<(&str, &str)> {
        self.credentials.as_ref().map(|(user, password)| (user.as_str(), password.expose_secret()))
    }
}

/// Reads `url` and `id,url`, any number of them with commas between.
///
/// # Errors
/// What is wrong, without credentials.
pub fn parse_list(items: &[String]) -> Result<Vec<Target>, String> {
    let mut targets = Vec::new();
    let mut ids = BTreeSet::new();
    let mut id: Option<&str> = None;
    for item in items {
        if !item.contains("://") {
            if let Some(before) = id.replace(item) {
                return Err(no_url(before));
            }
            continue;
        }
        let target = parse(id.take(), item)?;
        if !ids.insert(target.id.clone()) {
            return Err(format!("{:?} appears twice: two servers with one id cannot be told apart", target.id));
        }
        targets.push(target);
    }
    match id {
        Some(rest) => Err(no_url(rest)),
        None if targets.is_empty() => Err("names no server".to_owned()),
        None if targets.len() > TARGETS_MAX => Err(format!("names more than {TARGETS_MAX} servers")),
        None => Ok(targets),
    }
}

fn no_url(item: &str) -> String {
    format!("{:?} is neither a URL such as http://host:8222 nor an id with a URL after it", without_credentials(item))
}

fn parse(id: Option<&str>, text: &str) -> Result<Target, String> {
    let wrong = || format!("{:?} is not a URL such as http://host:8222", without_credentials(text));
    let mut base = Url::parse(text).map_err(|_| wrong())?;
    if !matches!(base.scheme(), "http" | "https") || base.query().is_some() || base.fragment().is_some() {
        return Err(wrong());
    }
    let host = base.host_str().ok_or_else(wrong)?.to_owned();
    let credentials = (!base.username().is_empty() || base.password().is_some()).then(|| {
        let plain = |text: &str| percent_decoded(text);
        (plain(base.username()), Secret::from(plain(base.password().unwrap_or_default())))
    });
    // Cannot fail for URLs with a host.
    let _ = base.set_username("").and_then(|()| base.set_password(None));
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    let port = base.port().map(|port| format!(":{port}")).unwrap_or_default();
    let id = id.map_or_else(|| format!("{}://{host}{port}", base.scheme()), str::to_owned);
    if id.chars().count() <= ID_MAX_CHARS && !id.chars().any(char::is_control) {
        Ok(Target { id, base, credentials })
    } else {
        Err(format!("an id has at most {ID_MAX_CHARS} characters and no control characters"))
    }
}

/// Credentials in a URL are percent-encoded; a sequence that is none stands for itself.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|h| u8::from_str_radix(h, 16).ok());
        out.push(hex.unwrap_or(bytes[at]));
        at += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<Vec<Target>, String> {
        parse_list(&text.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn urls_and_ids_in_any_mixture() {
        let targets = list("http://a:8222,n2,https://b,n3,http://u:p%40x@c:1/nats").unwrap();
        let shown: Vec<_> = targets.iter().map(|t| (t.id.as_str(), t.url("varz").to_string())).collect();
        assert_eq!(
            shown,
            [
                ("http://a:8222", "http://a:8222/varz".to_owned()),
                ("n2", "https://b/varz".to_owned()),
                ("n3", "http://c:1/nats/varz".to_owned())
            ]
        );
        assert_eq!(targets[2].basic_auth(), Some(("u", "p@x")));
        assert_eq!(list("http://u:hunter2@a:8222").unwrap()[0].id, "http://a:8222");
    }

    #[test]
    fn faults_say_what_is_wrong_and_no_password() {
        for (text, part) in [
            ("localhost:8222", "neither a URL"),
            ("a,b,http://c", "\"a\" is neither"),
            ("http://a,b", "\"b\" is neither"),
            ("ftp://u:hunter2@a", "not a URL"),
            ("http://a,http://a", "appears twice"),
            ("http://u:hunter2@[", "not a URL"),
        ] {
            let fault = list(text).unwrap_err();
            assert!(fault.contains(part) && !fault.contains("hunter2"), "{text}: {fault}");
        }
        let debug = format!("{:?}", list("http://u:hunter2@a").unwrap());
        assert!(!debug.contains("hunter2"), "{debug}");
    }
}
