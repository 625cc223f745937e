//! `agentforge rules`: the recording rules and alerts that this version ships, and the same with shorter times.
//!
//! The files are built in. Rendering changes only the text of durations (`for:` and ranges in brackets): what is tested
//! with short times is what runs with long ones.

use agentforge_terminal::{Failure, Output, Result};
use std::path::PathBuf;

/// The files, as in `monitoring/alerts`.
const FILES: [(&str, &str); 7] = [
    ("availability.rules.yml", include_str!("../../../monitoring/alerts/availability.rules.yml")),
    ("console.rules.yml", include_str!("../../../monitoring/alerts/console.rules.yml")),
    ("jetstream.rules.yml", include_str!("../../../monitoring/alerts/jetstream.rules.yml")),
    ("services.rules.yml", include_str!("../../../monitoring/alerts/services.rules.yml")),
    ("edge.rules.yml", include_str!("../../../monitoring/alerts/edge.rules.yml")),
    ("fan-out.rules.yml", include_str!("../../../monitoring/alerts/fan-out.rules.yml")),
    ("trust.rules.yml", include_str!("../../../monitoring/alerts/trust.rules.yml")),
];

/// Units of durations as Prometheus writes them, in milliseconds; `ms` before `m`.
const UNITS: [(&str, u64); 7] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
    ("y", 31_536_000_000),
];

/// What to do with the rules.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print or write them, with all times divided by --scale
    #[command(after_help = "\
Examples:
  agentforge rules render                          the rules as they run
  agentforge rules render --scale 60 --out rules   ten minutes become ten seconds, to see alerts fire

Only durations change; thresholds, names and labels stay.")]
    Render(RenderArgs),
}

/// How rules are rendered.
#[derive(Debug, clap::Args)]
pub struct RenderArgs {
    /// Divide every duration by this
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    scale: u32,
    /// Write the files into this folder instead of printing them as one
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs a command.
///
/// # Errors
/// A folder or file that cannot be written.
pub fn run(command: &Command, out: Output) -> Result {
    let Command::Render(args) = command;
    let Some(folder) = &args.out else { return out.text(&joined(args.scale)) };
    let failed = |e: std::io::Error| Failure::new(format!("cannot write into {}: {e}", folder.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    for (name, text) in FILES {
        std::fs::write(folder.join(name), scaled(text, args.scale)).map_err(failed)?;
    }
    Ok(())
}

/// All files as one.
fn joined(scale: u32) -> String {
    let mut all = "groups:\n".to_owned();
    for (_, text) in FILES {
        let groups = text.split_once("groups:\n").map_or("", |(_, groups)| groups);
        all.push_str(&scaled(groups, scale));
    }
    all
}

/// What goes before a duration that is in no brackets.
const OFFSET: &str = " offset ";

/// The text with every duration divided.
fn scaled(text: &str, scale: u32) -> String {
    if scale == 1 {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match line.trim_start().strip_prefix("for: ").and_then(|value| duration(value.trim_end())) {
            Some(ms) => {
                let indent = &line[..line.len() - line.trim_start().len()];
                out.push_str(&format!("{indent}for: {}\n", written(ms, scale)));
            }
            None => {
                let mut shorter = String::with_capacity(line.len());
                ranges(line, scale, &mut shorter);
                offsets(&shorter, scale, &mut out);
            }
        }
    }
    out
}

/// Copies a line; what is a duration in brackets is divided.
fn ranges(line: &str, scale: u32, out: &mut String) {
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('[') {
        out.push_str(before);
        out.push('[');
        match after.split_once(']').and_then(|(inside, tail)| Some((duration(inside)?, tail))) {
            Some((ms, tail)) => {
                out.push_str(&written(ms, scale));
                out.push(']');
                rest = tail;
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
}

/// Copies a line; a duration after `offset` is divided.
fn offsets(line: &str, scale: u32, out: &mut String) {
    let mut rest = line;
    while let Some((before, after)) = rest.split_once(OFFSET) {
        let end = after.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(after.len());
        let (text, tail) = after.split_at(end);
        out.push_str(before);
        out.push_str(OFFSET);
        match duration(text) {
            Some(ms) => out.push_str(&written(ms, scale)),
            None => out.push_str(text),
        }
        rest = tail;
    }
    out.push_str(rest);
}

/// The milliseconds of `90s`, `1h30m`; `None` for text that is not a duration.
fn duration(text: &str) -> Option<u64> {
    let (mut rest, mut sum) = (text, 0_u64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (word, ms) = UNITS.iter().find(|(word, _)| rest.starts_with(word))?;
        rest = &rest[word.len()..];
        sum = sum.checked_add(number.checked_mul(*ms)?)?;
    }
    (!text.is_empty()).then_some(sum)
}

/// A duration divided, in the largest unit that has it whole; never less than a millisecond.
fn written(ms: u64, scale: u32) -> String {
    let ms = (ms / u64::from(scale)).max(1);
    let (word, unit) = UNITS[..5].iter().rev().find(|(_, unit)| ms.is_multiple_of(*unit)).unwrap_or(&UNITS[0]);
    format!("{}{word}", ms / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_as_prometheus_does() {
        for (text, ms) in
            [("5m", 300_000), ("1h30m", 5_400_000), ("250ms", 250), ("3d", 259_200_000), ("1w", 604_800_000)]
        {
            assert_eq!(duration(text), Some(ms), "{text}");
        }
        for no in ["", "5", "m", "^_", "5x", "5m ", "1.5h"] {
            assert_eq!(duration(no), None, "{no:?}");
        }
        for (text, scale, expected) in
            [("10m", 1, "10m"), ("10m", 60, "10s"), ("5m", 400, "750ms"), ("3d", 60, "72m"), ("1s", 3_600, "1ms")]
        {
            assert_eq!(written(duration(text).unwrap(), scale), expected, "{text} by {scale}");
        }
    }

    /// Lines, each with its durations cut out and listed.
    fn apart(text: &str) -> Vec<(String, Vec<u64>)> {
        let apart = |line: &str| {
            let (mut plain, mut found) = (String::new(), Vec::new());
            let line = match line.trim_start().strip_prefix("for: ").and_then(duration) {
                Some(ms) => {
                    found.push(ms);
                    "for:"
                }
                None => line,
            };
            let mut line = line.to_owned();
            while let Some(at) = line.find(OFFSET) {
                let from = at + OFFSET.len();
                let end = line[from..].find(|c: char| !c.is_ascii_alphanumeric()).map_or(line.len(), |n| from + n);
                found.push(duration(&line[from..end]).expect("an offset is a duration"));
                line.replace_range(at..end, "");
            }
            for (index, part) in line.split(['[', ']']).enumerate() {
                match duration(part).filter(|_| index % 2 == 1) {
                    Some(ms) => found.push(ms),
                    None => plain.push_str(part),
                }
                plain.push('|');
            }
            (plain, found)
        };
        text.lines().map(apart).collect()
    }

    #[test]
    fn rendering_changes_durations_and_nothing_else() {
        let mut durations = 0;
        for (name, text) in FILES {
            assert_eq!(scaled(text, 1), text, "{name}: at 1 nothing changes");
            let short = scaled(text, 60);
            let (before, after) = (apart(text), apart(&short));
            assert_eq!(before.len(), after.len(), "{name}");
            for ((plain, old), (plain_after, new)) in before.iter().zip(&after) {
                assert_eq!(plain, plain_after, "{name}");
                let expected: Vec<u64> = old.iter().map(|ms| ms / 60).collect();
                assert_eq!(*new, expected, "{name}: {plain}");
                durations += new.len();
            }
        }
        assert!(durations > 50, "the durations were not found: {durations}");
    }

    #[test]
    fn printed_they_are_one_file_with_every_group() {
        let all = joined(1);
        assert_eq!(all.matches("groups:\n").count(), 1);
        let groups: usize = FILES.iter().map(|(_, text)| text.matches("  - name: ").count()).sum();
        assert_eq!(all.matches("  - name: ").count(), groups);
    }
}
