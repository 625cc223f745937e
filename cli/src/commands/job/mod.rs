//! `agentforge job`: submit, list, get, output, wait, watch, cancel, retry, attempts.

mod batch;
mod batch_line;
mod follow;
mod list;
mod output;
pub(crate) mod retry;
mod submit;
mod template;
mod wait;

pub use follow::until_final;
pub use submit::SubmitArgs;
pub use template::{Template, read_args};

use super::Context;
use crate::{
    error::{FAILED, Failure, NOT_SUCCEEDED, Result},
    output::{Table, clean, state_style, styled},
    view::{self, AttemptView, JobView, ago},
};
use agentforge_proto::v1;
use std::time::Duration;
use tokio::time::Instant;

/// What to do with jobs.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Submit a job, or many from a file
    Submit(Box<SubmitArgs>),
    /// List jobs, newest first
    List(Box<list::ListArgs>),
    /// Show one job
    Get(GetArgs),
    /// Print a job's result as the tool gave it, whatever its size
    Output(output::OutputArgs),
    /// Wait until jobs are final
    Wait(wait::WaitArgs),
    /// Follow a job until it ends
    Watch(IdArg),
    /// Stop jobs: before the start they never run, while running the tool is stopped
    Cancel(CancelArgs),
    /// Run jobs again that failed, died, were cancelled or expired
    Retry(Box<retry::RetryArgs>),
    /// Show the tries at a job
    Attempts(AttemptsArgs),
}

/// Which job, and whether to wait.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge job get 0198c5a2-7d1e-7c3a-9f00-0123456789ab
  agentforge job get 0198c5a2-7d1e-7c3a-9f00-0123456789ab --wait=5m --json")]
pub struct GetArgs {
    /// The job's id, or its first digits where they are enough
    id: String,
    /// Wait until it is final (exit code 3 when it did not succeed), at most so long
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, value_parser = crate::args::duration)]
    wait: Option<Option<Duration>>,
}

/// Which job to follow.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge job watch 0198c5a2-7d1e-7c3a-9f00-0123456789ab
  agentforge job watch 0198c5a2-7d1e-7c3a-9f00-0123456789ab --json | jq .state")]
pub struct IdArg {
    /// The job's id
    id: String,
}

/// Whose attempts.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge job attempts 0198c5a2-7d1e-7c3a-9f00-0123456789ab")]
pub struct AttemptsArgs {
    /// The job's id
    id: String,
}

/// Which jobs to stop.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge job cancel 0198c5a2-7d1e-7c3a-9f00-0123456789ab
  agentforge job list --state queued --all --json | jq -r '.jobs[].id' | xargs agentforge job cancel")]
pub struct CancelArgs {
    /// The jobs' ids
    #[arg(required = true, num_args = 1..)]
    ids: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// What failed, with the exit code.
pub async fn run(command: Command, context: &Context) -> Result {
    match command {
        Command::Submit(args) => submit::run(*args, context).await,
        Command::List(args) => list::run(*args, context).await,
        Command::Output(args) => output::run(args, context).await,
        Command::Wait(args) => wait::run(args, context).await,
        Command::Get(args) => get(args, context).await,
        Command::Watch(args) => follow::watch(&full_id(&args.id, context).await?, context).await,
        Command::Cancel(args) => cancel(args, context).await,
        Command::Retry(args) => retry::run(*args, context).await,
        Command::Attempts(args) => attempts(&full_id(&args.id, context).await?, context).await,
    }
}

/// Digits of a whole id, hyphens left out.
const ID_DIGITS: usize = 32;

/// The id that `given` is, or is the beginning of. What is neither goes to the server as it is, which says so.
pub(super) async fn full_id(given: &str, context: &Context) -> Result<String> {
    let digits = given.chars().filter(|c| *c != '-').count();
    let is_prefix = (4..ID_DIGITS).contains(&digits) && given.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    if !is_prefix {
        return Ok(given.to_owned());
    }
    let request = context.client.request(v1::FindJobsRequest { prefix: given.to_owned() });
    let found = context.client.jobs().find_jobs(request).await;
    let ids = found.map_err(|e| context.client.failure("finding the job", &e))?.into_inner().ids;
    match ids.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(Failure::new(format!("no job has an id that begins with {given}"))
            .code("not_found")
            .hint("`agentforge job list` shows whole ids")),
        _ => Err(Failure::new(format!("more than one job has an id that begins with {given}: {}", ids.join(" ")))
            .code("ambiguous")
            .hint("give more digits of it")),
    }
}

/// Prints a job and tells its end as an exit code.
fn show_ended(job: &v1::Job, context: &Context) -> Result {
    show(job, context)?;
    match job.state() {
        v1::JobState::Succeeded => Ok(()),
        _ => Err(Failure::quiet(NOT_SUCCEEDED)),
    }
}

pub(super) fn show(job: &v1::Job, context: &Context) -> Result {
    let view = JobView::new(job);
    if context.out.json { context.out.document(&view) } else { context.out.text(&view.describe()) }
}

async fn get(args: GetArgs, context: &Context) -> Result {
    if let Some(limit) = args.wait {
        let id = full_id(&args.id, context).await?;
        return show_ended(&until_final(&context.client, &id, Instant::now(), limit).await?, context);
    }
    let request = v1::GetJobRequest { id: full_id(&args.id, context).await?, wait: None };
    let job = context.client.jobs().get_job(context.client.request(request)).await;
    show(&job.map_err(|e| context.client.failure("getting the job", &e))?.into_inner(), context)
}

async fn cancel(args: CancelArgs, context: &Context) -> Result {
    let mut failures = 0;
    for given in args.ids {
        let id = match full_id(&given, context).await {
            Ok(id) => id,
            Err(failure) => {
                failures += 1;
                crate::report(&failure, context.out);
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
                crate::report(&context.client.failure(&format!("cancelling {}", clean(&id, 64)), &e), context.out);
            }
        }
    }
    if failures == 0 { Ok(()) } else { Err(Failure::quiet(FAILED)) }
}

async fn attempts(id: &str, context: &Context) -> Result {
    let request = context.client.request(v1::ListAttemptsRequest { id: id.to_owned() });
    let answer = context.client.jobs().list_attempts(request).await;
    let answer = answer.map_err(|e| context.client.failure("listing attempts", &e))?.into_inner();
    let views: Vec<_> = answer.attempts.iter().map(AttemptView::new).collect();
    if context.out.json {
        return context.out.document(&serde_json::json!({ "attempts": views }));
    }
    let mut table = Table::new(["TRY", "OUTCOME", "WORKER", "STARTED", "RAN", "NEXT TRY", "ERROR"]);
    for a in views {
        let ran = view::between(a.started_at, a.finished_at);
        let outcome = if a.outcome.is_empty() { "running".to_owned() } else { a.outcome };
        let cells = [
            a.attempt.to_string(),
            outcome.clone(),
            a.worker.unwrap_or_default(),
            ago(a.started_at),
            ran.map(crate::output::short_duration).unwrap_or_default(),
            ago(a.retry_at),
            a.error.map(|e| e.short()).unwrap_or_default(),
        ];
        table.row(cells, Some(&outcome));
    }
    table.print(context.out, "No attempt yet.")
}
