//! Who may call the API.
//!
//! With a token, its bearer. Without one the API is open only in ENV=dev on a loopback listener, and then refuses requests
//! of web pages: a page in a browser on this machine could reach the port otherwise.

use super::problem::Problem;
use agentforge_access::{Denied, Guard, Role};
use agentforge_runtime::http::same_machine;
use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// Lets a request pass, or refuses it.
pub(super) async fn guarded(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    if guard.is_open()
        && let Err(foreign) = same_machine(request.headers(), request.uri())
    {
        let detail = format!("without BROADCASTER_TOKEN {foreign}");
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
