//! Pods keep to the restricted Pod Security Standard and to a little more; images and replicas are what they must be.

use super::object::{Object, containers, list, workloads};
use crate::exit::Fault;
use serde_json::{Value, json};
use std::path::Path;

/// Volumes that the restricted standard knows and that are not of the node.
const VOLUMES: [&str; 7] =
    ["configMap", "emptyDir", "persistentVolumeClaim", "csi", "secret", "projected", "downwardAPI"];
/// What gives a pod the node.
const OF_THE_NODE: [&str; 3] = ["hostNetwork", "hostPID", "hostIPC"];

/// Everything that a workload's pods may not have, or lack.
#[must_use]
pub fn unrestricted(objects: &[Object]) -> Vec<String> {
    let mut wrong = Vec::new();
    for workload in workloads(objects) {
        let place = format!("{} {}", workload.kind(), workload.name());
        let pod = &workload.template()["spec"];
        let mut says = |text: String| wrong.push(format!("{place}: {text}"));
        for forbidden in OF_THE_NODE {
            if pod[forbidden] == true {
                says(format!("{forbidden} is on"));
            }
        }
        if pod["automountServiceAccountToken"] != false {
            says("automountServiceAccountToken is not false".to_owned());
        }
        for volume in list(&pod["volumes"]) {
            let name = volume["name"].as_str().unwrap_or_default();
            if !VOLUMES.iter().any(|kind| volume.get(kind).is_some()) {
                says(format!("volume {name} is of a kind that gives the node"));
            }
            if volume.get("emptyDir").is_some_and(|empty| !empty["sizeLimit"].is_string()) {
                says(format!("volume {name} has no sizeLimit"));
            }
        }
        for container in containers(workload).iter().chain(list(&pod["initContainers"])) {
            let name = container["name"].as_str().unwrap_or_default();
            for text in container_faults(&pod["securityContext"], container) {
                says(format!("container {name}: {text}"));
            }
        }
    }
    wrong
}

fn container_faults(of_pod: &Value, container: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let own = &container["securityContext"];
    // What a container does not say, its pod says.
    let effective = |key: &str| own.get(key).or_else(|| of_pod.get(key)).unwrap_or(&Value::Null);
    let profile = own["seccompProfile"]["type"].as_str().or(of_pod["seccompProfile"]["type"].as_str());
    for (is_right, text) in [
        (effective("runAsNonRoot") == true, "runAsNonRoot is not true"),
        (*effective("runAsUser") != 0, "runAsUser is 0"),
        (matches!(profile, Some("RuntimeDefault" | "Localhost")), "seccompProfile is not RuntimeDefault"),
        (own["allowPrivilegeEscalation"] == false, "allowPrivilegeEscalation is not false"),
        (own["readOnlyRootFilesystem"] == true, "readOnlyRootFilesystem is not true"),
        (own["privileged"] != true, "it is privileged"),
        (own["capabilities"]["drop"] == json!(["ALL"]), "capabilities do not drop ALL"),
        (list(&own["capabilities"]["add"]).iter().all(|c| c == "NET_BIND_SERVICE"), "capabilities are added"),
    ] {
        if !is_right {
            wrong.push(text.to_owned());
        }
    }
    for kind in ["requests", "limits"] {
        for what in ["cpu", "memory"] {
            let amount = &container["resources"][kind][what];
            if !amount.is_string() && !amount.is_number() {
                wrong.push(format!("{kind} has no {what}"));
            }
        }
    }
    wrong
}

/// Images of an object's pods.
#[must_use]
pub fn images(object: &Object) -> Vec<String> {
    let pod = &object.template()["spec"];
    let all = containers(object).iter().chain(list(&pod["initContainers"]));
    all.filter_map(|c| c["image"].as_str().map(str::to_owned)).collect()
}

/// Whether an image is a digest, or has the whole of a commit's name as its tag.
#[must_use]
pub fn is_pinned(image: &str) -> bool {
    let hex = |text: &str, n| text.len() == n && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match image.rsplit_once("@sha256:") {
        Some((_, digest)) => hex(digest, 64),
        None => image.rsplit_once(':').is_some_and(|(_, tag)| hex(tag, 40)),
    }
}

/// Whether an image is the one that was pushed last: no tag, or `latest`.
#[must_use]
pub fn moves(image: &str) -> bool {
    if image.contains("@sha256:") {
        return false;
    }
    // A colon in front of a slash is that of a port.
    let tag = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map(|(_, tag)| tag);
    tag.is_none_or(|tag| tag == "latest")
}

/// What images must be.
#[derive(Debug, Clone, Default)]
pub struct Images {
    /// Each is a digest or a commit.
    pub pinned: bool,
    /// Where ours are, such as `registry.example/project/`.
    pub prefix: Option<String>,
    /// The names below it that are built.
    pub built: Vec<String>,
}

/// Images that move, are not pinned, or that are not built.
#[must_use]
pub fn wrong_images(objects: &[Object], rule: &Images) -> Vec<String> {
    let mut wrong = Vec::new();
    for object in workloads(objects) {
        let place = format!("{} {}", object.kind(), object.name());
        for image in images(object) {
            if moves(&image) {
                wrong.push(format!("{place}: {image} has no fixed tag"));
            } else if rule.pinned && !is_pinned(&image) {
                wrong.push(format!("{place}: {image} is neither a digest nor a commit"));
            }
            let ours = rule.prefix.as_ref().and_then(|prefix| image.strip_prefix(prefix.as_str()));
            let name = ours.map(|rest| rest.split(['@', ':']).next().unwrap_or_default());
            if name.is_some_and(|name| !rule.built.iter().any(|built| built == name)) {
                wrong.push(format!("{place}: {image} is not built"));
            }
        }
    }
    wrong
}

/// Deployments that say how many pods they have although an autoscaler does: each apply would undo what it did.
#[must_use]
pub fn scaled_with_replicas(objects: &[Object]) -> Vec<String> {
    let scalers = objects.iter().filter(|o| ["HorizontalPodAutoscaler", "ScaledObject"].contains(&o.kind()));
    let mut wrong = Vec::new();
    for scaler in scalers {
        let (kind, name) = (scaler.text("/spec/scaleTargetRef/kind"), scaler.text("/spec/scaleTargetRef/name"));
        let kind = if kind.is_empty() { "Deployment" } else { kind };
        let target =
            objects.iter().find(|o| o.kind() == kind && o.name() == name && o.namespace() == scaler.namespace());
        match target {
            None => wrong.push(format!("{} {}: there is no {kind} {name}", scaler.kind(), scaler.name())),
            Some(target) if !target.at("/spec/replicas").is_null() => {
                wrong.push(format!("{kind} {name}: it has replicas and {} {}", scaler.kind(), scaler.name()));
            }
            Some(_) => {}
        }
    }
    wrong
}

/// Words that stand for something that was not filled in.
#[must_use]
pub fn placeholders(objects: &[Object], words: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    for object in objects {
        let text = object.0.to_string();
        for word in words.iter().filter(|word| text.contains(**word)) {
            wrong.push(format!("{} {}: it has {word:?}", object.kind(), object.name()));
        }
    }
    wrong
}

/// Texts as faults of a rendering.
pub fn faults(place: &Path, rule: &'static str, wrong: Vec<String>) -> impl Iterator<Item = Fault> {
    wrong.into_iter().map(move |text| Fault::new(place, 0, rule, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_images_are_pinned_and_which_move() {
        let (digest, commit) = ("0".repeat(64), "a".repeat(40));
        for (image, pinned, moving) in [
            ("r/x:latest".to_owned(), false, true),
            ("r/x:v1.2".to_owned(), false, false),
            ("r/x".to_owned(), false, true),
            ("r:5000/x".to_owned(), false, true),
            ("r/x@sha256:12".to_owned(), false, false),
            (format!("r/x@sha256:{digest}"), true, false),
            (format!("r:5000/x:{commit}"), true, false),
        ] {
            assert_eq!((is_pinned(&image), moves(&image)), (pinned, moving), "{image}");
        }
    }
}
