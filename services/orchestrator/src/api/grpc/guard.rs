//! What every RPC passes through: its id, the gate and the role. Fails closed.

use super::status;
use crate::api::auth::{Auth, Role};
use crate::api::limits::{BODY_MAX_BYTES, Gate};
use crate::api::operations::{self, Access};
use crate::api::trace;
use crate::app::App;
use crate::error::{Code, Error};
use agentforge_jetstream::trace::describe;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, header};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{Instrument, Span};

/// What the guard needs.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) auth: Auth,
    pub(super) gate: Gate,
    pub(super) app: App,
    pub(super) root: trace::Root,
}

/// A call's place among those served at once. Streams keep a clone for as long as they last.
#[derive(Clone)]
pub(super) struct Place(#[allow(dead_code)] Arc<OwnedSemaphorePermit>);

/// Admits a call: a known token, its role, a place under the limit of calls. Refusals are gRPC statuses.
pub(super) async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let request_id = trace::request_id(request.headers());
    let id_header = HeaderValue::from_str(&request_id).expect("checked, or a UUID");
    let name = HeaderName::from_static(trace::REQUEST_ID);
    request.headers_mut().insert(name.clone(), id_header.clone());
    let mut passed = pass(&guard, &mut request);
    if passed.is_ok() && matches!(operations::of_rpc(request.uri().path()), Access::Guarded(_)) {
        passed = guard.app.opened().await;
    }
    let mut response = match passed {
        Err(e) => refusal(&e, &request_id),
        Ok(()) => {
            let span = span(&mut request, &request_id, guard.root);
            match AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span).await {
                Ok(response) if is_too_large(&response) => refusal(&too_large(), &request_id),
                Ok(response) => response,
                // The panic hook has logged where.
                Err(_) => refusal(
                    &Error::new(Code::Internal, "a defect ended this call; see the orchestrator's log"),
                    &request_id,
                ),
            }
        }
    };
    response.headers_mut().insert(name, id_header);
    response
}

/// Health checks are too many and too dull for traces.
fn span(request: &mut Request, request_id: &str, root: trace::Root) -> Span {
    let Access::Guarded(operation) = operations::of_rpc(request.uri().path()) else { return Span::none() };
    let (operation, rpc) = (operation.name, operation.rpc.unwrap_or_default());
    root.name(request.headers_mut());
    if let Some(traceparent) = trace::unrecorded(request.headers()) {
        return tracing::info_span!(target: "agentforge_orchestrator::unrecorded", "request", operation, request_id, traceparent);
    }
    let span = tracing::info_span!("request", operation, request_id, otel.name = rpc, otel.kind = "server");
    trace::join(&span, request.headers());
    let (service, method) = rpc.trim_start_matches('/').split_once('/').unwrap_or((rpc, ""));
    describe(&span, [("rpc.system", "grpc".into()), ("rpc.service", service.into()), ("rpc.method", method.into())]);
    span
}

fn pass(guard: &Guard, request: &mut Request) -> Result<(), Error> {
    let place = Place(Arc::new(guard.gate.enter()?));
    request.extensions_mut().insert(place);
    let path = request.uri().path();
    match operations::of_rpc(path) {
        Access::Open => Ok(()),
        Access::Guarded(operation) => {
            let caller = guard.auth.check(request.headers().get(header::AUTHORIZATION), operation.role)?;
            if operation.role == Role::Admin {
                tracing::info!(caller, operation = operation.name, "admin request");
            }
            Ok(())
        }
        // It does not exist, but only callers with a valid token may learn that.
        Access::MethodUnknown | Access::Unknown => {
            guard.auth.check(request.headers().get(header::AUTHORIZATION), Role::Read).map(|_| ())
        }
    }
}

fn refusal(e: &Error, request_id: &str) -> Response {
    status::of(e, Some(request_id)).into_http::<Body>()
}

/// tonic refuses a message above the decode limit with OUT_OF_RANGE, which nothing of ours uses.
fn is_too_large(response: &Response) -> bool {
    response.headers().get("grpc-status").is_some_and(|s| s == "11")
}

/// The refusal of a message that was too large to read.
pub(super) fn too_large() -> Error {
    Error::new(Code::TooLarge, format!("the message has more than {BODY_MAX_BYTES} bytes, the most for a request"))
}
