//! Dead letters: listed, read, redelivered.

use super::{
    app::{Api, PAGE_DEFAULT, name_of_endpoint},
    problem::Problem,
};
use crate::{
    error::chain,
    redelivery::dead_letters::{self, Filter, RedeliverRequest},
};
use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::json;

impl From<dead_letters::Error> for Problem {
    fn from(error: dead_letters::Error) -> Self {
        Self::away(chain(&error))
    }
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    endpoint: Option<String>,
    reason: Option<String>,
    after: Option<u64>,
    limit: Option<usize>,
}

pub(super) async fn list(State(api): State<Api>, Query(which): Query<ListQuery>) -> Result<Response, Problem> {
    let limit = which.limit.unwrap_or(PAGE_DEFAULT).clamp(1, dead_letters::PAGE_MAX);
    let filter = Filter { endpoint: name_of_endpoint(which.endpoint)?, reason: which.reason };
    let found = api.dead_letters.list(&filter, which.after.unwrap_or(0), limit).await?;
    let next_after = found.last().filter(|_| found.len() == limit).map(|last| last.seq);
    Ok(Json(json!({ "dead_letters": found, "next_after": next_after })).into_response())
}

pub(super) async fn read(State(api): State<Api>, Path(seq): Path<u64>) -> Result<Response, Problem> {
    let letter = api.dead_letters.read(seq).await?;
    Ok(Json(letter.ok_or_else(|| Problem::missing("such dead letter"))?).into_response())
}

pub(super) async fn redeliver(State(api): State<Api>, body: Bytes) -> Result<Response, Problem> {
    let mut wanted: RedeliverRequest = serde_json::from_slice(&body).map_err(|e| Problem::invalid(e.to_string()))?;
    wanted.endpoint = name_of_endpoint(wanted.endpoint)?;
    if wanted.seqs.is_empty() && wanted.endpoint.is_none() && wanted.reason.is_none() && !wanted.all {
        return Err(Problem::invalid("name seqs, endpoint or reason, or set all to true"));
    }
    Ok(Json(api.dead_letters.redeliver(wanted).await?).into_response())
}
