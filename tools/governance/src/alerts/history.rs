//! The commands about numbers: metrics, their history, and the gates that read both.

use super::{
    args::{GateArgs, HistoryArgs, MetricsArgs},
    badges,
    gates::{Outcome, judge},
    metrics::{CHURN_DAYS, Snapshot},
    render,
    run::{at_revision, version, written},
    taxonomy::{Placed, Taxonomy},
};
use crate::{
    artifact::{Artifacts, read_json},
    exit::gate as failed_gate,
    git::{Known, Repository},
};
use agentforge_terminal::{Failure, Output, Result};
use jiff::SignedDuration;
use std::path::Path;

const METRICS: &str = "taxonomy-metrics.json";
const HISTORY: &str = "taxonomy-metrics-history.json";

pub(super) fn metrics(args: &MetricsArgs, artifacts: &Artifacts, out: Output) -> Result {
    let path = &args.of.taxonomy;
    let now = Placed::read(path)?.whole()?;
    let before = match &args.prev {
        Some(named) => version(named, path)?,
        None => month_ago(path, artifacts)?,
    };
    let snapshot = Snapshot::of(&now, before.as_ref(), artifacts.at());
    let mut files = vec![
        artifacts.write_json(METRICS, &snapshot)?,
        artifacts.write_text("taxonomy_dashboard_metrics.prom", &snapshot.prometheus())?,
        artifacts.write_text("severity_runbook_dashboard.html", &render::dashboard(&now, &snapshot))?,
    ];
    for (name, badge) in badges::badges(&snapshot) {
        files.push(artifacts.write_json(name, &badge)?);
    }
    if out.json { out.document(&snapshot) } else { written(&files, out) }
}

/// What git had 30 days ago. Unknown, and so no churn, outside of a repository, in a clone that does not reach back so
/// far, and for a taxonomy that is younger.
fn month_ago(path: &Path, artifacts: &Artifacts) -> Result<Option<Taxonomy>> {
    let Ok(repository) = Repository::of(path.parent().unwrap_or(path)) else { return Ok(None) };
    let month = SignedDuration::from_hours(24 * CHURN_DAYS);
    let then = artifacts.at().checked_sub(month).map_err(|e| Failure::usage(format!("--at: {e}")))?;
    match repository.commit_at(then)? {
        Known::Yes(Some(commit)) => at_revision(&repository, &commit, path),
        Known::Yes(None) | Known::Unknown => Ok(None),
    }
}

pub(super) fn add(args: &HistoryArgs, artifacts: &Artifacts, out: Output) -> Result {
    let snapshot: Snapshot = read_json(&args.metrics.clone().unwrap_or_else(|| artifacts.path(METRICS)))?;
    let path = artifacts.path(HISTORY);
    let mut history: Vec<Snapshot> = if path.exists() { read_json(&path)? } else { Vec::new() };
    let day = date(&snapshot);
    // A second run of a day replaces the first.
    history.retain(|one| date(one) != day);
    history.push(snapshot.clone());
    history.sort_by_key(|one| one.at);
    let over = history.len().saturating_sub(args.keep as usize);
    history.drain(..over);
    let files = [
        artifacts.write_json(HISTORY, &history)?,
        artifacts.write_json(&format!("metrics-history/{day}.json"), &snapshot)?,
    ];
    written(&files, out)
}

pub(super) fn gate(args: &GateArgs, artifacts: &Artifacts, out: Output) -> Result {
    let path = args.metrics.clone().unwrap_or_else(|| artifacts.path(METRICS));
    if !path.exists() {
        // Without numbers nothing is known to be good.
        return Err(failed_gate(format!("{} is not there: the gates fail", path.display()))
            .hint("`agentforge governance alerts metrics` writes it"));
    }
    let snapshot: Snapshot = read_json(&path)?;
    let history = args.history.clone().unwrap_or_else(|| artifacts.path(HISTORY));
    let history: Vec<Snapshot> = if history.exists() { read_json(&history)? } else { Vec::new() };
    let before = history.iter().filter(|one| one.at < snapshot.at).max_by_key(|one| one.at);
    let gates = judge(&snapshot, before, &args.limits);
    artifacts.write_json("alerts-gates.json", &gates)?;
    if out.json {
        out.document(&gates)?;
    } else {
        for gate in &gates {
            out.line(format_args!("{:?} {}: {}", gate.outcome, gate.gate, gate.message).to_string().to_lowercase())?;
        }
    }
    let failed: Vec<_> = gates.iter().filter(|gate| gate.outcome == Outcome::Fail).map(|gate| gate.gate).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed_gate(format!("gates failed: {}", failed.join(", ")))) }
}

fn date(of: &Snapshot) -> String {
    of.at.to_string().chars().take(10).collect()
}
