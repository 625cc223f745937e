//! What network policies let through: whom a rule admits, and which pods no policy covers.

use super::object::{Object, list, pod_labels, selects, workloads};
use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr};

/// One that calls or is called.
#[derive(Debug, Clone)]
pub enum Peer {
    /// A pod, with its namespace; ours is empty.
    Pod {
        /// How reports name it.
        name: String,
        /// Its namespace.
        namespace: &'static str,
        /// Its labels.
        labels: BTreeMap<String, String>,
    },
    /// An address that does not belong to a pod.
    Address {
        /// How reports name it.
        name: &'static str,
        /// The address.
        ip: IpAddr,
    },
}

impl Peer {
    /// How reports name it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Pod { name, .. } => name,
            Self::Address { name, .. } => name,
        }
    }
    /// Whether it is a pod of our namespace.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Pod { namespace: "", .. })
    }
}

/// Whether the policies of our namespace let `from` reach `to`.
#[must_use]
pub fn is_open(policies: &[&Object], from: &Peer, to: &Peer, port: u16) -> bool {
    let way = |subject: &Peer, other: &Peer, direction: &str| {
        let Peer::Pod { labels, namespace: "", .. } = subject else { return true };
        let own = policies.iter().filter(|p| selects(p.at("/spec/podSelector"), labels));
        let mut own = own.filter(|p| has_direction(p, direction)).peekable();
        let (rules, side) = if direction == "Ingress" { ("/spec/ingress", "from") } else { ("/spec/egress", "to") };
        own.peek().is_none() || own.any(|p| p.list(rules).iter().any(|rule| admits(rule, side, other, port)))
    };
    way(to, from, "Ingress") && way(from, to, "Egress")
}

/// Whether a policy rules a direction; without `policyTypes` it rules ingress, and egress when it has rules for it.
fn has_direction(policy: &Object, direction: &str) -> bool {
    let types = policy.list("/spec/policyTypes");
    if types.is_empty() {
        return direction == "Ingress" || !policy.at("/spec/egress").is_null();
    }
    types.iter().any(|t| t.as_str() == Some(direction))
}

/// Whether a rule is for every peer or every port.
#[must_use]
pub fn is_for_all(rule: &Value, side: &str) -> bool {
    list(&rule[side]).is_empty() || list(&rule["ports"]).is_empty()
}

fn admits(rule: &Value, side: &str, peer: &Peer, port: u16) -> bool {
    let ports = list(&rule["ports"]);
    let has_port = ports.is_empty() || ports.iter().any(|p| p["port"] == port);
    let peers = list(&rule[side]);
    has_port && (peers.is_empty() || peers.iter().any(|of| is_peer(of, peer)))
}

fn is_peer(of: &Value, peer: &Peer) -> bool {
    match peer {
        Peer::Address { ip, .. } => of.get("ipBlock").is_some_and(|block| {
            let inside = |cidr: &Value| cidr.as_str().is_some_and(|cidr| is_inside(cidr, *ip));
            inside(&block["cidr"]) && !list(&block["except"]).iter().any(inside)
        }),
        Peer::Pod { namespace, labels, .. } => {
            let of_namespace = match of.get("namespaceSelector") {
                Some(selector) => {
                    selects(selector, &[("kubernetes.io/metadata.name".to_owned(), (*namespace).to_owned())].into())
                }
                None => namespace.is_empty(),
            };
            let has_selector = of.get("namespaceSelector").is_some() || of.get("podSelector").is_some();
            has_selector && of_namespace && of.get("podSelector").is_none_or(|selector| selects(selector, labels))
        }
    }
}

/// Whether an address is in a range; a mapped address is judged as IPv6, as a plug-in may.
#[must_use]
pub fn is_inside(cidr: &str, ip: IpAddr) -> bool {
    let Some((network, bits)) = cidr.split_once('/') else { return false };
    let (Ok(network), Ok(bits)) = (network.parse(), bits.parse::<u32>()) else { return false };
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits)).unwrap_or(0);
            ip.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits)).unwrap_or(0);
            ip.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}

/// Pods that no policy covers, policies that cover no pod, and rules for everybody or every port.
#[must_use]
pub fn gaps(objects: &[Object]) -> Vec<String> {
    let mut wrong = Vec::new();
    let policies: Vec<&Object> = objects.iter().filter(|o| o.kind() == "NetworkPolicy").collect();
    for workload in workloads(objects) {
        let labels = pod_labels(workload);
        let covers =
            |p: &&&Object| p.namespace() == workload.namespace() && selects(p.at("/spec/podSelector"), &labels);
        for direction in ["Ingress", "Egress"] {
            if !policies.iter().filter(covers).any(|p| has_direction(p, direction)) {
                let place = format!("{} {}", workload.kind(), workload.name());
                wrong.push(format!("{place}: no policy rules its {}", direction.to_lowercase()));
            }
        }
    }
    for policy in &policies {
        let place = format!("NetworkPolicy {}", policy.name());
        let selector = policy.at("/spec/podSelector");
        let mut covered = workloads(objects).into_iter().filter(|w| w.namespace() == policy.namespace());
        if !covered.any(|w| selects(selector, &pod_labels(w))) {
            wrong.push(format!("{place}: it selects no pod"));
        }
        for (rules, side) in [("/spec/ingress", "from"), ("/spec/egress", "to")] {
            if policy.list(rules).iter().any(|rule| is_for_all(rule, side)) {
                wrong.push(format!("{place}: a rule is for everybody or for every port"));
            }
        }
    }
    wrong
}
