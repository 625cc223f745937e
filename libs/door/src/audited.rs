//! The audit of a surface: every call that changes something, and every read that is named, is in the stream of events before
//! it is done. The orchestrator takes it into its chained log.
//!
//! Works on the method, not on a list of routes: a new route that changes something is audited without being named.

use crate::door::Door;
use agentforge_access::Principal;
use agentforge_audit::{Asker, Entry, Event, subject};
use agentforge_jetstream::{HeaderMap, Nats, publish};
use agentforge_message_id::MsgId;
use agentforge_runtime::http::{Problem, RequestId};
use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tracing::warn;

/// How long to wait before trying again, where an entry cannot be stored.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What the calls of a surface are called in the log.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// The service.
    pub service: &'static str,
    /// Method, route and name of what is asked. A route that is not here is named by itself.
    pub operations: &'static [(&'static str, &'static str, &'static str)],
    /// Routes whose reads are recorded too.
    pub reads: &'static [&'static str],
    /// The kind of thing that a route is about.
    pub kind: fn(&str) -> &str,
}

impl Calls {
    /// What is asked, in a word.
    pub fn operation(&self, method: &Method, route: &str) -> String {
        let known = self.operations.iter().find(|(m, r, _)| *m == method.as_str() && *r == route);
        known.map_or_else(|| format!("{method} {route}"), |(_, _, name)| (*name).to_owned())
    }

    fn is_recorded(&self, method: &Method, route: &str) -> bool {
        let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        changes || self.reads.contains(&route)
    }
}

/// Where the entries of a surface go. Cheap to clone.
#[derive(Clone)]
pub struct Audit(Arc<Inner>);

struct Inner {
    nats: Nats,
    env: String,
    door: Door,
    calls: Calls,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").field("calls", &self.0.calls).finish_non_exhaustive()
    }
}

/// Stores the entry of a call before it is carried out; refuses what cannot be stored. Finds the caller as `Principal`.
pub async fn audited(State(audit): State<Audit>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Principal>();
    let Some(entry) = caller.and_then(|caller| audit.entry(&request, caller)) else { return next.run(request).await };
    if let Err(problem) = audit.store(&entry).await {
        return problem.into_response();
    }
    let response = next.run(request).await;
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        audit.note(Entry { id: Entry::new_id(), ..entry }.ended(outcome(status))).await;
    }
    response
}

impl Audit {
    /// Of this surface; `env` is what subjects and entries name.
    pub fn new(nats: Nats, env: String, door: Door, calls: Calls) -> Self {
        Self(Arc::new(Inner { nats, env, door, calls }))
    }

    /// Stores that a known caller was refused a call. It stays refused where this is not stored.
    pub fn refused(&self, request: &Request, caller: &Principal) -> impl Future<Output = ()> + Send + use<> {
        let (audit, entry) = (self.clone(), self.entry(request, caller));
        async move {
            if let Some(entry) = entry {
                audit.note(entry.ended("permission_denied")).await;
            }
        }
    }

    /// Nothing was done: that it was asked is stored.
    async fn note(&self, entry: Entry) {
        // What is wrong is logged.
        let _ = self.store(&entry).await;
    }

    async fn store(&self, entry: &Entry) -> Result<(), Problem> {
        let Inner { nats, env, calls, .. } = &*self.0;
        let subject = subject(calls.service, env, &entry.operation);
        let (id, payload) = (MsgId::outbox(&entry.id), Event::of(entry.clone(), env).to_json());
        let sent = publish::publish(nats, subject, id, HeaderMap::new(), payload.into()).await;
        sent.map(drop).map_err(|error| {
            let (principal, operation) = (&entry.principal, &entry.operation);
            warn!(
                error = &error as &dyn std::error::Error,
                principal, operation, "an audit entry was not stored; the call is refused"
            );
            let detail = "the audit entry of this call could not be stored, so nothing was done";
            Problem::unavailable(detail, RETRY_AFTER).with(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
        })
    }

    fn entry(&self, request: &Request, caller: &Principal) -> Option<Entry> {
        let Inner { door, calls, .. } = &*self.0;
        let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        if !calls.is_recorded(request.method(), route) {
            return None;
        }
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let by = Asker {
            principal: &caller.name,
            role: caller.role.as_str(),
            address: peer.map(|peer| door.client(peer.0.ip(), request.headers())),
            request_id: request.extensions().get::<RequestId>().map(RequestId::as_str),
        };
        let operation = calls.operation(request.method(), route);
        let id = id_of(route, request.uri().path()).map(str::to_owned);
        Some(Entry::asked(calls.service, &operation, &by).about((calls.kind)(route), id))
    }
}

/// What a path names where its route has a parameter.
fn id_of<'p>(route: &str, path: &'p str) -> Option<&'p str> {
    let mut parts = route.split('/').zip(path.split('/'));
    parts.find(|(named, _)| named.starts_with('{')).map(|(_, given)| given)
}

/// The refusal in a word, by its class: codes are in the answer.
fn outcome(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "unauthenticated",
        403 => "permission_denied",
        404 => "not_found",
        409 => "conflict",
        413 => "too_large",
        429 => "too_many_requests",
        400..=499 => "invalid_argument",
        _ => "unavailable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_something_is_recorded_and_named() {
        let calls = Calls {
            service: "test",
            operations: &[("POST", "/v1/things", "MakeThing"), ("GET", "/v1/things/{id}", "ReadThing")],
            reads: &["/v1/things/{id}"],
            kind: |route| route,
        };
        for (method, route, recorded, name) in [
            (Method::POST, "/v1/things", true, "MakeThing"),
            (Method::PATCH, "/v1/new", true, "PATCH /v1/new"),
            (Method::GET, "/v1/things/{id}", true, "ReadThing"),
            (Method::GET, "/v1/things", false, "GET /v1/things"),
        ] {
            assert_eq!(calls.is_recorded(&method, route), recorded, "{method} {route}");
            assert_eq!(calls.operation(&method, route), name);
        }
        assert_eq!(id_of("/v1/things/{id}/on", "/v1/things/a/on"), Some("a"));
        assert_eq!(id_of("/v1/things", "/v1/things"), None);
    }
}
