//! Every pod keeps to the restricted Pod Security Standard and to our own rules on top of it.

use crate::manifests::{
    OVERLAYS, Object, containers, environment, jobs, list, overlay, pod_labels, seek, selects, texts, workloads,
};
use agentforge_governance::manifests::pods::unrestricted;
use agentforge_harness::require;
use serde_json::{Value, json};

/// Pods of the image of somebody else, which has a user of its own.
const FOREIGN: [&str; 1] = ["postgres"];

fn each(check: impl Fn(&str, &[Object], &Object)) {
    for name in OVERLAYS {
        let objects = [overlay(name), jobs()].concat();
        for workload in workloads(&objects) {
            check(&format!("{name}: {} {}", workload.kind(), workload.name()), &objects, workload);
        }
    }
}

#[test]
fn every_pod_is_restricted() {
    let Some(()) = require("kubectl") else { return };
    for name in OVERLAYS {
        let wrong = unrestricted(&[overlay(name), jobs()].concat());
        assert!(wrong.is_empty(), "{name}: {wrong:?}");
    }
    // Ours are stricter than that.
    each(|place, _, workload| {
        let pod = workload.at("/spec/template/spec");
        let user = if FOREIGN.contains(&workload.name()) { 999 } else { 1001 };
        let security = &pod["securityContext"];
        assert_eq!((&security["runAsUser"], &security["runAsGroup"]), (&json!(user), &json!(user)), "{place}");
        assert_eq!(pod["initContainers"], Value::Null, "{place}");
        for container in containers(workload) {
            let expected = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}});
            assert_eq!(container["securityContext"], expected, "{place}");
        }
        assert_eq!(pod["enableServiceLinks"], false, "{place}: variables of neighbours are no settings");
    });
}

#[test]
fn every_service_is_probed_spread_and_given_the_time_to_drain() {
    let Some(()) = require("kubectl") else { return };
    each(|place, objects, workload| {
        if workload.kind() == "Job" {
            assert!(workload.at("/spec/activeDeadlineSeconds").is_u64(), "{place}");
            return;
        }
        for container in containers(workload) {
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                assert!(container[probe].is_object(), "{place}: {probe}");
            }
        }
        let template = workload.at("/spec/template");
        assert!(
            selects(workload.at("/spec/selector"), &pod_labels(workload)),
            "{place}: it would not find its own pods"
        );
        let env = environment(objects, workload, &containers(workload)[0]);
        let grace = template["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        if env.contains_key("ENV") {
            let seconds = |key: &str, default: u64| {
                env.get(key).map_or(default, |v| {
                    v.trim_end_matches('s').parse().unwrap_or_else(|_| panic!("{place}: {key}={v}"))
                })
            };
            assert!(grace > seconds("SHUTDOWN_PAUSE", 3) + seconds("SHUTDOWN_GRACE", 25), "{place}: {grace}");
        }
        let may_be_many =
            workload.text("/spec/strategy/type") == "RollingUpdate" || workload.at("/spec/replicas").as_u64() > Some(1);
        if may_be_many {
            let spread = list(&template["spec"]["topologySpreadConstraints"]);
            assert!(!spread.is_empty(), "{place}: nothing spreads its pods");
            assert!(spread.iter().all(|s| selects(&s["labelSelector"], &pod_labels(workload))), "{place}");
        }
    });
}

#[test]
fn a_volume_that_is_mounted_is_there_and_one_that_is_there_is_mounted() {
    let Some(()) = require("kubectl") else { return };
    each(|place, objects, workload| {
        let claims =
            workload.list("/spec/volumeClaimTemplates").iter().map(|c| c["metadata"]["name"].as_str().unwrap());
        let volumes = workload.list("/spec/template/spec/volumes");
        let mut there: Vec<_> = volumes.iter().map(|v| v["name"].as_str().unwrap()).chain(claims).collect();
        let mounts = containers(workload).iter().flat_map(|c| list(&c["volumeMounts"]));
        let mut mounted: Vec<_> = mounts.map(|m| m["name"].as_str().unwrap()).collect();
        there.sort_unstable();
        mounted.sort_unstable();
        assert_eq!(there, mounted, "{place}");
        for volume in volumes {
            for (kind, of) in [("configMap", "ConfigMap"), ("persistentVolumeClaim", "PersistentVolumeClaim")] {
                let name = volume[kind]["name"].as_str().or(volume[kind]["claimName"].as_str());
                if let Some(name) = name {
                    assert!(crate::manifests::seek(objects, of, name).is_some(), "{place}: there is no {of} {name}");
                }
            }
        }
    });
}

#[test]
fn who_reads_a_secret_of_a_vault_mounts_it() {
    let Some(()) = require("kubectl") else { return };
    for name in ["azure-feature", "azure-staging", "azure-production"] {
        assert!(overlay(name).iter().any(|o| o.kind() == "SecretProviderClass"), "{name}");
    }
    each(|place, objects, workload| {
        for class in objects.iter().filter(|o| o.kind() == "SecretProviderClass") {
            let makes = |name: &Value| class.list("/spec/secretObjects").iter().any(|made| made["secretName"] == *name);
            let mut variables = containers(workload).iter().flat_map(|c| list(&c["env"]));
            let reads = variables.any(|env| makes(&env["valueFrom"]["secretKeyRef"]["name"]));
            let mut volumes = workload.list("/spec/template/spec/volumes").iter();
            let mounts = volumes.any(|v| v["csi"]["volumeAttributes"]["secretProviderClass"] == class.name());
            // The driver makes the Secret for a pod that mounts its class, and takes it away with the last one.
            assert_eq!(reads, mounts, "{place} and the Secret of {}", class.name());
            let identity = pod_labels(workload).get("azure.workload.identity/use").is_some_and(|v| v == "true");
            let account = seek(objects, "ServiceAccount", workload.text("/spec/template/spec/serviceAccountName"));
            let annotations = account.map(|a| texts(a.at("/metadata/annotations"))).unwrap_or_default();
            let is_known = identity && annotations.contains_key("azure.workload.identity/client-id");
            assert!(!mounts || is_known, "{place} has no identity for the vault");
        }
    });
}
