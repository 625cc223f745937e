//! Submits a job by gRPC and prints its states until it is final: `agentforge-example-grpc-client TOOL [ARGS]`.
//!
//! AGENTFORGE_SERVER is the address of the gRPC API, AGENTFORGE_TOKEN a token if the server asks for one. The types are
//! generated from `proto/agentforge/v1`; the server has reflection, so that `grpcurl` works as well.
#![allow(clippy::print_stdout)]

use agentforge_proto::v1::{JobState, SubmitJobRequest, WatchJobRequest, jobs_client::JobsClient};
use anyhow::{Context, bail};
use std::env;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let tool = arguments.next().context("usage: agentforge-example-grpc-client TOOL [ARGS]")?;
    let args = arguments.next().unwrap_or_else(|| "{}".to_owned());

    let server = env::var("AGENTFORGE_SERVER").unwrap_or_else(|_| "http://127.0.0.1:50051".to_owned());
    let channel =
        Endpoint::from_shared(server.clone())?.connect().await.with_context(|| format!("no answer: {server}"))?;
    let token: Option<MetadataValue<Ascii>> = match env::var("AGENTFORGE_TOKEN") {
        Ok(token) => Some(format!("Bearer {token}").parse()?),
        Err(_) => None,
    };
    let mut jobs = JobsClient::with_interceptor(channel, move |mut request: tonic::Request<()>| {
        if let Some(token) = &token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    });

    // With an id of its own a submission can be repeated after a broken connection: it is stored once.
    let id = uuid::Uuid::now_v7().to_string();
    jobs.submit_job(SubmitJobRequest { id: id.clone(), tool, args, ..Default::default() }).await?;

    // The job now, and after each change; the stream ends when the job is final.
    let mut watch = jobs.watch_job(WatchJobRequest { id: id.clone() }).await?.into_inner();
    let mut last = None;
    while let Some(job) = watch.message().await? {
        println!("{id} {}", job.state().as_str_name());
        last = Some(job);
    }
    let job = last.context("the server sent no state")?;
    match job.state() {
        JobState::Succeeded => println!("{}", job.result()),
        state => bail!("the job ended as {}: {}", state.as_str_name(), job.error.unwrap_or_default().message),
    }
    Ok(())
}
