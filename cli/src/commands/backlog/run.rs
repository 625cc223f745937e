//! One run: submit everything, then look until nothing of it is open, and count what succeeded.
//!
//! Follows its jobs by a label of their own, so that other work on the same system neither helps nor hurts.

use super::{lag::Lag, verdict::Outcome};
use agentforge_client::{Client, PAGE, is_away, submit_all};
use agentforge_proto::v1::{self, JobState};
use agentforge_terminal::{Explain, Failure, Result};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

/// Between two checks; small compared with what is measured.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const OPEN: [JobState; 3] = [JobState::Accepted, JobState::Queued, JobState::Running];

/// What a backlog is made of.
#[derive(Debug, Clone)]
pub struct Workload {
    /// How many jobs are submitted.
    pub count: u64,
    /// The queue; empty is the default one.
    pub queue: String,
    /// `echo` or `sleep`.
    pub tool: String,
}

/// A label that no other backlog has.
pub fn new_label() -> String {
    format!("backlog={}", Uuid::now_v7())
}

/// Submits all of it.
///
/// # Errors
/// A submission that was refused or not answered.
pub async fn submit(client: &Client, workload: &Workload, label: &str) -> Result {
    let (key, value) = label.split_once('=').unwrap_or((label, ""));
    let args = if workload.tool == "sleep" { r#"{"seconds":0.01}"# } else { r#"{"backlog":true}"# };
    let request = v1::SubmitJobRequest {
        tool: workload.tool.clone(),
        args: args.to_owned(),
        queue: workload.queue.clone(),
        labels: [(key.to_owned(), value.to_owned())].into(),
        ..Default::default()
    };
    Ok(submit_all(client.jobs(), request, workload.count).await?)
}

/// Submits and waits until all is done, at most for `cap`; `told` is called with how many are done.
pub async fn submit_and_drain(
    client: &Client,
    workload: &Workload,
    cap: Duration,
    lag: Option<&Lag>,
    told: impl Fn(u64),
) -> Outcome {
    let label = new_label();
    let begun = Instant::now();
    let end = begun + cap;
    match timeout_at(end, submit(client, workload, &label)).await {
        Err(_) => return Outcome::TimedOut { open: workload.count },
        Ok(Err(failure)) => return Outcome::NotStarted { reason: failure.message },
        Ok(Ok(())) => {}
    }
    let mut peak = None;
    loop {
        let now = Instant::now();
        let open = timeout_at(end, open(client, &label)).await;
        if let (Some(lag), Ok(Ok(Some(job)))) = (lag, &open) {
            peak = peak.max(lag.of(&job.mission, &job.queue).await);
        }
        match open {
            Ok(Ok(None)) => {
                // The look began after the last result was there.
                let seconds = now.duration_since(begun).as_secs_f64();
                return finished(client, workload, &label, seconds, peak, told).await;
            }
            Ok(Err(failure)) => return Outcome::Failed { reason: failure.message },
            Ok(Ok(Some(_))) => {}
            Err(_) => {}
        }
        if Instant::now() >= end {
            let done = succeeded(client, &label).await.unwrap_or(0);
            return Outcome::TimedOut { open: workload.count.saturating_sub(done) };
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn finished(
    client: &Client,
    workload: &Workload,
    label: &str,
    seconds: f64,
    peak_backlog: Option<u64>,
    told: impl Fn(u64),
) -> Outcome {
    match succeeded(client, label).await {
        Ok(done) if done == workload.count => {
            told(done);
            Outcome::Drained { seconds, peak_backlog }
        }
        Ok(done) => Outcome::Failed { reason: format!("{done} of {} jobs succeeded", workload.count) },
        Err(failure) => Outcome::Failed { reason: failure.message },
    }
}

/// One of the jobs that are not final. A server that is unavailable for a moment is asked again.
async fn open(client: &Client, label: &str) -> Result<Option<v1::Job>> {
    loop {
        match list(client, label, &OPEN, 1, String::new()).await {
            Ok(answer) => return Ok(answer.jobs.into_iter().next()),
            Err(status) if is_away(&status) => sleep(LOOK_EVERY).await,
            Err(status) => return Err(client.failure("looking for open jobs", &status)),
        }
    }
}

async fn succeeded(client: &Client, label: &str) -> Result<u64, Failure> {
    let (mut count, mut cursor) = (0, String::new());
    loop {
        let answer = list(client, label, &[JobState::Succeeded], PAGE, cursor).await;
        let answer = answer.map_err(|status| client.failure("counting jobs", &status))?;
        count += answer.jobs.len() as u64;
        if answer.next_cursor.is_empty() {
            return Ok(count);
        }
        cursor = answer.next_cursor;
    }
}

async fn list(
    client: &Client,
    label: &str,
    states: &[JobState],
    limit: u32,
    cursor: String,
) -> Result<v1::ListJobsResponse, tonic::Status> {
    let request = v1::ListJobsRequest {
        labels: vec![label.to_owned()],
        states: states.iter().map(|state| *state as i32).collect(),
        limit,
        cursor,
        ..Default::default()
    };
    Ok(client.jobs().list_jobs(client.request(request)).await?.into_inner())
}
