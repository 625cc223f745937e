//! The API below /v1: endpoints, attempts, dead letters, and the intake of alerts.
//!
//! Answers contain names of endpoints, never URLs, secrets or headers. Refusals are problems with a stable code.

use crate::{redelivery::dead_letters::DeadLetters, registry::Registry};
use agentforge_door::{Audit, audited};
use agentforge_runtime::http::json_only;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post},
};

mod alerts;
mod app;
mod audit;
mod dead_letters;
mod deliveries;
mod endpoints;
mod guard;
pub mod openapi;
mod problem;
mod view;

use app::Api;

/// Larger bodies are refused: Alertmanager's are some tens of kilobytes.
const BODY_BYTES_MAX: usize = 4 << 20;

pub fn router(registry: &Registry) -> Router {
    let config = &registry.context().config;
    let door = config.door.clone();
    let context = registry.context();
    let audit = Audit::new(context.nats.clone(), config.common.env.clone(), door.clone(), audit::CALLS);
    let (clock, quota) = (context.clock.clone(), context.quota.clone());
    let dead_letters = DeadLetters::new(context.nats.clone(), &config.common.env, clock, quota);
    let api = Api { registry: registry.clone(), dead_letters };
    Router::new()
        .route("/v1/endpoints", get(endpoints::list).post(endpoints::create))
        .route("/v1/endpoints/{name}", get(endpoints::get).patch(endpoints::update).delete(endpoints::delete))
        .route("/v1/endpoints/{name}/pause", post(endpoints::pause))
        .route("/v1/endpoints/{name}/resume", post(endpoints::resume))
        .route("/v1/endpoints/{name}/rotate", post(endpoints::rotate))
        .route("/v1/endpoints/{name}/test", post(endpoints::test))
        .route("/v1/endpoints/{name}/enable", post(endpoints::enable))
        .route("/v1/deliveries", get(deliveries::list))
        .route("/v1/replay", post(deliveries::replay))
        .route("/v1/dead-letters", get(dead_letters::list))
        .route("/v1/dead-letters/{seq}", get(dead_letters::read))
        .route("/v1/dead-letters/redeliver", post(dead_letters::redeliver))
        .route("/v1/alerts", post(alerts::take))
        .layer(from_fn(json_only))
        .layer(from_fn_with_state(audit.clone(), audited))
        .layer(from_fn_with_state((door, audit), guard::guarded))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api)
}
