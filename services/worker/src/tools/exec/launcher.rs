//! The launcher: a small process between the worker and a command, so that the command is confined and nothing which it
//! starts outlives it.
//!
//! It is this very program, started again with [`ARGUMENT`]. All processes that the command leaves behind, by any
//! number of forks and `setsid`s, become the launcher's children (it is their subreaper), and are killed when the
//! command ends, when it passes a limit, when the worker asks with [`ASK_TO_END`], and when the worker dies: the kernel
//! sends the same signal then. It ends as the command ended. Where the kernel has Landlock the command cannot signal its
//! launcher; elsewhere one that kills it with SIGKILL is killed with it, but processes that it had sent away are not.

use super::{
    cgroup::Cgroup,
    confine,
    plan::Plan,
    spec::Spec,
    watch::{Excess, Temp, Watch},
};
use nix::sys::{
    signal::{SigHandler, SigSet, Signal as Blocked},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, kill_process, prlimit},
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs,
    io::{self, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
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
/// Ended processes that are taken note of before something else is done.
const REAPED_MAX: usize = 256;
/// The first argument of a program that is started as launcher.
const ARGUMENT: &str = "__launch-tool";
/// The first argument of a program that reports what this machine can confine.
const PROBE: &str = "__probe-confinement";
/// The program, regardless of what happened to its file since it was started.
const SELF: &str = "/proc/self/exe";
/// The exit code when the launcher itself has something to say; it is the last line of standard error.
const LAUNCHER_SPEAKS: i32 = 125;
/// The variable in which a launcher gets the word that begins what it says. Its command gets no such variable, and cannot
/// read that of its launcher, so what the command writes is never taken for the launcher's.
const WORD: &str = "AGENTFORGE_LAUNCHER_WORD";
const NOT_STARTED_TEXT: &str = "the command did not start, os error ";
const EXCESS_TEXT: &str = "the command was killed: ";

/// Whether this program's `main` lets it be started as launcher.
static ENABLED: AtomicBool = AtomicBool::new(false);

/// To be called first in `main`: lets this program be the launcher of its worker's commands, and hides its memory and
/// environment from other processes of its user. Returns at once in a program that was not started as a launcher; does
/// not return in one. Without it commands are started directly: they are not confined, and what a command sends away by
/// `setsid` outlives it.
pub fn enable_launcher() {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == OsStr::new(ARGUMENT) => launch(arguments),
        Some(first) if first == OsStr::new(PROBE) => probe(),
        _ => {}
    }
    confine::hide();
    ENABLED.store(cfg!(target_os = "linux") && fs::metadata(SELF).is_ok(), Ordering::Relaxed);
}

/// Whether commands are started by a launcher.
pub(crate) fn is_enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// What this machine can confine.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Confinement {
    /// How much of the file rules the kernel enforces: `all`, `some` or `none`.
    pub(crate) files: String,
    /// Why a command cannot be without a network, if it cannot.
    pub(crate) network: Option<String>,
    /// Why a command with a network shares System V memory with others of its user, if it does.
    pub(crate) ipc: Option<String>,
}

/// Asks a process of its own, which ends confined.
///
/// # Errors
/// When it could not be started, or died.
pub(crate) fn confinement() -> io::Result<Confinement> {
    let output = Command::new(SELF).arg(PROBE).env_clear().output()?;
    serde_json::from_slice(&output.stdout).map_err(io::Error::other)
}

fn probe() -> ! {
    let ipc = confine::leave_ipc().err().map(|error| error.to_string());
    let network = confine::leave_network().err().map(|error| error.to_string());
    let found = Confinement { files: confine::enforced().to_owned(), network, ipc };
    let text = serde_json::to_string(&found).expect("text is JSON");
    let _ = io::stdout().write_all(text.as_bytes());
    exit(0)
}

/// The command that starts the launcher of `spec`. Its environment is the spec's; [`with_word`] comes after that.
pub(super) fn command(spec: &Spec, plan: &Plan) -> Command {
    let mut command = Command::new(SELF);
    let plan = serde_json::to_string(plan).expect("numbers and text are JSON");
    command.arg0("agentforge-launcher").arg(ARGUMENT).arg(plan).arg(&spec.program).args(&spec.argv);
    command
}

/// Gives a launcher the word by which what it says is known, and returns that.
pub(super) fn with_word(command: &mut Command) -> String {
    let word = format!("{:032x}", rand::random::<u128>());
    command.env(WORD, &word);
    word
}

/// What a launcher that has ended says of its command.
#[derive(Debug)]
pub(super) enum Said {
    /// The command never ran.
    NotStarted(io::Error),
    /// It passed a limit; the text names it.
    Exceeded(String),
}

/// What an ended launcher said, if it did: by its word, and as the last line, which is then taken out of the log.
pub(super) fn said(status: ExitStatus, log_tail: &mut String, word: &str) -> Option<Said> {
    let at = log_tail.rfind(word)?;
    let line = log_tail[at + word.len()..].trim().to_owned();
    log_tail.truncate(log_tail[..at].trim_end().len());
    let last = Some(&*line).filter(|_| status.code() == Some(LAUNCHER_SPEAKS))?;
    if let Some(excess) = last.strip_prefix(EXCESS_TEXT) {
        return Some(Said::Exceeded(excess.to_owned()));
    }
    let code = last.strip_prefix(NOT_STARTED_TEXT)?;
    code.trim().parse().ok().map(|code| Said::NotStarted(io::Error::from_raw_os_error(code)))
}

/// The launcher's whole life.
fn launch(mut arguments: impl Iterator<Item = OsString>) -> ! {
    let plan = arguments.next().and_then(|plan| serde_json::from_str::<Plan>(plan.to_str()?).ok());
    let (Some(plan), Some(program), Some(arg0)) = (plan, arguments.next(), arguments.next()) else {
        exit(LAUNCHER_SPEAKS)
    };
    let word = std::env::var(WORD).unwrap_or_default();
    let signals = Signals::block();
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let mut command = Command::new(program);
    command.arg0(arg0).args(arguments).env_remove(WORD);
    let cgroup = plan
        .cgroup
        .as_deref()
        .map(|path| Cgroup::make(Path::new(path), plan.memory_max_bytes, plan.processes_max))
        .transpose();
    let temp = plan.temp_dir.as_deref().map(|dir| Temp::make(Path::new(dir), plan.user)).transpose();
    let (temp, cgroup, started) = match (temp, cgroup) {
        (Ok(temp), Ok(cgroup)) => {
            let started = start(command, &plan, temp.as_ref(), cgroup.as_ref());
            (temp, cgroup, started)
        }
        (Err(error), cgroup) => (None, cgroup.ok().flatten(), Err(error)),
        (Ok(temp), Err(error)) => (temp, None, Err(error)),
    };
    // The command's own pipes end with it; what is left to say goes out after that.
    let log = keep_log();
    let mut family = match started {
        Ok(leader) => Family { leader, ended: None },
        Err(error) => {
            temp.iter().for_each(Temp::remove);
            cgroup.iter().for_each(Cgroup::remove);
            speak(log.as_ref(), &word, &format!("{NOT_STARTED_TEXT}{}", error.raw_os_error().unwrap_or_default()))
        }
    };
    let mut watch = Watch::new(&plan, temp.as_ref().map(Temp::path));
    let mut excess = None;
    while family.ended.is_none() && excess.is_none() {
        // By the clock: a command whose processes end faster than they are reaped leaves no moment without a signal.
        if watch.wait().is_zero() {
            excess = watch.check(rustix::process::getpid());
            continue;
        }
        match signals.next(watch.wait()) {
            Some(Blocked::SIGCHLD) => drop(family.reap()),
            Some(Blocked::SIGUSR1) => break,
            Some(Blocked::SIGINT) => confine::signal_group(family.leader, Signal::INT),
            Some(Blocked::SIGHUP) => confine::signal_group(family.leader, Signal::HUP),
            Some(_) => confine::signal_group(family.leader, Signal::TERM),
            None => {}
        }
    }
    cgroup.iter().for_each(Cgroup::kill);
    family.kill_all();
    temp.iter().for_each(Temp::remove);
    if excess.is_none() && cgroup.as_ref().is_some_and(Cgroup::passed_memory) {
        excess = plan.memory_max_bytes.map(Excess::Memory);
    }
    cgroup.iter().for_each(Cgroup::remove);
    match excess {
        Some(excess) => speak(log.as_ref(), &word, &format!("{EXCESS_TEXT}{excess}")),
        None => end_as(family.ended),
    }
}

fn start(mut command: Command, plan: &Plan, temp: Option<&Temp>, cgroup: Option<&Cgroup>) -> io::Result<Pid> {
    if !plan.network {
        confine::leave_network()?;
    }
    if plan.own_ipc {
        // Where it cannot be had, the worker said so at its start.
        let _ = confine::leave_ipc();
    }
    confine::hide();
    if let Some(temp) = temp.filter(|_| std::env::var_os("TMPDIR").is_none()) {
        command.env("TMPDIR", temp.path());
    }
    confine::confine(&mut command, plan, temp.map(Temp::path), cgroup)?;
    command.spawn().map(|child| Pid::from_child(&child))
}

/// The signals that the launcher waits for.
struct Signals(SignalFd);

impl Signals {
    /// Blocks them, so that they wait until they are asked for; the command begins with none blocked.
    fn block() -> Self {
        let mut awaited = SigSet::empty();
        for signal in [Blocked::SIGUSR1, Blocked::SIGCHLD, Blocked::SIGTERM, Blocked::SIGINT, Blocked::SIGHUP] {
            awaited.add(signal);
        }
        let _ = awaited.thread_block();
        match SignalFd::with_flags(&awaited, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK) {
            Ok(signals) => Self(signals),
            Err(_) => exit(LAUNCHER_SPEAKS),
        }
    }

    /// The next one; `None` when none came for this long.
    fn next(&self, longest: Duration) -> Option<Blocked> {
        let timeout = Timespec { tv_sec: longest.as_secs().cast_signed(), tv_nsec: longest.subsec_nanos().into() };
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout));
        let signal = self.0.read_signal().ok().flatten()?;
        Blocked::try_from(signal.ssi_signo.cast_signed()).ok()
    }
}

/// Says one line to the worker, as the last thing.
fn speak(log: Option<&OwnedFd>, word: &str, text: &str) -> ! {
    if let Some(mut log) = log.and_then(|log| log.try_clone().ok()).map(fs::File::from) {
        let _ = writeln!(log, "\n{word} {text}");
    }
    exit(LAUNCHER_SPEAKS)
}

/// Lets go of the command's pipes and keeps only its log, which no other process inherits. The output that we held open
/// would keep the worker from seeing its end.
fn keep_log() -> Option<OwnedFd> {
    let log = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3).ok();
    let_go_of_pipes();
    log
}

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
    /// Takes note of processes that have ended, of as many as [`REAPED_MAX`]. Whether any is left.
    fn reap(&mut self) -> bool {
        for _ in 0..REAPED_MAX {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.leader => self.ended = Some(status),
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// Kills until no process is left: those whose parent was killed become our children and are found in the next
    /// pass. Groups are killed whole, by one call each: one process after the other would lose the race against a
    /// command that forks without end.
    fn kill_all(&mut self) {
        let own = rustix::process::getpid();
        if self.ended.is_none() {
            // Not reaped: the number still is the command's.
            confine::signal_group(self.leader, Signal::KILL);
        }
        let end = Instant::now() + END_MAX;
        while self.reap() && Instant::now() < end {
            let left = descendants(own);
            let groups: BTreeSet<i32> = left.iter().map(|process| process.group).collect();
            for group in groups.into_iter().filter_map(Pid::from_raw).filter(|group| *group != own) {
                confine::signal_group(group, Signal::KILL);
            }
            for process in left {
                // What forks faster than it is killed loses the right to. It does not bind root.
                let _ = prlimit(Some(process.id), Resource::Nproc, Rlimit { current: Some(0), maximum: Some(0) });
                // ESRCH: it has ended meanwhile, and its id is not given away before it is reaped, by us.
                let _ = kill_process(process.id, Signal::KILL);
            }
            std::thread::sleep(CHECK_INTERVAL);
        }
    }
}

/// A process that came from the command.
struct Process {
    id: Pid,
    group: i32,
}

/// All processes that `ancestor` is a parent of, at any distance.
fn descendants(ancestor: Pid) -> Vec<Process> {
    let (mut children, mut groups): (HashMap<i32, Vec<i32>>, HashMap<i32, i32>) = (HashMap::new(), HashMap::new());
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some((parent, group)) = parent_and_group_in(&stat) {
            children.entry(parent).or_default().push(pid);
            groups.insert(pid, group);
        }
    }
    let (mut found, mut seen) = (vec![ancestor.as_raw_nonzero().get()], HashSet::new());
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        // The table was not read at one moment: a circle in it is possible.
        found.extend(children.get(&parent).into_iter().flatten().copied().filter(|pid| seen.insert(*pid)));
    }
    let ids = found.into_iter().skip(1);
    ids.filter_map(|id| Some(Process { id: Pid::from_raw(id)?, group: *groups.get(&id)? })).collect()
}

/// Parent and process group in a line of `/proc/PID/stat`; the name before them may hold anything, also `)`.
fn parent_and_group_in(stat: &str) -> Option<(i32, i32)> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
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
    fn parent_and_group_are_read_behind_any_name() {
        for (stat, expected) in [
            ("12 (sh) S 7 12 12 0 -1", Some((7, 12))),
            ("12 (a) R 1 (b) S 9 11 12 0", Some((9, 11))),
            ("12 (a b) S", None),
            ("", None),
        ] {
            assert_eq!(parent_and_group_in(stat), expected, "{stat:?}");
        }
    }

    #[test]
    fn a_child_is_among_the_descendants_of_its_parent() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let found: Vec<Pid> = descendants(rustix::process::getpid()).into_iter().map(|process| process.id).collect();
        assert!(found.contains(&Pid::from_child(&child)), "{found:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_a_launcher_says_is_the_last_line_of_one_that_ends_so() {
        use std::os::unix::process::ExitStatusExt;
        let (speaks, other) = (ExitStatus::from_raw(LAUNCHER_SPEAKS << 8), ExitStatus::from_raw(1 << 8));
        let mut text = format!("noise\n\nw0rd {NOT_STARTED_TEXT}13\n");
        let found = said(speaks, &mut text, "w0rd");
        assert!(matches!(found, Some(Said::NotStarted(e)) if e.kind() == io::ErrorKind::PermissionDenied));
        assert_eq!(text, "noise");
        let exceeded = format!("noise\nw0rd {EXCESS_TEXT}{}\n", Excess::Processes(7));
        let found = said(speaks, &mut exceeded.clone(), "w0rd");
        assert!(matches!(found, Some(Said::Exceeded(t)) if t.contains('7') && t.contains("processes")));
        // Neither what ends otherwise nor what does not know the word.
        assert!(said(other, &mut exceeded.clone(), "w0rd").is_none());
        let mut forged = format!("noise\n{EXCESS_TEXT}{}\n", Excess::Processes(7));
        assert!(said(speaks, &mut forged, "w0rd").is_none() && forged.contains("noise\nthe command"));
    }
}
