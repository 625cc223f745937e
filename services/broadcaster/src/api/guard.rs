//! Who may call the API.
//!
//! With a token, its bearer. Without one the API is open only in ENV=dev on a loopback listener, and then refuses requests
//! of web pages: a page in a browser on this machine could reach the port otherwise.

use super::problem::Problem;
use agentforge_access::{Denied, Guard, Role};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::net::IpAddr;

/// Lets a request pass, or refuses it.
pub(super) async fn guarded(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    if guard.is_open()
        && let Err(detail) = same_machine(request.headers())
    {
        return Problem::new(StatusCode::FORBIDDEN, "permission_denied", detail).into_response();
    }
    let detail = match guard.check(request.headers().get(header::AUTHORIZATION), Role::Admin) {
        Ok(_) => return next.run(request).await,
        Err(Denied::Closed) => {
            "set BROADCASTER_TOKEN; without it the API is open in ENV=dev on a loopback listener only"
        }
        Err(_) => "send `Authorization: Bearer TOKEN` with the value of BROADCASTER_TOKEN",
    };
    Problem::unauthorized("unauthenticated", detail).into_response()
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
