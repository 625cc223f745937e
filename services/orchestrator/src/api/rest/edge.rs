//! What every REST request passes through: its id, the gate, the role, and the writing of problems.
//!
//! The order matters: the id first, so that every answer has one; then the gate, so that a flood costs
//! little; then the guard. Nothing below it checks a role.

use super::problem::Problem;
use crate::api::auth::{Auth, Role};
use crate::api::limits::Gate;
use crate::api::operations::{self, Access};
use crate::api::{log_failure, trace};
use crate::app::App;
use crate::caller::{Caller, REST};
use crate::error::{Code, Error};
use agentforge_access::Principal;
use agentforge_runtime::http::{RequestId, same_machine};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use std::panic::AssertUnwindSafe;

/// What the edge needs.
#[derive(Clone)]
pub(crate) struct Edge {
    pub(crate) auth: Auth,
    pub(crate) gate: Gate,
    pub(crate) app: App,
}

/// Admits a request: a known token, its role, a place under the limit of requests. Writes problems into answers.
pub(crate) async fn edge(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    // The chassis gives every request an id and a span; a router without it does so here.
    let given = request.extensions().get::<RequestId>().map(|id| id.as_str().to_owned());
    let request_id = given.unwrap_or_else(|| trace::request_id(request.headers()));
    let id_header = HeaderValue::from_str(&request_id).expect("printable, or a UUID");
    let route = request.extensions().get::<MatchedPath>().map(|m| m.as_str().to_owned()).unwrap_or_default();
    request.headers_mut().insert(HeaderName::from_static(trace::REQUEST_ID), id_header.clone());
    let mut response = pass(&edge, &route, request, next, &request_id).await;
    if response.status().is_client_error() || response.status().is_server_error() {
        let problem = response.extensions_mut().remove::<Problem>().unwrap_or_else(|| unnamed(&response));
        if let Some(cause) = problem.cause() {
            log_failure(cause, &route, Some(&request_id));
        }
        response = problem.render(response, &request_id);
    }
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static(trace::REQUEST_ID), id_header);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn pass(edge: &Edge, route: &str, request: Request, next: Next, request_id: &str) -> Response {
    let _place = match edge.gate.enter() {
        Ok(place) => place,
        Err(e) => return Problem::from(e).into_response(),
    };
    let (mut parts, body) = request.into_parts();
    match guard(edge, route, &parts, request_id).await {
        // Handlers find the caller here.
        Ok((principal, caller)) => {
            parts.extensions.insert(principal);
            caller.map(|caller| parts.extensions.insert(caller));
        }
        Err(Refused { problem, caller }) => {
            if let (Some(caller), Some(error)) = (caller, problem.cause()) {
                edge.app.record_refusal(&caller, "", None, error).await;
            }
            return problem.into_response();
        }
    }
    let request = Request::from_parts(parts, body);
    if matches!(operations::of_route(request.method(), route), Access::Guarded(_))
        && let Err(e) = edge.app.opened().await
    {
        return Problem::from(e).into_response();
    }
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        // The panic hook has logged where.
        Err(_) => Problem::from(Error::new(Code::Internal, "a defect ended this request; see the orchestrator's log"))
            .into_response(),
    }
}

/// Why a request is refused; with its caller, where it is known and may not do this.
struct Refused {
    problem: Problem,
    caller: Option<Caller>,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { problem, caller: None }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Problem::from(error).into()
    }
}

/// Lets pass what the table of operations allows, and says who asks.
async fn guard(
    edge: &Edge,
    route: &str,
    request: &Parts,
    request_id: &str,
) -> Result<(Principal, Option<Caller>), Refused> {
    if edge.auth.is_open() {
        of_this_machine(&request.headers, &request.uri)?;
    }
    if route.is_empty() {
        let detail = format!("there is no route {}; GET /docs lists them", request.uri.path());
        return Err(Error::new(Code::NotFound, detail).into());
    }
    match operations::of_route(&request.method, route) {
        Access::Open => Ok((Principal::anyone(), None)),
        Access::Guarded(operation) => {
            let address = edge.auth.address(&request.headers, &request.extensions);
            let caller = |principal: &Principal| {
                Caller::new(principal, address, Some(request_id.to_owned()), REST, operation.name)
            };
            let admitted = edge.auth.admit(&request.headers, &request.extensions, operation.role).await;
            let principal = admitted
                .and_then(|principal| operation.within_reach(principal))
                .map_err(|(error, known)| Refused { problem: error.into(), caller: known.as_ref().map(caller) })?;
            if operation.role.includes(Role::Operator) {
                let (caller, path) = (&*principal.name, request.uri.path());
                tracing::info!(caller, operation = operation.name, path, "admin request");
            }
            let caller = caller(&principal);
            Ok((principal, Some(caller)))
        }
        Access::MethodUnknown => {
            let allow = operations::methods_of(route);
            Err(Problem::method(format!("{route} has no method {}; it has {allow}", request.method), &allow).into())
        }
        Access::Unknown => Err(Error::new(Code::PermissionDenied, "this route is not open to anyone").into()),
    }
}

/// Without tokens only programs of this machine are served.
pub(crate) fn of_this_machine(headers: &HeaderMap, uri: &Uri) -> Result<(), Error> {
    same_machine(headers, uri).map_err(|foreign| {
        let message =
            format!("without API_TOKENS {foreign}; set API_TOKENS to serve other callers than this machine's");
        Error::new(Code::PermissionDenied, message)
    })
}

/// Handlers take who asks from where the edge put it.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Error::new(Code::Internal, "the request has no caller").into())
    }
}

/// A refusal that did not come from our code, such as axum's own.
fn unnamed(response: &Response) -> Problem {
    let status = response.status();
    let code = match status.as_u16() {
        404 => Code::NotFound,
        413 => Code::TooLarge,
        400..=499 => Code::InvalidArgument,
        503 => Code::Unavailable,
        _ => Code::Internal,
    };
    Problem::from(Error::new(code, status.canonical_reason().unwrap_or("the request failed").to_lowercase()))
}
