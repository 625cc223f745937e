//! What the service checks besides types, as the OpenAPI document says it: bounds, patterns, formats.
//!
//! By the names of fields and parameters, which mean the same everywhere. From admission's constants, so that a client
//! that keeps to the document is not refused for its form.

use crate::admission::{KEY_MAX_BYTES, LABEL_KEY_MAX_BYTES, LABEL_VALUE_MAX_BYTES, LABELS_MAX};
use crate::app::PAGE_MAX;
use crate::model::{Presence, State};
use serde_json::{Map, Value, json};

/// Subject tokens: missions, queues.
const TOKEN: &str = "^[A-Za-z0-9][A-Za-z0-9-]{0,62}$";
/// Names of tools.
const TOOL: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";
/// Ids of agents.
const AGENT: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$";
/// Waits of at most a minute.
const WAIT: &str = "^([0-9]|[1-5][0-9]|60)s$";
/// A label as a filter has it.
const LABEL: &str = "^[^=,]+=[^,]*$";

/// Beginnings of ids; hyphens do not count.
const PREFIX: &str = "^-*([0-9a-fA-F]-*){4,32}$";
/// Two fields for one thing.
const PAIRS: [[&str; 2]; 7] = [
    ["timeout", "timeout_ms"],
    ["deadline", "deadline_in"],
    ["deadline", "deadline_ms"],
    ["deadline_in", "deadline_in_ms"],
    ["run_at", "run_in"],
    ["base", "base_ms"],
    ["cap", "cap_ms"],
];

/// Adds to the parameters of one operation.
pub(super) fn parameters(route: &str, operation: &mut Value) {
    // Indexing would make a null of what is absent, which is not OpenAPI.
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        let schema = &mut parameter["schema"];
        match name.as_str() {
            "id" if route.starts_with("/v1/agents") => schema["pattern"] = json!(AGENT),
            "id" => schema["format"] = json!("uuid"),
            "name" if route.starts_with("/v1/queues") => schema["pattern"] = json!(TOKEN),
            "limit" => {
                let max = if route.ends_with("/next-runs") { 100 } else { PAGE_MAX };
                (schema["minimum"], schema["maximum"]) = (json!(1), json!(max));
            }
            "wait" => schema["pattern"] = json!(WAIT),
            "mission" | "queue" if !route.starts_with("/v1/dead-letters") => schema["pattern"] = json!(TOKEN),
            "tool" => schema["pattern"] = json!(TOOL),
            "state" => schema["items"]["enum"] = json!(State::ALL.map(State::as_str)),
            "label" => schema["items"]["pattern"] = json!(LABEL),
            "cursor" if ["/v1/jobs", "/v1/dead-letters", "/v1/outbox/parked"].contains(&route) => {
                schema["pattern"] = json!("^[0-9]{1,18}$")
            }
            "status" => schema["enum"] = json!(Presence::ALL.map(Presence::as_str)),
            "prefix" => schema["pattern"] = json!(PREFIX),
            "Idempotency-Key" => (schema["minLength"], schema["maxLength"]) = (json!(1), json!(KEY_MAX_BYTES)),
            _ => {}
        }
    }
}

/// Says what a stream of events is made of: the body of each is JSON text.
pub(super) fn events(operation: &mut Value) {
    let Some(body) = operation.pointer_mut("/responses/200/content/text~1event-stream") else { return };
    let of = body["schema"].take();
    body["schema"] = json!({"type": "object", "properties": {
        "event": {"type": "string", "description": "`job`, or `problem`, after which the stream ends."},
        "id": {"type": "string", "description": "What to send as Last-Event-ID."},
        "retry": {"type": "integer", "description": "Milliseconds to wait before connecting again."},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": of},
    }});
}

/// Says that of two fields for one thing, such as `timeout` and `timeout_ms`, at most one is given.
fn either(schema: &mut Value) {
    let Some(fields) = schema["properties"].as_object() else { return };
    let twice: Vec<_> = PAIRS
        .iter()
        .filter(|pair| pair.iter().all(|name| fields.contains_key(*name)))
        // A field that is null counts as absent.
        .map(|pair| json!({"required": pair, "properties": {pair[0]: {"not": {"type": "null"}}, pair[1]: {"not": {"type": "null"}}}}))
        .collect();
    if !twice.is_empty() {
        schema["not"] = json!({"anyOf": twice});
    }
}

/// Adds to the bodies of requests.
pub(super) fn requests(schemas: &mut Map<String, Value>) {
    for (name, schema) in schemas.iter_mut().filter(|(name, _)| name.ends_with("Request")) {
        either(schema);
        match name.as_str() {
            "RetryJobsRequest" | "CancelJobsRequest" => {
                let states = json!({"required": ["states"], "properties": {"states": {"minItems": 1}}});
                schema["anyOf"] =
                    json!([{"required": ["job_ids"], "properties": {"job_ids": {"minItems": 1}}}, states]);
            }
            "ParkedMessagesRequest" => {
                let all = json!({"required": ["all"], "properties": {"all": {"const": true}, "ids": {"maxItems": 0}}});
                let ids = json!({"required": ["ids"], "properties": {"ids": {"minItems": 1}, "all": {"const": false}}});
                schema["oneOf"] = json!([ids, all]);
            }
            _ => {}
        }
        let Some(fields) = schema["properties"].as_object_mut() else { continue };
        for (field, of) in fields {
            match field.as_str() {
                // A filter by a name that cannot exist finds nothing; a submission with one is refused.
                "mission" | "queue" if name != "RedriveDeadLettersRequest" => of["pattern"] = json!(TOKEN),
                "tool" => of["pattern"] = json!(TOOL),
                "idempotency_key" | "task" => {
                    of["maxLength"] = json!(KEY_MAX_BYTES);
                    of["pattern"] = json!("^[^\\u0000]*$");
                }
                "labels" if of["type"] == "object" => {
                    of["maxProperties"] = json!(LABELS_MAX);
                    let pattern = format!("^[A-Za-z0-9._/-]{{1,{LABEL_KEY_MAX_BYTES}}}$");
                    of["propertyNames"] = json!({"type": "string", "pattern": pattern});
                    let value = json!({"type": "string", "maxLength": LABEL_VALUE_MAX_BYTES, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"});
                    of["additionalProperties"] = value;
                }
                "labels" => of["items"]["pattern"] = json!(LABEL),
                "job_ids" => of["items"]["format"] = json!("uuid"),
                "states" => {
                    let is_cancel = name == "CancelJobsRequest";
                    let is_taken = |s: &State| if is_cancel { !s.is_final() } else { s.may_be_retried() };
                    let states = State::ALL.into_iter().filter(is_taken).map(State::as_str);
                    of["items"]["enum"] = Value::from_iter(states);
                }
                "limit" => of["maximum"] = json!(u32::MAX),
                "cron" => of["minLength"] = json!(1),
                "name" => (of["minLength"], of["maxLength"]) = (json!(1), json!(128)),
                _ => {}
            }
        }
    }
}
