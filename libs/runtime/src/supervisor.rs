//! Every task of a service: spawned with a name and a policy for its end, watched, and ended at
//! the deadline of a stop.
//!
//! A task with [`OnEnd::Stop`] that fails, panics or ends before the stop fires the stop and makes
//! the service's run fail. Tasks are expected to watch the stop themselves; those that do not are
//! dropped at the deadline and named.

use crate::error_text::{chain, panic_message};
use crate::{Error, TaskFailure, metrics};
use futures_util::FutureExt;
use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error};

/// How long dropped tasks may take to let go, after the deadline.
const LET_GO: Duration = Duration::from_secs(1);

/// What the end of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEnd {
    /// It must run until the stop: ending early or failing stops the service, which then fails.
    Stop,
    /// It may end when it likes; a failure is logged and counted.
    Finish,
}

/// Spawns and watches the tasks of one service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Supervisor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: &'static str,
    stop: CancellationToken,
    /// Fires at the deadline: what is still running is dropped.
    kill: CancellationToken,
    tracker: TaskTracker,
    running: Mutex<BTreeMap<u64, &'static str>>,
    next: AtomicU64,
    failure: watch::Sender<Option<Arc<TaskFailure>>>,
}

impl Supervisor {
    pub(crate) fn new(service: &'static str, stop: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            service,
            stop,
            kill: CancellationToken::new(),
            tracker: TaskTracker::new(),
            running: Mutex::default(),
            next: AtomicU64::new(0),
            failure: watch::Sender::new(None),
        }))
    }

    /// Runs `task` as a task of the service. Its log lines carry the service's and the task's name.
    pub fn spawn<F>(&self, name: &'static str, on_end: OnEnd, task: F)
    where
        F: Future<Output = Result<(), anyhow::Error>> + Send + 'static,
    {
        let inner = self.0.clone();
        metrics::TASK_FAILURES.add(&[inner.service, name], 0);
        let running = Running::enter(&inner, name);
        let span = crate::telemetry::task_scope(inner.service, name);
        let watched = async move {
            let outcome = tokio::select! {
                outcome = AssertUnwindSafe(task).catch_unwind() => outcome,
                () = inner.kill.cancelled() => return,
            };
            drop(running);
            inner.settle(name, on_end, outcome);
        };
        self.0.tracker.spawn(watched.instrument(span));
    }

    /// Waits until a task fails whose end is fatal; forever if none does.
    pub async fn wait_first_failure(&self) -> Arc<TaskFailure> {
        let mut failures = self.0.failure.subscribe();
        match failures.wait_for(Option::is_some).await.ok().and_then(|failure| failure.clone()) {
            Some(failure) => failure,
            // Cannot happen: the sender lives in self. Waiting forever keeps the promise.
            None => std::future::pending().await,
        }
    }

    /// The first failure of a task whose end is fatal.
    pub fn failure(&self) -> Option<Arc<TaskFailure>> {
        self.0.failure.borrow().clone()
    }

    /// The names of the tasks that have not ended, with repetitions.
    pub fn running(&self) -> Vec<&'static str> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
    }

    /// Waits for every task to end, until `deadline`, then drops the rest. Call it after the stop.
    ///
    /// # Errors
    /// The first fatal failure, else the names of the tasks that had to be dropped.
    pub async fn drain(&self, deadline: Instant) -> Result<(), Error> {
        self.0.tracker.close();
        let mut unfinished = Vec::new();
        if timeout_at(deadline, self.0.tracker.wait()).await.is_err() {
            unfinished = self.running();
            self.0.kill.cancel();
            // A task that never yields cannot be dropped; waiting longer would not help.
            let _ = timeout(LET_GO, self.0.tracker.wait()).await;
        }
        match self.failure() {
            Some(failure) => Err(Error::Task(failure)),
            None if !unfinished.is_empty() => Err(Error::Unfinished { tasks: unfinished }),
            None => Ok(()),
        }
    }
}

type Outcome = Result<Result<(), anyhow::Error>, Box<dyn Any + Send>>;

impl Inner {
    fn settle(&self, task: &'static str, on_end: OnEnd, outcome: Outcome) {
        let failure = match outcome {
            Ok(Ok(())) if on_end == OnEnd::Finish || self.stop.is_cancelled() => {
                debug!(task, "task ended");
                return;
            }
            Ok(Ok(())) => TaskFailure::EndedEarly { task },
            Ok(Err(source)) => TaskFailure::Failed { task, source },
            Err(panic) => TaskFailure::Panicked { task, message: panic_message(panic.as_ref()) },
        };
        metrics::TASK_FAILURES.inc(&[self.service, task]);
        error!(fatal = on_end == OnEnd::Stop, error = %chain(&failure), "task failed");
        if on_end == OnEnd::Finish {
            return;
        }
        self.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(Arc::new(failure));
            }
            is_first
        });
        self.stop.cancel();
    }
}

/// Keeps a task's name among the running ones for as long as its future lives.
struct Running {
    inner: Arc<Inner>,
    id: u64,
}

impl Running {
    fn enter(inner: &Arc<Inner>, name: &'static str) -> Self {
        let id = inner.next.fetch_add(1, Ordering::Relaxed);
        inner.running.lock().unwrap_or_else(PoisonError::into_inner).insert(id, name);
        Self { inner: inner.clone(), id }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    fn supervisor() -> (Supervisor, CancellationToken) {
        let stop = CancellationToken::new();
        (Supervisor::new("test", stop.clone()), stop)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test]
    async fn a_fatal_task_that_fails_fires_the_stop_and_the_drain_says_why() {
        let (supervisor, stop) = supervisor();
        supervisor.spawn("relay", OnEnd::Stop, async { Err(anyhow::anyhow!("disk full").context("writing")) });
        stop.cancelled().await;
        assert_eq!(supervisor.wait_first_failure().await.to_string(), "task relay failed");
        let error = supervisor.drain(soon()).await.unwrap_err();
        assert_eq!(chain(&error), "a task ended that must keep running: task relay failed: writing: disk full");
    }

    #[tokio::test]
    async fn ending_early_and_panicking_are_fatal_and_the_first_failure_is_kept() {
        let (supervisor, stop) = supervisor();
        supervisor.spawn("loop", OnEnd::Stop, async { Ok(()) });
        stop.cancelled().await;
        supervisor.spawn("second", OnEnd::Stop, async { panic!("boom") });
        let error = supervisor.drain(soon()).await.unwrap_err();
        assert!(chain(&error).contains("task loop ended although"), "{error:?}");

        let (supervisor, stop) = self::supervisor();
        supervisor.spawn("second", OnEnd::Stop, async { panic!("boom") });
        stop.cancelled().await;
        assert!(chain(&supervisor.drain(soon()).await.unwrap_err()).contains("task second panicked: boom"));
    }

    #[tokio::test]
    async fn a_task_that_may_end_stops_nothing() {
        let (supervisor, stop) = supervisor();
        supervisor.spawn("once", OnEnd::Finish, async { Ok(()) });
        supervisor.spawn("fails", OnEnd::Finish, async { Err(anyhow::anyhow!("no")) });
        supervisor.spawn("panics", OnEnd::Finish, async { panic!("no") });
        supervisor.drain(soon()).await.unwrap();
        assert!(!stop.is_cancelled());
        assert!(supervisor.running().is_empty());
    }

    #[tokio::test]
    async fn ending_after_the_stop_is_clean() {
        let (supervisor, stop) = supervisor();
        let token = stop.clone();
        supervisor.spawn("loop", OnEnd::Stop, async move {
            token.cancelled().await;
            Ok(())
        });
        stop.cancel();
        supervisor.drain(soon()).await.unwrap();
    }

    #[tokio::test]
    async fn failing_during_the_drain_is_told() {
        let (supervisor, stop) = supervisor();
        let token = stop.clone();
        supervisor.spawn("loop", OnEnd::Stop, async move {
            token.cancelled().await;
            Err(anyhow::anyhow!("could not hand back"))
        });
        stop.cancel();
        assert!(chain(&supervisor.drain(soon()).await.unwrap_err()).ends_with("could not hand back"));
    }

    #[tokio::test]
    async fn a_task_that_ignores_the_stop_is_dropped_at_the_deadline_and_named() {
        struct Told(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.take().unwrap().send(());
            }
        }
        let (supervisor, stop) = supervisor();
        let (tell, dropped) = tokio::sync::oneshot::channel();
        let told = Told(Some(tell));
        supervisor.spawn("deaf", OnEnd::Stop, async move {
            let _told = told;
            pending().await
        });
        stop.cancel();
        let start = Instant::now();
        let error = supervisor.drain(start + Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(&error, Error::Unfinished { tasks } if tasks == &["deaf"]), "{error}");
        assert!(start.elapsed() < Duration::from_secs(3));
        dropped.await.unwrap();
        assert!(supervisor.running().is_empty());
    }
}
