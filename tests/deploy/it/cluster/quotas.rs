//! Quotas and Pod Security, as the API server enforces them: the pods of an environment at its largest are admitted.
//!
//! Without controllers nothing counts what was there before, so a test says that nothing was; from then on the server
//! counts.

use super::api::{Api, stream};
use super::apply::placed;
use super::folders;
use crate::manifests::{Object, jobs, seek, texts, workloads};
use crate::quotas::{Pods, pods};
use serde_json::{Value, json};

/// Does what controllers do once in a new namespace: its default account, and a count of what its quotas limit, which is
/// nothing yet.
pub fn count_from_now(api: &Api, namespace: &str) {
    api.kubectl(&["-n", namespace, "create", "serviceaccount", "default"], "").ok("the default account");
    let found = api.kubectl(&["-n", namespace, "get", "resourcequota", "-o", "json"], "").ok("quotas");
    let found: Value = serde_json::from_str(&found).unwrap();
    for quota in found["items"].as_array().unwrap() {
        let hard = &quota["spec"]["hard"];
        let used: serde_json::Map<String, Value> = texts(hard).into_keys().map(|key| (key, json!("0"))).collect();
        let status = json!({"status": {"hard": hard, "used": used}}).to_string();
        let name = quota["metadata"]["name"].as_str().unwrap();
        let patch =
            ["-n", namespace, "patch", "resourcequota", name, "--subresource=status", "--type=merge", "-p", &status];
        api.kubectl(&patch, "").ok("the quota's status");
    }
}

/// A pod of a workload, as its controller would make it.
fn pod(workload: &Object, name: &str) -> Object {
    let mut pod = workload.at("/spec/template").clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = json!(workload.namespace().unwrap());
    let claims = workload.list("/spec/volumeClaimTemplates").iter().map(|claim| {
        let claim = &claim["metadata"]["name"];
        json!({"name": claim, "persistentVolumeClaim": {"claimName": format!("{}-{name}", claim.as_str().unwrap())}})
    });
    let volumes = [pod["spec"]["volumes"].as_array().cloned().unwrap_or_default(), claims.collect()].concat();
    pod["spec"]["volumes"] = json!(volumes);
    Object(pod)
}

#[tokio::test]
async fn the_largest_environment_is_admitted_while_all_of_it_is_replaced() {
    let Some(folders) = folders() else { return };
    let api = Api::start(&folders).await;
    for (folder, namespace) in [
        ("overlays/feature", "feature-some-branch"),
        ("overlays/staging", "agentforge-staging"),
        ("overlays/production", "agentforge"),
        ("overlays/edge", "agentforge-edge"),
    ] {
        let objects = placed(folder, &[]);
        api.apply("kubectl", &objects).unwrap();
        let quota = seek(&objects, "ResourceQuota", "agentforge");
        count_from_now(&api, namespace);
        let mut checks = jobs();
        checks.iter_mut().for_each(|job| job.0["metadata"]["namespace"] = json!(namespace));
        let all = [objects.clone(), if quota.is_some() { checks } else { Vec::new() }].concat();
        let mut made = Vec::new();
        for workload in workloads(&all) {
            let Pods { running, more, ending } = pods(&all, workload);
            let names = (0..running + more + ending).map(|n| format!("{}-{n}", workload.name()));
            made.extend(names.map(|name| pod(workload, &name)));
        }
        assert!(made.len() > 5, "{folder}: {}", made.len());
        let said = api.kubectl(&["create", "-f", "-"], &stream(&made));
        said.ok(&format!("{folder}: {} pods", made.len()));
        // And the server does count.
        let Some(quota) = quota else { continue };
        let name = quota.name();
        let used = api.kubectl(&["-n", namespace, "get", "resourcequota", name, "-o", "jsonpath={.status.used}"], "");
        let used: Value = serde_json::from_str(&used.ok("what is used")).unwrap();
        assert_ne!(used["requests.cpu"], "0", "{folder}: {used}");
        let mut large = made.pop().unwrap();
        large.0["metadata"]["name"] = json!("one-too-large");
        large.0["spec"]["containers"][0]["resources"] = json!({
            "requests": {"cpu": "100", "memory": "1Gi"}, "limits": {"cpu": "100", "memory": "1Gi"},
        });
        let large = [large];
        api.kubectl(&["create", "-f", "-"], &stream(&large)).refused("a pod of 100 cores", "exceeded quota");
    }
}

#[tokio::test]
async fn a_pod_that_is_not_restricted_is_refused_in_every_environment() {
    let Some(folders) = folders() else { return };
    let api = Api::start(&folders).await;
    for (folder, service) in
        [("overlays/feature", "worker"), ("overlays/production", "worker"), ("overlays/edge", "worker")]
    {
        let objects = placed(folder, &[]);
        api.apply("kubectl", &objects).unwrap();
        let namespace = objects.iter().find_map(Object::namespace).unwrap().to_owned();
        count_from_now(&api, &namespace);
        let worker = seek(&objects, "Deployment", service).unwrap();
        let good = [pod(worker, "as-it-is")];
        api.kubectl(&["create", "-f", "-"], &stream(&good)).ok(folder);
        let mut bad = pod(worker, "privileged");
        bad.0["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
        let bad = [bad];
        api.kubectl(&["create", "-f", "-"], &stream(&bad))
            .refused(folder, "violates PodSecurity \"restricted:latest\"");
    }
}
