//! A command's process group: starting it, stopping it whole, leaving nothing behind.
//!
//! Relies on the leader staying unreaped until the group was killed: while it is a zombie its id
//! cannot be given to a stranger, so a signal to the group never hits anybody else. Dropping a
//! `Group` kills it. Unsafe code of the worker is here, one call each in `limit` and `watched`, and two in `launcher`.

use super::launcher;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};
use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::{ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    runtime::Handle,
    sync::oneshot,
};

/// Starts commands from one thread that lives as long as they do. A child asks the kernel to be
/// killed when its parent dies, and the kernel means the thread that forked it, not the process:
/// forked from a pool's thread, it would be killed whenever the pool shrinks.
#[derive(Debug)]
pub(super) struct Spawner {
    orders: mpsc::Sender<Order>,
}

struct Order {
    command: Command,
    by_launcher: bool,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Group>>,
}

impl Spawner {
    pub(super) fn start() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "bounded by the worker's concurrency: each run waits for its order"
        )]
        let (orders, queue) = mpsc::channel::<Order>();
        let serve = move || {
            for order in queue {
                let _runtime = order.runtime.enter();
                // The requester may be gone; the group is dropped then, and so killed.
                let _ = order.reply.send(start(order.command, order.by_launcher));
            }
        };
        thread::Builder::new().name("af-exec".to_owned()).spawn(serve).expect("the machine has room for a thread");
        Self { orders }
    }

    /// `by_launcher`: the command is a launcher, which ends its command when it is asked to or we die; else it is the
    /// command itself, which is killed.
    pub(super) async fn spawn(
        &self,
        mut command: Command,
        by_launcher: bool,
        memory_max_bytes: Option<u64>,
    ) -> io::Result<Group> {
        // A launcher that was killed could kill no process.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(!by_launcher);
        let at_our_death = if by_launcher { launcher::ASK_TO_END } else { Signal::KILL };
        limit(&mut command, at_our_death, memory_max_bytes);
        let (reply, group) = oneshot::channel();
        let order = Order { command, by_launcher, runtime: Handle::current(), reply };
        let gone = || io::Error::other("the thread that starts commands has ended");
        self.orders.send(order).map_err(|_| gone())?;
        group.await.map_err(|_| gone())?
    }
}

fn start(mut command: Command, by_launcher: bool) -> io::Result<Group> {
    let child = command.spawn()?;
    let raw = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let leader = raw.expect("a child that was not waited for has its id");
    // Kernels before 5.3 have no pidfd; the group is then killed just after the leader was reaped.
    let ended = rustix::process::pidfd_open(leader, PidfdFlags::NONBLOCK).ok().and_then(watched);
    Ok(Group { leader, ended, by_launcher, settled: false, child })
}

fn watched(pidfd: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // SAFETY: `pidfd` owns a valid descriptor; nothing replaces or closes it while `AsyncFd` has it.
    #[allow(unsafe_code)]
    let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    watched.ok()
}

/// Applies limits in the child, between fork and exec.
fn limit(command: &mut Command, at_our_death: Signal, memory_max_bytes: Option<u64>) {
    let parent = rustix::process::getpid();
    let prepare = move || {
        // A session of its own: in ours, a command could join the groups of other launchers and have them killed, and
        // write to our terminal.
        rustix::process::setsid()?;
        rustix::process::set_parent_process_death_signal(Some(at_our_death))?;
        if rustix::process::getppid() != Some(parent) {
            // The parent died before the line above took effect.
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
        }
        rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        if memory_max_bytes.is_some() {
            rustix::process::setrlimit(Resource::As, Rlimit { current: memory_max_bytes, maximum: memory_max_bytes })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure makes five
    // system calls through rustix, which on Linux issues them directly; it allocates nothing, takes
    // no lock and touches no memory but its own captured integers.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(prepare);
    }
}

/// A running command with everything it started and did not send away.
#[derive(Debug)]
pub(super) struct Group {
    leader: Pid,
    ended: Option<AsyncFd<OwnedFd>>,
    /// The leader is a launcher: it kills the others, wherever they went, and ends by itself.
    by_launcher: bool,
    /// The whole group was killed; its id may belong to another process from now on.
    settled: bool,
    child: Child,
}

/// The ends of a command's pipes.
pub(super) type Pipes = (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>);

impl Group {
    pub(super) fn take_pipes(&mut self) -> Pipes {
        (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take())
    }

    /// Waits until the leader has ended, without reaping it. May be dropped and asked again.
    pub(super) async fn ended(&mut self) {
        match &self.ended {
            // Readiness is not cleared: it stays true for good.
            Some(pidfd) => drop(pidfd.readable().await),
            None => drop(self.child.wait().await),
        }
    }

    /// Asks the whole group to end.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Kills what is left of the group, then reaps the leader.
    pub(super) async fn finish(&mut self) -> io::Result<ExitStatus> {
        if self.by_launcher {
            self.ask_to_end();
            // A little longer than it tries: what then is left of it is stuck in the kernel, or was stopped.
            let _ = tokio::time::timeout(launcher::END_MAX + Duration::from_secs(1), self.ended()).await;
        }
        self.signal(Signal::KILL);
        self.settled = true;
        let status = self.child.wait().await?;
        debug_assert!(status.code().is_some() || status.signal().is_some());
        Ok(status)
    }

    fn ask_to_end(&self) {
        // ESRCH is not possible: it is not reaped yet. One that has ended takes no signals.
        let _ = rustix::process::kill_process(self.leader, launcher::ASK_TO_END);
    }

    fn signal(&self, signal: Signal) {
        if !self.settled {
            // ESRCH: no process is left, which is what is wanted.
            let _ = rustix::process::kill_process_group(self.leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.by_launcher && !self.settled {
            return self.ask_to_end();
        }
        self.signal(Signal::KILL);
    }
}
