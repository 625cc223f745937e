//! Equal content, sooner or later: kept once, and never by a guess.

use crate::site::{Hub, SITE, SOON, Site, header, sha256};
use agentforge_harness::{NatsOptions, eventually, require};
use agentforge_ledger::Event;
use std::time::Duration;
use tokio::time::sleep;

/// Shorter than any test; what comes after it comes as late as an hour later would.
const WINDOW: (&str, &str) = ("EVIDENCE_DUPLICATE_WINDOW", "100ms");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_content_long_after_is_a_duplicate_with_the_place_of_the_first() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::with(NatsOptions::default().extra("max_payload: 131072")).await, Site::new());
    let daemon = site.daemon(&hub.url(), &[WINDOW]).await;
    let large = vec![7u8; 400 << 10];
    site.put("first", "the same");
    site.put("first-large", &large);
    site.put("first-empty", "");
    site.until_drained().await;
    assert_eq!(hub.stream().count().await, 3);
    let chunks = crate::site::Stream { js: hub.nats.jetstream(), name: "OBJ_edge_evidence_blobs" };
    let stored = chunks.count().await;
    // Past the window: the sleep is the attack.
    sleep(Duration::from_millis(600)).await;

    site.put("second", "the same");
    site.put("second-large", &large);
    site.put("second-empty", "");
    site.until_drained().await;
    let messages = hub.stream().messages().await;
    let contents = messages.iter().filter(|m| header(m, "Agentforge-Same-As").is_empty()).count();
    assert_eq!(contents, 3, "nothing was stored again");
    assert_eq!(messages.len(), 6, "and three more names are known");
    assert_eq!(chunks.count().await, stored, "no chunk was stored again");
    for (n, content) in [(1, &b"the same"[..]), (2, &large), (3, b"")] {
        let of = |event| {
            let mut lines = site.lines_of(event);
            lines.retain(|line| line.sha256.as_deref() == Some(&*sha256(content)));
            assert_eq!(lines.len(), 1, "{n}: {event:?}");
            lines.remove(0)
        };
        let (first, second) = (of(Event::Replayed), of(Event::Duplicate));
        assert_eq!((first.seq, first.msg_id), (second.seq, second.msg_id), "{n}");
    }
    assert_eq!(daemon.metric("replay_files_total", &["duplicate"]).await, Some(3.0));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sites_with_equal_bytes_are_two_messages() {
    let Some(()) = require("nats-server") else { return };
    let (hub, one, two) = (Hub::start().await, Site::new(), Site::new());
    let first = one.daemon(&hub.url(), &[]).await;
    let second = two.daemon(&hub.url(), &[("SITE", "dock-1")]).await;
    one.put("a", "equal");
    two.put("b", "equal");
    one.until_drained().await;
    two.until_drained().await;
    let mut sites: Vec<_> = hub.stream().messages().await.iter().map(|m| header(m, "Agentforge-Site")).collect();
    sites.sort();
    assert_eq!(sites, ["dock-1", SITE]);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_message_under_the_subject_is_not_taken_for_ours() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let daemon = site.daemon(&hub.url(), &[WINDOW]).await;
    site.put("a", "makes the stream");
    site.until_drained().await;
    let subject = format!("edge.evidence.{SITE}.{}", sha256(b"mine"));
    hub.nats.jetstream().publish(subject, "forged".into()).await.unwrap().await.unwrap();
    site.put("mine", "mine");
    eventually(SOON, "the daemon says why it waits", || async {
        let held = daemon.status().await.held.ok_or("not held")?;
        if held.reason == "full" { Ok(()) } else { Err("another reason") }
    })
    .await;
    assert!(site.queue().join("mine").exists(), "the file stays");
    assert!(site.lines_of(Event::Duplicate).is_empty());
    let (code, body) = daemon.ready().await;
    assert_eq!(code, 200, "back-pressure does not make it unready");
    assert!(body["checks"]["delivery"]["detail"].as_str().unwrap().contains("full"), "{body}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_is_back_pressure_and_the_files_stay() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let settings = [("EVIDENCE_MAX_BYTES", "1MiB"), ("EVIDENCE_BLOBS_MAX_BYTES", "1MiB")];
    let daemon = site.daemon(&hub.url(), &settings).await;
    for n in 0..30 {
        site.put(format!("f{n}"), vec![n; 100_000]);
    }
    eventually(SOON, "sending is held because the stream is full", || async {
        daemon.metric("replay_held", &["full"]).await == Some(1.0)
    })
    .await;
    let (stored, left) = (hub.stream().count().await, site.files().len());
    assert!((1..30).contains(&stored) && left as u64 >= 30 - stored, "{stored} stored, {left} left");
    let info = hub.nats.jetstream().get_stream("edge_evidence").await.unwrap();
    assert_eq!(info.cached_info().config.max_bytes, 1 << 20, "the cap shows in the stream's info");
    eventually(SOON, "what is left counts as queued", || async {
        let (shown, left) = (daemon.metric("replay_queue_depth", &[SITE]).await, site.files().len());
        if shown == Some(left as f64) { Ok(()) } else { Err((shown, left)) }
    })
    .await;
    assert_eq!(site.lines_of(Event::Error).len(), 1, "the ledger says it once");

    let mut config = info.cached_info().config.clone();
    config.max_bytes = 64 << 20;
    hub.nats.jetstream().update_stream(config).await.unwrap();
    site.until_drained().await;
    assert_eq!(hub.stream().count().await, 30);
    assert_eq!(daemon.metric("replay_held", &["full"]).await, Some(0.0));
    daemon.stop().await;
}
