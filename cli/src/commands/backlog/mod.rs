//! `agentforge backlog`: makes a backlog of small jobs, and measures how long it takes to drain.
//!
//! Works with any orchestrator that the command line names, a cluster's or the one of `agentforge dev`. Counts a run
//! only when every job of it succeeded; a run that did not finish is a failure and never a figure.

mod lag;
mod run;
mod verdict;

pub use run::{Workload, submit_and_drain};
pub use verdict::Outcome;

use crate::context::Context;
use agentforge_terminal::{BOLD, Failure, GREEN, Progress, RED, Result, Table, duration, short_duration, styled};
use jiff::Timestamp;
use lag::Lag;
use serde::Serialize;
use std::time::Duration;
use verdict::Verdict;

/// What to do with a backlog.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Submit many small jobs at once, without waiting
    Create(CreateArgs),
    /// Submit, wait until all are done, and compare the times with the objective
    Measure(MeasureArgs),
}

/// Which jobs.
#[derive(Clone, Debug, clap::Args)]
struct Jobs {
    /// Jobs of a backlog
    #[arg(long, value_name = "N", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    count: u64,
    /// The queue [default: the default queue]
    #[arg(long, value_name = "QUEUE", default_value = "", hide_default_value = true)]
    queue: String,
    /// The tool; its arguments are small
    #[arg(long, value_name = "TOOL", default_value = "echo", value_parser = ["echo", "sleep"])]
    tool: String,
}

/// A backlog to leave.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge backlog create --count 500
  agentforge job list --state queued --all")]
pub struct CreateArgs {
    #[command(flatten)]
    jobs: Jobs,
}

/// A backlog to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge backlog measure
  agentforge backlog measure --runs 5 --count 3000 --json > drain.json
  agentforge backlog measure --nats-url nats://127.0.0.1:4222      # also shows how many messages waited

Exit codes: 0 P95 and every run are within their limits; 1 P95 is above the objective; 2 a run exceeded the cap or
did not finish; 69 a run could not begin, because no orchestrator answers or the token is missing.")]
pub struct MeasureArgs {
    #[command(flatten)]
    jobs: Jobs,
    /// Runs, one after the other
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
    /// The objective for 95 of 100 runs
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    objective: Duration,
    /// The time limit of every run; a longer one is aborted
    #[arg(long, value_name = "DURATION", default_value = "20m", value_parser = duration)]
    cap: Duration,
    /// A note stored with the figures
    #[arg(long, value_name = "HASH")]
    commit: Option<String>,
    #[command(flatten)]
    nats: lag::NatsArgs,
}

/// Everything of a measurement.
#[derive(Debug, Serialize)]
struct Report {
    verdict: Verdict,
    /// Seconds, of the runs that came to their end.
    durations: Vec<f64>,
    /// Seconds; none when a run did not come to its end.
    p95: Option<f64>,
    objective_s: f64,
    cap_s: f64,
    count: u64,
    runs: Vec<Outcome>,
    timestamp: Timestamp,
    commit: Option<String>,
}

/// Does it.
///
/// # Errors
/// Jobs that are not taken; for a measurement the exit code of its verdict.
pub async fn run(command: Command, context: &Context) -> Result {
    match command {
        Command::Create(args) => create(&args, context).await,
        Command::Measure(args) => measure(args, context).await,
    }
}

impl Jobs {
    fn workload(&self) -> Workload {
        Workload { count: self.count, queue: self.queue.clone(), tool: self.tool.clone() }
    }
}

async fn create(args: &CreateArgs, context: &Context) -> Result {
    let workload = args.jobs.workload();
    let label = run::new_label();
    run::submit(&context.client, &workload, &label).await?;
    if context.out.json {
        return context.out.document(&serde_json::json!({ "count": workload.count, "label": label }));
    }
    context.out.line(format!("{} jobs are stored, with the label {label}", workload.count))
}

async fn measure(args: MeasureArgs, context: &Context) -> Result {
    let workload = args.jobs.workload();
    let lag = Lag::connect(&args.nats).await?;
    let mut runs = Vec::new();
    for n in 1..=args.runs {
        context.out.note(format!("run {n} of {}: {} jobs", args.runs, workload.count));
        let progress = Progress::new("jobs done", Some(workload.count));
        let outcome =
            submit_and_drain(&context.client, &workload, args.cap, lag.as_ref(), |done| progress.set(done)).await;
        progress.clear();
        runs.push(outcome);
    }
    let report = Report {
        verdict: verdict::judge(&runs, args.objective, args.cap),
        durations: runs.iter().filter_map(Outcome::seconds).collect(),
        p95: verdict::p95(&runs),
        objective_s: args.objective.as_secs_f64(),
        cap_s: args.cap.as_secs_f64(),
        count: workload.count,
        runs,
        timestamp: Timestamp::now(),
        commit: args.commit,
    };
    if context.out.json {
        context.out.document(&report)?
    } else {
        print(&report, context)?
    }
    match report.verdict.exit() {
        0 => Ok(()),
        code => Err(Failure::quiet(code)),
    }
}

fn print(report: &Report, context: &Context) -> Result {
    let mut table = Table::new(["RUN", "OUTCOME", "SECONDS", "BACKLOG"]).right(0).right(2).right(3);
    for (n, outcome) in report.runs.iter().enumerate() {
        let seconds = outcome.seconds().map_or_else(String::new, |s| format!("{s:.2}"));
        let backlog = outcome.peak_backlog().map_or_else(String::new, |n| n.to_string());
        table.row([(n + 1).to_string(), outcome.words(), seconds, backlog], None);
    }
    table.print(context.out, "")?;
    let word = match report.verdict {
        Verdict::Passed => styled(GREEN, "passed"),
        Verdict::P95Missed => styled(RED, "P95 is above the objective"),
        Verdict::CapBroken => styled(RED, "a run was above the cap or did not come to its end"),
        Verdict::Error => styled(RED, "a run could not begin, so nothing was measured"),
    };
    let p95 = report.p95.map_or_else(|| "none".to_owned(), |s| format!("{s:.2} s"));
    let (objective, cap) = (Duration::from_secs_f64(report.objective_s), Duration::from_secs_f64(report.cap_s));
    context.out.line(format!(
        "{} {word}; P95 {p95} (objective {}, cap {})",
        styled(BOLD, "verdict"),
        short_duration(objective),
        short_duration(cap),
    ))
}
