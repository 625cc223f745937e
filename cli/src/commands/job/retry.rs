//! `agentforge job retry`: jobs that ended without success run again, by their ids or by a filter.

use crate::context::Context;
use agentforge_client::view::{self, JobView};
use agentforge_proto::{
    time::{Micros, duration_to_proto},
    v1,
};
use agentforge_terminal::{
    Explain, FAILED, Failure, GREEN, Progress, Result, clean, duration, label_text, since, state_style, styled,
};
use clap::builder::PossibleValuesParser;
use jiff::Timestamp;
use serde::Serialize;
use std::time::Duration;

/// States that a retry undoes.
const STATES: [&str; 4] = ["failed", "dead", "cancelled", "expired"];
/// Reasons shown for people; JSON has all that the server sends.
const REASONS_SHOWN: usize = 10;

/// Which jobs to run again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge job retry 0198c5a2-7d1e-7c3a-9f00-0123456789ab
  agentforge job retry --state expired --queue default --dry-run
  agentforge job retry --state expired --state cancelled --since 2h --rate 20
  agentforge job retry --state expired --finished-after 2030-01-31T08:00:00Z --deadline-in 1h

A job keeps its id, its key and the record of its attempts, gets as many attempts again, and as much time as it
had. Exit code 1 when nothing was put back.")]
pub struct RetryArgs {
    /// Ids of jobs
    #[arg(required_unless_present = "states", conflicts_with = "states")]
    ids: Vec<String>,
    /// Every job in these states that matches the filters; may be given several times
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',', value_parser = PossibleValuesParser::new(STATES))]
    states: Vec<String>,
    /// Only this mission
    #[arg(long, requires = "states")]
    mission: Option<String>,
    /// Only this queue
    #[arg(long, requires = "states")]
    queue: Option<String>,
    /// Only this tool
    #[arg(long, requires = "states")]
    tool: Option<String>,
    /// Only those submitted with the token of this name
    #[arg(long, value_name = "NAME", requires = "states")]
    submitted_by: Option<String>,
    /// Only those that ended with an error that has this text, as in the column ERROR
    #[arg(long, value_name = "TEXT", requires = "states")]
    error: Option<String>,
    /// Only with this label; all of several must match
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label_text, requires = "states")]
    labels: Vec<String>,
    /// Only those submitted since: 2h (ago), or RFC 3339
    #[arg(long, value_name = "WHEN", value_parser = since, requires = "states")]
    since: Option<Timestamp>,
    /// Only those submitted before: 2h (ago), or RFC 3339
    #[arg(long, value_name = "WHEN", value_parser = since, requires = "states")]
    until: Option<Timestamp>,
    /// Only those that ended since: 2h (ago), or RFC 3339
    #[arg(long, value_name = "WHEN", value_parser = since, requires = "states")]
    finished_after: Option<Timestamp>,
    /// Only those that ended before: 2h (ago), or RFC 3339
    #[arg(long, value_name = "WHEN", value_parser = since, requires = "states")]
    finished_before: Option<Timestamp>,
    /// Jobs per second, at most 1000
    #[arg(long, default_value_t = 50.0, value_parser = rate, requires = "states")]
    rate: f64,
    /// Maximum number [default: 10000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), requires = "states")]
    limit: Option<u32>,
    /// Only count what would be put back
    #[arg(long, requires = "states")]
    dry_run: bool,
    /// Do not wait: print the id of the operation that does it
    #[arg(long, requires = "states", conflicts_with = "dry_run")]
    detach: bool,
    /// How long each may take from now on [default: the same time as before]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    deadline_in: Option<Duration>,
}

/// Jobs per second.
pub(crate) fn rate(s: &str) -> Result<f64, String> {
    match s.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1000.0 => Ok(rate),
        _ => Err("is not a number above 0 and up to 1000".to_owned()),
    }
}

pub(super) async fn run(args: RetryArgs, context: &Context) -> Result {
    if args.states.is_empty() { each(args, context).await } else { many(args, context).await }
}

/// One answer per job: a job that could not be put back is listed with its reason, and the others continue.
async fn each(args: RetryArgs, context: &Context) -> Result {
    let deadline_in = args.deadline_in.map(duration_to_proto);
    let mut failures = 0;
    for id in args.ids {
        let request = v1::RetryJobRequest { id: id.clone(), deadline_in };
        match context.client.jobs().retry_job(context.client.request(request)).await {
            Ok(job) if context.out.json => context.out.document(&JobView::new(&job.into_inner()))?,
            Ok(job) => {
                let word = view::state_word(job.into_inner().state());
                context.out.line(format!("{id}  {}", styled(state_style(word), word)))?;
            }
            Err(e) => {
                failures += 1;
                agentforge_terminal::report(
                    &context.client.failure(&format!("retrying {}", clean(&id, 64)), &e),
                    context.out,
                );
            }
        }
    }
    if failures == 0 { Ok(()) } else { Err(Failure::quiet(FAILED)) }
}

#[derive(Debug, Default, Serialize)]
struct Retried {
    matched: u64,
    retried: u64,
    skipped: u64,
    not_put_back: Vec<Reason>,
}

/// A job to which nothing was done.
#[derive(Debug, Serialize)]
pub(crate) struct Reason {
    job_id: String,
    reason: String,
}

/// As JSON has them.
pub(crate) fn reasons(told: Vec<v1::NotPutBack>) -> impl Iterator<Item = Reason> {
    told.into_iter().map(|n| Reason { job_id: n.job_id, reason: n.reason })
}

/// A line on stderr for each of the first few.
pub(crate) fn tell_reasons(what: &str, reasons: &[Reason], skipped: u64, context: &Context) {
    for r in reasons.iter().take(REASONS_SHOWN) {
        context.out.note(format!("{what}: {}: {}", clean(&r.job_id, 64), clean(&r.reason, 300)));
    }
    let shown = reasons.len().min(REASONS_SHOWN) as u64;
    if skipped > shown && shown > 0 {
        context.out.note(format!("and {} more; --json shows up to 100", skipped - shown));
    }
}

async fn many(args: RetryArgs, context: &Context) -> Result {
    let stamp = |t: Option<Timestamp>| t.map(|t| Micros::from(t).to_proto());
    let request = v1::RetryJobsRequest {
        job_ids: vec![],
        states: args.states.iter().filter_map(|w| view::parse_state(w)).map(|s| s as i32).collect(),
        mission: args.mission.unwrap_or_default(),
        queue: args.queue.unwrap_or_default(),
        tool: args.tool.unwrap_or_default(),
        submitted_by: args.submitted_by.unwrap_or_default(),
        error: args.error.unwrap_or_default(),
        labels: args.labels,
        created_after: stamp(args.since),
        created_before: stamp(args.until),
        finished_after: stamp(args.finished_after),
        finished_before: stamp(args.finished_before),
        rate: args.rate,
        limit: args.limit.unwrap_or_default(),
        dry_run: args.dry_run,
        deadline_in: args.deadline_in.map(duration_to_proto),
        r#async: args.detach,
    };
    let failure = |e: tonic::Status, done: &Retried| {
        let mut failure = context.client.failure("retrying", &e);
        if done.retried > 0 {
            failure.message += &format!("; {} were put back before", done.retried);
        }
        failure
    };
    let mut done = Retried::default();
    let answer = context.client.jobs().retry_jobs(request).await;
    let mut stream = answer.map_err(|e| failure(e, &done))?.into_inner();
    let progress = Progress::new(if args.dry_run { "jobs counted" } else { "jobs put back" }, None);
    let mut complete = false;
    while let Some(step) = stream.message().await.map_err(|e| failure(e, &done))? {
        if !step.operation_id.is_empty() {
            progress.clear();
            return super::super::operation::tell_detached(&step.operation_id, context);
        }
        (done.matched, done.retried, done.skipped) = (step.matched, step.retried, step.skipped);
        done.not_put_back.extend(reasons(step.not_put_back));
        progress.set(if args.dry_run { step.matched } else { step.retried });
        complete = step.done;
    }
    progress.clear();
    if !complete {
        return Err(Failure::new(format!("retrying ended early, after {}", done.retried))
            .hint("run it again: what was put back is not put back twice"));
    }
    let nothing = if args.dry_run { done.matched == 0 } else { done.retried == 0 };
    if context.out.json {
        context.out.document(&done)?;
    } else {
        tell_reasons("not put back", &done.not_put_back, done.skipped, context);
        let skipped = if done.skipped > 0 { format!(", {} skipped", done.skipped) } else { String::new() };
        let text = if args.dry_run {
            format!("{} would be put back", done.matched)
        } else {
            format!("{} put back", done.retried)
        };
        context.out.line(format!("{}{skipped}", styled(GREEN, text)))?;
    }
    if nothing && !args.dry_run { Err(Failure::quiet(FAILED)) } else { Ok(()) }
}
