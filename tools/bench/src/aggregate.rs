//! `agentforge bench aggregate`: many reports of `--json` as one: rolling averages, a small curve, and what became worse.
//!
//! Reads files only. Every number of a report is a series under its path, such as `jobs.rounds[0].jobs_per_s`; whether
//! more or less of it is better is read from the ending of its name, and left open where that does not say.

use agentforge_terminal::{Failure, Output, Result};
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// More files are a mistake in the pattern.
const FILES_MAX: usize = 10_000;
/// A report that is larger is none of ours.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Series of one aggregate.
const SERIES_MAX: usize = 5_000;
/// The heights of a curve.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Endings of names of which less is better.
const LESS: [&str; 12] =
    ["_ms", "_us", "_ns", "_s", "_seconds", "_bytes", "_kib", "_mib", "lost", "duplicated", "_errors", "_failed"];
/// Endings and parts of names of which more is better; looked for first.
const MORE: [&str; 5] = ["_per_s", "per_second", "ratio", "throughput", "_rate"];

/// What to read, and how to judge it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Reports, or patterns of them with * and ? in quotes; read in the order of their names
    #[arg(value_name = "GLOB", required = true)]
    patterns: Vec<String>,
    /// Print Markdown; with --json it is a field of the document
    #[arg(long)]
    md: bool,
    /// Reports of a rolling average
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    window: u16,
    /// Percent by which the last report may be worse than the average of those before it
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    tolerance: f64,
    /// End with 1 when something became worse
    #[arg(long)]
    fail: bool,
}

/// All reports.
#[derive(Debug, Serialize)]
struct Aggregate {
    files: Vec<String>,
    series: Vec<Series>,
    regressions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    markdown: Option<String>,
}

/// One number over all reports that have it.
#[derive(Debug, Serialize)]
struct Series {
    name: String,
    values: Vec<f64>,
    rolling: Vec<f64>,
    curve: String,
    /// The last value against the average of those before it, in percent of that.
    change_percent: Option<f64>,
    better: Better,
    regression: bool,
}

/// Of what is more or less better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Better {
    More,
    Less,
    Unknown,
}

/// Reads the reports and prints what they say together.
///
/// # Errors
/// No file matches, one cannot be read, or with `--fail` something became worse.
pub fn run(args: &Args, out: Output) -> Result {
    let mut files = Vec::new();
    for pattern in &args.patterns {
        files.extend(matching(pattern)?);
    }
    files.sort();
    files.dedup();
    if files.is_empty() {
        return Err(Failure::usage(format!("no file matches {}", args.patterns.join(" "))));
    }
    if files.len() > FILES_MAX {
        return Err(Failure::usage(format!("{} files are more than the limit of {FILES_MAX}", files.len())));
    }
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for file in &files {
        for document in documents(file)? {
            flatten(String::new(), &document, &mut all);
        }
    }
    all.retain(|_, values| !values.is_empty());
    if all.len() > SERIES_MAX {
        return Err(Failure::new(format!("{} numbers are more than the limit of {SERIES_MAX}", all.len())));
    }
    let window = usize::from(args.window);
    let series: Vec<_> = all.into_iter().map(|(name, values)| judged(name, values, window, args.tolerance)).collect();
    let regressions: Vec<_> = series.iter().filter(|one| one.regression).map(|one| one.name.clone()).collect();
    let files = files.iter().map(|file| file.display().to_string()).collect();
    let mut aggregate = Aggregate { files, series, regressions, markdown: None };
    let markdown = markdown(&aggregate);
    if out.json {
        aggregate.markdown = args.md.then_some(markdown);
        out.document(&aggregate)?;
    } else {
        out.text(&markdown)?;
    }
    match (args.fail, aggregate.regressions.is_empty()) {
        (true, false) => Err(Failure::new(format!("worse than before: {}", aggregate.regressions.join(", ")))),
        _ => Ok(()),
    }
}

fn judged(name: String, values: Vec<f64>, window: usize, tolerance: f64) -> Series {
    let average = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let rolling = (1..=values.len()).map(|end| rounded(average(&values[end.saturating_sub(window)..end]))).collect();
    let better = better(&name);
    let change = values.split_last().filter(|(_, before)| !before.is_empty()).map(|(last, before)| {
        let usual = average(&before[before.len().saturating_sub(window)..]);
        let change = if usual == 0.0 && *last == 0.0 { 0.0 } else { 100.0 * (last - usual) / usual.abs() };
        // Something after nothing has no percent, and is still worse.
        if change.is_finite() { rounded(change) } else { 100.0_f64.copysign(*last) }
    });
    let regression = match (better, change) {
        (Better::More, Some(change)) => change < -tolerance,
        (Better::Less, Some(change)) => change > tolerance,
        _ => false,
    };
    Series { curve: curve(&values), name, values, rolling, change_percent: change, better, regression }
}

fn better(name: &str) -> Better {
    let last = name.rsplit('.').next().unwrap_or(name).split('[').next().unwrap_or(name).to_lowercase();
    if MORE.iter().any(|ending| last.ends_with(ending)) {
        Better::More
    } else if LESS.iter().any(|ending| last.ends_with(ending)) || last.starts_with("p50") || last.starts_with("p99") {
        Better::Less
    } else {
        Better::Unknown
    }
}

/// The values as blocks of eight heights, from the least to the most of them.
fn curve(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let height = |value: f64| if most > least { ((value - least) / (most - least) * 7.0).round() as usize } else { 3 };
    values.iter().map(|value| HEIGHTS[height(*value).min(7)]).collect()
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

fn markdown(aggregate: &Aggregate) -> String {
    let mut text = format!("# Benchmarks of {} reports\n\n", aggregate.files.len());
    if aggregate.regressions.is_empty() {
        text.push_str("Nothing became worse.\n\n");
    } else {
        let _ = writeln!(text, "Worse than before: {}.\n", aggregate.regressions.join(", "));
    }
    text.push_str("| Number | Last | Rolling average | Change | Curve |\n|---|---|---|---|---|\n");
    for one in &aggregate.series {
        let (last, rolling) = (one.values.last().unwrap_or(&0.0), one.rolling.last().unwrap_or(&0.0));
        let change = one.change_percent.map(|change| format!("{change:+.1} %")).unwrap_or_default();
        let mark = if one.regression { " worse" } else { "" };
        let name = one.name.replace('|', "\\|");
        let _ = writeln!(text, "| {name} | {} | {rolling} | {change}{mark} | {} |", rounded(*last), one.curve);
    }
    text
}

/// Every number of a document, by its path.
fn flatten(path: String, value: &Value, into: &mut BTreeMap<String, Vec<f64>>) {
    match value {
        Value::Number(number) => {
            if let Some(number) = number.as_f64() {
                into.entry(path).or_default().push(number);
            }
        }
        Value::Object(members) => {
            for (key, value) in members {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(path, value, into);
            }
        }
        Value::Array(items) => {
            for (n, value) in items.iter().enumerate() {
                flatten(format!("{path}[{n}]"), value, into);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The documents of a file: one, or one per line.
fn documents(file: &Path) -> Result<Vec<Value>> {
    let broken = |line: usize, why: String| Failure {
        exit: 3,
        ..Failure::new(if line == 0 {
            format!("{}: {why}", file.display())
        } else {
            format!("{}:{line}: {why}", file.display())
        })
    };
    let size = fs::metadata(file).map_err(|e| broken(0, e.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(broken(0, format!("{size} bytes are more than the limit of {FILE_BYTES_MAX}")));
    }
    let text = fs::read_to_string(file).map_err(|e| broken(0, e.to_string()))?;
    serde_json::Deserializer::from_str(&text)
        .into_iter::<Value>()
        .map(|document| document.map_err(|e| broken(e.line(), e.to_string())))
        .collect()
}

/// The files that a pattern names; `*` and `?` stand for parts of one name.
fn matching(pattern: &str) -> Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from(if pattern.starts_with('/') { "/" } else { "" })];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for folder in found {
            if !part.contains(['*', '?']) {
                next.push(folder.join(part));
                continue;
            }
            let here = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
            let Ok(entries) = fs::read_dir(here) else { continue };
            for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
                if fits(part.as_bytes(), name.as_bytes()) {
                    next.push(folder.join(name));
                }
            }
        }
        found = next;
        if found.len() > FILES_MAX {
            return Err(Failure::usage(format!("{pattern} names more than the limit of {FILES_MAX} files")));
        }
    }
    found.retain(|path| path.is_file());
    Ok(found)
}

/// Whether a name fits a pattern. Goes back to the last `*` only, so the time is bounded by their lengths' product.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_parts_of_names() {
        for (pattern, name, wanted) in [
            ("bench-*.json", "bench-1.json", true),
            ("bench-*.json", "bench-1.jsonl", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxa", false),
            ("?.json", "1.json", true),
            ("?.json", "12.json", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), wanted, "{pattern} {name}");
        }
    }

    #[test]
    fn what_became_worse_is_told_from_what_became_better() {
        for (name, values, wanted) in [
            ("a.jobs_per_s", [100.0, 100.0, 89.0], true),
            ("a.jobs_per_s", [100.0, 100.0, 90.0], false),
            ("a.jobs_per_s", [100.0, 100.0, 200.0], false),
            ("p99_ms", [10.0, 10.0, 11.5], true),
            ("p99_ms", [10.0, 10.0, 5.0], false),
            ("lost", [0.0, 0.0, 1.0], true),
            ("lost", [0.0, 0.0, 0.0], false),
            ("cores", [2.0, 2.0, 9.0], false),
        ] {
            let one = judged(name.to_owned(), values.to_vec(), 5, 10.0);
            assert_eq!(one.regression, wanted, "{name} {values:?}: {one:?}");
        }
        let one = judged("x_ms".to_owned(), vec![1.0, 3.0, 5.0], 2, 10.0);
        assert_eq!((one.rolling.as_slice(), one.curve.as_str()), (&[1.0, 2.0, 4.0][..], "▁▅█"));
        assert_eq!(judged("x_ms".to_owned(), vec![7.0], 2, 10.0).change_percent, None);
    }

    #[test]
    fn reports_become_series_in_the_order_of_their_files() {
        let home = std::env::temp_dir().join(format!("agentforge-aggregate-{}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        for (n, rate) in [(2, 50.0), (1, 100.0)] {
            let report = serde_json::json!({ "rounds": [{ "jobs_per_s": rate }], "text": "x" });
            fs::write(home.join(format!("bench-{n}.json")), report.to_string()).unwrap();
        }
        let files = matching(&format!("{}/bench-*.json", home.display())).unwrap();
        let mut all = BTreeMap::new();
        let mut sorted = files;
        sorted.sort();
        for file in &sorted {
            flatten(String::new(), &documents(file).unwrap()[0], &mut all);
        }
        fs::write(home.join("broken.json"), "{\n \"a\": }").unwrap();
        let broken = documents(&home.join("broken.json")).unwrap_err();
        fs::remove_dir_all(&home).unwrap();
        assert_eq!(all["rounds[0].jobs_per_s"], [100.0, 50.0]);
        assert!(broken.exit == 3 && broken.message.contains("broken.json:2: "), "{broken}");
    }
}
