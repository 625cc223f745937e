//! A job's changes as server-sent events.

use super::params::{NoParams, Params};
use super::problem::Problem;
use super::state::Api;
use super::types::JobView;
use crate::api::log_failure;
use crate::caller::Caller;
use crate::error::Error;
use crate::model::Job;
use axum::extract::Path;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use std::convert::Infallible;
use std::time::Duration;

/// How long clients wait before they connect again.
const RETRY: Duration = Duration::from_secs(2);
/// A comment keeps proxies from closing a silent stream; common idle limits are 30 s and more.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Watch a job
///
/// Server-sent events named `job`, each with the whole job as data and its version as id: now, after
/// each change (quick ones may be folded into one), and when it is final; then the stream ends. A stream
/// that ends before, because the orchestrator stops, is to be opened again. A failure comes as an event
/// named `problem`. A browser's `EventSource` opens each ended stream again: when it says by `Last-Event-ID` that it
/// has the final event, the answer is 204, which ends it for good.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/watch", tag = "Jobs", operation_id = "WatchJob",
    params(
        ("id" = String, Path, description = "The job's id"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen."),
    ),
    responses((status = 204, description = "The caller has the final event already"), (status = 200, description = "The job, again and again", body = JobView, content_type = "text/event-stream"))
)]
pub(crate) async fn watch(
    api: Api,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    _: Params<NoParams>,
) -> Result<Response, Problem> {
    if let Some(seen) = last_seen(&headers) {
        let (state, version) = api.app.version(&id).await?;
        if state.is_final() && version == seen {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
    let jobs = api.app.watch(&caller, &id).await?;
    let events =
        jobs.take_until(api.app.stopping().clone().cancelled_owned()).map(|job| Ok::<_, Infallible>(event(job)));
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}

/// The version of the job in the last event that the caller saw. What is none of ours says nothing.
fn last_seen(headers: &HeaderMap) -> Option<i64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

fn event(job: Result<Job, Error>) -> Event {
    let event = Event::default().retry(RETRY);
    let view = job.and_then(|job| {
        let version = job.version;
        Ok((version, JobView::try_from(job)?))
    });
    match view {
        // Only a number becomes an id, and only JSON becomes data: axum panics on line breaks elsewhere.
        Ok((version, view)) => match serde_json::to_string(&view) {
            Ok(text) => event.event("job").id(version.to_string()).data(text),
            Err(e) => event.event("problem").data(json!({"code": "internal", "detail": e.to_string()}).to_string()),
        },
        Err(e) => {
            log_failure(&e, "WatchJob", None);
            event.event("problem").data(json!({"code": e.code.as_str(), "detail": e.message}).to_string())
        }
    }
}
