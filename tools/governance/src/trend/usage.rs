//! What a container or a process uses: read from cgroups (version 2) and /proc. Reads only.

use crate::exit::broken;
use agentforge_terminal::{Failure, Result};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Containers that are found without being named; the first in order of their paths.
const FOUND_MAX: usize = 500;
/// So deep below the root they are looked for.
const DEPTH_MAX: usize = 8;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    of: Of,
}

#[derive(Clone, Debug)]
enum Of {
    Cgroup(PathBuf),
    Process(u32),
}

/// One reading; everything but memory only rises.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    cpu: Duration,
    memory: u64,
    memory_max: u64,
    received: u64,
    sent: u64,
}

/// What was used between two readings.
#[derive(Clone, Debug, PartialEq)]
pub struct Use {
    /// Whose.
    pub container: String,
    /// Percent of one processor.
    pub cpu_pct: f64,
    /// Percent of the limit, or of the machine's memory where there is none.
    pub mem_pct: f64,
    /// Bytes of memory.
    pub mem_used: u64,
    /// Bytes received since the network came up, loopback left out.
    pub net_rx_bytes: u64,
    /// Bytes sent.
    pub net_tx_bytes: u64,
}

impl Use {
    /// Between two readings.
    pub fn between(name: &str, before: &Reading, after: &Reading, elapsed: Duration) -> Self {
        let used = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        Self {
            container: name.to_owned(),
            cpu_pct: rounded(100.0 * used / elapsed.as_secs_f64().max(f64::MIN_POSITIVE)),
            mem_pct: rounded(100.0 * after.memory as f64 / after.memory_max.max(1) as f64),
            mem_used: after.memory,
            net_rx_bytes: after.received,
            net_tx_bytes: after.sent,
        }
    }
}

/// To two digits.
pub fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

impl Source {
    /// The cgroup that `[NAME=]PATH` names below a root.
    ///
    /// # Errors
    /// There is no such cgroup of version 2.
    pub fn cgroup(named: &str, root: &Path) -> Result<Self> {
        let (name, path) = named.split_once('=').unwrap_or((named.trim_matches('/'), named));
        let path = root.join(path.trim_start_matches('/'));
        if !path.join("cpu.stat").is_file() || !path.join("memory.current").is_file() {
            return Err(Failure::usage(format!("{} is not a cgroup of version 2 with cpu and memory", path.display())));
        }
        Ok(Self { name: name.to_owned(), of: Of::Cgroup(path) })
    }

    /// The process that `[NAME=]PID` names.
    ///
    /// # Errors
    /// There is none.
    pub fn process(named: &str) -> Result<Self> {
        let (name, pid) = named.split_once('=').unwrap_or(("", named));
        let pid: u32 = pid.parse().map_err(|_| Failure::usage(format!("{pid:?} is not the number of a process")))?;
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"))
            .map_err(|e| Failure::usage(format!("process {pid}: {e}")))?;
        let name = if name.is_empty() { comm.trim_end() } else { name };
        Ok(Self { name: name.to_owned(), of: Of::Process(pid) })
    }

    /// How it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has used.
    ///
    /// # Errors
    /// It is not there any more, or cannot be read.
    pub fn read(&self) -> Result<Reading> {
        match &self.of {
            Of::Cgroup(path) => of_cgroup(path),
            Of::Process(pid) => of_process(*pid),
        }
    }
}

/// Every cgroup with a process in it, the root itself left out.
///
/// # Errors
/// There is none, or no cgroup of version 2 at all.
pub fn every_cgroup(root: &Path) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    let mut open = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = open.pop() {
        let mut below: Vec<PathBuf> = fs::read_dir(&folder)
            .map(|entries| entries.filter_map(|entry| entry.ok().map(|e| e.path())).filter(|p| p.is_dir()).collect())
            .unwrap_or_default();
        below.sort();
        let has_process = fs::read_to_string(folder.join("cgroup.procs")).is_ok_and(|text| !text.trim().is_empty());
        let name = folder.strip_prefix(root).unwrap_or(&folder).display().to_string();
        if depth > 0
            && has_process
            && let Ok(source) = Source::cgroup(&name, root)
        {
            found.push(source);
        }
        if depth < DEPTH_MAX {
            open.extend(below.into_iter().rev().map(|path| (path, depth + 1)));
        }
    }
    found.truncate(FOUND_MAX);
    if found.is_empty() {
        let message = format!("no container is found below {}", root.display());
        return Err(Failure::usage(message).hint("name a --cgroup of version 2, or a --pid"));
    }
    Ok(found)
}

fn of_cgroup(path: &Path) -> Result<Reading> {
    let read = |name: &str| {
        let file = path.join(name);
        fs::read_to_string(&file).map_err(|e| broken(&file, 0, e))
    };
    let usage =
        field(&read("cpu.stat")?, "usage_usec").ok_or_else(|| broken(&path.join("cpu.stat"), 0, "no usage_usec"))?;
    let memory = number(&read("memory.current")?);
    // "max" is without a limit; the root of a tree has no such file.
    let limit = read("memory.max").ok().and_then(|text| text.trim().parse::<u64>().ok());
    let first = read("cgroup.procs").unwrap_or_default().lines().next().and_then(|pid| pid.parse().ok());
    let (received, sent) = first.map(network).unwrap_or_default();
    Ok(Reading {
        cpu: Duration::from_micros(usage),
        memory,
        memory_max: limit.unwrap_or_else(machine_memory),
        received,
        sent,
    })
}

fn of_process(pid: u32) -> Result<Reading> {
    let file = PathBuf::from(format!("/proc/{pid}/stat"));
    let stat = fs::read_to_string(&file).map_err(|e| broken(&file, 0, e))?;
    let ticks = ticks(&stat).ok_or_else(|| broken(&file, 0, "it has not the fields of a process"))?;
    let file = file.with_file_name("statm");
    let statm = fs::read_to_string(&file).map_err(|e| broken(&file, 0, e))?;
    let pages: u64 = statm.split_whitespace().nth(1).map(number).unwrap_or_default();
    let (received, sent) = network(pid);
    Ok(Reading {
        cpu: Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64),
        memory: pages * rustix::param::page_size() as u64,
        memory_max: machine_memory(),
        received,
        sent,
    })
}

/// User and system time of /proc/PID/stat. The name in it may hold anything, so fields are counted from its end.
fn ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// Bytes received and sent in the network namespace of a process, loopback left out; 0 where they cannot be read.
fn network(pid: u32) -> (u64, u64) {
    traffic(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default())
}

fn traffic(text: &str) -> (u64, u64) {
    let of = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
        (name.trim() != "lo").then(|| (counts.first().copied().unwrap_or(0), counts.get(8).copied().unwrap_or(0)))
    };
    text.lines().filter_map(of).fold((0, 0), |(r, s), (more_r, more_s)| (r + more_r, s + more_s))
}

fn machine_memory() -> u64 {
    let text: io::Result<String> = fs::read_to_string("/proc/meminfo");
    text.ok().and_then(|text| field(&text, "MemTotal:")).unwrap_or(0) * 1_024
}

fn field(text: &str, name: &str) -> Option<u64> {
    let mut words = text.lines().map(str::split_whitespace);
    words.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()?.parse().ok()).flatten())
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 40 2 0 0 20 0 1 0 99 0 0";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("nothing"), None);
    }

    #[test]
    fn traffic_is_summed_without_loopback() {
        let text = "Inter-| Receive\n face |bytes\n  lo: 9 0 0 0 0 0 0 0 9 0\neth0: 5 0 0 0 0 0 0 0 7 0\n  b:1 0 0 0 0 0 0 0 2 0\n";
        assert_eq!(traffic(text), (6, 9));
    }

    #[test]
    fn a_share_of_the_processor_is_of_the_time_that_passed() {
        let before = Reading { cpu: Duration::from_secs(1), ..Reading::default() };
        let after = Reading { cpu: Duration::from_millis(1_500), memory: 25, memory_max: 100, received: 1, sent: 2 };
        let used = Use::between("x", &before, &after, Duration::from_secs(2));
        assert_eq!((used.cpu_pct, used.mem_pct), (25.0, 25.0));
    }
}
