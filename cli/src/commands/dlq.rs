//! `agentforge dlq`: dead letters, and putting them back.

use super::job::retry::{Reason, rate, reasons, tell_reasons};
use crate::{
    context::Context,
    words::{ago, short},
};
use agentforge_client::{
    pages,
    view::{AttemptView, DeadLetterView},
};
use agentforge_proto::v1;
use agentforge_terminal::{BOLD, Explain, FAILED, Failure, GREEN, Progress, Result, Table, clean, styled};
use clap::builder::PossibleValuesParser;
use serde::Serialize;

const REASONS: [&str; 5] =
    ["attempts_exhausted", "not_retryable", "worker_lost", "invalid_message", "invalid_signature"];

/// What to do with dead letters.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List dead letters, newest first
    List(ListArgs),
    /// Show one dead letter, with its job's attempts
    Get(GetArgs),
    /// Delete dead letters; their jobs are unchanged
    Discard(DiscardArgs),
    /// Put dead jobs back in their queues with fresh attempts
    Redrive(RedriveArgs),
}

/// Which dead letters.
#[derive(Clone, Debug, clap::Args)]
pub struct Filter {
    /// Only this mission
    #[arg(long)]
    mission: Option<String>,
    /// Only this queue
    #[arg(long)]
    queue: Option<String>,
    /// Only with this reason
    #[arg(long, value_parser = PossibleValuesParser::new(REASONS))]
    reason: Option<String>,
}

/// What to list.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge dlq list
  agentforge dlq list --queue web --reason attempts_exhausted
  agentforge dlq list --all --json | jq -r '.dead_letters[].job_id'")]
pub struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// Include those that were put back
    #[arg(long)]
    include_redriven: bool,
    /// Maximum number
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// All of them, page by page
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

/// Which letter.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge dlq get 0198c5a2-7d1e-7c3a-9f00-0123456789ab
  agentforge dlq get 0198c5a2-7d1e-7c3a-9f00-0123456789ab --json | jq .attempts")]
pub struct GetArgs {
    /// The letter's id, or its job's: then the latest
    id: String,
}

/// What to delete.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge dlq discard 0198c5a2-7d1e-7c3a-9f00-0123456789ab
  agentforge dlq discard --all --reason invalid_message
  agentforge dlq discard --all --queue web --limit 100 --json")]
pub struct DiscardArgs {
    /// Ids of dead letters, or of their jobs
    #[arg(required_unless_present = "all", conflicts_with_all = ["all", "mission", "queue", "reason"])]
    ids: Vec<String>,
    /// Every dead letter that matches the filters
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Maximum number [default: 10000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// What to put back.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge dlq redrive 0198c5a2-7d1e-7c3a-9f00-0123456789ab
  agentforge dlq redrive --all --rate 20
  agentforge dlq redrive --all --queue web --reason attempts_exhausted --limit 100
  agentforge dlq redrive --all --detach")]
pub struct RedriveArgs {
    /// Ids of dead jobs
    #[arg(required_unless_present = "all", conflicts_with_all = ["all", "mission", "queue", "reason"])]
    ids: Vec<String>,
    /// Every dead job that matches the filters
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Jobs per second, at most 1000
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    rate: f64,
    /// Maximum number [default: 10000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Do not wait: print the id of the operation that does it
    #[arg(long)]
    detach: bool,
}

/// Runs it.
///
/// # Errors
/// What failed.
pub async fn run(command: Command, context: &Context) -> Result {
    match command {
        Command::List(args) => list(args, context).await,
        Command::Get(args) => get(&args.id, context).await,
        Command::Discard(args) => discard(args, context).await,
        Command::Redrive(args) => redrive(args, context).await,
    }
}

async fn get(id: &str, context: &Context) -> Result {
    let request = context.client.request(v1::GetDeadLetterRequest { id: id.to_owned() });
    let letter = context.client.jobs().get_dead_letter(request).await;
    let letter = letter.map_err(|e| context.client.failure("reading the dead letter", &e))?.into_inner();
    let mut attempts = Vec::new();
    if !letter.job_id.is_empty() {
        let request = context.client.request(v1::ListAttemptsRequest { id: letter.job_id.clone() });
        // A job that was pruned has none any more; its letter is shown all the same.
        if let Ok(answer) = context.client.jobs().list_attempts(request).await {
            attempts = answer.into_inner().attempts.iter().map(AttemptView::new).collect();
        }
    }
    let view = DeadLetterView::new(&letter);
    if context.out.json {
        let mut value = serde_json::to_value(&view).map_err(std::io::Error::from)?;
        value["attempts"] = serde_json::to_value(&attempts).map_err(std::io::Error::from)?;
        return context.out.document(&value);
    }
    let mut text = String::new();
    let error = view.error.as_ref().map(short).unwrap_or_default();
    for (name, value) in [
        ("id", view.id.clone()),
        ("job", view.job_id.clone().unwrap_or_else(|| "(no job)".to_owned())),
        ("reason", view.reason.clone()),
        ("tool", view.tool.clone()),
        ("queue", format!("{}/{}", view.mission, view.queue)),
        ("since", ago(view.created_at)),
        ("put back", ago(view.redriven_at)),
        ("error", error),
    ] {
        if !value.is_empty() {
            text += &format!("{} {}\n", styled(BOLD, format!("{name:<12}")), clean(&value, 4_000));
        }
    }
    for a in &attempts {
        let error = a.error.as_ref().map(short).unwrap_or_default();
        text += &format!("{} {} {error}\n", styled(BOLD, format!("try {:<8}", a.attempt)), a.outcome);
    }
    context.out.text(&text)
}

async fn discard(args: DiscardArgs, context: &Context) -> Result {
    let request = v1::DiscardDeadLettersRequest {
        ids: args.ids,
        mission: args.filter.mission.unwrap_or_default(),
        queue: args.filter.queue.unwrap_or_default(),
        reason: args.filter.reason.unwrap_or_default(),
        limit: args.limit.unwrap_or_default(),
    };
    let answer = context.client.jobs().discard_dead_letters(context.client.request(request)).await;
    let discarded = answer.map_err(|e| context.client.failure("discarding dead letters", &e))?.into_inner().discarded;
    if context.out.json {
        return context.out.document(&serde_json::json!({ "discarded": discarded }));
    }
    context.out.line(styled(GREEN, format!("{discarded} discarded")))
}

async fn list(args: ListArgs, context: &Context) -> Result {
    let fetch = |limit, cursor| {
        let filter = args.filter.clone();
        let request = v1::ListDeadLettersRequest {
            mission: filter.mission.unwrap_or_default(),
            queue: filter.queue.unwrap_or_default(),
            reason: filter.reason.unwrap_or_default(),
            include_redriven: args.include_redriven,
            limit,
            cursor,
        };
        async move {
            let answer = context.client.jobs().list_dead_letters(context.client.request(request)).await;
            let answer = answer.map_err(|e| context.client.failure("listing dead letters", &e))?.into_inner();
            Ok((answer.dead_letters.iter().map(DeadLetterView::new).collect::<Vec<_>>(), answer.next_cursor))
        }
    };
    let wanted = (!args.all).then_some(args.limit);
    if context.out.json {
        let mut list = context.out.list("dead_letters");
        let left = pages(wanted, fetch, |page| list.extend(&page)).await?;
        return list.finish(left.as_deref());
    }
    let mut table = Table::new(["JOB", "REASON", "TOOL", "QUEUE", "AGE", "PUT BACK", "ERROR"]);
    let add = |page: Vec<DeadLetterView>| {
        for d in page {
            let job = d.job_id.unwrap_or_else(|| "(no job)".to_owned());
            let error = d.error.map(|e| short(&e)).unwrap_or_default();
            let queue = format!("{}/{}", d.mission, d.queue);
            table.row([job, d.reason, d.tool, queue, ago(d.created_at), ago(d.redriven_at), error], None);
        }
        Ok(())
    };
    let left = pages(wanted, fetch, add).await?;
    table.print(context.out, "No dead letters.")?;
    if left.is_some() {
        context.out.note("There are more: --limit N or --all shows them.");
    }
    if !table.is_empty() {
        context.out.note("Put them back with `agentforge dlq redrive ID…` or `--all`.");
    }
    Ok(())
}

#[derive(Serialize)]
struct Redriven {
    redriven: u64,
    skipped: u64,
    not_put_back: Vec<Reason>,
}

async fn redrive(args: RedriveArgs, context: &Context) -> Result {
    let total = if args.all { None } else { Some(args.ids.len() as u64) };
    let request = v1::RedriveDeadLettersRequest {
        job_ids: args.ids,
        mission: args.filter.mission.unwrap_or_default(),
        queue: args.filter.queue.unwrap_or_default(),
        reason: args.filter.reason.unwrap_or_default(),
        rate: args.rate,
        limit: args.limit.unwrap_or_default(),
        r#async: args.detach,
    };
    let failure = |e: tonic::Status, done: &Redriven| {
        let mut failure = context.client.failure("putting dead jobs back", &e);
        if done.redriven > 0 {
            failure.message += &format!("; {} were put back before", done.redriven);
        }
        failure
    };
    let mut done = Redriven { redriven: 0, skipped: 0, not_put_back: vec![] };
    let answer = context.client.jobs().redrive_dead_letters(request).await;
    let mut stream = answer.map_err(|e| failure(e, &done))?.into_inner();
    let progress = Progress::new("jobs put back", total);
    let mut complete = false;
    while let Some(step) = stream.message().await.map_err(|e| failure(e, &done))? {
        if !step.operation_id.is_empty() {
            progress.clear();
            return super::operation::tell_detached(&step.operation_id, context);
        }
        (done.redriven, done.skipped) = (step.redriven, step.skipped);
        done.not_put_back.extend(reasons(step.not_put_back));
        progress.set(step.redriven);
        complete = step.done;
    }
    progress.clear();
    if !complete {
        return Err(Failure::new(format!("putting dead jobs back ended early, after {}", done.redriven))
            .hint("run it again: what was put back is not put back twice"));
    }
    if context.out.json {
        context.out.document(&done)?;
    } else {
        tell_reasons("not put back", &done.not_put_back, done.skipped, context);
        let skipped = if done.skipped > 0 { format!(", {} skipped", done.skipped) } else { String::new() };
        context.out.line(format!("{}{skipped}", styled(GREEN, format!("{} put back", done.redriven))))?;
    }
    // An empty list of dead letters is not a failure; jobs that were meant but not put back are one.
    if done.redriven == 0 && done.skipped > 0 { Err(Failure::quiet(FAILED)) } else { Ok(()) }
}
