//! Delivered files that cannot be removed: reported, and never sent again.

use crate::site::{Hub, SOON, Site};
use agentforge_harness::{Right, eventually, require, require_right};
use agentforge_ledger::Event;
use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    process::Command,
    time::Duration,
};
use tokio::time::sleep;

const NOBODY: Option<u32> = Some(65534);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivered_file_that_cannot_be_removed_is_told_and_not_sent_again() {
    let (Some(()), Some(())) = (require("nats-server"), require_right(Right::Root)) else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    // A directory of root's, out of which the daemon cannot move anything.
    let dir = site.queue().join("roots");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("delivered"), "evidence").unwrap();
    fs::write(dir.join("secret"), "not for the daemon").unwrap();
    fs::set_permissions(dir.join("secret"), Permissions::from_mode(0o000)).unwrap();
    let daemon = site.daemon_of_nobody(&hub.url(), &[("SYNC_RESCAN", "100ms")]).await;
    eventually(SOON, "both are told", || async {
        let (status, shown) = (daemon.status().await, daemon.metric("replay_stuck_files", &[]).await);
        if status.stuck.files == 2 && shown == Some(2.0) { Ok(()) } else { Err(status) }
    })
    .await;
    let stuck = daemon.status().await.stuck;
    let mut names = stuck.names.clone();
    names.sort();
    assert_eq!((names, stuck.reason.contains("denied")), (vec!["roots/delivered".into(), "roots/secret".into()], true));
    // Dozens of scans, and several tries to remove them.
    sleep(Duration::from_secs(4)).await;
    let count = |event| site.lines_of(event).len();
    assert_eq!((count(Event::Replayed), count(Event::Duplicate), count(Event::Quarantined)), (1, 0, 1));
    let status = daemon.status().await;
    assert_eq!((status.replayed, status.duplicates, status.quarantined, status.queue_depth), (1, 0, 1, 2));
    let (code, body) = daemon.ready().await;
    let told = body["checks"]["removal"]["detail"].as_str().unwrap().to_owned();
    assert!(code == 200 && told.contains("cannot be removed") && told.contains("roots/delivered"), "{body}");
    let warnings = daemon.process.full_log().matches("cannot be removed; not sent again").count();
    assert_eq!(warnings, 1);
    // Others go, and bytes that are new are sent.
    site.put("other", "beside them");
    hub.stream().until(2).await;
    fs::write(dir.join("delivered"), "more evidence").unwrap();
    hub.stream().until(3).await;

    chown(&dir, NOBODY, NOBODY).unwrap();
    eventually(SOON, "they are removed", || async { !dir.join("delivered").exists() && !dir.join("secret").exists() })
        .await;
    assert!(site.queue().join("quarantine/roots/secret").exists());
    eventually(SOON, "nothing is told any more", || async { daemon.status().await.stuck.files == 0 }).await;
    assert_eq!((count(Event::Replayed), count(Event::Duplicate), count(Event::Quarantined)), (3, 0, 1));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_immutable_file_is_sent_once_and_goes_when_it_may() {
    let (Some(()), Some(())) = (require("nats-server"), require_right(Right::Immutable)) else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let path = site.queue().join("kept");
    fs::write(&path, "evidence").unwrap();
    let chattr = |flag: &str| {
        let status = Command::new("chattr").arg(flag).arg(&path).status().unwrap();
        assert!(status.success(), "chattr {flag}: {status}");
    };
    chattr("+i");
    let daemon = site.daemon(&hub.url(), &[("SYNC_RESCAN", "100ms")]).await;
    eventually(SOON, "it is told", || async { daemon.status().await.stuck.files == 1 }).await;
    sleep(Duration::from_secs(2)).await;
    chattr("-i");
    assert_eq!(site.lines_of(Event::Replayed).len(), 1);
    site.until_drained().await;
    let delivered = site.lines().into_iter().filter(|line| line.is_delivery()).count();
    assert_eq!((delivered, hub.stream().count().await), (1, 1), "its new attributes are no new content");
    assert_eq!(daemon.status().await.stuck.files, 0);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_depth_shows_when_everything_was_counted_and_never_less() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    const FILES: u32 = 3000;
    for n in 0..FILES {
        fs::write(site.queue().join(format!("f{n}")), n.to_string()).unwrap();
    }
    // The hub that is set is not there: nothing leaves.
    let daemon = site.daemon(&hub.url(), &[("SYNC_JS_DOMAIN", "elsewhere")]).await;
    let shown = eventually(SOON, "the depth shows", || async { daemon.metric("replay_queue_depth", &[]).await }).await;
    assert_eq!(shown, f64::from(FILES), "the first value that is told is true");
    assert!(daemon.status().await.counted);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_age_is_the_time_since_a_file_was_seen_whatever_its_date() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    for (name, date) in
        [("old", "2001-09-09T01:46:40Z"), ("older", "1938-04-24T22:13:20Z"), ("new", "2100-01-01T00:00:00Z")]
    {
        let path = site.queue().join(name);
        fs::write(&path, name).unwrap();
        let date: jiff::Timestamp = date.parse().unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_modified(date.into()).unwrap();
    }
    let daemon = site.daemon(&hub.url(), &[("SYNC_JS_DOMAIN", "elsewhere")]).await;
    let age = || daemon.metric("replay_oldest_file_age_seconds", &[]);
    let first = eventually(SOON, "an age shows", || async { age().await.filter(|age| *age > 0.0) }).await;
    let later = eventually(SOON, "it grows", || async { age().await.filter(|age| *age >= first + 1.5) }).await;
    assert!(later < 120.0, "{later}");
    daemon.stop().await;
}
