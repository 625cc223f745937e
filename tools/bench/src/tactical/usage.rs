//! What a process or a thread used, as the kernel accounts it.

use std::{path::Path, time::Duration};

/// Processor time of all threads of a process so far.
pub fn cpu(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| time_of(&thread.path().join("schedstat"))).sum()
}

/// Processor time of the calling thread: the kernel forgets a thread's when it ends.
pub fn cpu_of_this_thread() -> Duration {
    time_of(Path::new("/proc/thread-self/schedstat")).unwrap_or_default()
}

fn time_of(schedstat: &Path) -> Option<Duration> {
    let stat = std::fs::read_to_string(schedstat).ok()?;
    stat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// Resident memory of a process, bytes.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}
