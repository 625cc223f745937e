//! Bodies of requests and answers in the documents of the APIs have shapes: a client is generated from them.

use super::read;
use agentforge_stack::roster::SERVICES;
use serde_json::Value;

/// Parts of bodies that hold any object: what a tool takes, the event of a dead letter as it was published, and what
/// an operation says of itself in the audit log.
const ANY_OBJECT: [&str; 5] =
    ["Job.args", "JobTemplate.args", "SubmitJobRequest.args", "DeadLetter.event", "AuditEntry.detail"];

/// Whether a schema says only that there is an object.
fn is_bare(schema: &Value) -> bool {
    let is_object = match &schema["type"] {
        Value::String(kind) => kind == "object",
        Value::Array(kinds) => kinds.iter().any(|kind| kind == "object"),
        _ => false,
    };
    let has_fields = schema["properties"].as_object().is_some_and(|fields| !fields.is_empty());
    is_object && !has_fields && !schema["additionalProperties"].is_object()
}

/// All bare objects of a schema, by their path. References are followed where they lead: at the components.
fn bare_parts(schema: &Value, path: &str, found: &mut Vec<String>) {
    // An index of what is absent gives null, which has parts without end.
    if !schema.is_object() {
        return;
    }
    if is_bare(schema) {
        found.push(path.to_owned());
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        bare_parts(field, &format!("{path}.{name}"), found);
    }
    for part in ["items", "additionalProperties"] {
        bare_parts(&schema[part], path, found);
    }
    for part in ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|word| schema[word].as_array().into_iter().flatten()) {
        bare_parts(part, path, found);
    }
}

#[test]
fn every_body_of_an_api_says_what_is_in_it() {
    let mut documents = 0;
    let mut bodies = 0;
    for service in SERVICES {
        let Some(made) = service.openapi else { continue };
        documents += 1;
        let document: Value = serde_json::from_str(&made()).unwrap();
        let mut found = Vec::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let answers = operation["responses"].as_object().into_iter().flatten();
                let given = std::iter::once(&operation["requestBody"]).chain(answers.map(|(_, answer)| answer));
                for content in given.filter_map(|part| part["content"].as_object()).flatten().map(|(_, body)| body) {
                    bodies += 1;
                    bare_parts(&content["schema"], &format!("{method} {path}"), &mut found);
                }
            }
        }
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            bare_parts(schema, name, &mut found);
        }
        found.retain(|path| !ANY_OBJECT.contains(&path.as_str()));
        assert!(found.is_empty(), "{}: objects without fields: {found:?}", service.name);
    }
    assert!(documents >= 3 && bodies > 50, "{bodies} bodies of {documents} documents");
    assert!(read("docs/openapi.json").contains("SubmitJobRequest"), "ANY_OBJECT names schemas that exist");
}
