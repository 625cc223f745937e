//! The machine as far as it explains the figures: cores, memory, and how long an fsync takes here.

use agentforge_terminal::{Failure, Result};
use serde::Serialize;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// How many fsyncs are measured; median and 99th percentile are reported.
const SYNCS: usize = 100;

/// What the figures were measured on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Logical processors that this process may use.
    pub cpus: usize,
    /// Processor, as the kernel names it.
    pub model: String,
    /// Memory of the machine, in MiB.
    pub memory_mib: u64,
    /// How the store syncs.
    pub fsync_mode: String,
    /// Median of a 4 KiB write with fdatasync in the data directory, microseconds.
    pub fsync_p50_us: u64,
    /// 99th percentile of the same.
    pub fsync_p99_us: u64,
    /// Whether these binaries are optimised.
    pub optimised: bool,
}

/// Looks at the machine; `dir` is where the stack keeps its data.
pub fn describe(dir: &Path) -> Result<Machine> {
    let failed = |e: std::io::Error| Failure::new(format!("cannot measure fsync in {}: {e}", dir.display()));
    let path = dir.join("fsync.probe");
    let mut file = std::fs::File::create(&path).map_err(failed)?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&[7; 4096]).map_err(failed)?;
        let begun = Instant::now();
        file.sync_data().map_err(failed)?;
        took.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    let _ = std::fs::remove_file(&path);
    took.sort_unstable();
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Ok(Machine {
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        model: field(&info, "model name").unwrap_or("unknown").to_owned(),
        memory_mib: field(&memory, "MemTotal").and_then(|m| m.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
            / 1024,
        fsync_mode: "SQLite WAL, synchronous=FULL; NATS file storage, default sync_interval".into(),
        fsync_p50_us: took[SYNCS / 2],
        fsync_p99_us: took[SYNCS - 1],
        optimised: !cfg!(debug_assertions),
    })
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|l| l.strip_prefix(name)?.split_once(':').map(|(_, v)| v.trim()))
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} × {}, {} MiB; fdatasync p50 {} µs, p99 {} µs; {}{}",
            self.cpus,
            self.model,
            self.memory_mib,
            self.fsync_p50_us,
            self.fsync_p99_us,
            self.fsync_mode,
            if self.optimised { "" } else { "; NOT an optimised build: build with --release before quoting figures" }
        )
    }
}
