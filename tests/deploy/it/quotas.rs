//! The maximum requests of an environment fit into its quota: all autoscalers at their maximum, every pod of each
//! deployment being replaced, and the checks.

use crate::manifests::{OVERLAYS, Object, find, jobs, overlay, seek, texts};
use agentforge_governance::manifests::quota;
pub use agentforge_governance::manifests::quota::Pods;
use agentforge_harness::require;
use serde_json::Value;

/// A quantity of Kubernetes as a number: cores, bytes or a count.
pub fn quantity(text: &str) -> f64 {
    quota::quantity(text).unwrap_or_else(|| panic!("{text} is no quantity"))
}

/// Pods of a workload at most while all of it is replaced.
pub fn pods(objects: &[Object], workload: &Object) -> Pods {
    quota::pods(objects, workload).unwrap()
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
        let mut sum = quota::demand(&objects).unwrap();
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
    for name in ["staging", "production", "azure-staging", "azure-production"] {
        let objects = overlay(name);
        for scaler in objects.iter().filter(|o| o.kind() == "HorizontalPodAutoscaler") {
            let budget = find(&objects, "PodDisruptionBudget", scaler.name());
            assert_eq!(*budget.at("/spec/maxUnavailable"), 1, "{name} {}", scaler.name());
            let deployment = find(&objects, "Deployment", scaler.name());
            assert_eq!(*deployment.at("/spec/strategy/rollingUpdate/maxUnavailable"), 0, "{name} {}", scaler.name());
        }
    }
}
