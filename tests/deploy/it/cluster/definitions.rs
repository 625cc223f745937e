//! The definitions of kinds that Kubernetes does not have: of the projects themselves where a default of theirs matters,
//! else made of the shapes in `schemas.json`, which are derived from the projects' own.

use crate::schemas::schemas;
use serde_json::{Value, json};
use std::path::Path;

/// Groups of Kubernetes itself.
const CORE: [&str; 6] = ["admissionregistration.k8s.io", "apps", "autoscaling", "batch", "networking.k8s.io", "policy"];
const CORE_TOO: [&str; 2] = ["rbac.authorization.k8s.io", "storage.k8s.io"];
/// Kinds whose definition comes from the project.
const REAL: [&str; 2] = ["HTTPRoute", "ScaledObject"];

/// All of them, as kubectl reads them.
pub fn all(folder: &Path) -> String {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), REAL.len(), "{files:?}");
    let real = files.iter().map(|path| std::fs::read_to_string(path).unwrap());
    let made = schemas()["kinds"].as_object().unwrap().iter().filter_map(|(name, shape)| {
        let (version, kind) = name.split_once(' ').unwrap();
        let (group, version) = version.split_once('/')?;
        let is_known = CORE.contains(&group) || CORE_TOO.contains(&group) || REAL.contains(&kind);
        (!is_known).then(|| definition(group, version, kind, &schema(shape)).to_string())
    });
    real.chain(made).map(|text| format!("---\n{text}\n")).collect()
}

/// The definition of a kind with this schema.
pub fn definition(group: &str, version: &str, kind: &str, schema: &Value) -> Value {
    let singular = kind.to_lowercase();
    let plural = if singular.ends_with('s') { format!("{singular}es") } else { format!("{singular}s") };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            // Kubernetes' own groups want it.
            "annotations": {"api-approved.kubernetes.io": "unapproved, of a test"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": singular},
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}},
            }],
        },
    })
}

/// A shape as an OpenAPI schema.
fn schema(shape: &Value) -> Value {
    match shape.as_str() {
        Some("any") => return json!({"x-kubernetes-preserve-unknown-fields": true}),
        Some("int-or-string") => return json!({"x-kubernetes-int-or-string": true}),
        Some(name) if name.starts_with('#') => return schema(&schemas()["shapes"][&name[1..]]),
        Some(word) => return json!({"type": word}),
        None => {}
    }
    if let Some(known) = shape.get("one of") {
        json!({"type": "string", "enum": known})
    } else if let Some(item) = shape.get("list") {
        json!({"type": "array", "items": schema(item)})
    } else if let Some(item) = shape.get("map") {
        json!({"type": "object", "additionalProperties": schema(item)})
    } else {
        let fields = shape["fields"].as_object().unwrap();
        let properties: serde_json::Map<String, Value> = fields
            .iter()
            .map(|(name, field)| {
                // The server knows the metadata of every object itself.
                let is_metadata = name == "metadata" && fields.contains_key("apiVersion");
                let field = if is_metadata { json!({"type": "object"}) } else { schema(field) };
                (name.clone(), field)
            })
            .collect();
        json!({"type": "object", "properties": properties, "required": shape["required"]})
    }
}
