//! `agentforge bench` under attack: what it started ends with it.

use super::support::{BINARY, SOON, gone, has_service_binaries};
use agentforge_harness::{Proc, eventually, require};

/// The server, three sinks and the broadcaster.
const STARTED: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_benchmark_that_is_killed_leaves_no_process_behind() {
    let Some(()) = require("nats-server") else { return };
    if !has_service_binaries() {
        return;
    }
    let home = tempfile::Builder::new().prefix("agentforge-bench-").tempdir().unwrap();
    // Its data are in the folder it is started in.
    let mut bench = Proc::builder("/bin/sh")
        .args(["-c", "cd \"$0\" && exec \"$@\"", &home.path().to_string_lossy(), BINARY, "bench", "webhooks"])
        .start();
    let pid = bench.pid();
    let children = eventually(SOON, "the benchmark has started its programs", || {
        assert!(bench.is_running(), "it ended early:\n{}", bench.full_log());
        let children = children_of(pid);
        async move { if children.len() == STARTED { Ok(children) } else { Err(format!("{children:?}")) } }
    })
    .await;
    bench.kill9();
    gone(&children).await;
}

fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        // The name in parentheses may hold anything; after it come the state and the parent.
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let after = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        after.split(' ').nth(1).and_then(|word| word.parse().ok()) == Some(parent)
    })
    .collect()
}
