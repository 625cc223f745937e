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
    submit(stack, count, args_bytes, label).await?;
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
pub async fn drain(stack: &Stack, count: u64, args_bytes: u32, label: &str) -> Result<Drained> {
    let target = final_jobs(stack).await? + count;
    stack.freeze_worker(true)?;
    let queued = async {
        let begun = Instant::now();
        submit(stack, count, args_bytes, label).await?;
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

async fn submit(stack: &Stack, count: u64, args_bytes: u32, label: &str) -> Result {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..STREAMS {
        let share = count / STREAMS + u64::from(n < count % STREAMS);
        let (client, request) = (client(stack).await?, request(args_bytes, label));
        tasks.spawn(agentforge_client::submit_all(client, request, share));
    }
    while let Some(outcome) = tasks.join_next().await {
        let outcome = outcome.map_err(|e| Failure::new(format!("a submitter ended: {e}")))?;
        outcome.map_err(|e| Failure::new(e.to_string()))?;
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
    let until = Instant::now() + Duration::from_secs(600);
    while crate::stack::metric(&stack.http()?, "agentforge_outbox_jobs").await? > 0 {
        if Instant::now() > until {
            return Err(Failure::new("the backlog was not published within 600 s"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn final_jobs(stack: &Stack) -> Result<u64> {
    crate::stack::metric(&stack.http()?, "agentforge_jobs_completed_total").await
}
