//! A cgroup for each command, where this worker may make some: cgroup v2, and a group that was delegated to it.
//!
//! The kernel then counts processes and memory of a command together, and kills all of them by one write, also those that
//! left their parents and groups. The worker moves into a group `worker` of its own: a group that gives limits to others has no
//! processes itself. Nothing here is needed: without it, the launcher measures and kills.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The group that the worker and its launchers are in.
const WORKER: &str = "worker";
/// What groups of commands are called, before a random number.
const RUN: &str = "run-";
/// Tasks of a command besides its processes: threads count too.
const THREADS: u64 = 1024;
/// How long a group may take to be empty once its processes were killed.
const REMOVE_MAX: Duration = Duration::from_secs(1);

/// The group below which groups of commands are made.
#[derive(Clone, Debug)]
pub(crate) struct CgroupRoot {
    path: PathBuf,
    /// The controllers that commands' groups have, of `pids` and `memory`.
    limits: Vec<&'static str>,
}

impl CgroupRoot {
    /// Takes the worker's own group for its commands.
    ///
    /// # Errors
    /// Why it cannot, in words: it is said and then lived without.
    pub(crate) fn take() -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let own = own_group(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)
            .ok_or("cgroup v2 is not mounted here, or this process is in no group of it")?;
        Self::below(&own)
    }

    /// As [`Self::take`], in this group.
    fn below(own: &Path) -> Result<Self, String> {
        // A service manager may have put the worker into a group of this name already (DelegateSubgroup= of systemd).
        let (own, worker) = match own.parent().filter(|_| own.file_name().is_some_and(|name| name == WORKER)) {
            Some(parent) => (parent, own.to_owned()),
            None => (own, own.join(WORKER)),
        };
        let failed = |error: io::Error| format!("{}: {error}", own.display());
        let own_id = std::process::id();
        let is_alone = |group: &Path| {
            let members = fs::read_to_string(group.join("cgroup.procs")).map_err(failed)?;
            Ok::<_, String>(members.lines().all(|id| id.trim().parse() == Ok(own_id)))
        };
        // Another's group is not ours to arrange: that of a session, of the machine, of a pod without delegation.
        if !own.join("cgroup.type").exists() {
            return Err(format!("{} is the root of all groups; delegate one to the worker", own.display()));
        }
        if !is_alone(own)? {
            return Err(format!("{} has other processes than the worker; delegate a group to it", own.display()));
        }
        match fs::create_dir(&worker) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        fs::write(worker.join("cgroup.procs"), own_id.to_string()).map_err(failed)?;
        let mut limits = Vec::new();
        for controller in ["pids", "memory"] {
            if fs::write(own.join("cgroup.subtree_control"), format!("+{controller}")).is_ok() {
                limits.push(controller);
            }
        }
        let root = Self { path: own.to_owned(), limits };
        root.remove_abandoned();
        // The proof: one is made, and can be killed as a whole (since kernel 5.14).
        let trial = Cgroup::make(&root.next(), None, 1).map_err(failed)?;
        let can_kill = trial.path.join("cgroup.kill").exists();
        trial.remove();
        if can_kill { Ok(root) } else { Err("the kernel is older than 5.14: it has no cgroup.kill".to_owned()) }
    }

    /// What the kernel limits for a command as a whole, of `pids` and `memory`.
    pub(crate) fn limits(&self) -> &[&'static str] {
        &self.limits
    }

    /// A name for one command's group that no other has had.
    pub(super) fn next(&self) -> PathBuf {
        self.path.join(format!("{RUN}{:016x}", rand::random::<u64>()))
    }

    /// Groups of an earlier worker that was killed are empty: its launchers have ended what was in them.
    fn remove_abandoned(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(RUN)) {
                let _ = fs::write(entry.path().join("cgroup.kill"), "1");
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// The group of one command.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes it, with the limits that its files offer.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn make(path: &Path, memory_max_bytes: Option<u64>, processes_max: u32) -> io::Result<Self> {
        fs::create_dir(path)?;
        let made = Self { path: path.to_owned() };
        let set = |file: &str, value: String| match fs::write(path.join(file), value) {
            // Without the controller there is no such file.
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                Err(error)
            }
            _ => Ok(()),
        };
        let limited = || -> std::io::Result<()> {
            // The launcher counts processes and says which limit was passed; this one holds when it is too slow.
            set("pids.max", (4 * u64::from(processes_max) + THREADS).to_string())?;
            if let Some(bytes) = memory_max_bytes {
                set("memory.max", bytes.to_string())?;
                set("memory.swap.max", "0".to_owned())?;
                set("memory.oom.group", "1".to_owned())?;
            }
            Ok(())
        };
        limited().inspect_err(|_| made.remove())?;
        Ok(made)
    }

    /// The file to which a process writes 0 to enter. Who may is decided when it is opened.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn entrance(&self) -> io::Result<fs::File> {
        fs::File::options().write(true).open(self.path.join("cgroup.procs"))
    }

    /// Ends one whose launcher is gone.
    pub(super) fn end_abandoned(path: &Path) {
        let left = Self { path: path.to_owned() };
        left.kill();
        left.remove();
    }

    /// Kills everything in it.
    pub(super) fn kill(&self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }

    /// Whether the kernel killed it because of its memory.
    pub(super) fn passed_memory(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        killed_in(&events)
    }

    /// Removes it, once it is empty.
    pub(super) fn remove(&self) {
        let end = Instant::now() + REMOVE_MAX;
        while fs::remove_dir(&self.path).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
            && Instant::now() < end
        {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn killed_in(events: &str) -> bool {
    let count = |line: &str| line.strip_prefix("oom_kill ").and_then(|n| n.trim().parse::<u64>().ok());
    events.lines().filter_map(count).any(|kills| kills > 0)
}

/// Where the file system shows the group of this process, of its `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn own_group(cgroup: &str, mountinfo: &str) -> Option<PathBuf> {
    let group = Path::new(cgroup.lines().find_map(|line| line.strip_prefix("0::"))?);
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        if !kind.starts_with("cgroup2 ") {
            return None;
        }
        // Blanks in a path are written \040: no service manager makes such a path.
        Some(Path::new(point).join(group.strip_prefix(root).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_below_its_mount() {
        let hybrid = "41 33 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      42 33 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let inside = "42 33 0:31 /pods/a /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw";
        for (cgroup, mounts, expected) in [
            ("4:memory:/x\n0::/\n", hybrid, Some("/sys/fs/cgroup/unified/")),
            ("0::/system.slice/worker.service\n", hybrid, Some("/sys/fs/cgroup/unified/system.slice/worker.service")),
            ("0::/pods/a/b\n", inside, Some("/sys/fs/cgroup/b")),
            ("0::/elsewhere\n", inside, None),
            ("4:memory:/x\n", hybrid, None),
            ("0::/\n", "", None),
        ] {
            assert_eq!(own_group(cgroup, mounts), expected.map(PathBuf::from), "{cgroup}");
        }
    }

    #[test]
    fn a_kill_for_memory_is_in_the_events() {
        assert!(killed_in("low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 1\n"));
        assert!(!killed_in("low 0\nmax 12\noom 0\noom_kill 0\n") && !killed_in(""));
    }
}
