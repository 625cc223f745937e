//! Queues over REST, and jobs by the beginning of their ids.

use super::params::Params;
use super::problem::Problem;
use super::response::json;
use super::state::Api;
use super::types::{FoundJobs, QueueList};
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
/// What is accepted, delayed, queued and running in each, and how many workers serve it. A queue is listed while
/// something is open in it or a worker serves it.
#[utoipa::path(
    get, path = "/v1/queues", tag = "Queues", operation_id = "ListQueues",
    params(QueueParams),
    responses((status = 200, description = "The queues", body = QueueList))
)]
pub(crate) async fn list(api: Api, Params(which): Params<QueueParams>) -> Result<Response, Problem> {
    let queues = api.app.queue_stats(which.mission.as_deref()).await?.into_iter().map(Into::into).collect();
    json(StatusCode::OK, &QueueList { queues })
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
#[utoipa::path(
    get, path = "/v1/jobs:find", tag = "Jobs", operation_id = "FindJobs",
    params(PrefixParams),
    responses((status = 200, description = "The ids", body = FoundJobs))
)]
pub(crate) async fn find(api: Api, Params(of): Params<PrefixParams>) -> Result<Response, Problem> {
    let ids = api.app.find_jobs(&of.prefix).await?.iter().map(ToString::to_string).collect();
    json(StatusCode::OK, &FoundJobs { ids })
}
