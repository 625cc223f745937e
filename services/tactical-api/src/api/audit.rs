//! The audit of publishing: every marker or zone that is published or removed is in the stream of events before it is.
//! The orchestrator takes it into its chained log.
//!
//! Works on the method, not on a list of routes: a new route that changes something is audited without being named.

use super::{problem::unavailable, state::Api};
use agentforge_access::Principal;
use agentforge_audit::{Asker, Entry, Event, subject};
use agentforge_jetstream::{HeaderMap, publish};
use agentforge_message_id::MsgId;
use agentforge_runtime::http::{Problem, RequestId};
use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{net::SocketAddr, sync::Arc};

/// This service, as the log names it.
const SERVICE: &str = "tactical-api";

/// Stores the entry of a call before it is carried out; refuses what cannot be stored.
pub async fn audited(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    // Who may not publish was refused before.
    let Some(entry) = entry_of(&api, &request) else { return next.run(request).await };
    if let Err(problem) = store(&api, &entry).await {
        return problem.into_response();
    }
    let response = next.run(request).await;
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        let refused = Entry { id: Entry::new_id(), ..entry }.ended(outcome(status));
        // Nothing was done: that it was asked is stored.
        let _ = store(&api, &refused).await;
    }
    response
}

async fn store(api: &Api, entry: &Entry) -> Result<(), Problem> {
    let subject = subject(SERVICE, &api.env, &entry.operation);
    let (id, payload) = (MsgId::outbox(&entry.id), Event::of(entry.clone(), &api.env).to_json());
    let sent = publish::publish(&api.nats, subject, id, HeaderMap::new(), payload.into()).await;
    sent.map(drop).map_err(|error| {
        tracing::warn!(%error, "an audit entry was not stored; the call is refused");
        unavailable("the audit entry of this call could not be stored, so nothing was published")
    })
}

fn entry_of(api: &Api, request: &Request) -> Option<Entry> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return None;
    }
    let principal = request.extensions().get::<Principal>()?;
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let by = Asker {
        principal: &principal.name,
        role: principal.role.as_str(),
        address: peer.map(|peer| api.access.address(peer.0, request.headers())),
        request_id: request.extensions().get::<RequestId>().map(RequestId::as_str),
    };
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let kind = if route.starts_with("/v1/zones") { "zone" } else { "marker" };
    let mut parts = route.split('/').zip(request.uri().path().split('/'));
    let id = parts.find(|(named, _)| named.starts_with('{')).map(|(_, given)| given.to_owned());
    Some(Entry::asked(SERVICE, &operation(request.method(), route), &by).about(kind, id))
}

/// What is asked, in a word; a route that is not in the list is named by itself.
fn operation(method: &Method, route: &str) -> String {
    let known = match (method.as_str(), route) {
        ("POST", "/v1/markers") => "PublishMarker",
        ("POST", "/v1/zones") => "PublishZone",
        ("DELETE", "/v1/markers/{id}") => "RemoveMarker",
        ("DELETE", "/v1/zones/{id}") => "RemoveZone",
        (method, route) => return format!("{method} {route}"),
    };
    known.to_owned()
}

/// The refusal in a word, by its class: codes are in the answer.
fn outcome(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "unauthenticated",
        403 => "permission_denied",
        413 => "too_large",
        400..=499 => "invalid_argument",
        _ => "unavailable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation of the document that changes something has a name of its own.
    #[test]
    fn each_call_that_changes_something_is_named() {
        let document: serde_json::Value = serde_json::from_str(&super::super::openapi::openapi_json()).unwrap();
        let mut named = 0;
        for (route, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys().map(|m| m.to_uppercase()) {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                if method != Method::GET {
                    let name = operation(&method, route);
                    assert!(!name.contains(' '), "{name} has no name in the audit log");
                    named += 1;
                }
            }
        }
        assert_eq!(named, 4);
    }
}
