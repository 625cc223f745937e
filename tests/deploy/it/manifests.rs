//! Rendered manifests as values: the output of a folder, the workloads in it, and a container's environment.
//!
//! Renders with kubectl, as it is done by hand and by Argo CD. Values of Secrets are those that
//! `scripts/make-secrets` makes.

pub use agentforge_governance::manifests::{Object, containers, list, parse, pod_labels, selects, texts, workloads};
use agentforge_harness::program;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The overlays that are rendered and tested, by their folders.
pub const OVERLAYS: [&str; 7] =
    ["feature", "staging", "production", "edge", "azure-feature", "azure-staging", "azure-production"];
/// Stands for the branch's name until Argo CD or a person gives it.
pub const BRANCH: &str = "BRANCH_NAME";

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A file of the repository.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Runs a script of ours, and gives what it printed.
pub fn script(path: &str, args: &[&str]) -> String {
    let out = Command::new(root().join(path)).args(args).output().unwrap_or_else(|e| panic!("{path}: {e}"));
    assert!(out.status.success(), "{path} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// What a folder of kustomize makes.
pub fn render(folder: &str) -> Vec<Object> {
    build(&root().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"))
}

/// What an overlay makes.
pub fn overlay(name: &str) -> Vec<Object> {
    render(&format!("overlays/{name}"))
}

/// As [`render`], for any folder; the error is what kubectl said.
pub fn build(folder: &Path) -> Result<Vec<Object>, String> {
    let out = Command::new(program("kubectl")?).arg("kustomize").arg(folder).output().map_err(|e| e.to_string())?;
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    if !out.status.success() || told.contains("Warning") {
        return Err(told);
    }
    parse(&String::from_utf8_lossy(&out.stdout))
}

/// The only object of this kind and name.
pub fn find<'a>(objects: &'a [Object], kind: &str, name: &str) -> &'a Object {
    seek(objects, kind, name).unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// As [`find`], if there is one.
pub fn seek<'a>(objects: &'a [Object], kind: &str, name: &str) -> Option<&'a Object> {
    objects.iter().find(|o| o.kind() == kind && o.name() == name)
}

/// The checks of `k8s/base/jobs`: every environment may run them.
pub fn jobs() -> Vec<Object> {
    render("k8s/base/jobs")
}

/// Every Secret of `scripts/make-secrets`, by name and key; made once per process.
pub fn secrets() -> &'static BTreeMap<String, BTreeMap<String, String>> {
    static MADE: OnceLock<BTreeMap<String, BTreeMap<String, String>>> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = script(
            "scripts/make-secrets",
            &["some-namespace", "--webhook-url", "https://hooks.agentforge.internal/in"],
        );
        let documents = parse(&made).unwrap();
        documents.iter().map(|o| (o.name().to_owned(), texts(o.at("/stringData")))).collect()
    })
}

/// The environment of a container as Kubernetes makes it: sources first, then each variable in its turn, where
/// `$(NAME)` stands for what was set before it.
pub fn environment(objects: &[Object], workload: &Object, container: &Value) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for source in list(&container["envFrom"]) {
        let name = source["configMapRef"]["name"].as_str().expect("only ConfigMaps are taken whole");
        env.extend(texts(find(objects, "ConfigMap", name).at("/data")));
    }
    for variable in list(&container["env"]) {
        let name = variable["name"].as_str().unwrap();
        let from = &variable["valueFrom"];
        let value = match (variable["value"].as_str(), from.is_null()) {
            (Some(value), true) => {
                let value = expand(value, &env).unwrap_or_else(|e| panic!("{}: {name}: {e}", workload.name()));
                mounted(workload, container, &value).unwrap_or(value)
            }
            // Nothing creates it here, so it is not set.
            (None, false) if from["secretKeyRef"]["optional"] == true => continue,
            (None, false) => value_from(objects, workload, from),
            _ => panic!("{}: {name} has a value and a source, or neither: {variable}", workload.name()),
        };
        env.insert(name.to_owned(), value);
    }
    env
}

/// The Secret and the key of a file that the pod mounts.
pub fn secret_of_file<'a>(workload: &'a Object, container: &Value, path: &'a str) -> Option<(&'a str, &'a str)> {
    let within = |mount: &&Value| path.starts_with(&format!("{}/", mount["mountPath"].as_str().unwrap()));
    let mount = list(&container["volumeMounts"]).iter().find(within)?;
    let volume = workload.list("/spec/template/spec/volumes").iter().find(|volume| volume["name"] == mount["name"])?;
    let file = path.rsplit('/').next()?;
    let named = list(&volume["secret"]["items"]).iter().find(|item| item["path"] == file);
    let key = named.map_or(file, |item| item["key"].as_str().unwrap());
    Some((volume["secret"]["secretName"].as_str()?, key))
}

/// The place on this machine of a file that the pod would mount from a Secret. What names no such file stays, and what is
/// in a Secret that the cluster makes, such as the authority of certificates.
fn mounted(workload: &Object, container: &Value, path: &str) -> Option<String> {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let (name, key) = secret_of_file(workload, container, path)?;
    let value = secrets().get(name)?.get(key).unwrap_or_else(|| panic!("no Secret {name}/{key}"));
    let folder = MADE.get_or_init(|| tempfile::tempdir().unwrap()).path().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join(key);
    // Tests run at once: none may read a half.
    let part = tempfile::NamedTempFile::new_in(&folder).unwrap();
    std::fs::write(part.path(), value).unwrap();
    part.persist(&file).unwrap();
    Some(file.to_str().unwrap().to_owned())
}

fn value_from(objects: &[Object], workload: &Object, from: &Value) -> String {
    let (secret, config, field) = (&from["secretKeyRef"], &from["configMapKeyRef"], &from["fieldRef"]);
    let part = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
    if !secret.is_null() {
        let (name, key) = (part(secret, "name"), part(secret, "key"));
        return secrets()
            .get(&name)
            .and_then(|s| s.get(&key))
            .unwrap_or_else(|| panic!("no Secret {name}/{key}"))
            .clone();
    }
    if !config.is_null() {
        let object = find(objects, "ConfigMap", &part(config, "name"));
        return texts(object.at("/data")).remove(&part(config, "key")).expect("the key is there");
    }
    match part(field, "fieldPath").as_str() {
        "metadata.name" => format!("{}-0", workload.name()),
        "metadata.namespace" => workload.namespace().unwrap_or("default").to_owned(),
        path => panic!("{}: {path}", workload.name()),
    }
}

fn expand(value: &str, env: &BTreeMap<String, String>) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), value);
    while let Some((before, after)) = rest.split_once("$(") {
        let (name, tail) = after.split_once(')').ok_or("a $( without its end")?;
        let known = env.get(name).ok_or_else(|| format!("$({name}) is not set before it"))?;
        out = out + before + known;
        rest = tail;
    }
    Ok(out + rest)
}
