//! Compares two OpenAPI documents, operation by operation.
//!
//! Owns what belongs to an operation: parameters, body, responses, credentials. What values may be is `schema`'s.

mod document;
mod schema;
mod security;
mod shape;

pub use document::Document;
pub use schema::{Schemas, Way};

use super::{
    finding::Findings,
    rules::{self as r},
};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The keys of a path that are operations.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// One operation of a document, with what its path adds.
#[derive(Debug, Clone, Copy)]
struct Operation<'a> {
    path: &'a str,
    item: &'a Value,
    own: &'a Value,
}

/// A method and a path, as reports name an operation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct OperationName {
    /// Such as `GET`.
    pub method: String,
    /// Such as `/v1/jobs/{id}`.
    pub path: String,
}

/// The operations of a document, by method and by path without the names of its parameters.
fn operations(document: &Document) -> BTreeMap<(&'static str, String), Operation<'_>> {
    let mut found = BTreeMap::new();
    for (path, item) in document.at("/paths").as_object().into_iter().flatten() {
        let item = document.meant(item);
        for method in METHODS {
            if let Some(own) = item.get(method) {
                found.insert((method, unnamed(path)), Operation { path, item, own });
            }
        }
    }
    found
}

/// `/v1/jobs/{id}` as `/v1/jobs/{}`: the name of a parameter is not part of an address.
fn unnamed(path: &str) -> String {
    let part = |part: &str| match (part.find('{'), part.rfind('}')) {
        (Some(from), Some(to)) if from < to => format!("{}{{}}{}", &part[..from], &part[to + 1..]),
        _ => part.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// The names of all operations, in order.
#[must_use]
pub fn names(document: &Document) -> BTreeSet<OperationName> {
    let name = |((method, _), operation): ((&str, String), Operation<'_>)| OperationName {
        method: method.to_uppercase(),
        path: operation.path.to_owned(),
    };
    operations(document).into_iter().map(name).collect()
}

/// Compares two documents.
pub fn compare(old: &Document, new: &Document, findings: &mut Findings) {
    let (before, after) = (operations(old), operations(new));
    for (key @ (method, _), was) in &before {
        let place = format!("{} {}", method.to_uppercase(), was.path);
        match after.get(key) {
            None => findings.add(&r::OPERATION_REMOVED, &place, "", "it is gone"),
            Some(is) => Both { old, new, was: *was, is: *is, place }.compare(findings),
        }
    }
    for (key @ (method, _), is) in &after {
        if !before.contains_key(key) {
            let place = format!("{} {}", method.to_uppercase(), is.path);
            findings.add(&r::OPERATION_ADDED, &place, "", "it is new");
        }
    }
    servers(old, new, findings);
    problem_codes(old, new, findings);
}

fn servers(old: &Document, new: &Document, findings: &mut Findings) {
    let urls = |document: &Document| -> BTreeSet<String> {
        shape::list(document.root().get("servers"))
            .iter()
            .filter_map(|s| s["url"].as_str())
            .map(str::to_owned)
            .collect()
    };
    for url in urls(old).difference(&urls(new)) {
        findings.add(&r::SERVER_REMOVED, "servers", "", format!("{url} is gone"));
    }
}

fn problem_codes(old: &Document, new: &Document, findings: &mut Findings) {
    let codes = |document: &Document| -> BTreeSet<String> {
        let listed = shape::list(document.root().get("x-problem-codes")).iter();
        listed.filter_map(|code| Some(format!("{} (status {})", code["code"].as_str()?, code["status"]))).collect()
    };
    for code in codes(old).difference(&codes(new)) {
        findings.add(&r::PROBLEM_CODE_REMOVED, "x-problem-codes", "", format!("{code} is gone"));
    }
}

/// An operation that is in both documents.
struct Both<'a> {
    old: &'a Document,
    new: &'a Document,
    was: Operation<'a>,
    is: Operation<'a>,
    place: String,
}

impl<'a> Both<'a> {
    fn compare(&self, findings: &mut Findings) {
        let (was, is) = (self.was.own, self.is.own);
        if was["operationId"] != is["operationId"] {
            let text = format!("{} became {}", was["operationId"], is["operationId"]);
            findings.add(&r::OPERATION_ID_CHANGED, &self.place, "", text);
        }
        if was["deprecated"] != true && is["deprecated"] == true {
            findings.add(&r::OPERATION_DEPRECATED, &self.place, "", "it is deprecated");
        }
        self.parameters(findings);
        self.body(findings);
        self.responses(findings);
        let of = security::Credentials { old: self.old, new: self.new, place: &self.place };
        of.compare(was, is, findings);
    }

    fn schemas<'f>(&self, findings: &'f mut Findings) -> Schemas<'a, 'f> {
        Schemas::new(self.old, self.new, findings, &self.place)
    }

    fn parameters(&self, findings: &mut Findings) {
        let (before, after) = (parameters(self.old, self.was), parameters(self.new, self.is));
        for (key, was) in &before {
            let at = format!("{}.{}", key.0, was["name"].as_str().unwrap_or_default());
            let Some(is) = after.get(key) else {
                findings.add(&r::PARAMETER_REMOVED, &self.place, &at, "it is gone");
                continue;
            };
            match (was["required"] == true, is["required"] == true) {
                (false, true) if has_default(self.new, is) => {}
                (false, true) => findings.add(&r::PARAMETER_BECAME_REQUIRED, &self.place, &at, "it is required"),
                (true, false) => findings.add(&r::PARAMETER_BECAME_OPTIONAL, &self.place, &at, "it is optional"),
                _ => {}
            }
            if encoding(&key.0, was) != encoding(&key.0, is) {
                findings.add(&r::PARAMETER_ENCODING_CHANGED, &self.place, &at, "style, explode or content was changed");
            }
            let (of, to) = (value_schema(was), value_schema(is));
            let default = |document: &Document, schema: &Value| document.meant(schema).get("default").cloned();
            let (d, e) = (default(self.old, of), default(self.new, to));
            // Without the parameter, the service does something else.
            if d != e {
                let rule = if d.is_none() { &r::DEFAULT_ADDED } else { &r::DEFAULT_CHANGED };
                let said = |v: Option<Value>| v.map_or_else(|| "none".to_owned(), |v| v.to_string());
                let text = format!("its default was {} and is {}", said(d), said(e));
                findings.add(rule, &self.place, &at, text);
            }
            self.schemas(findings).compare(of, to, Way::Request, &at);
        }
        for (key, is) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
            let at = format!("{}.{}", key.0, is["name"].as_str().unwrap_or_default());
            let is_required = is["required"] == true && !has_default(self.new, is);
            let rule = if is_required { &r::PARAMETER_ADDED_REQUIRED } else { &r::PARAMETER_ADDED };
            findings.add(rule, &self.place, &at, "it is new");
        }
    }

    fn body(&self, findings: &mut Findings) {
        let (was, is) = (self.old.meant(&self.was.own["requestBody"]), self.new.meant(&self.is.own["requestBody"]));
        let at = "request";
        let rule = match ((was.is_null(), was["required"] == true), (is.is_null(), is["required"] == true)) {
            ((true, _), (true, _)) => return,
            ((true, _), (false, true)) => Some(&r::BODY_ADDED_REQUIRED),
            ((true, _), (false, false)) => Some(&r::BODY_ADDED),
            ((false, _), (true, _)) => Some(&r::BODY_REMOVED),
            ((false, false), (false, true)) => Some(&r::BODY_BECAME_REQUIRED),
            ((false, true), (false, false)) => Some(&r::BODY_BECAME_OPTIONAL),
            _ => None,
        };
        if let Some(rule) = rule {
            findings.add(rule, &self.place, at, "the body was changed");
        }
        if !was.is_null() && !is.is_null() {
            self.media(was, is, Way::Request, at, findings);
        }
    }

    fn media(&self, was: &'a Value, is: &'a Value, way: Way, at: &str, findings: &mut Findings) {
        let (before, after) = (types(was), types(is));
        for (name, old) in &before {
            match after.get(name) {
                Some(new) => self.schemas(findings).compare(&old["schema"], &new["schema"], way, &format!("{at}.body")),
                None => {
                    let removed = (&r::REQUEST_MEDIA_TYPE_REMOVED, &r::RESPONSE_MEDIA_TYPE_REMOVED);
                    let rule = if way == Way::Request { removed.0 } else { removed.1 };
                    findings.add(rule, &self.place, at, format!("{name} is gone"));
                }
            }
        }
        for name in after.keys().filter(|name| !before.contains_key(*name)) {
            findings.add(&r::MEDIA_TYPE_ADDED, &self.place, at, format!("{name} is new"));
        }
    }

    fn responses(&self, findings: &mut Findings) {
        let (before, after) = (responses(self.was.own), responses(self.is.own));
        for (status, was) in &before {
            let at = format!("response.{status}");
            let Some(is) = after.get(status) else {
                let rule = if is_success(status) { &r::STATUS_SUCCESS_REMOVED } else { &r::STATUS_FAILURE_REMOVED };
                findings.add(rule, &self.place, &at, "it is gone");
                continue;
            };
            let (was, is) = (self.old.meant(was), self.new.meant(is));
            self.headers(was, is, &at, findings);
            self.media(was, is, Way::Response, &at, findings);
        }
        for status in after.keys().filter(|status| !before.contains_key(*status)) {
            findings.add(&r::STATUS_ADDED, &self.place, &format!("response.{status}"), "it is new");
        }
    }

    fn headers(&self, was: &'a Value, is: &'a Value, at: &str, findings: &mut Findings) {
        let (before, after) = (headers(was), headers(is));
        for (name, old) in &before {
            let (at, old) = (format!("{at}.header.{name}"), self.old.meant(old));
            let Some(new) = after.get(name).map(|new| self.new.meant(new)) else {
                let required = old["required"] == true;
                let rule = if required { &r::HEADER_REQUIRED_REMOVED } else { &r::HEADER_OPTIONAL_REMOVED };
                findings.add(rule, &self.place, &at, "it is gone");
                continue;
            };
            if old["required"] == true && new["required"] != true {
                findings.add(&r::HEADER_BECAME_OPTIONAL, &self.place, &at, "it may be missing");
            }
            self.schemas(findings).compare(value_schema(old), value_schema(new), Way::Response, &at);
        }
        for name in after.keys().filter(|name| !before.contains_key(*name)) {
            findings.add(&r::HEADER_ADDED, &self.place, &format!("{at}.header.{name}"), "it is new");
        }
    }
}

/// Parameters by place and name. Those of a path go by their position: their names are not in the address.
fn parameters<'a>(document: &'a Document, of: Operation<'a>) -> BTreeMap<(String, String), &'a Value> {
    let mut found = BTreeMap::new();
    for list in [&of.item["parameters"], &of.own["parameters"]] {
        for parameter in shape::list(Some(list)).iter().map(|p| document.meant(p)) {
            let (within, name) =
                (parameter["in"].as_str().unwrap_or_default(), parameter["name"].as_str().unwrap_or_default());
            let name = match within {
                "header" => name.to_lowercase(),
                "path" => of
                    .path
                    .split('/')
                    .position(|part| part.contains(&format!("{{{name}}}")))
                    .map_or(name.to_owned(), |n| n.to_string()),
                _ => name.to_owned(),
            };
            found.insert((within.to_owned(), name), parameter);
        }
    }
    found
}

/// The schema of a parameter or header: its own, or that of its only media type.
fn value_schema(of: &Value) -> &Value {
    of.get("schema").or_else(|| Some(&of["content"].as_object()?.values().next()?["schema"])).unwrap_or(&Value::Null)
}

fn has_default(document: &Document, parameter: &Value) -> bool {
    document.meant(value_schema(parameter)).get("default").is_some()
}

/// How lists and objects are written, with the defaults of the place.
fn encoding(within: &str, parameter: &Value) -> (String, bool, Option<String>) {
    let usual = if matches!(within, "query" | "cookie") { "form" } else { "simple" };
    let style = parameter["style"].as_str().unwrap_or(usual).to_owned();
    let explode = parameter["explode"].as_bool().unwrap_or(style == "form");
    let content = parameter["content"].as_object().and_then(|types| types.keys().next().cloned());
    (style, explode, content)
}

fn types(of: &Value) -> BTreeMap<String, &Value> {
    let named = of["content"].as_object().into_iter().flatten();
    named.map(|(name, media)| (name.to_lowercase().replace(' ', ""), media)).collect()
}

fn responses(operation: &Value) -> BTreeMap<String, &Value> {
    let all = operation["responses"].as_object().into_iter().flatten();
    all.filter(|(status, _)| !status.starts_with("x-"))
        .map(|(status, response)| (status.to_uppercase(), response))
        .collect()
}

fn headers(response: &Value) -> BTreeMap<String, &Value> {
    let all: Option<&Map<String, Value>> = response["headers"].as_object();
    all.into_iter().flatten().map(|(name, header)| (name.to_lowercase(), header)).collect()
}

fn is_success(status: &str) -> bool {
    status.starts_with('2') || status.starts_with('3') || status == "DEFAULT"
}
