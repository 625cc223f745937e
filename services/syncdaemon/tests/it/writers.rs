//! Writers that are not done: nothing that they wrote is lost, however long they rest.

use crate::site::{Daemon, Hub, SOON, Site, sha256};
use agentforge_harness::{Right, eventually, require, require_right};
use agentforge_ledger::Event;
use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, Write},
    time::Duration,
};
use tokio::time::sleep;

/// Much longer than files rest in these tests before they are taken.
const LONG: Duration = Duration::from_millis(1500);

async fn is_told_of(daemon: &Daemon, name: &str) {
    eventually(SOON, "the daemon tells which file it waits for", || async {
        let open = daemon.status().await.open;
        let shown = daemon.metric("replay_open_files", &[]).await;
        if open.names == [name] && shown == Some(1.0) { Ok(()) } else { Err((open, shown)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_open_for_writing_waits_however_long_its_writer_rests() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let often = [("SYNC_RESCAN", "100ms")];
    // One writes in place, one renames its file into place and keeps writing.
    let mut video = File::create(site.queue().join("video.mp4")).unwrap();
    video.write_all(&[b'a'; 100_000]).unwrap();
    let daemon = site.daemon(&hub.url(), &often).await;
    let unfinished = site.queue().parent().unwrap().join("unfinished");
    let mut log = File::create(&unfinished).unwrap();
    log.write_all(b"first ").unwrap();
    fs::rename(unfinished, site.queue().join("renamed.log")).unwrap();
    sleep(LONG).await;
    assert_eq!(hub.stream().count().await, 0);
    log.write_all(b"second").unwrap();
    drop(log);
    hub.stream().until(1).await;
    is_told_of(&daemon, "video.mp4").await;
    // A new daemon has seen no event of the writer.
    daemon.stop().await;
    let daemon = site.daemon(&hub.url(), &often).await;
    is_told_of(&daemon, "video.mp4").await;
    sleep(LONG).await;
    video.write_all(&[b'b'; 100_000]).unwrap();
    drop(video);
    site.until_drained().await;
    let contents: Vec<_> = hub.stream().messages().await.into_iter().map(|m| m.payload).collect();
    assert_eq!(contents.len(), 2, "no part of a file was taken for a file");
    assert_eq!(&*contents[0], b"first second");
    assert!(*contents[1] == [[b'a'; 100_000], [b'b'; 100_000]].concat());
    eventually(SOON, "nothing is open", || async { daemon.status().await.open.files == 0 }).await;
    daemon.stop().await;
}

/// A daemon whose file was sent, and whose acknowledgement has to wait until `resume`.
async fn sent_and_not_acknowledged(hub: &mut Hub, site: &Site, name: &str, content: &[u8]) -> Daemon {
    let daemon = site.daemon(&hub.url(), &[]).await;
    site.put("makes-the-stream", "first");
    site.until_drained().await;
    hub.server.pause();
    site.put(name, content);
    eventually(SOON, "it is on its way", || async { daemon.status().await.in_flight == 1 }).await;
    daemon
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_comes_while_the_acknowledgement_is_awaited_loses_no_byte() {
    let Some(()) = require("nats-server") else { return };
    let (mut hub, site) = (Hub::start().await, Site::new());
    let daemon = sent_and_not_acknowledged(&mut hub, &site, "journal", b"one ").await;
    let mut writer = OpenOptions::new().append(true).open(site.queue().join("journal")).unwrap();
    hub.server.resume();
    hub.stream().until(2).await;
    is_told_of(&daemon, "journal").await;
    sleep(LONG).await;
    writer.write_all(b"two").unwrap();
    drop(writer);
    site.until_drained().await;
    let messages = hub.stream().messages().await;
    assert!(messages.iter().any(|m| &*m.payload == b"one two"), "the later version is there, too");
    assert_eq!(messages.len(), 3);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_put_in_place_with_equal_size_and_the_old_time_are_sent() {
    let Some(()) = require("nats-server") else { return };
    let (mut hub, site) = (Hub::start().await, Site::new());
    let daemon = sent_and_not_acknowledged(&mut hub, &site, "report", b"old bytes").await;
    let path = site.queue().join("report");
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    file.rewind().unwrap();
    file.write_all(b"NEW BYTES").unwrap();
    file.set_modified(before).unwrap();
    drop(file);
    // New permissions without other changes are not new content.
    site.put("rights", "the same");
    let _ = fs::set_permissions(site.queue().join("rights"), std::os::unix::fs::PermissionsExt::from_mode(0o640));
    hub.server.resume();
    site.until_drained().await;
    for content in ["old bytes", "NEW BYTES", "the same"] {
        let hash = sha256(content.as_bytes());
        let lines: Vec<_> = site.lines().into_iter().filter(|line| line.sha256.as_deref() == Some(&*hash)).collect();
        assert_eq!(lines.len(), 1, "{content}: {lines:?}");
        assert_eq!(lines[0].event, Event::Replayed);
    }
    assert_eq!(hub.stream().count().await, 4);
    daemon.stop().await;
}

/// Where the kernel does not know writers: here because the files belong to another user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_writers_cannot_be_known_a_delivered_file_lingers_and_a_made_one_waits_for_its_end() {
    let (Some(()), Some(())) = (require("nats-server"), require_right(Right::Root)) else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let daemon = site.daemon_of_nobody(&hub.url(), &[("SYNC_LINGER", "4s"), ("SYNC_RESCAN", "200ms")]).await;
    site.put("first", "the watch is there");
    site.until_drained().await;
    // Made under the daemon's eyes: it waits for the end.
    let mut made = File::create(site.queue().join("made")).unwrap();
    made.write_all(b"half ").unwrap();
    // Renamed into place while its writer continues: it is sent, and the writer is noticed before the file is removed.
    let unfinished = site.queue().parent().unwrap().join("unfinished");
    let mut moved = File::create(&unfinished).unwrap();
    moved.write_all(b"one ").unwrap();
    fs::rename(unfinished, site.queue().join("moved")).unwrap();
    hub.stream().until(2).await;
    eventually(SOON, "it is out of its place", || async { !site.queue().join("moved").exists() }).await;
    assert_eq!(daemon.status().await.queue_depth, 2, "what lingers is not gone yet");
    sleep(LONG).await;
    moved.write_all(b"two").unwrap();
    drop(moved);
    assert_eq!(hub.stream().count().await, 2);
    made.write_all(b"whole").unwrap();
    drop(made);
    site.until_drained().await;
    let contents: Vec<_> = hub.stream().messages().await.into_iter().map(|m| m.payload).collect();
    for content in ["the watch is there", "one ", "one two", "half whole"] {
        assert!(contents.iter().any(|c| &**c == content.as_bytes()), "{content}");
    }
    assert_eq!(contents.len(), 4);
    daemon.stop().await;
}
