//! `Retry-After`: how long a server asks to be left alone. Pure.
//!
//! Takes what RFC 9110 lets a server say: seconds, or a date in any of its three forms. A fraction of a second,
//! which the RFC does not know and servers send all the same, is taken as it is meant.

use jiff::{
    Timestamp,
    civil::{Date, Time},
    tz::TimeZone,
};
use std::time::Duration;

/// A wish is granted up to this, however long it is.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// RFC 9110: a year of two digits that seems to be further ahead than this is one of the past.
const YEARS_AHEAD_MAX: i16 = 50;

/// Reads the header's value; `None` for one that is neither seconds nor a date. At most [`RETRY_AFTER_MAX`]; zero
/// for a date that is over.
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = match seconds(value) {
        Some(wait) => wait,
        None => Duration::try_from(http_date(value, now)?.duration_since(now)).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// Digits, with or without a fraction.
fn seconds(value: &str) -> Option<Duration> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    // More digits than a number holds are more than is granted.
    let seconds = value.parse::<f64>().ok()?.min(RETRY_AFTER_MAX.as_secs_f64());
    Some(Duration::from_secs_f64(seconds))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT`, or `Sun Nov  6 08:49:37 1994`.
fn http_date(value: &str, now: Timestamp) -> Option<Timestamp> {
    let words: Vec<&str> = value.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    match words[..] {
        [weekday, day, month, year, time, "GMT" | "UTC"] if is_weekday(weekday) => {
            moment(number(year, 4)?, month, day, time)
        }
        [weekday, date, time, "GMT" | "UTC"] if is_weekday(weekday) => {
            let mut parts = date.split('-');
            let (day, month, year) = (parts.next()?, parts.next()?, number(parts.next()?, 2)?);
            parts.next().is_none().then_some(())?;
            moment(century(year, now), month, day, time)
        }
        [weekday, month, day, time, year] if is_weekday(weekday) => moment(number(year, 4)?, month, day, time),
        // Other zones, which no server should send.
        _ => jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok(),
    }
}

fn is_weekday(word: &str) -> bool {
    const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    DAYS.iter().any(|day| word == *day || word == &day[..3])
}

fn moment(year: i16, month: &str, day: &str, time: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = i8::try_from(MONTHS.iter().position(|m| *m == month)? + 1).ok()?;
    let date = Date::new(year, month, day.parse().ok().filter(|_| day.len() <= 2)?).ok()?;
    let mut parts = time.split(':');
    let mut part = || parts.next().and_then(|part| number(part, 2)).and_then(|n| i8::try_from(n).ok());
    let (hour, minute, second) = (part()?, part()?, part()?);
    // A leap second has no place of its own.
    let time = Time::new(hour, minute, if second == 60 { 59 } else { second }, 0).ok()?;
    parts.next().is_none().then_some(())?;
    date.to_datetime(time).to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp())
}

fn number(digits: &str, len: usize) -> Option<i16> {
    (digits.len() == len && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

fn century(year: i16, now: Timestamp) -> i16 {
    let this = now.to_zoned(TimeZone::UTC).year();
    let year = this - this % 100 + year;
    // The nearest one that is not too far ahead.
    match year {
        year if year > this + YEARS_AHEAD_MAX => year - 100,
        year if year + 100 <= this + YEARS_AHEAD_MAX => year + 100,
        year => year,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_the_three_forms_of_a_date_are_read_and_bounded() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("120", Some(120.0)),
            (" 120 ", Some(120.0)),
            ("0", Some(0.0)),
            ("3.5", Some(3.5)),
            ("999999999", Some(86_400.0)),
            ("99999999999999999999999999", Some(86_400.0)),
            ("Thu, 01 Jan 2026 00:01:00 GMT", Some(60.0)),
            ("Thursday, 01-Jan-26 00:01:00 GMT", Some(60.0)),
            ("Thu Jan  1 00:01:00 2026", Some(60.0)),
            ("Wed, 31 Dec 2025 00:00:00 GMT", Some(0.0)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(0.0)),
            ("Fri, 01 Jan 2027 00:00:00 GMT", Some(86_400.0)),
            ("Thu, 01 Jan 2026 01:01:00 +0100", Some(60.0)),
            ("soon", None),
            ("", None),
            ("-5", None),
            ("+5", None),
            ("1e3", None),
            ("3.", None),
            (".5", None),
            ("inf", None),
            ("Thu, 32 Jan 2026 00:01:00 GMT", None),
            ("Thu, 01 Foo 2026 00:01:00 GMT", None),
            ("Thursday, 01-Jan-26-3 00:01:00 GMT", None),
            ("Thu Jan  1 00:01 2026", None),
            ("\u{1F980}, 01 Jan 2026 00:01:00 GMT", None),
        ] {
            assert_eq!(retry_after(text, now), expected.map(Duration::from_secs_f64), "{text}");
        }
    }

    #[test]
    fn a_year_of_two_digits_is_the_nearest_that_is_not_far_ahead() {
        for (now, year, expected) in
            [(2026, 26, 2026), (2026, 76, 2076), (2026, 77, 1977), (2026, 94, 1994), (2099, 1, 2101), (2099, 98, 2098)]
        {
            let now: Timestamp = format!("{now}-06-01T00:00:00Z").parse().unwrap();
            assert_eq!(century(year, now), expected, "{year} at {now}");
        }
    }
}
