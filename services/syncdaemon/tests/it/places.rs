//! Directories: queue and ledger apart, watches that run out, empty ones, and what is left alone.

use crate::site::{Hub, SOON, Site};
use agentforge_harness::{Proc, eventually, require};
use std::{fs, os::unix::fs::symlink};

fn check_config(site: &Site, queue: &std::path::Path, ledger: &std::path::Path) -> agentforge_harness::ProcBuilder {
    Proc::builder(env!("CARGO_BIN_EXE_agentforge-syncdaemon"))
        .arg("--check-config")
        .envs(site.settings("nats://127.0.0.1:4222"))
        .env("SYNC_QUEUE_DIR", queue.to_str().unwrap())
        .env("SYNC_LEDGER_DIR", ledger.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_and_ledger_lie_apart_by_every_path() {
    let site = Site::new();
    let home = site.queue().parent().unwrap().to_owned();
    fs::create_dir_all(site.queue().join("sub")).unwrap();
    let (into, up) = (home.join("into"), home.join("up"));
    symlink(site.queue().join("sub"), &into).unwrap();
    symlink(&home, &up).unwrap();
    for (queue, ledger) in [
        (site.queue(), into.join("ledger")),
        (site.queue(), up.join("replay/ledger")),
        (site.queue(), home.clone()),
        (up.join("replay"), site.queue().join("x")),
    ] {
        let mut checked = check_config(&site, &queue, &ledger).start();
        assert_eq!(checked.wait(SOON).await, 64, "{} {}", queue.display(), ledger.display());
        assert!(checked.full_log().contains("SYNC_LEDGER_DIR"), "{}", checked.full_log());
    }
    let mut checked = check_config(&site, &site.queue(), &home.join("ledger")).start();
    assert_eq!(checked.wait(SOON).await, 0, "{}", checked.full_log());
    // By a bind mount, where one may be made.
    let (bound, ledger) = (home.join("bound"), home.join("bound/ledger"));
    fs::create_dir(&bound).unwrap();
    let script = format!(
        "mount --bind {} {} || exit 77; exec {} --check-config",
        site.queue().join("sub").display(),
        bound.display(),
        env!("CARGO_BIN_EXE_agentforge-syncdaemon"),
    );
    let mut checked = Proc::builder("unshare")
        .args(["--mount", "sh", "-c", &script])
        .envs(site.settings("nats://127.0.0.1:4222"))
        .env("SYNC_LEDGER_DIR", ledger.to_str().unwrap())
        .start();
    let code = checked.wait(SOON).await;
    if rustix::process::geteuid().is_root() && code != 77 && code != 1 {
        assert_eq!(code, 64, "{}", checked.full_log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_that_are_not_watched_are_told_once_and_their_files_are_found() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    for n in 0..8 {
        fs::create_dir(site.queue().join(format!("d{n}"))).unwrap();
    }
    // Three watches in a user namespace of its own, which is where the limit counts.
    let script = format!(
        "echo 3 > /proc/sys/user/max_inotify_watches || exit 77; exec {}",
        env!("CARGO_BIN_EXE_agentforge-syncdaemon")
    );
    let ready = site.queue().parent().unwrap().join("ready.json");
    let mut process = Proc::builder("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", &script])
        .envs(site.settings(&hub.url()))
        .env("SYNC_RESCAN", "300ms")
        .env("READY_FILE", ready.to_str().unwrap())
        .start();
    let begun = eventually(SOON, "the daemon is ready, or no namespace can be made", || {
        let ended = !process.is_running();
        let read = fs::read(&ready).ok().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        async move { if ended { Some(None) } else { read.map(Some) } }
    })
    .await;
    let Some(begun) = begun else { return };
    let daemon = crate::site::Daemon { http: begun["syncdaemon"]["http"].as_str().unwrap().to_owned(), process };
    eventually(SOON, "it is told", || async {
        daemon.metric("replay_unwatched_directories", &[]).await.is_some_and(|n| n >= 5.0)
    })
    .await;
    site.put("d7/file", "found by a scan");
    site.until_drained().await;
    assert_eq!(daemon.process.full_log().matches("directories are not watched").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_directories_go_when_they_are_old_and_what_is_left_alone_is_counted() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    for dir in ["old/inner", "new", "used", "quarantine"] {
        fs::create_dir_all(site.queue().join(dir)).unwrap();
    }
    for name in [".hidden", "video.part", "used/x.tmp", "quarantine/given-up"] {
        fs::write(site.queue().join(name), "x").unwrap();
    }
    symlink("/etc/passwd", site.queue().join("link")).unwrap();
    let daemon = site.daemon(&hub.url(), &[("SYNC_RESCAN", "300ms")]).await;
    eventually(SOON, "they are counted", || async {
        let (left, caught) =
            (daemon.metric("replay_left_alone_files", &[]).await, daemon.metric("replay_quarantine_files", &[]).await);
        if left == Some(4.0) && caught == Some(1.0) { Ok(()) } else { Err((left, caught)) }
    })
    .await;
    eventually(SOON, "their age grows", || async {
        daemon.metric("replay_left_alone_oldest_age_seconds", &[]).await.is_some_and(|age| age > 1.0 && age < 600.0)
    })
    .await;
    assert!(site.queue().join("old/inner").exists(), "kept unless it is asked for");
    daemon.stop().await;

    let daemon = site.daemon(&hub.url(), &[("SYNC_RESCAN", "300ms"), ("SYNC_EMPTY_DIRS_AFTER", "2s")]).await;
    site.put("used/file", "evidence");
    hub.stream().until(1).await;
    // The inner one first; its own age begins for the outer one when that is empty.
    eventually(SOON, "they are gone", || async { !site.queue().join("old").exists() }).await;
    assert!(site.queue().join("used").exists());
    assert!(site.queue().join("priority").exists() && site.queue().join("quarantine").exists());
    daemon.stop().await;
}
