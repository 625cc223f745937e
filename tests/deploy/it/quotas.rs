//! The maximum requests of an environment fit into its quota: all autoscalers at their maximum, every pod of each
//! deployment being replaced, and the checks.

use crate::manifests::{OVERLAYS, Object, containers, find, jobs, overlay, seek, texts, workloads};
use agentforge_harness::require;
use serde_json::Value;
use std::collections::BTreeMap;

/// A quantity of Kubernetes as a number: cores, bytes or a count.
pub fn quantity(text: &str) -> f64 {
    let units = [("Ki", 1024.0), ("Mi", 1048576.0), ("Gi", 1073741824.0), ("Ti", 1099511627776.0), ("m", 0.001)];
    let unit = units.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)));
    let (number, unit) = unit.unwrap_or((text, 1.0));
    number.parse::<f64>().unwrap_or_else(|_| panic!("{text} is no quantity")) * unit
}

/// Pods of a workload at most while all of it is replaced.
pub struct Pods {
    pub running: u64,
    /// That a rollout adds.
    pub more: u64,
    /// That end while their successors run: a quota counts them until they are gone.
    pub ending: u64,
}

pub fn pods(objects: &[Object], workload: &Object) -> Pods {
    let scaled = |o: &&Object| {
        ["HorizontalPodAutoscaler", "ScaledObject"].contains(&o.kind())
            && o.text("/spec/scaleTargetRef/name") == workload.name()
    };
    let highest = objects.iter().find(scaled).map(|o| {
        let field = if o.kind() == "ScaledObject" { "/spec/maxReplicaCount" } else { "/spec/maxReplicas" };
        o.at(field).as_u64().unwrap()
    });
    let running = highest.or(workload.at("/spec/replicas").as_u64()).unwrap_or(1);
    match (workload.kind(), workload.text("/spec/strategy/type")) {
        ("Deployment", "RollingUpdate") => {
            let more =
                workload.at("/spec/strategy/rollingUpdate/maxSurge").as_u64().expect("a number of pods, not a share");
            Pods { running, more, ending: running.saturating_sub(more) }
        }
        // Their successors are made when they are gone.
        _ => Pods { running, more: 0, ending: 0 },
    }
}

#[test]
fn the_most_that_is_asked_for_fits_the_quota() {
    let Some(()) = require("kubectl") else { return };
    for name in OVERLAYS {
        let objects = [overlay(name), jobs()].concat();
        let Some(quota) = seek(&objects, "ResourceQuota", "agentforge") else {
            assert_eq!(name, "edge", "only a site has no quota");
            continue;
        };
        let mut sum: BTreeMap<String, f64> = BTreeMap::new();
        for workload in workloads(&objects) {
            let Pods { running, more, ending } = pods(&objects, workload);
            let claims = running as f64;
            let pods = (running + more + ending) as f64;
            *sum.entry("pods".into()).or_default() += pods;
            for container in containers(workload) {
                for kind in ["requests", "limits"] {
                    for (what, amount) in texts(&container["resources"][kind]) {
                        *sum.entry(format!("{kind}.{what}")).or_default() += pods * quantity(&amount);
                    }
                }
            }
            for claim in workload.list("/spec/volumeClaimTemplates") {
                let storage = claim.pointer("/spec/resources/requests/storage").unwrap().as_str().unwrap();
                *sum.entry("requests.storage".into()).or_default() += claims * quantity(storage);
            }
        }
        // Each change of settings is another ConfigMap, and an apply does not prune: no number of them is enough.
        assert_eq!(*quota.at("/spec/hard/count~1configmaps"), Value::Null, "{name}");
        sum.insert("count/secrets".into(), crate::manifests::secrets().len() as f64);
        for (what, most) in texts(quota.at("/spec/hard")) {
            let needed = sum.get(&what).unwrap_or_else(|| panic!("{name}: {what} is not counted here"));
            assert!(*needed <= quantity(&most) + 1e-9, "{name}: {what}: {needed} is asked for, {most} is allowed");
        }
    }
}

#[test]
fn an_upgrade_never_takes_the_last_pod_away() {
    let Some(()) = require("kubectl") else { return };
    for name in ["staging", "production", "azure-production"] {
        let objects = overlay(name);
        for scaler in objects.iter().filter(|o| o.kind() == "HorizontalPodAutoscaler") {
            let budget = find(&objects, "PodDisruptionBudget", scaler.name());
            assert_eq!(*budget.at("/spec/maxUnavailable"), 1, "{name} {}", scaler.name());
            let deployment = find(&objects, "Deployment", scaler.name());
            assert_eq!(*deployment.at("/spec/strategy/rollingUpdate/maxUnavailable"), 0, "{name} {}", scaler.name());
        }
    }
}
