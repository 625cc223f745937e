//! `agentforge verify --headers`: whether pages have the headers that keep a browser from harm, direct or behind a proxy.

use agentforge_client::rest::{self, Answer};
use std::time::Duration;

/// For one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// A year and more is what lists of HSTS ask for; half of one is what protects.
const HSTS_SECONDS_MIN: u64 = 15_552_000;

/// What is wrong with the headers of an address; its status and how many were looked at when nothing is.
///
/// # Errors
/// All findings, in one line.
pub async fn check(url: &str) -> Result<String, String> {
    let (base, path) = split(url)?;
    let answer = rest::exchange(&base, "GET", &path, &[], "", ANSWER_MAX).await?;
    let findings = judge(&answer, base.starts_with("https://"));
    if findings.is_empty() { Ok(format!("{} with all headers", answer.status)) } else { Err(findings.join("; ")) }
}

fn split(url: &str) -> Result<(String, String), String> {
    let (scheme, rest) = url.split_once("://").ok_or("is not an http or https URL")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Ok((format!("{scheme}://{authority}"), if path.is_empty() { "/".to_owned() } else { path.to_owned() }))
}

fn judge(answer: &Answer, is_tls: bool) -> Vec<String> {
    let mut findings = Vec::new();
    let exact =
        [("x-frame-options", "DENY"), ("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")];
    for (name, wanted) in exact {
        match answer.header(name) {
            Some(value) if value.eq_ignore_ascii_case(wanted) => {}
            Some(value) => findings.push(format!("{name} is {value:?}, not {wanted}")),
            None => findings.push(format!("{name} is missing")),
        }
    }
    let policy = answer.header("content-security-policy").unwrap_or_default();
    for part in ["default-src 'self'", "object-src 'none'", "frame-ancestors 'none'"] {
        if !policy.contains(part) {
            findings.push(format!("content-security-policy has no {part}"));
        }
    }
    for part in ["unsafe-inline", "unsafe-eval", " *", "http:"] {
        if policy.contains(part) {
            findings.push(format!("content-security-policy has {}", part.trim()));
        }
    }
    for name in ["permissions-policy", "cache-control"] {
        if answer.header(name).is_none() {
            findings.push(format!("{name} is missing"));
        }
    }
    for name in exact.map(|(name, _)| name).into_iter().chain(["content-security-policy"]) {
        if answer.headers.iter().filter(|(own, _)| own == name).count() > 1 {
            findings.push(format!("{name} is there more than once: a proxy adds it too"));
        }
    }
    // A proxy may name itself; a version helps only those who look for one.
    if answer.header("server").is_some_and(|server| server.contains(|c: char| c.is_ascii_digit())) {
        findings.push("server has a version".to_owned());
    }
    let age = answer.header("strict-transport-security").and_then(|value| {
        let part = value.split(';').find_map(|part| part.trim().strip_prefix("max-age="))?;
        part.parse::<u64>().ok()
    });
    if is_tls && age.is_none_or(|age| age < HSTS_SECONDS_MIN) {
        findings.push("strict-transport-security is missing, or shorter than 180 days (CONSOLE_PUBLIC_URL)".to_owned());
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(change: impl FnOnce(&mut Vec<(String, String)>)) -> Answer {
        let mut headers: Vec<(String, String)> = [
            ("content-security-policy", "default-src 'self'; object-src 'none'; frame-ancestors 'none'"),
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("permissions-policy", "camera=()"),
            ("cache-control", "no-store"),
        ]
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .into();
        change(&mut headers);
        Answer { status: 200, headers, body: String::new() }
    }

    #[test]
    fn each_missing_or_weak_header_is_a_finding() {
        assert_eq!(judge(&answer(|_| {}), false), Vec::<String>::new());
        let tls = judge(&answer(|_| {}), true);
        assert!(tls.len() == 1 && tls[0].contains("strict-transport-security"), "{tls:?}");
        for n in 0..6 {
            let findings = judge(&answer(|headers| drop(headers.remove(n))), false);
            assert!(!findings.is_empty(), "header {n}");
        }
        let weak = judge(&answer(|headers| headers[0].1 += "; script-src 'unsafe-inline'"), false);
        assert!(weak.iter().any(|finding| finding.contains("unsafe-inline")), "{weak:?}");
        let twice = judge(&answer(|headers| headers.push(("x-frame-options".into(), "DENY".into()))), false);
        assert!(twice.iter().any(|finding| finding.contains("more than once")), "{twice:?}");
        let server = judge(&answer(|headers| headers.push(("server".into(), "nginx/1.22.1".into()))), false);
        assert!(server.iter().any(|finding| finding.contains("version")), "{server:?}");
        assert!(judge(&answer(|headers| headers.push(("server".into(), "nginx".into()))), false).is_empty());
    }

    #[test]
    fn an_address_is_split_where_its_path_begins() {
        assert_eq!(split("https://a.example/b?c"), Ok(("https://a.example".into(), "/b?c".into())));
        assert_eq!(split("http://a:1"), Ok(("http://a:1".into(), "/".into())));
        assert!(split("a.example").is_err());
    }
}
