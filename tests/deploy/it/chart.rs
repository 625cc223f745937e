//! The Helm chart, rendered by the real Helm: the same objects as the kustomize base with the components that values
//! turn on. `scripts/helm` builds nothing here: without Helm these tests are skipped with the reason.

use crate::manifests::{Object, build, parse, root, script};
use agentforge_harness::require;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::{Command, Output};

pub const CHART: &str = "deploy/helm/agentforge";
/// Components that add to the base, with the values that add the same. Policies come with others only where there are any.
pub const VARIANTS: &[(&[&str], &[&str])] = &[
    (&[], &[]),
    (&["network-policies"], &["networkPolicies.enabled=true"]),
    (&["autoscaling"], &["hpa.enabled=true", "pdb.enabled=true"]),
    (&["network-policies", "keda"], &["networkPolicies.enabled=true", "keda.enabled=true", "pdb.enabled=true"]),
    (&["network-policies", "monitoring"], &["networkPolicies.enabled=true", "serviceMonitor.enabled=true"]),
    (&["network-policies", "gateway"], &["networkPolicies.enabled=true", "gateway.enabled=true"]),
    (&["network-policies", "postgres"], &["networkPolicies.enabled=true", "postgres.enabled=true"]),
    (
        &["network-policies", "managed-postgres"],
        &["networkPolicies.enabled=true", "database.enabled=true", "database.host=h"],
    ),
    (&["network-policies", "tracing"], &["networkPolicies.enabled=true", "tracing.enabled=true"]),
    (
        &["network-policies", "nats-cluster"],
        &["networkPolicies.enabled=true", "nats.cluster.enabled=true", "pdb.enabled=true"],
    ),
    (&["small-streams"], &["smallStreams.enabled=true"]),
];

/// The program, or `None` where there is none; says why.
pub fn helm() -> Option<String> {
    let out = Command::new(root().join("scripts/helm")).arg("--path").output().unwrap();
    if out.status.success() {
        return Some(String::from_utf8(out.stdout).unwrap().trim().to_owned());
    }
    eprintln!(
        "SKIPPED {}: {}",
        std::thread::current().name().unwrap_or("test"),
        String::from_utf8_lossy(&out.stderr).trim()
    );
    None
}

fn run(args: &[&str]) -> Option<Output> {
    Some(Command::new(helm()?).args(args).current_dir(root()).env("HELM_NO_PLUGINS", "1").output().unwrap())
}

/// What the chart makes with these values in the namespace `here`.
fn template(values: &[&str]) -> Option<Vec<Object>> {
    let options: Vec<&str> = values.iter().flat_map(|value| ["--set", *value]).collect();
    made_in("here", &options)
}

/// What the chart makes with these options in a namespace.
pub fn made_in(namespace: &str, options: &[&str]) -> Option<Vec<Object>> {
    let out = run(&[&["template", "release", CHART, "--namespace", namespace, "--skip-tests"], options].concat())?;
    assert!(out.status.success(), "{options:?}: {}", String::from_utf8_lossy(&out.stderr));
    Some(parse(&String::from_utf8(out.stdout).unwrap()).unwrap())
}

/// What kustomize makes of the base with these components.
fn kustomized(components: &[&str]) -> Vec<Object> {
    std::fs::create_dir_all(root().join("target")).unwrap();
    let dir = tempfile::tempdir_in(root().join("target")).unwrap();
    let components: Vec<String> = components.iter().map(|name| format!("../../k8s/components/{name}")).collect();
    let text = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": ["../../k8s/base"], "components": components,
    });
    std::fs::write(dir.path().join("kustomization.yaml"), text.to_string()).unwrap();
    build(dir.path()).unwrap()
}

/// Objects by kind and name, without what differs on purpose: the names of generated ConfigMaps, which change with their
/// content here and are followed by a checksum there; tags of images; placeholders that overlays fill.
fn compared(objects: &[Object]) -> BTreeMap<String, Value> {
    let strip = |text: &str| {
        let mut text = text.to_owned();
        for name in ["agentforge-env-", "nats-config-"] {
            while let Some(at) = text.find(name) {
                let end = at + name.len() - 1;
                let hash = text[end + 1..].chars().take_while(char::is_ascii_alphanumeric).count();
                text.replace_range(end..=end + hash, "");
            }
        }
        text.replace("nats.NAMESPACE.", "nats.here.").replace("MISSION", "production")
    };
    let tag = format!(":{}", env!("CARGO_PKG_VERSION"));
    let all = objects.iter().map(|object| {
        let mut value: Value = serde_json::from_str(&strip(&object.0.to_string())).unwrap();
        let containers = value.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let image = container["image"].as_str().unwrap().trim_end_matches(&tag).to_owned();
            container["image"] = image.into();
            // The overlay names the host of a managed database.
            if let Some(env) = container["env"].as_array_mut() {
                env.retain(|variable| variable["name"] != "POSTGRES_HOST");
            }
        }
        if let Some(metadata) = value.pointer_mut("/spec/template/metadata").and_then(Value::as_object_mut) {
            let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
            let is_empty = annotations.is_some_and(|map| {
                map.retain(|key, _| !key.starts_with("checksum/"));
                map.is_empty()
            });
            is_empty.then(|| metadata.remove("annotations"));
        }
        let name = value["metadata"]["name"].as_str().unwrap();
        (format!("{} {name}", object.kind()), value)
    });
    all.collect()
}

#[test]
fn the_chart_makes_what_the_base_and_its_components_make() {
    let Some(()) = require("kubectl") else { return };
    let mut faults = Vec::new();
    let every: (Vec<&str>, Vec<&str>) = (
        VARIANTS.iter().flat_map(|(components, _)| *components).filter(|c| **c != "postgres").copied().collect(),
        VARIANTS.iter().flat_map(|(_, values)| *values).filter(|v| !v.starts_with("postgres")).copied().collect(),
    );
    let mut components = every.0;
    components.sort_unstable();
    components.dedup();
    let all = VARIANTS.iter().map(|(c, v)| (c.to_vec(), v.to_vec())).chain([(components, every.1)]);
    for (components, values) in all {
        let Some(made) = template(&values) else { return };
        let (wanted, found) = (compared(&kustomized(&components)), compared(&made));
        // A component is compared with what its values add; budgets of services come with `pdb`.
        let extra = |name: &&String| !wanted.contains_key(*name) && !name.starts_with("PodDisruptionBudget ");
        faults.extend(found.keys().filter(extra).map(|name| format!("{values:?}: {name} is only in the chart")));
        for (name, object) in &wanted {
            match found.get(name) {
                None => faults.push(format!("{values:?}: {name} is not in the chart")),
                Some(other) if !is_same(object, other) => {
                    faults.push(format!("{values:?}: {name}:\n  base  {object}\n  chart {other}"));
                }
                Some(_) => {}
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Equal, regardless of the order of a container's variables that do not name each other.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|found| is_same(value, found)))
        }
        (Value::Array(a), Value::Array(b)) => {
            let named = |list: &[Value]| list.iter().all(|item| item["name"].is_string());
            let pair = |item: &Value| b.iter().any(|found| is_same(item, found));
            a.len() == b.len()
                && if named(a) { a.iter().all(pair) } else { a.iter().zip(b).all(|(a, b)| is_same(a, b)) }
        }
        _ => one == other,
    }
}

#[test]
fn the_files_are_those_that_the_script_writes() {
    let Some(()) = require("kubectl") else { return };
    script("scripts/generate-chart", &["--check"]);
}

#[test]
fn helm_finds_nothing_to_criticise_and_both_examples_render() {
    for file in ["values.yaml", "values-dev.yaml", "values-prod.yaml"] {
        let values = format!("{CHART}/{file}");
        let Some(out) = run(&["lint", "--strict", CHART, "--values", &values]) else { return };
        assert!(
            out.status.success(),
            "{file}: {}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        let out = run(&["template", "release", CHART, "--namespace", "here", "--values", &values]).unwrap();
        assert!(out.status.success(), "{file}: {}", String::from_utf8_lossy(&out.stderr));
        let objects = parse(&String::from_utf8(out.stdout).unwrap()).unwrap();
        let test = crate::manifests::find(&objects, "Job", "end-to-end");
        assert_eq!(test.at("/metadata/annotations")["helm.sh/hook"], "test", "{file}");
    }
}

#[test]
fn what_is_no_value_is_refused() {
    for (value, told) in [
        ("image.tga=x", "tga"),
        ("image.tag=latest", "tag"),
        ("services.worker.replicas=-1", "replicas"),
        ("env.LOG_LEVEL=loud", "LOG_LEVEL"),
        ("image.digests.worker=abc", "worker"),
        ("postgres.enabled=true,database.enabled=true,database.host=h", "not"),
        ("database.enabled=true", "database.host is needed"),
    ] {
        let Some(out) = run(&["template", "release", CHART, "--set", value]) else { return };
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && err.contains(told), "{value}: {err}");
    }
}

#[test]
fn values_are_where_they_say() {
    let Some(made) = template(&[
        "image.repository=r.example/af",
        "image.tag=abc",
        "services.worker.replicas=3",
        "services.worker.env[0].name=LOG_LEVEL",
        "services.worker.env[0].value=debug",
        "services.worker.resources.limits.cpu=2",
        "secret.existingSecrets.broadcaster-secret=mine",
        "secret.create=true",
        "secret.data.broadcaster-secret.WEBHOOK_URL=https://h.example",
        "ingress.enabled=true",
        "ingress.tlsSecret=certificate",
        "httpRoute.enabled=false",
    ]) else {
        return;
    };
    let worker = crate::manifests::find(&made, "Deployment", "worker");
    assert_eq!(*worker.at("/spec/replicas"), 3);
    let container = &crate::manifests::containers(worker)[0];
    assert_eq!(container["image"], "r.example/af/worker:abc");
    assert_eq!(container["resources"]["limits"]["cpu"], 2);
    assert!(container["env"].as_array().unwrap().contains(&json!({"name": "LOG_LEVEL", "value": "debug"})));
    let broadcaster = crate::manifests::find(&made, "Deployment", "broadcaster").0.to_string();
    assert!(broadcaster.contains("\"secretName\":\"mine\"") && !broadcaster.contains("broadcaster-secret"));
    assert_eq!(crate::manifests::find(&made, "Secret", "mine").text("/stringData/WEBHOOK_URL"), "https://h.example");
    assert_eq!(crate::manifests::find(&made, "Ingress", "agentforge").text("/spec/tls/0/secretName"), "certificate");
    assert!(!made.iter().any(|object| object.kind() == "HTTPRoute"));
}
