//! Files as they should not be: each does what it should, and holds up nothing else.

use crate::site::{Daemon, Hub, SOON, Site, Stream, content_of, header, sha256};
use agentforge_harness::{NatsOptions, Proc, eventually, require};
use agentforge_ledger::Event;
use agentforge_syncdaemon::names;
use std::{
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    time::Duration,
};
use tokio::time::sleep;

/// Shows that nothing is held up: a file put now is delivered.
async fn others_go_on(site: &Site, hub: &Hub) {
    let before = hub.stream().count().await;
    site.put("another", format!("{before} before this one"));
    hub.stream().until(before + 1).await;
    eventually(SOON, "it is removed", || async { !site.queue().join("another").exists() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_every_kind_are_delivered_and_unfinished_ones_are_not() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let daemon = site.daemon(&hub.url(), &[]).await;
    let longest = vec![b'n'; 255];
    let taken: [&[u8]; 7] =
        [b"with spaces.txt", b"new\nline\r\n", b"\xff\xfe\x80", &longest, b"100%", "Ä-文.json".as_bytes(), b" "];
    for name in taken {
        site.put(OsStr::from_bytes(name), [b"content of ", name].concat());
    }
    for name in [".hidden", "a.tmp", "a.part", "a.partial"] {
        site.put(name, "not yet");
    }
    hub.stream().until(taken.len() as u64).await;
    site.until_left(4).await;
    let messages = hub.stream().messages().await;
    for name in taken {
        let message = messages.iter().find(|m| names::decode(&header(m, "Agentforge-File")).unwrap() == name);
        assert_eq!(&*message.unwrap().payload, [b"content of ", name].concat());
    }
    let lines = site.lines_of(Event::Replayed);
    assert!(taken.iter().all(|name| lines.iter().any(|line| line.file == Some(names::encode(name)))));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_file_is_left_alone() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let secret = tempfile::tempdir().unwrap();
    fs::write(secret.path().join("secret"), "not evidence").unwrap();
    std::os::unix::fs::symlink(secret.path().join("secret"), site.queue().join("link")).unwrap();
    std::os::unix::fs::symlink(secret.path(), site.queue().join("dirlink")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        site.queue().join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(site.queue().join("socket")).unwrap();
    let daemon = site.daemon(&hub.url(), &[("SYNC_RESCAN", "100ms")]).await;
    others_go_on(&site, &hub).await;
    others_go_on(&site, &hub).await;
    assert_eq!(hub.stream().count().await, 2);
    assert_eq!(fs::read_dir(site.queue()).unwrap().filter(|e| e.as_ref().unwrap().file_name() != ".sent").count(), 5);
    eventually(SOON, "they do not count", || async { daemon.metric("replay_queue_depth", &[]).await == Some(0.0) })
        .await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_still_written_is_sent_whole_when_it_rests() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let daemon = site.daemon(&hub.url(), &[("SYNC_RESCAN", "100ms")]).await;
    let mut file = fs::File::create(site.queue().join("growing")).unwrap();
    for n in 0..12 {
        write!(file, "{n} ").unwrap();
        // Shorter than the rest that is asked for, so it never rests.
        sleep(Duration::from_millis(100)).await;
        assert_eq!(hub.stream().count().await, 0, "after {n}");
    }
    drop(file);
    site.until_drained().await;
    let messages = hub.stream().messages().await;
    assert_eq!(messages.len(), 1);
    assert_eq!(&*messages[0].payload, b"0 1 2 3 4 5 6 7 8 9 10 11 ");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_takes_the_name_of_a_sent_one_is_sent_too() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let daemon = site.daemon(&hub.url(), &[]).await;
    // Some of the renames fall between the acknowledgement and the removal of the file before.
    const FILES: u32 = 400;
    for n in 0..FILES {
        site.put("same-name", format!("content {n}"));
        sleep(Duration::from_micros(u64::from(n % 20) * 700)).await;
    }
    site.until_drained().await;
    let (messages, lines) = (hub.stream().messages().await, site.lines_of(Event::Replayed));
    let last = sha256(format!("content {}", FILES - 1).as_bytes());
    assert!(messages.iter().any(|m| m.subject.ends_with(&last)), "the last one is there");
    let mut hashes: Vec<_> = lines.iter().map(|line| line.sha256.clone().unwrap()).collect();
    hashes.sort();
    hashes.dedup();
    // A file that was replaced before it was read is gone by its writer's will; none that was read is.
    assert_eq!((hashes.len(), lines.len()), (messages.len(), messages.len()));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_never_be_sent_goes_to_quarantine_with_the_reason() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let daemon = site.daemon(&hub.url(), &[("SYNC_MAX_FILE_BYTES", "1000")]).await;
    fs::create_dir(site.queue().join("sub")).unwrap();
    site.put("sub/too large", vec![1; 1001]);
    site.put("fits", vec![1; 1000]);
    hub.stream().until(1).await;
    let moved = site.queue().join("quarantine/sub/too large");
    eventually(SOON, "it is in quarantine", || async { moved.exists() }).await;
    let line = site.lines_of(Event::Quarantined).pop().unwrap();
    assert_eq!(line.file.as_deref(), Some("sub/too%20large"));
    assert!(line.detail.unwrap().contains("SYNC_MAX_FILE_BYTES"));
    assert_eq!(daemon.metric("replay_files_total", &["quarantined"]).await, Some(1.0));
    others_go_on(&site, &hub).await;
    eventually(SOON, "what is in quarantine does not count", || async {
        daemon.metric("replay_queue_depth", &[]).await == Some(0.0)
    })
    .await;
    daemon.stop().await;
}

/// Root may read everything, so the daemon runs as somebody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_may_not_be_read_goes_to_quarantine() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let nobody = "65534";
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        for dir in [site.queue(), site.ledger()] {
            fs::create_dir_all(&dir).unwrap();
            std::os::unix::fs::chown(&dir, Some(65534), Some(65534)).unwrap();
        }
        fs::set_permissions(site.queue().parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    }
    site.put("secret", "nobody may read this");
    fs::set_permissions(site.queue().join("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    site.put("open", "all may");
    let program = env!("CARGO_BIN_EXE_agentforge-syncdaemon");
    // The build's folder may not be open to everybody.
    let copy = site.queue().parent().unwrap().join("syncdaemon");
    fs::copy(program, &copy).unwrap();
    let builder = if is_root {
        Proc::builder("setpriv")
            .args(["--reuid", nobody, "--regid", nobody, "--clear-groups"])
            .arg(copy.to_str().unwrap())
    } else {
        Proc::builder(&copy)
    };
    let mut process = builder.envs(site.settings(&hub.url())).env("READY_FILE", "").start();
    let moved = site.queue().join("quarantine/secret");
    eventually(SOON, "it is in quarantine", || {
        assert!(process.is_running(), "{}", process.full_log());
        let moved = moved.exists();
        async move { moved }
    })
    .await;
    hub.stream().until(1).await;
    site.until_left(1).await;
    let line = site.lines_of(Event::Quarantined).pop().unwrap();
    assert!(line.detail.unwrap().contains("cannot be read"));
    assert_eq!(process.sigterm(SOON).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_is_an_object_that_every_client_can_read() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::with(NatsOptions::default().extra("max_payload: 262144")).await, Site::new());
    let daemon = site.daemon(&hub.url(), &[]).await;
    let content: Vec<u8> = (0..3_000_001u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    site.put("video.mp4", &content);
    site.until_drained().await;
    let manifest = hub.stream().messages().await.pop().unwrap();
    assert_eq!((&*header(&manifest, "Agentforge-Manifest"), &*header(&manifest, "Content-Type")), ("1", "video/mp4"));
    let read: serde_json::Value = serde_json::from_slice(&manifest.payload).unwrap();
    assert_eq!((read["size"].as_u64(), read["sha256"].as_str()), (Some(3_000_001), Some(&*sha256(&content))));
    assert!(content_of(hub.nats.jetstream(), &manifest).await == content);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_on_where_it_stopped_and_not_on_foreign_bytes() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::with(NatsOptions::default().extra("max_payload: 131072")).await, Site::new());
    let content: Vec<u8> = (0..2_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let chunks = Stream { js: hub.nats.jetstream(), name: "OBJ_edge_evidence_blobs" };
    site.put("large", &content);
    // Slow enough to be stopped in the middle.
    let slow = [("SYNC_MAX_BANDWIDTH_BPS", "4000000")];
    let daemon = site.daemon(&hub.url(), &slow).await;
    eventually(SOON, "some chunks are stored", || async { chunks.count().await >= 4 }).await;
    daemon.stop().await;
    let stored = chunks.count().await;
    assert!(site.queue().join("large").exists() && stored < 18, "{stored}");
    let daemon = site.daemon(&hub.url(), &[]).await;
    site.until_drained().await;
    assert!(daemon.process.full_log().contains("resuming an upload"), "{}", daemon.process.full_log());
    // 64 KiB chunks of 2,000,000 bytes.
    assert_eq!(chunks.count().await, 2_000_000u64.div_ceil(64 << 10), "no chunk was stored twice");
    daemon.stop().await;

    // Somebody's bytes where the chunks of the next file are to be.
    let other = [&content[..], b"!"].concat();
    let subject = format!("$O.edge_evidence_blobs.C.{}.{}", crate::site::SITE, sha256(&other));
    hub.nats.jetstream().publish(subject, "foreign".into()).await.unwrap().await.unwrap();
    site.put("other", &other);
    let daemon = site.daemon(&hub.url(), &[]).await;
    site.until_drained().await;
    let manifest = hub.stream().messages().await.pop().unwrap();
    assert!(content_of(hub.nats.jetstream(), &manifest).await == other);
    assert_eq!(chunks.count().await, 2 * 2_000_000u64.div_ceil(64 << 10) + 1, "the foreign bytes stay where they are");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_a_gibibyte_goes_in_flat_memory_and_small_ones_beside_it() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let daemon = site.daemon(&hub.url(), &[]).await;
    let path = site.queue().parent().unwrap().join("unfinished");
    let sparse = fs::File::create(&path).unwrap();
    sparse.set_len(1 << 30).unwrap();
    drop(sparse);
    fs::rename(path, site.queue().join("large.img")).unwrap();
    let chunks = Stream { js: hub.nats.jetstream(), name: "OBJ_edge_evidence_blobs" };
    eventually(SOON, "the upload has begun", || async { chunks.count().await > 10 }).await;
    others_go_on(&site, &hub).await;
    assert!(site.queue().join("large.img").exists(), "it went on beside the upload");
    let mut most = 0;
    eventually(SOON * 4, "it is delivered", || {
        most = most.max(daemon.rss_mib());
        let gone = !site.queue().join("large.img").exists();
        async move { gone }
    })
    .await;
    assert!(most < 64, "{most} MiB");
    let line = site.lines_of(Event::Replayed).into_iter().find(|line| line.bytes == Some(1 << 30)).unwrap();
    assert_eq!(line.file.as_deref(), Some("large.img"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_removed_and_made_again_is_taken_up() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let daemon: Daemon = site.daemon(&hub.url(), &[]).await;
    others_go_on(&site, &hub).await;
    fs::remove_dir_all(site.queue()).unwrap();
    eventually(SOON, "it is not ready", || async { daemon.ready().await.0 == 503 }).await;
    assert!(!site.queue().exists(), "it is not made behind its owner's back");
    fs::create_dir(site.queue()).unwrap();
    eventually(SOON, "it is ready", || async { daemon.ready().await.0 == 200 }).await;
    others_go_on(&site, &hub).await;
    fs::create_dir(site.queue().join("new")).unwrap();
    site.put("new/file", "in a new directory");
    hub.stream().until(3).await;
    fs::remove_dir_all(site.queue().join(".sent")).unwrap();
    eventually(SOON, "it is made again", || async { site.queue().join(".sent").exists() }).await;
    others_go_on(&site, &hub).await;
    daemon.stop().await;
}
