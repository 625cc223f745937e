//! From text to real types: one parser per type, used for values and for defaults alike.
//!
//! Errors are half-sentences that follow "the value": `is not a whole number`. They name the rule,
//! never the value; the reader adds the value where it may be shown.

use crate::quantity::{ByteSize, parse_byte_size, parse_duration};
use crate::{SecretString, Url};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

/// A type that a setting can have.
pub trait Parse: Sized {
    /// Parses the trimmed, non-empty text. The error is a half-sentence such as `is not a port`.
    fn parse(s: &str) -> Result<Self, String>;

    /// Any valid value: returned with a fault so that reading can continue, and then never used.
    fn placeholder() -> Self;
}

/// The one parser of truth values: `1 true yes on` and `0 false no off`, in any case.
pub fn truth(s: &str) -> Result<bool, String> {
    match s.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("is not a truth value (1, true, yes, on or 0, false, no, off)".to_owned()),
    }
}

impl Parse for bool {
    fn parse(s: &str) -> Result<Self, String> {
        truth(s)
    }
    fn placeholder() -> Self {
        false
    }
}

impl Parse for String {
    fn parse(s: &str) -> Result<Self, String> {
        if s.chars().any(char::is_control) { Err("contains a control character".to_owned()) } else { Ok(s.to_owned()) }
    }
    fn placeholder() -> Self {
        Self::new()
    }
}

macro_rules! whole_number {
    ($($type:ty => $placeholder:expr),* $(,)?) => {$(
        impl Parse for $type {
            fn parse(s: &str) -> Result<Self, String> {
                s.parse().map_err(|_| whole_number_problem(s, stringify!($type)))
            }
            fn placeholder() -> Self {
                $placeholder
            }
        }
    )*};
}

whole_number! {
    u8 => 0, u16 => 0, u32 => 0, u64 => 0, usize => 0, i32 => 0, i64 => 0,
    NonZeroU16 => Self::MIN, NonZeroU32 => Self::MIN, NonZeroU64 => Self::MIN, NonZeroUsize => Self::MIN,
}

fn whole_number_problem(s: &str, kind: &str) -> String {
    let digits = s.strip_prefix(['-', '+']).unwrap_or(s);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return "is not a whole number".to_owned();
    }
    if kind.starts_with("NonZero") && digits.bytes().all(|b| b == b'0') {
        return "must not be 0".to_owned();
    }
    if s.starts_with('-') && !kind.starts_with('i') {
        return "must not be negative".to_owned();
    }
    "is too large a number".to_owned()
}

impl Parse for f64 {
    fn parse(s: &str) -> Result<Self, String> {
        match s.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err("is not a finite number".to_owned()),
        }
    }
    fn placeholder() -> Self {
        0.0
    }
}

impl Parse for Duration {
    fn parse(s: &str) -> Result<Self, String> {
        parse_duration(s)
    }
    fn placeholder() -> Self {
        Duration::ZERO
    }
}

impl Parse for ByteSize {
    fn parse(s: &str) -> Result<Self, String> {
        parse_byte_size(s)
    }
    fn placeholder() -> Self {
        ByteSize(0)
    }
}

impl Parse for Url {
    fn parse(s: &str) -> Result<Self, String> {
        Url::parse(s).map_err(|e| format!("is not a URL: {e}"))
    }
    fn placeholder() -> Self {
        Url::parse("http://placeholder.invalid/").expect("a constant that is a URL")
    }
}

impl Parse for IpAddr {
    fn parse(s: &str) -> Result<Self, String> {
        s.parse().map_err(|_| "is not an IP address".to_owned())
    }
    fn placeholder() -> Self {
        Ipv4Addr::LOCALHOST.into()
    }
}

impl Parse for SocketAddr {
    fn parse(s: &str) -> Result<Self, String> {
        s.parse().map_err(|_| "is not an IP address with a port".to_owned())
    }
    fn placeholder() -> Self {
        (Ipv4Addr::LOCALHOST, 0).into()
    }
}

impl Parse for PathBuf {
    fn parse(s: &str) -> Result<Self, String> {
        if s.contains('\0') { Err("is not a path".to_owned()) } else { Ok(PathBuf::from(s)) }
    }
    fn placeholder() -> Self {
        PathBuf::from(".")
    }
}

impl Parse for SecretString {
    fn parse(s: &str) -> Result<Self, String> {
        Ok(SecretString::from(s))
    }
    fn placeholder() -> Self {
        SecretString::from("")
    }
}

/// A comma-separated list; blanks around items and empty items are dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommaList(pub Vec<String>);

impl CommaList {
    /// The items in the order written.
    pub fn into_inner(self) -> Vec<String> {
        self.0
    }
}

impl std::ops::Deref for CommaList {
    type Target = [String];
    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl Parse for CommaList {
    fn parse(s: &str) -> Result<Self, String> {
        let items = s.split(',').map(str::trim).filter(|item| !item.is_empty());
        Ok(Self(items.map(str::to_owned).collect()))
    }
    fn placeholder() -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_values_have_eight_words_in_any_case() {
        for yes in ["1", "true", "yes", "on", "TRUE", "Yes", "oN", " on "] {
            assert_eq!(truth(yes), Ok(true), "{yes}");
        }
        for no in ["0", "false", "no", "off", "FALSE", "No", "oFF"] {
            assert_eq!(truth(no), Ok(false), "{no}");
        }
        for neither in ["", "2", "y", "t", "enabled", "tru", "01", "yes please"] {
            assert!(truth(neither).is_err(), "{neither}");
        }
    }

    #[test]
    fn numbers_say_what_is_wrong() {
        let cases = [
            (u16::parse("65535"), Ok(65535)),
            (u16::parse("65536"), Err("is too large a number")),
            (u16::parse("-1"), Err("must not be negative")),
            (u16::parse("80a"), Err("is not a whole number")),
            (u16::parse("8.5"), Err("is not a whole number")),
            (NonZeroU16::parse("0").map(Into::into), Err("must not be 0")),
            (NonZeroU16::parse("7").map(Into::into), Ok(7)),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected.map_err(str::to_owned));
        }
        assert!(f64::parse("NaN").is_err() && f64::parse("inf").is_err());
        assert_eq!(f64::parse("0.25"), Ok(0.25));
    }

    #[test]
    fn lists_drop_blanks() {
        assert_eq!(CommaList::parse(" a, b,,c ,").unwrap().0, ["a", "b", "c"]);
        assert!(CommaList::parse(",").unwrap().is_empty());
    }

    #[test]
    fn addresses_paths_and_urls() {
        assert!(IpAddr::parse("::1").is_ok());
        assert!(IpAddr::parse("localhost").is_err());
        assert_eq!(PathBuf::parse("/var/lib").unwrap(), PathBuf::from("/var/lib"));
        assert!(Url::parse("localhost").is_err());
        assert!(<Url as Parse>::parse("http://[::1").unwrap_err().starts_with("is not a URL"));
    }

    #[test]
    fn a_secret_does_not_show_in_debug() {
        let secret = SecretString::parse("hunter2").unwrap();
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
