//! What Kubernetes would add to a list, or write in another way, is written out in the manifests. Argo CD and a second
//! manager compare such a list as a whole and a quantity as text: without it an environment is never in sync.
//!
//! With a Kubernetes API `cluster::apply` finds more; this needs none.

use crate::manifests::{OVERLAYS, Object, list, overlay};
use agentforge_harness::require;
use serde_json::Value;

/// Every value below, with its place.
fn walk<'a>(value: &'a Value, place: &str, see: &mut impl FnMut(&str, &'a Value)) {
    see(place, value);
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| walk(value, &format!("{place}.{key}"), see)),
        Value::Array(items) => items.iter().for_each(|value| walk(value, &format!("{place}[]"), see)),
        _ => {}
    }
}

/// A quantity as the server stores it: no thousands of a unit, where the next one holds it whole.
fn is_canonical(quantity: &str) -> bool {
    let number = |suffix: &str| quantity.strip_suffix(suffix).and_then(|number| number.parse::<u64>().ok());
    let is_larger = |suffix: &str, step: u64| number(suffix).is_some_and(|number| number % step == 0);
    !is_larger("m", 1000) && !["Ki", "Mi", "Gi"].iter().any(|unit| is_larger(unit, 1024)) && !quantity.contains('.')
}

fn faults(object: &Object) -> Vec<String> {
    let mut faults = Vec::new();
    let mut needs = |place: &str, value: &Value, fields: &[&str]| {
        let missing = fields.iter().filter(|field| value.get(**field).is_none());
        faults.extend(missing.map(|field| format!("{} {}{place}: no {field}", object.kind(), object.name())));
    };
    walk(&object.0, "", &mut |place, value| {
        if place.ends_with(".fieldRef") || place.ends_with(".volumeClaimTemplates[]") {
            needs(place, value, &["apiVersion"]);
        }
        if place.ends_with(".volumeClaimTemplates[]") || place.ends_with(".parentRefs[]") {
            needs(place, value, &["kind"]);
        }
        if place.ends_with(".parentRefs[]") {
            needs(place, value, &["group"]);
        }
        if place.ends_with(".backendRefs[]") {
            needs(place, value, &["group", "kind", "weight"]);
        }
        if object.kind() == "HTTPRoute" && place == ".spec.rules[]" {
            needs(place, value, &["matches"]);
        }
        if object.kind().ends_with("PolicyBinding") || !object.kind().ends_with("AdmissionPolicy") {
            return;
        }
        if place.ends_with(".resourceRules[]") {
            needs(place, value, &["scope"]);
        }
    });
    let quantities = [".spec.hard.", ".resources.requests.", ".resources.limits."];
    walk(&object.0, "", &mut |place, value| {
        let is_one = quantities.iter().any(|part| place.contains(part));
        if let Some(text) = value.as_str().filter(|text| is_one && !is_canonical(text)) {
            faults.push(format!("{} {}{place}: {text} is stored in another way", object.kind(), object.name()));
        }
    });
    faults
}

#[test]
fn what_the_server_would_add_or_rewrite_is_written_out() {
    let Some(()) = require("kubectl") else { return };
    let overlays = OVERLAYS.iter().map(|name| overlay(name));
    let rest = ["k8s/cluster", "k8s/base/jobs"].map(crate::manifests::render);
    let objects: Vec<Object> = overlays.chain(rest).flatten().collect();
    let routes = objects.iter().filter(|o| o.kind() == "HTTPRoute");
    assert!(routes.flat_map(|o| list(o.at("/spec/rules"))).any(|rule| rule.get("backendRefs").is_some()));
    let faults: Vec<_> = objects.iter().flat_map(faults).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn quantities_are_known_as_they_are_stored() {
    for stored in ["1", "250m", "2500m", "2Gi", "2560Mi", "100Ki", "28"] {
        assert!(is_canonical(stored), "{stored}");
    }
    for other in ["1000m", "4000m", "2048Mi", "1024Ki", "1024Gi", "0.5"] {
        assert!(!is_canonical(other), "{other}");
    }
}
