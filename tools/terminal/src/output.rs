//! How things are shown: JSON for programs, tables and plain lines for people, progress on stderr.
//!
//! Owns every byte that goes to stdout. Foreign text (arguments, errors of tools) is stripped of control characters
//! before it reaches a terminal. Colours go through anstream, which honours NO_COLOR and drops them when stdout is not
//! a terminal.

mod progress;
mod table;

pub use progress::Progress;
pub use table::Table;

use crate::error::Result;
use anstyle::{AnsiColor, Style};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::{fmt::Display, io::Write, time::Duration};

/// The command continued without something; always printed, on stderr.
pub fn warn(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{} {text}", styled(YELLOW, "warning:"));
}

/// Where a command writes its answer.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// `--json`: one JSON document per line, and nothing else on stdout.
    pub json: bool,
}

impl Output {
    /// One JSON document on a line of its own.
    pub fn document(self, value: &impl Serialize) -> Result {
        let mut out = anstream::stdout().lock();
        serde_json::to_writer(&mut out, value).map_err(std::io::Error::from)?;
        writeln!(out)?;
        Ok(out.flush()?)
    }

    /// A line of text; may hold styles.
    pub fn line(self, text: impl Display) -> Result {
        let mut out = anstream::stdout().lock();
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    }

    /// Text as it is.
    pub fn text(self, text: &str) -> Result {
        let mut out = anstream::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// A remark for people on stderr; silent with `--json`.
    pub fn note(self, text: impl Display) {
        if !self.json {
            let _ = writeln!(anstream::stderr(), "{text}");
        }
    }

    /// What must be printed regardless of the command's outcome, on stderr also with `--json`.
    pub fn remark(self, text: impl Display) {
        let _ = writeln!(anstream::stderr(), "{text}");
    }

    /// Writes `{"<name>":[…],"next_cursor":…}` piece by piece, so that any number of items fits.
    pub fn list(self, name: &'static str) -> JsonList {
        JsonList { name, written: 0 }
    }
}

/// A JSON object with one long array, see [`Output::list`].
pub struct JsonList {
    name: &'static str,
    written: u64,
}

impl JsonList {
    /// Writes some more items.
    pub fn extend<T: Serialize>(&mut self, items: &[T]) -> Result {
        let mut out = anstream::stdout().lock();
        if self.written == 0 && !items.is_empty() {
            write!(out, "{{\"{}\":[", self.name)?;
        }
        for item in items {
            if self.written > 0 {
                write!(out, ",")?;
            }
            serde_json::to_writer(&mut out, item).map_err(std::io::Error::from)?;
            self.written += 1;
        }
        Ok(out.flush()?)
    }

    /// Closes the array; `next_cursor` is null when there is no more.
    pub fn finish(self, next_cursor: Option<&str>) -> Result {
        let mut out = anstream::stdout().lock();
        if self.written == 0 {
            write!(out, "{{\"{}\":[", self.name)?;
        }
        let cursor = serde_json::to_string(&next_cursor).map_err(std::io::Error::from)?;
        writeln!(out, "],\"next_cursor\":{cursor}}}")?;
        Ok(out.flush()?)
    }
}

/// Headings and what a line is about.
pub const BOLD: Style = Style::new().bold();
/// What may be skipped: units, times, hints.
pub const DIM: Style = Style::new().dimmed();
/// States that ended well.
pub const GREEN: Style = AnsiColor::Green.on_default();
/// States that ended badly, and errors.
pub const RED: Style = AnsiColor::Red.on_default();
/// States that are under way.
pub const CYAN: Style = AnsiColor::Cyan.on_default();
/// What wants attention: warnings, states that wait for a person.
pub const YELLOW: Style = AnsiColor::Yellow.on_default();

/// The text in a style.
pub fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// The colour of a word that names a state or an outcome.
pub fn state_style(word: &str) -> Style {
    match word {
        "succeeded" | "online" | "active" => GREEN,
        "failed" | "dead" | "worker_lost" => RED,
        "expired" | "cancelled" | "offline" | "paused" => YELLOW,
        "running" => CYAN,
        _ => Style::new(),
    }
}

/// Text from outside, safe for a terminal: one line, no control characters, at most `max` characters.
pub fn clean(text: &str, max: usize) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    let mut out: String = text.trim().chars().map(visible).take(max + 1).collect();
    if out.chars().count() > max {
        out = out.chars().take(max.saturating_sub(1)).collect();
        out.push('…');
    }
    out
}

/// As [`clean`], but lines stay lines.
pub fn clean_lines(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

/// How long ago, in the two largest units: `3s`, `4m10s`, `2h5m`, `3d4h`; `in 5m` for the future.
pub fn age(at: Timestamp, now: Timestamp) -> String {
    let span = now.duration_since(at);
    let shown = short_duration(span.unsigned_abs());
    if span < SignedDuration::from_millis(-500) { format!("in {shown}") } else { shown }
}

/// A duration in at most two units; milliseconds below ten seconds.
pub fn short_duration(d: Duration) -> String {
    let s = d.as_secs();
    let two = |a: u64, ua: &str, b: u64, ub: &str| if b == 0 { format!("{a}{ua}") } else { format!("{a}{ua}{b}{ub}") };
    match s {
        0 if d.as_millis() == 0 => "0s".to_owned(),
        0 => format!("{}ms", d.as_millis()),
        1..=9 => format!("{:.1}s", d.as_secs_f64()),
        10..=59 => format!("{s}s"),
        60..=3_599 => two(s / 60, "m", s % 60, "s"),
        3_600..=86_399 => two(s / 3_600, "h", s % 3_600 / 60, "m"),
        _ => two(s / 86_400, "d", s % 86_400 / 3_600, "h"),
    }
}

/// A byte count for people.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (ms, shown) in [
            (0, "0s"),
            (7, "7ms"),
            (1_500, "1.5s"),
            (42_000, "42s"),
            (60_000, "1m"),
            (250_000, "4m10s"),
            (7_500_000, "2h5m"),
            (273_600_000, "3d4h"),
        ] {
            assert_eq!(short_duration(Duration::from_millis(ms)), shown);
        }
    }

    #[test]
    fn ages_look_both_ways() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(age("2025-12-31T23:59:00Z".parse().unwrap(), now), "1m");
        assert_eq!(age("2026-01-01T00:05:00Z".parse().unwrap(), now), "in 5m");
    }

    #[test]
    fn text_from_outside_cannot_move_the_cursor() {
        assert_eq!(clean("a\x1b[2Jb\r\nc", 40), "a [2Jb  c");
        assert_eq!(clean("abcdef", 4), "abc…");
        assert_eq!(clean("abcd", 4), "abcd");
        assert_eq!(clean_lines("a\nb\x07"), "a\nb ");
    }

    #[test]
    fn sizes_have_one_decimal() {
        assert_eq!((bytes(1023), bytes(1536), bytes(3 << 30)), ("1023 B".into(), "1.5 KiB".into(), "3.0 GiB".into()));
    }
}
