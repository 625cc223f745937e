//! `agentforge queue`: what waits and runs in each queue, and who serves it.

use crate::{context::Context, words::ago};
use agentforge_client::view::{Moment, at};
use agentforge_proto::v1;
use agentforge_terminal::{Explain, Failure, Result, Table, YELLOW, styled};
use serde::Serialize;

/// What to do with queues.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List queues with open jobs or workers
    #[command(visible_alias = "stats")]
    List(ListArgs),
    /// Show one queue
    Get(GetArgs),
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
    }
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
    let mut table =
        Table::new(["QUEUE", "ACCEPTED", "QUEUED", "RUNNING", "DELAYED", "OLDEST WAITS", "WORKERS", "CAPACITY"]);
    for column in [1, 2, 3, 4, 6, 7] {
        table = table.right(column);
    }
    for q in queues {
        let numbers = [q.accepted, q.queued, q.running, q.delayed].map(|n| n.to_string());
        let [accepted, queued, running, delayed] = numbers;
        let (workers, capacity) = (q.workers.to_string(), q.capacity.to_string());
        let name = format!("{}/{}", q.mission, q.queue);
        table.row([name, accepted, queued, running, delayed, ago(q.oldest_waiting_since), workers, capacity], None);
    }
    table.print(context.out, empty)?;
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
