//! What the OpenAPI documents of all services have in common, and how one is served.
//!
//! Routes and schemas are the service's; version, licence, the shape of refusals and the token are added here, so that
//! no document says it otherwise.

use super::problem::PROBLEM_MEDIA_TYPE;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};

/// Where each service serves its document.
pub const OPENAPI_PATH: &str = "/openapi.json";

/// Completes a document: `version` of the service, and `token`, which says in words what a bearer token is.
///
/// The schema `Problem` must be among the document's own. Every operation may be refused, so each refers to the one
/// response for that; what an operation says itself stays.
pub fn complete_openapi(document: &utoipa::openapi::OpenApi, version: &str, token: &str) -> Value {
    let mut doc = serde_json::to_value(document).expect("the document holds strings and numbers only");
    doc["info"]["version"] = json!(version);
    doc["info"]["license"] = json!({"name": "Apache-2.0", "identifier": "Apache-2.0"});
    doc["servers"] = json!([{"url": "/"}]);
    doc["components"]["responses"] = json!({"Problem": {
        "description": "Refused or failed; the code says why",
        "headers": {
            "X-Request-ID": {"description": "The request's id", "schema": {"type": "string"}},
            "Retry-After": {"description": "Seconds, with back-pressure", "schema": {"type": "integer"}},
        },
        "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }});
    doc["components"]["securitySchemes"] = json!({"token": {"type": "http", "scheme": "bearer", "description": token}});
    let items = doc["paths"].as_object_mut().into_iter().flatten();
    for operation in items.filter_map(|(_, item)| item.as_object_mut()).flatten().map(|(_, operation)| operation) {
        if let Some(responses) = operation["responses"].as_object_mut() {
            responses.entry("default").or_insert_with(|| json!({"$ref": "#/components/responses/Problem"}));
        }
    }
    doc
}

/// The answer to a request for a document.
pub fn serve_openapi(document: Bytes) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    (headers, document).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use utoipa::openapi::{HttpMethod, InfoBuilder, OpenApiBuilder, PathItem, PathsBuilder, path::OperationBuilder};

    #[test]
    fn every_operation_may_be_refused_and_says_so_once() {
        let operation = OperationBuilder::new().build();
        let paths = PathsBuilder::new().path("/v1/a", PathItem::new(HttpMethod::Get, operation)).build();
        let document = OpenApiBuilder::new().info(InfoBuilder::new().title("a").build()).paths(paths).build();
        let doc = complete_openapi(&document, "1.2.3", "a token");
        assert_eq!(doc["info"]["version"], "1.2.3");
        let default = &doc["paths"]["/v1/a"]["get"]["responses"]["default"]["$ref"];
        assert_eq!(default, "#/components/responses/Problem");
        assert_eq!(doc["components"]["securitySchemes"]["token"]["description"], "a token");
    }
}
