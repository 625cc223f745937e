//! How much memory this process may have: the limit of its cgroup, else what the machine has.
//!
//! A container's limit is in its cgroup (version 2 or 1); the limits of the groups above hold too, as far as they can be
//! seen.

use std::path::Path;

/// Above this a limit of cgroup 1 means that there is none.
const NO_LIMIT: u64 = 1 << 60;

/// Assumed where nothing can be read.
const UNKNOWN: u64 = 1 << 30;

/// Bytes.
pub(crate) fn limit() -> u64 {
    limit_below(Path::new("/"))
}

fn limit_below(root: &Path) -> u64 {
    let read = |path: &str| std::fs::read_to_string(root.join(path.trim_start_matches('/'))).ok();
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().flat_map(group_files).filter_map(|file| read(&file));
    let limits = limits.filter_map(|text| text.trim().parse::<u64>().ok()).filter(|bytes| *bytes < NO_LIMIT);
    let machine = read("proc/meminfo").as_deref().and_then(machine_total);
    limits.chain(machine).min().unwrap_or(UNKNOWN)
}

/// The files that may hold the limit of a group, a line of `/proc/self/cgroup`, and of those above it.
fn group_files(line: &str) -> Vec<String> {
    let mut parts = line.splitn(3, ':');
    let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (base, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        v1 if v1.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return Vec::new(),
    };
    let mut files = vec![format!("{base}/{file}")];
    let mut above = String::new();
    // A path that leaves the mounted tree, as seen in a namespace, names no file here.
    for part in path.split('/').filter(|part| !part.is_empty() && *part != "..") {
        above = format!("{above}/{part}");
        files.push(format!("{base}{above}/{file}"));
    }
    files
}

fn machine_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(files: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        limit_below(root.path())
    }

    #[test]
    fn the_least_of_the_groups_and_the_machine() {
        const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:        2048 kB\nMemFree: 1 kB\n");
        let v2 = ("proc/self/cgroup", "0::/a/b\n");
        assert_eq!(limit(&[]), UNKNOWN);
        assert_eq!(limit(&[MACHINE]), 2 << 20);
        assert_eq!(limit(&[MACHINE, v2, ("sys/fs/cgroup/a/b/memory.max", "max\n")]), 2 << 20);
        assert_eq!(limit(&[MACHINE, v2, ("sys/fs/cgroup/a/b/memory.max", "1048576\n")]), 1 << 20);
        assert_eq!(limit(&[MACHINE, v2, ("sys/fs/cgroup/a/memory.max", "4096\n")]), 4096);
        // As a container sees itself.
        assert_eq!(limit(&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "4096\n")]), 4096);
        let v1 = ("proc/self/cgroup", "5:devices:/x\n4:memory:/x\n0::/\n");
        assert_eq!(limit(&[MACHINE, v1, ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "8192\n")]), 8192);
        let none = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit(&[MACHINE, v1, none]), 2 << 20);
    }
}
