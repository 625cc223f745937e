//! Child processes that die with this one, even when it is killed with SIGKILL. Started by `dev` and by benchmarks.
//!
//! The kernel's death signal is set by the child itself: it begins as the hidden `run-child` of `agentforge-stack`, which
//! sets the signal and then becomes the real program under the same process id. The signal fires when the *thread* that
//! started the child ends, so each child has a thread that starts it and waits for it. Children lead process groups of
//! their own: Ctrl-C in a terminal reaches only this process, which then stops them in order.
//!
//! Tests have children of their own, in `tests/harness`: a test's program has no `run-child`, and is tested before there
//! is an `agentforge-stack`.

use agentforge_terminal::{Failure, Result};
use rustix::process::{
    Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
};
use tokio::sync::oneshot;

/// Arguments of the hidden `run-child`.
#[derive(Debug, clap::Args)]
pub struct RunChildArgs {
    /// Who must be the parent
    #[arg(long)]
    parent: i32,
    /// The program and its arguments
    #[arg(last = true, required = true, num_args = 1..)]
    command: Vec<OsString>,
}

/// Sets the death signal and becomes the program; returns only when that fails.
pub fn run_child(args: &RunChildArgs) -> Failure {
    if let Err(e) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return Failure::new(format!("setting the death signal failed: {e}"));
    }
    // The parent may have died before the signal was set; then it never fires.
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(args.parent) {
        return Failure::new("the parent is gone");
    }
    let Some((program, rest)) = args.command.split_first() else {
        return Failure::usage("there is no program to run");
    };
    let error = Command::new(program).args(rest).exec();
    Failure::new(format!("{} cannot be started: {error}", PathBuf::from(program).display()))
}

/// How a child is started.
#[derive(Clone, Debug)]
pub struct Spec {
    /// What messages about it call it.
    pub name: &'static str,
    /// The program's path.
    pub program: PathBuf,
    /// The arguments behind the program's name.
    pub args: Vec<OsString>,
    /// Set on top of this process's environment.
    pub env: BTreeMap<String, String>,
    /// Its stdout and stderr are appended here.
    pub log: PathBuf,
}

/// A child that was started. Killed when dropped.
pub struct Child {
    /// Its process id; the child leads the process group of the same number.
    pub pid: u32,
    /// The process itself: its id may be given to another as soon as it has ended.
    process: OwnedFd,
    exit: oneshot::Receiver<io::Result<ExitStatus>>,
    /// How it ended, once that is known.
    status: Option<ExitStatus>,
}

impl Spec {
    /// Starts it.
    ///
    /// # Errors
    /// The log cannot be opened, or no process or thread can be made.
    pub async fn start(&self) -> io::Result<Child> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(starter()?);
        command.args(["run-child", "--parent", &std::process::id().to_string(), "--"]);
        command.arg(&self.program).args(&self.args).envs(&self.env).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let (started, running) = oneshot::channel();
        let (ended, exit) = oneshot::channel();
        let work = move || match command.spawn() {
            Err(e) => drop(started.send(Err(e))),
            Ok(mut child) => {
                // Nothing has waited for it yet, so its id is still its own.
                let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
                if process.is_err() {
                    let _ = child.kill();
                }
                let _ = started.send(process.map(|process| (child.id(), process)).map_err(io::Error::from));
                let _ = ended.send(child.wait());
            }
        };
        std::thread::Builder::new().name(format!("child-{}", self.name)).spawn(work)?;
        let (pid, process) = running.await.map_err(|_| io::Error::other("the starting thread ended"))??;
        Ok(Child { pid, process, exit, status: None })
    }
}

/// The program that has `run-child`: next to this one, or this one, which may have any name.
fn starter() -> io::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let stack = here.with_file_name("agentforge-stack");
    Ok(if stack.is_file() { stack } else { here })
}

impl Child {
    /// Waits for its end. Cancel-safe.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let status = (&mut self.exit).await.map_err(|_| io::Error::other("the waiting thread ended"))??;
        self.status = Some(status);
        Ok(status)
    }

    /// How it ended, if it has.
    pub fn try_ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.exit.try_recv().ok().and_then(io::Result::ok);
        }
        self.status
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.ended().await;
    }

    /// Sends a signal; a process that has ended already is not an error.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.process, signal);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// The last lines of a log, for a message about why its process ended.
pub fn log_tail(path: &std::path::Path, lines: usize) -> Result<String, io::Error> {
    use std::io::{Read, Seek, SeekFrom};
    const TAIL_BYTES: u64 = 16 << 10;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    Ok(all[all.len().saturating_sub(lines)..].join("\n"))
}
