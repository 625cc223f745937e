//! gRPC `agentforge.v1`: the services, health and reflection, behind one guard.
//!
//! Relies on the same application and the same table of operations as REST. Long answers end when the
//! service stops, so that a stop does not wait for callers.

mod agents;
mod audit;
mod call;
mod convert;
mod filters;
mod guard;
mod health;
mod jobs;
mod messages;
mod operations;
mod schedules;
mod status;
mod submit;

pub use health::Ready;

use super::limits::{BODY_MAX_BYTES, CALLS_MAX, CONNECTION_STREAMS_MAX, Gate, OPEN_CALLS_MAX};
use super::{Auth, trace};
use crate::app::App;
use agentforge_proto::FILE_DESCRIPTOR_SET;
use agentforge_proto::v1::agents_server::AgentsServer;
use agentforge_proto::v1::audit_server::AuditServer;
use agentforge_proto::v1::jobs_server::JobsServer;
use agentforge_proto::v1::operations_server::OperationsServer;
use agentforge_proto::v1::schedules_server::SchedulesServer;
use agentforge_runtime::Tls;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

/// Why the gRPC server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The descriptors that were compiled in cannot be read.
    #[error("gRPC reflection could not be set up")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The listener failed.
    #[error("the gRPC server ended")]
    Listener(#[source] agentforge_runtime::Error),
}

/// All services, guarded.
///
/// # Errors
/// [`ServeError::Reflection`]; a test proves that it does not happen.
pub fn routes(app: App, auth: Auth, root: trace::Root, ready: Ready) -> Result<axum::Router, ServeError> {
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let reflection = described().build_v1().map_err(ServeError::Reflection)?;
    // What many tools still ask for.
    let reflection_before = described().build_v1alpha().map_err(ServeError::Reflection)?;
    let health = health::Service { ready, stopping: app.stopping().clone() };
    let services =
        Routes::new(JobsServer::new(jobs::Service { app: app.clone() }).max_decoding_message_size(BODY_MAX_BYTES))
            .add_service(
                SchedulesServer::new(schedules::Service { app: app.clone() }).max_decoding_message_size(BODY_MAX_BYTES),
            )
            .add_service(
                AgentsServer::new(agents::Service { app: app.clone() }).max_decoding_message_size(BODY_MAX_BYTES),
            )
            .add_service(
                OperationsServer::new(operations::Service { app: app.clone() })
                    .max_decoding_message_size(BODY_MAX_BYTES),
            )
            .add_service(
                AuditServer::new(audit::Service { app: app.clone() }).max_decoding_message_size(BODY_MAX_BYTES),
            )
            .add_service(HealthServer::new(health))
            .add_service(reflection)
            .add_service(reflection_before);
    let (gate, open_gate) = (Gate::new(CALLS_MAX, ""), Gate::new(OPEN_CALLS_MAX, ""));
    let guard = guard::Guard { auth, gate, open_gate, app, root };
    Ok(services.into_axum_router().layer(axum::middleware::from_fn_with_state(guard, guard::guard)))
}

/// Serves until the stop, and then requests in flight, for at most `grace`. `ready` reports whether the service can do
/// its callers' work; health checks use it.
///
/// # Errors
/// [`ServeError::Listener`] when the listener fails.
pub async fn serve(
    (listener, tls): (TcpListener, Option<Tls>),
    app: App,
    auth: Auth,
    root: trace::Root,
    ready: impl Fn() -> bool + Send + Sync + 'static,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), ServeError> {
    let routes = routes(app, auth, root, Arc::new(ready))?;
    let served = agentforge_runtime::http::serve_grpc(listener, tls, routes, CONNECTION_STREAMS_MAX, stop, grace);
    served.await.map_err(ServeError::Listener)
}
