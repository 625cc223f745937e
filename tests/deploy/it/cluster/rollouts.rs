//! What happens to pods while an environment changes: a version that never starts, a rollback, settings that are cleared
//! away, a replacement of everything at full size, and a drain.

use super::api::stream;
use super::apply::placed;
use super::controllers::{Cluster, NODES, STEP, is_ready};
use crate::manifests::{Object, jobs, parse, root, texts, workloads};
use crate::quotas::pods;
use agentforge_harness::{Proc, eventually, program};
use serde_json::json;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

const STAGING: &str = "agentforge-staging";
/// A run of the gate: rollouts, and its checks.
const RUN: Duration = Duration::from_secs(400);

/// A commit's tree, as far as the gate reads it; with another setting and another tag of our services if one is named.
fn tree(tag: Option<&str>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["scripts", "k8s", "overlays"] {
        let copied = Command::new("cp").arg("-r").arg(root().join(folder)).arg(dir.path()).status().unwrap();
        assert!(copied.success());
    }
    if let Some(tag) = tag {
        let file = dir.path().join("overlays/staging/kustomization.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        let mut image = "";
        let lines = text.lines().map(|line| {
            image = line.strip_prefix("  - name: agentforge/").unwrap_or(image);
            match line.split_once("newTag: ") {
                Some((start, _)) if !image.starts_with("nats-server") => format!("{start}newTag: {tag}\n"),
                _ => format!("{line}\n").replace("ENV=staging", "ENV=staging\n      - OTEL_SERVICE_NAME=changed"),
            }
        });
        let changed: String = lines.collect();
        assert!(changed.contains(tag) && changed.contains("=changed"), "{changed}");
        std::fs::write(file, changed).unwrap();
    }
    dir
}

/// Runs the gate of a tree. Nothing serves KEDA's metric here, so only that is answered in its place.
async fn gate(cluster: &Cluster, tree: &tempfile::TempDir, timeout: &str) -> (i32, String) {
    let kubectl = tree.path().join("kubectl");
    let text = format!(
        "#!/usr/bin/env bash\ncase \"$*\" in\n*external.metrics*) echo '{{\"items\":[{{\"value\":\"42\"}}]}}' ;;\n*) exec {} \"$@\" ;;\nesac\n",
        program("kubectl").unwrap().display()
    );
    std::fs::write(&kubectl, text).unwrap();
    std::fs::set_permissions(&kubectl, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut script = Proc::builder(tree.path().join("scripts/run_staging_end_to_end.sh"))
        .env("PATH", format!("{}:{}", tree.path().display(), std::env::var("PATH").unwrap()))
        .env("KUBECONFIG", cluster.file("kubeconfig"))
        .env("ROLLOUT_TIMEOUT", timeout)
        .start();
    let code = script.wait(RUN).await;
    (code, script.full_log())
}

fn names(objects: &[Object], is_one: impl Fn(&Object) -> bool) -> BTreeSet<String> {
    objects.iter().filter(|o| is_one(o)).map(|o| o.name().to_owned()).collect()
}

/// The generated settings that exist, and those that pods and former versions of workloads name.
fn settings(cluster: &Cluster) -> (BTreeSet<String>, BTreeSet<String>) {
    let is_generated = |name: &str| name.starts_with("agentforge-env-") || name.starts_with("nats-config-");
    let there = names(&cluster.list(STAGING, "configmap"), |o| is_generated(o.name()));
    let text = stream(&cluster.list(STAGING, "pod,replicaset,controllerrevision"));
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    (there, words.filter(|word| is_generated(word)).map(str::to_owned).collect())
}

#[tokio::test]
async fn a_version_that_never_starts_passes_no_gate_and_breaks_nothing() {
    let Some(cluster) = Cluster::start().await else { return };
    let all = placed("overlays/staging", &[]);
    let namespace: Vec<Object> = all.iter().filter(|o| o.kind() == "Namespace").cloned().collect();
    cluster.apply("kubectl", &namespace).unwrap();
    let steps = STEP.as_secs().to_string();
    let (code, log) = gate(&cluster, &tree(None), &steps).await;
    assert_eq!(code, 0, "{log}");
    // The console and the topology have one pod at most: a version of theirs that does not start leaves none.
    let is_lasting =
        |pod: &Object| is_ready(pod) && !["console-", "topology-"].iter().any(|start| pod.name().starts_with(start));
    let serving = names(&cluster.list(STAGING, "pod"), is_lasting);
    let checks = |cluster: &Cluster| -> BTreeSet<String> {
        cluster.list(STAGING, "job").iter().map(|o| o.text("/metadata/uid").to_owned()).collect()
    };
    let checked = checks(&cluster);
    assert!(serving.len() > 6 && checked.len() == 2, "{serving:?} {checked:?}");

    let (code, log) = gate(&cluster, &tree(Some("never-starts")), "20").await;
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("does not run as it was applied") && log.contains("there is no such tag"), "{log}");
    assert_eq!(checks(&cluster), checked, "no check began");
    let left = names(&cluster.list(STAGING, "pod"), is_ready);
    assert!(serving.is_subset(&left), "what served does not serve any more: {serving:?}, now {left:?}");
    let (there, named) = settings(&cluster);
    assert!(named.is_subset(&there) && there.len() >= 2, "{there:?} are there, {named:?} are named");

    // Back, as the runbooks do it; and forward again to the version that works.
    for deployment in cluster.list(STAGING, "deployment") {
        let name = format!("deployment/{}", deployment.name());
        cluster.kubectl(&["-n", STAGING, "rollout", "undo", &name], "").ok(&name);
    }
    cluster.await_rollouts(STAGING);
    let pods = stream(&cluster.list(STAGING, "deployment"));
    assert!(!pods.contains("never-starts"), "{pods}");
    let (code, log) = gate(&cluster, &tree(None), &steps).await;
    assert_eq!(code, 0, "{log}");
}

#[tokio::test]
async fn settings_that_a_rollback_needs_are_not_cleared_away() {
    let Some(cluster) = Cluster::start().await else { return };
    let objects = placed("overlays/staging", &[]);
    cluster.apply("kubectl", &objects).unwrap();
    cluster.await_rollouts(STAGING);
    for n in 0..3 {
        let orphan = format!("agentforge-env-orphan{n}");
        cluster.kubectl(&["-n", STAGING, "create", "configmap", &orphan], "").ok(&orphan);
        cluster.apply("kubectl", &changed(&objects, n)).unwrap();
        cluster.await_rollouts(STAGING);
        cluster.rollout_script(STAGING, "prune_settings").ok("what nothing names");
        let (there, named) = settings(&cluster);
        assert_eq!(there, named, "change {n}: what is there, and what is named");
    }
    for deployment in cluster.list(STAGING, "deployment") {
        let name = format!("deployment/{}", deployment.name());
        cluster.kubectl(&["-n", STAGING, "rollout", "undo", "--to-revision=1", &name], "").ok(&name);
    }
    cluster.await_rollouts(STAGING);
    let pods = stream(&cluster.list(STAGING, "deployment"));
    assert!(!pods.contains("agentforge-env-change"), "{pods}");
    assert!(settings(&cluster).1.is_subset(&settings(&cluster).0));
}

/// The same with other settings: as generated, each of them is another object, and every pod is replaced.
fn changed(objects: &[Object], n: usize) -> Vec<Object> {
    let mut text = stream(objects);
    for start in ["agentforge-env-", "nats-config-"] {
        let generated = |o: &&Object| o.kind() == "ConfigMap" && o.name().starts_with(start);
        let name = objects.iter().find(generated).expect("the generated settings").name();
        text = text.replace(name, &format!("{start}change{n}"));
    }
    parse(&text).unwrap()
}

#[tokio::test]
async fn everything_is_replaced_at_full_size_within_the_quota() {
    let Some(cluster) = Cluster::start().await else { return };
    let refused = |namespace: &str| -> Vec<String> {
        let events = cluster.list(namespace, "event");
        let messages = events.iter().map(|event| event.text("/message").to_owned());
        messages.filter(|message| message.contains("exceeded quota")).collect()
    };
    for (folder, namespace) in [("overlays/staging", STAGING), ("overlays/production", "agentforge")] {
        let objects = placed(folder, &[]);
        cluster.apply("kubectl", &objects).unwrap();
        cluster.await_rollouts(namespace);
        let mut most = 0;
        for workload in workloads(&objects).into_iter().filter(|w| w.kind() == "Deployment") {
            let running = pods(&objects, workload).running;
            most += running;
            let args = ["-n", namespace, "scale", "deployment", workload.name(), &format!("--replicas={running}")];
            cluster.kubectl(&args, "").ok(workload.name());
        }
        cluster.await_rollouts(namespace);
        let running = cluster.list(namespace, "pod").len() as u64;
        assert!(running >= most, "{folder}: {running} pods run, of deployments {most}");

        // While the checks run.
        let mut checks = jobs();
        checks.iter_mut().for_each(|job| job.0["metadata"]["namespace"] = json!(namespace));
        cluster.apply("kubectl", &[changed(&objects, 1), checks].concat()).unwrap();
        cluster.await_rollouts(namespace);
        assert_eq!(refused(namespace), Vec::<String>::new(), "{folder}");
        let old =
            cluster.list(namespace, "pod").into_iter().filter(|pod| pod.at("/metadata/deletionTimestamp").is_null());
        let old: Vec<_> =
            old.filter(|pod| objects.iter().any(|o| o.kind() == "ConfigMap" && names_it(pod, o))).collect();
        assert!(old.is_empty(), "{folder}: {} pods have the former settings", old.len());
    }
    // A quota of what runs, without what is added and what ends, is too small: the check does see it.
    let quota = || cluster.list(STAGING, "resourcequota").remove(0);
    eventually(STEP, "all former pods are gone", || {
        let running = cluster.list(STAGING, "pod").iter().filter(|pod| is_ready(pod)).count();
        let used = texts(quota().at("/status/used"))["pods"].clone();
        async move { if used == running.to_string() { Ok(()) } else { Err(format!("{used} counted, {running} run")) } }
    })
    .await;
    let used = texts(quota().at("/status/used"))["pods"].clone();
    let small = json!({"spec": {"hard": {"pods": used}}}).to_string();
    cluster.kubectl(&["-n", STAGING, "patch", "resourcequota", quota().name(), "-p", &small], "").ok("a small quota");
    let next = changed(&placed("overlays/staging", &[]), 2);
    let rest: Vec<Object> = next.into_iter().filter(|o| o.kind() != "ResourceQuota").collect();
    cluster.apply("kubectl", &rest).unwrap();
    eventually(STEP, "a pod is refused", || {
        let is_seen = !refused(STAGING).is_empty();
        async move { is_seen }
    })
    .await;
}

/// Whether a pod takes its environment from these settings.
fn names_it(pod: &Object, settings: &Object) -> bool {
    settings.name().starts_with("agentforge-env-") && pod.0.to_string().contains(settings.name())
}

#[tokio::test]
async fn a_node_is_drained_while_no_pod_of_a_service_is_healthy() {
    let Some(cluster) = Cluster::start().await else { return };
    let space = "agentforge";
    cluster.apply("kubectl", &placed("overlays/production", &[])).unwrap();
    cluster.await_rollouts(space);
    let pods_of = |service: &str| -> Vec<Object> {
        let pods = cluster.list(space, "pod");
        pods.into_iter().filter(|pod| pod.text("/metadata/labels/app.kubernetes.io~1name") == service).collect()
    };
    // As kubelets say it when a readiness probe fails.
    let unready = |pods: &[Object]| {
        let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}).to_string();
        for pod in pods {
            cluster
                .kubectl(&["-n", space, "patch", "pod", pod.name(), "--subresource=status", "-p", &patch], "")
                .ok(pod.name());
        }
    };
    let healthy = async |service: &str, wanted: i64| {
        let args = ["-n", space, "get", "poddisruptionbudget", service, "-o", "jsonpath={.status.currentHealthy}"];
        eventually(STEP, "the budget counts the healthy", || {
            let said = cluster.kubectl(&args, "").ok("the budget");
            async move { if said == wanted.to_string() { Ok(()) } else { Err(said) } }
        })
        .await;
    };
    let drain = |node: &str, timeout: &str| {
        let timeout = format!("--timeout={timeout}");
        cluster.kubectl(&["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", &timeout], "")
    };
    for service in ["orchestrator", "tactical-api", "broadcaster", "worker"] {
        let pods = pods_of(service);
        assert!(!pods.is_empty(), "{service}");
        unready(&pods);
        healthy(service, 0).await;
        let node = pods[0].text("/spec/nodeName").to_owned();
        assert!(NODES.contains(&node.as_str()), "{node}");
        let said = drain(&node, "200s");
        assert!(said.is_done, "{service}: {}{}", said.out, said.err);
        let left = cluster.list(space, "pod").into_iter().filter(|pod| pod.text("/spec/nodeName") == node).count();
        assert_eq!(left, 0, "{service}: pods are still on {node}");
        cluster.kubectl(&["uncordon", &node], "").ok(&node);
        // The others of it stay as unhealthy as they are; new ones take their places.
        unready_are_replaced(&cluster, space, service).await;
    }
    // NATS keeps its majority: with one server away no other one is taken, healthy or not.
    let servers = pods_of("nats");
    assert_eq!(servers.len(), 3);
    unready(&servers[..1]);
    healthy("nats", 2).await;
    let node = servers[1].text("/spec/nodeName");
    drain(node, "15s").refused("a second server of NATS", "global timeout reached");
    cluster.kubectl(&["uncordon", node], "").ok(node);
    let is_left = pods_of("nats").iter().any(|pod| pod.text("/metadata/uid") == servers[1].text("/metadata/uid"));
    assert!(is_left, "it was evicted");
    // And without the policy a drain does not end.
    let patch = json!({"spec": {"unhealthyPodEvictionPolicy": "IfHealthyBudget"}}).to_string();
    let args = ["-n", space, "patch", "poddisruptionbudget", "orchestrator", "--type=merge", "-p", &patch];
    cluster.kubectl(&args, "").ok("the default policy");
    let pods = pods_of("orchestrator");
    unready(&pods);
    healthy("orchestrator", 0).await;
    let node = pods[0].text("/spec/nodeName").to_owned();
    drain(&node, "15s").refused("by the default policy", "global timeout reached");
}

/// Deletes what a test said is not ready, and waits for its successors.
async fn unready_are_replaced(cluster: &Cluster, space: &str, service: &str) {
    let label = format!("app.kubernetes.io/name={service}");
    cluster.kubectl(&["-n", space, "delete", "pod", "-l", &label, "--wait=false"], "").ok(service);
    cluster.await_rollouts(space);
    eventually(STEP, "all pods are ready", || {
        let left = cluster.not_ready(space);
        async move { if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) } }
    })
    .await;
}
