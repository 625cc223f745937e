//! A site of the edge overlay as a leaf node of production's hub.

use super::{Server, WAIT, refused, service};
use crate::manifests::{list, overlay};
use agentforge_harness::{eventually, free_port, http_get, require};

#[tokio::test]
async fn a_site_of_the_edge_overlay_delivers_to_the_hub_of_production() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    // One server stands for the hub: routes to two that are not there would hold its JetStream up.
    let mut objects = overlay("production");
    let config = objects.iter_mut().find(|o| o.kind() == "ConfigMap" && o.name().starts_with("nats-config")).unwrap();
    config.0["data"]["cluster.conf"] = "".into();
    let mut hub = Server::new(&objects, "hub-0", &[]);
    let leaf = free_port();
    hub.env.insert("HUB_LEAF_LISTEN".into(), format!("127.0.0.1:{leaf}"));
    hub.env.insert("HUB_LEAF_ADVERTISE".into(), format!("localhost:{leaf}"));
    hub.start().await;
    let edge = overlay("edge");
    // A hub that a site's file of authorities does not know gets no password.
    let mut stranger = Server::new(&edge, "nats-0", &[]);
    stranger.env.insert("HUB_LEAF_URL".into(), format!("tls://site:SENT@localhost:{leaf}"));
    std::fs::write(stranger.dir.path().join("etc/nats-hub/ca.crt"), super::tls::another_authority()).unwrap();
    stranger.start().await;
    eventually(WAIT, "the link is refused", || async {
        let log = stranger.log();
        if log.contains("unknown authority") { Ok(()) } else { Err(log) }
    })
    .await;
    assert!(!hub.log().contains("Authentication") && hub.get("/leafz").await["leafnodes"] == 0);
    drop(stranger);
    let mut site = Server::new(&edge, "nats-0", &[]);
    let url = site.env["HUB_LEAF_URL"].replace("hub.agentforge.internal:7422", &format!("localhost:{leaf}"));
    assert!(url.starts_with("tls://site:") && !url.contains("hub."), "{url}");
    site.env.insert("HUB_LEAF_URL".into(), url);
    site.start().await;

    let dir = tempfile::tempdir().unwrap();
    // The hub's own topology makes the streams of evidence.
    let at_one = [("NATS_REPLICAS", "1"), ("TACTICAL_REPLICAS", "1"), ("EVIDENCE_REPLICAS", "1")];
    let mut topology = service(&objects, "topology", &hub, &dir, &at_one);
    super::is_ready(&mut topology, "topology").await;
    let mut syncdaemon = service(&edge, "syncdaemon", &site, &dir, &[]);
    let mut orchestrator = service(&edge, "orchestrator", &site, &dir, &[]);
    syncdaemon.ready(WAIT).await;
    let metrics = orchestrator.ready(WAIT).await["orchestrator"]["metrics"].as_str().unwrap().to_owned();
    eventually(WAIT, "the link to the hub is up", || async {
        let (_, body) = http_get(&metrics, &[]).await.map_err(|e| e.to_string())?;
        let page = String::from_utf8_lossy(&body).into_owned();
        let line = page.lines().find(|l| l.starts_with("edge_link_status{")).unwrap_or("no series").to_owned();
        if line.ends_with(" 1") { Ok(()) } else { Err(line) }
    })
    .await;
    let replay = dir.path().join("syncdaemon/agentforge/replay");
    for (name, bytes) in [("small", 100), ("large", 3_000_000)] {
        std::fs::write(dir.path().join(name), vec![9; bytes]).unwrap();
        std::fs::rename(dir.path().join(name), replay.join(name)).unwrap();
    }
    let stored = async |server: &Server, stream: &str| -> u64 {
        let jsz = server.get("/jsz?accounts=true&streams=true").await;
        let accounts = list(&jsz["account_details"]).iter().flat_map(|a| list(&a["stream_detail"]));
        accounts.filter(|s| s["name"] == stream).map(|s| s["state"]["messages"].as_u64().unwrap()).sum()
    };
    eventually(WAIT, "both files are at the hub", || async {
        let (evidence, blobs) = (stored(&hub, "edge_evidence").await, stored(&hub, "OBJ_edge_evidence_blobs").await);
        if evidence == 2 && blobs > 1 { Ok(()) } else { Err((evidence, blobs, refused(&hub.log()).join("\n"))) }
    })
    .await;
    assert_eq!(stored(&site, "edge_evidence").await, 0, "the site keeps none");
    assert!(stored(&site, "swarm_jobs").await == 0 && stored(&hub, "swarm_jobs").await == 0);
    for proc in [&mut syncdaemon, &mut orchestrator, &mut topology] {
        assert_eq!(proc.sigterm(WAIT).await, 0);
    }
    assert_eq!(refused(&hub.log()), Vec::<&str>::new());
}
