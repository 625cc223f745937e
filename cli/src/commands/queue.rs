//! `agentforge queue`: what waits and runs in each queue, who serves it, and whether it is paused.

use crate::{context::Context, words::ago};
use agentforge_client::view::{Moment, at};
use agentforge_proto::v1;
use agentforge_terminal::{Explain, Failure, Result, Table, YELLOW, clean, short_duration, styled};
use serde::Serialize;
use std::time::Duration;

/// What to do with queues.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List queues with open jobs or workers
    #[command(visible_alias = "stats")]
    List(ListArgs),
    /// Show one queue
    Get(GetArgs),
    /// Pause a queue: what is accepted for it waits, and what runs ends
    Pause(PauseArgs),
    /// Resume a queue: its jobs run again
    Resume(ResumeArgs),
}

/// Which queues.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge queue list
  agentforge queue list --mission production --json | jq '.queues[] | select(.workers == 0)'")]
pub struct ListArgs {
    /// Only this mission
    #[arg(long)]
    mission: Option<String>,
}

/// Which queue.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge queue get default
  agentforge queue get bulk --mission production --json")]
pub struct GetArgs {
    /// Its name
    name: String,
    /// Its mission; required if several have a queue of this name
    #[arg(long)]
    mission: Option<String>,
}

/// Which queue to pause.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge queue pause bulk

It holds until it is resumed, across restarts and for every orchestrator. Nothing is lost, and deadlines keep counting.")]
pub struct PauseArgs {
    /// Its name
    name: String,
}

/// Which queue to resume.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge queue resume bulk
  agentforge queue list --json | jq -r '.queues[] | select(.paused) | .queue' | xargs -n 1 agentforge queue resume")]
pub struct ResumeArgs {
    /// Its name
    name: String,
}

/// A queue as `--json` prints it; field names are those of the REST API.
#[derive(Debug, Serialize)]
struct QueueView {
    mission: String,
    queue: String,
    accepted: u64,
    delayed: u64,
    queued: u64,
    running: u64,
    oldest_waiting_since: Option<Moment>,
    workers: u32,
    capacity: u32,
    ended_per_second: f64,
    drain_seconds: Option<f64>,
    paused: Option<PauseView>,
}

/// A queue's pause.
#[derive(Debug, Serialize)]
struct PauseView {
    since: Option<Moment>,
    by: String,
    in_effect: bool,
}

impl QueueView {
    fn new(q: &v1::QueueStats) -> Self {
        Self {
            mission: q.mission.clone(),
            queue: q.queue.clone(),
            accepted: q.accepted,
            delayed: q.delayed,
            queued: q.queued,
            running: q.running,
            oldest_waiting_since: at(q.oldest_waiting_since.as_ref()),
            workers: q.workers,
            capacity: q.capacity,
            ended_per_second: q.ended_per_second,
            drain_seconds: q.drain_seconds,
            paused: q.paused.as_ref().map(|p| PauseView {
                since: at(p.since.as_ref()),
                by: p.by.clone(),
                in_effect: p.in_effect,
            }),
        }
    }

    fn waits_for_nobody(&self) -> bool {
        self.workers == 0 && self.accepted + self.queued > 0
    }
}

/// Runs it.
///
/// # Errors
/// What failed.
pub async fn run(command: Command, context: &Context) -> Result {
    match command {
        Command::List(args) => {
            let queues = fetch(args.mission, context).await?;
            if context.out.json {
                return context.out.document(&serde_json::json!({ "queues": queues }));
            }
            show(&queues, "No queue has open jobs, and no worker is online.", context)
        }
        Command::Get(args) => get(args, context).await,
        Command::Pause(PauseArgs { name }) => {
            let request = context.client.request(v1::PauseQueueRequest { queue: name });
            let answer = context.client.jobs().pause_queue(request).await;
            changed(answer.map_err(|e| context.client.failure("pausing the queue", &e))?.get_ref(), context)
        }
        Command::Resume(ResumeArgs { name }) => {
            let request = context.client.request(v1::ResumeQueueRequest { queue: name });
            let answer = context.client.jobs().resume_queue(request).await;
            changed(answer.map_err(|e| context.client.failure("resuming the queue", &e))?.get_ref(), context)
        }
    }
}

fn changed(queue: &v1::QueueStats, context: &Context) -> Result {
    let view = QueueView::new(queue);
    if context.out.json { context.out.document(&view) } else { show(&[view], "", context) }
}

async fn get(args: GetArgs, context: &Context) -> Result {
    let mut queues = fetch(args.mission, context).await?;
    queues.retain(|q| q.queue == args.name);
    match queues.as_slice() {
        [] => Err(Failure::new(format!("queue {} has no open job, and no worker serves it", args.name))
            .code("not_found")
            .hint("`agentforge queue list` shows the queues that have either")),
        [one] if context.out.json => context.out.document(one),
        [_] => show(&queues, "", context),
        several => {
            let missions: Vec<_> = several.iter().map(|q| q.mission.as_str()).collect();
            Err(Failure::usage(format!("several missions have a queue {}: {}", args.name, missions.join(", ")))
                .hint("name one with --mission"))
        }
    }
}

async fn fetch(mission: Option<String>, context: &Context) -> Result<Vec<QueueView>> {
    let request = context.client.request(v1::ListQueuesRequest { mission: mission.unwrap_or_default() });
    let answer = context.client.jobs().list_queues(request).await;
    let answer = answer.map_err(|e| context.client.failure("listing queues", &e))?.into_inner();
    Ok(answer.queues.iter().map(QueueView::new).collect())
}

fn show(queues: &[QueueView], empty: &str, context: &Context) -> Result {
    let mut table = Table::new([
        "QUEUE",
        "STATE",
        "ACCEPTED",
        "QUEUED",
        "RUNNING",
        "DELAYED",
        "OLDEST WAITS",
        "WORKERS",
        "CAPACITY",
        "DRAINED IN",
    ]);
    for column in [2, 3, 4, 5, 7, 8, 9] {
        table = table.right(column);
    }
    for q in queues {
        let numbers = [q.accepted, q.queued, q.running, q.delayed].map(|n| n.to_string());
        let [accepted, queued, running, delayed] = numbers;
        let (workers, capacity) = (q.workers.to_string(), q.capacity.to_string());
        let name = format!("{}/{}", q.mission, q.queue);
        let state = if q.paused.is_some() { "paused" } else { "runs" }.to_owned();
        let waits = ago(q.oldest_waiting_since);
        let drained = q.drain_seconds.filter(|s| *s > 0.0).map(|s| short_duration(Duration::from_secs_f64(s.min(1e9))));
        let drained = drained.unwrap_or_default();
        table.row([name, state, accepted, queued, running, delayed, waits, workers, capacity, drained], None);
    }
    table.print(context.out, empty)?;
    for (q, pause) in queues.iter().filter_map(|q| Some((q, q.paused.as_ref()?))) {
        let held = if pause.in_effect { "" } else { "; NATS has not followed yet, jobs in its stream may still run" };
        context.out.note(format!(
            "{}/{} is paused since {} by {}{held}",
            q.mission,
            q.queue,
            ago(pause.since),
            clean(&pause.by, 64)
        ));
    }
    for q in queues.iter().filter(|q| q.waits_for_nobody()) {
        context.out.note(format!(
            "{} no worker serves {}/{}: start one with WORKER_QUEUES={}, or look whether the name is right",
            styled(YELLOW, "warning:"),
            q.mission,
            q.queue,
            q.queue
        ));
    }
    Ok(())
}
