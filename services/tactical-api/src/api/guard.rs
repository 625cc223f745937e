//! Who may call the API: a route that publishes, or shows what was refused, is for callers that the door lets in.
//!
//! Works on the method, not on a list of routes: a new route that changes something is guarded without being named.

use super::{problem::refused, state::Api};
use crate::links;
use agentforge_access::{Denied, Role};
use agentforge_door::{Audit, Refusal};
use agentforge_runtime::http::{ClientCertificate, OPENAPI_PATH};
use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{net::SocketAddr, sync::Arc};

/// Lets a request pass, or refuses it. Handlers find the caller as `Principal`.
pub async fn guarded(
    State((api, audit)): State<(Arc<Api>, Audit)>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let Some(needed) = needed(request.method(), route) else { return next.run(request).await };
    let headers = request.headers();
    let is_foreign = api.access.page(peer, headers).is_err();
    let certificate = request.extensions().get::<ClientCertificate>().map_or(&[][..], ClientCertificate::names);
    match api.access.caller(peer, headers, certificate, is_foreign, needed).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => {
            if let Refusal::Denied(Denied::Role(caller)) = &refusal {
                audit.refused(&request, caller).await;
            }
            refused(&refusal).into_response()
        }
    }
}

/// The role that a route needs; `None` for what is for everybody: links, which are their own permission, the document,
/// and what is not there.
fn needed(method: &Method, route: &str) -> Option<Role> {
    let is_read = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    match route {
        OPENAPI_PATH => None,
        route if route.starts_with(links::PREFIX) => None,
        route if !route.starts_with("/v1/") => None,
        _ if is_read => Some(Role::Read),
        _ => Some(Role::Submit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_something_needs_a_submitter_and_links_need_nobody() {
        let link = format!("{}{{token}}", links::PREFIX);
        for (method, route, role) in [
            (Method::POST, "/v1/markers", Some(Role::Submit)),
            (Method::DELETE, "/v1/zones/{id}", Some(Role::Submit)),
            (Method::PATCH, "/v1/something-new", Some(Role::Submit)),
            (Method::GET, "/v1/rejected", Some(Role::Read)),
            (Method::GET, link.as_str(), None),
            (Method::GET, OPENAPI_PATH, None),
            (Method::POST, "", None),
        ] {
            assert_eq!(needed(&method, route), role, "{method} {route}");
        }
    }
}
