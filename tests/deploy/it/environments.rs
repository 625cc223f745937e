//! The facts of each environment, as docs/deploy names them: where it lives, how large it is, who may reach it.

use crate::manifests::{BRANCH, Object, containers, environment, find, list, overlay, render, seek, texts};
use crate::quotas::quantity;
pub use agentforge_governance::manifests::pods::images;
use agentforge_governance::manifests::{
    pods::{is_pinned, placeholders},
    together,
};
use agentforge_harness::require;
use agentforge_stack::roster::{self, BROADCASTER, NATS_EXPORTER, SERVICES, SYNCDAEMON, TACTICAL_API};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What runs at sites only.
pub const NOT_IN_CLUSTERS: &[&str] = &[SYNCDAEMON];
/// What runs in clusters only.
const NOT_AT_SITES: &[&str] = &[BROADCASTER, TACTICAL_API];

struct Facts {
    overlay: &'static str,
    namespace: &'static str,
    gateway_label: Option<&'static str>,
    hosts: &'static [&'static str],
    /// All others of the roster run.
    without: &'static [&'static str],
    /// Of each autoscaler; `None` where there is none.
    replicas: Option<(u64, u64)>,
    workers: Option<(u64, u64)>,
    /// Servers, CPU, memory, disk.
    nats: (u64, &'static str, &'static str, Option<&'static str>),
    /// CPU and memory of the quota; `None` without one.
    quota: Option<(&'static str, &'static str)>,
    log_level: &'static str,
    database: &'static str,
}

impl Facts {
    fn services(&self) -> impl Iterator<Item = &'static str> {
        let without = self.without;
        SERVICES.iter().map(|service| service.name).filter(move |name| !without.contains(name))
    }
}

const FACTS: [Facts; 4] = [
    Facts {
        overlay: "feature",
        namespace: "feature-BRANCH_NAME",
        gateway_label: Some("dev-gateway-access"),
        hosts: &["feature-BRANCH_NAME.dev.agentforge.internal"],
        without: NOT_IN_CLUSTERS,
        replicas: None,
        workers: None,
        nats: (1, "50m", "128Mi", None),
        quota: Some(("1", "1Gi")),
        log_level: "debug",
        database: "@postgres:5432/agentforge",
    },
    Facts {
        overlay: "staging",
        namespace: "agentforge-staging",
        gateway_label: Some("dev-gateway-access"),
        hosts: &["staging.agentforge.internal"],
        without: NOT_IN_CLUSTERS,
        replicas: Some((1, 2)),
        workers: Some((0, 5)),
        nats: (1, "250m", "256Mi", Some("1Gi")),
        quota: Some(("2500m", "2560Mi")),
        log_level: "info",
        database: "@postgres.staging.agentforge.internal:5432/agentforge?sslmode=verify-full",
    },
    Facts {
        overlay: "production",
        namespace: "agentforge",
        gateway_label: Some("gateway-access"),
        hosts: &["agentforge.internal"],
        without: NOT_IN_CLUSTERS,
        replicas: Some((2, 5)),
        workers: Some((2, 10)),
        nats: (3, "500m", "512Mi", Some("10Gi")),
        quota: Some(("6", "6656Mi")),
        log_level: "info",
        database: "@postgres.agentforge.internal:5432/agentforge?sslmode=verify-full",
    },
    Facts {
        overlay: "edge",
        namespace: "agentforge-edge",
        gateway_label: None,
        hosts: &[],
        without: NOT_AT_SITES,
        replicas: None,
        workers: None,
        nats: (1, "100m", "128Mi", Some("12Gi")),
        quota: None,
        log_level: "info",
        database: "sqlite://",
    },
];

fn first_environment(objects: &[Object], kind: &str, name: &str) -> BTreeMap<String, String> {
    let workload = find(objects, kind, name);
    environment(objects, workload, &containers(workload)[0])
}

#[test]
fn each_environment_is_as_the_table_says() {
    let Some(()) = require("kubectl") else { return };
    for facts in FACTS {
        let objects = overlay(facts.overlay);
        let namespaced: BTreeSet<_> = objects.iter().filter_map(Object::namespace).collect();
        assert_eq!(namespaced, BTreeSet::from([facts.namespace]), "{}", facts.overlay);
        let labels = find(&objects, "Namespace", facts.namespace).labels();
        let access: Vec<_> = labels.iter().filter(|(key, _)| key.ends_with("gateway-access")).collect();
        let expected: Vec<_> =
            facts.gateway_label.map(|label| (label.to_owned(), "allowed".to_owned())).into_iter().collect();
        assert_eq!(access, expected.iter().map(|(k, v)| (k, v)).collect::<Vec<_>>(), "{}", facts.overlay);
        assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");

        let routes: Vec<_> = objects.iter().filter(|o| o.kind() == "HTTPRoute").collect();
        assert_eq!(routes.is_empty(), facts.overlay == "edge");
        for route in routes {
            assert_eq!(*route.at("/spec/hostnames"), json!(facts.hosts));
            // A route that leads to a service is bound to the listener with TLS; the other sends callers there.
            let leads = |rule: &Value| !rule["backendRefs"].is_null();
            let section = list(route.at("/spec/parentRefs"))[0]["sectionName"].as_str().unwrap();
            for rule in route.list("/spec/rules") {
                let to = &rule["filters"][0]["requestRedirect"]["scheme"];
                assert!(
                    (section == "https" && leads(rule)) || (section == "http" && to == "https"),
                    "{}",
                    route.name()
                );
            }
            // Both have streams, which a gateway would cut after its own default.
            let mut rules = route.list("/spec/rules").iter().filter(|rule| leads(rule));
            assert!(rules.all(|rule| rule["timeouts"]["request"] == "0s"), "{}", route.name());
            let gateway = if facts.overlay == "production" { "gateway" } else { "dev-gateway" };
            assert_eq!(list(route.at("/spec/parentRefs"))[0]["name"], gateway);
        }

        let deployments: BTreeSet<_> = objects.iter().filter(|o| o.kind() == "Deployment").map(Object::name).collect();
        let mut wanted: BTreeSet<_> = facts.services().collect();
        wanted.extend((facts.overlay == "feature").then_some("postgres"));
        // The orchestrator's image in its other mode.
        wanted.insert("topology");
        assert_eq!(deployments, wanted, "{}", facts.overlay);
        sizes(&objects, &facts);

        for name in facts.services() {
            let env = first_environment(&objects, "Deployment", name);
            assert_eq!((env["LOG_LEVEL"].as_str(), env["ENV"].as_str()), (facts.log_level, facts.overlay), "{name}");
        }
        let database = &first_environment(&objects, "Deployment", "orchestrator")["DATABASE_URL"];
        assert!(database.contains(facts.database), "{}: {database}", facts.overlay);
        let quota = seek(&objects, "ResourceQuota", "agentforge").map(|q| texts(q.at("/spec/hard")));
        let found = quota.as_ref().map(|hard| (hard["requests.cpu"].as_str(), hard["requests.memory"].as_str()));
        assert_eq!(found, facts.quota, "{}", facts.overlay);
    }
}

fn sizes(objects: &[Object], facts: &Facts) {
    // What has an API runs more than once, and scales by its load.
    for name in facts.services().filter(|name| roster::find(name).is_some_and(|service| service.openapi.is_some())) {
        let scaler = seek(objects, "HorizontalPodAutoscaler", name);
        assert_eq!(scaler.is_some(), facts.replicas.is_some(), "{} {name}", facts.overlay);
        let (Some(scaler), Some((min, max))) = (scaler, facts.replicas) else { continue };
        assert_eq!((scaler.at("/spec/minReplicas"), scaler.at("/spec/maxReplicas")), (&json!(min), &json!(max)));
        assert_eq!(list(scaler.at("/spec/metrics"))[0]["resource"]["target"]["averageUtilization"], 70);
        assert_eq!(*scaler.at("/spec/behavior/scaleUp/stabilizationWindowSeconds"), 60);
        assert_eq!(*scaler.at("/spec/behavior/scaleDown/stabilizationWindowSeconds"), 300);
    }
    let scaled = seek(objects, "ScaledObject", "worker");
    let workers = scaled
        .map(|o| (o.at("/spec/minReplicaCount").as_u64().unwrap(), o.at("/spec/maxReplicaCount").as_u64().unwrap()));
    assert_eq!(workers, facts.workers, "{}", facts.overlay);

    let nats = find(objects, "StatefulSet", "nats");
    let (servers, cpu, memory, disk) = facts.nats;
    assert_eq!(*nats.at("/spec/replicas"), servers);
    let requests = &containers(nats)[0]["resources"]["requests"];
    assert_eq!((requests["cpu"].as_str(), requests["memory"].as_str()), (Some(cpu), Some(memory)), "{}", facts.overlay);
    let claim = nats.list("/spec/volumeClaimTemplates").first();
    let storage = claim.and_then(|c| c.pointer("/spec/resources/requests/storage")).and_then(Value::as_str);
    assert_eq!(storage, disk, "{}", facts.overlay);
    let memory =
        nats.list("/spec/template/spec/volumes").iter().find_map(|v| v.pointer("/emptyDir/sizeLimit")?.as_str());
    let volume = storage.or(memory).unwrap();
    let env = first_environment(objects, "StatefulSet", "nats");
    // NATS counts GB and MB in powers of two.
    let store = quantity(&env["JS_MAX_FILE_STORE"].replace("GB", "Gi").replace("MB", "Mi"));
    assert!(store <= quantity(volume) * 0.8, "{}: {store} of {volume}", facts.overlay);
    let limit = quantity(containers(nats)[0]["resources"]["limits"]["memory"].as_str().unwrap());
    let share = quantity(&env["GOMEMLIMIT"].replace("MiB", "Mi")) / limit;
    assert!((0.75..0.9).contains(&share), "{}: the server may use {share} of its limit", facts.overlay);
    let mount = list(&containers(nats)[0]["volumeMounts"]).iter().find(|m| m["name"] == "js").unwrap();
    assert_eq!(mount["mountPath"], "/lib/nats");
    assert_eq!(*nats.at("/spec/persistentVolumeClaimRetentionPolicy/whenDeleted"), "Retain");
    if servers > 1 {
        assert!(seek(objects, "PodDisruptionBudget", "nats").is_some());
        assert!(
            !nats
                .list("/spec/template/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution")
                .is_empty()
        );
    }
    // One exporter for all servers, and none next to a server: sums would count twice.
    let targets = &first_environment(objects, "Deployment", NATS_EXPORTER)["NATS_EXPORTER_TARGETS"];
    assert_eq!(targets.matches("://").count() as u64, servers, "{targets}");
    // Where sites come in there is a gate next to each.
    let names: Vec<_> = containers(nats).iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names[0], "nats");
    assert_eq!(names.get(1..), Some(if seek(objects, "Service", "nats-leaf").is_some() { &["gate"][..] } else { &[] }));
}

#[test]
fn a_site_keeps_what_it_stores() {
    let Some(()) = require("kubectl") else { return };
    let objects = overlay("edge");
    let class = find(&objects, "StorageClass", "agentforge-edge-retain");
    assert_eq!(class.text("/reclaimPolicy"), "Retain");
    let claims = objects.iter().filter(|o| o.kind() == "PersistentVolumeClaim").map(|o| o.at("/spec").clone());
    let claims: Vec<Value> = claims
        .chain([find(&objects, "StatefulSet", "nats").list("/spec/volumeClaimTemplates")[0]["spec"].clone()])
        .collect();
    assert_eq!(claims.len(), 4, "of the database, of the ledger, of the console, of NATS");
    assert!(claims.iter().all(|spec| spec["storageClassName"] == class.name()), "{claims:?}");
    let nats = first_environment(&objects, "StatefulSet", "nats");
    assert_eq!((nats["JS_SYNC_INTERVAL"].as_str(), nats["JS_DOMAIN"].as_str()), ("always", "site-a"));
    let orchestrator = first_environment(&objects, "Deployment", "orchestrator");
    assert_eq!((orchestrator["EDGE_MODE"].as_str(), orchestrator["EDGE_HUB_DOMAIN"].as_str()), ("on", "hub"));
    assert_eq!(first_environment(&objects, "Deployment", SYNCDAEMON)["SYNC_JS_DOMAIN"], "hub");
}

#[test]
fn workers_scale_by_what_waits() {
    let Some(()) = require("kubectl") else { return };
    for (name, namespace) in [("staging", "agentforge-staging"), ("production", "agentforge")] {
        let objects = overlay(name);
        let scaled = find(&objects, "ScaledObject", "worker");
        let [backlog, drain] = scaled.list("/spec/triggers") else { panic!("two triggers") };
        let expected = json!({
            "natsServerMonitoringEndpoint": format!("nats.{namespace}.svc.cluster.local:8222"), "account": "$G",
            "stream": "swarm_jobs", "consumer": format!("worker-{name}"), "lagThreshold": "6", "activationLagThreshold": "0",
            "useHttps": (name == "production").to_string(),
        });
        assert_eq!((&backlog["type"], &backlog["metadata"]), (&json!("nats-jetstream"), &expected));
        assert_eq!(drain["type"], "prometheus");
        let query = drain["metadata"]["query"].as_str().unwrap();
        let series =
            format!("clamp_max(jetstream_backlog_drain_estimate_minutes{{mission=\"{name}\",queue=\"default\"}}, 60)");
        assert!(query.contains(&series), "{query}");
        // A recording rule makes it: a query of an unrecorded metric would be silent.
        assert!(
            crate::manifests::read("monitoring/alerts/jetstream.rules.yml")
                .contains("record: jetstream_backlog_drain_estimate_minutes")
        );
        assert_eq!((scaled.at("/spec/pollingInterval"), scaled.at("/spec/cooldownPeriod")), (&json!(5), &json!(180)));
        let behaviour = scaled.at("/spec/advanced/horizontalPodAutoscalerConfig/behavior");
        for (way, window, percent, period) in [("scaleUp", 30, 200, 15), ("scaleDown", 90, 100, 60)] {
            let policies = json!([{"type": "Percent", "value": percent, "periodSeconds": period}]);
            assert_eq!(
                (&behaviour[way]["stabilizationWindowSeconds"], &behaviour[way]["policies"]),
                (&json!(window), &policies)
            );
        }
        assert!(scaled.at("/spec/fallback/replicas").as_u64().unwrap() > 0);
        assert!(
            !texts(scaled.at("/metadata/annotations")).contains_key("autoscaling.keda.sh/paused"),
            "for operators alone"
        );
        assert!(seek(&objects, "HorizontalPodAutoscaler", "worker").is_none(), "KEDA makes the only one");
    }
}

#[test]
fn production_has_no_placeholder_no_moving_tag_and_nothing_of_development() {
    let Some(()) = require("kubectl") else { return };
    for folder in [
        "overlays/production",
        "overlays/azure-production",
        "overlays/azure-staging",
        "overlays/edge",
        "overlays/staging",
        "overlays/staging/jobs",
    ] {
        let objects = render(folder);
        for image in objects.iter().flat_map(images) {
            assert!(
                is_pinned(&image) && image.starts_with("registry.agentforge.internal/agentforge/"),
                "{folder}: {image}"
            );
        }
        let words = [
            BRANCH,
            "AZURE_",
            "CHANGEME",
            "changeme",
            "TODO",
            "example.com",
            ".example",
            "NAMESPACE",
            "MISSION\"",
            ":latest",
            "dev-secret",
            "localhost",
        ];
        let found = placeholders(&objects, &words);
        assert!(found.is_empty(), "{folder}: {found:?}");
        if folder.contains("production") {
            let text: String = objects.iter().map(|o| o.0.to_string()).collect();
            assert!(!text.contains("dev-gateway") && !text.contains("staging"), "{folder}");
        }
    }
}

#[test]
fn environments_of_one_cluster_share_no_name_of_the_cluster() {
    let Some(()) = require("kubectl") else { return };
    let with_the_cluster = [render("k8s/cluster"), render("k8s/cluster/azure-monitor")].concat();
    // Those of Azure are in a cluster of their own.
    for group in
        [&["feature", "staging", "production", "edge"][..], &["azure-feature", "azure-staging", "azure-production"]]
    {
        let mut all: Vec<_> = group.iter().map(|name| ((*name).to_owned(), overlay(name))).collect();
        all.push(("the cluster".to_owned(), with_the_cluster.clone()));
        let shared = together::shared(&all);
        assert!(shared.is_empty(), "{shared:?}");
    }
}

#[test]
fn azure_brings_identity_vault_and_scraping() {
    let Some(()) = require("kubectl") else { return };
    for name in ["azure-feature", "azure-staging", "azure-production"] {
        let objects = overlay(name);
        let class = find(&objects, "SecretProviderClass", "orchestrator-database");
        let client = texts(find(&objects, "ServiceAccount", "orchestrator").at("/metadata/annotations"));
        assert_eq!(client["azure.workload.identity/client-id"], class.text("/spec/parameters/clientID"), "{name}");
        assert_eq!(class.text("/spec/provider"), "azure");
        let secret = &class.list("/spec/secretObjects")[0];
        let keys: Vec<_> = list(&secret["data"]).iter().map(|d| d["key"].as_str().unwrap()).collect();
        assert_eq!((secret["secretName"].as_str(), keys), (Some("orchestrator-database"), vec!["user", "password"]));
        for deployment in objects.iter().filter(|o| o.kind() == "Deployment" && o.name() != "postgres") {
            let annotations = texts(deployment.at("/spec/template/metadata/annotations"));
            let scrape = ["scrape", "port", "path"].map(|key| annotations[&format!("prometheus.io/{key}")].as_str());
            assert_eq!(scrape, ["true", "7777", "/metrics"], "{name} {}", deployment.name());
        }
        assert!(!objects.iter().any(|o| o.name().starts_with("ama-metrics")), "one for a whole cluster");
    }
}

#[test]
fn protected_namespaces_cannot_be_deleted_and_the_manager_deletes_feature_ones_alone() {
    let Some(()) = require("kubectl") else { return };
    let objects = render("k8s/cluster");
    let policy = find(&objects, "ValidatingAdmissionPolicy", "agentforge-protected-namespaces");
    assert_eq!(policy.text("/spec/failurePolicy"), "Fail");
    let rule = &policy.list("/spec/matchConstraints/resourceRules")[0];
    assert_eq!((&rule["operations"], &rule["resources"]), (&json!(["CREATE", "DELETE"]), &json!(["namespaces"])));
    let [protected, manager] = policy.list("/spec/validations") else { panic!("two validations") };
    for name in ["agentforge", "agentforge-staging", "agentforge-edge"] {
        assert!(protected["expression"].as_str().unwrap().contains(&format!("\"{name}\"")), "{name}");
    }
    // Making them is refused to managers only.
    assert!(protected["expression"].as_str().unwrap().starts_with("request.operation == \"CREATE\" || "));
    let binding = find(&objects, "ClusterRoleBinding", "namespace-manager");
    let [subject] = binding.list("/subjects") else { panic!("one principal") };
    let principal = subject["name"].as_str().unwrap();
    let expression = manager["expression"].as_str().unwrap();
    assert!(expression.contains(principal) && expression.contains("startsWith(\"feature-\")"), "{expression}");
    let bound = find(&objects, "ValidatingAdmissionPolicyBinding", "agentforge-protected-namespaces");
    assert!(bound.list("/spec/validationActions").contains(&json!("Deny")));
}
