//! The OpenAPI 3.1 document: what the handlers say of themselves, completed from the tables.
//!
//! Roles and refusals are the same for many operations; they are added here, from `operations` and
//! from the error codes, so that no handler can forget them.

use super::problem::{self, HttpOnly, MEDIA_TYPE, title};
use super::strict;
use crate::api::operations::{self, Access};
use crate::error::Code;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, Method, header};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "agentforge orchestrator",
        description = "Submit jobs, follow them to their one committed result, and look after what failed. \
            Every refusal is a problem (RFC 9457) with a stable code, which gRPC shares. \
            Send X-Request-ID to find a request again; every answer has one."
    ),
    tags(
        (name = "Jobs", description = "A job runs one tool once to a committed result, however often it has to try."),
        (name = "Dead letters", description = "Jobs that used up their attempts or can never succeed."),
        (name = "Operations", description = "Retries and redrives of many jobs that continue without their caller."),
        (name = "Queues", description = "What waits and runs in each queue, and who serves it."),
        (name = "Outbox", description = "Events and dead letters that NATS can never take, and what to do about them."),
        (name = "Schedules", description = "Jobs made by the clock."),
        (name = "Agents", description = "The workers, as they announce themselves."),
        (name = "Sites", description = "The links of edge sites, and when they were up."),
        (name = "Audit", description = "Who did what, in chains of hashes that can be checked."),
        (name = "Objectives", description = "What is promised, and how much of its budget is gone."),
    ),
    components(schemas(problem::Body))
)]
struct Base;

/// The document before the routes are added.
pub(crate) fn base() -> utoipa::openapi::OpenApi {
    Base::openapi()
}

/// The whole document as JSON text.
pub(crate) fn finish(document: utoipa::openapi::OpenApi) -> String {
    let mut doc = serde_json::to_value(&document).expect("the document holds strings and numbers only");
    doc["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    doc["info"]["license"] = json!({"name": "Apache-2.0", "identifier": "Apache-2.0"});
    doc["servers"] = json!([{"url": "/"}]);
    doc["components"]["responses"] = json!({"Problem": {
        "description": "Refused or failed; the code says why",
        "headers": {
            "X-Request-ID": {"description": "The request's id", "schema": {"type": "string"}},
            "Retry-After": {"description": "Seconds, with back-pressure", "schema": {"type": "integer"}},
        },
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }});
    doc["components"]["securitySchemes"] = json!({"token": {
        "type": "http",
        "scheme": "bearer",
        "description": "One of API_TOKENS. Not asked for when the orchestrator has none.",
    }});
    doc["x-problem-codes"] = codes();
    if let Some(paths) = doc["paths"].as_object_mut() {
        for (route, item) in paths {
            for (method, operation) in item.as_object_mut().into_iter().flatten() {
                complete(route, method, operation);
            }
        }
    }
    if let Some(schemas) = doc["components"]["schemas"].as_object_mut() {
        strict::requests(schemas);
        let answers =
            schemas.iter_mut().filter(|(name, _)| !name.ends_with("Request") && !SPARSE.contains(&name.as_str()));
        for (_, schema) in answers {
            let fields: Vec<_> = schema["properties"].as_object().into_iter().flat_map(Map::keys).cloned().collect();
            schema["required"] = json!(fields);
        }
    }
    doc.to_string()
}

/// Answers that leave fields out; all others have every field, null if there is no value.
const SPARSE: [&str; 4] = ["Problem", "BatchItem", "Refused", "RedriveProgress"];

/// Adds role and refusals to one operation.
fn complete(route: &str, method: &str, operation: &mut Value) {
    let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else { return };
    let Access::Guarded(known) = operations::of_route(&method, route) else { return };
    operation["x-required-role"] = json!(known.role.as_str());
    // JSON objects have no order of their own; the docs page follows the table's.
    operation["x-order"] = json!(operations::OPERATIONS.iter().position(|o| o == known));
    operation["security"] = json!([{"token": []}]);
    let mut refusals = vec![400, 401, 403, 429, 503];
    // Those named in a body may not be there either.
    if route.contains("{id}") || known.name == "DiscardDeadLetters" {
        refusals.push(404);
    }
    // An output is refused while there is none.
    if method == Method::POST || method == Method::PATCH || known.name == "GetJobOutput" {
        refusals.push(409);
    }
    strict::parameters(route, operation);
    strict::events(operation);
    if operation.get("requestBody").is_some() {
        refusals.extend([408, 413, 415]);
    }
    if let Some(responses) = operation["responses"].as_object_mut() {
        for status in refusals {
            responses.insert(status.to_string(), json!({"$ref": "#/components/responses/Problem"}));
        }
        sort(responses);
    }
}

fn sort(responses: &mut Map<String, Value>) {
    let mut entries: Vec<_> = std::mem::take(responses).into_iter().collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    responses.extend(entries);
}

/// Every stable code with its statuses, for readers and for the docs page.
fn codes() -> Value {
    let shared = Code::ALL.map(|c| {
        json!({"code": c.as_str(), "status": c.http_status(), "grpc": format!("{:?}", c.grpc()), "title": title(c)})
    });
    let http_only = HttpOnly::ALL.map(|c| {
        let (status, code, title) = c.parts();
        json!({"code": code, "status": status, "grpc": null, "title": title})
    });
    Value::from_iter(shared.into_iter().chain(http_only))
}

/// GET /openapi.json
pub(crate) async fn serve(document: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, document).into_response()
}

#[cfg(test)]
mod tests {
    use crate::api::operations::OPERATIONS;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn document() -> Value {
        serde_json::from_str(&crate::api::rest::openapi_json()).unwrap()
    }

    fn operations(doc: &Value) -> Vec<(String, String, &Value)> {
        let mut all = Vec::new();
        for (route, item) in doc["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                all.push((method.to_uppercase(), route.clone(), operation));
            }
        }
        all
    }

    /// Routes come from the same macros as the document: what is not in it is not served.
    #[test]
    fn the_document_and_the_table_of_operations_are_the_same() {
        let doc = document();
        let documented: BTreeSet<_> = operations(&doc)
            .into_iter()
            .map(|(m, r, o)| {
                (o["operationId"].as_str().unwrap().to_owned(), m, r, o["x-required-role"].as_str().unwrap().to_owned())
            })
            .collect();
        let table: BTreeSet<_> = OPERATIONS
            .iter()
            .map(|o| (o.name.to_owned(), o.method.to_owned(), o.route.to_owned(), o.role.as_str().to_owned()))
            .collect();
        assert_eq!(documented, table);
    }

    #[test]
    fn it_is_version_3_1_and_every_reference_leads_somewhere() {
        let doc = document();
        assert_eq!(doc["openapi"], "3.1.0");
        let mut references = Vec::new();
        collect(&doc, &mut references);
        assert!(references.len() > 20, "{references:?}");
        for r in references {
            let pointer = r.strip_prefix('#').unwrap();
            assert!(doc.pointer(pointer).is_some(), "{r} leads nowhere");
        }
    }

    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                references.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|v| collect(v, references));
            }
            Value::Array(items) => items.iter().for_each(|v| collect(v, references)),
            _ => {}
        }
    }

    /// Checkers refuse the whole document for one of them.
    #[test]
    fn nothing_in_it_is_null_that_openapi_does_not_know_as_null() {
        fn nulls(value: &Value, at: &str, found: &mut Vec<String>) {
            match value {
                Value::Null => found.push(at.to_owned()),
                Value::Array(items) => {
                    items.iter().enumerate().for_each(|(i, v)| nulls(v, &format!("{at}/{i}"), found))
                }
                Value::Object(map) => {
                    map.iter()
                        .filter(|(key, _)| *key != "example" && *key != "default" && *key != "x-problem-codes")
                        .for_each(|(key, v)| nulls(v, &format!("{at}/{key}"), found));
                }
                _ => {}
            }
        }
        let mut found = Vec::new();
        nulls(&document(), "", &mut found);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn two_fields_for_one_thing_are_not_given_together_and_events_hold_text() {
        let doc = document();
        let twice = doc["components"]["schemas"]["SubmitJobRequest"]["not"]["anyOf"].as_array().unwrap();
        let pairs: Vec<_> = twice.iter().map(|t| t["required"][1].as_str().unwrap()).collect();
        assert_eq!(pairs, ["timeout_ms", "deadline_in", "run_in"]);
        let watch = &doc["paths"]["/v1/jobs/{id}/watch"]["get"]["responses"]["200"]["content"]["text/event-stream"];
        let data = &watch["schema"]["properties"]["data"];
        assert_eq!(
            (&data["type"], &data["contentSchema"]["$ref"]),
            (&"string".into(), &"#/components/schemas/Job".into())
        );
    }

    #[test]
    fn answers_promise_all_of_their_fields_and_requests_few() {
        let schemas = document()["components"]["schemas"].clone();
        let required = |name: &str| -> BTreeSet<String> {
            schemas[name]["required"].as_array().unwrap().iter().map(|f| f.as_str().unwrap().to_owned()).collect()
        };
        assert!(required("Job").contains("result") && required("Job").contains("finished_at"));
        assert_eq!(required("SubmitJobRequest"), BTreeSet::from(["tool".to_owned()]));
        assert_eq!(required("CreateScheduleRequest"), ["name", "cron", "job"].map(str::to_owned).into());
        assert!(!required("Problem").contains("field") && required("Problem").contains("code"));
    }

    #[test]
    fn each_operation_says_what_a_reader_needs() {
        let doc = document();
        for (method, route, o) in operations(&doc) {
            let at = format!("{method} {route}");
            assert!(o["summary"].as_str().is_some_and(|s| !s.is_empty()), "{at} has no summary");
            assert_eq!(o["tags"].as_array().map(Vec::len), Some(1), "{at}");
            assert!(o["responses"]["401"].is_object() && o["responses"]["429"].is_object(), "{at}");
            let named: BTreeSet<_> = o["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|p| p["in"] == "path")
                .map(|p| p["name"].as_str().unwrap().to_owned())
                .collect();
            let in_route: BTreeSet<_> =
                route.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}')).map(str::to_owned).collect();
            assert_eq!(named, in_route, "{at}");
            for p in o["parameters"].as_array().into_iter().flatten() {
                assert!(p["description"].is_string(), "{at} {p}");
            }
        }
        for (name, schema) in doc["components"]["schemas"].as_object().unwrap() {
            for (field, property) in schema["properties"].as_object().into_iter().flatten() {
                let is_described =
                    property["description"].is_string() || property["$ref"].is_string() || property["oneOf"].is_array();
                assert!(is_described, "{name}.{field} has no description");
            }
        }
    }
}
