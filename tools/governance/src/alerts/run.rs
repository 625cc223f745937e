//! The commands that judge and describe: files in, faults and artifacts out.

use super::{
    args::{ChangelogArgs, DriftArgs, Inputs, LintArgs, ScaffoldArgs, TaxonomyArgs, Two},
    check as checks,
    delta::Delta,
    lint as lints, render as renders, rules,
    taxonomy::{Placed, Taxonomy},
    words,
};
use crate::{
    artifact::{self, Artifacts, canonical},
    exit::{BROKEN, Fault, broken, gate},
    git::Repository,
    send::send,
};
use agentforge_message_id::MsgId;
use agentforge_terminal::{Failure, Output, Result};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// What a new changelog begins with.
const HEAD: &str = "# Changes of alerts\n";

pub(super) fn lint(args: &LintArgs, artifacts: &Artifacts, out: Output) -> Result {
    let placed = Placed::read(&args.of.taxonomy)?;
    let policy = lints::Policy { max_days: args.max_days, strict: args.strict };
    let found = lints::lint(&placed, policy, artifacts.at());
    print(&found.faults, &found.warnings, out)?;
    match found.faults.len() {
        0 => {
            out.note(format_args!("{} entries, {} warnings", placed.taxonomy.alerts.len(), found.warnings.len()));
            Ok(())
        }
        n => Err(Failure { exit: BROKEN, ..Failure::new(format!("{n} faults in {}", placed.path.display())) }),
    }
}

pub(super) fn check(args: &Inputs, out: Output) -> Result {
    let placed = Placed::read(&args.of.taxonomy)?;
    let rules = rules::read(&args.rules)?;
    let mut faults = checks::check(&placed, &rules);
    // Runbooks are named from the top of the repository; without one, from here.
    let root = Repository::of(Path::new(".")).map_or_else(|_| PathBuf::from("."), |found| found.root().to_owned());
    faults.extend(checks::missing_runbooks(&placed, &root));
    print(&faults, &[], out)?;
    match faults.len() {
        0 => {
            out.note(format_args!("{} rules, {} entries", rules.len(), placed.taxonomy.alerts.len()));
            Ok(())
        }
        n => Err(gate(format!("rules and {} do not agree: {n} faults", placed.path.display()))
            .hint("`agentforge governance alerts scaffold` adds entries; --refresh copies what rules say")),
    }
}

pub(super) fn scaffold(args: &ScaffoldArgs, artifacts: &Artifacts, out: Output) -> Result {
    let path = &args.inputs.of.taxonomy;
    let mut taxonomy = if path.exists() { Placed::read(path)?.whole()? } else { Taxonomy::empty(artifacts.at()) };
    let rules = rules::read(&args.inputs.rules)?;
    let (added, refreshed) = checks::scaffold(&mut taxonomy, &rules, args.refresh, artifacts.at());
    if added + refreshed > 0 {
        artifact::write(path, &taxonomy.text())?;
    }
    if out.json {
        return out.document(&serde_json::json!({ "added": added, "refreshed": refreshed }));
    }
    out.line(format_args!("{added} entries added, {refreshed} refreshed"))
}

pub(super) fn render(args: &TaxonomyArgs, artifacts: &Artifacts, out: Output) -> Result {
    let taxonomy = Placed::read(&args.taxonomy)?.whole()?;
    written(
        &[
            artifacts.write_text("alerts_taxonomy.md", &renders::markdown(&taxonomy))?,
            artifacts.write_text("alerts_taxonomy.html", &renders::html(&taxonomy))?,
            artifacts.write_text("alerts_taxonomy.jsonl", &renders::lines(&taxonomy))?,
        ],
        out,
    )
}

pub(super) fn changelog(args: &ChangelogArgs, artifacts: &Artifacts, out: Output) -> Result {
    let delta = delta_of(&args.two)?;
    if delta.is_empty() {
        out.note("no alert changed");
        return if out.json { out.document(&delta) } else { Ok(()) };
    }
    let date = artifacts.at().to_string();
    let section = words::changelog(&delta, date.split('T').next().unwrap_or_default());
    let before = if args.file.exists() { artifact::read(&args.file)? } else { HEAD.to_owned() };
    // The same command twice adds it once.
    let section = section.trim_end();
    if !before.trim_end().ends_with(section) {
        artifact::write(&args.file, &format!("{}\n\n{section}\n", before.trim_end()))?;
    }
    if out.json { out.document(&delta) } else { out.line(section) }
}

pub(super) fn delta(args: &Two, artifacts: &Artifacts, out: Output) -> Result {
    let delta = delta_of(args)?;
    artifacts.write_json("alerts-delta.json", &delta)?;
    let comment = words::comment(&delta);
    artifacts.write_text("alerts-delta.md", &comment)?;
    if out.json { out.document(&delta) } else { out.text(&comment) }
}

pub(super) fn drift(args: &DriftArgs, artifacts: &Artifacts, out: Output) -> Result {
    let delta = delta_of(&args.two)?;
    if delta.is_empty() {
        out.note("no alert changed: nothing is sent");
        return if out.json { out.document(&serde_json::json!({ "sent": false })) } else { Ok(()) };
    }
    let notice = words::notice(&delta, args.blocks);
    artifacts.write_json("alerts-drift.json", &notice)?;
    if let Some(webhook) = &args.webhook {
        // The same change has the same id: a pipeline that runs twice is heard once where a stream is in between.
        let id = hex::encode(Sha256::digest(canonical(&delta).as_bytes()));
        send(webhook, "alerts", MsgId::notice("alerts", &id), &notice)?;
    }
    let sent = args.webhook.is_some();
    if out.json {
        out.document(&serde_json::json!({ "sent": sent, "notice": notice }))
    } else {
        out.line(notice["text"].as_str().unwrap_or_default())
    }
}

fn delta_of(two: &Two) -> Result<Delta> {
    let curr = Placed::read(&two.curr)?.whole()?;
    let prev = version(&two.prev, &two.curr)?;
    Ok(Delta::between(&prev.unwrap_or_else(|| empty(&curr)), &curr))
}

/// A taxonomy of a file, or what a revision has under the name of the current one; `None` where it had none.
pub(super) fn version(named: &str, curr: &Path) -> Result<Option<Taxonomy>> {
    let Some(revision) = named.strip_prefix("git:") else {
        return Placed::read(Path::new(named))?.whole().map(Some);
    };
    at_revision(&Repository::of(curr.parent().unwrap_or(curr))?, revision, curr)
}

/// The same of a revision.
pub(super) fn at_revision(repository: &Repository, revision: &str, curr: &Path) -> Result<Option<Taxonomy>> {
    let Some(text) = repository.show(revision, curr)? else { return Ok(None) };
    let shown = PathBuf::from(format!("{revision}:{}", curr.display()));
    let placed = Placed::parse(&shown, &text).map_err(|failure| broken(&shown, 0, failure.message))?;
    placed.whole().map(Some)
}

fn empty(like: &Taxonomy) -> Taxonomy {
    Taxonomy { alerts: Vec::new(), ..like.clone() }
}

/// Names the files that were written.
pub(super) fn written(paths: &[PathBuf], out: Output) -> Result {
    if out.json {
        return out.document(&serde_json::json!({ "written": paths }));
    }
    paths.iter().try_for_each(|path| out.line(path.display()))
}

/// Prints faults, one per line or as one document.
fn print(faults: &[Fault], warnings: &[Fault], out: Output) -> Result {
    if out.json {
        return out.document(&serde_json::json!({ "faults": faults, "warnings": warnings }));
    }
    for fault in faults {
        out.line(fault)?;
    }
    for warning in warnings {
        out.line(format_args!("warning: {warning}"))?;
    }
    Ok(())
}
