//! The audit of the API: every call that changes something, and every read of an event, is in the stream of events before
//! it is done. The orchestrator takes it into its chained log.
//!
//! Works on the method, not on a list of routes: a new route that changes something is audited without being named.

use super::problem::{Problem, unavailable};
use crate::error::chain;
use agentforge_access::Principal;
use agentforge_audit::{Asker, Entry, Event, subject};
use agentforge_jetstream::{HeaderMap, Nats, publish};
use agentforge_message_id::MsgId;
use agentforge_runtime::http::RequestId;
use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::net::SocketAddr;

/// This service, as the log names it.
const SERVICE: &str = "broadcaster";
/// The one read that shows what an event contains.
const READ: &str = "/v1/dead-letters/{seq}";

/// Where entries go.
#[derive(Clone)]
pub(super) struct Audit {
    pub(super) nats: Nats,
    pub(super) env: String,
}

/// Stores the entry of a call before it is carried out; refuses what cannot be stored.
pub(super) async fn audited(State(audit): State<Audit>, request: Request, next: Next) -> Response {
    let Some(entry) = entry_of(&request) else { return next.run(request).await };
    if let Err(problem) = audit.store(&entry).await {
        return problem.into_response();
    }
    let response = next.run(request).await;
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        let refused = Entry { id: Entry::new_id(), ..entry }.ended(outcome(status));
        audit.note(refused).await;
    }
    response
}

/// The entry of a call that a known caller may not make.
pub(super) fn refusal_of(request: &Request, principal: &Principal) -> Entry {
    described(request, principal).ended("permission_denied")
}

impl Audit {
    /// Stores an entry of a call that was refused. Nothing was done, so it stays refused where this is not stored.
    pub(super) async fn note(&self, entry: Entry) {
        if self.store(&entry).await.is_err() {
            tracing::warn!(
                principal = entry.principal,
                operation = entry.operation,
                "a refusal is not in the audit log"
            );
        }
    }

    async fn store(&self, entry: &Entry) -> Result<(), Problem> {
        let subject = subject(SERVICE, &self.env, &entry.operation);
        let (id, payload) = (MsgId::outbox(&entry.id), Event::of(entry.clone(), &self.env).to_json());
        let sent = publish::publish(&self.nats, subject, id, HeaderMap::new(), payload.into()).await;
        sent.map(drop).map_err(|e| {
            unavailable(format!("the audit entry of this call could not be stored, so nothing was done: {}", chain(&e)))
        })
    }
}

fn entry_of(request: &Request) -> Option<Entry> {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !changes && route != READ {
        return None;
    }
    Some(described(request, request.extensions().get::<Principal>()?))
}

fn described(request: &Request, principal: &Principal) -> Entry {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let by = Asker {
        principal: &principal.name,
        role: principal.role.as_str(),
        address: request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip()),
        request_id: request.extensions().get::<RequestId>().map(RequestId::as_str),
    };
    let (kind, id) = object_of(route, request.uri().path());
    Entry::asked(SERVICE, &operation(request.method(), route), &by).about(kind, id)
}

/// What is asked, in a word; a route that is not in the list is named by itself.
fn operation(method: &Method, route: &str) -> String {
    let known = match (method.as_str(), route) {
        ("POST", "/v1/endpoints") => "CreateEndpoint",
        ("PATCH", "/v1/endpoints/{name}") => "UpdateEndpoint",
        ("DELETE", "/v1/endpoints/{name}") => "DeleteEndpoint",
        ("POST", "/v1/endpoints/{name}/pause") => "PauseEndpoint",
        ("POST", "/v1/endpoints/{name}/resume") => "ResumeEndpoint",
        ("POST", "/v1/endpoints/{name}/rotate") => "RotateEndpoint",
        ("POST", "/v1/endpoints/{name}/test") => "TestEndpoint",
        ("POST", "/v1/endpoints/{name}/enable") => "EnableEndpoint",
        ("POST", "/v1/replay") => "ReplayEvents",
        ("POST", "/v1/dead-letters/redeliver") => "RedeliverDeadLetters",
        ("GET", READ) => "ReadDeadLetter",
        ("POST", "/v1/alerts") => "TakeAlerts",
        (method, route) => return format!("{method} {route}"),
    };
    known.to_owned()
}

/// The thing that a path names: its kind, and its id where it has one.
fn object_of<'r>(route: &'r str, path: &str) -> (&'r str, Option<String>) {
    let kind = route.trim_start_matches("/v1/").split('/').next().unwrap_or_default();
    let mut parts = route.split('/').zip(path.split('/'));
    (kind, parts.find(|(named, _)| named.starts_with('{')).map(|(_, given)| given.to_owned()))
}

/// The refusal in a word, by its class: codes are in the answer.
fn outcome(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "unauthenticated",
        403 => "permission_denied",
        404 => "not_found",
        409 => "conflict",
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
        assert!(named >= 11, "{named} operations");
    }

    #[test]
    fn a_path_names_its_object() {
        let of = |route, path| object_of(route, path);
        assert_eq!(
            of("/v1/endpoints/{name}/enable", "/v1/endpoints/ops/enable"),
            ("endpoints", Some("ops".to_owned()))
        );
        assert_eq!(of("/v1/alerts", "/v1/alerts"), ("alerts", None));
    }
}
