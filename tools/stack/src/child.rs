//! Child processes that die with this one, even when it is killed with SIGKILL.
//!
//! The kernel's death signal is set by the child itself: this program starts itself as the hidden `run-child`, which
//! sets the signal and then becomes the real program under the same process id. The signal fires when the *thread* that
//! started the child ends, so each child has a thread that starts it and waits for it. Children lead process groups of
//! their own: Ctrl-C in a terminal reaches only this process, which then stops them in order.

use agentforge_terminal::{Failure, Result};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io,
    os::unix::process::CommandExt,
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

/// A child that was started.
pub struct Child {
    /// Its process id; the child leads the process group of the same number.
    pub pid: u32,
    exit: oneshot::Receiver<io::Result<ExitStatus>>,
}

impl Spec {
    /// Starts it.
    ///
    /// # Errors
    /// The log cannot be opened, or no process or thread can be made.
    pub async fn start(&self) -> io::Result<Child> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["run-child", "--parent", &std::process::id().to_string(), "--"]);
        command.arg(&self.program).args(&self.args).envs(&self.env).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let (started, pid) = oneshot::channel();
        let (ended, exit) = oneshot::channel();
        let work = move || match command.spawn() {
            Err(e) => drop(started.send(Err(e))),
            Ok(mut child) => {
                let _ = started.send(Ok(child.id()));
                let _ = ended.send(child.wait());
            }
        };
        std::thread::Builder::new().name(format!("child-{}", self.name)).spawn(work)?;
        let pid = pid.await.map_err(|_| io::Error::other("the starting thread ended"))??;
        Ok(Child { pid, exit })
    }
}

impl Child {
    /// Waits for its end. Cancel-safe.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        (&mut self.exit).await.map_err(|_| io::Error::other("the waiting thread ended"))?
    }

    /// Sends a signal; a process that has ended already is not an error.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
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
