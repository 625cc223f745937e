//! The commands `contract diff`, `contract check`, `contract semver` and `contract rules`.
//!
//! Reads what is to be compared, calls the pure parts, writes artifacts, sends the notice. Decides nothing.

use super::{
    classify::{Announcement, Operations, Report},
    finding::{Finding, Level},
    rules,
    tree::{Tree, compare},
};
use crate::{
    artifact::{Artifacts, read_json},
    exit::gate,
    semver::{Status, Validation, validate},
    send::send,
    stability::{self, Limits, Metrics, Outcome, Run},
    summary::Shown,
    webhook,
};
use agentforge_message_id::MsgId;
use agentforge_terminal::{Failure, Output, Result};
use std::{collections::BTreeSet, path::PathBuf};

/// The history, below status/.
const HISTORY: &str = "stability-history.jsonl";
/// Findings that are printed; all are in the artifact.
const PRINTED_MAX: usize = 100;

/// What to do with a contract.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compare two versions of a contract: APIs, schemas, settings, metrics
    #[command(after_help = "\
Examples:
  agentforge governance contract diff old/openapi.json docs/openapi.json
  agentforge governance contract diff contracts/1.4.2 contracts/next --announced contracts/announced.json

Reads OpenAPI documents, JSON Schemas, .proto files, and pages of settings and metrics.
Writes status/contract-diff.json and status/operations-classification.json. Ends with 1 when something breaks that is
not announced.")]
    Diff(DiffArgs),
    /// Compare, judge the version, keep the history, write badges and a page
    #[command(after_help = "\
Examples:
  agentforge governance contract check contracts/1.4.2 contracts/next --sha $(git rev-parse HEAD) --output schemas

Sends a notice where one is due and --webhook is given.
Every run adds a line to status/stability-history.jsonl, also one that fails or could not compare anything.")]
    Check(CheckArgs),
    /// Judge a version by the one before
    #[command(after_help = "\
Examples:
  agentforge governance contract semver --previous 1.4.2 --current 1.5.0
  agentforge governance contract semver --previous 1.4.2 --current 2.0.0 --breaking")]
    Semver(SemverArgs),
    /// Print the rules
    #[command(after_help = "\
Examples:
  agentforge governance contract rules
  agentforge governance contract rules --json")]
    Rules,
}

#[derive(Debug, clap::Args)]
struct DiffArgs {
    /// The contract before: a file or a folder
    old: PathBuf,
    /// The contract now
    new: PathBuf,
    /// Breaking changes that are announced: a JSON list of {rule, place, at, reason}
    #[arg(long, value_name = "FILE")]
    announced: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    #[command(flatten)]
    diff: DiffArgs,
    #[command(flatten)]
    versions: Versions,
    /// The commit of this run: 7 to 40 hexadecimal digits
    #[arg(long, env = "GOVERNANCE_SHA")]
    sha: String,
    /// Runs that the ratio is counted over
    #[arg(long, default_value_t = 30, value_name = "RUNS", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    window: u16,
    /// The lowest ratio that is fine, 0 to 1
    #[arg(long, env = "GOVERNANCE_STABILITY_MIN", default_value_t = 0.9, value_name = "RATIO", value_parser = ratio)]
    stability_min: f64,
    /// Runs in a row that may compare nothing without failing. 0: each fails
    #[arg(long, env = "PLACEHOLDER_MAX_RUNS", default_value_t = 0, value_name = "RUNS")]
    placeholder_max_runs: usize,
    /// Placeholders in a row that are reported. 0 is never
    #[arg(long, env = "PLACEHOLDER_STREAK_ALERT_THRESHOLD", default_value_t = 5, value_name = "RUNS")]
    placeholder_streak_alert_threshold: usize,
    /// Where notices go: https://…, or nats://… for the broadcaster's events
    #[arg(long, env = "GOVERNANCE_WEBHOOK", value_name = "URL", hide_env_values = true)]
    webhook: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Versions {
    /// The version before [default: that of the OpenAPI documents]
    #[arg(long, value_name = "VERSION")]
    previous: Option<String>,
    /// The version now [default: that of the OpenAPI documents]
    #[arg(long, value_name = "VERSION")]
    current: Option<String>,
}

#[derive(Debug, clap::Args)]
struct SemverArgs {
    /// The version before
    #[arg(long)]
    previous: String,
    /// The version now
    #[arg(long)]
    current: String,
    /// Something breaks between them
    #[arg(long)]
    breaking: bool,
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err(format!("{text} is not from 0 to 1")) }
}

/// Runs one of the commands.
///
/// # Errors
/// A gate that failed, or broken input.
pub fn run(args: &Args, artifacts: &Artifacts, out: Output) -> Result {
    match &args.command {
        Command::Diff(args) => diff(args, artifacts, out),
        Command::Check(args) => check(args, artifacts, out),
        Command::Semver(args) => semver(args, artifacts, out),
        Command::Rules => print_rules(out),
    }
}

fn print_rules(out: Output) -> Result {
    for rule in rules::ALL {
        if out.json {
            out.document(&serde_json::json!({"id": rule.id, "level": rule.level, "meaning": rule.meaning}))?;
        } else {
            out.line(format_args!("| `{}` | {} | {} |", rule.id, rule.level, rule.meaning))?;
        }
    }
    Ok(())
}

/// A comparison that was made.
struct Compared {
    report: Report,
    operations: Operations,
    versions: (Option<String>, Option<String>),
}

fn compared(args: &DiffArgs) -> Result<Compared> {
    let announcements: Vec<Announcement> =
        args.announced.as_ref().map(|file| read_json(file)).transpose()?.unwrap_or_default();
    let (old, new) = (Tree::read(&args.old)?, Tree::read(&args.new)?);
    let found = compare(&old, &new);
    let operations = Operations::new(&old, &new, &found.iter().collect::<Vec<_>>());
    let versions = (old.version(), new.version());
    Ok(Compared { report: Report::new(found, &announcements), operations, versions })
}

fn write(compared: &Compared, artifacts: &Artifacts) -> Result {
    artifacts.write_json("contract-diff.json", &compared.report)?;
    artifacts.write_json("operations-classification.json", &compared.operations)?;
    Ok(())
}

fn print(report: &Report, out: Output) -> Result {
    if out.json {
        return out.document(report);
    }
    let told: Vec<&Finding> = report.findings.iter().filter(|f| f.level > Level::Compatible).collect();
    for finding in told.iter().take(PRINTED_MAX) {
        out.line(finding)?;
    }
    if told.len() > PRINTED_MAX {
        out.line(format_args!("{} more are in contract-diff.json", told.len() - PRINTED_MAX))?;
    }
    for unused in &report.unused_announcements {
        out.note(format_args!("announced and not found: {} of {}", unused.rule, unused.place));
    }
    let c = &report.counts;
    let text = format!(
        "{} breaking, {} announced, {} warnings, {} compatible changes",
        c.breaking, c.announced, c.warning, c.compatible
    );
    out.line(text)
}

fn judged(report: &Report) -> Result {
    match report.counts.breaking {
        0 => Ok(()),
        1 => Err(gate("1 breaking change is not announced")),
        n => Err(gate(format!("{n} breaking changes are not announced"))),
    }
}

fn diff(args: &DiffArgs, artifacts: &Artifacts, out: Output) -> Result {
    let compared = compared(args)?;
    write(&compared, artifacts)?;
    print(&compared.report, out)?;
    judged(&compared.report)
}

fn semver(args: &SemverArgs, artifacts: &Artifacts, out: Output) -> Result {
    let validation = validate(&args.previous, &args.current, args.breaking);
    artifacts.write_json("semver-validation.json", &validation)?;
    if out.json {
        out.document(&validation)?;
    } else {
        for text in validation.messages.iter().chain(&validation.recommendations) {
            out.line(text)?;
        }
    }
    fits(&validation)
}

fn fits(validation: &Validation) -> Result {
    match validation.status {
        Status::Ok | Status::Warn => Ok(()),
        Status::Fail => Err(gate(format!("the version does not fit: {}", validation.messages.join("; ")))),
        Status::Unknown => Err(Failure::usage(validation.messages.join("; "))),
    }
}

fn check(args: &CheckArgs, artifacts: &Artifacts, out: Output) -> Result {
    if !webhook::is_sha(&args.sha) {
        return Err(Failure::usage(format!("--sha {:?} is not 7 to 40 hexadecimal digits", args.sha)));
    }
    let mut runs = stability::history(&artifacts.path(HISTORY))?;
    let result = compared(&args.diff);
    if let Ok(compared) = &result {
        write(compared, artifacts)?;
        print(&compared.report, out)?;
    }
    let validation = version_of(args, result.as_ref().ok());
    let told = runs.last().map(|run| run.told.clone()).unwrap_or_default();
    let at = artifacts.at().to_string();
    runs.push(new_run(&args.sha, &at, result.as_ref().ok(), validation.status));
    let metrics = Metrics::of(&runs, usize::from(args.window));
    let limits = Limits {
        stability: args.stability_min,
        streak_alert: args.placeholder_streak_alert_threshold,
        streak_max: args.placeholder_max_runs,
    };
    let now = stability::conditions(&metrics, validation.status, &limits);
    let (reasons, known) = stability::reasons(&told, &now, validation.status);
    let operations = runs.last().map_or((0, 0), |run| (run.added, run.removed));
    let sent = tell(args, validation.status, &metrics, operations, &reasons);
    if let Some(run) = runs.last_mut() {
        // What did not arrive is sent again by the next run.
        run.told = if sent.is_ok() { known } else { told };
    }
    artifacts.write_text(HISTORY, &stability::lines(&runs))?;
    artifacts.write_json("stability-metrics.json", &metrics.document())?;
    artifacts.write_json("semver-validation.json", &validation)?;
    let report = result.as_ref().ok().map(|compared| &compared.report);
    let shown = Shown {
        at: &at,
        metrics: &metrics,
        semver: &validation,
        runs: &runs,
        findings: report.map(|report| report.findings.as_slice()).unwrap_or_default(),
        announced: report.map_or(0, |report| report.counts.announced),
        reasons: &reasons,
        operations,
        stability_threshold: limits.stability,
    };
    artifacts.write_json("governance-summary.json", &shown.summary())?;
    for (name, badge) in shown.badges() {
        artifacts.write_json(name, &badge)?;
    }
    artifacts.write_text("index.html", &shown.page())?;
    sent?;
    let compared = match result {
        Ok(compared) => compared,
        Err(failure) if metrics.placeholder_streak <= limits.streak_max => {
            out.note(format_args!("nothing was compared: {}", failure.message));
            return Ok(());
        }
        Err(failure) if limits.streak_max == 0 => return Err(failure),
        Err(failure) => {
            let (streak, max) = (metrics.placeholder_streak, limits.streak_max);
            return Err(gate(format!(
                "{streak} runs in a row compared nothing; {max} are allowed: {}",
                failure.message
            )));
        }
    };
    judged(&compared.report)?;
    if validation.status == Status::Fail {
        fits(&validation)?;
    }
    held(&now, &metrics, &limits)
}

/// What the version says; unknown when nothing was compared or nothing has a version.
fn version_of(args: &CheckArgs, compared: Option<&Compared>) -> Validation {
    let of = |given: &Option<String>, found: Option<&Option<String>>| {
        given.clone().or_else(|| found?.clone()).unwrap_or_default()
    };
    let previous = of(&args.versions.previous, compared.map(|c| &c.versions.0));
    let current = of(&args.versions.current, compared.map(|c| &c.versions.1));
    let Some(compared) = compared else {
        let mut unknown = validate("", &current, false);
        unknown.previous_version = previous;
        unknown.messages = vec!["nothing was compared".to_owned()];
        return unknown;
    };
    validate(&previous, &current, compared.report.breaking)
}

fn new_run(sha: &str, at: &str, compared: Option<&Compared>, semver: Status) -> Run {
    let outcome = match compared {
        None => Outcome::Placeholder,
        Some(compared) if compared.report.breaking => Outcome::Breaking,
        Some(_) => Outcome::Stable,
    };
    Run {
        schema_version: 1,
        at: at.to_owned(),
        sha: sha.to_owned(),
        outcome,
        breaking: compared.map_or(0, |c| c.report.counts.breaking + c.report.counts.announced),
        added: compared.map_or(0, |c| c.operations.added.len()),
        removed: compared.map_or(0, |c| c.operations.removed.len()),
        semver,
        told: BTreeSet::new(),
    }
}

fn tell(args: &CheckArgs, semver: Status, metrics: &Metrics, operations: (usize, usize), reasons: &[&str]) -> Result {
    let Some(notice) = webhook::notice(&args.sha, semver, metrics, operations, reasons) else { return Ok(()) };
    match &args.webhook {
        Some(target) if !target.is_empty() => {
            send(target, "notice", MsgId::outbox(&format!("governance:{notice}")), &notice)
        }
        _ => Ok(()),
    }
}

/// What else must hold after a run that broke nothing.
fn held(now: &BTreeSet<stability::Condition>, metrics: &Metrics, limits: &Limits) -> Result {
    if now.contains(&stability::Condition::StabilityDrop) {
        let (stable, total) = (metrics.window_stable_count, metrics.window_total_count);
        return Err(gate(format!(
            "{stable} of {total} runs are stable; the lowest ratio that is fine is {}",
            limits.stability
        )));
    }
    Ok(())
}
