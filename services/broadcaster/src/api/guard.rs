//! Who may call the API.
//!
//! With tokens, the bearer of one whose role allows it. Without them the API is open only in ENV=dev on a loopback
//! listener, and then refuses requests of web pages: a page in a browser on this machine could reach the port otherwise;
//! and what came through a proxy, whose callers are strangers.

use super::problem::Problem;
use agentforge_access::{Denied, Role};
use agentforge_door::{Audit, Door, Refusal, Shown};
use agentforge_runtime::http::{ClientCertificate, same_machine};
use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::net::SocketAddr;

/// Lets a request pass, or refuses it. Handlers find the caller as `Principal`.
pub(super) async fn guarded(State((door, audit)): State<(Door, Audit)>, mut request: Request, next: Next) -> Response {
    if door.is_open()
        && let Err(foreign) = same_machine(request.headers(), request.uri())
    {
        let detail = format!("without BROADCASTER_TOKEN {foreign}");
        return Problem::new(StatusCode::FORBIDDEN, "permission_denied", detail).into_response();
    }
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let certificate = request.extensions().get::<ClientCertificate>().map_or(&[][..], ClientCertificate::names);
    let shown = Shown::new(peer, request.headers()).with_certificate(certificate);
    match door.admit(&shown, needed(request.method(), route)).await {
        // What is here is about the whole installation.
        Ok(principal) if !principal.scopes.is_all() => {
            let (name, scopes) = (&principal.name, &principal.scopes);
            let detail = format!("the token {name} is limited to {scopes}, and this is about the whole installation");
            audit.refused(&request, &principal).await;
            Problem::new(StatusCode::FORBIDDEN, "permission_denied", detail).into_response()
        }
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(refusal) => {
            if let Refusal::Denied(Denied::Role(principal)) = &refusal {
                audit.refused(&request, principal).await;
            }
            in_words(&refusal).into_response()
        }
    }
}

fn in_words(refusal: &Refusal) -> Problem {
    let refused = |code, detail: String| Problem::new(StatusCode::FORBIDDEN, code, detail);
    match refusal {
        Refusal::Denied(Denied::Role(principal)) => {
            let (name, role) = (&principal.name, principal.role.as_str());
            refused("permission_denied", format!("the token {name} has the role {role}, which does not allow this"))
        }
        Refusal::Denied(Denied::Jwt(fault)) if fault.is_without_rights() => {
            refused("permission_denied", fault.in_words().to_owned())
        }
        Refusal::Denied(Denied::Jwt(fault)) => Problem::unauthorized("unauthenticated", fault.in_words()),
        Refusal::Proxy => refused("permission_denied", format!("{refusal}; set BROADCASTER_TOKEN")),
        Refusal::Denied(Denied::Expired(_)) => {
            Problem::unauthorized("unauthenticated", "the token has expired; a new one is needed")
        }
        Refusal::Denied(Denied::Certificate) => {
            Problem::unauthorized("unauthenticated", "the proxy's headers do not agree about the client's certificate")
        }
        Refusal::Denied(Denied::Closed | Denied::Missing | Denied::Unknown) => Problem::unauthorized(
            "unauthenticated",
            "send `Authorization: Bearer TOKEN` with the value of BROADCASTER_TOKEN, or a token of ACCESS_TOKENS_FILE, or a client certificate that it names",
        ),
        Refusal::LockedOut(wait) | Refusal::CallerRate(wait) | Refusal::AddressRate(wait) => {
            let wait = refusal.retry_after().unwrap_or(*wait);
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", refusal.to_string())
                .with(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)))
        }
    }
}

/// What a caller must be allowed to do.
fn needed(method: &Method, route: &str) -> Role {
    match (method, route) {
        (&Method::POST, "/v1/alerts") => Role::Alerts,
        (&Method::GET | &Method::HEAD, _) => Role::Read,
        // What is done to keep deliveries going.
        (&Method::POST, "/v1/endpoints/{name}/pause" | "/v1/endpoints/{name}/resume" | "/v1/endpoints/{name}/test")
        | (&Method::POST, "/v1/endpoints/{name}/enable" | "/v1/replay" | "/v1/dead-letters/redeliver") => {
            Role::Operator
        }
        // Where events go and with which secret; and what is not known here.
        _ => Role::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_needs_a_role_and_what_is_new_needs_an_admin() {
        for (method, route, role) in [
            (Method::POST, "/v1/alerts", Role::Alerts),
            (Method::GET, "/v1/dead-letters/{seq}", Role::Read),
            (Method::HEAD, "/v1/endpoints", Role::Read),
            (Method::POST, "/v1/dead-letters/redeliver", Role::Operator),
            (Method::POST, "/v1/endpoints/{name}/pause", Role::Operator),
            (Method::POST, "/v1/endpoints", Role::Admin),
            (Method::PATCH, "/v1/endpoints/{name}", Role::Admin),
            (Method::DELETE, "/v1/endpoints/{name}", Role::Admin),
            (Method::POST, "/v1/endpoints/{name}/rotate", Role::Admin),
            (Method::POST, "/v1/something-new", Role::Admin),
            (Method::PUT, "/v1/alerts", Role::Admin),
        ] {
            assert_eq!(needed(&method, route), role, "{method} {route}");
        }
    }
}
