//! The catalogue of metrics: its documentation, and the rules that names keep.

use crate::{Kind, Metric, Unit};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The metrics as tables in Markdown, a heading per group; a metric in several lists of a group appears once.
pub fn catalogue_markdown(groups: &[(&str, &[&[Metric]])]) -> String {
    let mut out = String::new();
    for (index, (name, lists)) in groups.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let _ = writeln!(out, "## {name}\n");
        out.push_str("| Metric | Type | Unit | Labels | Meaning |\n|---|---|---|---|---|\n");
        let by_name: BTreeMap<_, _> =
            lists.iter().flat_map(|list| list.iter()).map(|metric| (metric.name, metric)).collect();
        for metric in by_name.values() {
            let values = metric.values.iter().copied().chain(std::iter::repeat(&[][..]));
            let labels: Vec<_> = metric.labels.iter().zip(values).map(|(name, values)| label(name, values)).collect();
            let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
            let help = metric.help.replace('|', "\\|").replace('<', "&lt;");
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {labels} | {help}{} |",
                metric.name,
                kind_word(&metric.kind),
                unit_word(metric.unit),
                bounds(&metric.kind),
            );
        }
    }
    out
}

/// What breaks the naming rules, one line each; a test of each owner asserts that it is empty.
pub fn check(catalogue: &[&[Metric]]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut known: BTreeMap<&str, &Metric> = BTreeMap::new();
    for metric in catalogue.iter().flat_map(|list| list.iter()) {
        faults.extend(problems(metric).into_iter().map(|problem| format!("{}: {problem}", metric.name)));
        match known.insert(metric.name, metric) {
            Some(other) if other != metric => faults.push(format!("{}: declared twice, differently", metric.name)),
            _ => {}
        }
    }
    faults
}

/// A label, with the values that it can have where they are few.
fn label(name: &str, values: &[&str]) -> String {
    match values {
        [] => format!("`{name}`"),
        values => format!("`{name}` ({})", values.join(", ")),
    }
}

fn problems(metric: &Metric) -> Vec<String> {
    let mut out = Vec::new();
    let word = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_lowercase())
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    if !word(metric.name) {
        out.push("a name is lower-case letters, digits and _".to_owned());
    }
    if metric.help.trim().is_empty() {
        out.push("has no help".to_owned());
    }
    let is_counter = matches!(metric.kind, Kind::Counter);
    if is_counter != metric.name.ends_with("_total") {
        out.push("counters, and only counters, end with _total".to_owned());
    }
    for label in metric.labels {
        if !word(label) || matches!(*label, "le" | "quantile" | "job" | "instance") {
            out.push(format!("label {label} is not allowed"));
        }
    }
    if !metric.values.is_empty() && metric.values.len() != metric.labels.len() {
        out.push("there is a list of values for each label, or for none".to_owned());
    }
    if let Kind::Histogram(buckets) = metric.kind {
        let ascending = buckets.windows(2).all(|pair| pair[0] < pair[1]);
        if buckets.is_empty() || !ascending || buckets.iter().any(|bound| !bound.is_finite()) {
            out.push("bucket bounds are finite and ascending".to_owned());
        }
    }
    out
}

fn kind_word(kind: &Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    }
}

fn unit_word(unit: Unit) -> &'static str {
    match unit {
        Unit::Count => "count",
        Unit::Seconds => "seconds",
        Unit::Bytes => "bytes",
        Unit::Ratio => "ratio",
    }
}

fn bounds(kind: &Kind) -> String {
    match kind {
        Kind::Histogram([first, .., last]) => format!(" Buckets from {first} to {last}."),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Metric =
        Metric::counter("agentforge_a_total", &["tool", "reason"], "A|s seen.").of(&[&[], &["late", "lost"]]);
    const B: Metric = Metric::histogram("agentforge_b_seconds", &[0.1, 1.0, 1200.0], &[], "How long B takes.");

    #[test]
    fn markdown_has_a_sorted_row_per_metric() {
        let text = catalogue_markdown(&[("Worker", &[&[B, A], &[A]])]);
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(
            rows,
            [
                "| `agentforge_a_total` | counter | count | `tool`, `reason` (late, lost) | A\\|s seen. |",
                "| `agentforge_b_seconds` | histogram | seconds | – | How long B takes. Buckets from 0.1 to 1200. |",
            ]
        );
        assert!(text.starts_with("## Worker\n\n| Metric |"));
    }

    #[test]
    fn names_keep_the_rules() {
        assert_eq!(check(&[&[A, B], &[A]]), Vec::<String>::new());
        let bad = [
            Metric::counter("a", &[], "h"),
            Metric::gauge("a_total", &[], "h"),
            Metric::gauge("Bad-Name", &[], "h"),
            Metric::gauge("g", &["le"], "h"),
            Metric::gauge("h", &[], " "),
            Metric::histogram("i", &[2.0, 1.0], &[], "h"),
            Metric::histogram("j", &[], &[], "h"),
            Metric::counter("k_total", &["a", "b"], "h").of(&[&["x"]]),
        ];
        for metric in bad {
            assert_eq!(check(&[&[metric]]).len(), 1, "{}", metric.name);
        }
        let other = Metric { help: "else", ..A };
        assert_eq!(check(&[&[A], &[other]]), ["agentforge_a_total: declared twice, differently"]);
    }
}
