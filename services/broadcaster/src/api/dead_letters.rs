//! Dead letters: listed, read, redelivered.

use super::{
    app::{Api, PAGE_DEFAULT, name_of_endpoint},
    problem::{Problem, invalid, missing, unavailable},
};
use crate::{
    error::chain,
    redelivery::dead_letters::{self, Filter, RedeliverRequest, Redelivered},
    retry::record::DeadLetter,
};
use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

impl From<dead_letters::Error> for Problem {
    fn from(error: dead_letters::Error) -> Self {
        unavailable(chain(&error))
    }
}

/// Which dead letters.
#[derive(Deserialize, IntoParams)]
pub(super) struct ListQuery {
    /// Those of this endpoint.
    endpoint: Option<String>,
    /// Those with this reason.
    reason: Option<String>,
    /// Those after this place.
    after: Option<u64>,
    /// At most so many.
    limit: Option<usize>,
}

/// Dead letters, the oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct DeadLetterPage {
    dead_letters: Vec<DeadLetter>,
    /// Where to continue; null when there are no more.
    next_after: Option<u64>,
}

/// List dead letters
///
/// Without their events, which may be large.
#[utoipa::path(
    get, path = "/v1/dead-letters", tag = "Dead letters", operation_id = "list_dead_letters",
    params(ListQuery),
    responses((status = 200, description = "A page", body = DeadLetterPage))
)]
pub(super) async fn list(State(api): State<Api>, Query(which): Query<ListQuery>) -> Result<Response, Problem> {
    let limit = which.limit.unwrap_or(PAGE_DEFAULT).clamp(1, dead_letters::PAGE_MAX);
    let filter = Filter { endpoint: name_of_endpoint(which.endpoint)?, reason: which.reason };
    let found = api.dead_letters.list(&filter, which.after.unwrap_or(0), limit).await?;
    let next_after = found.last().filter(|_| found.len() == limit).map(|last| last.seq);
    Ok(Json(DeadLetterPage { dead_letters: found, next_after }).into_response())
}

/// Read a dead letter
///
/// With its event.
#[utoipa::path(
    get, path = "/v1/dead-letters/{seq}", tag = "Dead letters",
    params(("seq" = u64, Path, description = "Its place")),
    responses((status = 200, description = "The letter", body = DeadLetter))
)]
pub(super) async fn read(State(api): State<Api>, Path(seq): Path<u64>) -> Result<Response, Problem> {
    let letter = api.dead_letters.read(seq).await?;
    Ok(Json(letter.ok_or_else(|| missing("such dead letter"))?).into_response())
}

/// Send dead letters again
///
/// By place, by endpoint or reason, or all.
#[utoipa::path(
    post, path = "/v1/dead-letters/redeliver", tag = "Dead letters",
    request_body = RedeliverRequest,
    responses((status = 200, description = "How many", body = Redelivered))
)]
pub(super) async fn redeliver(State(api): State<Api>, body: Bytes) -> Result<Response, Problem> {
    let mut wanted: RedeliverRequest = serde_json::from_slice(&body).map_err(|e| invalid(e.to_string()))?;
    wanted.endpoint = name_of_endpoint(wanted.endpoint)?;
    if wanted.seqs.is_empty() && wanted.endpoint.is_none() && wanted.reason.is_none() && !wanted.all {
        return Err(invalid("name seqs, endpoint or reason, or set all to true"));
    }
    Ok(Json(api.dead_letters.redeliver(wanted).await?).into_response())
}
