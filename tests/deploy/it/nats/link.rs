//! A site of the edge overlay as a leaf node of production's hub.

use super::{
    WAIT, is_ready, refused, service,
    sites::{Hub, stored},
};
use crate::manifests::overlay;
use agentforge_harness::{SiteKey, eventually, http_get, require};

#[tokio::test]
async fn a_site_of_the_edge_overlay_delivers_to_the_hub_of_production() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let key = SiteKey::new("site-a");
    let hub = Hub::start(&[&key]).await;
    // The hub's own topology makes the streams of evidence.
    let hub_dir = tempfile::tempdir().unwrap();
    let at_one = [("NATS_REPLICAS", "1"), ("TACTICAL_REPLICAS", "1"), ("EVIDENCE_REPLICAS", "1")];
    let mut of_hub = service(&overlay("production"), "topology", &hub.server, &hub_dir, &at_one);
    is_ready(&mut of_hub, "topology").await;
    let edge = overlay("edge");
    // A hub that a site's file of authorities does not know learns nothing.
    let mut stranger = hub.site_of(&key);
    stranger.write("etc/nats-hub/ca.crt", &super::tls::another_authority());
    stranger.start().await;
    eventually(WAIT, "the link is refused", || async {
        let log = stranger.log();
        if log.contains("unknown authority") { Ok(()) } else { Err(log) }
    })
    .await;
    assert!(hub.connected().await.is_empty());
    drop(stranger);
    let site = hub.site(&key).await;

    let dir = tempfile::tempdir().unwrap();
    let mut topology = service(&edge, "topology", &site, &dir, &[]);
    let mut syncdaemon = service(&edge, "syncdaemon", &site, &dir, &[]);
    let mut orchestrator = service(&edge, "orchestrator", &site, &dir, &[]);
    let mut worker = service(&edge, "worker", &site, &dir, &[("SHUTDOWN_GRACE", "1s")]);
    topology.ready(WAIT).await;
    syncdaemon.ready(WAIT).await;
    worker.ready(WAIT).await;
    let metrics = orchestrator.ready(WAIT).await["orchestrator"]["metrics"].as_str().unwrap().to_owned();
    eventually(WAIT, "the link to the hub is up", || async {
        let (_, body) = http_get(&metrics, &[]).await.map_err(|e| e.to_string())?;
        let page = String::from_utf8_lossy(&body).into_owned();
        let line = page.lines().find(|l| l.starts_with("edge_link_status{")).unwrap_or("no series").to_owned();
        if line.ends_with(" 1") { Ok(()) } else { Err(line) }
    })
    .await;
    let replay = dir.path().join("syncdaemon/agentforge/replay");
    // Large, small, and the small content under another name.
    for (name, bytes) in [("small", 100), ("large", 3_000_000), ("again", 100)] {
        std::fs::write(dir.path().join(name), vec![9; bytes]).unwrap();
        std::fs::rename(dir.path().join(name), replay.join(name)).unwrap();
    }
    eventually(WAIT, "all files are at the hub", || async {
        let (evidence, blobs) =
            (stored(&hub.server, "edge_evidence").await, stored(&hub.server, "OBJ_edge_evidence_blobs").await);
        let said = [&hub.server, &hub.gate, &site].map(|server| refused(&server.log()).join("\n")).concat();
        if evidence == 3 && blobs > 1 { Ok(()) } else { Err((evidence, blobs, said)) }
    })
    .await;
    assert_eq!(stored(&site, "edge_evidence").await, 0, "the site keeps none");
    assert!(stored(&site, "swarm_jobs").await == 0 && stored(&hub.server, "swarm_jobs").await == 0);
    for proc in [&mut syncdaemon, &mut worker, &mut orchestrator, &mut topology, &mut of_hub] {
        assert_eq!(proc.sigterm(WAIT).await, 0);
    }
    for server in [&hub.server, &hub.gate, &site] {
        assert_eq!(refused(&server.log()), Vec::<&str>::new());
    }
}
