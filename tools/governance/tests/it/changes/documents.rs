//! Changes of an OpenAPI document, each of one kind at one place.

use super::Numbers;
use serde_json::{Map, Value, json};

/// A kind of change: does it somewhere and says where, or finds no place for it.
type Kind = (&'static str, fn(&mut Value, &mut Numbers) -> Option<String>);

/// Every kind, in the order in which they take turns.
const KINDS: &[Kind] = &[
    ("operation removed", operation_removed),
    ("operation added", |d, _| {
        d["paths"]["/v9/new"] = json!({"get": {"operationId": "New", "responses": {"200": {"description": "ok"}}}});
        Some("/v9/new".to_owned())
    }),
    ("operation deprecated", |d, n| {
        at(d, n, "/paths/*/*", |o| o.contains_key("responses"), |o, _| set(o, "deprecated", json!(true)))
    }),
    ("operation id changed", |d, n| {
        at(d, n, "/paths/*/*", |o| o.contains_key("operationId"), |o, _| set(o, "operationId", json!("Other")))
    }),
    ("parameter removed", |d, n| {
        entry(d, n, "/paths/*/*/parameters", |p| p["in"] == "query", |list, i| drop(list.remove(i)))
    }),
    ("optional parameter added", |d, n| {
        entry(
            d,
            n,
            "/paths/*/*/parameters",
            |_| true,
            |list, _| list.push(json!({"in": "query", "name": "fresh", "schema": {"type": "string"}})),
        )
    }),
    ("required parameter added", |d, n| {
        entry(
            d,
            n,
            "/paths/*/*/parameters",
            |_| true,
            |list, _| {
                list.push(json!({"in": "query", "name": "fresh", "required": true, "schema": {"type": "string"}}))
            },
        )
    }),
    ("parameter became required", |d, n| {
        entry(d, n, "/paths/*/*/parameters", |p| p["required"] == false, |list, i| list[i]["required"] = json!(true))
    }),
    ("parameter type changed", |d, n| {
        at(
            d,
            n,
            PARAMETER,
            |s| s.get("type") == Some(&json!("integer")),
            |s, _| {
                s.clear();
                set(s, "type", json!("boolean"))
            },
        )
    }),
    ("parameter type widened", |d, n| {
        at(
            d,
            n,
            PARAMETER,
            |s| s.get("type") == Some(&json!("integer")),
            |s, _| {
                s.remove("format");
                set(s, "type", json!("number"))
            },
        )
    }),
    ("parameter enum value removed", |d, n| at(d, n, PARAMETER, has_enum, shorter)),
    ("parameter enum value added", |d, n| at(d, n, PARAMETER, has_enum, |s, _| longer(s))),
    ("parameter maximum lowered", |d, n| {
        at(d, n, PARAMETER, |s| s.contains_key("maximum"), |s, _| set(s, "maximum", json!(7)))
    }),
    ("parameter maximum raised", |d, n| {
        at(d, n, PARAMETER, |s| s.contains_key("maximum"), |s, _| set(s, "maximum", json!(1_000_000)))
    }),
    ("parameter maximum removed", |d, n| {
        at(d, n, PARAMETER, |s| s.contains_key("maximum"), |s, _| drop(s.remove("maximum")))
    }),
    ("parameter minimum raised", |d, n| {
        at(d, n, PARAMETER, |s| s.contains_key("minimum"), |s, _| set(s, "minimum", json!(5)))
    }),
    ("parameter pattern changed", |d, n| {
        at(d, n, PARAMETER, |s| s.contains_key("pattern"), |s, _| set(s, "pattern", json!("^[a-z]+$")))
    }),
    ("parameter pattern removed", |d, n| {
        at(d, n, PARAMETER, |s| s.contains_key("pattern"), |s, _| drop(s.remove("pattern")))
    }),
    ("parameter pattern added", |d, n| {
        at(
            d,
            n,
            PARAMETER,
            |s| s.get("type") == Some(&json!("string")) && !s.contains_key("pattern") && !s.contains_key("enum"),
            |s, _| set(s, "pattern", json!("^[a-z]+$")),
        )
    }),
    ("parameter default added", |d, n| {
        at(
            d,
            n,
            PARAMETER,
            |s| s.get("type") == Some(&json!("integer")) && !s.contains_key("default"),
            |s, _| set(s, "default", json!(5)),
        )
    }),
    ("parameter length limited", |d, n| {
        at(
            d,
            n,
            PARAMETER,
            |s| s.get("type") == Some(&json!("string")) && !s.contains_key("enum"),
            |s, _| set(s, "maxLength", json!(9)),
        )
    }),
    ("body became optional", |d, n| {
        at(
            d,
            n,
            "/paths/*/*/requestBody",
            |b| b.get("required") == Some(&json!(true)),
            |b, _| set(b, "required", json!(false)),
        )
    }),
    ("body removed", |d, n| {
        at(d, n, "/paths/*/*", |o| o.contains_key("requestBody"), |o, _| drop(o.remove("requestBody")))
    }),
    ("required body added", |d, n| {
        at(d, n, "/paths/*/post", |o| !o.contains_key("requestBody"), |o, _| set(o, "requestBody", body(true)))
    }),
    ("optional body added", |d, n| {
        at(d, n, "/paths/*/post", |o| !o.contains_key("requestBody"), |o, _| set(o, "requestBody", body(false)))
    }),
    ("request media type changed", |d, n| {
        at(d, n, "/paths/*/*/requestBody/content", |c| c.contains_key("application/json"), renamed_media)
    }),
    ("response media type changed", |d, n| {
        at(d, n, "/paths/*/*/responses/200/content", |c| c.contains_key("application/json"), renamed_media)
    }),
    ("success status changed", |d, n| {
        at(
            d,
            n,
            "/paths/*/*/responses",
            |r| r.contains_key("200"),
            |r, _| {
                let was = r.remove("200").unwrap();
                set(r, "202", was)
            },
        )
    }),
    ("failure status removed", |d, n| {
        at(d, n, "/paths/*/*/responses", |r| r.contains_key("400"), |r, _| drop(r.remove("400")))
    }),
    ("status added", |d, n| {
        at(
            d,
            n,
            "/paths/*/*/responses",
            |r| !r.contains_key("418"),
            |r, _| set(r, "418", json!({"description": "new"})),
        )
    }),
    ("header added", |d, n| {
        at(
            d,
            n,
            "/paths/*/*/responses/200",
            |r| r.contains_key("content"),
            |r, _| set(r, "headers", json!({"X-New": {"schema": {"type": "string"}}})),
        )
    }),
    ("security removed", |d, n| {
        at(d, n, "/paths/*/*", |o| o.contains_key("security"), |o, _| set(o, "security", json!([])))
    }),
    ("scope added", |d, n| {
        at(d, n, "/paths/*/*/security/0", |s| s.contains_key("token"), |s, _| set(s, "token", json!(["jobs:write"])))
    }),
    ("required request field added", |d, n| {
        request(
            d,
            n,
            |_| true,
            |s, _| {
                s["properties"]["fresh"] = json!({"type": "string"});
                push(s, "required", json!("fresh"))
            },
        )
    }),
    ("optional request field added", |d, n| {
        request(d, n, |_| true, |s, _| s["properties"]["fresh"] = json!({"type": "string"}))
    }),
    ("request field removed", |d, n| request(d, n, |_| true, |s, n| drop(removed(s, n)))),
    ("request field became required", |d, n| {
        request(
            d,
            n,
            |s| optional(s).is_some(),
            |s, _| {
                let name = optional(s).unwrap();
                push(s, "required", json!(name))
            },
        )
    }),
    ("request field became optional", |d, n| request(d, n, has_required, |s, _| drop(s.remove("required")))),
    ("request field type changed", |d, n| request(d, n, |_| true, retyped)),
    ("request field length limited", |d, n| {
        request(
            d,
            n,
            |s| text_field(s).is_some(),
            |s, _| {
                let name = text_field(s).unwrap();
                s["properties"][&name]["maxLength"] = json!(3)
            },
        )
    }),
    ("response field removed", |d, n| response(d, n, |_| true, |s, n| drop(removed(s, n)))),
    ("optional response field removed", |d, n| {
        response(
            d,
            n,
            |s| optional(s).is_some(),
            |s, _| {
                let name = optional(s).unwrap();
                drop(s["properties"].as_object_mut().unwrap().remove(&name))
            },
        )
    }),
    ("response field added", |d, n| {
        response(d, n, |_| true, |s, _| s["properties"]["fresh"] = json!({"type": "string"}))
    }),
    ("response field became optional", |d, n| response(d, n, has_required, |s, _| drop(s.remove("required")))),
    ("response field became required", |d, n| {
        response(
            d,
            n,
            |s| optional(s).is_some(),
            |s, _| {
                let name = optional(s).unwrap();
                push(s, "required", json!(name))
            },
        )
    }),
    ("response field type changed", |d, n| response(d, n, |_| true, retyped)),
    ("response field became nullable", |d, n| {
        response(
            d,
            n,
            |s| text_field(s).is_some(),
            |s, _| {
                let name = text_field(s).unwrap();
                s["properties"][&name]["type"] = json!(["string", "null"])
            },
        )
    }),
    ("enum value removed", |d, n| at(d, n, "/components/schemas/*", has_enum, shorter)),
    ("enum value added", |d, n| at(d, n, "/components/schemas/*", has_enum, |s, _| longer(s))),
    ("enum value of a field removed", |d, n| at(d, n, FIELD, has_enum, shorter)),
    ("enum value of a field added", |d, n| at(d, n, FIELD, has_enum, |s, _| longer(s))),
    ("unknown fields accepted", |d, n| {
        request(d, n, |s| s.contains_key("additionalProperties"), |s, _| drop(s.remove("additionalProperties")))
    }),
];

const FIELD: &str = "/components/schemas/*/properties/*";
const PARAMETER: &str = "/paths/*/*/parameters/*/schema";

/// The document with the n-th change, and what it is.
pub fn changed(base: &Value, n: usize) -> (Value, String) {
    for turn in 0.. {
        let (name, change) = KINDS[(n + turn * 7) % KINDS.len()];
        let (mut document, mut numbers) = (base.clone(), Numbers(n as u64 * 977 + 13));
        if let Some(place) = change(&mut document, &mut numbers) {
            return (document, format!("{name}: {place}"));
        }
    }
    unreachable!("some kind finds a place")
}

type Members = Map<String, Value>;

/// The pointers that a pattern leads to, where `*` is any key.
fn places(node: &Value, pattern: &[&str], so_far: &str, found: &mut Vec<String>) {
    let Some((first, rest)) = pattern.split_first() else {
        found.push(so_far.to_owned());
        return;
    };
    let step = |key: &str| format!("{so_far}/{}", key.replace('~', "~0").replace('/', "~1"));
    match node {
        Value::Object(map) => {
            for (key, child) in map.iter().filter(|(key, _)| *first == "*" || *first == key.as_str()) {
                places(child, rest, &step(key), found);
            }
        }
        Value::Array(list) => {
            for (i, child) in list.iter().enumerate().filter(|(i, _)| *first == "*" || *first == i.to_string()) {
                places(child, rest, &step(&i.to_string()), found);
            }
        }
        _ => {}
    }
}

fn found(document: &Value, pattern: &str) -> Vec<String> {
    let parts: Vec<&str> = pattern.split('/').skip(1).collect();
    let mut all = Vec::new();
    places(document, &parts, "", &mut all);
    all
}

/// Changes one of the objects that a pattern leads to.
fn at(
    d: &mut Value,
    n: &mut Numbers,
    pattern: &str,
    fits: impl Fn(&Members) -> bool,
    change: impl Fn(&mut Members, &mut Numbers),
) -> Option<String> {
    let all = found(d, pattern);
    let fitting: Vec<String> =
        all.into_iter().filter(|p| d.pointer(p).and_then(Value::as_object).is_some_and(&fits)).collect();
    let place = n.pick(&fitting)?.clone();
    change(d.pointer_mut(&place)?.as_object_mut()?, n);
    Some(place)
}

/// Changes one of the entries of the lists that a pattern leads to.
fn entry(
    d: &mut Value,
    n: &mut Numbers,
    pattern: &str,
    fits: impl Fn(&Value) -> bool,
    change: impl Fn(&mut Vec<Value>, usize),
) -> Option<String> {
    let all = found(d, &format!("{pattern}/*"));
    let fitting: Vec<String> = all.into_iter().filter(|p| d.pointer(p).is_some_and(&fits)).collect();
    let place = n.pick(&fitting)?.clone();
    let (list, index) = place.rsplit_once('/')?;
    change(d.pointer_mut(list)?.as_array_mut()?, index.parse().ok()?);
    Some(place)
}

/// Schemas of objects that a request's or a response's body refers to.
fn bodies(d: &Value, pattern: &str) -> Vec<String> {
    let mut all: Vec<String> = found(d, pattern)
        .iter()
        .filter_map(|place| d.pointer(place)?["$ref"].as_str()?.strip_prefix('#').map(str::to_owned))
        .filter(|place| d.pointer(place).is_some_and(|s| s["properties"].is_object()))
        .collect();
    all.sort();
    all.dedup();
    all
}

fn of_bodies(
    d: &mut Value,
    n: &mut Numbers,
    own: &str,
    other: &str,
    fits: impl Fn(&Members) -> bool,
    change: impl Fn(&mut Members, &mut Numbers),
) -> Option<String> {
    let others = bodies(d, other);
    let fitting: Vec<String> = bodies(d, own)
        .into_iter()
        .filter(|p| !others.contains(p) && d.pointer(p).and_then(Value::as_object).is_some_and(&fits))
        .collect();
    let place = n.pick(&fitting)?.clone();
    change(d.pointer_mut(&place)?.as_object_mut()?, n);
    Some(place)
}

const REQUESTS: &str = "/paths/*/*/requestBody/content/*/schema";
const RESPONSES: &str = "/paths/*/*/responses/200/content/*/schema";

fn request(
    d: &mut Value,
    n: &mut Numbers,
    fits: impl Fn(&Members) -> bool,
    change: impl Fn(&mut Members, &mut Numbers),
) -> Option<String> {
    of_bodies(d, n, REQUESTS, RESPONSES, fits, change)
}

fn response(
    d: &mut Value,
    n: &mut Numbers,
    fits: impl Fn(&Members) -> bool,
    change: impl Fn(&mut Members, &mut Numbers),
) -> Option<String> {
    of_bodies(d, n, RESPONSES, REQUESTS, fits, change)
}

fn operation_removed(d: &mut Value, n: &mut Numbers) -> Option<String> {
    let all: Vec<String> = found(d, "/paths/*/*");
    let place = n.pick(&all)?.clone();
    let (path, method) = place.rsplit_once('/')?;
    let item = d.pointer_mut(path)?.as_object_mut()?;
    item.remove(method);
    let is_empty = item.is_empty();
    if is_empty {
        let name = path.strip_prefix("/paths/")?.replace("~1", "/").replace("~0", "~");
        d["paths"].as_object_mut()?.remove(&name);
    }
    Some(place)
}

fn set(map: &mut Members, key: &str, value: Value) {
    map.insert(key.to_owned(), value);
}

fn push(map: &mut Members, key: &str, value: Value) {
    map.entry(key.to_owned()).or_insert_with(|| json!([])).as_array_mut().unwrap().push(value);
}

fn body(required: bool) -> Value {
    json!({"required": required, "content": {"application/json": {"schema": {"type": "object"}}}})
}

fn renamed_media(content: &mut Members, _: &mut Numbers) {
    let was = content.remove("application/json").unwrap();
    set(content, "application/cbor", was);
}

fn has_enum(schema: &Members) -> bool {
    schema.get("enum").and_then(Value::as_array).is_some_and(|values| values.len() > 1)
}

fn shorter(schema: &mut Members, n: &mut Numbers) {
    let values = schema["enum"].as_array_mut().unwrap();
    let i = n.below(values.len());
    values.remove(i);
}

fn longer(schema: &mut Members) {
    schema["enum"].as_array_mut().unwrap().push(json!("another"));
}

fn has_required(schema: &Members) -> bool {
    schema.get("required").and_then(Value::as_array).is_some_and(|names| !names.is_empty())
}

fn is_required(schema: &Members, name: &str) -> bool {
    schema.get("required").and_then(Value::as_array).is_some_and(|names| names.iter().any(|n| n == name))
}

fn optional(schema: &Members) -> Option<String> {
    schema["properties"].as_object()?.keys().find(|name| !is_required(schema, name)).cloned()
}

fn text_field(schema: &Members) -> Option<String> {
    let plain =
        |s: &Value| s["type"] == "string" && s["enum"].is_null() && s["format"].is_null() && s["maxLength"].is_null();
    schema["properties"].as_object()?.iter().find(|(_, s)| plain(s)).map(|(name, _)| name.clone())
}

fn removed(schema: &mut Members, n: &mut Numbers) -> String {
    let names: Vec<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    let name = n.pick(&names).unwrap().clone();
    schema["properties"].as_object_mut().unwrap().remove(&name);
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|one| *one != name);
    }
    name
}

fn retyped(schema: &mut Members, n: &mut Numbers) {
    let names: Vec<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    let name = n.pick(&names).unwrap().clone();
    let is_flag = schema["properties"][&name]["type"] == "boolean";
    schema["properties"][&name] = json!({"type": if is_flag { "integer" } else { "boolean" }});
}
