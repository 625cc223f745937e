//! `agentforge job`: submit, list, get, watch, cancel, attempts.

mod batch;
mod batch_line;
mod follow;
mod submit;
mod template;

use follow::WAIT_STEP;
pub use follow::until_final;
pub use submit::SubmitArgs;
pub use template::{Template, read_args};

use super::{Context, pages};
use crate::{
    args::label_text,
    error::{FAILED, Failure, NOT_SUCCEEDED, Result},
    output::{Table, clean, state_style, styled},
    view::{self, AttemptView, JobView, ago},
};
use agentforge_proto::v1;
use clap::builder::PossibleValuesParser;
use std::time::Duration;
use tokio::time::Instant;

/// What to do with jobs.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Submit a job, or many from a file
    Submit(Box<SubmitArgs>),
    /// List jobs, newest first
    List(ListArgs),
    /// Show one job
    Get(GetArgs),
    /// Follow a job until it ends
    Watch(IdArg),
    /// Stop jobs: before the start they never run, while running the tool is stopped
    Cancel(CancelArgs),
    /// Show the tries at a job
    Attempts(AttemptsArgs),
}

/// Which jobs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge job list
  agentforge job list --state failed --state dead --tool http
  agentforge job list --label team=blue --all --json | jq -r '.jobs[].id'")]
pub struct ListArgs {
    /// Only this mission
    #[arg(long)]
    mission: Option<String>,
    /// Only this queue
    #[arg(long)]
    queue: Option<String>,
    /// Only this tool
    #[arg(long)]
    tool: Option<String>,
    /// Only these states; may be given several times
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',', value_parser = PossibleValuesParser::new(view::states()))]
    states: Vec<String>,
    /// Only with this label; all of several must match
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label_text)]
    labels: Vec<String>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// All of them, page by page
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

/// Which job, and whether to wait.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge job get 0198c5a2-7d1e-7c3a-9f00-0123456789ab
  agentforge job get 0198c5a2-7d1e-7c3a-9f00-0123456789ab --wait=5m --json")]
pub struct GetArgs {
    /// The job's id
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
        Command::List(args) => list(args, context).await,
        Command::Get(args) => get(args, context).await,
        Command::Watch(args) => follow::watch(&args.id, context).await,
        Command::Cancel(args) => cancel(args, context).await,
        Command::Attempts(args) => attempts(&args.id, context).await,
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
        return show_ended(&until_final(&context.client, &args.id, Instant::now(), limit).await?, context);
    }
    let request = v1::GetJobRequest { id: args.id, wait: None };
    let job = context.client.jobs().get_job(context.client.request(request)).await;
    show(&job.map_err(|e| context.client.failure("getting the job", &e))?.into_inner(), context)
}

async fn list(args: ListArgs, context: &Context) -> Result {
    let states: Vec<i32> = args.states.iter().filter_map(|w| view::parse_state(w)).map(|s| s as i32).collect();
    let fetch = |limit, cursor| {
        let request = v1::ListJobsRequest {
            mission: args.mission.clone().unwrap_or_default(),
            queue: args.queue.clone().unwrap_or_default(),
            tool: args.tool.clone().unwrap_or_default(),
            states: states.clone(),
            labels: args.labels.clone(),
            limit,
            cursor,
        };
        async move {
            let answer = context.client.jobs().list_jobs(context.client.request(request)).await;
            let answer = answer.map_err(|e| context.client.failure("listing jobs", &e))?.into_inner();
            Ok((answer.jobs.iter().map(JobView::new).collect::<Vec<_>>(), answer.next_cursor))
        }
    };
    let wanted = (!args.all).then_some(args.limit);
    if context.out.json {
        let mut list = context.out.list("jobs");
        let left = pages(wanted, fetch, |page| list.extend(&page)).await?;
        return list.finish(left.as_deref());
    }
    let mut table = Table::new(["ID", "STATE", "TOOL", "QUEUE", "TRIES", "AGE", "TOOK", "ERROR"]).right(4);
    let add = |page: Vec<JobView>| {
        for job in page {
            let took = view::between(job.created_at, job.finished_at);
            let cells = [
                job.id,
                job.state.to_owned(),
                job.tool,
                format!("{}/{}", job.mission, job.queue),
                format!("{}/{}", job.attempts, job.max_attempts),
                ago(job.created_at),
                took.map(crate::output::short_duration).unwrap_or_default(),
                job.error.map(|e| e.short()).unwrap_or_default(),
            ];
            table.row(cells, Some(job.state));
        }
        Ok(())
    };
    let left = pages(wanted, fetch, add).await?;
    table.print(context.out, "No jobs. Submit one: agentforge job submit echo '{\"hello\":\"world\"}' --wait")?;
    if left.is_some() {
        context.out.note("There are more: --limit N or --all shows them.");
    }
    Ok(())
}

async fn cancel(args: CancelArgs, context: &Context) -> Result {
    let mut failures = 0;
    for id in args.ids {
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
