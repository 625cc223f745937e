//! The token of a request.

use http::HeaderValue;

const SCHEME: &[u8] = b"bearer ";

/// The token of an `Authorization: Bearer` header (RFC 6750); the scheme's case does not matter, and neither do blanks
/// around the token. `None` without the header, for another scheme, and without a token.
pub fn bearer(authorization: Option<&HeaderValue>) -> Option<&[u8]> {
    let (scheme, token) = authorization?.as_bytes().split_at_checked(SCHEME.len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(SCHEME) && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_what_follows_the_scheme() {
        for (header, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("BEARER  abc ", Some("abc")),
            ("Bearer a b", Some("a b")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearerabc", None),
            ("Basic abc", None),
            ("abc", None),
            ("", None),
        ] {
            let value = HeaderValue::from_str(header).unwrap();
            assert_eq!(bearer(Some(&value)), token.map(str::as_bytes), "{header:?}");
        }
        assert_eq!(bearer(None), None);
    }
}
