//! `agentforge job cancel`: open jobs are stopped, by their ids or by a filter.

use super::one::full_id;
use super::retry::{Reason, rate, reasons, tell_reasons};
use crate::context::Context;
use agentforge_client::view::{self, JobView};
use agentforge_proto::{time::Micros, v1};
use agentforge_terminal::{
    Explain, FAILED, Failure, GREEN, Progress, Result, clean, label_text, since, state_style, styled,
};
use clap::builder::PossibleValuesParser;
use jiff::Timestamp;
use serde::Serialize;

/// States that a cancel ends.
const STATES: [&str; 3] = ["accepted", "queued", "running"];

/// Which jobs to stop.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge job cancel 0198c5a2-7d1e-7c3a-9f00-0123456789ab
  agentforge job cancel --state queued --queue bulk --dry-run
  agentforge job cancel --state accepted,queued,running --label batch=7 --detach

A job that leaves the named states meanwhile is left alone. `agentforge job retry` puts back what was cancelled. Exit code 1
when nothing was cancelled.")]
pub struct CancelArgs {
    /// The jobs' ids
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
    /// Only with this label; all of several must match
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label_text, requires = "states")]
    labels: Vec<String>,
    /// Only those submitted since: 2h (ago), or RFC 3339
    #[arg(long, value_name = "WHEN", value_parser = since, requires = "states")]
    since: Option<Timestamp>,
    /// Only those submitted before: 2h (ago), or RFC 3339
    #[arg(long, value_name = "WHEN", value_parser = since, requires = "states")]
    until: Option<Timestamp>,
    /// Jobs per second, at most 1000
    #[arg(long, default_value_t = 1000.0, value_parser = rate, requires = "states")]
    rate: f64,
    /// Maximum number [default: 10000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), requires = "states")]
    limit: Option<u32>,
    /// Only count what would be cancelled
    #[arg(long, requires = "states")]
    dry_run: bool,
    /// Do not wait: print the id of the operation that does it
    #[arg(long, requires = "states", conflicts_with = "dry_run")]
    detach: bool,
}

pub(super) async fn run(args: CancelArgs, context: &Context) -> Result {
    if args.states.is_empty() { each(args, context).await } else { many(args, context).await }
}

/// One answer per job: a job that could not be stopped is listed with its reason, and the others continue.
async fn each(args: CancelArgs, context: &Context) -> Result {
    let mut failures = 0;
    for given in args.ids {
        let id = match full_id(&given, context).await {
            Ok(id) => id,
            Err(failure) => {
                failures += 1;
                agentforge_terminal::report(&failure, context.out);
                continue;
            }
        };
        let answer =
            context.client.jobs().cancel_job(context.client.request(v1::CancelJobRequest { id: id.clone() })).await;
        match answer {
            Ok(job) if context.out.json => context.out.document(&JobView::new(&job.into_inner()))?,
            Ok(job) => {
                let word = view::state_word(job.into_inner().state());
                context.out.line(format!("{id}  {}", styled(state_style(word), word)))?;
            }
            Err(e) => {
                failures += 1;
                agentforge_terminal::report(
                    &context.client.failure(&format!("cancelling {}", clean(&id, 64)), &e),
                    context.out,
                );
            }
        }
    }
    if failures == 0 { Ok(()) } else { Err(Failure::quiet(FAILED)) }
}

#[derive(Debug, Default, Serialize)]
struct Cancelled {
    matched: u64,
    cancelled: u64,
    skipped: u64,
    not_cancelled: Vec<Reason>,
}

async fn many(args: CancelArgs, context: &Context) -> Result {
    let stamp = |t: Option<Timestamp>| t.map(|t| Micros::from(t).to_proto());
    let request = v1::CancelJobsRequest {
        job_ids: vec![],
        states: args.states.iter().filter_map(|w| view::parse_state(w)).map(|s| s as i32).collect(),
        mission: args.mission.unwrap_or_default(),
        queue: args.queue.unwrap_or_default(),
        tool: args.tool.unwrap_or_default(),
        submitted_by: args.submitted_by.unwrap_or_default(),
        labels: args.labels,
        created_after: stamp(args.since),
        created_before: stamp(args.until),
        rate: args.rate,
        limit: args.limit.unwrap_or_default(),
        dry_run: args.dry_run,
        r#async: args.detach,
    };
    let failure = |e: tonic::Status, done: &Cancelled| {
        let mut failure = context.client.failure("cancelling", &e);
        if done.cancelled > 0 {
            failure.message += &format!("; {} were cancelled before", done.cancelled);
        }
        failure
    };
    let mut done = Cancelled::default();
    let answer = context.client.jobs().cancel_jobs(request).await;
    let mut stream = answer.map_err(|e| failure(e, &done))?.into_inner();
    let progress = Progress::new(if args.dry_run { "jobs counted" } else { "jobs cancelled" }, None);
    let mut complete = false;
    while let Some(step) = stream.message().await.map_err(|e| failure(e, &done))? {
        if !step.operation_id.is_empty() {
            progress.clear();
            return super::super::operation::tell_detached(&step.operation_id, context);
        }
        (done.matched, done.cancelled, done.skipped) = (step.matched, step.cancelled, step.skipped);
        done.not_cancelled.extend(reasons(step.not_cancelled));
        progress.set(if args.dry_run { step.matched } else { step.cancelled });
        complete = step.done;
    }
    progress.clear();
    if !complete {
        return Err(Failure::new(format!("cancelling ended early, after {}", done.cancelled))
            .hint("run it again: what was cancelled stays so"));
    }
    if context.out.json {
        context.out.document(&done)?;
    } else {
        tell_reasons("not cancelled", &done.not_cancelled, done.skipped, context);
        let skipped = if done.skipped > 0 { format!(", {} skipped", done.skipped) } else { String::new() };
        let text = if args.dry_run {
            format!("{} would be cancelled", done.matched)
        } else {
            format!("{} cancelled", done.cancelled)
        };
        context.out.line(format!("{}{skipped}", styled(GREEN, text)))?;
    }
    if done.cancelled == 0 && !args.dry_run { Err(Failure::quiet(FAILED)) } else { Ok(()) }
}
