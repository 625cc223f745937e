//! Cancels over REST of many jobs, by their ids or a filter.

use super::dead_letters::{accepts_lines, lines};
use super::extract::OptionalJsonBody;
use super::operations::{accepted, prefers_async};
use super::problem::Problem;
use super::response::json;
use super::state::Api;
use super::types::{CancelJobsBody, CancelView, NotPutBackView, OperationView};
use crate::api::stopping;
use crate::api::stream::until_last;
use crate::app::Progress;
use crate::caller::Caller;
use axum::response::Response;
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};

/// Cancel many jobs
///
/// As CancelJob, for `job_ids` or for all that the filters let through (then `states` must be given), newest
/// first, at a rate. A job that has left these states by the time of its cancel is left alone. The answer comes when it
/// is done; with `Accept: application/x-ndjson` progress comes as one line each. Closing the connection stops the rest,
/// unless `async` or `Prefer: respond-async` asks for an operation. With `dry_run` nothing is changed, only counted.
#[utoipa::path(
    post, path = "/v1/jobs:cancel", tag = "Jobs", operation_id = "CancelJobs",
    request_body = CancelJobsBody,
    responses(
        (status = 200, description = "How many were stopped", content((CancelView = "application/json"), (CancelView = "application/x-ndjson"))),
        (status = 202, description = "The operation that does it, when one was asked for", body = OperationView),
    )
)]
pub(crate) async fn cancel_many(
    api: Api,
    caller: Caller,
    headers: HeaderMap,
    OptionalJsonBody(body): OptionalJsonBody<CancelJobsBody>,
) -> Result<Response, Problem> {
    let detached = body.r#async || prefers_async(&headers);
    let spec = body.into_spec()?;
    if detached {
        return accepted(api.app.start_cancel(&caller, spec).await?);
    }
    let progress = api.app.cancel_many(&caller, spec).await?;
    let mut progress = until_last(progress, api.app.stopping().clone(), |p| p.done, stopping).boxed();
    if accepts_lines(&headers) {
        return Ok(lines("CancelJobs", progress.map(|p| p.map(view)).boxed()));
    }
    let (mut last, mut reasons) = (Err(stopping()), Vec::new());
    while let Some(p) = progress.next().await {
        let mut p = p?;
        reasons.append(&mut p.reasons);
        last = Ok(p);
    }
    json(StatusCode::OK, &view(Progress { reasons, ..last? }))
}

fn view(p: Progress) -> CancelView {
    CancelView {
        matched: p.matched,
        cancelled: p.cancelled,
        skipped: p.skipped,
        done: p.done,
        not_cancelled: p.reasons.into_iter().map(NotPutBackView::from).collect(),
    }
}
