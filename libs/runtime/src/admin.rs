//! The endpoints for operators: /healthz, /readyz, /metrics.
//!
//! They ask for no token: their bodies hold no secrets and no data of callers. On a developer's machine web pages of other
//! origins cannot read them. Elsewhere metrics are on METRICS_PORT only.

use crate::http::{HTTP_PROTOCOLS, ServerTls, for_this_machine, is_public, serve_probes};
use crate::{Error, OnEnd, Runtime, Tls, bind};
use agentforge_config::Common;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use std::net::SocketAddr;

/// What a service's own port has of them, to be merged into its router: `/healthz` and `/readyz`, and on a developer's
/// machine `/metrics` too. Elsewhere strangers may reach that port.
pub fn admin_router(runtime: &Runtime) -> Router {
    if is_public() { health_router(runtime) } else { probes_router(runtime) }
}

/// `/healthz` (200 live, 503 not), `/readyz` (200 ready, 503 not) with what they wait for, and `/metrics`.
fn probes_router(runtime: &Runtime) -> Router {
    let metrics = Router::new().route("/metrics", get(metrics)).with_state(runtime.clone());
    health_router(runtime).merge(for_this_machine(metrics))
}

/// Only `/healthz` and `/readyz`, for a service that serves its own page of metrics.
pub fn health_router(runtime: &Runtime) -> Router {
    let health = Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz));
    for_this_machine(health.with_state(runtime.clone()))
}

/// Opens the METRICS_PORT listener and serves the admin endpoints there until the stop, as a task
/// of the runtime. `None` when another listener of the process does it. With TLS if the process has it, and never with
/// certificates of clients: probes have none.
///
/// # Errors
/// [`Error::Bind`] when the port cannot be had, and those of [`Tls::open`].
pub async fn serve_metrics(runtime: &Runtime, common: &Common) -> Result<Option<SocketAddr>, Error> {
    if !runtime.serves_metrics() {
        return Ok(None);
    }
    let tls = ServerTls::of(common, HTTP_PROTOCOLS).map(ServerTls::without_client_certificates);
    let tls = tls.map(|tls| Tls::open(runtime, tls)).transpose()?;
    let listener = bind(common.listen(common.metrics_port), "METRICS_PORT").await?;
    let address = listener.local_addr().map_err(Error::Serve)?;
    let router = probes_router(runtime);
    let (stop, grace) = (runtime.stopping(), runtime.grace());
    let serve = async move { Ok(serve_probes(listener, tls, router, stop, grace).await?) };
    runtime.supervisor().spawn("metrics-listener", OnEnd::Stop, serve);
    Ok(Some(address))
}

async fn healthz(State(runtime): State<Runtime>) -> Response {
    let code = code(runtime.readiness().is_live());
    (code, Json(runtime.readiness().live_body())).into_response()
}

async fn readyz(State(runtime): State<Runtime>) -> Response {
    let body = runtime.readiness().ready_body();
    (code(body["ready"] == true), Json(body)).into_response()
}

async fn metrics(State(runtime): State<Runtime>) -> Response {
    // Keeps the gauge of readiness correct even when /readyz is not requested.
    let _ = runtime.readiness().ready_body();
    let text = runtime.process().scrape().await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
