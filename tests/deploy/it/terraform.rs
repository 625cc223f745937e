//! The Terraform module: read by a parser of HCL, and its names compared with the manifests.

use crate::manifests::{Object, find, overlay, parse, read, root, script, seek};
use agentforge_harness::require;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

const MODULE: &str = "deploy/terraform";
const EXAMPLE: &str = "deploy/terraform/examples/staging";

/// Every block of a kind, such as `variable`, by its last label, of all files of a folder.
fn blocks(files: &Value, kind: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for block in files.as_object().unwrap().values().filter_map(|file| file[kind].as_array()).flatten() {
        for (label, body) in block.as_object().unwrap() {
            match body.as_object() {
                // A resource has a type before its name.
                Some(named) if kind == "resource" => {
                    found.extend(named.iter().map(|(name, body)| (format!("{label}.{name}"), body.clone())));
                }
                _ => found.push((label.clone(), body.clone())),
            }
        }
    }
    found
}

fn files(folder: &str) -> Value {
    serde_json::from_str(&script("scripts/hcl", &[root().join(folder).to_str().unwrap()])).unwrap()
}

fn block(files: &Value, kind: &str, name: &str) -> Value {
    let found = blocks(files, kind).into_iter().find(|(label, _)| label == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}")).1
}

fn local(files: &Value, name: &str) -> Value {
    block(files, "locals", name)
}

fn strings(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|of| of.as_str().unwrap().to_owned()).collect()
}

/// What kind and name the overlay of the environment has.
fn names(objects: &[Object], kind: &str) -> BTreeSet<String> {
    objects.iter().filter(|o| o.kind() == kind).map(|o| o.name().to_owned()).collect()
}

#[test]
fn names_of_the_module_are_those_of_the_manifests() {
    let (Some(()), Some(())) = (require("hcl"), require("kubectl")) else { return };
    let module = files(MODULE);
    let secrets: BTreeSet<String> =
        parse(&read("k8s/base/shared/secrets.template.yaml")).unwrap().iter().map(|o| o.name().to_owned()).collect();
    assert_eq!(strings(&local(&module, "secrets")), secrets);
    let labels = local(&module, "gateway_label");
    for (environment, namespace) in local(&module, "namespaces").as_object().unwrap() {
        let objects = overlay(environment);
        assert_eq!(strings(&local(&module, "service_accounts")), names(&objects, "ServiceAccount"), "{environment}");
        let own = find(&objects, "Namespace", namespace.as_str().unwrap());
        assert_eq!(own.labels()[labels[environment].as_str().unwrap()], "allowed", "{environment}");
        // The patch of the Application meets a variable that the overlay has.
        let text = find(&objects, "Deployment", "orchestrator").0.to_string();
        assert!(text.contains("POSTGRES_HOST"), "{environment}");
        for (service, port) in [("nats", 4222), ("orchestrator", 8080)] {
            let service = find(&objects, "Service", service);
            assert!(service.list("/spec/ports").iter().any(|of| of["port"] == port), "{environment}");
        }
    }
}

/// The Application of the module is the one of `k8s/argocd`, except what variables say.
#[test]
fn the_application_is_that_of_the_repository() {
    let Some(()) = require("hcl") else { return };
    let module = files(MODULE);
    let ours = block(&module, "resource", "kubernetes_manifest.application")["manifest"].clone();
    for environment in ["staging", "production"] {
        let text = ours.to_string().replace("${var.environment}", environment);
        let ours: Value = serde_json::from_str(&text).unwrap();
        let theirs = parse(&read(&format!("k8s/argocd/{environment}.yaml"))).unwrap().remove(0);
        assert_eq!((&ours["kind"], &ours["apiVersion"]), (&theirs.0["kind"], &theirs.0["apiVersion"]));
        assert_eq!(ours["metadata"]["name"], theirs.name());
        for key in ["project", "revisionHistoryLimit", "ignoreDifferences", "syncPolicy"] {
            assert_eq!(ours["spec"][key], theirs.0["spec"][key], "{environment}: {key}");
        }
        assert_eq!(ours["spec"]["source"]["path"], theirs.0["spec"]["source"]["path"]);
        assert_eq!(ours["spec"]["destination"]["server"], theirs.0["spec"]["destination"]["server"]);
        let namespace = local(&module, "namespaces")[environment].clone();
        assert_eq!(namespace, theirs.0["spec"]["destination"]["namespace"], "{environment}");
        let default = block(&module, "variable", "repository")["default"].clone();
        assert_eq!(default, theirs.0["spec"]["source"]["repoURL"]);
        let projects = parse(&read(&format!("k8s/argocd/project-{environment}.yaml"))).unwrap();
        assert!(seek(&projects, "AppProject", ours["spec"]["project"].as_str().unwrap()).is_some());
    }
}

#[test]
fn every_variable_is_described_checked_and_used() {
    let Some(()) = require("hcl") else { return };
    let module = files(MODULE);
    let text: String = tf(MODULE).iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let variables = blocks(&module, "variable");
    assert!(variables.len() > 10);
    // Free text, or anything the cluster may have.
    let free = ["namespace_labels", "argocd_namespace", "deployer", "helm_values"];
    for (name, variable) in &variables {
        assert!(variable["description"].as_str().unwrap().ends_with('.'), "{name}");
        assert!(!variable["type"].is_null(), "{name} has no type");
        let is_checked = !variable["validation"].is_null();
        assert!(is_checked || free.contains(&name.as_str()), "{name} takes anything");
        let uses =
            text.matches(&format!("var.{name}")).count() - variable.to_string().matches(&format!("var.{name}")).count();
        assert!(uses > 0, "nothing reads {name}");
    }
    for (name, output) in blocks(&module, "output") {
        assert!(output["description"].as_str().unwrap().ends_with('.'), "{name}");
    }
    // What the chart is given is in its schema, which refuses what it does not know.
    let values: Value = yaml_serde::from_str(&read("deploy/helm/agentforge/values.yaml")).unwrap();
    let release = std::fs::read_to_string(root().join(MODULE).join("helm.tf")).unwrap();
    for key in ["image", "env", "database", "nats", "smallStreams", "networkPolicies"] {
        assert!(release.contains(&format!("      {key} ")) && !values[key].is_null(), "{key}");
    }
    for (parent, key) in [("image", "repository"), ("image", "tag"), ("database", "host"), ("database", "cidr")] {
        assert!(!values[parent][key].is_null(), "{parent}.{key}");
    }
}

/// The example gives what is needed, and nothing that the module does not take; versions are pinned in both.
#[test]
fn the_example_and_the_readme_fit_the_module() {
    let Some(()) = require("hcl") else { return };
    let (module, example) = (files(MODULE), files(EXAMPLE));
    let call = block(&example, "module", "agentforge");
    let variables = blocks(&module, "variable");
    for (name, variable) in &variables {
        assert!(!variable["default"].is_null() || has_default(variable) || !call[name].is_null(), "{name} is needed");
    }
    for key in call.as_object().unwrap().keys().filter(|key| *key != "source" && !key.starts_with("__")) {
        assert!(variables.iter().any(|(name, _)| name == key), "the module takes no {key}");
    }
    let pinned = |files: &Value| block(files, "terraform", "required_providers")[0].clone();
    assert_eq!(pinned(&module), pinned(&example));
    for (name, provider) in pinned(&module).as_object().unwrap() {
        assert!(provider["version"].as_str().unwrap().starts_with("~> "), "{name} is not pinned");
    }
    let readme = read("deploy/terraform/README.md");
    let table = script("scripts/hcl", &["--readme", root().join(MODULE).to_str().unwrap()]);
    assert!(readme.contains(table.trim()), "deploy/terraform/README.md is not what scripts/hcl --readme prints");
}

fn has_default(variable: &Value) -> bool {
    variable.as_object().unwrap().contains_key("default")
}

fn tf(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|of| of == "tf")).collect()
}

#[test]
fn files_are_as_terraform_formats_them() {
    let found = Command::new("terraform").arg("version").output();
    if !found.is_ok_and(|out| out.status.success()) {
        eprintln!("SKIPPED: terraform is not on PATH; `terraform fmt` and `validate` need it");
        return;
    }
    let run = |args: &[&str], folder: &str| {
        let mut command = Command::new("terraform");
        command
            .args(args)
            .current_dir(root().join(folder))
            .env("CHECKPOINT_DISABLE", "1")
            .env_remove("TF_CLI_CONFIG_FILE");
        command.output().unwrap()
    };
    let out = run(&["fmt", "-check", "-recursive", "-no-color"], MODULE);
    assert!(out.status.success(), "terraform fmt: {}", String::from_utf8_lossy(&out.stdout));
    // Providers are programs of others: they are taken from a folder of the user, and never brought.
    let Ok(plugins) = std::env::var("AGENTFORGE_TERRAFORM_PROVIDERS") else {
        eprintln!("SKIPPED: validate needs the providers in a folder that AGENTFORGE_TERRAFORM_PROVIDERS names");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    for args in [&["init", "-backend=false", &format!("-plugin-dir={plugins}")][..], &["validate", "-no-color"]] {
        let mut command = Command::new("terraform");
        let out = command.args(args).current_dir(root().join(EXAMPLE)).env("TF_DATA_DIR", data).output().unwrap();
        assert!(out.status.success(), "terraform {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
}
