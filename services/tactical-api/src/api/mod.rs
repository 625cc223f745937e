//! Requests and answers over HTTP, apart from the streams.

mod audit;
pub mod cors;
mod evidence;
mod guard;
pub mod openapi;
mod problem;
mod publish;
mod shapes;
mod state;

pub use publish::REMOVED;
pub use state::Api;

use crate::{
    links,
    sanitise::PAYLOAD_MAX_BYTES,
    stream::{SSE_PATH, WS_PATH},
};
use agentforge_door::{Audit, audited};
use agentforge_runtime::http::{OPENAPI_PATH, Problem, serve_openapi};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderValue, StatusCode, header},
    middleware::from_fn_with_state,
    routing::{delete, get, post},
};
use bytes::Bytes;
use problem::problem;
use std::sync::Arc;

/// All routes of the API, except for the streams, which take their connections over.
pub fn router(api: Api) -> Router {
    let links = format!("{}{{token}}", links::PREFIX);
    let audit = Audit::new(api.nats.clone(), api.env.clone(), api.access.door.clone(), audit::CALLS);
    let (api, document) = (Arc::new(api), Bytes::from(openapi::openapi_json()));
    Router::new()
        .route("/v1/markers", post(publish::marker))
        .route("/v1/zones", post(publish::zone))
        .route("/v1/markers/{id}", delete(publish::remove_marker))
        .route("/v1/zones/{id}", delete(publish::remove_zone))
        .route("/v1/rejected", get(publish::rejected))
        .route(&links, get(evidence::get))
        .route(OPENAPI_PATH, get(move || async move { serve_openapi(document) }))
        // A GET never comes here: its connection was taken.
        .route(SSE_PATH, axum::routing::any(not_a_stream))
        .route(WS_PATH, axum::routing::any(not_a_stream))
        .fallback(not_found)
        .layer(from_fn_with_state(audit.clone(), audited))
        .layer(from_fn_with_state((api.clone(), audit), guard::guarded))
        .layer(DefaultBodyLimit::max(PAYLOAD_MAX_BYTES))
        .layer(from_fn_with_state(api.clone(), cors::pages))
        .with_state(api)
}

async fn not_a_stream() -> Problem {
    let refusal = problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "streams are read with GET");
    refusal.with(header::ALLOW, HeaderValue::from_static("GET"))
}

async fn not_found() -> Problem {
    problem(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
}
