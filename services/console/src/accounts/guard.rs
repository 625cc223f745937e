//! Who may call what needs a session: the cookie of one, or a bearer token of the settings.
//!
//! Handlers find the caller as `Principal`, and the session, if there is one, as [`Session`]. A session's call that changes
//! something needs its CSRF value; a bearer token is never sent by a browser on its own.

use super::{cookies, sessions::Session, state::Accounts};
use crate::problem::{Problem, forbidden};
use agentforge_access::{Denied, Principal, Role, Scopes, now};
use agentforge_door::{Refusal, Shown};
use agentforge_runtime::http::ClientCertificate;
use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::net::{IpAddr, SocketAddr};

/// Where a page gives the value of its session.
const CSRF_HEADER: &str = "x-af-csrf";

/// Lets a request pass, or refuses it.
pub(crate) async fn guarded(State(accounts): State<Accounts>, mut request: Request, next: Next) -> Response {
    // A request with its body cannot be shared while something is waited for.
    let asked = Asked::of(&request);
    match admit(&accounts, &asked).await {
        Ok((principal, session)) => {
            request.extensions_mut().insert(principal);
            if let Some(session) = session {
                request.extensions_mut().insert(session);
            }
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// The same for what decides itself what it does without a session.
pub(crate) async fn recognised(State(accounts): State<Accounts>, request: Request, next: Next) -> Response {
    let asked = Asked::of(&request);
    match session(&accounts, &asked.headers).await {
        Ok(Some(_)) => guarded(State(accounts), request, next).await,
        Ok(None) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// What is looked at of a request.
struct Asked {
    method: Method,
    headers: HeaderMap,
    peer: Option<IpAddr>,
    certificate: Vec<String>,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let extensions = request.extensions();
        Self {
            method: request.method().clone(),
            headers: request.headers().clone(),
            peer: extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip()),
            certificate: extensions.get::<ClientCertificate>().map(|c| c.names().to_vec()).unwrap_or_default(),
        }
    }
}

async fn admit(accounts: &Accounts, asked: &Asked) -> Result<(Principal, Option<Session>), Problem> {
    let headers = &asked.headers;
    if let Some(session) = session(accounts, headers).await? {
        check_csrf(accounts, &session.id, &asked.method, headers)?;
        accounts.0.limits.session(&session.user)?;
        let principal = Principal { name: session.user.as_str().into(), role: session.role, scopes: Scopes::ALL };
        return Ok((principal, Some(session)));
    }
    if !headers.contains_key(header::AUTHORIZATION) {
        return Err(nobody());
    }
    let shown = Shown::new(asked.peer, headers).with_certificate(&asked.certificate);
    match accounts.0.door.admit(&shown, Role::Read).await {
        Ok(principal) => Ok((principal, None)),
        Err(refusal) => Err(refused(&refusal)),
    }
}

/// The session of a request, if it has one that can be used.
pub(super) async fn session(accounts: &Accounts, headers: &HeaderMap) -> Result<Option<Session>, Problem> {
    match cookies::access(&accounts.0.keys, headers) {
        Some(access) if access.number > now() => Ok(accounts.0.sessions.get(&access.id).await?),
        _ => Ok(None),
    }
}

/// Whether a call that changes something has the value of its session.
pub(super) fn check_csrf(accounts: &Accounts, id: &str, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let shown = headers.get(CSRF_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accounts.0.keys.is_sealed("csrf", id, shown) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "csrf",
        "the header x-af-csrf is not the value of this session (GET /auth/session)",
    ))
}

/// There is no session that can be used.
pub(super) fn nobody() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthenticated",
        "there is no session, or it is over: log in (POST /auth/login)",
    )
}

fn refused(refusal: &Refusal) -> Problem {
    if let Some(wait) = refusal.retry_after() {
        return Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", refusal.to_string())
            .with(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    match refusal {
        Refusal::Denied(Denied::Role(_)) => forbidden("the token's role allows nothing here"),
        _ => Problem::unauthorized("unauthenticated", "the token is not accepted"),
    }
}
