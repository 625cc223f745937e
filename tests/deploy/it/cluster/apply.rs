//! Everything that is ever applied: accepted, the same the second time, and the same for each manager that applies it.

use super::api::{Api, stream};
use super::folders;
use crate::manifests::{BRANCH, Object, parse, render};
use crate::schemas::roots;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Namespaces that belong to others and are there before ours.
const OTHERS: [&str; 3] = ["argocd", "keda", "monitoring"];

/// What a folder makes, with the name of a branch, and other names.
pub fn placed(folder: &str, renamed: &[(&str, &str)]) -> Vec<Object> {
    let mut text = stream(&render(folder));
    for (from, to) in [(BRANCH, "some-branch")].iter().chain(renamed) {
        text = text.replace(from, to);
    }
    parse(&text).unwrap()
}

/// The same objects in another namespace, so that two overlays for one namespace do not meet.
fn moved(mut objects: Vec<Object>, to: &str) -> Vec<Object> {
    for object in &mut objects {
        let field = if object.kind() == "Namespace" { "name" } else { "namespace" };
        if object.kind() == "Namespace" || object.namespace().is_some() {
            object.0["metadata"][field] = json!(to);
        }
    }
    objects
}

/// Each object's version, by kind, namespace and name.
fn changed(before: &[Object], after: &[Object]) -> String {
    let before = versions(before);
    let changed = versions(after).into_iter().filter(|(name, version)| before.get(name) != Some(version));
    changed.map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

fn versions(objects: &[Object]) -> BTreeMap<String, String> {
    let of = |o: &Object| format!("{} {}/{}", o.kind(), o.namespace().unwrap_or_default(), o.name());
    objects.iter().map(|o| (of(o), o.text("/metadata/resourceVersion").to_owned())).collect()
}

/// The places where what is stored is not what the manifest says. A list of the manifest is the whole list; of what is
/// stored only that much is looked at, because the server adds fields to maps.
fn differences(wanted: &Value, found: &Value, place: &str) -> Vec<String> {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted
            .iter()
            .flat_map(|(key, value)| {
                differences(value, found.get(key).unwrap_or(&Value::Null), &format!("{place}.{key}"))
            })
            .collect(),
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            let pairs = wanted.iter().zip(found).enumerate();
            pairs.flat_map(|(n, (wanted, found))| differences(wanted, found, &format!("{place}[{n}]"))).collect()
        }
        _ if wanted == found => Vec::new(),
        _ => vec![format!("{place}: {wanted} became {found}")],
    }
}

#[tokio::test]
async fn every_folder_is_applied_twice_and_by_two_managers() {
    let Some(folders) = folders() else { return };
    let api = Api::start(&folders).await;
    OTHERS.iter().for_each(|name| api.make_namespace(name));
    let mut faults = Vec::new();
    for folder in roots() {
        let objects = placed(&folder, &[]);
        let azure = folder.strip_prefix("overlays/azure-");
        let objects = if let Some(name) = azure { moved(objects, &format!("on-azure-{name}")) } else { objects };
        let first = match api.apply("kubectl", &objects) {
            Ok(first) => first,
            Err(told) => {
                faults.push(format!("{folder} is refused:\n{told}"));
                continue;
            }
        };
        for (wanted, found) in objects.iter().zip(&first) {
            assert_eq!((wanted.kind(), wanted.name()), (found.kind(), found.name()), "{folder}");
            faults.extend(differences(&wanted.0, &found.0, &format!("{folder} {} {}", wanted.kind(), wanted.name())));
        }
        let again = api.apply("kubectl", &objects).unwrap();
        if versions(&again) != versions(&first) {
            faults.push(format!("{folder}: the second apply changes {}", changed(&first, &again)));
        }
        let diff = api.kubectl(&["diff", "--server-side", "-f", "-"], &stream(&objects));
        if !diff.is_done {
            faults.push(format!("{folder}: kubectl diff: {}{}", diff.out, diff.err));
        }
        // Argo CD, in addition to a person or a script: both own all of it, and neither undoes what the other did.
        match api.apply("argocd-controller", &objects) {
            Ok(shared) => {
                let third = api.apply("kubectl", &objects).unwrap();
                if versions(&third) != versions(&shared) {
                    faults.push(format!("{folder}: the two managers undo each other's {}", changed(&shared, &third)));
                }
            }
            Err(told) => faults.push(format!("{folder}: a second manager is refused:\n{told}")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test]
async fn what_was_applied_by_the_client_is_taken_over_by_the_server() {
    let Some(folders) = folders() else { return };
    let api = Api::start(&folders).await;
    let renamed = [("agentforge-staging", "some-staging")];
    let objects = placed("overlays/staging", &renamed);
    let text = stream(&objects);
    // It says "configured" of some in which nothing changes: their versions show that.
    let apply = |what: &str| {
        let said = api.kubectl(&["apply", "-o", "json", "-f", "-"], &text).ok(what);
        let found: Value = serde_json::from_str(&said).unwrap();
        versions(&found["items"].as_array().unwrap().iter().cloned().map(Object).collect::<Vec<_>>())
    };
    let first = apply("by the client");
    assert_eq!(apply("by the client, again"), first);
    api.apply("kubectl", &objects).unwrap();
    api.apply("argocd-controller", &objects).unwrap();
}

/// As generated: nothing that is in a cluster is ever changed, so each is another object.
#[tokio::test]
async fn settings_may_change_any_number_of_times() {
    let Some(folders) = folders() else { return };
    let api = Api::start(&folders).await;
    let objects = placed("overlays/staging", &[]);
    api.apply("kubectl", &objects).unwrap();
    super::quotas::count_from_now(&api, "agentforge-staging");
    let settings = |o: &&Object| o.kind() == "ConfigMap" && o.name().starts_with("agentforge-env-");
    let current = objects.iter().find(settings).expect("the generated settings");
    for n in 0..20 {
        let next = stream(std::slice::from_ref(current)).replace(current.name(), &format!("agentforge-env-change{n}"));
        let changed = [objects.clone(), parse(&next).unwrap()].concat();
        api.apply("kubectl", &changed).unwrap_or_else(|told| panic!("change {n}: {told}"));
    }
}
