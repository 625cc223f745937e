//! Who may call the API.
//!
//! With a token, its bearer. Without one the API is open only in ENV=dev on a loopback listener, and then refuses requests
//! of web pages: a page in a browser on this machine could reach the port otherwise.

use super::problem::Problem;
use agentforge_config::{ExposeSecret, Secret};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{net::IpAddr, sync::Arc};
use subtle::ConstantTimeEq;

/// Who may call.
pub(super) enum Guard {
    Token(Secret),
    /// Callers that reach a loopback listener of a developer's machine.
    Open,
    Closed,
}

/// Lets a request pass, or refuses it.
pub(super) async fn guarded(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let allowed = match &*guard {
        Guard::Open => match same_machine(request.headers()) {
            Ok(()) => Ok(()),
            Err(detail) => {
                return Problem::new(StatusCode::FORBIDDEN, "permission_denied", detail).into_response();
            }
        },
        Guard::Closed => {
            Err("set BROADCASTER_TOKEN; without it the API is open in ENV=dev on a loopback listener only")
        }
        Guard::Token(token) => match bearer(request.headers()) {
            Some(given) if bool::from(given.as_bytes().ct_eq(token.expose_secret().as_bytes())) => Ok(()),
            _ => Err("send `Authorization: Bearer TOKEN` with the value of BROADCASTER_TOKEN"),
        },
    };
    match allowed {
        Ok(()) => next.run(request).await,
        Err(detail) => {
            let mut response = Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail).into_response();
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            response
        }
    }
}

/// Without a token a web page in a browser could reach a loopback port, by a cross-site request or by a name that it
/// points to 127.0.0.1. Browsers reveal both: by Origin and by Host.
fn same_machine(headers: &HeaderMap) -> Result<(), &'static str> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if host.is_some_and(|host| !is_local_name(host)) {
        return Err("without BROADCASTER_TOKEN the host must be localhost or an IP address");
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    if origin.is_some() && origin == host {
        Ok(())
    } else {
        Err("without BROADCASTER_TOKEN requests from web pages of other origins are refused")
    }
}

fn is_local_name(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<axum::http::uri::Authority>() else { return false };
    let host = authority.host().to_ascii_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.ends_with(".localhost") || bare.parse::<IpAddr>().is_ok()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}
