//! A branch comes up by pushing it: each Secret that its pods name is made by something of that way, and so is each image.

use crate::environments::images;
use crate::manifests::{Object, containers, find, list, overlay, read, render, root, secrets, workloads};
use agentforge_harness::require;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Secrets without which a pod does not start, by the keys that it names; none stands for all.
fn needed(objects: &[Object]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for workload in workloads(objects) {
        for volume in workload.list("/spec/template/spec/volumes") {
            let projected = list(&volume["projected"]["sources"]).iter().map(|source| &source["secret"]);
            for secret in projected.chain([&volume["secret"]]).filter(|secret| secret["optional"] != true) {
                let Some(name) = secret["secretName"].as_str().or(secret["name"].as_str()) else { continue };
                let keys = list(&secret["items"]).iter().map(|item| item["key"].as_str().unwrap().to_owned());
                found.entry(name.to_owned()).or_default().extend(keys);
            }
        }
        for variable in containers(workload).iter().flat_map(|c| list(&c["env"])) {
            let from = &variable["valueFrom"]["secretKeyRef"];
            if let (Some(name), Some(key), false) =
                (from["name"].as_str(), from["key"].as_str(), from["optional"] == true)
            {
                found.entry(name.to_owned()).or_default().insert(key.to_owned());
            }
        }
    }
    found
}

#[test]
fn every_secret_of_a_branch_is_made_when_its_namespace_appears() {
    let Some(()) = require("kubectl") else { return };
    for (name, folder) in
        [("feature", "k8s/cluster/feature-secrets"), ("azure-feature", "k8s/cluster/feature-secrets-azure")]
    {
        let (branch, cluster) = (overlay(name), render(folder));
        let namespace = branch.iter().find(|o| o.kind() == "Namespace").unwrap();
        let labels = namespace.labels();
        let store = find(&cluster, "ClusterSecretStore", "agentforge-feature");
        let admitted = store.list("/spec/conditions");
        assert_eq!(admitted.len(), 1, "each condition admits namespaces on its own");
        assert_eq!(admitted[0], serde_json::json!({"namespaceRegexes": ["^feature-"]}));
        let mut made: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for secret in cluster.iter().filter(|o| o.kind() == "ClusterExternalSecret") {
            let [selector] = secret.list("/spec/namespaceSelectors") else { panic!("{}: one selector", secret.name()) };
            let wanted = selector["matchLabels"].as_object().unwrap();
            assert!(wanted.iter().all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str()), "{name}");
            assert_eq!(secret.text("/spec/externalSecretSpec/secretStoreRef/name"), store.name());
            let target = secret.text("/spec/externalSecretSpec/target/name");
            let entry = secret.list("/spec/externalSecretSpec/dataFrom")[0]["extract"]["key"].as_str().unwrap();
            assert_eq!(entry, format!("agentforge/feature/{target}"));
            // The entry has what `make-secrets --entries` writes.
            made.insert(target.to_owned(), secrets()[target].keys().cloned().collect());
        }
        for class in branch.iter().filter(|o| o.kind() == "SecretProviderClass") {
            for secret in class.list("/spec/secretObjects") {
                let keys = list(&secret["data"]).iter().map(|data| data["key"].as_str().unwrap().to_owned()).collect();
                let before = made.insert(secret["secretName"].as_str().unwrap().to_owned(), keys);
                assert!(before.is_none(), "{name}: two make {}", secret["secretName"]);
            }
        }
        let needed = needed(&branch);
        assert!(needed.len() > 8, "{name}: the Secrets were not found: {needed:?}");
        for (secret, keys) in needed {
            let has = made.get(&secret).unwrap_or_else(|| panic!("{name}: nothing makes the Secret {secret}"));
            assert!(keys.is_subset(has), "{name}: {secret} has {has:?}, and pods want {keys:?}");
        }
        // No branch makes them, or reads the store, itself.
        let own: BTreeSet<&str> = branch.iter().map(Object::kind).collect();
        assert!(own.iter().all(|kind| !kind.contains("ExternalSecret") && !kind.contains("SecretStore")), "{own:?}");
    }
    // Only branches have the label.
    for name in ["staging", "production", "edge", "azure-staging", "azure-production"] {
        let objects = overlay(name);
        let namespace = objects.iter().find(|o| o.kind() == "Namespace").unwrap();
        assert!(!namespace.labels().contains_key("agentforge/secrets"), "{name}");
    }
}

#[test]
fn entries_for_a_store_are_what_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(root().join("scripts/make-secrets"));
    let out = command.args(["feature", "--entries"]).arg(folder.path().join("entries")).output().unwrap();
    assert!(out.status.success() && out.stdout.is_empty(), "{out:?}");
    for (name, values) in secrets() {
        let path = folder.path().join("entries").join(format!("{name}.json"));
        let entry: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let keys: BTreeSet<&String> = entry.as_object().unwrap().keys().collect();
        assert_eq!(keys, values.keys().collect(), "{name}");
    }
    assert_eq!(std::fs::read_dir(folder.path().join("entries")).unwrap().count(), secrets().len());
}

/// The workflow of branches pushes all that the ApplicationSet names, with the commit as the tag, and promotes nothing.
#[test]
fn every_image_of_a_branch_is_pushed_by_its_workflow() {
    let Some(()) = require("kubectl") else { return };
    let workflow: Value = yaml_serde::from_str(&read(".github/workflows/feature-images.yml")).unwrap();
    assert_eq!(workflow["on"]["push"]["branches"], serde_json::json!(["feature/**"]));
    let text = workflow.to_string();
    assert!(
        text.contains(" images-push") && !text.contains("promote") && workflow["permissions"]["contents"] == "read"
    );
    let makefile = read("Makefile");
    assert!(makefile.contains("\nimages-push: ") && makefile.contains("scripts/build-images --push"));
    let built: BTreeSet<String> = std::fs::read_dir(root().join("services"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .chain(["cli".to_owned(), "nats-server".to_owned()])
        .collect();
    let branch = overlay("feature");
    let ours: BTreeSet<String> = branch
        .iter()
        .flat_map(images)
        .filter(|image| image.contains("/agentforge/"))
        .map(|image| image.rsplit('/').next().unwrap().split(':').next().unwrap().to_owned())
        .collect();
    assert!(ours.len() > 6 && ours.is_subset(&built), "{ours:?} of {built:?}");
}
