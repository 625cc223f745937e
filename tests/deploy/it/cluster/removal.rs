//! A site that is removed keeps what it has stored, and has it again when it is applied once more; a volume whose claim is
//! gone is bound again as docs/deploy/removal.md says it.

use super::api::stream;
use super::apply::placed;
use super::controllers::{Cluster, STEP};
use crate::manifests::Object;
use agentforge_harness::eventually;
use serde_json::json;
use std::collections::BTreeMap;

const SITE: &str = "agentforge-edge";

/// Each claim with its volume; a claim that is another one than before has another id.
fn claims(cluster: &Cluster) -> BTreeMap<String, (String, String)> {
    let found = cluster.list(SITE, "persistentvolumeclaim");
    let entry = |o: &Object| {
        assert_eq!(
            (o.text("/status/phase"), o.at("/metadata/deletionTimestamp").is_null()),
            ("Bound", true),
            "{}",
            o.name()
        );
        (o.name().to_owned(), (o.text("/metadata/uid").to_owned(), o.text("/spec/volumeName").to_owned()))
    };
    found.iter().map(entry).collect()
}

#[tokio::test]
async fn what_a_site_has_stored_outlives_its_removal() {
    let Some(cluster) = Cluster::start().await else { return };
    let objects = placed("overlays/edge", &[]);
    cluster.apply("kubectl", &objects).unwrap();
    cluster.await_rollouts(SITE);
    let before = claims(&cluster);
    let known: Vec<_> = before.keys().map(String::as_str).collect();
    assert_eq!(known, ["console", "js-nats-0", "orchestrator", "syncdaemon"]);

    // As `kubectl delete -k` does it.
    let said = cluster.kubectl(&["delete", "--wait=false", "-f", "-"], &stream(&objects));
    said.refused("a whole site", "claim syncdaemon is protected");
    eventually(STEP, "all else is gone", || {
        let left = cluster.list(SITE, "pod,statefulset,deployment,service").len();
        async move { left == 0 }
    })
    .await;
    assert_eq!(claims(&cluster), before);
    cluster.apply("kubectl", &objects).unwrap();
    cluster.await_rollouts(SITE);
    assert_eq!(claims(&cluster), before, "the same claims with the same volumes");

    // A claim that was deleted on purpose: its volume stays, and is bound again by the steps of the page.
    let (_, volume) = before["orchestrator"].clone();
    let claim = ["-n", SITE, "annotate", "persistentvolumeclaim", "orchestrator", "agentforge/may-be-deleted=true"];
    cluster.kubectl(&claim, "").ok("the annotation");
    cluster.kubectl(&["-n", SITE, "delete", "deployment", "orchestrator"], "").ok("what uses it");
    cluster
        .kubectl(&["-n", SITE, "delete", "persistentvolumeclaim", "orchestrator", "--timeout=120s"], "")
        .ok("the claim");
    let phase = ["get", "persistentvolume", &volume, "-o", "jsonpath={.status.phase}"];
    let is = async |wanted: &str| {
        eventually(STEP, wanted, || {
            let said = cluster.kubectl(&phase, "").ok("the volume");
            async move { if said == wanted { Ok(()) } else { Err(said) } }
        })
        .await;
    };
    is("Released").await;
    let patch = json!({"spec": {"claimRef": {"uid": null, "resourceVersion": null}}}).to_string();
    cluster
        .kubectl(&["patch", "persistentvolume", &volume, "--type=merge", "-p", &patch], "")
        .ok("the volume waits for it");
    is("Available").await;
    cluster.apply("kubectl", &objects).unwrap();
    cluster.await_rollouts(SITE);
    let after = claims(&cluster);
    assert_eq!(after["orchestrator"].1, volume, "the volume of before");
    assert_ne!(after["orchestrator"].0, before["orchestrator"].0, "by another claim");
}
