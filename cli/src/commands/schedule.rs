//! `agentforge schedule`: jobs made by the clock. A schedule may be named by its name or its id.

use super::job::{Template, read_args};
use crate::{
    context::Context,
    words::{ago, skipped, what},
};
use agentforge_client::{
    pages,
    view::{Moment, ScheduleView, at},
};
use agentforge_proto::{time::duration_to_proto, v1};
use agentforge_terminal::{BOLD, Explain, Failure, GREEN, Result, Table, clean, duration, short_duration, styled};
use serde::Serialize;
use std::time::Duration;
use uuid::Uuid;

/// What to do with schedules.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a schedule
    Create(Box<CreateArgs>),
    /// List schedules
    List(ListArgs),
    /// Show one schedule
    Get(GetArgs),
    /// Change what it does and when; it keeps its id and its history
    Update(Box<UpdateArgs>),
    /// Run it now, regardless of its turns
    Run(RunArgs),
    /// Pause a schedule
    Pause(PauseArgs),
    /// Resume a schedule
    Resume(ResumeArgs),
    /// Delete a schedule; its jobs stay
    Delete(DeleteArgs),
    /// Show when it will run
    Next(NextArgs),
}

/// A new schedule.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge schedule create nightly --cron '30 2 * * *' --tz Europe/Vienna echo '{\"night\":true}'
  agentforge schedule create poll --cron '*/5 * * * *' http @request.json --queue web --timeout 30s

Cron has five fields: minute, hour, day of month, month, day of week. A time that does not exist on
the day the clocks go forward runs right after the gap; one that exists twice runs once. Where minute
or hour begins with *, it runs whenever the wall clock shows such a time.")]
pub struct CreateArgs {
    /// A name, unique among schedules
    name: String,
    /// When: minute hour day-of-month month day-of-week
    #[arg(long, value_name = "CRON")]
    cron: String,
    /// Time zone, an IANA name such as Europe/Vienna
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,
    /// The tool to run
    tool: String,
    /// Its arguments: a JSON object, @FILE, or - for stdin [default: {}]
    args: Option<String>,
    #[command(flatten)]
    template: Template,
    #[command(flatten)]
    policies: Policies,
    /// Create it paused
    #[arg(long)]
    paused: bool,
}

/// What becomes of turns that do not go as the clock has it.
#[derive(Debug, clap::Args)]
struct Policies {
    /// What happens to a turn while an earlier job is open [default: allow]
    #[arg(long, value_name = "POLICY", value_parser = ["allow", "skip", "queue", "replace"])]
    overlap: Option<String>,
    /// What happens to turns missed while no orchestrator ran [default: latest]
    #[arg(long, value_name = "POLICY", value_parser = ["latest", "all", "none"])]
    catch_up: Option<String>,
    /// How long after its scheduled time a turn's job may end; 0s removes the deadline
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    deadline: Option<Duration>,
}

impl Policies {
    fn overlap(&self) -> v1::OverlapPolicy {
        match self.overlap.as_deref() {
            Some("allow") => v1::OverlapPolicy::Allow,
            Some("skip") => v1::OverlapPolicy::Skip,
            Some("queue") => v1::OverlapPolicy::Queue,
            Some("replace") => v1::OverlapPolicy::Replace,
            _ => v1::OverlapPolicy::Unspecified,
        }
    }

    fn catch_up(&self) -> v1::CatchUpPolicy {
        match self.catch_up.as_deref() {
            Some("latest") => v1::CatchUpPolicy::Latest,
            Some("all") => v1::CatchUpPolicy::All,
            Some("none") => v1::CatchUpPolicy::None,
            _ => v1::CatchUpPolicy::Unspecified,
        }
    }
}

/// What is changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge schedule update nightly --cron '0 4 * * *' --overlap skip
  agentforge schedule update nightly --tool echo --args '{\"night\":true}' --queue bulk

Options that are left out stay unchanged. With another cron or zone, turns are counted from now.
--tool replaces the whole job, with the job's options given in the same command.")]
pub struct UpdateArgs {
    /// Its name or id
    #[arg(value_name = "NAME|ID")]
    schedule: String,
    /// Another name
    #[arg(long, value_name = "NAME")]
    rename: Option<String>,
    /// When: minute hour day-of-month month day-of-week
    #[arg(long, value_name = "CRON")]
    cron: Option<String>,
    /// Time zone, an IANA name such as Europe/Vienna
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    #[command(flatten)]
    policies: Policies,
    /// The tool to run; the job is replaced as a whole
    #[arg(long, value_name = "TOOL")]
    tool: Option<String>,
    /// Its arguments: a JSON object, @FILE, or - for stdin [default: {}]
    #[arg(long, value_name = "ARGS", requires = "tool")]
    args: Option<String>,
    #[command(flatten)]
    template: Template,
}

/// Which to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge schedule run nightly
  agentforge schedule run nightly --idempotency-key after-the-fix

The overlap policy applies: with skip, a run is refused while another is open; with queue it waits.")]
pub struct RunArgs {
    /// Its name or id
    #[arg(value_name = "NAME|ID")]
    schedule: String,
    /// A repeated request with the same key returns the first run
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// Which to resume.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge schedule resume nightly
  agentforge schedule resume nightly --catch-up")]
pub struct ResumeArgs {
    /// Its name or id
    #[arg(value_name = "NAME|ID")]
    schedule: String,
    /// Apply the catch-up policy to turns missed during the pause
    #[arg(long)]
    catch_up: bool,
}

/// No filters.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge schedule list
  agentforge schedule list --json | jq -r '.schedules[].name'")]
pub struct ListArgs {}

macro_rules! one_schedule {
    ($name:ident, $what:literal, $example:literal) => {
        #[doc = $what]
        #[derive(Debug, clap::Args)]
        #[command(after_help = concat!("Examples:\n  agentforge schedule ", $example))]
        pub struct $name {
            /// Its name or id
            #[arg(value_name = "NAME|ID")]
            schedule: String,
        }
    };
}
one_schedule!(GetArgs, "Which to show.", "get nightly --json");
one_schedule!(PauseArgs, "Which to pause.", "pause nightly");
one_schedule!(DeleteArgs, "Which to remove.", "delete nightly");

/// Whose runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge schedule next nightly --limit 10")]
pub struct NextArgs {
    /// Its name or id
    #[arg(value_name = "NAME|ID")]
    schedule: String,
    /// Number of runs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
}

/// The state as a word.
fn state(schedule: &ScheduleView) -> &'static str {
    if schedule.paused { "paused" } else { "active" }
}

/// Runs it.
///
/// # Errors
/// What failed.
pub async fn run(command: Command, context: &Context) -> Result {
    let client = &context.client;
    let mut schedules = client.schedules();
    let fail = |doing: &'static str| move |e: tonic::Status| client.failure(doing, &e);
    match command {
        Command::Create(args) => create(*args, context).await,
        Command::List(_) => list(context).await,
        Command::Get(args) => {
            let id = resolve(&args.schedule, context).await?;
            let answer = schedules.get_schedule(client.request(v1::GetScheduleRequest { id })).await;
            show(&answer.map_err(fail("getting the schedule"))?.into_inner(), context)
        }
        Command::Update(args) => update(*args, context).await,
        Command::Run(args) => run_now(args, context).await,
        Command::Pause(args) => {
            let id = resolve(&args.schedule, context).await?;
            let answer = schedules.pause_schedule(client.request(v1::PauseScheduleRequest { id })).await;
            show(&answer.map_err(fail("pausing the schedule"))?.into_inner(), context)
        }
        Command::Resume(args) => {
            let id = resolve(&args.schedule, context).await?;
            let answer = schedules
                .resume_schedule(client.request(v1::ResumeScheduleRequest { id, catch_up: args.catch_up }))
                .await;
            show(&answer.map_err(fail("resuming the schedule"))?.into_inner(), context)
        }
        Command::Delete(args) => {
            let id = resolve(&args.schedule, context).await?;
            let request = client.request(v1::DeleteScheduleRequest { id: id.clone() });
            schedules.delete_schedule(request).await.map_err(fail("deleting the schedule"))?;
            deleted(id, context)
        }
        Command::Next(args) => next(args, context).await,
    }
}

/// A name becomes the id it stands for; an id stays.
async fn resolve(name: &str, context: &Context) -> Result<String> {
    if Uuid::parse_str(name).is_ok() {
        return Ok(name.to_owned());
    }
    let mut found = None;
    each_page(context, |page: Vec<v1::Schedule>| {
        found = found.take().or_else(|| page.into_iter().find(|s| s.name == name).map(|s| s.id));
        Ok(())
    })
    .await?;
    found.ok_or_else(|| {
        Failure::new(format!("there is no schedule named {}", clean(name, 128)))
            .code("not_found")
            .hint("`agentforge schedule list` shows what there is")
    })
}

async fn each_page(context: &Context, show: impl FnMut(Vec<v1::Schedule>) -> Result) -> Result {
    let fetch = |limit, cursor| async move {
        let request = context.client.request(v1::ListSchedulesRequest { limit, cursor });
        let answer = context.client.schedules().list_schedules(request).await;
        let answer = answer.map_err(|e| context.client.failure("listing schedules", &e))?.into_inner();
        Ok((answer.schedules, answer.next_cursor))
    };
    pages(None, fetch, show).await.map(|_| ())
}

async fn create(args: CreateArgs, context: &Context) -> Result {
    let job = args.template.request(args.tool, read_args(args.args.as_deref())?);
    let request = v1::CreateScheduleRequest {
        name: args.name,
        cron: args.cron,
        time_zone: args.tz,
        job: Some(job),
        paused: args.paused,
        overlap: args.policies.overlap().into(),
        catch_up: args.policies.catch_up().into(),
        deadline: args.policies.deadline.map(duration_to_proto),
    };
    let answer = context.client.schedules().create_schedule(context.client.request(request)).await;
    show(&answer.map_err(|e| context.client.failure("creating the schedule", &e))?.into_inner(), context)
}

async fn update(args: UpdateArgs, context: &Context) -> Result {
    let alone = args.template.request(String::new(), String::new());
    if args.tool.is_none() && alone != v1::SubmitJobRequest::default() {
        return Err(Failure::new("options of the job were given without --tool")
            .code("invalid_argument")
            .hint("the job is replaced whole: name the tool, its --args and every option it should have"));
    }
    let job = match args.tool {
        Some(tool) => Some(args.template.request(tool, read_args(args.args.as_deref())?)),
        None => None,
    };
    let request = v1::UpdateScheduleRequest {
        id: resolve(&args.schedule, context).await?,
        name: args.rename,
        cron: args.cron,
        time_zone: args.tz,
        job,
        overlap: args.policies.overlap().into(),
        catch_up: args.policies.catch_up().into(),
        deadline: args.policies.deadline.map(duration_to_proto),
    };
    let answer = context.client.schedules().update_schedule(context.client.request(request)).await;
    show(&answer.map_err(|e| context.client.failure("updating the schedule", &e))?.into_inner(), context)
}

async fn run_now(args: RunArgs, context: &Context) -> Result {
    #[derive(Serialize)]
    struct Run {
        schedule: ScheduleView,
        job_id: Option<String>,
    }
    let id = resolve(&args.schedule, context).await?;
    let request = v1::RunScheduleRequest { id, idempotency_key: args.idempotency_key.unwrap_or_default() };
    let answer = context.client.schedules().run_schedule(context.client.request(request)).await;
    let answer = answer.map_err(|e| context.client.failure("running the schedule", &e))?.into_inner();
    let job_id = Some(answer.job_id).filter(|id| !id.is_empty());
    if context.out.json {
        let schedule = ScheduleView::new(&answer.schedule.unwrap_or_default());
        return context.out.document(&Run { schedule, job_id });
    }
    match job_id {
        Some(id) => context.out.line(format!("{} {id}", styled(GREEN, "running"))),
        None => context.out.line("It waits for the end of the run before."),
    }
}

async fn list(context: &Context) -> Result {
    if context.out.json {
        let mut list = context.out.list("schedules");
        each_page(context, |page| list.extend(&page.iter().map(ScheduleView::new).collect::<Vec<_>>())).await?;
        return list.finish(None);
    }
    let mut table = Table::new(["NAME", "STATE", "CRON", "ZONE", "NEXT", "LAST", "JOB", "ID"]);
    let add = |page: Vec<v1::Schedule>| {
        for s in page.iter().map(ScheduleView::new) {
            let (state, what) = (state(&s), what(&s));
            let next = if s.paused { String::new() } else { ago(s.next_run_at) };
            table.row(
                [s.name, state.to_owned(), s.cron, s.time_zone, next, ago(s.last_run_at), what, s.id],
                Some(state),
            );
        }
        Ok(())
    };
    each_page(context, add).await?;
    table.print(context.out, "No schedules. Make one: agentforge schedule create nightly --cron '30 2 * * *' echo")
}

fn show(schedule: &v1::Schedule, context: &Context) -> Result {
    let s = ScheduleView::new(schedule);
    if context.out.json {
        return context.out.document(&s);
    }
    let next = s.next_run_at.filter(|_| !s.paused).map(|t| format!("{} ({})", t.0, ago(Some(t)))).unwrap_or_default();
    let last = s.last_run_at.map(|t| format!("{} ({} ago)", t.0, ago(Some(t)))).unwrap_or_default();
    let (state, what) = (state(&s).to_owned(), what(&s));
    let when = format!("{} {}", s.cron, s.time_zone);
    let last_job = s.last_job_id.unwrap_or_default();
    let policies = format!("overlap {}, catch-up {}", s.overlap, s.catch_up);
    let deadline = s.deadline_ms.map(|ms| short_duration(Duration::from_millis(ms))).unwrap_or_default();
    let waiting = s.waiting_scheduled_at.map(|t| t.0.to_string()).unwrap_or_default();
    let skipped = s.last_skipped.map(|skip| skipped(&skip, s.turns_skipped)).unwrap_or_default();
    let mut text = String::new();
    for (name, value) in [
        ("name", s.name),
        ("id", s.id),
        ("state", state),
        ("when", when),
        ("job", what),
        ("next", next),
        ("last", last),
        ("last job", last_job),
        ("policies", policies),
        ("deadline", deadline),
        ("waiting", waiting),
        ("skipped", skipped),
    ] {
        if !value.is_empty() {
            text += &format!("{} {}\n", styled(BOLD, format!("{name:<12}")), clean(&value, 400));
        }
    }
    context.out.text(&text)
}

fn deleted(id: String, context: &Context) -> Result {
    #[derive(Serialize)]
    struct Deleted {
        deleted: String,
    }
    if context.out.json {
        context.out.document(&Deleted { deleted: id })
    } else {
        context.out.line(format!("{} {id}", styled(GREEN, "deleted")))
    }
}

async fn next(args: NextArgs, context: &Context) -> Result {
    #[derive(Serialize)]
    struct Runs {
        runs: Vec<Moment>,
    }
    let id = resolve(&args.schedule, context).await?;
    let request = context.client.request(v1::ListNextRunsRequest { id, limit: args.limit });
    let answer = context.client.schedules().list_next_runs(request).await;
    let answer = answer.map_err(|e| context.client.failure("listing the next runs", &e))?.into_inner();
    let runs: Vec<_> = answer.runs.iter().filter_map(|t| at(Some(t))).collect();
    if context.out.json {
        return context.out.document(&Runs { runs });
    }
    if runs.is_empty() {
        return context.out.line("It will not run again.");
    }
    runs.into_iter().try_for_each(|t| context.out.line(format!("{}  {}", t.0, ago(Some(t)))))
}
