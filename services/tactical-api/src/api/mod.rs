//! Requests and answers over HTTP, apart from the streams.

pub mod cors;
mod evidence;
mod problem;
mod publish;

pub use publish::REMOVED;

use crate::{
    config::Access,
    evidence::Store,
    links::{self, Signer},
    live::Live,
    sanitise::PAYLOAD_MAX_BYTES,
    stream::{SSE_PATH, WS_PATH},
};
use agentforge_jetstream::Nats;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    middleware::from_fn_with_state,
    response::Response,
    routing::{delete, get, post},
};
use problem::Problem;
use std::sync::Arc;

/// What handlers need.
pub struct Api {
    /// Who may publish.
    pub access: Access,
    /// Where messages go.
    pub nats: Nats,
    /// The site of markers that name none.
    pub site: String,
    /// What was refused.
    pub live: Live,
    /// Checks links.
    pub signer: Signer,
    /// Where evidence is.
    pub evidence: Store,
}

/// The routes.
pub fn router(api: Api) -> Router {
    let links = format!("{}{{token}}", links::PREFIX);
    let api = Arc::new(api);
    Router::new()
        .route("/v1/markers", post(publish::marker))
        .route("/v1/zones", post(publish::zone))
        .route("/v1/markers/{id}", delete(publish::remove_marker))
        .route("/v1/zones/{id}", delete(publish::remove_zone))
        .route("/v1/rejected", get(publish::rejected))
        .route(&links, get(evidence::get))
        // A GET never comes here: its connection was taken.
        .route(SSE_PATH, axum::routing::any(not_a_stream))
        .route(WS_PATH, axum::routing::any(not_a_stream))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(PAYLOAD_MAX_BYTES))
        .layer(from_fn_with_state(api.clone(), cors::pages))
        .with_state(api)
}

async fn not_a_stream() -> Response {
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "streams are read with GET");
    problem.with("allow", "GET").into()
}

async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
}
