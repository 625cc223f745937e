//! `agentforge job submit`: one job, or with `--batch` many.

use super::{Context, Template, WAIT_STEP, batch, read_args, show, show_ended, until_final};
use crate::{
    args::{duration, moment},
    client::is_away,
    error::{Failure, Result},
    output::{GREEN, clean_lines, styled},
    trace::Trace,
    view::{at, between, is_final},
};
use agentforge_proto::{
    time::{Micros, duration_to_proto},
    v1,
};
use jiff::Timestamp;
use std::{path::PathBuf, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

/// Times that a submission is sent again when the connection broke under it.
const RESENDS: u32 = 3;

/// What to submit.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge job submit echo '{\"hello\":\"world\"}' --wait
  agentforge job submit http @request.json --queue web --label team=blue --timeout 30s
  agentforge job submit sleep '{\"seconds\":5}' --run-at +10m --idempotency-key nightly-2030-01-31
  agentforge job submit --batch jobs.ndjson --queue bulk
  generate-jobs | agentforge job submit --batch -

A line of a batch is a JSON object such as
  {\"tool\":\"echo\",\"args\":{\"n\":1},\"labels\":{\"team\":\"blue\"},\"timeout\":\"30s\"}
with the fields tool, args, queue, mission, labels, max_attempts, timeout, run_at, deadline, task,
reuse, id, idempotency_key (as POST /v1/jobs takes them); options of the command line fill in what a line leaves out.")]
pub struct SubmitArgs {
    /// The tool to run
    #[arg(required_unless_present = "batch", value_name = "TOOL")]
    tool: Option<String>,
    /// Its arguments: a JSON object, @FILE, or - for stdin [default: {}]
    #[arg(value_name = "ARGS", conflicts_with = "batch")]
    args: Option<String>,
    #[command(flatten)]
    template: Template,
    /// The same key and body again return the first job
    #[arg(long, value_name = "KEY", conflicts_with = "batch")]
    idempotency_key: Option<String>,
    /// The job's id, a UUID of your choice
    #[arg(long, value_name = "UUID", conflicts_with = "batch")]
    id: Option<Uuid>,
    /// Not before: RFC 3339, or +10m from now
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    run_at: Option<Timestamp>,
    /// Past it the job ends expired: RFC 3339, or +1h from now [default: 20m after it may run]
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    deadline: Option<Timestamp>,
    /// Wait until it is final (exit code 3 when it did not succeed), at most so long
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, value_parser = duration, conflicts_with = "batch")]
    wait: Option<Option<Duration>>,
    /// One JSON object a line from this file; - is stdin
    #[arg(long, value_name = "FILE")]
    batch: Option<PathBuf>,
}

pub(super) async fn run(args: SubmitArgs, context: &Context) -> Result {
    let stamp = |t: Timestamp| Micros::from(t).to_proto();
    let mut request = args.template.request(args.tool.clone().unwrap_or_default(), String::new());
    request.run_at = args.run_at.map(stamp);
    request.deadline = args.deadline.map(stamp);
    if let Some(path) = &args.batch {
        return batch::run(path, request, context).await;
    }
    // Not of a batch: a trace of a million jobs helps nobody, and the orchestrator samples each call.
    let trace = Trace::begin("agentforge job submit", context.out);
    let outcome = one(args, request, &trace.carried_by(context)).await;
    trace.end(&outcome).await;
    outcome
}

async fn one(args: SubmitArgs, mut request: v1::SubmitJobRequest, context: &Context) -> Result {
    request.args = read_args(args.args.as_deref())?;
    request.idempotency_key = args.idempotency_key.unwrap_or_default();
    request.id = args.id.map(|id| id.to_string()).unwrap_or_default();
    // What ends soon is answered by the call that stored it; the rest is waited for with others.
    let began = Instant::now();
    let step = args.wait.map(|limit| limit.map_or(WAIT_STEP, |limit| limit.min(WAIT_STEP)));
    request.wait = step.map(duration_to_proto);
    let answer = submit(context, with_identity(request), step.unwrap_or_default()).await?;
    let job = answer.job.ok_or_else(|| Failure::new("submitting failed: the server's answer has no job"))?;
    if let Some(warning) = &job.warning {
        crate::output::warn(clean_lines(warning));
    }
    if let Some(limit) = args.wait {
        let job = if is_final(job.state()) { job } else { until_final(&context.client, &job.id, began, limit).await? };
        return show_result(&job, context);
    }
    if context.out.json {
        return show(&job, context);
    }
    context.out.line(&job.id)?;
    let word = if answer.created { "accepted" } else { "stored before, the same job" };
    context.out.note(format!("{}; follow it with `agentforge job watch {}`", styled(GREEN, word), job.id));
    Ok(())
}

/// What a caller who waited wants: the result alone on stdout. Without one, everything about the job.
fn show_result(job: &v1::Job, context: &Context) -> Result {
    let result = job.result.as_deref().filter(|_| job.state() == v1::JobState::Succeeded && !context.out.json);
    let Some(result) = result else { return show_ended(job, context) };
    context.out.line(clean_lines(result))?;
    let took = between(at(job.created_at.as_ref()), at(job.finished_at.as_ref())).unwrap_or_default();
    let replay = job.idempotent_replay.as_ref().map(|id| format!(", the result of {id} again")).unwrap_or_default();
    context.out.note(format!(
        "{} in {:.1} ms{replay}; job {}",
        styled(GREEN, "succeeded"),
        took.as_secs_f64() * 1e3,
        job.id
    ));
    Ok(())
}

/// A submission must be safe to send twice: without an id or a key of the caller it gets an id here.
pub(super) fn with_identity(mut request: v1::SubmitJobRequest) -> v1::SubmitJobRequest {
    if request.id.is_empty() && request.idempotency_key.is_empty() {
        request.id = Uuid::now_v7().to_string();
    }
    request
}

/// Sends it, and again when the connection broke: the id or the key makes the second harmless.
async fn submit(context: &Context, request: v1::SubmitJobRequest, wait: Duration) -> Result<v1::SubmitJobResponse> {
    let mut sent = 0;
    loop {
        sent += 1;
        match context.client.jobs().submit_job(context.client.request_within(request.clone(), wait)).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(e) if is_away(&e) && sent <= RESENDS => tokio::time::sleep(Duration::from_millis(100) * sent).await,
            Err(e) => return Err(context.client.failure("submitting", &e)),
        }
    }
}
