//! What a command and its descendants use, measured by their launcher.
//!
//! The kernel's limits are for one process or for a whole user. These are for one command: its number of processes,
//! the memory that belongs to them together, and what its temporary directory holds, files included that were removed and are
//! still open. Checks cost little: children are read from their parents, and the next check waits at least
//! [`PATIENCE`] times as long as the last one took.

use super::plan::Plan;
use super::remove::clear;
use rustix::process::Pid;
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Between two checks, while the command is young and later.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));
/// Until when it is young.
const YOUNG: Duration = Duration::from_secs(2);
/// Share of the launcher's time that checks may take is one in this many, unless that would make it wait for longer.
const PATIENCE: u32 = 20;
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Entries of the temporary directory that are counted; more of them are too many.
const ENTRIES_MAX: usize = 10_000;

/// A limit that was passed. Its text names the limit and the field of the tools file that raises it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    Processes(u32),
    Memory(u64),
    Temp(u64),
    Entries,
    /// Part of the temporary directory could not be measured.
    Unmeasured(io::ErrorKind),
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Processes(max) => {
                write!(f, "it had more than {max} processes; `processes` in the tools file raises the limit")
            }
            Self::Memory(max) => {
                write!(f, "its processes used more than {max} bytes; `memory` in the tools file raises the limit")
            }
            Self::Temp(max) => {
                write!(
                    f,
                    "its temporary files exceeded {max} bytes; `temp_max` in the tools file, or EXEC_TEMP_MAX, raises the limit"
                )
            }
            Self::Entries => write!(f, "its temporary directory held more than {ENTRIES_MAX} files"),
            Self::Unmeasured(kind) => {
                write!(f, "a part of its temporary directory is closed or too deep to be measured: {kind}")
            }
        }
    }
}

/// Checks a command from time to time.
pub(super) struct Watch {
    processes_max: u32,
    memory_max_bytes: Option<u64>,
    temp_max_bytes: u64,
    temp: Option<PathBuf>,
    page_bytes: u64,
    started: Instant,
    next: Instant,
}

impl Watch {
    pub(super) fn new(plan: &Plan, temp: Option<&Path>) -> Self {
        let started = Instant::now();
        Self {
            processes_max: plan.processes_max,
            memory_max_bytes: plan.memory_max_bytes,
            temp_max_bytes: plan.temp_max_bytes,
            temp: temp.map(Path::to_owned),
            page_bytes: rustix::param::page_size() as u64,
            started,
            next: started + INTERVAL.0,
        }
    }

    /// Until the next check.
    pub(super) fn wait(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Whether a limit has been passed. `launcher` itself does not count.
    pub(super) fn check(&mut self, launcher: Pid) -> Option<Excess> {
        let begun = Instant::now();
        let excess = self.measure(launcher);
        let interval = if begun - self.started < YOUNG { INTERVAL.0 } else { INTERVAL.1 };
        self.next = Instant::now() + interval.max(begun.elapsed() * PATIENCE).min(WAIT_MAX);
        excess
    }

    fn measure(&self, launcher: Pid) -> Option<Excess> {
        let most = self.processes_max as usize;
        let processes = family(launcher, most + 1);
        if processes.len() > most {
            return Some(Excess::Processes(self.processes_max));
        }
        if let Some(max) = self.memory_max_bytes {
            let resident: u64 = processes.iter().filter_map(|pid| pages(*pid)).map(|pages| pages.resident).sum();
            // The quick sum counts pages of the system's libraries and those that a fork shares once for each process.
            if resident.saturating_mul(self.page_bytes) > max {
                let own: u64 = processes.iter().map(|pid| own_bytes(*pid, self.page_bytes)).sum();
                if own > max {
                    return Some(Excess::Memory(max));
                }
            }
        }
        let temp = self.temp.as_deref()?;
        let device = fs::metadata(temp).ok()?.dev();
        let kept = match held(temp) {
            Ok(bytes) => bytes,
            Err(excess) => return Some(excess),
        };
        let mut removed = BTreeMap::new();
        processes.iter().for_each(|pid| find_removed(*pid, device, &mut removed));
        (kept + removed.values().sum::<u64>() > self.temp_max_bytes).then_some(Excess::Temp(self.temp_max_bytes))
    }
}

/// Descendants of a process, at most `most` of them.
fn family(ancestor: Pid, most: usize) -> Vec<i32> {
    let mut found = vec![ancestor.as_raw_nonzero().get()];
    let mut next = 0;
    while next < found.len() && found.len() <= most {
        found.extend(children(found[next]));
        next += 1;
    }
    found.remove(0);
    found
}

fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Pages of a process in memory.
struct Pages {
    resident: u64,
    /// Of files, or shared.
    shared: u64,
}

fn pages(pid: i32) -> Option<Pages> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut fields = text.split(' ').skip(1).map_while(|field| field.parse::<u64>().ok());
    Some(Pages { resident: fields.next()?, shared: fields.next()? })
}

/// Bytes of memory that belong to a process: not of a file, and what it shares with others in equal parts. Where the
/// kernel does not say, what it shares with a parent since the fork is counted whole.
fn own_bytes(pid: i32, page_bytes: u64) -> u64 {
    let exact = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok().map(|text| {
        let kib = |line: &str| line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
        let own = text.lines().filter(|line| line.starts_with("Pss_Anon:") || line.starts_with("Pss_Shmem:"));
        own.filter_map(kib).sum::<u64>() * 1024
    });
    let estimate = || pages(pid).map_or(0, |pages| pages.resident.saturating_sub(pages.shared) * page_bytes);
    exact.unwrap_or_else(estimate)
}

/// Bytes on the disk below a directory. What vanishes meanwhile does not count.
fn held(dir: &Path) -> Result<u64, Excess> {
    let known = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        kind => Err(Excess::Unmeasured(kind)),
    };
    let (mut folders, mut bytes, mut entries) = (vec![dir.to_owned()], 0, 0);
    while let Some(folder) = folders.pop() {
        let all = match fs::read_dir(folder) {
            Ok(all) => all,
            Err(error) => {
                known(error)?;
                continue;
            }
        };
        for entry in all {
            entries += 1;
            if entries > ENTRIES_MAX {
                return Err(Excess::Entries);
            }
            match entry.and_then(|entry| Ok((entry.metadata()?, entry))) {
                Ok((about, entry)) => {
                    bytes += about.blocks() * 512;
                    if about.is_dir() {
                        folders.push(entry.path());
                    }
                }
                Err(error) => known(error)?,
            }
        }
    }
    Ok(bytes)
}

/// Finds files on a device that have no name any more and that the process holds open or in its memory: their bytes by
/// their inode.
fn find_removed(pid: i32, device: u64, found: &mut BTreeMap<u64, u64>) {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    for about in open.filter_map(|entry| fs::metadata(entry.path()).ok()) {
        if about.is_file() && about.nlink() == 0 && about.dev() == device {
            found.insert(about.ino(), about.blocks() * 512);
        }
    }
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    for (inode, bytes) in maps.lines().filter_map(|line| mapped_and_removed(line, device)) {
        let known = found.entry(inode).or_default();
        *known = bytes.max(*known);
    }
}

/// Inode and length of a mapped file without a name, of a line of `/proc/PID/maps`.
fn mapped_and_removed(line: &str, device: u64) -> Option<(u64, u64)> {
    let mut fields = line.strip_suffix(" (deleted)")?.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (major, minor) = fields.nth(2)?.split_once(':')?;
    let inode = fields.next()?.parse().ok()?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let is_here = number(major)? == u64::from(rustix::fs::major(device))
        && number(minor)? == u64::from(rustix::fs::minor(device));
    is_here.then_some((inode, number(end)?.saturating_sub(number(start)?)))
}

/// A directory of a command's own, which only its user can read.
pub(super) struct Temp(PathBuf);

impl Temp {
    /// Makes it; it must not exist.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn make(dir: &Path, user: Option<super::spec::User>) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().mode(0o700).create(dir)?;
        let made = Self(dir.to_owned());
        if let Some(user) = user {
            let given = std::os::unix::fs::chown(&made.0, Some(user.uid), Some(user.gid));
            given.inspect_err(|_| made.remove())?;
        }
        Ok(made)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes it with all that is in it.
    pub(super) fn remove(&self) {
        clear(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_without_a_name_is_found_in_a_line() {
        let device = rustix::fs::makedev(0xfe, 1);
        let line = "7f0000000000-7f0000002000 rw-s 00000000 fe:01 42        /tmp/a b (deleted)";
        assert_eq!(mapped_and_removed(line, device), Some((42, 0x2000)));
        assert_eq!(mapped_and_removed(line, rustix::fs::makedev(0xfe, 2)), None);
        assert_eq!(mapped_and_removed(&line.replace(" (deleted)", ""), device), None);
        assert_eq!(mapped_and_removed("", device), None);
    }
    use std::process::{Command, Stdio};

    #[test]
    fn what_a_command_holds_is_counted_also_when_it_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "cd {}; mkdir -p a/b; head -c 200000 /dev/zero > a/b/kept; head -c 300000 /dev/zero > gone; exec 5< gone; \
             rm gone; echo ready; read -r _",
            dir.path().display()
        );
        let mut child =
            Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let device = fs::metadata(dir.path()).unwrap().dev();
        let kept = held(dir.path()).unwrap();
        assert!((200_000..300_000).contains(&kept), "{kept}");
        let mut removed = BTreeMap::new();
        find_removed(child.id().cast_signed(), device, &mut removed);
        let bytes: u64 = removed.into_values().sum();
        assert!((300_000..400_000).contains(&bytes), "{bytes}");
        let own = own_bytes(child.id().cast_signed(), 4096);
        assert!((4096..1 << 24).contains(&own), "{own}");
        let family = family(rustix::process::getpid(), 1000);
        assert!(family.contains(&child.id().cast_signed()), "{family:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
