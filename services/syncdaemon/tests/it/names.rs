//! Names and other metadata of content: the hub knows all of it.

use crate::site::{Daemon, Hub, SITE, SOON, Site, header, sha256};
use agentforge_harness::{NatsOptions, Proc, eventually, require};
use agentforge_ledger::Event;
use async_nats::Message;
use std::{collections::BTreeSet, fs, time::Duration};
use tokio::time::sleep;

fn aliases(messages: &[Message]) -> Vec<&Message> {
    messages.iter().filter(|m| !header(m, "Agentforge-Same-As").is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_name_of_equal_content_is_known_at_the_hub_once() {
    let Some(()) = require("nats-server") else { return };
    let hub = Hub::with(NatsOptions::default().extra("max_payload: 1048576")).await;
    let site = Site::new();
    let daemon = site.daemon(&hub.url(), &[]).await;
    // Small ones, one that is not read back to know whose it is, and one that goes in chunks.
    let (middle, large) = (vec![5u8; 400 << 10], vec![6u8; 3 << 20]);
    let contents: [&[u8]; 4] = [b"equal", b"", &middle, &large];
    for (n, content) in contents.iter().enumerate() {
        site.put(format!("first-{n}"), content);
        site.until_drained().await;
        for name in ["second", "third"] {
            site.put(format!("{name}-{n}"), content);
            site.until_drained().await;
        }
    }
    // A name is reported once, even by another daemon.
    daemon.stop().await;
    let daemon = site.daemon(&hub.url(), &[]).await;
    site.put("second-0", "equal");
    site.until_drained().await;

    let messages = hub.stream().messages().await;
    let told = aliases(&messages);
    assert_eq!((messages.len(), told.len()), (12, 8));
    for (n, content) in contents.iter().enumerate() {
        let hash = sha256(content);
        let subject = format!("edge.evidence.{SITE}.{hash}");
        let names: BTreeSet<_> = messages
            .iter()
            .filter(|m| m.subject.as_str() == subject || header(m, "Agentforge-Same-As") == subject)
            .map(|m| header(m, "Agentforge-File"))
            .collect();
        let expected: BTreeSet<_> = ["first", "second", "third"].iter().map(|name| format!("{name}-{n}")).collect();
        assert_eq!(names, expected);
        for message in told.iter().filter(|m| header(m, "Agentforge-Same-As") == subject) {
            assert!(message.subject.ends_with(&hash) && message.subject.contains(".names."), "{}", message.subject);
            let record: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
            assert_eq!(
                (record["sha256"].as_str(), record["size"].as_u64()),
                (Some(&*hash), Some(content.len() as u64))
            );
        }
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_of_what_was_removed_at_the_hub_is_stored_again() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let daemon = site.daemon(&hub.url(), &[]).await;
    site.put("one", "content");
    site.until_drained().await;
    let stream = hub.nats.jetstream().get_stream("edge_evidence").await.unwrap();
    let (seq, hash) = (stream.cached_info().state.last_sequence.max(1), sha256(b"content"));
    stream.delete_message(seq).await.unwrap();
    // Within the time in which the server remembers the message's id.
    site.put("two", "content");
    site.until_drained().await;
    let messages = hub.stream().messages().await;
    let stored: Vec<_> = messages.iter().filter(|m| m.subject.ends_with(&hash)).collect();
    assert!(stored.iter().any(|m| &*m.payload == b"content"), "{stored:?}");
    stream.purge().await.unwrap();
    site.put("three", "content");
    site.until_drained().await;
    let messages = hub.stream().messages().await;
    assert!(messages.iter().any(|m| &*m.payload == b"content"), "after a purge, too");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_before_a_kill_is_recovered_and_no_duplicate() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    site.put("sent", "sent and killed");
    let mut process = Proc::builder(env!("CARGO_BIN_EXE_agentforge-syncdaemon"))
        .envs(site.settings(&hub.url()))
        .env("SYNC_KILL_AT", "Acknowledged")
        .start();
    assert_eq!(process.wait(SOON).await, 128 + 9);
    let daemon = site.daemon(&hub.url(), &[]).await;
    site.until_drained().await;
    let line = site.lines_of(Event::Recovered).pop().unwrap();
    assert!(line.is_delivery() && line.file.as_deref() == Some("sent") && line.seq == Some(1), "{line:?}");
    assert_eq!((site.lines_of(Event::Duplicate).len(), site.lines_of(Event::Replayed).len()), (0, 0));
    let status = daemon.status().await;
    assert_eq!((status.recovered, status.replayed, status.duplicates), (1, 0, 0));
    assert_eq!(daemon.metric("replay_files_total", &["recovered"]).await, Some(1.0));
    // Later, the same name and content again is a duplicate: it has another date.
    sleep(Duration::from_millis(20)).await;
    site.put("sent", "sent and killed");
    site.until_drained().await;
    assert_eq!(site.lines_of(Event::Duplicate).len(), 1);
    assert_eq!(hub.stream().count().await, 1, "one message, one name");
    daemon.stop().await;
}

async fn message_of(hub: &Hub, name: &str) -> Message {
    eventually(SOON, "it is at the hub", || async {
        hub.stream().messages().await.into_iter().find(|m| header(m, "Agentforge-File") == name)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_writer_tells_of_its_file_goes_with_it_checked() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::with(NatsOptions::default().extra("max_payload: 131072")).await, Site::new());
    let daemon: Daemon = site.daemon(&hub.url(), &[("SYNC_RESCAN", "200ms")]).await;
    let told = r#"{"media_type":"application/vnd.radar+json","evidence_id":"cam-7/0042","created":"2001-02-03T04:05:06Z",
                   "modified":"1999-12-31T23:59:59+01:00"}"#;
    site.put("scan.bin.meta.json", told);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(hub.stream().count().await, 0, "it waits for its file");
    site.put("scan.bin", "a scan");
    site.until_drained().await;
    // Large files, and attributes instead of a sidecar.
    let path = site.queue().parent().unwrap().join("unfinished");
    fs::write(&path, vec![1u8; 400 << 10]).unwrap();
    let tagged =
        rustix::fs::setxattr(&path, "user.agentforge.evidence_id", b"large one", rustix::fs::XattrFlags::empty());
    fs::rename(&path, site.queue().join("large.bin")).unwrap();
    // What cannot be believed holds nothing up.
    site.put("odd.txt.meta.json", r#"{"media_type":"not a type","evidence_id":"x"}"#);
    site.put("odd.txt", "an odd one");
    let scan = message_of(&hub, "scan.bin").await;
    for (name, value) in [
        ("Content-Type", "application/vnd.radar+json"),
        ("AF-Evidence-Id", "cam-7/0042"),
        ("Agentforge-Created", "2001-02-03T04:05:06Z"),
        ("Agentforge-Modified", "1999-12-31T22:59:59Z"),
    ] {
        assert_eq!(header(&scan, name), value, "{name}");
    }
    if tagged.is_ok() {
        assert_eq!(header(&message_of(&hub, "large.bin").await, "AF-Evidence-Id"), "large one");
    }
    let odd = message_of(&hub, "odd.txt").await;
    assert_eq!((&*header(&odd, "Content-Type"), &*header(&odd, "AF-Evidence-Id")), ("text/plain", ""));
    site.until_left(1).await;
    assert!(site.queue().join("odd.txt.meta.json").exists(), "what is not believed stays for a person");
    let line = site.lines_of(Event::Replayed).into_iter().find(|l| l.file.as_deref() == Some("odd.txt")).unwrap();
    assert!(line.detail.unwrap().contains("media_type"));
    daemon.stop().await;
}
