//! What is protected from being deleted, and what a manager of namespaces may do.

use super::api::{Api, User, stream};
use super::apply::placed;
use super::branches::start_with_policies;
use super::folders;
use crate::manifests::Object;
use serde_json::{Value, json};

const MANAGER: User = User("erin", &["agentforge:namespace-managers", "system:authenticated"]);

fn made(api: &Api, name: &str) {
    api.kubectl(&["create", "-f", "-"], &namespace(name).to_string()).ok(name);
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {
        "pod-security.kubernetes.io/enforce": "restricted",
    }}})
}

#[tokio::test]
async fn a_manager_of_namespaces_makes_and_deletes_those_of_branches_only() {
    let Some(folders) = folders() else { return };
    let api = start_with_policies(&folders).await;
    ["agentforge", "somebodys"].iter().for_each(|name| made(&api, name));
    let create = |name: &str| api.kubectl_as(MANAGER, &["create", "-f", "-"], &namespace(name).to_string());
    let delete = |name: &str| api.kubectl_as(MANAGER, &["delete", "namespace", name, "--wait=false"], "");
    create("feature-new").ok("a branch's namespace");
    delete("feature-new").ok("the same again");
    create("other").refused("another namespace", "it is no feature namespace");
    create("feature").refused("one without a branch", "it is no feature namespace");
    create("featureless").refused("one that only begins like it", "it is no feature namespace");
    delete("somebodys").refused("somebody's namespace", "may not delete somebodys: it is no feature namespace");
    delete("agentforge").refused("production", "agentforge");
    delete("default").refused("the default namespace", "default");
    // Nothing in them, and no other object of the cluster.
    let args = ["-n", "agentforge", "create", "configmap", "x"];
    api.kubectl_as(MANAGER, &args, "").refused("an object", "cannot create resource");
    api.kubectl_as(MANAGER, &["label", "namespace", "agentforge", "a=b"], "")
        .refused("a label", "cannot patch resource");
    let args = ["delete", "validatingadmissionpolicy", "agentforge-protected-namespaces"];
    api.kubectl_as(MANAGER, &args, "").refused("the policy itself", "cannot delete resource");
}

#[tokio::test]
async fn nobody_deletes_an_environment_or_what_a_site_has_not_sent_yet() {
    let Some(folders) = folders() else { return };
    let api = start_with_policies(&folders).await;
    for name in ["agentforge", "agentforge-staging", "argocd", "keda", "monitoring", "feature-old", "somebodys"] {
        made(&api, name);
    }
    let delete = |name: &str| api.kubectl(&["delete", "namespace", name, "--wait=false"], "");
    for name in ["agentforge", "agentforge-staging", "argocd", "keda", "monitoring"] {
        delete(name).refused(name, &format!("the namespace {name} is protected"));
    }
    // Kubernetes itself is asked first.
    delete("kube-system").refused("kube-system", "may not be deleted");
    ["feature-old", "somebodys"].iter().for_each(|name| drop(delete(name).ok(name)));

    // A whole site at once, as `kubectl delete -k` does it.
    let objects = placed("overlays/edge", &[]);
    api.apply("kubectl", &objects).unwrap();
    let said = api.kubectl(&["delete", "--wait=false", "-f", "-"], &stream(&objects));
    let claims: Vec<&Object> = objects.iter().filter(|o| o.kind() == "PersistentVolumeClaim").collect();
    assert!(claims.len() >= 2, "{}", claims.len());
    said.refused("a whole site", "the namespace agentforge-edge is protected");
    said.refused("a whole site", "agentforge-edge-retain is protected");
    claims.iter().for_each(|claim| said.refused("a whole site", &format!("claim {} is protected", claim.name())));
    let kept = |kind: &str| {
        let said = api.kubectl(
            &["-n", "agentforge-edge", "get", kind, "-o", "jsonpath={.items[*].metadata.deletionTimestamp}"],
            "",
        );
        said.ok(kind)
    };
    assert_eq!(kept("persistentvolumeclaim"), "");
    // What is meant is said first.
    let args =
        ["-n", "agentforge-edge", "annotate", "persistentvolumeclaim", "syncdaemon", "agentforge/may-be-deleted=true"];
    api.kubectl(&args, "").ok("the annotation");
    let args = ["-n", "agentforge-edge", "delete", "persistentvolumeclaim", "syncdaemon", "--wait=false"];
    api.kubectl(&args, "").ok("a claim that may be deleted");
}
