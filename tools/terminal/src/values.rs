//! Values of the command line as real types, so that a typo is a usage error before anything is sent.

use agentforge_config::parse_duration;
use http::Uri;
use jiff::Timestamp;
use std::time::Duration;

/// A bearer token that no `Debug` shows.
#[derive(Clone)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[hidden]")
    }
}

/// A duration such as `30s`, `5m`, `200ms`, `1h30m`; a bare number is seconds.
///
/// # Errors
/// What is wrong with it.
pub fn duration(s: &str) -> Result<Duration, String> {
    parse_duration(s).map_err(|e| format!("{e}; write it like 30s, 5m, 1h30m"))
}

/// A moment in the past: `2h` is so long ago, else RFC 3339.
///
/// # Errors
/// What is wrong with it.
pub fn since(s: &str) -> Result<Timestamp, String> {
    match duration(s) {
        Ok(ago) => Timestamp::now().checked_sub(ago).map_err(|_| "is too long ago".to_owned()),
        Err(_) => s.parse().map_err(|_| "is not a time such as 2h (ago) or 2030-01-31T08:00:00Z".to_owned()),
    }
}

/// A moment to come. What counts from now is sent as it was given, so that a submission under a key is the same
/// when it is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At this moment.
    At(Timestamp),
    /// So long from now.
    In(Duration),
}

/// A moment to come: RFC 3339, or `+10m` for that long from now.
///
/// # Errors
/// What is wrong with it.
pub fn when(s: &str) -> Result<When, String> {
    const FORM: &str = "write it like 2030-01-31T08:00:00Z, or +10m for ten minutes from now";
    match s.strip_prefix('+') {
        Some(later) => {
            let by = parse_duration(later).map_err(|e| format!("{e}; {FORM}"))?;
            Timestamp::now().checked_add(by).map_err(|_| format!("is too far away; {FORM}"))?;
            Ok(When::In(by))
        }
        None => s.parse().map(When::At).map_err(|_| format!("is not a moment; {FORM}")),
    }
}

/// `key=value`; the key is not empty.
///
/// # Errors
/// What is wrong with it.
pub fn label(s: &str) -> Result<(String, String), String> {
    match s.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("is not a label; write it like team=blue".to_owned()),
    }
}

/// As [`label`], but kept as it was written.
///
/// # Errors
/// What is wrong with it.
pub fn label_text(s: &str) -> Result<String, String> {
    label(s).map(|_| s.to_owned())
}

/// The address of an orchestrator's gRPC; a scheme may be left out.
///
/// # Errors
/// It is not a URL.
pub fn server(s: &str) -> Result<String, String> {
    let url = if s.contains("://") { s.to_owned() } else { format!("http://{s}") };
    let parsed: Uri = url.parse().map_err(|_| "is not a URL like http://127.0.0.1:50051".to_owned())?;
    match (parsed.scheme_str(), parsed.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(url),
        _ => Err("is not a URL like http://127.0.0.1:50051".to_owned()),
    }
}

/// A bearer token or another secret of printable characters.
///
/// # Errors
/// What is wrong with it.
pub fn token(s: &str) -> Result<Token, String> {
    let printable = s.bytes().all(|b| b.is_ascii_graphic());
    if printable && !s.is_empty() {
        Ok(Token(s.to_owned()))
    } else {
        Err("is empty or has characters no token has".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_absolute_or_from_now() {
        let minute = Duration::from_secs(60);
        let at = |text: &str| When::At(text.parse().unwrap());
        for (text, wanted) in [
            ("+10m", When::In(10 * minute)),
            ("+1h30m", When::In(90 * minute)),
            ("2026-03-01T08:00:00+01:00", at("2026-03-01T07:00:00Z")),
        ] {
            assert_eq!(when(text).unwrap(), wanted);
        }
        for bad in ["", "+", "10m", "tomorrow", "+10 parsecs", "+36500d"] {
            assert_eq!(when(bad).is_err(), bad != "+36500d", "{bad}");
        }
        let hour_ago = since("1h").unwrap();
        assert!((3_590..=3_610).contains(&(Timestamp::now().as_second() - hour_ago.as_second())));
        assert_eq!(since("2026-03-01T07:00:00Z").unwrap(), "2026-03-01T07:00:00Z".parse().unwrap());
        assert!(since("yesterday").is_err() && since("").is_err());
    }

    #[test]
    fn a_server_may_be_written_without_scheme() {
        assert_eq!(server("localhost:50051").unwrap(), "http://localhost:50051");
        assert_eq!(server("https://forge.example").unwrap(), "https://forge.example");
        for bad in ["", "ftp://x", "http://", "a b"] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        assert!(!format!("{:?}", token("sesame").unwrap()).contains("sesame"));
    }
}
