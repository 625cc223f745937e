//! The name of a client's certificate, as a proxy reports it in a header; and whose request a certificate may speak for. Pure.

use crate::tokens::{TokenDigest, digest};
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Longest name of a certificate, bytes.
pub const CERTIFICATE_NAME_BYTES_MAX: usize = 256;
/// Headers in which proxies say whether a client's certificate was verified.
pub const VERIFY_HEADERS: [&str; 3] = ["ssl-client-verify", "x-ssl-client-verify", "x-client-verify"];
/// What they say when it was.
pub const VERIFIED: &[u8] = b"SUCCESS";
/// Which site's page makes a browser ask; no page can change it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Headers of a proxy that do not agree about a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement;

/// Whether a text may be the name of a certificate: visible ASCII, at most 256 characters.
pub fn is_certificate_name(name: &str) -> bool {
    (1..=CERTIFICATE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
}

/// By what a name is found among tokens. No token of a header has a byte 0.
pub(crate) fn certificate_digest(name: &str) -> TokenDigest {
    digest(format!("certificate\0{name}"))
}

/// The name that a proxy reports in the header `named`; `None` if it reports no certificate.
///
/// # Errors
/// [`Disagreement`]: two values differ, one cannot be read, or a header says that the certificate was not verified.
pub fn reported(headers: &HeaderMap, named: &HeaderName) -> Result<Option<String>, Disagreement> {
    let mut names = headers.get_all(named).iter().map(name_of);
    let Some(first) = names.next() else { return Ok(None) };
    let first = first?;
    for other in names {
        if other? != first {
            return Err(Disagreement);
        }
    }
    let mut said = VERIFY_HEADERS.iter().flat_map(|name| headers.get_all(*name).iter());
    if first.is_some() && said.any(|value| value.as_bytes() != VERIFIED) {
        return Err(Disagreement);
    }
    Ok(first)
}

/// The name of one value: itself, or the common name of a distinguished name (RFC 4514).
fn name_of(value: &HeaderValue) -> Result<Option<String>, Disagreement> {
    let text = value.to_str().map_err(|_| Disagreement)?.trim();
    let name = match text {
        "" | "-" => return Ok(None),
        text if text.contains('=') => common_name(text).ok_or(Disagreement)?,
        text => text.to_owned(),
    };
    if is_certificate_name(&name) { Ok(Some(name)) } else { Err(Disagreement) }
}

/// The one CN of a distinguished name. Quoted values and OpenSSL's form with slashes can be read in two ways, and are not.
fn common_name(text: &str) -> Option<String> {
    if text.contains('"') || text.starts_with('/') {
        return None;
    }
    let mut found = None;
    for attribute in split(text) {
        let (kind, value) = attribute.split_once('=')?;
        if kind.trim().eq_ignore_ascii_case("CN") {
            let value = unescape(value.trim())?;
            found.replace(value).is_none().then_some(())?;
        }
    }
    found
}

/// The attributes of a distinguished name, split where a comma or a plus is not escaped.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut is_escaped) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b',' | b'+' | b';' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// A value without its escapes; those of bytes are for what no name here has.
fn unescape(value: &str) -> Option<String> {
    let (mut plain, mut chars) = (String::with_capacity(value.len()), value.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push(chars.next().filter(|c| !c.is_ascii_hexdigit())?),
            c => plain.push(c),
        }
    }
    Some(plain)
}

/// Whether a page of another origin may have made a browser send this: it shows its certificate to every page, so the
/// certificate says nothing about who wants it.
pub fn is_of_foreign_page(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(FETCH_SITE) {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    page.is_none_or(|(_, page)| Some(page) != own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn a_proxy_reports_one_name_and_its_headers_agree() {
        const NAMED: &str = "x-client-name";
        const REFUSED: Result<Option<&str>, Disagreement> = Err(Disagreement);
        let verified = ("ssl-client-verify", "SUCCESS");
        for (given, wanted) in [
            (&[][..], Ok(None)),
            (&[(NAMED, "ci.fleet.example")], Ok(Some("ci.fleet.example"))),
            (&[(NAMED, "spiffe://fleet.example/ci")], Ok(Some("spiffe://fleet.example/ci"))),
            (&[(NAMED, " CN=ci,OU=Builds,O=Fleet ")], Ok(Some("ci"))),
            (&[(NAMED, "O=Fleet\\, Ltd+OU=a,cn=ci")], Ok(Some("ci"))),
            (&[(NAMED, "CN=a\\,b")], Ok(Some("a,b"))),
            (&[(NAMED, "")], Ok(None)),
            (&[(NAMED, "a"), (NAMED, "a")], Ok(Some("a"))),
            (&[(NAMED, "a"), verified], Ok(Some("a"))),
            (&[verified], Ok(None)),
            (&[("x-other-name", "a")], Ok(None)),
            // What can be read in two ways is not read.
            (&[(NAMED, "a"), (NAMED, "b")], REFUSED),
            (&[(NAMED, "a"), (NAMED, "")], REFUSED),
            (&[(NAMED, "a"), ("ssl-client-verify", "NONE")], REFUSED),
            (&[(NAMED, "a"), verified, ("x-client-verify", "FAILED")], REFUSED),
            (&[(NAMED, "CN=a,CN=b")], REFUSED),
            (&[(NAMED, "O=a\\,CN=b")], REFUSED),
            (&[(NAMED, "O=Fleet")], REFUSED),
            (&[(NAMED, "/O=x/CN=ci")], REFUSED),
            (&[(NAMED, "CN=\"a\"")], REFUSED),
            (&[(NAMED, "CN=a\\2cb")], REFUSED),
            (&[(NAMED, "two words")], REFUSED),
        ] {
            let found = reported(&headers(given), &HeaderName::from_static(NAMED));
            assert_eq!(found.as_ref().map(Option::as_deref), wanted.as_ref().copied(), "{given:?}");
        }
    }

    #[test]
    fn a_page_of_another_origin_does_not_get_its_visitors_certificate() {
        let host = ("host", "us.example");
        for (given, is_foreign) in [
            (&[host][..], false),
            (&[host, ("origin", "https://us.example")], false),
            (&[host, ("origin", "https://evil.example")], true),
            (&[host, ("origin", "null")], true),
            (&[("origin", "https://us.example")], true),
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://us.example")], false),
            (&[host, ("sec-fetch-site", "none")], false),
            (&[host, ("sec-fetch-site", "cross-site")], true),
            (&[host, ("sec-fetch-site", "same-site"), ("origin", "https://us.example")], true),
        ] {
            assert_eq!(is_of_foreign_page(&headers(given)), is_foreign, "{given:?}");
        }
    }
}
