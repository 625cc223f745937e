//! What a branch may do, and what its name becomes.

use super::api::{Api, User, stream};
use super::apply::placed;
use super::definitions::definition;
use super::folders;
use crate::manifests::{Object, find, render, seek};
use agentforge_harness::eventually;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

const ARGO: User = User("system:serviceaccount:argocd:argocd-application-controller", &["system:serviceaccounts"]);
const TRACKED: &str = "argocd.argoproj.io/tracking-id";
/// Policies are read by the server soon after they are stored.
const READ: Duration = Duration::from_secs(30);

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {
        "pod-security.kubernetes.io/enforce": "restricted",
    }}})
}

/// The policies in force, and Argo CD with all rights of RBAC, as its own installation gives them.
pub async fn start_with_policies(folders: &super::Folders) -> Api {
    let api = Api::start(folders).await;
    let all = definition(
        "gateway.networking.k8s.io",
        "v1",
        "TLSRoute",
        &json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
    );
    api.kubectl(&["apply", "--server-side", "-f", "-"], &all.to_string()).ok("another kind of route");
    api.apply("kubectl", &render("k8s/cluster")).unwrap();
    api.kubectl(
        &["create", "clusterrolebinding", "argocd", "--clusterrole=cluster-admin", &format!("--user={}", ARGO.0)],
        "",
    )
    .ok("the rights of Argo CD");
    eventually(READ, "the policies are read", || {
        let said = api.kubectl(&["create", "namespace", "feature-unlabelled", "--dry-run=server"], "");
        async move { !said.is_done }
    })
    .await;
    api
}

#[tokio::test]
async fn a_branch_changes_its_own_namespace_and_no_other() {
    let Some(folders) = folders() else { return };
    let api = start_with_policies(&folders).await;
    let create = |object: &Value, who: User| api.kubectl_as(who, &["create", "-f", "-"], &object.to_string());
    let tracked = |mut object: Value, application: &str| {
        object["metadata"]["annotations"] = json!({TRACKED: format!("{application}:/X:a/b")});
        object
    };
    // The whole overlay, as Argo CD applies it.
    let mut objects = placed("overlays/feature", &[("some-branch", "mine")]);
    for object in &mut objects {
        object.0["metadata"]["annotations"][TRACKED] = json!("agentforge-feature-mine:x/X:a/b");
    }
    api.kubectl_as(ARGO, &["apply", "--server-side", "-f", "-"], &stream(&objects)).ok("a branch's own overlay");
    create(&tracked(namespace("feature-theirs"), "agentforge-feature-theirs"), ARGO).ok("another branch's namespace");

    let config = |name: &str, namespace: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}});
    create(&tracked(config("a", "feature-theirs"), "agentforge-feature-theirs"), ARGO).ok("their own");
    let other = "may not change the namespace feature-theirs";
    create(&tracked(config("b", "feature-theirs"), "agentforge-feature-mine"), ARGO).refused("another branch's", other);
    create(&config("c", "feature-theirs"), ARGO).refused("nobody's", other);
    // An application whose name only begins like theirs.
    create(&tracked(config("d", "feature-theirs"), "agentforge-feature-theirs2"), ARGO).refused("a longer name", other);
    create(&tracked(namespace("feature-third"), "agentforge-feature-mine"), ARGO)
        .refused("a namespace that is not its own", "may not change the namespace feature-third");
    // Changes as well as new objects.
    let patch = json!({"metadata": {"annotations": {TRACKED: "agentforge-feature-mine:/X:a/b"}}}).to_string();
    let args = ["-n", "feature-theirs", "patch", "configmap", "a", "--type=merge", "-p", &patch];
    api.kubectl_as(ARGO, &args, "").refused("taking over an object", other);

    // The labels of its namespace, also for administrators.
    let labelled = |key: &str, value: &str| json!({"metadata": {"labels": {key: value}}}).to_string();
    let admin = |patch: &str| api.kubectl(&["patch", "namespace", "feature-mine", "--type=merge", "-p", patch], "");
    admin(&labelled("pod-security.kubernetes.io/enforce", "privileged"))
        .refused("a weaker standard", "enforces the Pod Security");
    admin(r#"{"metadata": {"labels": {"pod-security.kubernetes.io/enforce": null}}}"#)
        .refused("no standard", "enforces the Pod Security");
    admin(&labelled("gateway-access", "allowed")).refused("production's gateway", "only for the development gateway");
    admin(&labelled("team", "a")).ok("another label");

    // Its routes.
    let route = seek(&objects, "HTTPRoute", "agentforge-api").unwrap().clone();
    let changed = |name: &str, pointer: &str, value: Value| {
        let mut route = route.clone();
        route.0["metadata"]["name"] = json!(name);
        *route.0.pointer_mut(pointer).unwrap() = value;
        create(&route.0, ARGO)
    };
    changed("more", "/metadata/labels", json!({})).ok("one more route of its own host");
    for (what, pointer, value, told) in [
        ("the host of production", "/spec/hostnames", json!(["agentforge.internal"]), "the only host"),
        (
            "two hosts",
            "/spec/hostnames",
            json!(["feature-mine.dev.agentforge.internal", "a.dev.agentforge.internal"]),
            "the only host",
        ),
        ("every host", "/spec/hostnames", json!([]), "the only host"),
        ("production's gateway", "/spec/parentRefs/0/name", json!("gateway"), "the development gateway"),
        ("a gateway of its own", "/spec/parentRefs/0/namespace", json!("feature-mine"), "the development gateway"),
    ] {
        changed("bad", pointer, value).refused(what, told);
    }
    let tls = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "TLSRoute", "metadata": {"name": "a", "namespace": "feature-mine"},
        "spec": {"hostnames": ["feature-mine.dev.agentforge.internal"]}});
    create(&tracked(tls, "agentforge-feature-mine"), ARGO).refused("another kind of route", "and no TLSRoute");
}

/// What the template makes of branches, by the same functions as Argo CD's.
fn names(folders: &super::Folders, branches: &[&str]) -> Vec<String> {
    let argo = render("k8s/argocd");
    let set = find(&argo, "ApplicationSet", "agentforge-feature");
    let generator = &set.list("/spec/generators")[0]["scmProvider"];
    assert_eq!(set.text("/spec/template/spec/destination/namespace"), "{{ .values.name }}");
    let mut child = Command::new(folders.tools.join("branch-names"))
        .arg(generator["values"]["name"].as_str().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(branches.join("\n").as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn every_branch_has_a_namespace_that_can_be_and_is_only_its_own() {
    let Some(folders) = folders() else { return };
    let long = format!("feature/{}", "long-".repeat(40));
    let longer = format!("{long}er");
    let exact = format!("feature/{}", "a".repeat(55));
    let branches = [
        "feature/x",
        "feature/login-page",
        "feature/v1.2",
        "feature/v1-2",
        "feature/v1/2",
        "feature/V1.2",
        "feature/UPPER",
        "feature/a_b",
        "feature/ä",
        "feature/@{x}",
        "feature/-",
        "feature/trailing-",
        "feature/trailing.",
        "feature/x.y.z",
        "feature/12345",
        "feature/a--b",
        &long,
        &longer,
        &exact,
        "feature/$(id)",
        "feature/{{ .sha }}",
    ];
    let names = names(&folders, &branches);
    assert_eq!(names.len(), branches.len());
    assert_eq!(names[..2], ["feature-x", "feature-login-page"], "what fits stays as it is");
    assert_eq!(names[18], exact.replace('/', "-"));
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    let api = Api::start(&folders).await;
    for (name, branch) in names.iter().zip(&branches) {
        assert!(name.starts_with("feature-"), "{branch}: {name}");
        // All that is named for it: the namespace, and its host.
        let objects = placed("overlays/feature", &[("feature-some-branch", name)]);
        let own: Vec<Object> = objects.into_iter().filter(|o| ["Namespace", "HTTPRoute"].contains(&o.kind())).collect();
        assert_eq!(own.len(), 5, "a namespace and four routes");
        api.apply("kubectl", &own).unwrap_or_else(|told| panic!("{branch}: {name}: {told}"));
    }
}
