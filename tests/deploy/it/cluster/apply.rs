//! Everything that is ever applied: accepted, the same the second time, and the same for each manager that applies it.

use super::api::{Api, stream};
use super::folders;
use crate::chart;
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

/// What the server added where a manager owns a list or a map as a whole: `fields` is what one owns, as the server keeps it.
/// Argo CD compares such a value as a whole, so anything added to it is a difference forever.
fn added(fields: &Value, wanted: &Value, found: &Value, place: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (field, below) in fields.as_object().unwrap() {
        let (wanted, found, place) = if let Some(name) = field.strip_prefix("f:") {
            (&wanted[name], &found[name], format!("{place}.{name}"))
        } else if let Some(keys) = field.strip_prefix("k:") {
            let keys: Value = serde_json::from_str(keys).unwrap();
            (item(wanted, &keys), item(found, &keys), format!("{place}[{keys}]"))
        } else {
            continue;
        };
        let is_whole = below.as_object().unwrap().keys().all(|key| key == ".");
        if !is_whole {
            faults.extend(added(below, wanted, found, &place));
        } else if (found.is_array() || found.is_object()) && wanted != found {
            faults.push(format!("{place} is compared as a whole: {wanted} became {found}"));
        }
    }
    faults
}

/// The item of a list with these keys. A manifest may leave one out that has a default.
fn item<'a>(list: &'a Value, keys: &Value) -> &'a Value {
    let fits = |item: &&Value, is_exact: bool| {
        let mut keys = keys.as_object().unwrap().iter();
        keys.all(|(key, value)| item.get(key).map_or(!is_exact, |found| found == value))
    };
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let found = items.iter().find(|item| fits(item, true)).or_else(|| items.iter().find(|item| fits(item, false)));
    found.unwrap_or(&Value::Null)
}

fn without_version(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    object
}

/// Applies everything until nothing changes, and then as Argo CD, and says what was refused or changed, with `name` in front.
fn faults_of(api: &Api, name: &str, objects: &[Object]) -> Vec<String> {
    let mut faults = Vec::new();
    let first = match api.apply("kubectl", objects) {
        Ok(first) => first,
        Err(told) => return vec![format!("{name} is refused:\n{told}")],
    };
    assert_eq!(first.len(), objects.len(), "{name}");
    for (wanted, found) in objects.iter().zip(&first) {
        assert_eq!((wanted.kind(), wanted.name()), (found.kind(), found.name()), "{name}");
        let place = format!("{name} {} {}", wanted.kind(), wanted.name());
        faults.extend(differences(&wanted.0, &found.0, &place));
        let owned = found.list("/metadata/managedFields").iter().find(|entry| entry["operation"] == "Apply");
        let owned = &owned.unwrap_or_else(|| panic!("{place} has no owner"))["fieldsV1"];
        faults.extend(added(owned, &wanted.0, &found.0, &place));
    }
    // The server stores a claim once more at its first update, with nothing in it changed: contents are compared here, and
    // versions from then on.
    let again = api.apply("kubectl", objects).unwrap();
    let contents = |objects: &[Object]| objects.iter().map(|o| without_version(&o.0)).collect::<Vec<_>>();
    if contents(&again) != contents(&first) {
        faults.push(format!("{name}: the second apply changes {}", changed(&first, &again)));
    }
    let settled = api.apply("kubectl", objects).unwrap();
    if versions(&settled) != versions(&again) {
        faults.push(format!("{name}: each apply changes {}", changed(&again, &settled)));
    }
    let diff = api.kubectl(&["diff", "--server-side", "-f", "-"], &stream(objects));
    if !diff.is_done {
        faults.push(format!("{name}: kubectl diff: {}{}", diff.out, diff.err));
    }
    // Argo CD, in addition to a person or a script: both own all of it, and neither undoes what the other did.
    match api.apply("argocd-controller", objects) {
        Ok(shared) => {
            let third = api.apply("kubectl", objects).unwrap();
            if versions(&third) != versions(&shared) {
                faults.push(format!("{name}: the two managers undo each other's {}", changed(&shared, &third)));
            }
        }
        Err(told) => faults.push(format!("{name}: a second manager is refused:\n{told}")),
    }
    faults
}

#[tokio::test]
async fn every_folder_is_applied_twice_and_by_two_managers() {
    let Some(folders) = folders() else { return };
    let api = Api::start(&folders).await;
    OTHERS.iter().for_each(|name| api.make_namespace(name));
    let mut faults = Vec::new();
    for folder in roots() {
        let mut objects = placed(&folder, &[]);
        // The same names as those of another folder, with other contents.
        if let Some(name) = folder.strip_prefix("overlays/azure-") {
            objects = moved(objects, &format!("on-azure-{name}"));
        }
        if let Some(name) = folder.strip_prefix("k8s/argocd-variants/") {
            api.make_namespace(&format!("argocd-{name}"));
            objects = moved(objects, &format!("argocd-{name}"));
        }
        faults.extend(faults_of(&api, &folder, &objects));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test]
async fn the_chart_is_applied_twice_and_by_two_managers() {
    let Some(folders) = folders() else { return };
    if chart::helm().is_none() {
        return;
    }
    let api = Api::start(&folders).await;
    let files =
        ["values-dev", "values-prod"].map(|name| vec!["--values".into(), format!("{}/{name}.yaml", chart::CHART)]);
    let variants = chart::VARIANTS
        .iter()
        .map(|(_, values)| values.iter().flat_map(|value| ["--set".to_owned(), (*value).to_owned()]).collect());
    let mut faults = Vec::new();
    for (n, options) in files.into_iter().chain(variants).enumerate() {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let namespace = format!("chart-{n}");
        api.make_namespace(&namespace);
        let mut objects = chart::made_in(&namespace, &options).unwrap();
        assert!(objects.len() > 20, "{options:?}: {}", objects.len());
        // As Helm does it.
        for object in objects.iter_mut().filter(|object| object.kind() != "Namespace") {
            object.0["metadata"]["namespace"] = json!(namespace);
        }
        faults.extend(faults_of(&api, &format!("the chart with {options:?}"), &objects));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_is_added_to_a_list_that_is_compared_as_a_whole_is_seen() {
    let fields = json!({"f:spec": {"f:rules": {}, "f:ports": {".": {}, "k:{\"port\":1,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}});
    let wanted = json!({"spec": {"rules": [{"a": 1}], "ports": [{"port": 1}]}});
    assert_eq!(added(&fields, &wanted, &wanted, ""), Vec::<String>::new());
    let found = json!({"spec": {"rules": [{"a": 1}], "ports": [{"port": 1, "protocol": "TCP", "more": []}]}});
    assert_eq!(
        added(&fields, &wanted, &found, ""),
        Vec::<String>::new(),
        "items with keys are compared field by field"
    );
    let found = json!({"spec": {"rules": [{"a": 1, "weight": 1}], "ports": [{"port": 1}]}});
    assert_eq!(added(&fields, &wanted, &found, "").len(), 1);
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
