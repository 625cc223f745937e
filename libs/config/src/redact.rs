//! Keeps credentials out of shown values.
//!
//! Secret settings are hidden whole; other values may still carry a password inside a URL
//! (`nats://user:pass@host`), so every shown value passes through here.

/// What is shown instead of a secret.
pub const HIDDEN: &str = "[hidden]";

/// Longest value shown, in characters; the rest is cut off.
const SHOWN_MAX: usize = 200;

/// Parts of a query parameter's name that say its value is a credential.
const CREDENTIAL_NAMES: [&str; 5] = ["password", "passwd", "secret", "token", "key"];

/// The value with user info and credential-like query parameters of every URL in it replaced.
pub fn without_credentials(value: &str) -> String {
    value.split(',').map(one_without_credentials).collect::<Vec<_>>().join(",")
}

/// One line of at most 200 characters, credentials replaced and control characters escaped.
pub(crate) fn shown(value: &str) -> String {
    let clean = without_credentials(value);
    let mut out = String::with_capacity(clean.len());
    for (count, c) in clean.chars().enumerate() {
        if count == SHOWN_MAX {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

fn one_without_credentials(part: &str) -> String {
    let Some((scheme, rest)) = part.split_once("://") else {
        return part.to_owned();
    };
    // A raw `/`, `?` or `#` in a password ends the authority too early for a strict reader; the
    // last `@` of the whole rest is therefore taken as the end of the user info.
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let at = match rest[..end].rfind('@') {
        Some(at) => Some(at),
        None => rest.rfind('@').filter(|at| rest[..*at].contains(':') && !is_plain_path(&rest[..*at])),
    };
    let rest = match at {
        Some(at) => format!("{HIDDEN}{}", &rest[at..]),
        None => rest.to_owned(),
    };
    format!("{scheme}://{}", hide_query(&rest))
}

/// `host:port/path` before an `@` is a path that contains an `@`, not user info.
fn is_plain_path(before: &str) -> bool {
    let authority = before.split('/').next().unwrap_or(before);
    authority.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok())
}

fn hide_query(rest: &str) -> String {
    let Some((head, query)) = rest.split_once('?') else {
        return rest.to_owned();
    };
    let parameters = query.split('&').map(|parameter| match parameter.split_once('=') {
        Some((name, _)) if is_credential(name) => format!("{name}={HIDDEN}"),
        _ => parameter.to_owned(),
    });
    format!("{head}?{}", parameters.collect::<Vec<_>>().join("&"))
}

fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    CREDENTIAL_NAMES.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_credentials_and_nothing_else() {
        let cases = [
            ("plain", "plain"),
            ("nats://localhost:4222", "nats://localhost:4222"),
            ("nats://u:p@a:4222,nats://t@b:4222", "nats://[hidden]@a:4222,nats://[hidden]@b:4222"),
            ("postgres://u:p%40@h/db?sslmode=require", "postgres://[hidden]@h/db?sslmode=require"),
            ("postgres://h/db?user=u&password=hunter2", "postgres://h/db?user=u&password=[hidden]"),
            ("postgres://u:pa/ss@h/db", "postgres://[hidden]@h/db"),
            ("https://h:443/a@b", "https://h:443/a@b"),
            ("someone@example.org", "someone@example.org"),
        ];
        for (given, expected) in cases {
            assert_eq!(without_credentials(given), expected, "{given}");
        }
    }

    #[test]
    fn shown_values_are_one_bounded_line() {
        assert_eq!(shown("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), SHOWN_MAX + 1);
    }
}
