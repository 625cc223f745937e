//! Child processes that cannot outlive the test process.
//!
//! The stack has children of its own (`tools/stack/src/child.rs`), and they stay two: those begin as a command of
//! `agentforge-stack`, which a test of a library does not have; these are started by a thread that all tests share, are
//! waited for when they are dropped, may run as another user, and end as a test says.
//!
//! Every child is started by one thread that lives as long as the process: the death signal of
//! Linux fires when the starting *thread* ends, and test threads end early. `setpriv` of util-linux
//! sets it; where that is missing, children are killed on drop only.

use rustix::process::{Pid, kill_process};
use std::{
    fs::File,
    io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    time::Duration,
};
use tokio::time::{Instant, sleep};

pub use rustix::process::Signal;

/// How a child's command is built: program, arguments, environment, and as whom it runs.
pub(crate) struct Spec {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub envs: Vec<(String, String)>,
    pub clear_env: bool,
    /// User and group id to run as; `None`: as this process.
    pub run_as: Option<(u32, u32)>,
    /// Sent by the kernel when the test process dies. SIGKILL for most, SIGQUIT for PostgreSQL.
    pub death_signal: &'static str,
    pub log: PathBuf,
}

/// A running child with its log file.
pub(crate) struct ChildHandle {
    child: std::process::Child,
    status: Option<ExitStatus>,
    log: PathBuf,
}

impl Spec {
    pub(crate) fn new(program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            clear_env: false,
            run_as: None,
            death_signal: "KILL",
            log: log.into(),
        }
    }

    pub(crate) fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub(crate) fn start(self) -> io::Result<ChildHandle> {
        let out = File::options().create(true).append(true).open(&self.log)?;
        let err = out.try_clone()?;
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = on_starter_thread(command)?;
        Ok(ChildHandle { child, status: None, log: self.log })
    }

    /// The command, wrapped so that it gets a death signal and the wanted user.
    pub(crate) fn command(&self) -> Command {
        let mut command = match setpriv() {
            Some(setpriv) => {
                let mut c = Command::new(setpriv);
                if let Some((uid, gid)) = self.run_as {
                    c.args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups"]);
                }
                c.arg(format!("--pdeathsig={}", self.death_signal)).arg("--").arg(&self.program);
                c
            }
            None => {
                use std::os::unix::process::CommandExt;
                let mut c = Command::new(&self.program);
                if let Some((uid, gid)) = self.run_as {
                    c.gid(gid).uid(uid);
                }
                c
            }
        };
        command.args(&self.args);
        if self.clear_env {
            command.env_clear();
        }
        command.envs(self.envs.iter().map(|(k, v)| (k, v)));
        command
    }
}

impl ChildHandle {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        tail(&self.log)
    }

    /// The exit status if the child has ended.
    pub(crate) fn try_status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("our own child can be waited for");
        }
        self.status
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.try_status().is_some() {
            return;
        }
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a child has a positive pid");
        // The child is not reaped yet, so the pid is still its own even if it has just ended.
        kill_process(pid, signal).unwrap_or_else(|e| panic!("signal {signal:?} to {}: {e}", self.pid()));
    }

    /// SIGSTOP, and waits until no thread runs any more: the signal by itself leaves them a moment.
    pub(crate) fn pause(&mut self) {
        const LONGEST: Duration = Duration::from_secs(5);
        self.signal(Signal::STOP);
        let end = std::time::Instant::now() + LONGEST;
        while !stands_still(self.pid()) {
            assert!(std::time::Instant::now() < end, "process {} still runs after SIGSTOP", self.pid());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for the end; `None` when the deadline passes first.
    pub(crate) async fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.try_status() {
                return Some(status);
            }
            if Instant::now() >= end {
                return None;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGKILL, then waits until the process is gone.
    pub(crate) fn kill9(&mut self) {
        if self.try_status().is_none() {
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
    }
}

impl Drop for ChildHandle {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Whether every thread is stopped, where the system reports it (Linux).
fn stands_still(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        // The state is the first word after the name in parentheses; the name may hold anything.
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 't']))
    })
}

/// Exit code as a shell shows it: the code, or 128 + signal.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// The last lines of a log, enough to see why a process failed.
pub(crate) fn tail(path: &Path) -> String {
    const LINES: usize = 60;
    let text = std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Prints a log when the test that owns it is failing.
pub(crate) fn print_if_failing(name: &str, log: &Path) {
    if std::thread::panicking() {
        eprintln!("---- last lines of {name} ({}) ----\n{}\n----", log.display(), tail(log));
    }
}

fn setpriv() -> Option<&'static PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let known = ["/usr/bin/setpriv", "/bin/setpriv"].into_iter().map(PathBuf::from);
            known.into_iter().find(|p| p.exists())
        })
        .as_ref()
}

type Order = (Command, mpsc::SyncSender<io::Result<std::process::Child>>);

/// Tests that start a process at the same moment; one more waits for its turn.
const ORDERS_MAX: usize = 64;

fn on_starter_thread(command: Command) -> io::Result<std::process::Child> {
    static STARTER: OnceLock<std::sync::Mutex<mpsc::SyncSender<Order>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, inbox) = mpsc::sync_channel::<Order>(ORDERS_MAX);
        let work = move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        };
        std::thread::Builder::new().name("starter".into()).spawn(work).expect("a thread can be started");
        std::sync::Mutex::new(orders)
    });
    let (answer, result) = mpsc::sync_channel(1);
    starter.lock().expect("nothing panics under this lock").send((command, answer)).expect("the starter never ends");
    result.recv().expect("the starter answers each order")
}
