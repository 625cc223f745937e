//! What every RPC passes through: its id, the gate and the role. Fails closed.

use super::messages::{Kept, Kind, Messages};
use super::status;
use crate::api::auth::{Auth, Role};
use crate::api::limits::{BODY_MAX_BYTES, Gate};
use crate::api::operations::{self, Access};
use crate::api::rest::of_this_machine;
use crate::api::trace;
use crate::app::App;
use crate::caller::{Caller, GRPC};
use crate::error::{Code, Error};
use agentforge_access::Principal;
use agentforge_jetstream::trace::describe;
use agentforge_runtime::http::{Caller as Peer, bodies};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{Instrument, Span};

/// What the guard needs.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) auth: Auth,
    pub(super) gate: Gate,
    /// For calls that need no token.
    pub(super) open_gate: Gate,
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
    let passed = pass(&guard, &mut request, &request_id).await;
    if let Err(Refused { error, caller: Some(caller) }) = &passed {
        guard.app.record_refusal(caller, "", None, error).await;
    }
    let mut passed = passed.map_err(|refused| refused.error);
    if passed.is_ok() && matches!(operations::of_rpc(request.uri().path()), Access::Guarded(_)) {
        passed = guard.app.opened().await;
    }
    let mut response = match passed {
        Err(e) => refusal(&e, &request_id),
        Ok(()) => {
            let span = span(&mut request, &request_id, guard.root);
            let (limit, kept) = (timeout_of(request.headers()), Kept::default());
            let request = counted(request, &kept);
            let answer = AssertUnwindSafe(within(limit, next.run(request))).catch_unwind().instrument(span).await;
            match answer {
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

/// Why a call is refused; with its caller, where it is known and may not do this.
struct Refused {
    error: Error,
    caller: Option<Caller>,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, caller: None }
    }
}

async fn pass(guard: &Guard, request: &mut Request, request_id: &str) -> Result<(), Refused> {
    let access = operations::of_rpc(request.uri().path());
    let gate = if matches!(access, Access::Open) { &guard.open_gate } else { &guard.gate };
    let place = Place(Arc::new(gate.enter()?));
    request.extensions_mut().insert(place);
    if guard.auth.is_open() {
        of_this_machine(request.headers(), request.uri())?;
    }
    match access {
        Access::Open => Ok(()),
        Access::Guarded(operation) => {
            let address = guard.auth.address(request.headers(), request.extensions());
            let caller = |principal: &Principal| {
                Caller::new(principal, address, Some(request_id.to_owned()), GRPC, operation.name)
            };
            let admitted = guard.auth.admit(request.headers(), request.extensions(), operation.role).await;
            let principal = admitted
                .and_then(|principal| operation.within_reach(principal))
                .map_err(|(error, known)| Refused { error, caller: known.as_ref().map(caller) })?;
            if operation.role.includes(Role::Operator) {
                tracing::info!(caller = &*principal.name, operation = operation.name, "admin request");
            }
            mark_known(request);
            // Handlers find the caller here.
            let caller = caller(&principal);
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(principal);
            Ok(())
        }
        // Reflection; or it does not exist, and only callers with a valid token may learn that.
        Access::MethodUnknown | Access::Unknown => {
            let admitted = guard.auth.admit(request.headers(), request.extensions(), Role::Read).await;
            Ok(admitted.map(|_| mark_known(request)).map_err(|(error, _)| error)?)
        }
    }
}

/// The connection may stay when it is idle.
fn mark_known(request: &Request) {
    if let Some(caller) = request.extensions().get::<Peer>() {
        caller.is_known();
    }
}

/// The request with its messages counted in the memory for bodies.
fn counted(mut request: Request, kept: &Kept) -> Request {
    let kind = match operations::of_rpc(request.uri().path()) {
        Access::Guarded(operation) if operation.name == "SubmitJobs" => Kind::Submissions,
        Access::Guarded(_) => Kind::One,
        _ => Kind::Small,
    };
    request.extensions_mut().insert(kept.clone());
    let kept = kept.clone();
    request.map(|body| Body::new(Messages::new(body, kind, bodies(), kept)))
}

/// How long the caller waits for the answer to begin, as it says.
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // The protocol allows 8 digits.
    let amount = if digits.len() <= 8 { digits.parse::<u64>().ok()? } else { return None };
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The answer, or the end of the caller's patience.
async fn within(limit: Option<Duration>, answer: impl Future<Output = Response>) -> Response {
    let Some(limit) = limit else { return answer.await };
    let late = |_| tonic::Status::deadline_exceeded("the call's timeout expired").into_http::<Body>();
    tokio::time::timeout(limit, answer).await.unwrap_or_else(late)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_timeout_is_read_as_the_protocol_writes_it() {
        let of = |text: &'static str| {
            timeout_of(&HeaderMap::from_iter([(
                HeaderName::from_static("grpc-timeout"),
                HeaderValue::from_static(text),
            )]))
        };
        for (text, want) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("5n", Some(Duration::from_nanos(5))),
            ("999999999S", None),
            ("5", None),
            ("S", None),
            ("", None),
            ("-1S", None),
        ] {
            assert_eq!(of(text), want, "{text}");
        }
        assert_eq!(timeout_of(&HeaderMap::new()), None);
    }
}
