//! Bounds: memory, order, bandwidth, and events that are more than the kernel keeps.

use crate::site::{Hub, SITE, Site};
use agentforge_harness::{eventually, require};
use agentforge_ledger::Event;
use std::{
    fs,
    time::{Duration, Instant, SystemTime},
};

/// What holds with full counts as well, which take long.
fn scaled(few: u32, many: u32) -> u32 {
    if std::env::var("AGENTFORGE_SOAK").is_ok_and(|v| v == "1") { many } else { few }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_queue_is_drained_in_flat_memory_and_sending_begins_at_once() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let files = scaled(50_000, 1_000_000);
    for n in 0..files {
        fs::write(site.queue().join(format!("file-{n}")), format!("{n:0100}")).unwrap();
    }
    let began = Instant::now();
    let daemon = site.daemon(&hub.url(), &[("EVIDENCE_MAX_BYTES", "4GiB")]).await;
    hub.stream().until_some(1).await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "the scan of {files} files held up sending: {:?}",
        began.elapsed()
    );
    let mut most = 0;
    let budget = Duration::from_secs(u64::from(files) / 500);
    eventually(budget, "the queue is drained", || {
        most = most.max(daemon.rss_mib());
        let asked = daemon.status();
        async move {
            let status = asked.await;
            if status.queue_depth == 0 && status.replayed == u64::from(files) { Ok(()) } else { Err(status) }
        }
    })
    .await;
    assert!(most < 64, "{most} MiB for {files} files");
    assert_eq!(site.files().len(), 0);
    assert_eq!(hub.stream().count().await, u64::from(files));
    assert_eq!(site.lines_of(Event::Replayed).len(), files as usize);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_beyond_the_kernels_queue_of_events_loses_nothing() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    // The rescan is as far away as possible: what events miss is found only by the overflow.
    let mut daemon = site.daemon(&hub.url(), &[("SYNC_RESCAN", "1d")]).await;
    site.put("before", "the watch is there");
    site.until_drained().await;
    let kept: u32 = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    let files = (kept + kept / 4).min(40_000);
    // Events are not read meanwhile, so that the queue certainly overflows.
    daemon.process.pause();
    let unfinished = site.queue().parent().unwrap().join("unfinished");
    for n in 0..files {
        fs::write(&unfinished, format!("burst {n}")).unwrap();
        fs::rename(&unfinished, site.queue().join(format!("burst-{n}"))).unwrap();
    }
    daemon.process.resume();
    eventually(Duration::from_secs(120), "all are delivered", || async {
        let left = site.files().len();
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(hub.stream().count().await, u64::from(files) + 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_goes_first_and_priority_before_all() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    fs::create_dir_all(site.queue().join("priority/sub")).unwrap();
    fs::create_dir_all(site.queue().join("sub")).unwrap();
    let now = SystemTime::now();
    // In an order that neither names nor creation give.
    let mut expected = Vec::new();
    for n in 0..40u32 {
        let age = Duration::from_secs(u64::from((n * 17) % 40) * 100 + 10_000);
        let name = match n % 4 {
            0 => format!("priority/p{n}"),
            1 => format!("priority/sub/q{n}"),
            2 => format!("sub/r{n}"),
            _ => format!("s{n}"),
        };
        let file = fs::File::create(site.queue().join(&name)).unwrap();
        std::io::Write::write_all(&mut &file, name.as_bytes()).unwrap();
        file.set_modified(now - age).unwrap();
        expected.push((!name.starts_with("priority/"), std::cmp::Reverse(age), name));
    }
    expected.sort();
    let daemon = site.daemon(&hub.url(), &[("SYNC_MAX_INFLIGHT", "1"), ("SYNC_SETTLE", "0s")]).await;
    site.until_drained().await;
    let sent: Vec<_> =
        hub.stream().messages().await.iter().map(|m| String::from_utf8_lossy(&m.payload).into_owned()).collect();
    assert_eq!(sent, expected.into_iter().map(|(_, _, name)| name).collect::<Vec<_>>());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_uplink_carries_no_more_than_it_may_and_the_gauge_falls_to_zero() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let daemon = site.daemon(&hub.url(), &[("SYNC_MAX_BANDWIDTH_BPS", "4000000")]).await;
    site.put("first", "the stream is there");
    site.until_drained().await;
    let began = Instant::now();
    for n in 0..30u8 {
        site.put(format!("f{n}"), vec![n; 50_000]);
    }
    site.until_drained().await;
    // 1.5 MB at 500,000 bytes/s.
    let took = began.elapsed().as_secs_f64();
    assert!((2.7..6.0).contains(&took), "{took} s");
    let shown = daemon.metric("edge_bandwidth_bps", &[SITE]).await.unwrap();
    assert!((1_200_000.0..4_400_000.0).contains(&shown), "{shown}");
    eventually(crate::site::SOON, "the gauge is zero", || async {
        daemon.metric("edge_bandwidth_bps", &[SITE]).await == Some(0.0)
    })
    .await;
    daemon.stop().await;
}
