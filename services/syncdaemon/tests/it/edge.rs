//! A site with a hub: the link comes and goes, and only the hub's word counts.

use crate::site::{SITE, SOON, Site, Stream, client, content_of, evidence_at, header};
use agentforge_harness::{EdgeSite, NatsOptions, eventually, require};
use agentforge_ledger::Event;
use agentforge_syncdaemon::Status;
use async_nats::jetstream::stream;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::sleep;

const HUB: (&str, &str) = ("SYNC_JS_DOMAIN", "hub");

fn scaled(few: usize, many: usize) -> usize {
    if std::env::var("AGENTFORGE_SOAK").is_ok_and(|v| v == "1") { many } else { few }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_cross_the_link_to_the_hubs_stream_alone() {
    let Some(()) = require("nats-server") else { return };
    let limit = || NatsOptions::default().extra("max_payload: 262144");
    let (edge, site) = (EdgeSite::start_with(SITE, limit(), limit()).await, Site::new());
    let daemon = site.daemon(&edge.leaf.url(), &[HUB]).await;
    // A site that is there before its hub's streams waits for them.
    eventually(SOON, "it says what is missing", || async {
        let check = daemon.ready().await.1["checks"]["stream"].clone();
        if check["detail"].to_string().contains("edge_evidence") { Ok(()) } else { Err(check) }
    })
    .await;
    evidence_at(&edge.hub.url()).await;
    let large = vec![5u8; 900_000];
    site.put("small", "over the link");
    site.put("large", &large);
    site.until_drained().await;
    let (hub, leaf) = (client(&edge.hub.url()).await, client(&edge.leaf.url()).await);
    let messages = Stream { js: hub.jetstream(), name: "edge_evidence" }.messages().await;
    assert_eq!(messages.len(), 2);
    for name in ["edge_evidence", "OBJ_edge_evidence_blobs"] {
        assert!(leaf.jetstream().get_stream(name).await.is_err(), "the leaf keeps no {name}");
    }
    let lines = site.lines_of(Event::Replayed);
    assert!(lines.len() == 2 && lines.iter().all(|line| line.domain.as_deref() == Some("hub")), "{lines:?}");
    let manifest = messages.iter().find(|m| header(m, "Agentforge-Manifest") == "1").unwrap();
    assert!(content_of(hub.jetstream(), manifest).await == large);
    daemon.stop().await;
}

/// Larger than what is read back, so that the hub is asked only for the place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_message_that_the_hub_has_is_a_duplicate_and_one_that_was_removed_is_sent_again() {
    let Some(()) = require("nats-server") else { return };
    let (edge, site) = (EdgeSite::start(SITE).await, Site::new());
    evidence_at(&edge.hub.url()).await;
    let daemon = site.daemon(&edge.leaf.url(), &[HUB]).await;
    let content = vec![7u8; 600_000];
    site.put("first", &content);
    site.until_drained().await;
    site.put("second", &content);
    site.until_drained().await;
    assert_eq!(site.lines_of(Event::Duplicate).len(), 1);
    let hub = client(&edge.hub.url()).await;
    let stream = Stream { js: hub.jetstream(), name: "edge_evidence" };
    assert_eq!(stream.count().await, 2, "the content and its other name");
    hub.jetstream().get_stream("edge_evidence").await.unwrap().purge().await.unwrap();
    site.put("third", &content);
    site.until_drained().await;
    let messages = stream.messages().await;
    assert!(messages.len() == 1 && messages[0].payload == content, "its id is remembered, and it was not there");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_acknowledgement_of_the_leaf_is_not_enough() {
    let Some(()) = require("nats-server") else { return };
    let (edge, site) = (EdgeSite::start(SITE).await, Site::new());
    let leaf = client(&edge.leaf.url()).await;
    let wrong = stream::Config {
        name: "in_the_way".into(),
        subjects: vec!["edge.evidence.>".into()],
        allow_direct: true,
        ..Default::default()
    };
    leaf.jetstream().create_stream(wrong).await.unwrap();
    evidence_at(&edge.hub.url()).await;
    edge.link.cut();
    edge.wait_for_link(false).await;
    site.put("file", "must reach the hub");
    let daemon = site.daemon(&edge.leaf.url(), &[HUB]).await;
    eventually(SOON, "the leaf's word is refused", || async {
        daemon.metric("replay_held", &["wrong_domain"]).await == Some(1.0)
    })
    .await;
    let (code, body) = daemon.ready().await;
    assert_eq!(code, 200);
    assert_eq!(body["checks"]["link"]["ok"], false, "{body}");
    assert!(body["checks"]["delivery"]["detail"].as_str().unwrap().contains("in_the_way"), "{body}");
    assert!(site.queue().join("file").exists() && site.lines_of(Event::Replayed).is_empty());
    leaf.jetstream().delete_stream("in_the_way").await.unwrap();
    edge.link.restore();
    site.until_drained().await;
    let line = site.lines_of(Event::Replayed).pop().unwrap();
    assert_eq!(line.domain.as_deref(), Some("hub"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_was_never_linked_keeps_everything_and_delivers_on_the_first_link() {
    let Some(()) = require("nats-server") else { return };
    let (edge, site) = (EdgeSite::start_cut_off(SITE).await, Site::new());
    evidence_at(&edge.hub.url()).await;
    let daemon = site.daemon(&edge.leaf.url(), &[HUB]).await;
    for n in 0..50 {
        site.put(format!("f{n}"), format!("content {n}"));
    }
    eventually(SOON, "all count as queued", || async { daemon.status().await.queue_depth == 50 }).await;
    assert_eq!(daemon.ready().await.0, 200, "a link that is down is the normal case");
    assert!(!daemon.status().await.link_up);
    edge.link.restore();
    site.until_drained().await;
    eventually(SOON, "the link shows", || async { daemon.status().await.link_up }).await;
    assert_eq!(site.lines_of(Event::Replayed).len(), 50);
    eventually(SOON, "the ledger tells of the link", || async { site.lines_of(Event::Connected).len() == 1 }).await;
    daemon.stop().await;
}

/// A link that flaps at random, a hub that is killed and restarted, and files that keep coming.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flapping_link_and_a_restarting_hub_deliver_every_file_once() {
    let Some(()) = require("nats-server") else { return };
    let files = scaled(1_000, 5_000);
    let limit = || NatsOptions::default().extra("max_payload: 262144");
    // A hub that is killed keeps what it acknowledged.
    let (mut edge, site) =
        (EdgeSite::start_with(SITE, limit().jetstream("sync_interval: always"), limit()).await, Site::new());
    evidence_at(&edge.hub.url()).await;
    let daemon = site.daemon(&edge.leaf.url(), &[HUB]).await;
    let mut chance = StdRng::seed_from_u64(7);
    let mut states = BTreeSet::new();
    let mut put = 0;
    for round in 0..10 {
        for _ in 0..files / 10 {
            let content = match put % 100 {
                50 => vec![u8::try_from(put / 100 % 256).unwrap(); 700_000 + put],
                _ => format!("file {put} of the flapping link").into_bytes(),
            };
            site.put(format!("file-{put}"), content);
            put += 1;
            if put % 20 == 0 {
                sleep(Duration::from_millis(chance.random_range(0..20))).await;
            }
        }
        match round {
            3 | 7 => edge.hub.restart().await,
            _ => match chance.random_range(0..3) {
                0 => edge.link.drop_connections(),
                1 => {
                    edge.link.cut();
                    sleep(Duration::from_millis(chance.random_range(100..1500))).await;
                    edge.link.restore();
                }
                _ => {
                    edge.link.blackhole();
                    sleep(Duration::from_millis(chance.random_range(100..1500))).await;
                    edge.link.restore();
                }
            },
        }
        states.insert(daemon.status().await.link_up);
    }
    // Once for certain, and long enough to be seen.
    edge.link.cut();
    eventually(SOON, "the link shows as down", || async { !daemon.status().await.link_up }).await;
    edge.link.restore();
    let status: Status = eventually(SOON * 3, "everything is delivered", || async {
        let status = daemon.status().await;
        if status.queue_depth == 0 && site.files().is_empty() { Ok(status) } else { Err(status) }
    })
    .await;
    assert!(status.link_up && status.held.is_none(), "{status:?}");
    let delivered: Vec<_> = site.lines().into_iter().filter(|line| line.is_delivery()).collect();
    let accounted: BTreeSet<_> = delivered.iter().filter_map(|line| line.file.clone()).collect();
    assert_eq!(accounted.len(), files, "the ledger accounts for every file");
    let hub = client(&edge.hub.url()).await;
    let stream = Stream { js: hub.jetstream(), name: "edge_evidence" };
    assert_eq!(stream.count().await, files as u64, "each once");
    let in_stream: BTreeSet<_> = stream.messages().await.iter().map(|m| header(m, "Agentforge-File")).collect();
    assert_eq!(in_stream.len(), files);
    let links: Vec<_> = site
        .lines()
        .into_iter()
        .map(|line| line.event)
        .filter(|e| matches!(e, Event::Connected | Event::Disconnected))
        .collect();
    assert!(links.contains(&Event::Disconnected), "{links:?}");
    assert!(links.windows(2).all(|pair| pair[0] != pair[1]), "{links:?}");
    daemon.stop().await;
}
