//! The files under k8s and overlays: every folder builds, nothing lies about unused, and made files are up to date.

use crate::manifests::{OVERLAYS, build, jobs, list, overlay, read, root, script, secrets, texts, workloads};
use agentforge_governance::manifests::sources::{self, Kustomization};
use agentforge_harness::require;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Every folder with a kustomization.
fn kustomizations() -> Vec<Kustomization> {
    let tops = ["k8s", "overlays", "monitoring"].iter();
    let found: Vec<_> = tops.flat_map(|top| sources::kustomizations(&root().join(top)).unwrap()).collect();
    assert!(found.len() > 25, "the folders were not found");
    found
}

#[test]
fn every_folder_builds_alone_and_every_component_on_the_base() {
    let Some(()) = require("kubectl") else { return };
    let mut failures = Vec::new();
    for kustomization in kustomizations() {
        let folder = &kustomization.folder;
        if let Err(told) = build(folder) {
            failures.push(format!("{}: {told}", folder.display()));
        }
        if kustomization.is_component() {
            // In the repository, since a component is named relative to it.
            std::fs::create_dir_all(root().join("target")).unwrap();
            let dir = tempfile::tempdir_in(root().join("target")).unwrap();
            let both = format!(
                "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../k8s/base]\ncomponents: [../../{}]\n",
                folder.strip_prefix(root()).unwrap().display()
            );
            std::fs::write(dir.path().join("kustomization.yaml"), both).unwrap();
            if let Err(told) = build(dir.path()) {
                failures.push(format!("base and {}: {told}", folder.display()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_file_is_used_and_every_named_one_is_there() {
    // Read by people or by `agentforge site add`, and never applied.
    let apart = ["k8s/base/shared/secrets.template.yaml", "k8s/components/edge/site-account.conf"];
    let apart = apart.map(|path| root().join(path));
    let all = kustomizations();
    let files: Vec<PathBuf> =
        ["k8s", "overlays"].iter().flat_map(|top| sources::files(&root().join(top)).unwrap()).collect();
    let faults = sources::unreferenced(&all, &files, &apart);
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn no_patch_addresses_a_list_by_its_index() {
    let faults = sources::patched_by_index(&kustomizations()).unwrap();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn what_is_made_from_monitoring_is_up_to_date() {
    script("scripts/generate-manifests", &["--check"]);
}

/// Secrets with certificates.
const MADE_BY_THE_CLUSTER: [&str; 2] = ["nats-tls", "nats-hub-ca"];
/// Keys for people and programs outside.
const NOT_READ_BY_PODS: [&str; 2] = ["nats-seeds/operator", "nats-seeds/producer"];

#[test]
fn every_secret_that_is_read_is_in_the_template_and_can_be_made() {
    let Some(()) = require("kubectl") else { return };
    let text = read("k8s/base/shared/secrets.template.yaml");
    let documents = crate::manifests::parse(&text).unwrap();
    let template: BTreeMap<String, BTreeMap<String, String>> =
        documents.iter().map(|o| (o.name().to_owned(), texts(o.at("/stringData")))).collect();
    for (name, values) in &template {
        assert!(values.values().all(String::is_empty), "{name} has a value in git");
    }
    let keys = |all: &BTreeMap<String, BTreeMap<String, String>>| -> BTreeSet<(String, String)> {
        all.iter().flat_map(|(name, keys)| keys.keys().map(|key| (name.clone(), key.clone()))).collect()
    };
    assert_eq!(keys(secrets()), keys(&template), "scripts/make-secrets and the template");
    let (mut read, mut optional) = (BTreeSet::new(), BTreeSet::new());
    for name in OVERLAYS {
        let objects = [overlay(name), jobs()].concat();
        assert!(objects.iter().all(|o| o.kind() != "Secret"), "{name} has a Secret in git");
        for workload in workloads(&objects) {
            let containers = crate::manifests::containers(workload);
            for (container, env) in containers.iter().flat_map(|c| list(&c["env"]).iter().map(move |env| (c, env))) {
                let path = env["value"].as_str().unwrap_or_default();
                let file = crate::manifests::secret_of_file(workload, container, path);
                read.extend(file.map(|(name, key)| (name.to_owned(), key.to_owned())));
                let from = &env["valueFrom"]["secretKeyRef"];
                if let (Some(name), Some(key)) = (from["name"].as_str(), from["key"].as_str()) {
                    let names = if from["optional"] == true { &mut optional } else { &mut read };
                    names.insert((name.to_owned(), key.to_owned()));
                }
            }
            // A volume has the keys that it lists, or all.
            for secret in workload.list("/spec/template/spec/volumes").iter().map(|volume| &volume["secret"]) {
                let Some((name, made)) = secret["secretName"].as_str().and_then(|n| template.get_key_value(n)) else {
                    continue;
                };
                let listed: BTreeSet<&str> =
                    list(&secret["items"]).iter().map(|item| item["key"].as_str().unwrap()).collect();
                let mounted = made.keys().filter(|key| listed.is_empty() || listed.contains(key.as_str()));
                read.extend(mounted.map(|key| (name.clone(), key.clone())));
            }
        }
    }
    // Certificates are made by the cluster.
    let unknown: BTreeSet<_> = read.difference(&keys(&template)).map(|(name, _)| name.clone()).collect();
    assert!(
        unknown.iter().all(|name| MADE_BY_THE_CLUSTER.contains(&name.as_str())),
        "not in the template: {unknown:?}"
    );
    let unread: BTreeSet<_> = keys(&template).difference(&read).map(|(name, key)| format!("{name}/{key}")).collect();
    assert!(unread.iter().all(|of| NOT_READ_BY_PODS.contains(&of.as_str())), "no pod reads {unread:?}");
    for (name, key) in &optional {
        assert!(text.contains(&format!("#   {name}: {key}\n")), "the template does not name {name}: {key}");
        assert!(!secrets().contains_key(name), "another run of scripts/make-secrets would replace {name}");
    }
}

/// The page has each Secret with the way to change it, and what is read at the start only is named to a reloader.
#[test]
fn every_secret_has_a_way_to_change_it_on_the_page() {
    let Some(()) = require("kubectl") else { return };
    let page = read("docs/howto/rotate-secrets.md");
    let table = page.split("## What is read when").nth(1).unwrap().split("\n\n").nth(1).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().skip(2).map(|row| row.trim_matches('|').split(" | ").collect()).collect();
    let row = |name: &str| rows.iter().find(|row| row[0].contains(&format!("`{name}`")));
    for name in secrets().keys() {
        assert!(row(name).is_some_and(|row| row.len() == 3), "{name} is not in the table");
    }
    let objects = overlay("production");
    let mut reloaded = BTreeSet::new();
    for workload in workloads(&objects) {
        let annotations = texts(workload.at("/metadata/annotations"));
        let Some(names) = annotations.get("secret.reloader.stakater.com/reload") else { continue };
        for name in names.split(',') {
            let mounts = workload.list("/spec/template/spec/volumes").iter().any(|v| v["secret"]["secretName"] == name);
            assert!(mounts, "{} does not mount {name}", workload.name());
            reloaded.insert(name.to_owned());
        }
    }
    let at_the_start: BTreeSet<String> =
        secrets().keys().filter(|name| row(name).unwrap()[1].trim() == "at the start").cloned().collect();
    assert_eq!(reloaded, at_the_start);
}
