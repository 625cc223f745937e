//! `agentforge job wait`: waits until jobs are final, over restarts of the orchestrator.

use super::one::full_id;
use crate::{context::Context, words::short};
use agentforge_client::view::{self, JobView};
use agentforge_proto::v1;
use agentforge_terminal::{FAILED, Failure, NOT_SUCCEEDED, Progress, Result, state_style, styled, until_final};
use futures_util::{StreamExt, stream};
use std::{io::Read, time::Duration};
use tokio::time::Instant;

/// Jobs that are waited for side by side.
const AT_ONCE: usize = 32;

/// Which jobs to wait for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge job wait 0198c5a2-7d1e-7c3a-9f00-0123456789ab
  agentforge job submit --batch jobs.ndjson --json | jq -r 'select(.id).id' | agentforge job wait - --timeout 10m

Exit codes: 0 all succeeded, 3 one did not succeed, 1 one is still open or is not known.")]
pub struct WaitArgs {
    /// The jobs' ids; - reads them from stdin, one per line
    #[arg(required = true, num_args = 1..)]
    ids: Vec<String>,
    /// Maximum time
    #[arg(long, value_name = "DURATION", value_parser = agentforge_terminal::duration)]
    timeout: Option<Duration>,
}

pub(super) async fn run(args: WaitArgs, context: &Context) -> Result {
    let mut ids = Vec::new();
    for id in args.ids {
        match id.as_str() {
            "-" => ids.extend(from_stdin()?),
            _ => ids.push(full_id(&id, context).await?),
        }
    }
    all(ids, args.timeout, context).await
}

/// Waits for all of them, and prints each as it ends.
pub(super) async fn all(ids: Vec<String>, timeout: Option<Duration>, context: &Context) -> Result {
    let began = Instant::now();
    let progress = Progress::new("jobs are final", Some(ids.len() as u64));
    let (mut ended, mut failed, mut unsuccessful) = (0, false, false);
    let mut waits = stream::iter(ids)
        .map(|id| async move {
            let job = until_final(&context.client, &id, began, timeout, false).await;
            (id, job)
        })
        .buffer_unordered(AT_ONCE);
    while let Some((id, job)) = waits.next().await {
        match job {
            Ok(job) => {
                unsuccessful |= job.state() != v1::JobState::Succeeded;
                tell(&id, &job, context)?;
            }
            Err(failure) => {
                failed = true;
                agentforge_terminal::report(&failure, context.out);
            }
        }
        ended += 1;
        progress.set(ended);
    }
    progress.clear();
    match (failed, unsuccessful) {
        (true, _) => Err(Failure::quiet(FAILED)),
        (false, true) => Err(Failure::quiet(NOT_SUCCEEDED)),
        (false, false) => Ok(()),
    }
}

fn tell(id: &str, job: &v1::Job, context: &Context) -> Result {
    let view = JobView::new(job);
    if context.out.json {
        return context.out.document(&view);
    }
    let word = view::state_word(job.state());
    let error = view.error.map(|e| format!("  {}", short(&e))).unwrap_or_default();
    context.out.line(format!("{id}  {}{error}", styled(state_style(word), word)))
}

fn from_stdin() -> Result<Vec<String>> {
    const BYTES_MAX: u64 = 64 << 20;
    let mut text = String::new();
    let read = std::io::stdin().take(BYTES_MAX).read_to_string(&mut text);
    read.map_err(|e| Failure::usage(format!("ids cannot be read from stdin: {e}")))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}
