//! Rendered manifests as values, and how Kubernetes selects among them.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// What runs pods.
const WORKLOADS: [&str; 5] = ["Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"];

/// One document of a rendered stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Object(pub Value);

impl Object {
    /// Such as `Deployment`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }
    /// Its own name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }
    /// Its namespace; `None` for what belongs to the cluster.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.0.pointer("/metadata/namespace").and_then(Value::as_str)
    }
    /// `apiVersion kind`, such as `apps/v1 Deployment`.
    #[must_use]
    pub fn type_name(&self) -> String {
        format!("{} {}", self.text("/apiVersion"), self.kind())
    }
    /// The value at a JSON pointer; `Null` when there is none.
    #[must_use]
    pub fn at(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }
    /// The text at a JSON pointer; empty when there is none.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &str {
        self.at(pointer).as_str().unwrap_or_default()
    }
    /// The items at a JSON pointer; none when there is no list.
    #[must_use]
    pub fn list(&self, pointer: &str) -> &[Value] {
        list(self.at(pointer))
    }
    /// Its own labels.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        texts(self.at("/metadata/labels"))
    }
    /// The pods that it makes.
    #[must_use]
    pub fn template(&self) -> &Value {
        if self.kind() == "CronJob" { self.at("/spec/jobTemplate/spec/template") } else { self.at("/spec/template") }
    }
}

/// The items of a list; none when it is not a list.
#[must_use]
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A map of texts; numbers and truth values as they are written.
#[must_use]
pub fn texts(value: &Value) -> BTreeMap<String, String> {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    value.as_object().map(|map| map.iter().map(|(k, v)| (k.clone(), text(v))).collect()).unwrap_or_default()
}

/// The documents of a YAML stream.
///
/// # Errors
/// It is not YAML; the message has the line.
pub fn parse(text: &str) -> Result<Vec<Object>, String> {
    let documents = yaml_serde::Deserializer::from_str(text).map(|d| Value::deserialize(d).map_err(|e| e.to_string()));
    let documents: Vec<Value> = documents.collect::<Result<_, _>>()?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).map(Object).collect())
}

/// What runs pods.
#[must_use]
pub fn workloads(objects: &[Object]) -> Vec<&Object> {
    objects.iter().filter(|o| WORKLOADS.contains(&o.kind())).collect()
}

/// Labels of a workload's pods.
#[must_use]
pub fn pod_labels(workload: &Object) -> BTreeMap<String, String> {
    texts(&workload.template()["metadata"]["labels"])
}

/// Containers of a workload's pods.
#[must_use]
pub fn containers(workload: &Object) -> &[Value] {
    list(&workload.template()["spec"]["containers"])
}

/// Whether a selector of labels takes these; an empty one takes all.
#[must_use]
pub fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    let equal = texts(&selector["matchLabels"]).iter().all(|(key, value)| labels.get(key) == Some(value));
    let among = list(&selector["matchExpressions"]).iter().all(|e| {
        let has = e["key"].as_str().and_then(|key| labels.get(key));
        let is_known = || has.is_some_and(|v| list(&e["values"]).iter().any(|known| known == v));
        match e["operator"].as_str() {
            Some("In") => is_known(),
            Some("NotIn") => !is_known(),
            Some("Exists") => has.is_some(),
            Some("DoesNotExist") => has.is_none(),
            _ => false,
        }
    });
    equal && among
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_take_what_kubernetes_would() {
        let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
        let expression = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "app", "operator": operator, "values": values}]});
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "a"}}), true),
            (json!({"matchLabels": {"app": "b"}}), false),
            (expression("In", &["b", "a"]), true),
            (expression("In", &["b"]), false),
            (expression("NotIn", &["b"]), true),
            (expression("NotIn", &["a"]), false),
            (expression("Exists", &[]), true),
            (expression("DoesNotExist", &[]), false),
            (expression("Unknown", &["a"]), false),
        ] {
            assert_eq!(selects(&selector, &labels), expected, "{selector}");
        }
    }
}
