//! What an installation costs that has nothing to do: counted in processor time, of which a busy machine gives no more.

use crate::stack::{Options, Stack, services};
use agentforge_harness::{eventually, require};
use std::time::Duration;

/// How long one check lasts.
const CHECK: Duration = Duration::from_secs(3);
/// Processor time of a service in one check, at most: far above what unoptimised builds use, far below a loop that spins.
const TICKS_MAX: u64 = 30;

/// Processor time of a process until now, in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_with_nothing_to_do_wait() {
    let Some(()) = require("nats-server") else { return };
    let mut stack = Stack::start(Options::default()).await;
    let pids: Vec<(&str, u32)> = services().map(|service| (service, stack.proc(service).pid())).collect();
    // The first seconds are for streams, consumers and first checks.
    let used = eventually(Duration::from_secs(60), "no service is busy", async || {
        let before: Vec<u64> = pids.iter().map(|(_, pid)| ticks(*pid)).collect();
        tokio::time::sleep(CHECK).await;
        let used: Vec<_> = pids.iter().zip(before).map(|((name, pid), then)| (*name, ticks(*pid) - then)).collect();
        if used.iter().all(|(_, used)| *used <= TICKS_MAX) { Ok(used) } else { Err(used) }
    })
    .await;
    println!("hundredths of a second in {CHECK:?}: {used:?}");
}
