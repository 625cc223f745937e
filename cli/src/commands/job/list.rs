//! `agentforge job list`: which jobs there are, as a table of chosen columns, as JSON, and again and again.

use crate::{
    context::Context,
    words::{ago, short},
};
use agentforge_client::{
    pages,
    view::{self, JobView},
};
use agentforge_proto::{time::Micros, v1};
use agentforge_terminal::{Explain, Failure, Result, Table, label_text, short_duration, since};
use clap::{ValueEnum, builder::PossibleValuesParser};
use jiff::Timestamp;
use std::{io::IsTerminal, time::Duration};

/// Between two updates of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Jobs that are fetched to be sorted, at most.
const SORTED_MAX: u64 = 10_000;

/// Which jobs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge job list
  agentforge job list --state failed,dead --tool http --since 1h
  agentforge job list --columns id,state,labels,error --sort took
  agentforge job list --error 'timed out' --since 1d
  agentforge job list --state running --watch
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
    /// Only those submitted with the token of this name
    #[arg(long, value_name = "NAME")]
    submitted_by: Option<String>,
    /// Only those that ended with an error that has this text, as in the column ERROR
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Only with this label; all of several must match
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label_text)]
    labels: Vec<String>,
    /// Only those submitted since: 2h (ago), or RFC 3339
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<Timestamp>,
    /// Only those submitted before: 2h (ago), or RFC 3339
    #[arg(long, value_name = "WHEN", value_parser = since)]
    until: Option<Timestamp>,
    /// Maximum number
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// All of them, page by page
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// The columns of the table, comma-separated
    #[arg(short = 'o', long, value_enum, value_name = "COLUMN", value_delimiter = ',', conflicts_with = "json", default_values_t = DEFAULT)]
    columns: Vec<Column>,
    /// Sort by this column, largest first [default: newest first]
    #[arg(long, value_enum, value_name = "COLUMN")]
    sort: Option<Sort>,
    /// Show the list again every two seconds, until Ctrl-C
    #[arg(short = 'w', long, conflicts_with = "all")]
    watch: bool,
}

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Column {
    Id,
    State,
    Tool,
    Queue,
    Tries,
    Age,
    Took,
    Worker,
    Key,
    By,
    Labels,
    Created,
    Finished,
    Args,
    Result,
    Error,
}

const DEFAULT: [Column; 8] =
    [Column::Id, Column::State, Column::Tool, Column::Queue, Column::Tries, Column::Age, Column::Took, Column::Error];

/// What a list can be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    Took,
    Tries,
    Finished,
}

impl Column {
    fn heading(self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_ascii_uppercase()).unwrap_or_default()
    }

    fn cell(self, job: &JobView) -> String {
        match self {
            Self::Id => job.id.clone(),
            Self::State => job.state.to_owned(),
            Self::Tool => job.tool.clone(),
            Self::Queue => format!("{}/{}", job.mission, job.queue),
            Self::Tries => format!("{}/{}", job.attempts, job.max_attempts),
            Self::Age => ago(job.created_at),
            Self::Took => took(job).map(short_duration).unwrap_or_default(),
            Self::Worker => job.worker.clone().unwrap_or_default(),
            Self::Key => job.idempotency_key.as_deref().unwrap_or_default().to_owned(),
            Self::By => job.submitted_by.clone().unwrap_or_default(),
            Self::Labels => job.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" "),
            Self::Created => job.created_at.map(|t| format!("{:.3}", t.0)).unwrap_or_default(),
            Self::Finished => job.finished_at.map(|t| format!("{:.3}", t.0)).unwrap_or_default(),
            Self::Args => job.args.get().to_owned(),
            Self::Result => job.result.as_ref().map(|r| r.get().to_owned()).unwrap_or_default(),
            Self::Error => job.error.as_ref().map(short).unwrap_or_default(),
        }
    }
}

fn took(job: &JobView) -> Option<Duration> {
    view::between(job.created_at, job.finished_at)
}

pub(super) async fn run(args: ListArgs, context: &Context) -> Result {
    if !args.watch {
        return once(&args, context).await;
    }
    let is_terminal = std::io::stdout().is_terminal() && !context.out.json;
    loop {
        if is_terminal {
            // Up to the corner, and away with what was there.
            context.out.text("\x1b[H\x1b[2J")?;
        }
        once(&args, context).await?;
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

async fn once(args: &ListArgs, context: &Context) -> Result {
    let states: Vec<i32> = args.states.iter().filter_map(|w| view::parse_state(w)).map(|s| s as i32).collect();
    let stamp = |t: Option<Timestamp>| t.map(|t| Micros::from(t).to_proto());
    let fetch = |limit, cursor| {
        let request = v1::ListJobsRequest {
            created_after: stamp(args.since),
            created_before: stamp(args.until),
            mission: args.mission.clone().unwrap_or_default(),
            queue: args.queue.clone().unwrap_or_default(),
            tool: args.tool.clone().unwrap_or_default(),
            states: states.clone(),
            labels: args.labels.clone(),
            submitted_by: args.submitted_by.clone().unwrap_or_default(),
            error: args.error.clone().unwrap_or_default(),
            limit,
            cursor,
            ..Default::default()
        };
        async move {
            let answer = context.client.jobs().list_jobs(context.client.request(request)).await;
            let answer = answer.map_err(|e| context.client.failure("listing jobs", &e))?.into_inner();
            Ok((answer.jobs.iter().map(JobView::new).collect::<Vec<_>>(), answer.next_cursor))
        }
    };
    let wanted = (!args.all).then_some(args.limit);
    if let Some(sort) = args.sort {
        let mut jobs = Vec::new();
        let left = pages(Some(wanted.unwrap_or(SORTED_MAX).min(SORTED_MAX)), fetch, |page| {
            jobs.extend(page);
            Ok(())
        })
        .await?;
        if args.all && left.is_some() {
            return Err(Failure::usage(format!("there are more than {SORTED_MAX} jobs to sort"))
                .hint("narrow it with --since, --state or another filter, or sort what --json gives"));
        }
        sorted(&mut jobs, sort);
        return show(&jobs, left.as_deref(), args, context);
    }
    if context.out.json {
        let mut list = context.out.list("jobs");
        let left = pages(wanted, fetch, |page| list.extend(&page)).await?;
        return list.finish(left.as_deref());
    }
    let mut jobs = Vec::new();
    let left = pages(wanted, fetch, |page| {
        jobs.extend(page);
        Ok(())
    })
    .await?;
    show(&jobs, left.as_deref(), args, context)
}

fn sorted(jobs: &mut [JobView], by: Sort) {
    match by {
        Sort::Took => jobs.sort_by_key(|job| std::cmp::Reverse(took(job))),
        Sort::Tries => jobs.sort_by_key(|job| std::cmp::Reverse(job.attempts)),
        Sort::Finished => jobs.sort_by_key(|job| std::cmp::Reverse(job.finished_at.map(|t| t.0))),
    }
}

fn show(jobs: &[JobView], left: Option<&str>, args: &ListArgs, context: &Context) -> Result {
    if context.out.json {
        let mut list = context.out.list("jobs");
        list.extend(jobs)?;
        return list.finish(left);
    }
    let mut table = Table::of(args.columns.iter().map(|c| c.heading()).collect());
    if let Some(tries) = args.columns.iter().position(|c| *c == Column::Tries) {
        table = table.right(tries);
    }
    let has_state = args.columns.contains(&Column::State);
    for job in jobs {
        let cells = args.columns.iter().map(|column| column.cell(job)).collect();
        table.add(cells, has_state.then_some(job.state));
    }
    table.print(context.out, "No jobs. Submit one: agentforge job submit echo '{\"hello\":\"world\"}' --wait")?;
    if left.is_some() {
        context.out.note("There are more: --limit N or --all shows them.");
    }
    Ok(())
}
