//! `agentforge job submit`: one job, or with `--batch` many.

use super::{
    Template, batch,
    one::{show, show_ended},
    output, read_args,
    request::{key_reuse, set_times, with_identity},
};
use crate::{context::Context, trace::Trace};
use agentforge_client::{
    Patience, is_away,
    view::{at, between, is_final},
    was_refused,
};
use agentforge_proto::{time::duration_to_proto, v1};
use agentforge_terminal::{Explain, Failure, GREEN, Result, When, clean_lines, duration, styled, until_final, when};
use std::{path::PathBuf, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

/// A job that ends sooner is answered by the call that stored it. Warnings of the server, for example that no worker
/// serves its queue, are printed after it.
const FIRST_STEP: Duration = Duration::from_millis(250);
/// Times that a submission is sent again to a server that was never reached.
const RESENDS: u32 = 3;

/// What to submit.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge job submit echo '{\"hello\":\"world\"}' --wait
  agentforge job submit sleep '{\"seconds\":5}' --wait 1m > result.json
  agentforge job submit http @request.json --queue web --label team=blue --timeout 30s
  agentforge job submit sleep '{\"seconds\":5}' --run-at +10m --idempotency-key nightly-2030-01-31
  agentforge job submit --batch jobs.ndjson --queue bulk
  generate-jobs | agentforge job submit --batch -

A line of a batch is a JSON object such as
  {\"tool\":\"echo\",\"args\":{\"n\":1},\"labels\":{\"team\":\"blue\"},\"timeout\":\"30s\"}
with the fields tool, args, queue, mission, labels, max_attempts, retry, timeout, run_at, run_in, deadline,
deadline_in, task, reuse, id, idempotency_key, key_reuse (as POST /v1/jobs takes them); options of the command line fill in what a line leaves out.")]
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
    #[arg(long, value_name = "WHEN", value_parser = when)]
    run_at: Option<When>,
    /// After this the job ends expired: RFC 3339, or +1h from now [default: 20m after it may run]
    #[arg(long, value_name = "WHEN", value_parser = when)]
    deadline: Option<When>,
    /// Take the key from an earlier job that was cancelled or expired (after-stop), or that ended without success
    /// (after-failure)
    #[arg(long, value_name = "ENDS", value_parser = ["never", "after-stop", "after-failure"], requires = "idempotency_key")]
    key_reuse: Option<String>,
    /// Wait until it is final (exit code 3 if it did not succeed), for at most this long
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, value_parser = duration)]
    wait: Option<Option<Duration>>,
    /// One JSON object per line from this file; - is stdin. Prints the line's number and the job's id for each
    #[arg(long, value_name = "FILE")]
    batch: Option<PathBuf>,
}

pub(super) async fn run(args: SubmitArgs, context: &Context) -> Result {
    let mut request = args.template.request(args.tool.clone().unwrap_or_default(), String::new());
    set_times(&mut request, args.run_at, args.deadline);
    request.key_reuse = key_reuse(args.key_reuse.as_deref().unwrap_or_default()).into();
    if let Some(path) = &args.batch {
        return batch::run(path, request, args.wait, context).await;
    }
    // Not for a batch: a trace of a million jobs is of no use, and the orchestrator samples each call.
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
    let request = with_identity(request);
    if let Some(limit) = args.wait {
        let job = submit_and_wait(context, request, began, limit).await?;
        return show_result(&job, context).await;
    }
    let answer = submit(context, request, Duration::ZERO).await?;
    let job = answer.job.ok_or_else(no_job)?;
    tell_warning(&job);
    if context.out.json {
        return show(&job, context);
    }
    context.out.line(&job.id)?;
    let word = if answer.created { "accepted" } else { "stored before, the same job" };
    context.out.note(format!("{}; follow it with `agentforge job watch {}`", styled(GREEN, word), job.id));
    Ok(())
}

/// No worker serves its queue, for example: printed at once, before any wait.
fn tell_warning(job: &v1::Job) {
    if let Some(warning) = &job.warning {
        agentforge_terminal::warn(clean_lines(warning));
    }
}

fn no_job() -> Failure {
    Failure::new("submitting failed: the server's answer has no job")
}

/// Submits and waits for the end. The id is printed before the wait, so that a caller that is cut off can look for the
/// job instead of submitting it again. A key may belong to an earlier job, so its id is known only from the answer.
async fn submit_and_wait(
    context: &Context,
    mut request: v1::SubmitJobRequest,
    began: Instant,
    limit: Option<Duration>,
) -> Result<v1::Job> {
    let mut step = Duration::ZERO;
    if request.idempotency_key.is_empty() {
        context.out.remark(format!("job {}", request.id));
        step = limit.map_or(FIRST_STEP, |limit| limit.min(FIRST_STEP));
        request.wait = Some(duration_to_proto(step));
    }
    let job = submit(context, request, step).await?.job.ok_or_else(no_job)?;
    tell_warning(&job);
    if step.is_zero() {
        context.out.remark(format!("job {}", job.id));
    }
    if is_final(job.state()) {
        return Ok(job);
    }
    until_final(&context.client, &job.id, began, limit, true).await
}

/// What a waiting caller wants: only the result on stdout, regardless of its size. Without one, everything about the
/// job.
async fn show_result(job: &v1::Job, context: &Context) -> Result {
    if job.state() != v1::JobState::Succeeded || context.out.json {
        return show_ended(job, context);
    }
    match job.result.as_deref() {
        Some(result) => context.out.line(clean_lines(result))?,
        None if job.output_ref.is_some() => output::copy(&job.id, context, &mut output::stdout()).await?,
        None => return show_ended(job, context),
    }
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

/// Sends it, and again when the connection broke: the id or the key makes the second harmless. A server that was
/// reached once is waited for as long as a restart may take, since it may have stored the job.
async fn submit(context: &Context, request: v1::SubmitJobRequest, wait: Duration) -> Result<v1::SubmitJobResponse> {
    let (mut sent, mut reached, mut patience) = (0, false, Patience::default());
    loop {
        sent += 1;
        match context.client.jobs().submit_job(context.client.request_within(request.clone(), wait)).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(e) if !is_away(&e) => return Err(context.client.failure("submitting", &e)),
            Err(e) => {
                reached |= !was_refused(&e);
                if !reached && sent <= RESENDS {
                    tokio::time::sleep(Duration::from_millis(100) * sent).await;
                } else if !reached {
                    return Err(context.client.failure("submitting", &e));
                } else if let Err(e) = patience.bear(e).await {
                    return Err(maybe_stored(context.client.failure("submitting", &e), &request));
                }
            }
        }
    }
}

/// The connection broke after the submission was sent: it may be stored.
fn maybe_stored(failure: Failure, request: &v1::SubmitJobRequest) -> Failure {
    let hint = match (request.id.as_str(), request.idempotency_key.as_str()) {
        (id, "") => format!(
            "the job may be stored: `agentforge job get {id}` shows it, and `--id {id}` submits it again safely"
        ),
        (_, key) => {
            format!("the job may be stored: the same command with --idempotency-key {key:?} finds it or submits it")
        }
    };
    failure.hint(hint)
}
