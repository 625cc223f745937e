//! Dead letters over REST: list and redrive.

use super::batch::NDJSON;
use super::extract::{JsonBody, OptionalJsonBody};
use super::operations::{accepted, prefers_async};
use super::params::{NoParams, Params};
use super::problem::Problem;
use super::response::{json, json_to};
use super::state::Api;
use super::types::{
    DeadLetterList, DeadLetterView, DiscardAnswer, DiscardBody, NotPutBackView, OperationView, RedriveBody, RedriveView,
};
use crate::api::stream::until_last;
use crate::api::{log_failure, stopping};
use crate::app::{DeadLetterQuery, DiscardSpec, Progress, RedriveSpec};
use crate::caller::Caller;
use crate::error::Error;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::convert::Infallible;
use utoipa::IntoParams;

/// Which dead letters.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeadLetterParams {
    /// Of this mission.
    mission: Option<String>,
    /// Of this queue.
    queue: Option<String>,
    /// attempts_exhausted, not_retryable, worker_lost, invalid_message or invalid_signature.
    reason: Option<String>,
    /// `true`: those put back too.
    #[serde(default)]
    include_redriven: bool,
    /// 1 to 1000; the default is 100.
    #[serde(default)]
    limit: u32,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List dead letters
///
/// Newest first; those that were put back only when asked for.
#[utoipa::path(
    get, path = "/v1/dead-letters", tag = "Dead letters", operation_id = "ListDeadLetters",
    params(DeadLetterParams),
    responses((status = 200, description = "A page of dead letters", body = DeadLetterList))
)]
pub(crate) async fn list(
    api: Api,
    caller: Caller,
    Params(which): Params<DeadLetterParams>,
) -> Result<Response, Problem> {
    let query = DeadLetterQuery {
        mission: which.mission,
        queue: which.queue,
        reason: which.reason,
        include_redriven: which.include_redriven,
        limit: which.limit,
        cursor: which.cursor,
    };
    let page = api.app.dead_letters(&caller, query).await?;
    let dead_letters = page.items.into_iter().map(Into::into).collect();
    json_to(api.app.shows_all_alike(), &DeadLetterList { dead_letters, next_cursor: page.next })
}

/// Put dead jobs back
///
/// Back in their queues, with fresh attempts, at a rate. The answer comes when it is done; with
/// `Accept: application/x-ndjson` progress comes as one line each. Closing the connection stops the rest, unless
/// `async` or `Prefer: respond-async` asks for an operation.
///
/// An empty body puts back all that is dead, up to 10000.
#[utoipa::path(
    post, path = "/v1/dead-letters/redrive", tag = "Dead letters", operation_id = "RedriveDeadLetters",
    request_body = Option<RedriveBody>,
    responses(
        (status = 200, description = "How many were put back", content((RedriveView = "application/json"), (RedriveView = "application/x-ndjson"))),
        (status = 202, description = "The operation that does it, when one was asked for", body = OperationView),
    )
)]
pub(crate) async fn redrive(
    api: Api,
    caller: Caller,
    headers: HeaderMap,
    OptionalJsonBody(body): OptionalJsonBody<RedriveBody>,
) -> Result<Response, Problem> {
    let spec = RedriveSpec {
        job_ids: body.job_ids,
        mission: body.mission,
        queue: body.queue,
        reason: body.reason,
        rate: body.rate,
        limit: body.limit,
    };
    if body.r#async || prefers_async(&headers) {
        return accepted(api.app.start_redrive(&caller, spec).await?);
    }
    let progress = api.app.redrive(&caller, spec).await?;
    let mut progress = until_last(progress, api.app.stopping().clone(), |p| p.done, stopping).boxed();
    if accepts_lines(&headers) {
        return Ok(lines("RedriveDeadLetters", progress.map(|p| p.map(view)).boxed()));
    }
    let (mut last, mut reasons) = (Err(stopping()), Vec::new());
    while let Some(p) = progress.next().await {
        let mut p = p?;
        reasons.append(&mut p.reasons);
        last = Ok(p);
    }
    json(StatusCode::OK, &view(Progress { reasons, ..last? }))
}

/// Read a dead letter
///
/// By its id, or by the id of its job: then the latest.
#[utoipa::path(
    get, path = "/v1/dead-letters/{id}", tag = "Dead letters", operation_id = "GetDeadLetter",
    params(("id" = String, Path, description = "The letter's id, or its job's")),
    responses((status = 200, description = "The dead letter", body = DeadLetterView))
)]
pub(crate) async fn read(
    api: Api,
    caller: Caller,
    Path(id): Path<String>,
    _: Params<NoParams>,
) -> Result<Response, Problem> {
    json(StatusCode::OK, &DeadLetterView::from(api.app.dead_letter(&caller, &id).await?))
}

/// Discard dead letters
///
/// Deletes them here. Their jobs stay as they are, and their messages stay in swarm_dlq until they are too old.
#[utoipa::path(
    post, path = "/v1/dead-letters/discard", tag = "Dead letters", operation_id = "DiscardDeadLetters",
    request_body = DiscardBody,
    responses((status = 200, description = "How many there were", body = DiscardAnswer))
)]
pub(crate) async fn discard(
    api: Api,
    caller: Caller,
    JsonBody(body): JsonBody<DiscardBody>,
) -> Result<Response, Problem> {
    let DiscardBody { ids, mission, queue, reason, limit } = body;
    let discarded = api.app.discard_letters(&caller, DiscardSpec { ids, mission, queue, reason, limit }).await?;
    json(StatusCode::OK, &DiscardAnswer { discarded })
}

/// Whether the caller wants progress as it comes.
pub(crate) fn accepts_lines(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).any(|v| v.contains(NDJSON))
}

fn view(p: Progress) -> RedriveView {
    RedriveView {
        redriven: p.put_back,
        skipped: p.skipped,
        done: p.done,
        not_put_back: p.reasons.into_iter().map(NotPutBackView::from).collect(),
    }
}

/// Progress as one JSON object per line; an error is the last.
pub(crate) fn lines<T: Serialize + 'static>(
    operation: &'static str,
    progress: BoxStream<'static, Result<T, Error>>,
) -> Response {
    let lines = progress.map(move |p| {
        let text = match p {
            Ok(p) => serde_json::to_string(&p).expect("numbers and text are JSON"),
            Err(e) => {
                log_failure(&e, operation, None);
                json!({"error": {"code": e.code.as_str(), "detail": e.message}}).to_string()
            }
        };
        Ok::<_, Infallible>(Bytes::from(text + "\n"))
    });
    let media_type = HeaderValue::from_static(NDJSON);
    ([(header::CONTENT_TYPE, media_type)], Body::from_stream(lines)).into_response()
}
