//! `manifests check` on trees that break one rule each, and on this repository's own overlays.

use super::support::{command, said};
use agentforge_harness::{program, require};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A tree that holds every rule: a base, an overlay, a policy.
const BASE: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, runAsUser: 1001, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: shop
          image: registry.internal/shop/api:1.0.0
          securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
          resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 200m, memory: 64Mi}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: shop, namespace: shop}
spec:
  podSelector: {matchLabels: {app: shop}}
  policyTypes: [Ingress, Egress]
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: shop, namespace: shop}
spec: {hard: {requests.cpu: 300m, pods: "3"}}
"#;

fn tree(home: &Path) -> PathBuf {
    let deploy = home.join("deploy");
    fs::create_dir_all(deploy.join("base")).unwrap();
    fs::create_dir_all(deploy.join("live")).unwrap();
    fs::write(deploy.join("base/kustomization.yaml"), "resources: [shop.yaml]\n").unwrap();
    fs::write(deploy.join("base/shop.yaml"), BASE).unwrap();
    fs::write(
        deploy.join("live/kustomization.yaml"),
        "resources: [../base]\npatches:\n  - path: patch.yaml\n    target: {kind: ResourceQuota}\n",
    )
    .unwrap();
    fs::write(deploy.join("live/patch.yaml"), "- op: add\n  path: /metadata/labels\n  value: {a: b}\n").unwrap();
    deploy
}

fn check(folder: &Path, words: &[&str]) -> super::support::Said {
    let home = folder.parent().unwrap();
    let mut command = command(home);
    command.args(["manifests", "check", folder.to_str().unwrap()]).args(words);
    said(command.env("AGENTFORGE_KUBECTL", program("kubectl").unwrap()).output().unwrap())
}

/// What is done to the tree, the rule that says so, and what it says.
type Case = (fn(&Path), &'static str, &'static str);

fn base(deploy: &Path, from: &str, to: &str) {
    assert!(BASE.contains(from), "{from}");
    fs::write(deploy.join("base/shop.yaml"), BASE.replacen(from, to, 1)).unwrap();
}

const CASES: &[Case] = &[
    (|d| fs::write(d.join("live/forgotten.yaml"), "a: b\n").unwrap(), "unreferenced-file", "forgotten.yaml"),
    (
        |d| {
            let patch = "- op: replace\n  path: /spec/template/spec/containers/0/name\n  value: api\n";
            fs::write(d.join("live/patch.yaml"), patch).unwrap();
            let live = fs::read_to_string(d.join("live/kustomization.yaml")).unwrap();
            fs::write(d.join("live/kustomization.yaml"), live.replace("ResourceQuota", "Deployment")).unwrap();
        },
        "patch-by-index",
        "live/patch.yaml:2",
    ),
    (|d| fs::remove_file(d.join("live/patch.yaml")).unwrap(), "missing-file", "live/kustomization.yaml:3"),
    (|d| base(d, "registry.internal/shop/api:1.0.0", "registry.internal/shop/api:latest"), "image", "has no fixed tag"),
    (|d| base(d, "shop/api:1.0.0", "shop/other:1.0.0"), "image", "is not built"),
    (|d| base(d, "runAsNonRoot: true, ", ""), "unrestricted", "runAsNonRoot"),
    (|d| base(d, "drop: [ALL]", "drop: [NET_RAW]"), "unrestricted", "capabilities"),
    (|d| base(d, "automountServiceAccountToken: false", "hostNetwork: true"), "unrestricted", "hostNetwork"),
    (
        |d| {
            base(
                d,
                "metadata: {name: shop, namespace: shop}\nspec:\n  replicas",
                "metadata: {name: shop, namespace: shop, annotations: {a: CHANGEME}}\nspec:\n  replicas",
            )
        },
        "placeholder",
        "CHANGEME",
    ),
    (|d| base(d, "requests.cpu: 300m", "requests.cpu: 50m"), "quota", "0.1 is asked for, 50m is allowed"),
    (
        |d| base(d, "matchLabels: {app: shop}}\n  policyTypes", "matchLabels: {app: other}}\n  policyTypes"),
        "network-policy",
        "no policy rules its ingress",
    ),
    (
        |d| base(d, "policyTypes: [Ingress, Egress]", "policyTypes: [Ingress, Egress]\n  ingress: [{from: []}]"),
        "network-policy",
        "for everybody",
    ),
    (
        |d| {
            base(
                d,
                "---\napiVersion: v1",
                "---\napiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: shop, namespace: shop}\nspec: {maxReplicas: 2, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}}\n---\napiVersion: v1",
            )
        },
        "scaled-with-replicas",
        "it has replicas",
    ),
    (
        |d| {
            base(
                d,
                "---\napiVersion: v1",
                "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: shop}\n---\napiVersion: v1",
            );
            fs::create_dir_all(d.join("next")).unwrap();
            fs::write(d.join("next/kustomization.yaml"), "resources: [../base]\n").unwrap();
        },
        "shared-name",
        "ClusterRole shop is in",
    ),
    (
        |d| {
            fs::write(
                d.join("live/kustomization.yaml"),
                "resources: [../base]\npatches:\n  - path: patch.yaml\n    target: {kind: [}\n",
            )
            .unwrap()
        },
        "",
        "kustomization.yaml:",
    ),
];

#[test]
fn each_rule_finds_what_breaks_it_and_nothing_else() {
    let Some(()) = require("kubectl") else { return };
    let ours = ["--image-prefix", "registry.internal/shop/", "--image", "api"];
    let home = tempfile::tempdir().unwrap();
    let ended = check(&tree(home.path()), &ours);
    assert_eq!((ended.code, ended.out.as_str()), (0, "1 environments, 0 faults\n"), "{ended:?}");
    for (change, rule, named) in CASES {
        let home = tempfile::tempdir().unwrap();
        let deploy = tree(home.path());
        change(&deploy);
        let ended = check(&deploy, &ours);
        let all = format!("{}{}", ended.out, ended.err);
        assert!(all.contains(named), "{rule}: {all}");
        assert_eq!(ended.code, if rule.is_empty() { 3 } else { 1 }, "{rule}: {all}");
        if !rule.is_empty() {
            assert!(ended.out.contains(&format!("[{rule}]")), "{rule}: {all}");
            let without = check(&deploy, &[&ours[..], &["--without", rule]].concat());
            let is_alone = without.code == 0 || *rule == "missing-file";
            assert!(is_alone, "more than {rule}: {without:?}");
        }
    }
}

#[test]
fn rendered_files_are_checked_without_kubectl() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("all.yaml"), BASE.replace("api:1.0.0", "api:latest")).unwrap();
    let ended =
        said(command(home.path()).args(["manifests", "check", "all.yaml", "--kubectl", "none"]).output().unwrap());
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.out.contains("[image]"), "{}", ended.out);
    fs::write(home.path().join("all.yaml"), BASE).unwrap();
    assert_eq!(said(command(home.path()).args(["manifests", "check", "all.yaml"]).output().unwrap()).code, 0);
}
