//! Changes in words: Markdown for a changelog and a pull request, a notice for a channel. Pure.

use super::delta::{Delta, Named};
use serde_json::{Value, json};
use std::fmt::Write;

/// Slack refuses a longer section.
const SECTION_CHARACTERS_MAX: usize = 2_900;
/// Lines of a list in a notice.
const LISTED_MAX: usize = 40;

/// A section of the changelog for one day.
pub fn changelog(delta: &Delta, date: &str) -> String {
    let mut text = format!("## {date}\n\n");
    lists(&mut text, delta, "### ");
    text
}

/// What a pull request changes.
pub fn comment(delta: &Delta) -> String {
    let mut text = "# Changes of alerts\n\n".to_owned();
    if delta.is_empty() {
        text.push_str("No alert changes.\n");
        return text;
    }
    text.push_str("| Added | Removed | Modified | Severity | Churn | Risk churn | Runbooks missing | Runbooks % |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    let _ = writeln!(
        text,
        "| {} | {} | {} | {} | {} | {} | {:+} | {:+.1} |\n",
        delta.added.len(),
        delta.removed.len(),
        delta.modified.len(),
        delta.severity_transitions.len(),
        delta.churn,
        delta.risk_churn,
        delta.runbook_missing_delta,
        delta.runbook_percent_delta.0 as f64 / 10.0
    );
    lists(&mut text, delta, "## ");
    text
}

fn lists(text: &mut String, delta: &Delta, heading: &str) {
    for (title, alerts) in [("Added", &delta.added), ("Removed", &delta.removed)] {
        if !alerts.is_empty() {
            let _ = writeln!(text, "{heading}{title}\n");
            for named in alerts {
                let _ = writeln!(text, "- {} ({})", cell(&named.alert), cell(&named.severity));
            }
            text.push('\n');
        }
    }
    if !delta.severity_transitions.is_empty() {
        let _ = writeln!(text, "{heading}Severity\n");
        for transition in &delta.severity_transitions {
            let (alert, from, to) = (cell(&transition.alert), cell(&transition.from), cell(&transition.to));
            let _ = writeln!(text, "- {alert}: {from} → {to}");
        }
        text.push('\n');
    }
    if !delta.modified.is_empty() {
        let _ = writeln!(text, "{heading}Modified\n");
        for modified in &delta.modified {
            let fields: Vec<_> = modified.fields.keys().copied().collect();
            let _ = writeln!(text, "- {}: {}", cell(&modified.alert), fields.join(", "));
        }
        text.push('\n');
    }
}

/// A text that Markdown shows as it is, on one line.
pub fn cell(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        match c {
            '|' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '\\' => shown.extend(['\\', c]),
            c if c.is_control() => shown.push(' '),
            c => shown.push(c),
        }
    }
    shown
}

/// The notice of what changed: plain text, and with `blocks` sections of Slack too. The text by itself says it all in short.
pub fn notice(delta: &Delta, blocks: bool) -> Value {
    let summary = format!(
        "Alerts changed: {} added, {} removed, {} of another severity, {} modified; risk churn {}",
        delta.added.len(),
        delta.removed.len(),
        delta.severity_transitions.len(),
        delta.modified.len(),
        delta.risk_churn
    );
    let transitions = delta.severity_transitions.iter().map(|t| format!("{}: {} → {}", t.alert, t.from, t.to));
    let of = |alerts: &[Named]| alerts.iter().map(|n| format!("{} ({})", n.alert, n.severity)).collect::<Vec<_>>();
    let lists = [
        ("Added", of(&delta.added)),
        ("Removed", of(&delta.removed)),
        ("Severity", transitions.collect()),
        ("Modified", delta.modified.iter().map(|m| m.alert.clone()).collect()),
    ];
    let lists: Vec<_> = lists.into_iter().filter(|(_, lines)| !lines.is_empty()).collect();
    if !blocks {
        let lines = lists.iter().flat_map(|(title, lines)| listed(lines).map(move |line| format!("{title}: {line}")));
        let text = std::iter::once(summary).chain(lines).collect::<Vec<_>>().join("\n");
        return json!({ "text": text });
    }
    let mut blocks = vec![json!({ "type": "header", "text": { "type": "plain_text", "text": "Alerts changed" } })];
    blocks.push(section(&escaped(&summary)));
    for (title, lines) in &lists {
        let lines = listed(lines).map(|line| format!("• {}", escaped(&line))).collect::<Vec<_>>().join("\n");
        blocks.push(section(&format!("*{title}*\n{lines}")));
    }
    json!({ "text": summary, "blocks": blocks })
}

fn listed(lines: &[String]) -> impl Iterator<Item = String> {
    let more = lines.len().saturating_sub(LISTED_MAX);
    let last = (more > 0).then(|| format!("and {more} more"));
    lines.iter().take(LISTED_MAX).cloned().chain(last)
}

fn section(text: &str) -> Value {
    let text: String = text.chars().take(SECTION_CHARACTERS_MAX).collect();
    json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } })
}

/// As Slack asks for it: three characters have a meaning.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
