//! Following a job to its end: waiting and watching, over restarts of the orchestrator.

use super::{Context, JobView};
use crate::{
    client::{Client, is_away},
    error::{Failure, Result},
    output::{DIM, clean, short_duration, state_style, styled},
    view::is_final,
};
use agentforge_proto::{time::duration_to_proto, v1};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tonic::Status;

/// The server holds one request at most 60 s; less keeps proxies in between content.
const WAIT_STEP: Duration = Duration::from_secs(30);
/// A server that is away for longer than this is not waited for.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Forgives a server that is away for a while, with growing pauses.
#[derive(Default)]
pub struct Patience {
    since: Option<Instant>,
    pause: Duration,
}

impl Patience {
    /// The server answered.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Pauses when the error may pass; gives it back when it may not, or when it lasted too long.
    ///
    /// # Errors
    /// The status it was given.
    pub async fn bear(&mut self, status: Status) -> Result<(), Status> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if !is_away(&status) || since.elapsed() > AWAY_MAX {
            return Err(status);
        }
        self.pause = (self.pause * 2).clamp(Duration::from_millis(50), Duration::from_secs(2));
        sleep(self.pause).await;
        Ok(())
    }
}

/// Waits until the job is final and gives it; `limit` bounds the wait.
///
/// # Errors
/// No such job, a server that stays away, or a job that is not final when the time is up.
pub async fn until_final(client: &Client, id: &str, began: Instant, limit: Option<Duration>) -> Result<v1::Job> {
    wait_for(client, id, began, limit, false).await
}

/// As [`until_final`]; `is_known` when the server was reached before, so that one that is away now is waited for.
pub(super) async fn wait_for(
    client: &Client,
    id: &str,
    began: Instant,
    limit: Option<Duration>,
    is_known: bool,
) -> Result<v1::Job> {
    let end = limit.map(|limit| began + limit);
    let mut patience = Patience::default();
    let mut seen = is_known;
    loop {
        let step = end.map_or(WAIT_STEP, |end| end.saturating_duration_since(Instant::now()).min(WAIT_STEP));
        let request = v1::GetJobRequest { id: id.to_owned(), wait: Some(duration_to_proto(step)) };
        match client.jobs().get_job(client.request_within(request, step)).await {
            Ok(job) => {
                let job = job.into_inner();
                (seen, _) = (true, patience.reset());
                if is_final(job.state()) {
                    return Ok(job);
                }
                if end.is_some_and(|end| Instant::now() >= end) {
                    let state = crate::view::state_word(job.state());
                    return Err(Failure::new(format!(
                        "job {id} is still {state} after {}",
                        short_duration(limit.unwrap_or_default())
                    ))
                    .code("still_running")
                    .hint(format!("it is still open; follow it with `agentforge job watch {id}`")));
                }
            }
            // The first request shows whether the server is there at all; only later ones are patient.
            Err(e) if !seen => return Err(client.failure("waiting for the job", &e)),
            Err(e) => patience.bear(e).await.map_err(|e| client.failure("waiting for the job", &e))?,
        }
    }
}

/// Prints each change until the job is final.
pub(super) async fn watch(id: &str, context: &Context) -> Result {
    let client = &context.client;
    let mut patience = Patience::default();
    let mut version = None;
    loop {
        let failed = match client.jobs().watch_job(tonic::Request::new(v1::WatchJobRequest { id: id.to_owned() })).await
        {
            Err(e) => e,
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(job)) => {
                            patience.reset();
                            // A new stream begins with what the old one ended with.
                            if version.replace(job.version) != Some(job.version) {
                                show_change(&job, context)?;
                            }
                            if is_final(job.state()) {
                                return Ok(());
                            }
                        }
                        Ok(None) => break Status::unavailable("the stream ended before the job did"),
                        Err(e) => break e,
                    }
                }
            }
        };
        if version.is_none() {
            return Err(client.failure("watching the job", &failed));
        }
        patience.bear(failed).await.map_err(|e| client.failure("watching the job", &e))?;
    }
}

fn show_change(job: &v1::Job, context: &Context) -> Result {
    let view = JobView::new(job);
    if context.out.json {
        return context.out.document(&view);
    }
    let mut line = format!(
        "{}  {}",
        styled(DIM, format!("{:.3}", jiff::Timestamp::now())),
        styled(state_style(view.state), format!("{:<9}", view.state))
    );
    if view.attempts > 0 {
        line += &format!("  try {}/{}", view.attempts, view.max_attempts);
    }
    if let Some(worker) = &view.worker {
        line += &format!("  on {}", clean(worker, 60));
    }
    if let Some(error) = &view.error {
        line += &format!("  {}", error.short());
    }
    if let Some(result) = &view.result {
        line += &format!("  {}", clean(result.get(), 400));
    }
    context.out.line(line)
}
