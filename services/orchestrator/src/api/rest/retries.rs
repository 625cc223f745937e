//! Ways back over REST: one job, or many by their ids or a filter.

use super::dead_letters::{accepts_lines, lines};
use super::extract::OptionalJsonBody;
use super::operations::{accepted, prefers_async};
use super::params::{NoParams, Params};
use super::problem::Problem;
use super::response::json;
use super::state::Api;
use super::types::{JobView, NotPutBackView, OperationView, RetryBody, RetryJobsBody, RetryView, parse_span};
use crate::api::stopping;
use crate::api::stream::until_last;
use crate::app::Progress;
use crate::caller::Caller;
use axum::extract::Path;
use axum::response::Response;
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};

/// Retry a job
///
/// Puts a job back that failed, died, was cancelled or expired: fresh attempts, a fresh deadline, the same id and key.
/// Earlier attempts stay on record, and numbers keep counting.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/retry", tag = "Jobs", operation_id = "RetryJob",
    params(("id" = String, Path, description = "The job's id")),
    request_body = Option<RetryBody>,
    responses((status = 200, description = "The job, accepted again", body = JobView))
)]
pub(crate) async fn retry(
    api: Api,
    caller: Caller,
    Path(id): Path<String>,
    _: Params<NoParams>,
    OptionalJsonBody(body): OptionalJsonBody<RetryBody>,
) -> Result<Response, Problem> {
    let deadline_in = parse_span("deadline_in", body.deadline_in.as_deref(), body.deadline_in_ms)?;
    json(StatusCode::OK, &JobView::try_from(api.app.retry(&caller, &id, deadline_in).await?)?)
}

/// Retry many jobs
///
/// As RetryJob, for `job_ids` or for all that the filters let through (then `states` must be given), newest
/// first, at a rate. The answer comes when it is done; with `Accept: application/x-ndjson` progress comes as
/// one line each. Closing the connection stops the rest, unless `async` or `Prefer: respond-async` asks for an
/// operation. With `dry_run` nothing is changed, only counted.
#[utoipa::path(
    post, path = "/v1/jobs:retry", tag = "Jobs", operation_id = "RetryJobs",
    request_body = RetryJobsBody,
    responses(
        (status = 200, description = "How many were put back", content((RetryView = "application/json"), (RetryView = "application/x-ndjson"))),
        (status = 202, description = "The operation that does it, when one was asked for", body = OperationView),
    )
)]
pub(crate) async fn retry_many(
    api: Api,
    caller: Caller,
    headers: HeaderMap,
    OptionalJsonBody(body): OptionalJsonBody<RetryJobsBody>,
) -> Result<Response, Problem> {
    let detached = body.r#async || prefers_async(&headers);
    let spec = body.into_spec()?;
    if detached {
        return accepted(api.app.start_retry(&caller, spec).await?);
    }
    let progress = api.app.retry_many(&caller, spec).await?;
    let mut progress = until_last(progress, api.app.stopping().clone(), |p| p.done, stopping).boxed();
    if accepts_lines(&headers) {
        return Ok(lines("RetryJobs", progress.map(|p| p.map(view)).boxed()));
    }
    let (mut last, mut reasons) = (Err(stopping()), Vec::new());
    while let Some(p) = progress.next().await {
        let mut p = p?;
        reasons.append(&mut p.reasons);
        last = Ok(p);
    }
    json(StatusCode::OK, &view(Progress { reasons, ..last? }))
}

fn view(p: Progress) -> RetryView {
    RetryView {
        matched: p.matched,
        retried: p.put_back,
        skipped: p.skipped,
        done: p.done,
        not_put_back: p.reasons.into_iter().map(NotPutBackView::from).collect(),
    }
}
