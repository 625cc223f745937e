//! Queues over REST, and jobs by the beginning of their ids.

use super::extract::Query;
use super::problem::Problem;
use super::response::json;
use super::state::Api;
use super::types::{FoundJobs, QueueList};
use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::StatusCode;

/// List queues
///
/// What is accepted, delayed, queued and running in each, and how many workers serve it. A queue is listed while
/// something is open in it or a worker serves it.
#[utoipa::path(
    get, path = "/v1/queues", tag = "Queues", operation_id = "ListQueues",
    params(("mission" = Option<String>, Query, description = "Of this mission.")),
    responses((status = 200, description = "The queues", body = QueueList))
)]
pub(crate) async fn list(State(api): State<Api>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["mission"])?;
    let queues = api.app.queue_stats(query.one("mission")?.as_deref()).await?.into_iter().map(Into::into).collect();
    json(StatusCode::OK, &QueueList { queues })
}

/// Find jobs by the beginning of their ids
#[utoipa::path(
    get, path = "/v1/jobs:find", tag = "Jobs", operation_id = "FindJobs",
    params(("prefix" = String, Query, description = "At least four digits of an id from its beginning; hyphens do not count.")),
    responses((status = 200, description = "The ids", body = FoundJobs))
)]
pub(crate) async fn find(State(api): State<Api>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let prefix = Query::parse(query.as_deref(), &["prefix"])?.one("prefix")?.unwrap_or_default();
    let ids = api.app.find_jobs(&prefix).await?.iter().map(ToString::to_string).collect();
    json(StatusCode::OK, &FoundJobs { ids })
}
