//! The maximum requests of an environment against its quota: all autoscalers at their maximum, every pod being replaced.

use super::object::{Object, containers, texts, workloads};
use std::collections::BTreeMap;

/// A quantity of Kubernetes as a number: cores, bytes or a count.
#[must_use]
pub fn quantity(text: &str) -> Option<f64> {
    let units = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("m", 0.001),
    ];
    let unit = units.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)));
    let (number, unit) = unit.unwrap_or((text, 1.0));
    number.parse::<f64>().ok().map(|n| n * unit)
}

/// Pods of a workload at most while all of it is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pods {
    /// That run.
    pub running: u64,
    /// That a rollout adds.
    pub more: u64,
    /// That end while their successors run: a quota counts them until they are gone.
    pub ending: u64,
}

/// How many pods a workload has at most.
///
/// # Errors
/// Its surge is a share, so the number is not known.
pub fn pods(objects: &[Object], workload: &Object) -> Result<Pods, String> {
    let scaled = |o: &&Object| {
        ["HorizontalPodAutoscaler", "ScaledObject"].contains(&o.kind())
            && o.text("/spec/scaleTargetRef/name") == workload.name()
    };
    let highest = objects.iter().find(scaled).and_then(|o| {
        let field = if o.kind() == "ScaledObject" { "/spec/maxReplicaCount" } else { "/spec/maxReplicas" };
        o.at(field).as_u64()
    });
    let running = highest.or(workload.at("/spec/replicas").as_u64()).unwrap_or(1);
    match (workload.kind(), workload.text("/spec/strategy/type")) {
        ("Deployment", "RollingUpdate") => {
            let surge = workload.at("/spec/strategy/rollingUpdate/maxSurge");
            let more = surge
                .as_u64()
                .ok_or_else(|| format!("Deployment {}: maxSurge is not a number of pods", workload.name()))?;
            Ok(Pods { running, more, ending: running.saturating_sub(more) })
        }
        // Their successors are made when they are gone.
        _ => Ok(Pods { running, more: 0, ending: 0 }),
    }
}

/// What everything together asks for at most, by the keys of a quota.
///
/// # Errors
/// A number that is not known.
pub fn demand(objects: &[Object]) -> Result<BTreeMap<String, f64>, String> {
    let mut sum: BTreeMap<String, f64> = BTreeMap::new();
    for workload in workloads(objects) {
        let place = |what: &str| format!("{} {}: {what} is not a quantity", workload.kind(), workload.name());
        let Pods { running, more, ending } = pods(objects, workload)?;
        let claims = running as f64;
        let pods = (running + more + ending) as f64;
        *sum.entry("pods".into()).or_default() += pods;
        for container in containers(workload) {
            for kind in ["requests", "limits"] {
                for (what, amount) in texts(&container["resources"][kind]) {
                    let amount = quantity(&amount).ok_or_else(|| place(&amount))?;
                    *sum.entry(format!("{kind}.{what}")).or_default() += pods * amount;
                }
            }
        }
        for claim in workload.list("/spec/volumeClaimTemplates") {
            let storage =
                claim.pointer("/spec/resources/requests/storage").and_then(|s| s.as_str()).unwrap_or_default();
            *sum.entry("requests.storage".into()).or_default() +=
                claims * quantity(storage).ok_or_else(|| place(storage))?;
        }
    }
    for claim in objects.iter().filter(|object| object.kind() == "PersistentVolumeClaim") {
        let storage = claim.text("/spec/resources/requests/storage");
        *sum.entry("requests.storage".into()).or_default() += quantity(storage)
            .ok_or_else(|| format!("PersistentVolumeClaim {}: {storage} is not a quantity", claim.name()))?;
    }
    Ok(sum)
}

/// What is asked for and does not fit a quota; keys that cannot be counted from manifests are left out.
///
/// # Errors
/// A number that is not known.
pub fn exceeded(objects: &[Object]) -> Result<Vec<String>, String> {
    let mut wrong = Vec::new();
    for quota in objects.iter().filter(|o| o.kind() == "ResourceQuota") {
        let within: Vec<Object> = objects.iter().filter(|o| o.namespace() == quota.namespace()).cloned().collect();
        let sum = demand(&within)?;
        for (what, most) in texts(quota.at("/spec/hard")) {
            let most_text = most.clone();
            let most =
                quantity(&most).ok_or_else(|| format!("ResourceQuota {}: {most} is not a quantity", quota.name()))?;
            if let Some(needed) = sum.get(&what).filter(|needed| **needed > most + 1e-9) {
                wrong.push(format!(
                    "ResourceQuota {}: {what}: {needed} is asked for, {most_text} is allowed",
                    quota.name()
                ));
            }
        }
    }
    Ok(wrong)
}
