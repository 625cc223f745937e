//! Argo CD's configuration: applications, the project's limits, the order of syncs, and what it ignores.

use crate::environments::images;
use crate::manifests::{OVERLAYS, Object, find, list, overlay, render, workloads};
use agentforge_harness::require;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SYNC_OPTIONS: &str = "/metadata/annotations/argocd.argoproj.io~1sync-options";

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
    for claim in overlay("edge").iter().filter(|o| ["PersistentVolumeClaim", "StorageClass"].contains(&o.kind())) {
        assert_eq!(claim.text(SYNC_OPTIONS), "Prune=false,Delete=false", "{}", claim.name());
    }
    for name in ["staging", "production", "edge"] {
        let objects = overlay(name);
        let namespace = objects.iter().find(|o| o.kind() == "Namespace").unwrap();
        assert_eq!(namespace.text(SYNC_OPTIONS), "Prune=false,Delete=false", "{name}");
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

/// Each environment's project, its namespace, and the overlays that its applications deploy. That of branches has no
/// vault: a cluster on Azure adds the kind.
const PROJECTS: [(&str, &str, &str, &[&str]); 4] = [
    ("k8s/argocd", "agentforge-production", "agentforge", &["production", "azure-production"]),
    ("k8s/argocd", "agentforge-staging", "agentforge-staging", &["staging", "azure-staging"]),
    ("k8s/argocd", "agentforge-feature", "feature-*", &["feature"]),
    ("k8s/argocd/site", "agentforge-edge", "agentforge-edge", &["edge", "edge-monitored"]),
];

#[test]
fn argos_projects_allow_what_their_overlays_make_and_nothing_else() {
    let Some(()) = require("kubectl") else { return };
    for (root, project, place, overlays) in PROJECTS {
        let argo = render(root);
        let project = find(&argo, "AppProject", project);
        let (mut cluster, mut namespaced) = (BTreeSet::new(), BTreeSet::new());
        for object in overlays.iter().flat_map(|name| overlay(name)) {
            let (group, _) = object.text("/apiVersion").split_once('/').unwrap_or_default();
            let kind = (group.to_owned(), object.kind().to_owned());
            if object.namespace().is_some() {
                namespaced.insert(kind);
            } else {
                // Only by name, so that another environment's namespace is out of reach.
                let name = if object.kind() == "Namespace" { place } else { object.name() };
                cluster.insert((kind, name.to_owned()));
            }
        }
        let text = |v: &Value, key: &str| v[key].as_str().unwrap_or("").to_owned();
        let kind = |v: &Value| (text(v, "group"), text(v, "kind"));
        let allowed: BTreeSet<_> =
            project.list("/spec/clusterResourceWhitelist").iter().map(|v| (kind(v), text(v, "name"))).collect();
        assert_eq!(allowed, cluster, "{}", project.name());
        let allowed: BTreeSet<_> = project.list("/spec/namespaceResourceWhitelist").iter().map(kind).collect();
        assert_eq!(allowed, namespaced, "{}", project.name());
        let places: Vec<_> = project.list("/spec/destinations").iter().map(|d| text(d, "namespace")).collect();
        assert_eq!(places, [place], "{}", project.name());
    }
}

#[test]
fn every_application_is_of_the_project_of_its_environment() {
    let Some(()) = require("kubectl") else { return };
    let argo = [render("k8s/argocd"), render("k8s/argocd/site")].concat();
    let projects: BTreeSet<_> = argo.iter().filter(|o| o.kind() == "AppProject").map(Object::name).collect();
    assert_eq!(projects, PROJECTS.iter().map(|(_, name, ..)| *name).collect());
    for object in &argo {
        let spec = match object.kind() {
            "Application" => object.at("/spec"),
            "ApplicationSet" => object.at("/spec/template/spec"),
            _ => continue,
        };
        let (_, _, place, overlays) =
            PROJECTS.iter().find(|(_, name, ..)| spec["project"] == **name).expect("a project of ours");
        let folder = spec["source"]["path"].as_str().unwrap();
        assert!(overlays.iter().any(|name| folder == format!("overlays/{name}")), "{}: {folder}", object.name());
        let namespace = spec["destination"]["namespace"].as_str().unwrap();
        // Of the branch's name: feature/x becomes feature-x.
        let namespace = namespace.replace("{{ .values.name }}", "feature-*");
        assert_eq!(namespace, *place, "{}", object.name());
    }
}

#[test]
fn a_branch_is_kept_to_its_own_namespace_labels_and_host() {
    let Some(()) = require("kubectl") else { return };
    let cluster = render("k8s/cluster");
    let branch = overlay("feature");
    let [namespace] = branch.iter().filter(|o| o.kind() == "Namespace").collect::<Vec<_>>()[..] else {
        panic!("one namespace")
    };
    let expressions = |name: &str| {
        let policy = find(&cluster, "ValidatingAdmissionPolicy", name);
        assert_eq!(policy.text("/spec/failurePolicy"), "Fail", "{name}");
        let bound = find(&cluster, "ValidatingAdmissionPolicyBinding", name);
        assert_eq!(bound.text("/spec/policyName"), name);
        assert!(bound.list("/spec/validationActions").contains(&json!("Deny")), "{name}");
        let of = |list: &str| -> String {
            let expressions = policy.list(list).iter().map(|v| v["expression"].as_str().unwrap());
            expressions.collect::<Vec<_>>().join("\n")
        };
        (of("/spec/matchConditions"), of("/spec/validations"))
    };
    // The application's name, which Argo CD writes on all it makes, is that of the ApplicationSet's template.
    let argo = render("k8s/argocd");
    let set = find(&argo, "ApplicationSet", "agentforge-feature");
    assert_eq!(set.text("/spec/template/metadata/name"), "agentforge-{{ .values.name }}");
    let (when, objects) = expressions("agentforge-feature-objects");
    assert!(when.contains("argocd-application-controller") && when.contains(r#"startsWith("feature-")"#), "{when}");
    assert_eq!(objects, r#"variables.application == "agentforge-" + request.namespace"#);
    // What the overlay's own namespace and routes are, the policies admit.
    let (_, labels) = expressions("agentforge-feature-namespaces");
    assert!(labels.contains("agentforge-\" + request.name"), "{labels}");
    assert_eq!(namespace.text("/metadata/labels/pod-security.kubernetes.io~1enforce"), "restricted");
    assert!(
        labels.contains(r#"orValue("") == "restricted""#) && labels.contains(r#"!("gateway-access" in"#),
        "{labels}"
    );
    assert_eq!(*namespace.at("/metadata/labels/gateway-access"), Value::Null);
    let (_, routes) = expressions("agentforge-feature-routes");
    for route in branch.iter().filter(|o| o.kind() == "HTTPRoute") {
        let [host] = route.list("/spec/hostnames") else { panic!("one host") };
        let domain = host.as_str().unwrap().strip_prefix(namespace.name()).unwrap();
        assert!(routes.contains(&format!("request.namespace + {domain:?}")), "{domain}: {routes}");
        for parent in route.list("/spec/parentRefs") {
            for value in [&parent["name"], &parent["namespace"]] {
                assert!(routes.contains(&value.to_string()), "{value}: {routes}");
            }
        }
    }
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

/// The differences of two values, by their paths. Lists of other lengths are one.
fn differing(ours: &Value, theirs: &Value, path: &str, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                differing(&ours[key], &theirs[key], &format!("{path}/{key}"), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).for_each(|(a, b)| differing(a, b, path, found));
        }
        _ if ours != theirs => found.push(path.to_owned()),
        _ => {}
    }
}

/// Another forge reads branches from another place, and Azure takes its own overlays: nothing else differs.
#[test]
fn variants_of_argos_configuration_differ_in_what_they_are_for() {
    let Some(()) = require("kubectl") else { return };
    let base = render("k8s/argocd");
    let generator = "/spec/generators/scmProvider";
    let folder = "/spec/source/path";
    let kinds = "/spec/namespaceResourceWhitelist";
    let variants: [(&str, &[(&str, &str)]); 3] = [
        (
            "azure",
            &[
                ("agentforge-staging", folder),
                ("agentforge-production", folder),
                ("agentforge-feature", "/spec/template/spec/source/path"),
                ("agentforge-feature", kinds),
            ],
        ),
        ("github", &[("agentforge-feature", generator)]),
        ("gitlab", &[("agentforge-feature", generator)]),
    ];
    for (name, allowed) in variants {
        let variant = render(&format!("k8s/argocd-variants/{name}"));
        assert_eq!(variant.len(), base.len(), "{name}");
        let mut seen = BTreeSet::new();
        for (ours, theirs) in variant.iter().zip(&base) {
            assert_eq!((ours.kind(), ours.name()), (theirs.kind(), theirs.name()), "{name}");
            let mut found = Vec::new();
            differing(&ours.0, &theirs.0, "", &mut found);
            for path in found {
                let of = allowed.iter().find(|(object, part)| ours.name() == *object && path.starts_with(part));
                let of = of.unwrap_or_else(|| panic!("{name}: {} {} differs at {path}", ours.kind(), ours.name()));
                seen.insert(*of);
            }
        }
        assert_eq!(seen.len(), allowed.len(), "{name} leaves out a part: {seen:?}");
        // The namespace of a branch, and which branches there are, is the same on each forge.
        let set = |objects: &[Object]| {
            let set =
                find(objects, "ApplicationSet", "agentforge-feature").at("/spec/generators/0/scmProvider").clone();
            (set["values"].clone(), set["filters"].clone())
        };
        assert_eq!(set(&variant), set(&base), "{name}");
        for application in variant.iter().filter(|o| ["Application", "ApplicationSet"].contains(&o.kind())) {
            let text = application.0.to_string();
            let path = text.split("\"path\":\"").nth(1).unwrap().split('"').next().unwrap();
            assert!(OVERLAYS.iter().any(|overlay| path == format!("overlays/{overlay}")), "{name}: {path}");
        }
    }
    // On Azure the project of branches has what their overlay makes.
    let azure = render("k8s/argocd-variants/azure");
    let project = find(&azure, "AppProject", "agentforge-feature");
    let allowed: BTreeSet<&str> =
        project.list("/spec/namespaceResourceWhitelist").iter().map(|v| v["kind"].as_str().unwrap()).collect();
    let made = overlay("azure-feature");
    let made: BTreeSet<&str> = made.iter().filter(|o| o.namespace().is_some()).map(Object::kind).collect();
    assert_eq!(allowed, made);
}

/// What the page about Azure says of identities is what the manifests have.
#[test]
fn the_page_about_azure_names_the_identities_of_the_overlays() {
    let Some(()) = require("kubectl") else { return };
    let page = crate::manifests::read("docs/deploy/azure.md");
    for name in ["staging", "production"] {
        let objects = overlay(&format!("azure-{name}"));
        let namespace = objects.iter().find(|o| o.kind() == "Namespace").unwrap().name();
        assert!(page.contains(&format!("system:serviceaccount:{namespace}:orchestrator")), "{namespace}");
        let class = find(&objects, "SecretProviderClass", "orchestrator-database");
        let objects_of_vault = class.text("/spec/parameters/objects");
        for line in objects_of_vault.lines().filter_map(|line| line.trim().strip_prefix("objectName: ")) {
            assert!(page.contains(&format!("`{line}`")), "{line}");
        }
        assert!(page.contains(&format!("overlays/azure-{name}")));
    }
    assert!(page.contains("k8s/argocd-variants/azure") && page.contains("AADSTS700213"));
}
