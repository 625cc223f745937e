//! Keeps a child process running: starts it again with growing pauses when it ends unasked.
//!
//! Until it is `established` an end is a failure of the start, reported with the last lines of its log; only after that
//! is it restarted. `stop` asks with SIGTERM and insists with SIGKILL.

use crate::child::{Spec, log_tail};
use agentforge_terminal::{Failure, Result, short_duration, warn};
use rustix::process::Signal;
use std::{
    process::ExitStatus,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// The first pause before a restart; doubles up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause before a restart.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// One that ran so long starts with the first pause again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
enum State {
    Down,
    Up(u32),
    Failed(String),
}

struct Shared {
    spec: Mutex<Spec>,
    established: CancellationToken,
    stop: CancellationToken,
    grace: Duration,
    changed: Arc<Notify>,
}

/// A child that is kept running: until [`stop`](Self::stop), or until this process ends.
pub struct Keeper {
    /// What messages about it call it.
    pub name: &'static str,
    shared: Arc<Shared>,
    state: watch::Receiver<State>,
    task: JoinHandle<Option<ExitStatus>>,
}

impl Keeper {
    /// Starts it. `changed` is notified when its process id changes.
    pub fn start(spec: Spec, grace: Duration, changed: Arc<Notify>) -> Self {
        let name = spec.name;
        let (tell, state) = watch::channel(State::Down);
        let shared = Arc::new(Shared {
            spec: Mutex::new(spec),
            established: CancellationToken::new(),
            stop: CancellationToken::new(),
            grace,
            changed,
        });
        let task = tokio::spawn(keep(shared.clone(), tell));
        Self { name, shared, state, task }
    }

    /// The process id; `None` between an end and the next start.
    pub fn pid(&self) -> Option<u32> {
        match *self.state.borrow() {
            State::Up(pid) => Some(pid),
            State::Down | State::Failed(_) => None,
        }
    }

    /// Waits until there is a process and gives its id.
    ///
    /// # Errors
    /// The start failed.
    pub async fn up(&self) -> Result<u32> {
        let mut state = self.state.clone();
        let seen = state.wait_for(|s| !matches!(s, State::Down)).await;
        match seen.as_deref() {
            Ok(State::Up(pid)) => Ok(*pid),
            Ok(State::Failed(why)) => Err(Failure::new(why.clone())),
            Ok(State::Down) | Err(_) => Err(Failure::new(format!("{} was stopped", self.name))),
        }
    }

    /// Resolves when the start failed; never after [`established`](Self::established).
    pub async fn failed(&self) -> Failure {
        let mut state = self.state.clone();
        let seen = state.wait_for(|s| matches!(s, State::Failed(_))).await;
        match seen.as_deref() {
            Ok(State::Failed(why)) => Failure::new(why.clone()),
            _ => std::future::pending().await,
        }
    }

    /// It works: from now on it is restarted when it ends. `fix` may change how, such as port 0 to
    /// the port that was taken.
    pub fn established(&self, fix: impl FnOnce(&mut Spec)) {
        fix(&mut self.shared.spec.lock().expect("nothing panics under this lock"));
        self.shared.established.cancel();
    }

    /// Stops it and gives its exit status; `None` when it did not run or had to be killed.
    pub async fn stop(self) -> Option<ExitStatus> {
        self.shared.stop.cancel();
        self.task.await.ok().flatten()
    }
}

/// What to do about an end.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Restart(Duration),
    Fail,
}

/// Pure: whether to continue and after which pause.
fn verdict(established: bool, ran: Duration, last_pause: Duration) -> Verdict {
    match (established, ran >= HEALTHY_AFTER) {
        (false, _) => Verdict::Fail,
        (true, true) => Verdict::Restart(PAUSE_FIRST),
        (true, false) => Verdict::Restart((last_pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX)),
    }
}

async fn keep(shared: Arc<Shared>, tell: watch::Sender<State>) -> Option<ExitStatus> {
    let mut pause = Duration::ZERO;
    loop {
        let spec = shared.spec.lock().expect("nothing panics under this lock").clone();
        let began = Instant::now();
        let why = match spec.start().await {
            Err(e) => format!("{} cannot be started: {e}", spec.name),
            Ok(mut child) => {
                tell.send_replace(State::Up(child.pid));
                shared.changed.notify_one();
                let ended = tokio::select! {
                    ended = child.ended() => ended,
                    () = shared.stop.cancelled() => {
                        child.signal(Signal::TERM);
                        let Ok(ended) = timeout(shared.grace, child.ended()).await else {
                            warn(format!("{} did not stop in {}, killing it", spec.name, short_duration(shared.grace)));
                            child.signal(Signal::KILL);
                            let _ = child.ended().await;
                            return None;
                        };
                        return ended.ok();
                    }
                };
                match ended {
                    Ok(status) => format!("{} ended unasked ({status})", spec.name),
                    Err(e) => format!("{} cannot be waited for: {e}", spec.name),
                }
            }
        };
        let established = shared.established.is_cancelled();
        match verdict(established, began.elapsed(), pause) {
            Verdict::Fail => {
                let tail = log_tail(&spec.log, 5).unwrap_or_default();
                let tail = if tail.is_empty() { String::new() } else { format!("\n{tail}") };
                tell.send_replace(State::Failed(format!("{why}; its log is {}{tail}", spec.log.display())));
                return None;
            }
            Verdict::Restart(next) => {
                pause = next;
                warn(format!("{why}; starting it again in {}", short_duration(pause)));
                tell.send_replace(State::Down);
                shared.changed.notify_one();
                tokio::select! {
                    () = sleep(pause) => {}
                    () = shared.stop.cancelled() => return None,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_forget_after_a_healthy_run() {
        let (short, long) = (Duration::from_millis(5), HEALTHY_AFTER);
        let ms = |n| Verdict::Restart(Duration::from_millis(n));
        for (established, ran, last, wanted) in [
            (false, long, Duration::ZERO, Verdict::Fail),
            (true, short, Duration::ZERO, ms(100)),
            (true, short, Duration::from_millis(100), ms(200)),
            (true, short, PAUSE_MAX, Verdict::Restart(PAUSE_MAX)),
            (true, long, PAUSE_MAX, ms(100)),
        ] {
            assert_eq!(verdict(established, ran, last), wanted, "{established} {ran:?} {last:?}");
        }
    }
}
