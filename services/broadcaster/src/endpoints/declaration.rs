//! Endpoints as people write them: only `WEBHOOK_URL`, or `endpoints.toml`. Pure, except for reading what `file:` and
//! `env:` refer to.
//!
//! Every fault names its endpoint and key, never a URL, a secret or a header's value.

use crate::{
    endpoints::reference::{self, is_reference, resolve},
    endpoints::retry_4xx::Retry4xx,
    payload::{render::Format, signature::Signer},
};
use agentforge_config::parse_duration;
use agentforge_egress::{Policy, Target, TargetError};
use http::{HeaderName, HeaderValue};
use ring::digest;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use url::Url;

/// Most endpoints: each has tasks and consumers of its own.
pub const ENDPOINTS_MAX: usize = 256;
/// Most subjects of an endpoint.
const SUBJECTS_MAX: usize = 64;
/// Most secrets of an endpoint: two during a rotation, of both kinds, twice.
const SECRETS_MAX: usize = 8;
/// Most headers of an endpoint.
const HEADERS_MAX: usize = 32;
/// Requests to one endpoint at once, at most.
pub const CONCURRENCY_MAX: usize = 1024;
/// How long a request may take.
pub const TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);
/// Headers that are ours, or that would break the request.
const RESERVED_HEADERS: [&str; 9] =
    ["host", "content-length", "content-type", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"];

/// What an endpoint has that does not say otherwise.
#[derive(Debug, Clone)]
pub struct Defaults {
    pub subjects: Vec<String>,
    /// For a request.
    pub timeout: Duration,
    /// Requests at once.
    pub concurrency: usize,
    /// Client errors that are tried again.
    pub retry_4xx: Retry4xx,
}

/// Which of the events that the stream has already an endpoint gets when it is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Those published since the broadcaster knows the endpoint.
    #[default]
    New,
    /// All that the stream still has.
    All,
}

/// One endpoint. `Debug` shows no URL, secret or header.
pub struct Endpoint {
    /// Its name: the label of metrics and logs, a token of subjects.
    pub name: String,
    /// Where it is.
    pub url: Url,
    /// What it gets.
    pub subjects: Vec<String>,
    /// How it is signed.
    pub signer: Signer,
    /// How bodies are made.
    pub format: Format,
    /// For a request, connection included.
    pub timeout: Duration,
    /// Messages a second.
    pub rate: Option<f64>,
    /// Requests at once.
    pub concurrency: usize,
    /// Client errors that are tried again.
    pub retry_4xx: Retry4xx,
    /// Headers in addition to ours.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Where a new one begins.
    pub start: Start,
    /// Of everything above: two that are equal are the same endpoint.
    pub fingerprint: [u8; 32],
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).field("format", &self.format).finish_non_exhaustive()
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Endpoint {
    /// Where requests go, if the rules let them.
    ///
    /// # Errors
    /// [`TargetError`]; names the host at most.
    pub fn target(&self, policy: &Policy) -> Result<Target, TargetError> {
        policy.check_url(&self.url)?;
        Target::new(&self.url)
    }

    /// Distinguishes two URLs of one name without showing either.
    pub fn url_digest(&self) -> String {
        hex::encode(&digest::digest(&digest::SHA256, self.url.as_str().as_bytes()).as_ref()[..8])
    }
}

/// What is wrong with the endpoints.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Faults(pub Vec<String>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, alias = "endpoints")]
    endpoint: Vec<Declaration>,
}

/// As written in the file.
#[derive(Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct Declaration {
    pub name: String,
    pub url: String,
    pub subjects: Option<Vec<String>>,
    pub secret: Option<String>,
    #[serde(default)]
    pub secrets: Vec<String>,
    #[serde(default)]
    pub format: Format,
    pub timeout: Option<String>,
    pub rate: Option<f64>,
    pub concurrency: Option<usize>,
    pub retry_4xx: Option<Retry4xx>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub start: Start,
}

impl fmt::Debug for Declaration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Declaration {
    /// Whether one of its values names a variable or a file.
    pub fn has_references(&self) -> bool {
        let values = [&self.url].into_iter().chain(&self.secret).chain(&self.secrets).chain(self.headers.values());
        let mut values = values.map(|value| value.trim_start());
        values.any(is_reference)
    }

    /// The files that its values refer to.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        let values = [&self.url].into_iter().chain(&self.secret).chain(&self.secrets).chain(self.headers.values());
        values.filter_map(|value| reference::file(value)).map(PathBuf::from)
    }
}

/// The files that a content refers to; none when it cannot be read.
pub fn files(text: &str) -> BTreeSet<PathBuf> {
    let file = toml::from_str::<File>(text).unwrap_or_else(|_| File { endpoint: Vec::new() });
    file.endpoint.iter().flat_map(Declaration::files).collect()
}

/// Reads `endpoints.toml`.
///
/// # Errors
/// [`Faults`]: all of them.
pub fn parse(text: &str, defaults: &Defaults) -> Result<Vec<Arc<Endpoint>>, Faults> {
    let file: File = toml::from_str(text).map_err(|e| {
        // The library's own text repeats the line, which may hold a secret.
        let line = e.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
        Faults(vec![format!("line {line}: {}", plain(e.message()))])
    })?;
    check(file.endpoint, defaults)
}

/// What a parser says quotes values in backticks; names of fields are ours and stay.
fn plain(message: &str) -> String {
    let known = ["unknown field", "missing field", "unknown variant", "duplicate field"];
    match known.iter().any(|start| message.starts_with(start)) {
        true if message.starts_with("unknown variant") => "a value is not one of those that are allowed".to_owned(),
        true => message.lines().next().unwrap_or_default().to_owned(),
        false => "the file is not TOML, or a value is of the wrong type".to_owned(),
    }
}

pub(crate) fn check(written: Vec<Declaration>, defaults: &Defaults) -> Result<Vec<Arc<Endpoint>>, Faults> {
    let (mut endpoints, mut faults) = (Vec::<Arc<Endpoint>>::new(), Vec::new());
    if written.len() > ENDPOINTS_MAX {
        faults.push(format!("{} endpoints; at most {ENDPOINTS_MAX} are allowed", written.len()));
    }
    for (at, one) in written.into_iter().take(ENDPOINTS_MAX).enumerate() {
        let place = if is_name(&one.name) { format!("endpoint {}", one.name) } else { format!("endpoint {}", at + 1) };
        if endpoints.iter().any(|e| e.name == one.name) {
            faults.push(format!("{place}: the name is taken by an earlier one"));
            continue;
        }
        match endpoint(one, defaults) {
            Ok(endpoint) => endpoints.push(Arc::new(endpoint)),
            Err(problems) => faults.extend(problems.into_iter().map(|problem| format!("{place}: {problem}"))),
        }
    }
    if faults.is_empty() { Ok(endpoints) } else { Err(Faults(faults)) }
}

fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

fn endpoint(written: Declaration, defaults: &Defaults) -> Result<Endpoint, Vec<String>> {
    let mut problems = Vec::new();
    if !is_name(&written.name) {
        problems.push("name is not 1 to 63 letters, digits or hyphens, starting with a letter or digit".to_owned());
    }
    let url = match resolve(&written.url) {
        Ok(text) => {
            let url = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            if url.is_none() {
                problems.push("url is not an http or https URL".to_owned());
            }
            url
        }
        Err(problem) => {
            problems.push(format!("url {problem}"));
            None
        }
    };
    let subjects = written.subjects.clone().unwrap_or_else(|| defaults.subjects.clone());
    problems.extend(subjects_problem(&subjects));
    let timeout = match written.timeout.as_deref().map(parse_duration) {
        None => defaults.timeout,
        Some(Ok(timeout)) if TIMEOUT.contains(&timeout) => timeout,
        Some(_) => {
            problems.push("timeout is not a duration from 100ms to 5m".to_owned());
            defaults.timeout
        }
    };
    if written.rate.is_some_and(|rate| !(0.01..=100_000.0).contains(&rate)) {
        problems.push("rate is not between 0.01 and 100000 a second".to_owned());
    }
    let concurrency = written.concurrency.unwrap_or(defaults.concurrency);
    if !(1..=CONCURRENCY_MAX).contains(&concurrency) {
        problems.push(format!("concurrency is not between 1 and {CONCURRENCY_MAX}"));
    }
    let retry_4xx = written.retry_4xx.clone().unwrap_or_else(|| defaults.retry_4xx.clone());
    problems.extend(retry_4xx.problem().map(|problem| format!("retry_4xx {problem}")));
    let headers = headers(&written.headers, &mut problems);
    let secrets = secrets(&written, &mut problems);
    let signer = match Signer::new(secrets.iter().map(String::as_str)) {
        Ok(signer) => signer,
        Err((at, error)) => {
            problems.push(format!("secret {at} {error}"));
            Signer::default()
        }
    };
    let Some(url) = url.filter(|_| problems.is_empty()) else { return Err(problems) };
    let Declaration { name, format, rate, start, .. } = written;
    let shown = format!(
        "{name}\n{url}\n{subjects:?}\n{secrets:?}\n{format}\n{timeout:?}\n{rate:?}\n{concurrency}\n{:?}\n{start:?}\n{retry_4xx}",
        headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect::<Vec<_>>()
    );
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest::digest(&digest::SHA256, shown.as_bytes()).as_ref());
    #[rustfmt::skip] // a field a line would be a page
    let endpoint = Endpoint { name, url, subjects, signer, format, timeout, rate, concurrency, retry_4xx, headers, start, fingerprint };
    Ok(endpoint)
}

fn headers(written: &BTreeMap<String, String>, problems: &mut Vec<String>) -> Vec<(HeaderName, HeaderValue)> {
    if written.len() > HEADERS_MAX {
        problems.push(format!("more than {HEADERS_MAX} headers"));
    }
    let mut headers = Vec::new();
    for (name, value) in written {
        let value = match resolve(value) {
            Ok(value) => value,
            Err(problem) => {
                let name = HeaderName::try_from(name).map_or_else(|_| "a header".to_owned(), |n| format!("header {n}"));
                problems.push(format!("{name} {problem}"));
                continue;
            }
        };
        match (HeaderName::try_from(name), HeaderValue::from_str(&value)) {
            (Ok(name), _) if RESERVED_HEADERS.contains(&name.as_str()) || name.as_str().starts_with("webhook-") => {
                problems.push(format!("header {name} is set by the broadcaster"));
            }
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.push((name, value));
            }
            (Ok(name), Err(_)) => problems.push(format!("header {name} has a value that no header can have")),
            (Err(_), _) => problems.push("a header's name is none".to_owned()),
        }
    }
    headers
}

/// Secrets as they are written, or from where they say. What a variable or a file holds may be several, with
/// commas, blanks or line breaks between.
fn secrets(written: &Declaration, problems: &mut Vec<String>) -> Vec<String> {
    let all: Vec<&String> = written.secret.iter().chain(&written.secrets).collect();
    let mut secrets = Vec::new();
    for (at, secret) in all.into_iter().take(SECRETS_MAX).enumerate() {
        match resolve(secret) {
            Ok(found) if found == *secret => secrets.push(found.trim().to_owned()),
            Ok(found) => {
                let several = found.split(|c: char| c == ',' || c.is_whitespace());
                secrets.extend(several.filter(|one| !one.is_empty()).map(str::to_owned));
            }
            Err(problem) => problems.push(format!("secret {} {problem}", at + 1)),
        }
    }
    if secrets.len() > SECRETS_MAX || written.secrets.len() > SECRETS_MAX {
        problems.push(format!("more than {SECRETS_MAX} secrets"));
    }
    secrets
}

/// What is wrong with a list of subjects: JetStream takes no overlapping filters.
pub fn subjects_problem(subjects: &[String]) -> Option<String> {
    if subjects.is_empty() || subjects.len() > SUBJECTS_MAX {
        return Some(format!("subjects are not 1 to {SUBJECTS_MAX}"));
    }
    if let Some(at) = subjects.iter().position(|s| !is_filter(s)) {
        return Some(format!("subject {} is not a NATS subject", at + 1));
    }
    for (at, one) in subjects.iter().enumerate() {
        if let Some(other) = subjects[..at].iter().find(|other| overlap(one, other)) {
            return Some(format!("subjects {other} and {one} overlap; name each event once"));
        }
    }
    None
}

fn is_filter(subject: &str) -> bool {
    let tokens: Vec<&str> = subject.split('.').collect();
    let last = tokens.len() - 1;
    !subject.starts_with('$')
        && tokens.iter().enumerate().all(|(at, token)| match *token {
            ">" => at == last && at > 0,
            "*" => true,
            token => !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>'),
        })
}

fn overlap(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        match (a.next(), b.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
            (Some(x), Some(y)) if x == y || x == "*" || y == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Defaults {
        let (timeout, retry_4xx) = (Duration::from_secs(10), Retry4xx::NONE);
        Defaults { subjects: vec!["todos.events".into()], timeout, concurrency: 64, retry_4xx }
    }

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn a_file_is_read_and_what_it_leaves_out_is_the_default() {
        let text = format!(
            "[[endpoint]]\nname = \"billing\"\nurl = \"https://b.example/x\"\nsecret = \"{SECRET}\"\n\n\
             [[endpoint]]\nname = \"ops\"\nurl = \"https://o.example\"\nsubjects = [\"agentforge.events.>\", \"todos.events\"]\n\
             format = \"slack\"\ntimeout = \"2s\"\nretry_4xx = [404, 401]\nrate = 5.0\nconcurrency = 2\nstart = \"all\"\nheaders = {{ X-Team = \"blue\" }}\n"
        );
        let endpoints = parse(&text, &defaults()).unwrap();
        let [billing, ops] = &endpoints[..] else { panic!("{endpoints:?}") };
        assert_eq!((&*billing.name, billing.concurrency, billing.format), ("billing", 64, Format::Json));
        assert_eq!(billing.subjects, ["todos.events"]);
        assert!(!billing.signer.is_empty() && ops.signer.is_empty());
        assert_eq!((ops.timeout, ops.rate, ops.start), (Duration::from_secs(2), Some(5.0), Start::All));
        assert_eq!(ops.headers[0].0, "x-team");
        assert_eq!((billing.retry_4xx.to_string(), ops.retry_4xx.to_string()), ("off".into(), "401,404".into()));
        assert_eq!(endpoints, parse(&text, &defaults()).unwrap(), "the same text is the same endpoints");
        assert_ne!(endpoints, parse(&text.replace("blue", "red"), &defaults()).unwrap());
        assert!(!format!("{endpoints:?}").contains("example"));
        assert_eq!(parse("", &defaults()).unwrap().len(), 0);
    }

    #[test]
    fn faults_name_endpoint_and_key_and_no_secret() {
        let cases = [
            ("name = \"a b\"\nurl = \"https://h/hunter2\"", "endpoint 1: name"),
            ("name = \"a\"\nurl = \"ftp://h/hunter2\"", "endpoint a: url"),
            ("name = \"a\"\nurl = \"hunter2\"", "url is not an http"),
            ("name = \"a\"\nurl = \"https://h/\"\nsecret = \"hunter2\"", "secret 1 is neither"),
            ("name = \"a\"\nurl = \"https://h/\"\nsecrets = [\"env:NO_SUCH_VARIABLE\"]", "not set"),
            ("name = \"a\"\nurl = \"https://h/\"\nsecret = \"file:/hunter2\"", "secret 1 names a file that cannot"),
            ("name = \"a\"\nurl = \"file:/hunter2\"", "endpoint a: url names a file that cannot"),
            ("name = \"a\"\nurl = \"env:hunter2\"", "endpoint a: url names a variable"),
            (
                "name = \"a\"\nurl = \"https://h/\"\nheaders = { X-Key = \"file:/hunter2\" }",
                "header x-key names a file",
            ),
            ("name = \"a\"\nurl = \"https://h/\"\nsubjects = [\"a.>\", \"a.b\"]", "overlap"),
            ("name = \"a\"\nurl = \"https://h/\"\nsubjects = []", "subjects are not"),
            ("name = \"a\"\nurl = \"https://h/\"\nsubjects = [\"$SYS.>\"]", "not a NATS subject"),
            ("name = \"a\"\nurl = \"https://h/\"\ntimeout = \"1h\"", "timeout"),
            ("name = \"a\"\nurl = \"https://h/\"\nrate = 0.0", "rate"),
            ("name = \"a\"\nurl = \"https://h/\"\nconcurrency = 0", "concurrency"),
            ("name = \"a\"\nurl = \"https://h/\"\nretry_4xx = [404, 410]", "retry_4xx is neither"),
            ("name = \"a\"\nurl = \"https://h/\"\nheaders = { Host = \"hunter2\" }", "header host is set"),
            ("name = \"a\"\nurl = \"https://h/\"\nheaders = { webhook-id = \"hunter2\" }", "webhook-id is set"),
            ("name = \"a\"\nurl = \"https://h/\"\nheaders = { a = \"hunter2\\n\" }", "no header can have"),
            ("name = \"a\"\nurl = \"https://h/\"\nformat = \"hunter2\"", "not one of those"),
            ("name = \"a\"\nurl = \"https://h/\"\nsecert = \"hunter2\"", "unknown field `secert`"),
            ("name = \"a\"", "missing field `url`"),
            ("name = \"a\"\nurl = \"https://hunter2", "not TOML"),
            ("name = 7\nurl = \"https://hunter2\"", "wrong type"),
        ];
        for (body, expected) in cases {
            let error = parse(&format!("[[endpoint]]\n{body}\n"), &defaults()).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{body}: {error}");
        }
        let twice = "[[endpoint]]\nname = \"a\"\nurl = \"https://h/\"\n".repeat(2);
        assert!(parse(&twice, &defaults()).unwrap_err().to_string().contains("taken"));
    }

    #[test]
    fn overlapping_subjects_are_known() {
        for (a, b, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("a.b", "a.c", false),
            ("*.b", "a.*", true),
            ("a.*", "a.b.c", false),
        ] {
            assert_eq!(overlap(a, b), expected, "{a} {b}");
            assert_eq!(overlap(b, a), expected, "{b} {a}");
        }
    }
}
