//! What a command and its descendants use, measured by their launcher.
//!
//! The kernel's limits are for one process or for a whole user. These are for one command: its number of processes,
//! their private memory together, and what its temporary directory holds, files included that were removed and are
//! still open. Checks cost little: children are read from their parents, and the next check waits at least
//! [`PATIENCE`] times as long as the last one took.

use super::plan::Plan;
use rustix::process::Pid;
use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Between two checks, while the command is young and later.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));
/// Until when it is young.
const YOUNG: Duration = Duration::from_secs(2);
/// Share of the launcher's time that checks may take is one in this many.
const PATIENCE: u32 = 20;
/// Entries of the temporary directory that are looked at; more of them are too many.
const ENTRIES_MAX: usize = 100_000;

/// A limit that was passed. Its text names the limit and the field of the tools file that raises it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    Processes(u32),
    Memory(u64),
    Temp(u64),
    Entries,
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
        self.next = Instant::now() + interval.max(begun.elapsed() * PATIENCE);
        excess
    }

    fn measure(&self, launcher: Pid) -> Option<Excess> {
        let most = self.processes_max as usize;
        let processes = family(launcher, most + 1);
        if processes.len() > most {
            return Some(Excess::Processes(self.processes_max));
        }
        if let Some(max) = self.memory_max_bytes {
            let pages: u64 = processes.iter().filter_map(|pid| private_pages(*pid)).sum();
            if pages.saturating_mul(self.page_bytes) > max {
                return Some(Excess::Memory(max));
            }
        }
        let temp = self.temp.as_deref()?;
        let device = fs::metadata(temp).ok()?.dev();
        let Some(kept) = held(temp) else { return Some(Excess::Entries) };
        let removed: u64 = processes.iter().map(|pid| removed_and_open(*pid, device)).sum();
        (kept + removed > self.temp_max_bytes).then_some(Excess::Temp(self.temp_max_bytes))
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

/// Pages in memory that are neither of a file nor shared.
fn private_pages(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut fields = text.split(' ').skip(1).map_while(|field| field.parse::<u64>().ok());
    Some(fields.next()?.saturating_sub(fields.next()?))
}

/// Bytes on the disk below a directory; `None` when it has too many entries. What vanishes meanwhile does not count.
fn held(dir: &Path) -> Option<u64> {
    let (mut folders, mut bytes, mut entries) = (vec![dir.to_owned()], 0, 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            entries += 1;
            if entries > ENTRIES_MAX {
                return None;
            }
            let Ok(about) = entry.metadata() else { continue };
            bytes += about.blocks() * 512;
            if about.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Some(bytes)
}

/// Bytes of files on a device that have no name any more and that the process holds open.
fn removed_and_open(pid: i32, device: u64) -> u64 {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let files = open.filter_map(|entry| fs::metadata(entry.path()).ok());
    files.filter(|about| about.is_file() && about.nlink() == 0 && about.dev() == device).map(|a| a.blocks() * 512).sum()
}

/// A directory of a command's own, which only its user can read.
pub(super) struct Temp(PathBuf);

impl Temp {
    /// Makes it below `root`, with the launcher's process id in its name: two processes have never one at once.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn make(root: &Path, user: Option<super::spec::User>) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let dir = root.join(std::process::id().to_string());
        // Of a launcher that was killed before it could remove it.
        clear(&dir);
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        if let Some(user) = user {
            std::os::unix::fs::chown(&dir, Some(user.uid), Some(user.gid))?;
        }
        Ok(Self(dir))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes it with all that is in it.
    pub(super) fn remove(&self) {
        clear(&self.0);
    }
}

/// Removes a directory, also if it holds directories that deny it.
pub(super) fn clear(dir: &Path) {
    if fs::remove_dir_all(dir).is_ok() {
        return;
    }
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        use std::os::unix::fs::PermissionsExt;
        let _ = fs::set_permissions(&folder, fs::Permissions::from_mode(0o700));
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
    }
    let _ = fs::remove_dir_all(dir);
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let removed = removed_and_open(child.id().cast_signed(), device);
        assert!((300_000..400_000).contains(&removed), "{removed}");
        assert!(private_pages(child.id().cast_signed()).is_some_and(|pages| pages > 0));
        let family = family(rustix::process::getpid(), 1000);
        assert!(family.contains(&child.id().cast_signed()), "{family:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_directory_that_denies_its_removal_is_removed() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("x");
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/file"), "").unwrap();
        for path in ["a/b", "a"] {
            fs::set_permissions(dir.join(path), fs::Permissions::from_mode(0o000)).unwrap();
        }
        clear(&dir);
        assert!(!dir.exists());
    }
}
