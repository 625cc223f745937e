//! Every rendered object has the shape of its kind: nothing unknown, nothing missing, nothing of another type.
//!
//! The shapes are in `schemas.json`, which `scripts/update-schemas` derives from Kubernetes' own definitions and from
//! the CRDs of KEDA, Gateway API, the Prometheus operator, Argo CD and the secrets-store driver. Needs no network.

use crate::manifests::{OVERLAYS, Object, parse, render};
use agentforge_harness::require;
use serde_json::Value;
use std::sync::OnceLock;

/// Everything that is ever applied.
pub fn roots() -> Vec<String> {
    let overlays = OVERLAYS.iter().map(|name| format!("overlays/{name}"));
    let apart = [
        "overlays/edge-monitored",
        "overlays/staging/jobs",
        "k8s/argocd",
        "k8s/argocd/site",
        "k8s/argocd-variants/azure",
        "k8s/argocd-variants/github",
        "k8s/argocd-variants/gitlab",
        "k8s/cluster",
        "k8s/cluster/azure-monitor",
        "k8s/cluster/collector",
        "k8s/cluster/monitoring",
        "k8s/cluster/network-policies",
    ];
    overlays.chain(apart.map(str::to_owned)).collect()
}

pub fn schemas() -> &'static Value {
    static READ: OnceLock<Value> = OnceLock::new();
    READ.get_or_init(|| serde_json::from_str(include_str!("../schemas.json")).unwrap())
}

/// What is wrong with an object, each with its place.
fn faults(object: &Object) -> Vec<String> {
    let mut faults = Vec::new();
    match &schemas()["kinds"][object.type_name()] {
        Value::Null => faults.push(format!("{}: there is no shape of this kind", object.type_name())),
        shape => check(shape, &object.0, &format!("{} {}", object.kind(), object.name()), &mut faults),
    }
    faults
}

fn check(shape: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
    if let Some(word) = shape.as_str() {
        let fits = match word {
            "any" => true,
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "int-or-string" => value.is_string() || value.is_number(),
            name => return check(&schemas()["shapes"][&name[1..]], value, place, faults),
        };
        if !fits {
            faults.push(format!("{place}: {value} is no {word}"));
        }
    } else if let Some(known) = shape.get("one of").and_then(Value::as_array) {
        if !known.contains(value) {
            faults.push(format!("{place}: {value} is none of {known:?}"));
        }
    } else if let Some(item) = shape.get("list") {
        match value.as_array() {
            Some(items) => {
                items.iter().enumerate().for_each(|(n, v)| check(item, v, &format!("{place}[{n}]"), faults));
            }
            None => faults.push(format!("{place}: {value} is no list")),
        }
    } else {
        check_map(shape, value, place, faults);
    }
}

fn check_map(shape: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
    let Some(map) = value.as_object() else { return faults.push(format!("{place}: {value} is no object")) };
    if let Some(item) = shape.get("map") {
        return map.iter().for_each(|(key, v)| check(item, v, &format!("{place}.{key}"), faults));
    }
    for (key, v) in map {
        match &shape["fields"][key] {
            Value::Null => faults.push(format!("{place}: there is no field {key}")),
            field => check(field, v, &format!("{place}.{key}"), faults),
        }
    }
    for key in shape["required"].as_array().unwrap().iter().filter_map(Value::as_str) {
        if !map.contains_key(key) {
            faults.push(format!("{place}: {key} is missing"));
        }
    }
}

#[test]
fn every_object_has_the_shape_of_its_kind() {
    let Some(()) = require("kubectl") else { return };
    for root in roots() {
        let faults: Vec<_> = render(&root).iter().flat_map(faults).collect();
        assert!(faults.is_empty(), "{root}:\n{}", faults.join("\n"));
    }
}

#[test]
fn what_kubernetes_would_refuse_is_refused() {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec:\n  selector: {matchLabels: {a: b}}\n  \
                      template: {spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}}\n";
    let scaled = "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: x}\nspec:\n  scaleTargetRef: {name: w}\n  \
                  triggers: [{type: nats-jetstream, metadata: {a: b}}]\n";
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: x}\nspec:\n  rules:\n    \
                 - matches: [{path: {type: PathPrefix, value: /}}]\n";
    let wrong = |text: &str| faults(&parse(text).unwrap()[0]).join("\n");
    for good in [deployment, scaled, route] {
        assert_eq!(wrong(good), "");
    }
    for (text, from, to, told) in [
        (deployment, "image: i", "image: i, imagePulPolicy: Always", "no field imagePulPolicy"),
        (deployment, "containerPort: 80", "containerPort: web", "is no integer"),
        (route, "PathPrefix", "Prefix", "none of"),
        (deployment, "selector:", "selektor:", "selector is missing"),
        (deployment, "apps/v1", "apps/v2", "no shape of this kind"),
        (scaled, "type: nats-jetstream, ", "", "type is missing"),
        (scaled, "{a: b}", "{a: 10}", "is no string"),
        (scaled, "triggers:", "minReplicas: 1\n  triggers:", "no field minReplicas"),
    ] {
        assert!(
            text.contains(from) && wrong(&text.replacen(from, to, 1)).contains(told),
            "{to}: {}",
            wrong(&text.replacen(from, to, 1))
        );
    }
}
