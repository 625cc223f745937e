//! Watching a job, over restarts of the orchestrator: a line for each change.

use crate::{context::Context, words::short};
use agentforge_client::{
    Patience,
    view::{JobView, is_final},
};
use agentforge_proto::v1;
use agentforge_terminal::{DIM, Explain, Result, clean, state_style, styled};
use tonic::Status;

/// Prints each change until the job is final.
pub async fn watch(id: &str, context: &Context) -> Result {
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
        line += &format!("  {}", short(error));
    }
    if let Some(result) = &view.result {
        line += &format!("  {}", clean(result.get(), 400));
    }
    context.out.line(line)
}
