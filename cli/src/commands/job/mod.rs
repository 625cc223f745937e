//! `agentforge job`: submit, list, counts, get, output, wait, watch, cancel, retry, attempts.

mod args;
mod batch;
mod cancel;
mod counts;
mod follow;
mod list;
mod one;
mod output;
mod request;
pub(super) mod retry;
mod submit;
mod template;
mod wait;

pub use args::read_args;
pub use submit::SubmitArgs;
pub use template::Template;

use crate::{
    context::Context,
    words::{ago, short},
};
use agentforge_client::view::{self, AttemptView};
use agentforge_proto::v1;
use agentforge_terminal::{Explain, Result, Table, until_final};
use one::{full_id, show, show_ended};
use std::time::Duration;
use tokio::time::Instant;

/// What to do with jobs.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Submit a job, or many from a file
    Submit(Box<SubmitArgs>),
    /// List jobs, newest first
    List(Box<list::ListArgs>),
    /// Count jobs by state
    Counts(counts::CountsArgs),
    /// Show one job
    Get(GetArgs),
    /// Print a job's result as the tool returned it, regardless of its size
    Output(output::OutputArgs),
    /// Wait until jobs are final
    Wait(wait::WaitArgs),
    /// Follow a job until it ends
    Watch(IdArg),
    /// Stop jobs: before the start they never run, while running the tool is stopped
    Cancel(Box<cancel::CancelArgs>),
    /// Put back jobs that ended without success: failed, dead, cancelled or expired
    Retry(Box<retry::RetryArgs>),
    /// Show the attempts of a job
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
    /// Wait until it is final (exit code 3 if it did not succeed), for at most this long
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, value_parser = agentforge_terminal::duration)]
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

/// Runs it.
///
/// # Errors
/// What failed, with the exit code.
pub async fn run(command: Command, context: &Context) -> Result {
    match command {
        Command::Submit(args) => submit::run(*args, context).await,
        Command::List(args) => list::run(*args, context).await,
        Command::Counts(args) => counts::run(args, context).await,
        Command::Output(args) => output::run(args, context).await,
        Command::Wait(args) => wait::run(args, context).await,
        Command::Get(args) => get(args, context).await,
        Command::Watch(args) => follow::watch(&full_id(&args.id, context).await?, context).await,
        Command::Cancel(args) => cancel::run(*args, context).await,
        Command::Retry(args) => retry::run(*args, context).await,
        Command::Attempts(args) => attempts(&full_id(&args.id, context).await?, context).await,
    }
}

async fn get(args: GetArgs, context: &Context) -> Result {
    if let Some(limit) = args.wait {
        let id = full_id(&args.id, context).await?;
        return show_ended(&until_final(&context.client, &id, Instant::now(), limit, false).await?, context);
    }
    let request = v1::GetJobRequest { id: full_id(&args.id, context).await?, wait: None };
    let job = context.client.jobs().get_job(context.client.request(request)).await;
    show(&job.map_err(|e| context.client.failure("getting the job", &e))?.into_inner(), context)
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
            ran.map(agentforge_terminal::short_duration).unwrap_or_default(),
            ago(a.retry_at),
            a.error.map(|e| short(&e)).unwrap_or_default(),
        ];
        table.row(cells, Some(&outcome));
    }
    table.print(context.out, "No attempt yet.")
}
