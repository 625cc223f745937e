//! The OpenAPI 3.1 document of this API, made of what the handlers say of themselves.

use super::{alerts, dead_letters, deliveries, endpoints};
use agentforge_runtime::http::{OPENAPI_PATH, ProblemBody, complete_openapi, serve_openapi};
use axum::{Router, body::Bytes, routing::get};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "agentforge broadcaster",
        description = "Endpoints that get events, what became of deliveries, and dead letters. Answers hold names of \
            endpoints, never URLs, secrets or headers. Every refusal is a problem (RFC 9457) with a stable code."
    ),
    tags(
        (name = "Endpoints", description = "Where events are sent; those of the settings are only shown, paused and enabled."),
        (name = "Deliveries", description = "What became of attempts, and events sent again."),
        (name = "Dead letters", description = "Events that an endpoint never took."),
        (name = "Alerts", description = "The intake of Alertmanager."),
    ),
    paths(
        endpoints::list,
        endpoints::create,
        endpoints::get,
        endpoints::update,
        endpoints::delete,
        endpoints::pause,
        endpoints::resume,
        endpoints::rotate,
        endpoints::test,
        endpoints::enable,
        deliveries::list,
        deliveries::replay,
        dead_letters::list,
        dead_letters::read,
        dead_letters::redeliver,
        alerts::take,
    ),
    components(schemas(ProblemBody))
)]
struct Document;

/// The route of the document, which needs no token.
pub fn router() -> Router {
    let document = Bytes::from(openapi_json());
    Router::new().route(OPENAPI_PATH, get(move || async move { serve_openapi(document) }))
}

/// The document as JSON text.
pub fn openapi_json() -> String {
    let token = "BROADCASTER_TOKEN. Not asked for in ENV=dev on a loopback listener without one.";
    let mut doc = complete_openapi(&Document::openapi(), env!("CARGO_PKG_VERSION"), token);
    for (_, operations) in doc["paths"].as_object_mut().unwrap_or(&mut Map::new()) {
        for (_, operation) in operations.as_object_mut().into_iter().flatten() {
            operation["security"] = json!([{"token": []}]);
        }
    }
    Value::to_string(&doc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::managed::PATCHABLE;
    use std::collections::BTreeSet;

    #[test]
    fn every_operation_is_described_and_may_be_refused() {
        let doc: Value = serde_json::from_str(&openapi_json()).unwrap();
        assert_eq!(doc["openapi"], "3.1.0");
        let mut operations = 0;
        for (path, item) in doc["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                operations += 1;
                let refusal = &operation["responses"]["default"]["$ref"];
                assert_eq!(refusal, "#/components/responses/Problem", "{method} {path}");
                assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{method} {path}");
            }
        }
        let patch = &doc["components"]["schemas"]["EndpointPatch"]["properties"];
        let patchable: BTreeSet<&str> = patch.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(patchable, BTreeSet::from(PATCHABLE));
        assert_eq!(operations, 16);
        assert!(doc["components"]["schemas"]["Problem"]["properties"]["code"].is_object());
    }
}
