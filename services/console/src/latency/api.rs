//! The sampler over HTTP. Reading takes a viewer; targets take an admin, because they decide what this process calls.

use super::board::Source;
use super::recent::{EVENTS_MAX, Event};
use super::sampler::{ChangeError, Latency};
use super::stats::SAMPLES_MAX;
use super::targets::{self, Given, from_given, to_given};
use crate::needs::needs;
use crate::problem::{Problem, invalid};
use agentforge_access::{Principal, Role};
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// After a failure to write.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The routes, with their state.
pub fn router(latency: Latency) -> Router {
    Router::new()
        .route("/api/service-latencies", get(latencies))
        .route("/admin/latency-targets", post(change))
        .route("/events/recent", get(recent))
        .with_state(latency)
}

#[derive(Deserialize)]
struct Shown {
    samples: Option<usize>,
}

async fn latencies(
    State(latency): State<Latency>,
    Extension(caller): Extension<Principal>,
    Query(shown): Query<Shown>,
) -> Result<Response, Problem> {
    needs(&caller, Role::Read)?;
    Ok(Json(latency.view(shown.samples.unwrap_or(SAMPLES_MAX).min(SAMPLES_MAX))).into_response())
}

/// A list of objects, or the text of the setting.
#[derive(Deserialize)]
#[serde(untagged)]
enum Listed {
    Text(String),
    Objects(Vec<Given>),
}

#[derive(Deserialize)]
struct Change {
    targets: Listed,
    #[serde(default)]
    persist: bool,
}

#[derive(Serialize)]
struct Changed {
    source: Source,
    count: usize,
    persisted: bool,
    targets: Vec<Given>,
}

async fn change(
    State(latency): State<Latency>,
    Extension(caller): Extension<Principal>,
    body: Bytes,
) -> Result<Response, Problem> {
    needs(&caller, Role::Admin)?;
    let asked: Change = serde_json::from_slice(&body)
        .map_err(|e| invalid(format!("the body is {{\"targets\": […], \"persist\": true}}: {e}")))?;
    let targets = match &asked.targets {
        Listed::Text(text) => targets::parse(text),
        Listed::Objects(given) => from_given(given),
    };
    let done = latency.change(targets.map_err(invalid)?, asked.persist).await;
    let (targets, source) = done.map_err(|error| match error {
        ChangeError::Refused(problem) => invalid(problem),
        ChangeError::File(cause) => Problem::unavailable(format!("the targets were not stored: {cause}"), RETRY_AFTER),
    })?;
    let targets = to_given(&targets);
    Ok(Json(Changed { source, count: targets.len(), persisted: asked.persist, targets }).into_response())
}

#[derive(Deserialize)]
struct Which {
    event: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Events {
    events: Vec<Event>,
}

async fn recent(
    State(latency): State<Latency>,
    Extension(caller): Extension<Principal>,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    needs(&caller, Role::Read)?;
    let limit = which.limit.unwrap_or(EVENTS_MAX).min(EVENTS_MAX);
    Ok(Json(Events { events: latency.recent().newest(which.event.as_deref(), limit) }).into_response())
}
