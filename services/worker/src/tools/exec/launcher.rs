//! The launcher: a small process between the worker and a command, so that nothing which the command starts outlives it.
//!
//! It is this very program, started again with [`ARGUMENT`]. All processes that the command leaves behind, by any
//! number of forks and `setsid`s, become the launcher's children (it is their subreaper), and are killed when the
//! command ends, when the worker asks with [`ASK_TO_END`], and when the worker dies: the kernel sends the same signal
//! then. It holds no pipe of the command and ends as the command ended. A command that kills its launcher with SIGKILL
//! is killed with it, but processes that it had detached by `setsid` are not.

use super::spec::Spec;
use nix::sys::signal::{SigHandler, SigSet, Signal as Blocked};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, kill_process};
use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::process::CommandExt,
    process::{Command, ExitStatus, exit},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// What the worker, or its death, asks with.
pub(super) const ASK_TO_END: Signal = Signal::USR1;
/// How long processes that are killed may take to be gone. Only what sleeps in the kernel takes longer.
pub(super) const END_MAX: Duration = Duration::from_secs(5);
/// Between two checks of what is left.
const CHECK_INTERVAL: Duration = Duration::from_millis(2);
/// The first argument of a program that is started as launcher.
const ARGUMENT: &str = "__launch-tool";
/// The program, regardless of what happened to its file since it was started.
const SELF: &str = "/proc/self/exe";
/// The exit code when the command could not be started; the reason is on standard error.
const NOT_STARTED: i32 = 125;
const NOT_STARTED_TEXT: &str = "the command did not start, os error ";

/// Whether this program's `main` lets it be started as launcher.
static ENABLED: AtomicBool = AtomicBool::new(false);

/// To be called first in `main`: lets this program be the launcher of its worker's commands. Returns at once in a
/// program that was not started as one; does not return in a launcher. Without it commands are started directly, and
/// what a command sends away by `setsid` outlives it.
pub fn enable_launcher() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() == Some(OsStr::new(ARGUMENT)) {
        launch(arguments);
    }
    ENABLED.store(cfg!(target_os = "linux") && fs::metadata(SELF).is_ok(), Ordering::Relaxed);
}

/// Whether commands are started by a launcher.
pub(crate) fn is_enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// The command that starts the launcher of `spec`.
pub(super) fn command(spec: &Spec) -> Command {
    let mut command = Command::new(SELF);
    let memory = spec.memory_max_bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
    command.arg0("agentforge-launcher").arg(ARGUMENT).arg(memory).arg(&spec.program).args(&spec.argv);
    command
}

/// Why the command of an ended launcher was never started, if that is how it ended.
pub(super) fn not_started(status: ExitStatus, log_tail: &str) -> Option<io::Error> {
    let reason = log_tail.strip_prefix(NOT_STARTED_TEXT).filter(|_| status.code() == Some(NOT_STARTED))?;
    reason.trim().parse().ok().map(io::Error::from_raw_os_error)
}

/// The launcher's whole life.
fn launch(mut arguments: impl Iterator<Item = OsString>) -> ! {
    let memory_max = arguments.next().and_then(|bytes| bytes.to_str()?.parse().ok());
    let (Some(program), Some(arg0)) = (arguments.next(), arguments.next()) else { exit(NOT_STARTED) };
    // Blocked, so that they wait until they are asked for; the command begins with none blocked.
    let mut awaited = SigSet::empty();
    for signal in [Blocked::SIGUSR1, Blocked::SIGCHLD, Blocked::SIGTERM, Blocked::SIGINT, Blocked::SIGHUP] {
        awaited.add(signal);
    }
    let _ = awaited.thread_block();
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let mut command = Command::new(program);
    command.arg0(arg0).args(arguments);
    prepare(&mut command, memory_max);
    let leader = match command.spawn() {
        Ok(child) => Pid::from_child(&child),
        Err(error) => {
            eprintln!("{NOT_STARTED_TEXT}{}", error.raw_os_error().unwrap_or_default());
            exit(NOT_STARTED)
        }
    };
    let_go_of_pipes();
    let mut family = Family { leader, ended: None };
    while family.ended.is_none() {
        match awaited.wait() {
            Ok(Blocked::SIGCHLD) => drop(family.reap()),
            Ok(Blocked::SIGUSR1) => break,
            // Meant for the command: it is in the same process group and has got it, too.
            _ => {}
        }
    }
    family.kill_all();
    end_as(family.ended)
}

/// Ties the command to its launcher, and limits its memory.
fn prepare(command: &mut Command, memory_max_bytes: Option<u64>) {
    let parent = rustix::process::getpid();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
        }
        if memory_max_bytes.is_some() {
            rustix::process::setrlimit(Resource::As, Rlimit { current: memory_max_bytes, maximum: memory_max_bytes })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure makes system calls through
    // rustix, which on Linux issues them directly; it allocates nothing, takes no lock and touches no memory but its
    // own captured integers.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(prepare);
    }
}

/// A pipe that we held open would keep the worker from seeing its end.
fn let_go_of_pipes() {
    if let Ok(null) = fs::File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// The command and all that came from it.
struct Family {
    leader: Pid,
    ended: Option<WaitStatus>,
}

impl Family {
    /// Takes note of every process that has ended. Whether any is left.
    fn reap(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.leader => self.ended = Some(status),
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Kills until no process is left: those whose parent was killed become our children and are found in the next
    /// pass.
    fn kill_all(&mut self) {
        let end = Instant::now() + END_MAX;
        while self.reap() && Instant::now() < end {
            for pid in descendants(rustix::process::getpid()) {
                // ESRCH: it has ended meanwhile, and its id is not given away before it is reaped, by us.
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(CHECK_INTERVAL);
        }
    }
}

/// All processes that `ancestor` is a parent of, at any distance.
fn descendants(ancestor: Pid) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parent_in(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut seen) = (vec![ancestor.as_raw_nonzero().get()], HashSet::new());
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        // The table was not read at one moment: a circle in it is possible.
        found.extend(children.get(&parent).into_iter().flatten().copied().filter(|pid| seen.insert(*pid)));
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}

/// The parent in a line of `/proc/PID/stat`; the name before it may hold anything, also `)`.
fn parent_in(stat: &str) -> Option<i32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Ends with the command's own code, or by its own signal.
fn end_as(status: Option<WaitStatus>) -> ! {
    let signal = status.and_then(WaitStatus::terminating_signal);
    if let Some(signal) = signal.and_then(|raw| Blocked::try_from(raw).ok()) {
        let mut set = SigSet::empty();
        set.add(signal);
        // The standard library has taken over some: SIGPIPE is ignored, SIGSEGV is looked at.
        // SAFETY: no handler is installed; the default action touches no memory of ours.
        #[allow(unsafe_code)]
        let _ = unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) };
        let _ = set.thread_unblock();
        let _ = nix::sys::signal::raise(signal);
    }
    exit(status.and_then(WaitStatus::exit_status).unwrap_or(128))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_read_behind_any_name() {
        for (stat, expected) in [
            ("12 (sh) S 7 12 12 0 -1", Some(7)),
            ("12 (a) R 1 (b) S 9 12 12 0", Some(9)),
            ("12 (a b) S", None),
            ("", None),
        ] {
            assert_eq!(parent_in(stat), expected, "{stat:?}");
        }
    }

    #[test]
    fn a_child_is_among_the_descendants_of_its_parent() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let found = descendants(rustix::process::getpid());
        assert!(found.contains(&Pid::from_child(&child)), "{found:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_reason_is_taken_from_a_launcher_that_says_so_alone() {
        use std::os::unix::process::ExitStatusExt;
        let (not_started_status, other) = (ExitStatus::from_raw(NOT_STARTED << 8), ExitStatus::from_raw(1 << 8));
        let text = format!("{NOT_STARTED_TEXT}13\n");
        assert_eq!(not_started(not_started_status, &text).map(|e| e.kind()), Some(io::ErrorKind::PermissionDenied));
        assert!(not_started(other, &text).is_none() && not_started(not_started_status, "x 13").is_none());
    }
}
