//! The network policies open the edges of the call graph and nothing else.
//!
//! The graph is derived: from the environments of containers, from routes, monitors and scalers, and from the
//! services' own words about what they call. Then every pair of peers is asked about every port.

use crate::manifests::{
    OVERLAYS, Object, build, containers, environment, find, jobs, list, overlay, pod_labels, read, render, root, seek,
    selects, texts, workloads,
};
use agentforge_governance::manifests::policy::{Peer, is_for_all, is_inside, is_open};
use agentforge_harness::{cargo_bin, require};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who calls, who is called, and on which port.
type Edge = (String, String, u16);

/// Name, namespace and labels.
type Neighbour = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
/// Pods of other namespaces, as their projects label them, and some that have no business here.
const NEIGHBOURS: [Neighbour; 11] = [
    ("gateway", "gateway-system", &[]),
    ("keda-operator", "keda", &[("app", "keda-operator")]),
    ("prometheus", "monitoring", &[("app.kubernetes.io/name", "prometheus")]),
    ("alertmanager", "monitoring", &[("app.kubernetes.io/name", "alertmanager")]),
    ("otel-collector", "monitoring", &[("app.kubernetes.io/name", "otel-collector")]),
    ("kube-dns", "kube-system", &[("k8s-app", "kube-dns")]),
    ("OpenShift's DNS", "openshift-dns", &[("dns.operator.openshift.io/daemonset-dns", "default")]),
    ("Azure's agent", "kube-system", &[("rsName", "ama-metrics")]),
    ("Azure's agent of a node", "kube-system", &[("dsName", "ama-metrics-node")]),
    ("a neighbour", "elsewhere", &[("app.kubernetes.io/name", "orchestrator")]),
    ("a stray", "", &[("app", "stray")]),
];
/// Addresses, each for a range.
const ADDRESSES: [(&str, &str); 27] = [
    ("public", "203.0.113.7"),
    ("node", "10.0.3.4"),
    ("database", "10.0.64.5"),
    ("site", "10.129.0.9"),
    ("private", "10.9.9.9"),
    ("private-b", "172.20.0.1"),
    ("home", "192.168.1.1"),
    ("metadata", "169.254.169.254"),
    ("DNS of the node", "169.254.20.10"),
    ("this host", "0.0.0.0"),
    ("loopback", "127.0.0.1"),
    ("Azure's host", "168.63.129.16"),
    ("Oracle's metadata", "192.0.0.192"),
    ("multicast", "224.0.0.1"),
    ("public-6", "2606:4700::1111"),
    ("unspecified-6", "::"),
    ("loopback-6", "::1"),
    ("mapped", "::ffff:10.9.9.9"),
    ("NAT64", "64:ff9b::a09:909"),
    ("local NAT64", "64:ff9b:1::a09:909"),
    ("6to4", "2002:a09:909::1"),
    ("Teredo", "2001:0:a09:909::1"),
    ("unique local", "fd12::1"),
    ("AWS's metadata", "fd00:ec2::254"),
    ("link-local", "fe80::1"),
    ("site-local", "fec0::1"),
    ("multicast-6", "ff02::1"),
];
/// Those of IPv4 to which a rule for all of IPv4 leads.
const ALL_V4: usize = 14;

fn peers(objects: &[Object]) -> Vec<Peer> {
    let ours = workloads(objects).into_iter().map(|w| Peer::Pod {
        name: w.name().to_owned(),
        namespace: "",
        labels: pod_labels(w),
    });
    let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let others = NEIGHBOURS.map(|(name, namespace, pairs)| Peer::Pod {
        name: name.to_owned(),
        namespace,
        labels: labels(pairs),
    });
    let addresses = ADDRESSES.map(|(name, ip)| Peer::Address { name, ip: ip.parse().unwrap() });
    ours.chain(others).chain(addresses).collect()
}

// ---- what is needed

/// The workloads behind a Service and the container's port for one of the Service's.
fn behind<'a>(objects: &'a [Object], service: &Object, port: &Value) -> Vec<(&'a Object, u16)> {
    let wanted = service.list("/spec/ports").iter().find(|p| p["port"] == *port || p["name"] == *port);
    let wanted = wanted.unwrap_or_else(|| panic!("Service {} has no port {port}", service.name()));
    let selector = serde_json::json!({"matchLabels": service.at("/spec/selector")});
    let found: Vec<_> = workloads(objects).into_iter().filter(|w| selects(&selector, &pod_labels(w))).collect();
    assert!(!found.is_empty(), "Service {} leads nowhere", service.name());
    let target = wanted.get("targetPort").unwrap_or(&wanted["port"]);
    let port_of = |workload: &Object| {
        let ports = containers(workload).iter().flat_map(|c| list(&c["ports"]));
        let found = ports.clone().find(|p| p["name"] == *target || p["containerPort"] == *target);
        let found = found.unwrap_or_else(|| panic!("{} has no port {target}", workload.name()));
        u16::try_from(found["containerPort"].as_u64().unwrap()).unwrap()
    };
    found.into_iter().map(|w| (w, port_of(w))).collect()
}

/// Every `host:port` of a text, after schemes, credentials and commas are taken off.
fn endpoints(text: &str) -> Vec<(String, u16)> {
    let parts = text.split([',', ' ']);
    let found = parts.filter_map(|part| {
        let (_, rest) = part.split_once("://").unwrap_or(("", part));
        let authority = rest.split('/').next()?;
        let (host, port) = authority.rsplit('@').next()?.rsplit_once(':')?;
        Some((host.to_owned(), port.parse().ok()?))
    });
    found.filter(|(host, _): &(String, u16)| host.starts_with(|c: char| c.is_ascii_lowercase())).collect()
}

/// Whom an endpoint means: a Service of ours (also by the name of one of its pods), a pod of another namespace, or
/// an address.
fn targets(objects: &[Object], host: &str, port: u16) -> Vec<(String, u16)> {
    let labels: Vec<&str> = host.split('.').collect();
    let service = [labels[0], labels.get(1).copied().unwrap_or_default()]
        .into_iter()
        .find_map(|name| seek(objects, "Service", name));
    if let Some(service) = service {
        return behind(objects, service, &Value::from(port))
            .into_iter()
            .map(|(w, port)| (w.name().to_owned(), port))
            .collect();
    }
    // The operator's Service for all of a kind is named after it.
    let pod = labels[0].trim_end_matches("-operated");
    if NEIGHBOURS.iter().any(|(name, namespace, _)| pod == *name && labels.get(1) == Some(namespace)) {
        return vec![(pod.to_owned(), port)];
    }
    let all = ADDRESSES.iter().map(|(name, _)| *name);
    let outside: Vec<&str> = match port {
        5432 => vec!["database"],
        // The address of a hub cannot be known beforehand.
        7422 => all.take(ALL_V4).collect(),
        _ => panic!("{host}:{port} is no place that this test knows"),
    };
    outside.into_iter().map(|name| (name.to_owned(), port)).collect()
}

/// Whether a service calls addresses that its users name: then it has the setting that opens private ones.
fn calls_outside(service: &str) -> bool {
    let out = std::process::Command::new(cargo_bin(&format!("agentforge-{service}"))).arg("--help").output().unwrap();
    String::from_utf8_lossy(&out.stdout).contains("EGRESS_ALLOW")
}

fn needed(objects: &[Object]) -> BTreeSet<Edge> {
    let mut edges = BTreeSet::new();
    for workload in workloads(objects) {
        let name = workload.name().to_owned();
        // Azure's agent reads what is annotated.
        let annotated = texts(workload.at("/spec/template/metadata/annotations"));
        if annotated.get("prometheus.io/scrape").is_some_and(|scrape| scrape == "true") {
            let port = annotated["prometheus.io/port"].parse().unwrap();
            let agents = ["Azure's agent", "Azure's agent of a node"];
            edges.extend(agents.map(|agent| (agent.to_owned(), name.clone(), port)));
        }
        for container in containers(workload) {
            let args = list(&container["args"]).iter().filter_map(Value::as_str).map(str::to_owned);
            let env = environment(objects, workload, container);
            // A server's addresses of its own are not calls.
            let no_calls = ["HUB_LEAF_LISTEN", "HUB_LEAF_ADVERTISE", "NATS_CLIENT_ADVERTISE", "WEBHOOK_URL"];
            let told = env.into_iter().filter(|(key, _)| !no_calls.contains(&key.as_str()));
            for (host, port) in args.chain(told.map(|(_, value)| value)).flat_map(|text| endpoints(&text)) {
                edges.extend(targets(objects, &host, port).into_iter().map(|(to, port)| (name.clone(), to, port)));
            }
            if container["image"].as_str().unwrap().contains(&format!("agentforge/{name}"))
                && name != "nats"
                && calls_outside(&name)
            {
                edges.insert((name.clone(), "public".to_owned(), 443));
                edges.insert((name.clone(), "public-6".to_owned(), 443));
            }
        }
    }
    // Who calls others does so by their names; who calls no others needs none.
    let ours: BTreeSet<&str> = workloads(objects).into_iter().map(|workload| workload.name()).collect();
    let callers: BTreeSet<String> =
        edges.iter().map(|(from, ..)| from.clone()).filter(|from| ours.contains(from.as_str())).collect();
    for (dns, port) in [("kube-dns", 53), ("DNS of the node", 53), ("OpenShift's DNS", 5353)] {
        edges.extend(callers.iter().map(|from| (from.clone(), dns.to_owned(), port)));
    }
    // Agents on the nodes read the exporter, too.
    edges.insert(("node".to_owned(), "nats-exporter".to_owned(), 7777));
    // A managed database may share the range of the nodes.
    edges.insert(("database".to_owned(), "nats-exporter".to_owned(), 7777));
    for object in objects {
        let mut add = |from: &str, service: &Object, port: &Value| {
            edges.extend(
                behind(objects, service, port)
                    .into_iter()
                    .map(|(w, port)| (from.to_owned(), w.name().to_owned(), port)),
            );
        };
        let service = |name: &Value| seek(objects, "Service", name.as_str().unwrap()).unwrap();
        match object.kind() {
            "HTTPRoute" => {
                for backend in object.list("/spec/rules").iter().flat_map(|rule| list(&rule["backendRefs"])) {
                    add("gateway", service(&backend["name"]), &backend["port"]);
                }
            }
            "ServiceMonitor" => {
                let monitored =
                    |o: &&Object| o.kind() == "Service" && selects(object.at("/spec/selector"), &o.labels());
                let port = &object.list("/spec/endpoints")[0]["port"];
                for service in objects
                    .iter()
                    .filter(monitored)
                    .filter(|s| s.list("/spec/ports").iter().any(|p| p["name"] == *port))
                {
                    add("prometheus", service, port);
                }
                // Its Alertmanager posts to the broadcaster's API, where there is one.
                if let Some(broadcaster) = seek(objects, "Service", "broadcaster") {
                    add("alertmanager", broadcaster, &"http".into());
                }
            }
            "ScaledObject" => {
                let endpoint =
                    object.list("/spec/triggers")[0]["metadata"]["natsServerMonitoringEndpoint"].as_str().unwrap();
                let (host, port) = &endpoints(endpoint)[0];
                edges.extend(
                    targets(objects, host, *port).into_iter().map(|(to, port)| ("keda-operator".to_owned(), to, port)),
                );
            }
            "Service" if object.text("/spec/type") == "LoadBalancer" => {
                add("site", object, &object.list("/spec/ports")[0]["port"])
            }
            _ => {}
        }
    }
    edges
}

#[test]
fn the_policies_open_the_call_graph_and_nothing_else() {
    let Some(()) = require("kubectl") else { return };
    for name in OVERLAYS.into_iter().chain(["edge-monitored"]) {
        let objects = [overlay(name), jobs()].concat();
        let needed = needed(&objects);
        assert!(needed.len() > 10, "{name}: the graph was not found: {needed:?}");
        let policies: Vec<_> = objects.iter().filter(|o| o.kind() == "NetworkPolicy").collect();
        for (rules, side) in [("/spec/ingress", "from"), ("/spec/egress", "to")] {
            let mut all = policies.iter().flat_map(|p| p.list(rules));
            assert!(!all.any(|rule| is_for_all(rule, side)), "{name}: a rule for everybody or for every port");
        }
        let peers = peers(&objects);
        let ports: BTreeSet<u16> = needed.iter().map(|(.., port)| *port).chain([22, 80, 443, 6443, 9090]).collect();
        let mut open = BTreeSet::new();
        for (from, to) in peers.iter().flat_map(|from| peers.iter().map(move |to| (from, to))) {
            let crosses = from.is_ours() || to.is_ours();
            for port in ports.iter().filter(|port| crosses && is_open(&policies, from, to, **port)) {
                open.insert((from.name().to_owned(), to.name().to_owned(), *port));
            }
        }
        let closed: Vec<_> = needed.difference(&open).collect();
        let extra: Vec<_> = open.difference(&needed).collect();
        assert!(
            closed.is_empty() && extra.is_empty(),
            "{name}: needed and closed: {closed:#?}\nopen and not needed: {extra:#?}"
        );
    }
}

#[test]
fn other_namespaces_have_the_other_end_of_each_edge() {
    let Some(()) = require("kubectl") else { return };
    let apart = render("k8s/cluster/network-policies");
    for name in ["staging", "production"] {
        let objects = overlay(name);
        let namespace = objects.iter().find_map(Object::namespace).unwrap();
        for (from, to, port) in needed(&objects) {
            let neighbour = |who: &str| {
                let others = NEIGHBOURS.iter().filter(|(name, namespace, _)| {
                    !namespace.is_empty() && !["gateway", "kube-dns", "OpenShift's DNS"].contains(name)
                });
                others.clone().find(|(name, ..)| *name == who)
            };
            let (ours, (_, other, pairs), rules) = match (neighbour(&from), neighbour(&to)) {
                (Some(other), None) => (&to, other, "/spec/egress"),
                (None, Some(other)) => (&from, other, "/spec/ingress"),
                _ => continue,
            };
            let labels = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let workload = workloads(&objects).into_iter().find(|w| w.name() == ours).unwrap();
            let side = if rules.ends_with("egress") { "to" } else { "from" };
            let is_there = apart
                .iter()
                .filter(|p| p.namespace() == Some(other) && selects(p.at("/spec/podSelector"), &labels))
                .any(|p| {
                    p.list(rules).iter().any(|rule| {
                        let of_namespace = |of: &Value| {
                            selects(
                                &of["namespaceSelector"],
                                &[("kubernetes.io/metadata.name".to_owned(), namespace.to_owned())].into(),
                            )
                        };
                        list(&rule["ports"]).iter().any(|p| p["port"] == port)
                            && list(&rule[side])
                                .iter()
                                .any(|of| of_namespace(of) && selects(&of["podSelector"], &pod_labels(workload)))
                    })
                });
            assert!(is_there, "{name}: {from} -> {to}:{port} has no policy in {other}");
        }
    }
}

#[test]
fn policies_of_other_namespaces_are_for_those_who_want_them() {
    let Some(()) = require("kubectl") else { return };
    // A policy that selects a pod denies it everything else: nothing applies them along the way.
    assert!(render("k8s/cluster").iter().all(|o| o.kind() != "NetworkPolicy"));
    for script in std::fs::read_dir(root().join("scripts")).unwrap().flatten().filter(|e| e.path().is_file()) {
        let text = String::from_utf8_lossy(&std::fs::read(script.path()).unwrap()).into_owned();
        assert!(!text.contains("cluster/network-policies"), "{}", script.path().display());
    }
    // The scaler's second trigger crosses from one of them to the other.
    let production = overlay("production");
    let triggers = seek(&production, "ScaledObject", "worker").unwrap().list("/spec/triggers");
    let address = triggers.iter().find_map(|t| t["metadata"]["serverAddress"].as_str()).unwrap();
    let port = endpoints(address)[0].1;
    let apart = render("k8s/cluster/network-policies");
    for (namespace, rules, side, other) in
        [("keda", "/spec/egress", "to", "monitoring"), ("monitoring", "/spec/ingress", "from", "keda")]
    {
        let names = |of: &Value| texts(&of["namespaceSelector"]["matchLabels"]).values().any(|name| name == other);
        let mut rules = apart.iter().filter(|p| p.namespace() == Some(namespace)).flat_map(|p| p.list(rules));
        let is_there = rules
            .any(|rule| list(&rule["ports"]).iter().any(|p| p["port"] == port) && list(&rule[side]).iter().any(names));
        assert!(is_there, "{namespace} has no end of the edge from keda to Prometheus");
    }
}

/// The component for a provider of logins opens to the services that ask it what webhooks have: no more than public addresses.
#[test]
fn a_provider_of_logins_is_asked_at_public_addresses_only() {
    let Some(()) = require("kubectl") else { return };
    std::fs::create_dir_all(root().join("target")).unwrap();
    let dir = tempfile::tempdir_in(root().join("target")).unwrap();
    let text = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../k8s/base]\n\
                components: [../../k8s/components/network-policies, ../../k8s/components/oidc-issuer]\n";
    std::fs::write(dir.path().join("kustomization.yaml"), text).unwrap();
    let objects = build(dir.path()).unwrap();
    let [webhooks, logins] =
        ["allow-https-outside", "allow-oidc-issuer"].map(|name| find(&objects, "NetworkPolicy", name));
    assert_eq!(webhooks.0["spec"]["egress"], logins.0["spec"]["egress"]);
    assert_eq!(logins.0["spec"]["policyTypes"], serde_json::json!(["Egress"]));
    let is_chosen = |workload: &&&Object| selects(&logins.0["spec"]["podSelector"], &pod_labels(workload));
    let chosen = workloads(&objects);
    let mut asks: Vec<&str> =
        chosen.iter().filter(is_chosen).filter_map(|workload| workload.0["metadata"]["name"].as_str()).collect();
    asks.sort_unstable();
    assert_eq!(asks, ["broadcaster", "console", "orchestrator", "tactical-api"]);
    // They are those that know the setting.
    let pages = read("docs/configuration.md");
    assert!(pages.contains("`ACCESS_ISSUERS`") && pages.contains("`CONSOLE_OIDC_ISSUER`"));
}

#[test]
fn ranges_and_endpoints_are_read_as_they_are_meant() {
    let v4 = |a, b, c, d| IpAddr::from(Ipv4Addr::new(a, b, c, d));
    assert!(is_inside("10.0.0.0/16", v4(10, 0, 3, 4)) && !is_inside("10.0.0.0/16", v4(10, 1, 0, 0)));
    assert!(is_inside("0.0.0.0/0", v4(8, 8, 8, 8)) && !is_inside("::/0", v4(8, 8, 8, 8)));
    let v6 = |text: &str| IpAddr::from(text.parse::<Ipv6Addr>().unwrap());
    assert!(
        is_inside("::/0", v6("::1"))
            && is_inside("2002::/16", v6("2002:a::1"))
            && !is_inside("2002::/16", v6("2003::"))
    );
    let nats = "nats-0,http://nats-0.nats-headless:8222,nats-1,http://nats-1.nats-headless:8222";
    assert_eq!(endpoints(nats), [("nats-0.nats-headless".to_owned(), 8222), ("nats-1.nats-headless".to_owned(), 8222)]);
    assert_eq!(endpoints("postgres://u:p@postgres:5432/agentforge"), [("postgres".to_owned(), 5432)]);
    assert_eq!(endpoints("0.0.0.0:7422"), []);
}
