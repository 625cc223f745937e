//! REST `/v1`: routes, their OpenAPI document and the docs page.
//!
//! Routes and document come from the same macros and cannot differ. Every answer passes the `edge`,
//! where roles are checked and problems are written.

pub mod types;

mod agents;
mod audit;
mod batch;
mod cancels;
mod dead_letters;
mod docs;
mod edge;
mod extract;
mod jobs;
mod openapi;
mod operations;
mod outbox;
mod params;
mod problem;
mod queues;
mod response;
mod retries;
mod schedules;
mod sites;
mod slo;
mod state;
mod strict;
mod watch;

pub(crate) use edge::of_this_machine;
pub use problem::Problem;

use self::state::Api;
use super::Auth;
use super::limits::Gate;
use crate::app::App;
use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// All routes, guarded. To be merged with the endpoints for operators. At most `requests_max`
/// requests are served at once (HTTP_CONCURRENCY).
pub fn router(app: App, auth: Auth, requests_max: usize) -> Router {
    let (routes, document) = api_routes().split_for_parts();
    let document = Bytes::from(openapi::finish(document));
    let edge = edge::Edge { auth, gate: Gate::new(requests_max, "HTTP_CONCURRENCY"), app: app.clone() };
    let api = Api { app };
    routes
        .with_state(api)
        .route("/openapi.json", get(move || openapi::serve(document.clone())))
        .route("/docs", get(docs::page))
        .route("/", get(docs::page))
        .fallback(nowhere)
        .layer(axum::middleware::from_fn_with_state(edge, edge::edge))
}

/// The OpenAPI 3.1 document as JSON text.
pub fn openapi_json() -> String {
    openapi::finish(api_routes().split_for_parts().1)
}

fn api_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(jobs::submit, jobs::list))
        .routes(routes!(batch::submit))
        .routes(routes!(jobs::read))
        .routes(routes!(jobs::attempts))
        .routes(routes!(watch::watch))
        .routes(routes!(jobs::output))
        .routes(routes!(jobs::cancel))
        .routes(routes!(cancels::cancel_many))
        .routes(routes!(retries::retry))
        .routes(routes!(retries::retry_many))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::redrive))
        .routes(routes!(dead_letters::discard))
        .routes(routes!(dead_letters::read))
        .routes(routes!(queues::list))
        .routes(routes!(queues::pause))
        .routes(routes!(queues::resume))
        .routes(routes!(queues::find))
        .routes(routes!(queues::counts))
        .routes(routes!(operations::list))
        .routes(routes!(operations::read))
        .routes(routes!(operations::cancel))
        .routes(routes!(outbox::list))
        .routes(routes!(outbox::retry))
        .routes(routes!(outbox::discard))
        .routes(routes!(schedules::create, schedules::list))
        .routes(routes!(schedules::read, schedules::delete, schedules::update))
        .routes(routes!(schedules::run))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
        .routes(routes!(schedules::next_runs))
        .routes(routes!(agents::list))
        .routes(routes!(agents::read))
        .routes(routes!(sites::list))
        .routes(routes!(slo::list))
        .routes(routes!(audit::list))
        .routes(routes!(audit::chains))
        .routes(routes!(audit::chain))
}

/// The edge has refused already; this is for the type.
async fn nowhere() -> StatusCode {
    StatusCode::NOT_FOUND
}
