//! Durations and sizes as people write them: `30s`, `1h30m`, `512MiB`.
//!
//! Pure text in, value out. Errors name the limits.

use std::fmt;
use std::time::Duration;

/// A hundred years: far beyond any sense, and still safe to add to a clock.
const DURATION_MAX: Duration = Duration::from_secs(36_500 * 86_400);

/// An amount of bytes. Displayed in the largest binary unit that divides it evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The amount in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 5] =
            [("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        for (unit, factor) in UNITS {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// Parses `250` (seconds), `200ms`, `30s`, `5m`, `2h`, `1d`, `10y` (of 365 days), `1.5s` and sums such as `1h30m`.
/// Limit: 36500 days.
pub fn parse_duration(s: &str) -> Result<Duration, String> {
    let problem = || "is not a duration (such as 200ms, 30s, 5m, 2h, 1d, or seconds)".to_owned();
    let too_long = || "is longer than 36500d".to_owned();
    let mut rest = s.trim();
    if rest.is_empty() {
        return Err(problem());
    }
    let mut nanos: u128 = 0;
    let mut terms = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let unit_nanos: u128 = match unit {
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "" if terms == 0 && next.is_empty() => 1_000_000_000,
            "m" | "min" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "y" => 365 * 86_400_000_000_000,
            _ => return Err(problem()),
        };
        let term = scale(number, unit_nanos).ok_or_else(problem)?;
        nanos = nanos.checked_add(term).ok_or_else(too_long)?;
        terms += 1;
        rest = next;
    }
    if nanos > DURATION_MAX.as_nanos() {
        return Err(too_long());
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| too_long())?;
    let below = u32::try_from(nanos % 1_000_000_000).map_err(|_| too_long())?;
    Ok(Duration::new(seconds, below))
}

/// Parses `1048576`, `512MiB` or `512Mi` (binary) and `500MB` (decimal), units in any case.
/// A bare `k`, `m` or `g` is refused: it means either.
pub fn parse_byte_size(s: &str) -> Result<ByteSize, String> {
    let problem = || "is not a size (such as 1048576, 512MiB, 1GiB, 500MB)".to_owned();
    let s = s.trim();
    let number_end = s.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(s.len());
    let (number, unit) = s.split_at(number_end);
    let factor: u128 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" | "ki" => 1 << 10,
        "mib" | "mi" => 1 << 20,
        "gib" | "gi" => 1 << 30,
        "tib" | "ti" => 1 << 40,
        "pib" | "pi" => 1 << 50,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "pb" => 1_000_000_000_000_000,
        _ => return Err(problem()),
    };
    let bytes = scale(number, factor).ok_or_else(problem)?;
    u64::try_from(bytes).map(ByteSize).map_err(|_| "is too large a size".to_owned())
}

/// `number × factor` for a number such as `12` or `1.5`; `None` if it is not one, does not come
/// out whole, or is absurdly long.
fn scale(number: &str, factor: u128) -> Option<u128> {
    const DIGITS_MAX: usize = 20;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || whole.len() > DIGITS_MAX || fraction.len() > 9 {
        return None;
    }
    let tenths = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction = fraction.parse::<u128>().ok()? * factor;
    if !fraction.is_multiple_of(tenths) {
        return None;
    }
    whole.parse::<u128>().ok()?.checked_mul(factor)?.checked_add(fraction / tenths)
}

/// The duration as one would write it as a setting: `25s`, `1500ms`, `2h`.
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() > 0 {
        return match duration.subsec_nanos() % 1_000_000 {
            0 => format!("{}ms", duration.as_millis()),
            _ => format!("{}s", duration.as_secs_f64()),
        };
    }
    for (unit, factor) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
        if seconds >= factor && seconds.is_multiple_of(factor) {
            return format!("{}{unit}", seconds / factor);
        }
    }
    format!("{seconds}s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let good = [
            ("250", 250_000),
            ("0", 0),
            ("200ms", 200),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("1.5s", 1_500),
            ("1h30m", 5_400_000),
            (" 30s ", 30_000),
            ("36500d", 36_500 * 86_400_000),
            ("10y", 3_650 * 86_400_000),
        ];
        for (text, millis) in good {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        let bad = ["", "s", "-1s", "5 m", "1x", "1s2", "1.s", ".5s", "1..5s", "ten", "1m 2", "36501d", "101y", "5M"];
        for text in bad {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_duration(&"9".repeat(400)).is_err());
        assert!(parse_duration("99999999999999999999d").is_err());
    }

    #[test]
    fn durations_show_as_they_parse() {
        for text in ["200ms", "30s", "5m", "2h", "1d", "90s", "1500ms", "0s"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes() {
        let good = [
            ("1048576", 1 << 20),
            ("1GiB", 1 << 30),
            ("512MiB", 512 << 20),
            ("512Mi", 512 << 20),
            ("1PiB", 1 << 50),
            ("1.5KiB", 1536),
            ("500MB", 500_000_000),
            ("1 kb", 1000),
            ("0", 0),
            ("10b", 10),
        ];
        for (text, bytes) in good {
            assert_eq!(parse_byte_size(text), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "GiB", "-1", "1m", "1G", "1.5", "1e9", "16777216TiB", "1GiBs"] {
            assert!(parse_byte_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_show_in_their_largest_even_unit() {
        for text in ["2PiB", "1GiB", "512MiB", "3TiB", "1KiB", "1000", "0"] {
            assert_eq!(parse_byte_size(text).unwrap().to_string(), text);
        }
    }
}
