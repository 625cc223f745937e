//! The taxonomy for people and programs: Markdown, HTML, JSON lines, and a dashboard of severities and runbooks. Pure.

use super::{
    metrics::Snapshot,
    taxonomy::{Entry, Taxonomy},
    words::cell,
};
use crate::{
    artifact::canonical,
    html::{escaped, page, table},
};
use std::fmt::Write;

/// One table for each group.
pub fn markdown(taxonomy: &Taxonomy) -> String {
    let mut text = format!("# Alerts\n\nLast changed {}.\n", taxonomy.last_updated);
    for (group, entries) in groups(taxonomy) {
        let _ = writeln!(
            text,
            "\n## {}\n\n| Alert | Severity | Scope | Category | For | Description | Runbook |",
            cell(group)
        );
        text.push_str("|---|---|---|---|---|---|---|\n");
        for entry in entries {
            let row = [
                &name(entry),
                &entry.severity,
                &entry.scope,
                &entry.category,
                &entry.held,
                &entry.description,
                &entry.runbook,
            ];
            let row: Vec<_> = row.iter().map(|text| cell(text)).collect();
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
    }
    text
}

/// One page with a table for each group.
pub fn html(taxonomy: &Taxonomy) -> String {
    let mut body = format!("<p>Last changed {}.</p>\n", escaped(&taxonomy.last_updated));
    for (group, entries) in groups(taxonomy) {
        let rows: Vec<_> = entries.iter().map(|entry| row(entry)).collect();
        let _ = writeln!(body, "<h2>{}</h2>", escaped(group));
        let columns = ["Alert", "Severity", "Scope", "Category", "For", "Description", "Expression", "Runbook"];
        body.push_str(&table(&format!("Alerts of {group}"), &columns, &rows));
    }
    page("Alerts", &body, None)
}

fn row(entry: &Entry) -> Vec<String> {
    let plain = [&entry.severity, &entry.scope, &entry.category, &entry.held, &entry.description];
    let mut cells = vec![escaped(&name(entry))];
    cells.extend(plain.iter().map(|text| escaped(text)));
    cells.push(format!("<code>{}</code>", escaped(&entry.expr_summary)));
    let runbook = escaped(&entry.runbook);
    // Anything but the two is shown and leads nowhere.
    let is_link = entry.runbook.starts_with("https://") || entry.runbook.starts_with("http://");
    cells.push(if is_link { format!("<a href=\"{runbook}\">{runbook}</a>") } else { runbook });
    cells
}

/// One entry per line.
pub fn lines(taxonomy: &Taxonomy) -> String {
    groups(taxonomy).into_iter().flat_map(|(_, entries)| entries).map(|entry| canonical(entry) + "\n").collect()
}

/// Severities and runbooks on one page.
pub fn dashboard(taxonomy: &Taxonomy, snapshot: &Snapshot) -> String {
    let severities: Vec<_> =
        snapshot.by_severity.iter().map(|(severity, n)| vec![escaped(severity), n.to_string()]).collect();
    let shown = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
    let numbers = [
        ("Alerts", snapshot.alerts_total.to_string()),
        ("Deprecated", snapshot.alerts_deprecated.to_string()),
        ("Active alerts with a runbook", format!("{} %", snapshot.runbook_percent)),
        ("Churn in 30 days", shown(snapshot.churn_30d.map(|n| n.to_string()))),
        ("Risk churn in 30 days", shown(snapshot.risk_churn_30d.map(|n| n.to_string()))),
        ("Stability", shown(snapshot.stability.map(|n| n.to_string()))),
        ("Risk stability", shown(snapshot.risk_stability.map(|n| n.to_string()))),
        ("Days since the taxonomy changed", shown(snapshot.age_days.map(|n| n.to_string()))),
    ];
    let numbers: Vec<_> = numbers.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    let missing: Vec<_> = taxonomy
        .active()
        .filter(|entry| entry.lacks_runbook())
        .map(|entry| vec![escaped(&entry.alert), escaped(&entry.severity), escaped(&entry.group)])
        .collect();
    let mut body = format!("<p>As of {}.</p>\n", snapshot.at);
    body.push_str(&table("Numbers", &["What", "Value"], &numbers));
    body.push_str(&table("Alerts by severity", &["Severity", "Alerts"], &severities));
    if missing.is_empty() {
        body.push_str("<p>Every active alert has a runbook.</p>\n");
    } else {
        body.push_str(&table("Active alerts without a runbook", &["Alert", "Severity", "Group"], &missing));
    }
    page("Severities and runbooks of alerts", &body, None)
}

fn name(entry: &Entry) -> String {
    if entry.deprecated { format!("{} (deprecated)", entry.alert) } else { entry.alert.clone() }
}

/// Entries by group, both in order.
fn groups(taxonomy: &Taxonomy) -> Vec<(&str, Vec<&Entry>)> {
    let mut entries: Vec<_> = taxonomy.alerts.iter().collect();
    entries.sort_by(|a, b| (&a.group, &a.alert, &a.severity).cmp(&(&b.group, &b.alert, &b.severity)));
    entries.chunk_by(|a, b| a.group == b.group).map(|chunk| (chunk[0].group.as_str(), chunk.to_vec())).collect()
}
