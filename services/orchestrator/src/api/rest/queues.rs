//! Queues over REST, and their pauses; jobs by the beginning of their ids, and how many there are.

use super::params::{NoParams, Params};
use super::problem::Problem;
use super::response::json;
use super::state::Api;
use super::types::{FoundJobs, JobCountsView, QueueList, QueueView};
use crate::caller::Caller;
use axum::extract::Path;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

/// Whose queues.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct QueueParams {
    /// Of this mission.
    mission: Option<String>,
}

/// List queues
///
/// What is accepted, delayed, queued and running in each, how many workers serve it, how fast it moves, and whether it is
/// paused. A queue is listed while something is open in it, a worker serves it, or it is paused.
#[utoipa::path(
    get, path = "/v1/queues", tag = "Queues", operation_id = "ListQueues",
    params(QueueParams),
    responses((status = 200, description = "The queues", body = QueueList))
)]
pub(crate) async fn list(api: Api, Params(which): Params<QueueParams>) -> Result<Response, Problem> {
    let queues = api.app.queue_stats(which.mission.as_deref()).await?.into_iter().map(Into::into).collect();
    json(StatusCode::OK, &QueueList { queues })
}

/// Pause a queue
///
/// What is accepted for it waits, what runs ends, and nothing is lost. Deadlines keep counting. It holds until
/// ResumeQueue, across restarts and for every orchestrator. The answer comes when the NATS server delivers none of the
/// queue's jobs any more, or after 5 s: `paused.in_effect` says which. One that is paused stays as it was.
#[utoipa::path(
    post, path = "/v1/queues/{name}/pause", tag = "Queues", operation_id = "PauseQueue",
    params(("name" = String, Path, description = "The queue's name")),
    responses((status = 200, description = "The queue", body = QueueView))
)]
pub(crate) async fn pause(
    api: Api,
    caller: Caller,
    Path(name): Path<String>,
    _: Params<NoParams>,
) -> Result<Response, Problem> {
    json(StatusCode::OK, &QueueView::from(api.app.pause_queue(&caller, &name).await?))
}

/// Resume a queue
///
/// Its jobs run again, in the order in which they were accepted. One that is not paused stays as it was.
#[utoipa::path(
    post, path = "/v1/queues/{name}/resume", tag = "Queues", operation_id = "ResumeQueue",
    params(("name" = String, Path, description = "The queue's name")),
    responses((status = 200, description = "The queue", body = QueueView))
)]
pub(crate) async fn resume(
    api: Api,
    caller: Caller,
    Path(name): Path<String>,
    _: Params<NoParams>,
) -> Result<Response, Problem> {
    json(StatusCode::OK, &QueueView::from(api.app.resume_queue(&caller, &name).await?))
}

/// The beginning of an id.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PrefixParams {
    /// At least four digits of an id from its beginning; hyphens do not count.
    #[serde(default)]
    #[param(required = true)]
    prefix: String,
}

/// Find jobs by the beginning of their ids
///
/// For completion on a command line.
#[utoipa::path(
    get, path = "/v1/jobs:find", tag = "Jobs", operation_id = "FindJobs",
    params(PrefixParams),
    responses((status = 200, description = "The ids", body = FoundJobs))
)]
pub(crate) async fn find(api: Api, Params(of): Params<PrefixParams>) -> Result<Response, Problem> {
    let ids = api.app.find_jobs(&of.prefix).await?.iter().map(ToString::to_string).collect();
    json(StatusCode::OK, &FoundJobs { ids })
}

/// Count jobs by state
///
/// Counted in the database at one moment, at most 20 s ago: see `counted_at`. With every orchestrator on the same database the
/// counts are of all jobs.
#[utoipa::path(
    get, path = "/v1/jobs:counts", tag = "Jobs", operation_id = "GetJobCounts",
    params(NoParams),
    responses((status = 200, description = "The counts", body = JobCountsView))
)]
pub(crate) async fn counts(api: Api, _: Params<NoParams>) -> Result<Response, Problem> {
    json(StatusCode::OK, &JobCountsView::from(api.app.job_counts().await?))
}
