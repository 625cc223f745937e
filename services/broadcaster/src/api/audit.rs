//! What the calls of the API are called in the audit log.

use agentforge_door::Calls;

/// The one read that shows what an event contains.
const READ: &str = "/v1/dead-letters/{seq}";

pub(super) const CALLS: Calls = Calls {
    service: "broadcaster",
    operations: &[
        ("POST", "/v1/endpoints", "CreateEndpoint"),
        ("PATCH", "/v1/endpoints/{name}", "UpdateEndpoint"),
        ("DELETE", "/v1/endpoints/{name}", "DeleteEndpoint"),
        ("POST", "/v1/endpoints/{name}/pause", "PauseEndpoint"),
        ("POST", "/v1/endpoints/{name}/resume", "ResumeEndpoint"),
        ("POST", "/v1/endpoints/{name}/rotate", "RotateEndpoint"),
        ("POST", "/v1/endpoints/{name}/test", "TestEndpoint"),
        ("POST", "/v1/endpoints/{name}/enable", "EnableEndpoint"),
        ("POST", "/v1/replay", "ReplayEvents"),
        ("POST", "/v1/dead-letters/redeliver", "RedeliverDeadLetters"),
        ("GET", READ, "ReadDeadLetter"),
        ("POST", "/v1/alerts", "TakeAlerts"),
    ],
    reads: &[READ],
    kind: kind_of,
};

fn kind_of(route: &str) -> &str {
    route.trim_start_matches("/v1/").split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Method;

    /// Every operation of the document that changes something has a name of its own.
    #[test]
    fn each_call_that_changes_something_is_named() {
        let document: serde_json::Value = serde_json::from_str(&super::super::openapi::openapi_json()).unwrap();
        let mut named = 0;
        for (route, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys().map(|m| m.to_uppercase()) {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                if method != Method::GET {
                    let name = CALLS.operation(&method, route);
                    assert!(!name.contains(' '), "{name} has no name in the audit log");
                    named += 1;
                }
            }
        }
        assert!(named >= 11, "{named} operations");
        assert_eq!((kind_of("/v1/endpoints/{name}/enable"), kind_of("/v1/alerts")), ("endpoints", "alerts"));
    }
}
