//! Messages that were put aside, over REST: list, retry, discard.

use super::extract::JsonBody;
use super::params::{PageParams, Params};
use super::problem::Problem;
use super::response::json;
use super::state::Api;
use super::types::{ParkedAnswer, ParkedBody, ParkedList};
use crate::caller::Caller;
use axum::response::Response;
use http::StatusCode;

/// List messages that were put aside
///
/// Events and dead letters that NATS can never accept as they are: too large for the server's max_payload, or with an
/// invalid subject. Newest first. Everything else continues meanwhile.
#[utoipa::path(
    get, path = "/v1/outbox/parked", tag = "Outbox", operation_id = "ListParkedMessages",
    params(PageParams),
    responses((status = 200, description = "A page of messages", body = ParkedList))
)]
pub(crate) async fn list(api: Api, Params(page): Params<PageParams>) -> Result<Response, Problem> {
    let page = api.app.parked(page.limit, page.cursor.as_deref()).await?;
    let messages = page.items.into_iter().map(Into::into).collect();
    json(StatusCode::OK, &ParkedList { messages, next_cursor: page.next })
}

/// Publish messages that were put aside once more
///
/// They go back into the outbox, under the ids that they had. Those that are still refused come back here.
#[utoipa::path(
    post, path = "/v1/outbox/parked/retry", tag = "Outbox", operation_id = "RetryParkedMessages",
    request_body = ParkedBody,
    responses((status = 200, description = "How many there were", body = ParkedAnswer))
)]
pub(crate) async fn retry(api: Api, caller: Caller, JsonBody(body): JsonBody<ParkedBody>) -> Result<Response, Problem> {
    let messages = api.app.retry_parked(&caller, body.which()?).await?;
    json(StatusCode::OK, &ParkedAnswer { messages })
}

/// Discard messages that were put aside
///
/// They are deleted and never published. A job's dead letter stays in the list of dead letters.
#[utoipa::path(
    post, path = "/v1/outbox/parked/discard", tag = "Outbox", operation_id = "DiscardParkedMessages",
    request_body = ParkedBody,
    responses((status = 200, description = "How many there were", body = ParkedAnswer))
)]
pub(crate) async fn discard(
    api: Api,
    caller: Caller,
    JsonBody(body): JsonBody<ParkedBody>,
) -> Result<Response, Problem> {
    let messages = api.app.discard_parked(&caller, body.which()?).await?;
    json(StatusCode::OK, &ParkedAnswer { messages })
}
