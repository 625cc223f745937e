//! What became of attempts: those that this replica remembers, and those that the stream keeps of all replicas.
//!
//! And events that were delivered before, sent again.

use super::{
    app::{Api, PAGE_DEFAULT, known, name_of_endpoint},
    problem::{Problem, invalid, unavailable},
};
use crate::{
    error::chain,
    history::{
        attempt::{Attempt, Filter},
        stream::{self as history, Page, Place},
    },
    redelivery::replay,
};
use axum::{
    Json,
    body::Bytes,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Attempts in one answer, at most.
const PAGE_MAX: usize = 1000;

/// The query of `GET /v1/deliveries`; conditions are combined with "and".
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct AttemptQuery {
    /// Those of this endpoint.
    endpoint: Option<String>,
    /// Those of this event.
    #[serde(alias = "id")]
    webhook_id: Option<String>,
    /// delivered, retried, dead, disabled or set_aside.
    outcome: Option<String>,
    /// RFC 3339; not before.
    since: Option<String>,
    /// RFC 3339; not after.
    until: Option<String>,
    /// Attempts of this replica after that number, as they are made.
    after: Option<u64>,
    /// Attempts older than that place.
    before: Option<String>,
    /// At most so many; 1000 at most.
    limit: Option<usize>,
}

/// Attempts, the oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct AttemptPage {
    deliveries: Vec<Attempt>,
    /// What `before` takes for the page of older ones; null when there are none, and with `after`.
    next_before: Option<String>,
    /// Attempts that this replica has made since it started: what `after` takes for those that follow.
    last_n: u64,
    /// Why attempts that the stream keeps are missing; null when none are.
    problem: Option<String>,
}

/// List attempts
///
/// Those that this replica remembers, and those that the stream keeps of all replicas.
#[utoipa::path(
    get, path = "/v1/deliveries", tag = "Deliveries", operation_id = "list_deliveries",
    params(AttemptQuery),
    responses((status = 200, description = "The attempts, oldest first", body = AttemptPage))
)]
pub(super) async fn list(State(api): State<Api>, Query(wanted): Query<AttemptQuery>) -> Result<Response, Problem> {
    let context = api.registry.context();
    let limit = wanted.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
    let filter = Filter {
        endpoint: wanted.endpoint.filter(|name| !name.is_empty()),
        webhook_id: wanted.webhook_id,
        outcome: wanted.outcome,
        since: moment("since", wanted.since)?,
        until: moment("until", wanted.until)?,
    };
    let last_n = context.recent.last_n();
    if let Some(after) = wanted.after {
        let deliveries = context.recent.after(after, &filter, limit);
        return Ok(Json(AttemptPage { deliveries, next_before: None, last_n, problem: None }).into_response());
    }
    let before = wanted.before.map(|place| place.parse::<Place>().map_err(invalid)).transpose()?;
    // What is not written yet is newer than all that is.
    let mut found = if before.is_none() { context.recent.unwritten(&filter, limit) } else { Vec::new() };
    let (mut next_before, mut problem) = (None, None);
    let page = match limit - found.len() {
        0 => history::end(context).await.map(|end| Page { next_before: Some(end), ..Page::default() }),
        quota => history::search(context, &filter, before, quota).await,
    };
    match page {
        Ok(page) => {
            let is_new = |a: &Attempt| found.iter().all(|b| (b.n, &b.replica) != (a.n, &a.replica));
            let older: Vec<_> = page.attempts.into_iter().filter(is_new).collect();
            found.extend(older);
            next_before = page.next_before.map(|place| place.to_string());
            if found.is_empty() && before.is_none() {
                // Also if the stream was deleted: what this replica remembers.
                found = context.recent.newest(&filter, limit);
            }
        }
        Err(error) => {
            // At least what this replica remembers.
            problem = Some(format!("the history cannot be read: {}", chain(&error)));
            if before.is_none() {
                found = context.recent.newest(&filter, limit);
            }
        }
    }
    found.reverse();
    Ok(Json(AttemptPage { deliveries: found, next_before, last_n, problem }).into_response())
}

fn moment(name: &str, given: Option<String>) -> Result<Option<Timestamp>, Problem> {
    let wrong = |_| invalid(format!("{name} is not a time such as 2026-01-31T12:00:00Z"));
    given.map(|text| text.parse().map_err(wrong)).transpose()
}

/// Send events again
///
/// Events of a time or by id, to one endpoint.
#[utoipa::path(
    post, path = "/v1/replay", tag = "Deliveries",
    request_body = replay::ReplayRequest,
    responses((status = 200, description = "How many", body = replay::Replayed))
)]
pub(super) async fn replay(State(api): State<Api>, body: Bytes) -> Result<Response, Problem> {
    let mut wanted: replay::ReplayRequest = serde_json::from_slice(&body).map_err(|e| invalid(e.to_string()))?;
    let name = name_of_endpoint(Some(std::mem::take(&mut wanted.endpoint)))?.unwrap_or_default();
    let subscription = known(&api, &name)?;
    let answer = replay::replay(api.registry.context(), &subscription.endpoint, wanted).await?;
    Ok(Json(answer).into_response())
}

impl From<replay::Error> for Problem {
    fn from(error: replay::Error) -> Self {
        match &error {
            replay::Error::Invalid(detail) => invalid(*detail),
            replay::Error::Full { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "resource_exhausted", error.to_string())
            }
            _ => unavailable(chain(&error)),
        }
    }
}
