//! What Argo CD is told: applications, the project's limits, the order of things, and what it leaves alone.

use crate::environments::images;
use crate::manifests::{OVERLAYS, Object, find, overlay, render, workloads};
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
    let argo = render("k8s/argocd");
    for (name, namespace) in [("staging", "agentforge-staging"), ("production", "agentforge")] {
        let app = find(&argo, "Application", &format!("agentforge-{name}"));
        assert_eq!(
            (app.text("/spec/source/path"), app.text("/spec/destination/namespace")),
            (&*format!("overlays/{name}"), namespace)
        );
        assert_eq!(*app.at("/spec/syncPolicy/automated"), json!({"prune": true, "selfHeal": true}));
        let options = json!(["RespectIgnoreDifferences=true", "ServerSideApply=true", "PruneLast=true"]);
        assert_eq!(*app.at("/spec/syncPolicy/syncOptions"), options);
        assert_eq!(
            *app.at("/spec/syncPolicy/retry"),
            json!({"limit": 5, "backoff": {"duration": "10s", "factor": 2, "maxDuration": "3m"}})
        );
        assert_eq!(
            (app.at("/spec/revisionHistoryLimit"), app.list("/spec/ignoreDifferences")[0]["jsonPointers"].clone()),
            (&json!(10), json!(["/spec/replicas"]))
        );
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
fn argos_project_allows_what_the_overlays_make_and_nothing_else() {
    let Some(()) = require("kubectl") else { return };
    let argo = render("k8s/argocd");
    let project = find(&argo, "AppProject", "agentforge");
    let allowed = |pointer: &str| -> BTreeSet<(String, String)> {
        let pair = |v: &Value| (v["group"].as_str().unwrap().to_owned(), v["kind"].as_str().unwrap().to_owned());
        project.list(pointer).iter().map(pair).collect()
    };
    let (mut cluster, mut namespaced) = (BTreeSet::new(), BTreeSet::new());
    for name in OVERLAYS.into_iter().filter(|name| *name != "edge") {
        for object in overlay(name) {
            let (version, _) = object.text("/apiVersion").split_once('/').unwrap_or_default();
            let kind = (version.to_owned(), object.kind().to_owned());
            if object.namespace().is_none() {
                cluster.insert(kind)
            } else {
                namespaced.insert(kind)
            };
        }
    }
    assert_eq!(allowed("/spec/clusterResourceWhitelist"), cluster);
    assert_eq!(allowed("/spec/namespaceResourceWhitelist"), namespaced);
    let destinations: BTreeSet<_> =
        project.list("/spec/destinations").iter().map(|d| d["namespace"].as_str().unwrap()).collect();
    assert_eq!(destinations, BTreeSet::from(["agentforge", "agentforge-staging", "feature-*"]));
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
    }
}
