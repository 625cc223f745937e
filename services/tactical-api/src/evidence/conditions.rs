//! What a request makes its answer depend on (RFC 9110, 13): whether it has the file already, whether the
//! file is still the one it began to read, and which part of it is asked for. Pure.

use super::span::{self, RequestedRange};
use axum::http::{HeaderMap, HeaderName, Method, header};

/// What to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The file, or a part of it.
    Send(RequestedRange),
    /// The caller has it: 304.
    NotModified,
    /// The file is not the one that was meant: 412.
    Failed,
}

/// Decides for a file with this entity tag, which is a strong one, in the order of the RFC.
pub fn decide(method: &Method, headers: &HeaderMap, etag: &str, size: u64) -> Verdict {
    // Evidence has no times, so conditions on them have no effect.
    if listed(headers, header::IF_MATCH).is_some_and(|tags| !tags.iter().any(|tag| *tag == "*" || *tag == etag)) {
        return Verdict::Failed;
    }
    let is_had = |tag: &&str| *tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag;
    if listed(headers, header::IF_NONE_MATCH).is_some_and(|tags| tags.iter().any(is_had)) {
        return Verdict::NotModified;
    }
    // A range is only for GET, and, with If-Range, for exactly this file.
    let is_other = headers.get(header::IF_RANGE).is_some_and(|given| given.as_bytes() != etag.as_bytes());
    let mut ranges = headers.get_all(header::RANGE).iter();
    let range = ranges.next().filter(|_| ranges.next().is_none() && method == Method::GET && !is_other);
    Verdict::Send(span::asked(range.and_then(|range| range.to_str().ok()), size))
}

/// The entity tags of all headers of a name; `None` when there is none. A value that is not a tag matches nothing.
fn listed(headers: &HeaderMap, name: HeaderName) -> Option<Vec<&str>> {
    let values: Vec<&str> = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    // Ours have no commas, so a tag that has one is not ours in either half.
    let tags = values.iter().flat_map(|value| value.split(',')).map(str::trim);
    (!values.is_empty()).then(|| tags.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::span::Span;

    #[test]
    fn conditions_are_those_of_the_rfc() {
        let part = Verdict::Send(RequestedRange::Part(Span { start: 2, len: 3 }));
        let whole = Verdict::Send(RequestedRange::Whole);
        let range = ("range", "bytes=2-4");
        for (method, given, verdict) in [
            ("GET", &[][..], whole),
            ("GET", &[range], part),
            ("HEAD", &[range], whole),
            ("GET", &[range, range], whole),
            ("GET", &[("range", "bytes=10-")], Verdict::Send(RequestedRange::Nothing)),
            ("HEAD", &[("range", "bytes=10-")], whole),
            ("GET", &[("if-none-match", "\"a\"")], Verdict::NotModified),
            ("HEAD", &[("if-none-match", "\"a\"")], Verdict::NotModified),
            ("GET", &[("if-none-match", "W/\"a\"")], Verdict::NotModified),
            ("GET", &[("if-none-match", "\"x\", \"a\"")], Verdict::NotModified),
            ("GET", &[("if-none-match", "\"x\""), ("if-none-match", "\"a\"")], Verdict::NotModified),
            ("GET", &[("if-none-match", "*")], Verdict::NotModified),
            ("GET", &[("if-none-match", "\"x\"")], whole),
            ("GET", &[("if-none-match", "a")], whole),
            ("GET", &[("if-none-match", "\"a\""), range], Verdict::NotModified),
            ("GET", &[("if-none-match", "\"x\""), range], part),
            ("GET", &[("if-match", "\"a\"")], whole),
            ("GET", &[("if-match", "\"x\", \"a\""), range], part),
            ("GET", &[("if-match", "*")], whole),
            ("GET", &[("if-match", "\"x\"")], Verdict::Failed),
            ("HEAD", &[("if-match", "\"x\"")], Verdict::Failed),
            ("GET", &[("if-match", "W/\"a\"")], Verdict::Failed),
            ("GET", &[("if-match", "\"x\""), ("if-none-match", "\"a\"")], Verdict::Failed),
            ("GET", &[("if-match", "\"a\""), ("if-none-match", "\"a\"")], Verdict::NotModified),
            ("GET", &[("if-range", "\"a\""), range], part),
            ("GET", &[("if-range", "\"x\""), range], whole),
            ("GET", &[("if-range", "W/\"a\""), range], whole),
            ("GET", &[("if-range", "Sun, 29 Nov 2026 00:00:00 GMT"), range], whole),
            ("GET", &[("if-modified-since", "Sun, 29 Nov 2099 00:00:00 GMT")], whole),
            ("GET", &[("if-unmodified-since", "Sun, 29 Nov 1999 00:00:00 GMT")], whole),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
            }
            let method = method.parse().unwrap();
            assert_eq!(decide(&method, &headers, "\"a\"", 10), verdict, "{method} {given:?}");
        }
    }
}
