//! Times and durations as nats-server writes them.
//!
//! Durations are Go's (`1h2m3.5s`, `243µs`), and for uptimes the server's own, with years and days in
//! front. Pure text in, number out; what does not parse is `None`, never zero.

use jiff::Timestamp;

/// Seconds of `1y2d3h4m5s`, `1.5ms`, `243µs`, `0s`. A year has 365 days, as it has in the server.
pub fn seconds(text: &str) -> Option<f64> {
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| end + at);
        total += number
            * match &rest[end..unit_end] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                "y" => 365.0 * 86_400.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    Some(if is_negative { -total } else { total })
}

/// The moment of an RFC 3339 text; the year 1 stands for "never".
pub fn moment(text: &str) -> Option<Timestamp> {
    let moment: Timestamp = text.parse().ok()?;
    (moment > Timestamp::UNIX_EPOCH).then_some(moment)
}

/// Milliseconds since 1970, whole.
pub fn unix_millis(text: &str) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit into 2^53")]
    moment(text).map(|moment| moment.as_millisecond() as f64)
}

/// Seconds since 1970.
pub fn unix_seconds(moment: Timestamp) -> f64 {
    moment.as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_the_server() {
        let close = |text: &str, wanted: f64| {
            let got = seconds(text).unwrap_or_else(|| panic!("{text} is not read"));
            assert!((got - wanted).abs() < wanted.abs() * 1e-12 + 1e-15, "{text}: {got}");
        };
        for (text, wanted) in [
            ("0s", 0.0),
            ("7s", 7.0),
            ("1d2h3m4s", 93_784.0),
            ("1y2d0h0m1s", 31_708_801.0),
            ("243µs", 243e-6),
            ("1.5ms", 1.5e-3),
            ("1m0.25s", 60.25),
            ("92ns", 92e-9),
            ("-5s", -5.0),
        ] {
            close(text, wanted);
        }
        for bad in ["", "-", "5", "s", "5x", "1..2s", "5 s", "ten"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn never_is_no_moment() {
        assert_eq!(moment("0001-01-01T00:00:00Z"), None);
        assert_eq!(moment("yesterday"), None);
        assert_eq!(unix_millis("2026-11-21T12:27:00.897788992Z").map(|ms| ms % 1000.0), Some(897.0));
        assert_eq!(unix_millis("2026-11-21T13:27:00.5+01:00"), unix_millis("2026-11-21T12:27:00.5Z"));
    }
}
