//! Argo CD's configuration: applications, the project's limits, the order of syncs, and what it ignores.

use crate::environments::images;
use crate::manifests::{OVERLAYS, Object, find, list, overlay, render, workloads};
use agentforge_harness::require;
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[test]
fn what_is_autoscaled_says_no_number_and_argo_leaves_it_alone() {
    let Some(()) = require("kubectl") else { return };
    for name in OVERLAYS {
        let objects = overlay(name);
        let targets = objects.iter().filter(|o| ["HorizontalPodAutoscaler", "ScaledObject"].contains(&o.kind()));
        for target in targets.map(|o| o.text("/spec/scaleTargetRef/name")) {
            assert_eq!(*find(&objects, "Deployment", target).at("/spec/replicas"), Value::Null, "{name} {target}");
        }
    }
    let argo = [render("k8s/argocd"), render("k8s/argocd/site")].concat();
    for (name, namespace) in
        [("staging", "agentforge-staging"), ("production", "agentforge"), ("edge", "agentforge-edge")]
    {
        let app = find(&argo, "Application", &format!("agentforge-{name}"));
        assert_eq!(
            (app.text("/spec/source/path"), app.text("/spec/destination/namespace")),
            (&*format!("overlays/{name}"), namespace)
        );
        assert_eq!(*app.at("/spec/syncPolicy/automated"), json!({"prune": true, "selfHeal": true}));
        assert_eq!(
            *app.at("/spec/syncPolicy/retry"),
            json!({"limit": 5, "backoff": {"duration": "10s", "factor": 2, "maxDuration": "3m"}})
        );
        assert_eq!(*app.at("/spec/revisionHistoryLimit"), 10);
        let is_scaled = overlay(name).iter().any(|o| o.kind() == "HorizontalPodAutoscaler");
        let mut options = vec!["ServerSideApply=true", "PruneLast=true"];
        options.extend(is_scaled.then_some("RespectIgnoreDifferences=true"));
        let told: BTreeSet<_> = app.list("/spec/syncPolicy/syncOptions").iter().map(|o| o.as_str().unwrap()).collect();
        assert_eq!(told, BTreeSet::from_iter(options), "{name}");
        let ignored: Vec<_> =
            app.list("/spec/ignoreDifferences").iter().map(|i| (&i["kind"], &i["jsonPointers"])).collect();
        let (kind, replicas) = (json!("Deployment"), json!(["/spec/replicas"]));
        assert_eq!(ignored, Vec::from_iter(is_scaled.then_some((&kind, &replicas))), "{name}");
    }
    // What a site has not sent yet is on its volumes and nowhere else.
    for claim in overlay("edge").iter().filter(|o| o.kind() == "PersistentVolumeClaim") {
        assert_eq!(claim.text("/metadata/annotations/argocd.argoproj.io~1sync-options"), "Prune=false");
    }
    let set = find(&argo, "ApplicationSet", "agentforge-feature");
    assert_eq!(set.text("/spec/template/spec/source/path"), "overlays/feature");
    // Every image of the overlay gets the branch's own commit.
    let given: BTreeSet<String> = set
        .list("/spec/template/spec/source/kustomize/images")
        .iter()
        .map(|image| image.as_str().unwrap().split('=').next().unwrap().replace("agentforge/", ""))
        .collect();
    let ours =
        overlay("feature").iter().flat_map(images).filter(|i| i.contains("agentforge/")).collect::<BTreeSet<_>>();
    let ours: BTreeSet<String> =
        ours.iter().map(|i| i.rsplit('/').next().unwrap().split(':').next().unwrap().to_owned()).collect();
    assert_eq!(given, ours);
}

#[test]
fn argos_projects_allow_what_the_overlays_make_and_nothing_else() {
    let Some(()) = require("kubectl") else { return };
    let (ours, site): (Vec<&str>, Vec<&str>) = OVERLAYS.into_iter().partition(|name| *name != "edge");
    let places = ["agentforge", "agentforge-staging", "feature-*"];
    project_allows("k8s/argocd", "agentforge", &ours, &places);
    project_allows("k8s/argocd/site", "agentforge-edge", &site, &["agentforge-edge"]);
}

fn project_allows(root: &str, project: &str, overlays: &[&str], places: &[&str]) {
    let argo = render(root);
    let project = find(&argo, "AppProject", project);
    let allowed = |pointer: &str| -> BTreeSet<(String, String)> {
        let pair = |v: &Value| (v["group"].as_str().unwrap().to_owned(), v["kind"].as_str().unwrap().to_owned());
        project.list(pointer).iter().map(pair).collect()
    };
    let (mut cluster, mut namespaced) = (BTreeSet::new(), BTreeSet::new());
    for object in overlays.iter().flat_map(|name| overlay(name)) {
        let (group, _) = object.text("/apiVersion").split_once('/').unwrap_or_default();
        let kinds = if object.namespace().is_none() { &mut cluster } else { &mut namespaced };
        kinds.insert((group.to_owned(), object.kind().to_owned()));
    }
    assert_eq!(allowed("/spec/clusterResourceWhitelist"), cluster);
    assert_eq!(allowed("/spec/namespaceResourceWhitelist"), namespaced);
    let destinations = project.list("/spec/destinations").iter().map(|d| d["namespace"].as_str().unwrap());
    assert_eq!(destinations.collect::<Vec<_>>(), places);
}

#[test]
fn what_others_need_is_synced_before_them() {
    let Some(()) = require("kubectl") else { return };
    for name in OVERLAYS {
        let objects = overlay(name);
        let wave =
            |o: &Object| -> i32 { o.text("/metadata/annotations/argocd.argoproj.io~1sync-wave").parse().unwrap_or(0) };
        let of = |what: &str| {
            objects
                .iter()
                .find(|o| {
                    o.name() == what && workloads(&objects).iter().any(|w| w.name() == what && w.kind() == o.kind())
                })
                .map(wave)
        };
        let waves: Vec<i32> = ["postgres", "nats", "orchestrator", "worker"].into_iter().filter_map(of).collect();
        assert!(waves.windows(2).all(|w| w[0] < w[1]), "{name}: {waves:?}");
        let namespace = objects.iter().find(|o| o.kind() == "Namespace").map(wave).unwrap();
        assert!(namespace < 0 && waves[0] > 0, "{name}");
        // Degraded to Argo CD for as long as there is no Service, no metric of a pod or no stream: it would wait
        // forever.
        let last = workloads(&objects).into_iter().map(wave).max().unwrap();
        let leans = ["HTTPRoute", "HorizontalPodAutoscaler", "ScaledObject"];
        for object in objects.iter().filter(|o| leans.contains(&o.kind())) {
            assert!(wave(object) > last, "{name}: {} {}", object.kind(), object.name());
        }
        // What a pod cannot start without is there with it or before.
        for workload in workloads(&objects) {
            let pod = workload.at("/spec/template/spec");
            let account = pod["serviceAccountName"].as_str().map(|account| ("ServiceAccount", account));
            let volumes = list(&pod["volumes"]).iter().filter_map(|v| {
                let claim = v["persistentVolumeClaim"]["claimName"].as_str().map(|n| ("PersistentVolumeClaim", n));
                let class = v["csi"]["volumeAttributes"]["secretProviderClass"].as_str();
                claim.or(class.map(|n| ("SecretProviderClass", n)))
            });
            for (kind, needed) in account.into_iter().chain(volumes) {
                let first = wave(find(&objects, kind, needed));
                assert!(first <= wave(workload), "{name}: {} needs {kind} {needed}", workload.name());
            }
        }
    }
}
