//! What browsers keep: an access token for pages, a refresh token for `/auth`. Both are sealed, neither is readable by a
//! script or sent with another site's request.

use super::keys::Keys;
use axum::http::{HeaderMap, HeaderValue, header};
use std::time::Duration;

const ACCESS: &str = "af_access";
const REFRESH: &str = "af_refresh";
/// Longest value that is looked at, bytes.
const VALUE_BYTES_MAX: usize = 256;

/// A text that a browser gave back, with a number: the end of an access token, the generation of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The session.
    pub id: String,
    /// The number.
    pub number: i64,
}

/// The access token of a request, whether it is past its end or not.
pub fn access(keys: &Keys, headers: &HeaderMap) -> Option<Sealed> {
    open(keys, ACCESS, headers)
}

/// The refresh token of a request.
pub fn refresh(keys: &Keys, headers: &HeaderMap) -> Option<Sealed> {
    open(keys, REFRESH, headers)
}

/// The value against forged requests of a session.
pub fn csrf(keys: &Keys, id: &str) -> String {
    keys.seal("csrf", id)
}

/// Both cookies of a session.
pub fn both(
    keys: &Keys,
    id: &str,
    access_ends: i64,
    generation: i64,
    ttls: (Duration, Duration),
    is_secure: bool,
) -> [HeaderValue; 2] {
    let secure = if is_secure { "; Secure" } else { "" };
    let cookie = |name: &str, number: i64, path: &str, age: Duration| {
        let text = format!("{id}.{number}");
        let value = format!("{text}.{}", keys.seal(name, &text));
        let cookie =
            format!("{name}={value}; Path={path}; Max-Age={}; HttpOnly; SameSite=Strict{secure}", age.as_secs());
        HeaderValue::from_str(&cookie).expect("ids and seals are ASCII")
    };
    [cookie(ACCESS, access_ends, "/", ttls.0), cookie(REFRESH, generation, "/auth", ttls.1)]
}

/// What makes a browser forget both.
pub fn none(is_secure: bool) -> [HeaderValue; 2] {
    let secure = if is_secure { "; Secure" } else { "" };
    [(ACCESS, "/"), (REFRESH, "/auth")].map(|(name, path)| {
        let cookie = format!("{name}=; Path={path}; Max-Age=0; HttpOnly; SameSite=Strict{secure}");
        HeaderValue::from_str(&cookie).expect("names are ASCII")
    })
}

fn open(keys: &Keys, name: &str, headers: &HeaderMap) -> Option<Sealed> {
    let value = one(headers, name).filter(|value| value.len() <= VALUE_BYTES_MAX)?;
    let (text, seal) = value.rsplit_once('.')?;
    if !keys.is_sealed(name, text, seal) {
        return None;
    }
    let (id, number) = text.split_once('.')?;
    Some(Sealed { id: id.to_owned(), number: number.parse().ok()? })
}

/// The only cookie of this name. Of two, one was put there by someone else, and which is ours is not known.
pub(super) fn one<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut found = Vec::new();
    for line in headers.get_all(header::COOKIE) {
        let pairs = line.to_str().ok()?.split(';').filter_map(|pair| pair.trim().split_once('='));
        found.extend(pairs.filter(|(own, _)| *own == name).map(|(_, value)| value));
    }
    if let [only] = found.as_slice() { Some(only) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(text).unwrap())])
    }

    #[test]
    fn a_cookie_is_good_for_what_it_was_made_for() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::dev(dir.path()).unwrap();
        let [access_cookie, refresh_cookie] =
            both(&keys, "s1", 99, 3, (Duration::from_secs(600), Duration::from_secs(7200)), true);
        let text = refresh_cookie.to_str().unwrap().to_owned();
        for part in ["HttpOnly", "Secure", "SameSite=Strict", "Path=/auth", "Max-Age=7200"] {
            assert!(text.contains(part), "{text}");
        }
        let pair = |cookie: &HeaderValue| cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        let (a, r) = (pair(&access_cookie), pair(&refresh_cookie));
        let headers = sent(&format!("other=1; {a}; {r}"));
        assert_eq!(access(&keys, &headers), Some(Sealed { id: "s1".into(), number: 99 }));
        assert_eq!(refresh(&keys, &headers), Some(Sealed { id: "s1".into(), number: 3 }));
        let as_access = format!("af_access={}", r.split_once('=').unwrap().1);
        for wrong in [
            as_access,
            a.replace("s1.99", "s1.98"),
            a.replace("s1.99", "s2.99"),
            format!("{a}; {a}"),
            "af_access=".into(),
            String::new(),
        ] {
            assert_eq!(access(&keys, &sent(&wrong)), None, "{wrong}");
        }
        assert!(none(false).iter().all(|cookie| cookie.to_str().unwrap().contains("Max-Age=0")));
    }
}
