//! Many jobs over one stream.

use agentforge_proto::v1::{
    SubmitJobRequest, SubmitJobsResponse, jobs_client::JobsClient, submit_jobs_response::Outcome,
};
use tonic::{
    Status,
    client::GrpcService,
    codegen::{Body, Bytes, StdError},
};

/// Why not all were stored.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The stream ended with this.
    #[error("submitting failed: {}", .0.message())]
    Stream(#[source] Box<Status>),
    /// One was refused.
    #[error("a job was refused: {0}")]
    Refused(String),
    /// An answer says neither.
    #[error("an answer was empty")]
    Empty,
    /// The stream ended early.
    #[error("{accepted} of {count} submissions were answered")]
    Unanswered {
        /// Those that were.
        accepted: u64,
        /// How many submissions were sent.
        count: u64,
    },
}

/// Submits the same request `count` times over one stream, and waits until all are stored.
///
/// # Errors
/// A submission that was refused, or not answered.
pub async fn submit_all<T>(mut client: JobsClient<T>, request: SubmitJobRequest, count: u64) -> Result<(), SubmitError>
where
    T: GrpcService<tonic::body::Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    let requests = tokio_stream::iter((0..count).map(move |_| request.clone()));
    let failed = |status: Status| SubmitError::Stream(Box::new(status));
    let mut answers = client.submit_jobs(requests).await.map_err(failed)?.into_inner();
    let mut accepted = 0;
    while let Some(SubmitJobsResponse { outcome, .. }) = answers.message().await.map_err(failed)? {
        match outcome {
            Some(Outcome::Accepted(_)) => accepted += 1,
            Some(Outcome::Refused(refusal)) => return Err(SubmitError::Refused(refusal.message)),
            None => return Err(SubmitError::Empty),
        }
    }
    if accepted == count { Ok(()) } else { Err(SubmitError::Unanswered { accepted, count }) }
}
