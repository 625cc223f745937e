//! What makes pods out of what is applied, and runs them: Kubernetes' own controllers and scheduler, and nodes of kwok,
//! which say of every pod that it runs, as `stages.yaml` has it.
//!
//! No container runs, no probe is asked, no Secret is read, and no metric scales anything.

use super::api::{Api, Said, stream};
use super::branches::start_with_policies;
use super::folders_with_controllers;
use crate::manifests::{Object, root};
use agentforge_harness::{Proc, eventually, program};
use serde_json::{Value, json};
use std::ops::Deref;
use std::process::Command;
use std::time::Duration;

/// For one step of controllers, on a busy machine.
pub const STEP: Duration = Duration::from_secs(240);
/// Nodes, each of a zone of its own, with room for every environment.
pub const NODES: [&str; 3] = ["node-a", "node-b", "node-c"];
/// Volumes that are there beforehand, of each storage class.
const VOLUMES: usize = 12;

/// A cluster with our policies in it.
pub struct Cluster {
    // Fields are dropped in this order: the API last.
    parts: [Proc; 3],
    api: Api,
}

impl Deref for Cluster {
    type Target = Api;
    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Cluster {
    /// Starts one, or says why not.
    pub async fn start() -> Option<Self> {
        let (folders, programs) = folders_with_controllers()?;
        let api = start_with_policies(&folders).await;
        let file = |name: &str| api.file(name);
        let kubeconfig = format!("--kubeconfig={}", file("kubeconfig"));
        std::fs::write(file("stages.yaml"), include_str!("stages.yaml")).unwrap();
        let part = |name: &str| Proc::builder(programs.join(name)).env("HOME", file("")).arg(&kubeconfig);
        let manager = part("kube-controller-manager")
            .args(["--leader-elect=false", "--secure-port=0", "--kube-api-qps=200", "--kube-api-burst=400"])
            .args(["--horizontal-pod-autoscaler-sync-period=2s", "--pvclaimbinder-sync-period=2s"])
            .args([
                format!("--service-account-private-key-file={}", file("accounts.key")),
                format!("--root-ca-file={}", file("certificates/apiserver.crt")),
            ])
            .start();
        let scheduler = part("kube-scheduler").args(["--leader-elect=false", "--secure-port=0"]).start();
        let kwok = part("kwok")
            .args(["--manage-all-nodes=true", "--node-ip=127.0.0.1", "--cidr=10.64.0.1/16"])
            .args(["--node-lease-duration-seconds=40".to_owned(), format!("--config={}", file("stages.yaml"))])
            .start();
        let mut cluster = Self { parts: [kwok, scheduler, manager], api };
        cluster.kubectl(&["create", "-f", "-"], &stream(&[nodes(), volumes()].concat())).ok("nodes and volumes");
        eventually(STEP, "nodes take pods", || {
            for part in &mut cluster.parts {
                assert!(part.is_running(), "it ended at its start:\n{}", part.log());
            }
            let said = cluster.api.kubectl(&["get", "node", "-o", "jsonpath={.items[*].spec.taints}"], "");
            let account = cluster.api.kubectl(&["-n", "default", "get", "serviceaccount", "default"], "");
            async move {
                if said.is_done && said.out.is_empty() && account.is_done {
                    Ok(())
                } else {
                    Err(said.out + &account.err)
                }
            }
        })
        .await;
        Some(cluster)
    }

    /// What a kind is in a namespace.
    pub fn list(&self, namespace: &str, kind: &str) -> Vec<Object> {
        let said = self.kubectl(&["-n", namespace, "get", kind, "-o", "json"], "");
        let found: Value = serde_json::from_str(&said.ok(kind)).unwrap();
        found["items"].as_array().unwrap().iter().cloned().map(Object).collect()
    }

    /// A line of shell with the scripts' functions for a rollout, in a namespace.
    pub fn rollout_script(&self, namespace: &str, line: &str) -> Said {
        let kubectl = program("kubectl").unwrap();
        let path = format!("{}:{}", kubectl.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let line = format!("set -euo pipefail; . scripts/cluster-rollout.sh; {line}");
        let out = Command::new("bash")
            .args(["-c", &line])
            .current_dir(root())
            .env("NS", namespace)
            .env("ROLLOUT_TIMEOUT", STEP.as_secs().to_string())
            .env("KUBECONFIG", self.file("kubeconfig"))
            .env("PATH", path)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { is_done: out.status.success(), out: text(&out.stdout), err: text(&out.stderr) }
    }

    /// Waits until all that is applied there runs, as the scripts do it.
    #[track_caller]
    pub fn await_rollouts(&self, namespace: &str) {
        let said = self.rollout_script(namespace, "await_rollouts");
        assert!(said.is_done, "{namespace}: {}{}", said.out, said.err);
    }

    /// Every pod runs and is ready, but for those of Jobs.
    pub fn not_ready(&self, namespace: &str) -> Vec<String> {
        let pods = self.list(namespace, "pod");
        let of_job = |pod: &Object| pod.list("/metadata/ownerReferences").iter().any(|owner| owner["kind"] == "Job");
        pods.iter().filter(|pod| !of_job(pod) && !is_ready(pod)).map(|pod| pod.name().to_owned()).collect()
    }
}

/// Whether a pod is ready and stays.
pub fn is_ready(pod: &Object) -> bool {
    let is_true = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    pod.at("/metadata/deletionTimestamp").is_null() && pod.list("/status/conditions").iter().any(is_true)
}

fn nodes() -> Vec<Object> {
    let node = |name: &&str| {
        let room = json!({"cpu": "32", "memory": "64Gi", "pods": "110", "ephemeral-storage": "500Gi"});
        Object(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {
                "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-of-{name}"),
                "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            }},
            "status": {"allocatable": room, "capacity": room},
        }))
    };
    NODES.iter().map(node).collect()
}

/// Of no class and of a site's: what a provisioner would make.
fn volumes() -> Vec<Object> {
    let volume = |class: &str, n: usize| {
        Object(json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": format!("volume{}-{n}", class.replace("agentforge", ""))},
            "spec": {
                "capacity": {"storage": "100Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": format!("/volumes/{n}")},
            },
        }))
    };
    ["", "agentforge-edge-retain"].iter().flat_map(|class| (0..VOLUMES).map(move |n| volume(class, n))).collect()
}
