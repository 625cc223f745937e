//! The ledger under attack: a torn line, a full disk, two writers.

use crate::site::{Hub, SOON, Site};
use agentforge_harness::{Proc, eventually, require};
use agentforge_ledger::{Event, files};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::fs;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_last_line_is_cut_off_noted_and_nothing_else_is_touched() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let daemon = site.daemon(&hub.url(), &[]).await;
    site.put("a", "one");
    site.until_drained().await;
    daemon.stop().await;
    let whole = fs::read(files::list(&site.ledger()).unwrap().pop().unwrap()).unwrap();
    site.scribble(br#"{"ts":"2026-11-21T12:00:00Z","event":"repl"#);

    let daemon = site.daemon(&hub.url(), &[]).await;
    site.put("b", "two");
    site.until_drained().await;
    let note = site.lines_of(Event::Recovered).pop().unwrap();
    assert!(note.detail.unwrap().contains("42 bytes"), "the chain holds and says what was cut off");
    let now = fs::read(files::list(&site.ledger()).unwrap().pop().unwrap()).unwrap();
    assert!(now.starts_with(&whole));
    assert_eq!(site.lines_of(Event::Replayed).len(), 2);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_ledger_keeps_every_file_and_passes() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    // The largest file that the daemon may write stands for the disk: the ledger is its only file.
    let script = r#"trap "" XFSZ; exec "$0""#;
    let mut process = Proc::builder("/bin/sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_agentforge-syncdaemon")])
        .envs(site.settings(&hub.url()))
        .env("LOG_LEVEL", "off")
        .start();
    let ready = process.ready(SOON).await;
    let daemon = crate::site::Daemon { http: ready["syncdaemon"]["http"].as_str().unwrap().to_owned(), process };
    site.put("a", "while there is room");
    site.until_drained().await;
    let used = fs::metadata(files::list(&site.ledger()).unwrap().pop().unwrap()).unwrap().len();
    let pid = Pid::from_raw(i32::try_from(daemon.process.pid()).unwrap());
    let room = |bytes| prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    // In the middle of a line.
    room(Some(used + 100));
    for n in 0..20 {
        site.put(format!("f{n}"), format!("content {n}"));
    }
    eventually(SOON, "the daemon is not ready and says why", || async {
        let (code, body) = daemon.ready().await;
        let detail = body["checks"]["ledger"]["detail"].as_str().unwrap_or_default().to_owned();
        if code == 503 && detail.contains("cannot be written") { Ok(()) } else { Err(body) }
    })
    .await;
    assert_eq!(daemon.status().await.held.unwrap().reason, "ledger");
    assert_eq!(site.files().len(), 20, "no file is removed without its line");
    room(None);
    site.until_drained().await;
    eventually(SOON, "the daemon is ready", || async { daemon.ready().await.0 == 200 }).await;
    // The chain is checked by reading it: no half line is left.
    let lines = site.lines();
    assert_eq!(lines.iter().filter(|line| line.is_delivery()).count(), 21);
    assert_eq!(hub.stream().count().await, 21);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_directory_has_one_daemon() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let daemon = site.daemon(&hub.url(), &[]).await;
    let mut second = Proc::builder(env!("CARGO_BIN_EXE_agentforge-syncdaemon")).envs(site.settings(&hub.url())).start();
    assert_eq!(second.wait(SOON).await, 1);
    assert!(second.full_log().contains("another process"), "{}", second.full_log());
    daemon.stop().await;
}
