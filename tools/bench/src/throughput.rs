//! Sustained rate: from the first submission to the last committed result.

use crate::stack::Stack;
use agentforge_proto::v1::SubmitJobRequest;
use agentforge_proto::v1::jobs_client::JobsClient;
use agentforge_terminal::{Failure, Result};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// Streams that submit side by side.
const STREAMS: u64 = 2;
/// Longest standstill before a run is given up.
const STALL_MAX: Duration = Duration::from_secs(60);

/// Jobs of one REST batch: as many as it may have.
const BATCH: u64 = 1_000;
/// Longest wait for the answer to a batch.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Longest wait until a backlog is published.
const PUBLISHED_MAX: Duration = Duration::from_secs(600);

/// How many jobs are submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// On two gRPC streams.
    Grpc,
    /// In batches over REST, two at a time.
    Rest,
}

/// The request of one no-op job.
pub fn request(args_bytes: u32, label: &str) -> SubmitJobRequest {
    let pad = "x".repeat((args_bytes as usize).saturating_sub(r#"{"pad":""}"#.len()));
    SubmitJobRequest {
        tool: "echo".into(),
        args: format!(r#"{{"pad":"{pad}"}}"#),
        labels: [("bench".to_owned(), label.to_owned())].into(),
        ..SubmitJobRequest::default()
    }
}

/// A client of the stack's orchestrator.
pub async fn client(stack: &Stack) -> Result<JobsClient<Channel>> {
    JobsClient::connect(stack.grpc()?).await.map_err(|e| Failure::new(format!("cannot reach the orchestrator: {e}")))
}

/// Jobs a second, submitted and run at the same time.
pub async fn measure(stack: &Stack, count: u64, args_bytes: u32, label: &str) -> Result<f64> {
    let target = final_jobs(stack).await? + count;
    let begun = Instant::now();
    submit(stack, Way::Grpc, count, args_bytes, label).await?;
    until_final(stack, target).await?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// Jobs per second of a backlog that was queued while the worker stood still.
pub struct Drained {
    /// Accepted: from the first submission to the last acknowledgement.
    pub enqueued_per_s: f64,
    /// Done: from the worker's start to the last committed result.
    pub per_s: f64,
}

/// Queues a backlog while the worker stands still, then lets it work.
pub async fn drain(stack: &Stack, way: Way, count: u64, args_bytes: u32, label: &str) -> Result<Drained> {
    let target = final_jobs(stack).await? + count;
    stack.freeze_worker(true)?;
    let queued = async {
        let begun = Instant::now();
        submit(stack, way, count, args_bytes, label).await?;
        let enqueued_per_s = count as f64 / begun.elapsed().as_secs_f64();
        until_queued(stack).await?;
        Ok::<_, Failure>(enqueued_per_s)
    };
    let outcome = queued.await;
    let begun = Instant::now();
    stack.freeze_worker(false)?;
    let enqueued_per_s = outcome?;
    until_final(stack, target).await?;
    Ok(Drained { enqueued_per_s, per_s: count as f64 / begun.elapsed().as_secs_f64() })
}

async fn submit(stack: &Stack, way: Way, count: u64, args_bytes: u32, label: &str) -> Result {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..STREAMS {
        let share = count / STREAMS + u64::from(n < count % STREAMS);
        let request = request(args_bytes, label);
        match way {
            Way::Grpc => {
                let submitted = agentforge_client::submit_all(client(stack).await?, request, share);
                tasks.spawn(async { submitted.await.map_err(|e| e.to_string()) })
            }
            Way::Rest => tasks.spawn(submit_batches(stack.http()?, request, share)),
        };
    }
    while let Some(outcome) = tasks.join_next().await {
        let outcome = outcome.map_err(|e| Failure::new(format!("a submitter ended: {e}")))?;
        outcome.map_err(Failure::new)?;
    }
    Ok(())
}

/// One batch after the other, each on a connection of its own.
async fn submit_batches(base: String, request: SubmitJobRequest, count: u64) -> std::result::Result<(), String> {
    let args: serde_json::Value = serde_json::from_str(&request.args).map_err(|e| e.to_string())?;
    let job = serde_json::json!({ "tool": request.tool, "args": args, "labels": request.labels }).to_string();
    let mut left = count;
    while left > 0 {
        let size = left.min(BATCH);
        let body = format!("[{}]", vec![job.as_str(); usize::try_from(size).unwrap_or_default()].join(","));
        let (status, answer) =
            agentforge_client::rest::call(&base, "POST", "/v1/jobs:batch", None, &body, ANSWER_MAX).await?;
        let answer: serde_json::Value = serde_json::from_str(&answer).map_err(|e| format!("{status} {answer}: {e}"))?;
        if answer["accepted"] != size {
            return Err(format!("{} of {size} jobs were accepted: {status} {answer}", answer["accepted"]));
        }
        left -= size;
    }
    Ok(())
}

async fn until_final(stack: &Stack, target: u64) -> Result {
    let mut last = (0, Instant::now());
    loop {
        let done = final_jobs(stack).await?;
        if done >= target {
            return Ok(());
        }
        if done != last.0 {
            last = (done, Instant::now());
        } else if last.1.elapsed() > STALL_MAX {
            return Err(Failure::new(format!(
                "{} jobs are missing and nothing has moved for {STALL_MAX:?}",
                target - done
            )));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_queued(stack: &Stack) -> Result {
    let until = Instant::now() + PUBLISHED_MAX;
    while crate::stack::metric(&stack.http()?, "agentforge_outbox_jobs").await? > 0 {
        if Instant::now() > until {
            let why = format!("the backlog was not published within {PUBLISHED_MAX:?}");
            return Err(Failure::new(why).hint("a queue uses half of its stream at most: raise JOBS_MAX_BYTES"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn final_jobs(stack: &Stack) -> Result<u64> {
    crate::stack::metric(&stack.http()?, "agentforge_jobs_completed_total").await
}
