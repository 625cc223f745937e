//! What the calls of the API are called in the audit log.

use agentforge_door::Calls;

pub const CALLS: Calls = Calls {
    service: "tactical-api",
    operations: &[
        ("POST", "/v1/markers", "PublishMarker"),
        ("POST", "/v1/zones", "PublishZone"),
        ("DELETE", "/v1/markers/{id}", "RemoveMarker"),
        ("DELETE", "/v1/zones/{id}", "RemoveZone"),
    ],
    reads: &[],
    kind: |route| if route.starts_with("/v1/zones") { "zone" } else { "marker" },
};

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
        assert_eq!(named, 4);
    }
}
