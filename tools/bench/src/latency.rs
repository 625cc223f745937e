//! Latency at a steady rate: from the submit call to the committed result, as the caller sees it.

use crate::{
    stack::Stack,
    throughput::{client, request},
};
use agentforge_proto::v1::{JobState, SubmitJobRequest};
use agentforge_terminal::{Failure, Result};
use serde::Serialize;
use std::fmt;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// What callers waited.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Jobs a second that were asked for.
    pub rate: u32,
    /// How many jobs were measured.
    pub jobs: u64,
    /// The median, in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile, in milliseconds.
    pub p99_ms: f64,
    /// The longest wait, in milliseconds.
    pub max_ms: f64,
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, jobs, p50_ms, p99_ms, max_ms } = self;
        write!(f, "latency at {rate} jobs/s ({jobs} jobs): p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, max {max_ms:.2} ms")
    }
}

/// Submits at `rate` for `time`; jobs that come late are still submitted at their turn.
pub async fn measure(stack: &Stack, rate: u32, time: Duration, args_bytes: u32, label: &str) -> Result<Latency> {
    let client = client(stack).await?;
    let request = request(args_bytes, label);
    // The first calls open connections and caches; they are not measured, but they are checked.
    let warm_up = u64::from(rate.min(100));
    let jobs = (f64::from(rate) * time.as_secs_f64()) as u64 + warm_up;
    let gap = Duration::from_secs_f64(1.0 / f64::from(rate));
    let begun = tokio::time::Instant::now();
    let mut tasks = JoinSet::new();
    let mut took = Vec::with_capacity(usize::try_from(jobs).unwrap_or(0));
    for n in 0..jobs {
        tokio::time::sleep_until(begun + gap * u32::try_from(n).unwrap_or(u32::MAX)).await;
        let (client, request) = (client.clone(), request.clone());
        tasks.spawn(async move { (n, one(client, request).await) });
        while let Some(done) = tasks.try_join_next() {
            keep(done, warm_up, &mut took)?;
        }
    }
    while let Some(done) = tasks.join_next().await {
        keep(done, warm_up, &mut took)?;
    }
    took.sort_unstable();
    let at = |q: f64| took[((took.len() - 1) as f64 * q).round() as usize].as_secs_f64() * 1e3;
    Ok(Latency { rate, jobs, p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) })
}

type Done = std::result::Result<(u64, Result<Duration>), tokio::task::JoinError>;

fn keep(done: Done, warm_up: u64, took: &mut Vec<Duration>) -> Result {
    let (n, outcome) = done.map_err(|e| Failure::new(format!("a caller ended: {e}")))?;
    let outcome = outcome?;
    if n >= warm_up {
        took.push(outcome);
    }
    Ok(())
}

async fn one(
    mut client: agentforge_proto::v1::jobs_client::JobsClient<Channel>,
    mut request: SubmitJobRequest,
) -> Result<Duration> {
    request.wait = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let begun = Instant::now();
    let answer = client.submit_job(request).await;
    let answer = answer.map_err(|e| Failure::new(format!("a call failed: {}", e.message())))?;
    let job = answer.into_inner().job.ok_or_else(|| Failure::new("no job in the answer"))?;
    if job.state() == JobState::Succeeded {
        Ok(begun.elapsed())
    } else {
        Err(Failure::new(format!("job {} is {:?}", job.id, job.state())))
    }
}
