//! What this worker runs now, what it finished lately and what was cancelled lately.
//!
//! The one place that knows whether an attempt is here already: a second delivery of it waits for the first instead of
//! running in parallel. In memory, bounded, only for this process.

use crate::recent::Recent;
use crate::stop::{Cause, Stop};
use agentforge_message_id::{Attempt, JobId};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Cancels that are remembered for jobs which have not come yet.
const CANCELS_MAX: usize = 10_000;
/// As long as the orchestrator's queue may hold a cancelled job, give or take.
const CANCELS_AGE_MAX: Duration = Duration::from_secs(600);
/// Finished attempts that are remembered: those that may be redelivered after an acknowledgement got lost.
const FINISHED_MAX: usize = 20_000;
/// Longer than any sensible ack_wait.
const FINISHED_AGE_MAX: Duration = Duration::from_secs(600);
/// Most jobs that a heartbeat names.
const NAMED_MAX: usize = 512;

/// An attempt that is here: from its admission to its settlement.
#[derive(Debug)]
pub struct Running {
    pub job: JobId,
    pub attempt: Attempt,
    /// Stops its run.
    pub stop: Stop,
    since: Instant,
    settled: CancellationToken,
    acknowledged: AtomicBool,
}

impl Running {
    /// Waits until the attempt left this worker; whether its result was stored.
    pub async fn settled(&self) -> bool {
        self.settled.cancelled().await;
        self.acknowledged.load(Ordering::Acquire)
    }
}

/// What the ledger knows of an attempt that came.
#[derive(Debug)]
pub enum Arrival {
    /// New here, and entered; it leaves the ledger when the guard is settled or dropped.
    New(Registration),
    /// Another delivery of it is here.
    Running(Arc<Running>),
    /// Its result was stored by this worker a short while ago.
    Finished,
}

/// An attempt's place in the ledger.
#[derive(Debug)]
pub struct Registration {
    running: Arc<Running>,
    order: i128,
    ledger: Arc<Ledger>,
}

impl std::ops::Deref for Registration {
    type Target = Running;
    fn deref(&self) -> &Running {
        &self.running
    }
}

impl Registration {
    /// The attempt's result is stored: later deliveries of it need no run.
    pub fn finished(self) {
        self.ledger.inner().finished.insert((self.running.job, self.running.attempt, self.order), Instant::now());
        self.running.acknowledged.store(true, Ordering::Release);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.ledger.inner().running.remove(&(self.running.job, self.running.attempt));
        self.running.settled.cancel();
    }
}

/// The ledger of one worker.
#[derive(Debug)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    running: HashMap<(JobId, Attempt), Arc<Running>>,
    /// With what tells its messages apart: an attempt that was published again is to be run again.
    finished: Recent<(JobId, Attempt, i128)>,
    /// With the attempt that was stopped; `None` means all.
    cancelled: Recent<(JobId, Option<Attempt>)>,
}

impl Default for Ledger {
    fn default() -> Self {
        let (running, finished) = (HashMap::new(), Recent::new(FINISHED_MAX, FINISHED_AGE_MAX));
        Self { inner: Mutex::new(Inner { running, finished, cancelled: Recent::new(CANCELS_MAX, CANCELS_AGE_MAX) }) }
    }
}

impl Ledger {
    /// Enters an attempt that came, or says why it need not run.
    /// `order` tells messages of one attempt apart: one that was published again is another.
    pub fn arrive(self: &Arc<Self>, job: JobId, attempt: Attempt, order: i128) -> Arrival {
        let now = Instant::now();
        let mut inner = self.inner();
        if inner.finished.contains(&(job, attempt, order), now) {
            return Arrival::Finished;
        }
        match inner.running.entry((job, attempt)) {
            Entry::Occupied(entry) => Arrival::Running(entry.get().clone()),
            Entry::Vacant(place) => {
                let (stop, settled, acknowledged) = (Stop::default(), CancellationToken::new(), AtomicBool::new(false));
                let running = Arc::new(Running { job, attempt, stop, since: now, settled, acknowledged });
                place.insert(running.clone());
                Arrival::New(Registration { running, order, ledger: self.clone() })
            }
        }
    }

    /// Stops the job if it is here, and remembers the cancel for when it comes. A later attempt than the one
    /// that was stopped is of a job that was put back: it runs.
    pub fn cancel(&self, job: JobId, attempt: Option<Attempt>) {
        self.inner().cancelled.insert((job, attempt), Instant::now());
        for running in self.inner().running.values().filter(|r| r.job == job && attempt.is_none_or(|a| r.attempt <= a))
        {
            running.stop.stop(Cause::Cancelled);
        }
    }

    /// Stops the job if it is here, and remembers nothing: a job that is final may be driven again.
    pub fn stop(&self, job: JobId) {
        for running in self.inner().running.values().filter(|running| running.job == job) {
            running.stop.stop(Cause::Cancelled);
        }
    }

    /// Whether a cancel for the attempt was seen lately.
    pub fn is_cancelled(&self, job: JobId, attempt: Attempt) -> bool {
        let (inner, now) = (self.inner(), Instant::now());
        [Some(attempt), None].into_iter().any(|attempt| inner.cancelled.contains(&(job, attempt), now))
    }

    /// Stops everything that runs.
    pub fn stop_all(&self, cause: Cause) {
        for running in self.inner().running.values() {
            running.stop.stop(cause);
        }
    }

    /// How many attempts are here.
    pub fn len(&self) -> usize {
        self.inner().running.len()
    }

    /// Jobs that have been here for longer than `age`, the oldest first, as many as a heartbeat names.
    pub fn longer_than(&self, age: Duration) -> Vec<JobId> {
        let now = Instant::now();
        let inner = self.inner();
        let mut old: Vec<_> = inner
            .running
            .values()
            .filter(|r| now.saturating_duration_since(r.since) > age)
            .map(|r| (r.since, r.job))
            .collect();
        drop(inner);
        old.sort_unstable();
        old.into_iter().take(NAMED_MAX).map(|(_, job)| job).collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_delivery_waits_for_the_first() {
        let ledger = Arc::new(Ledger::default());
        let job = JobId::generate();
        let Arrival::New(first) = ledger.arrive(job, Attempt::FIRST, 7) else { panic!("not new") };
        let Arrival::Running(running) = ledger.arrive(job, Attempt::FIRST, 7) else { panic!("not here") };
        assert!(
            matches!(ledger.arrive(job, Attempt::FIRST.next(), 8), Arrival::New(_)),
            "another attempt is another thing"
        );
        first.finished();
        assert!(running.settled().await);
        assert!(matches!(ledger.arrive(job, Attempt::FIRST, 7), Arrival::Finished));
        assert!(matches!(ledger.arrive(job, Attempt::FIRST, 9), Arrival::New(_)), "published again, so run again");
    }

    #[tokio::test]
    async fn an_attempt_handed_back_may_come_again() {
        let ledger = Arc::new(Ledger::default());
        let job = JobId::generate();
        let Arrival::New(first) = ledger.arrive(job, Attempt::FIRST, 7) else { panic!("not new") };
        let Arrival::Running(running) = ledger.arrive(job, Attempt::FIRST, 7) else { panic!("not here") };
        drop(first);
        assert!(!running.settled().await);
        assert!(matches!(ledger.arrive(job, Attempt::FIRST, 7), Arrival::New(_)));
        drop(ledger.arrive(job, Attempt::FIRST, 7));
        assert_eq!(ledger.len(), 0);
    }

    #[test]
    fn a_cancel_reaches_what_runs_and_what_comes_later() {
        let ledger = Arc::new(Ledger::default());
        let (here, later) = (JobId::generate(), JobId::generate());
        let Arrival::New(running) = ledger.arrive(here, Attempt::FIRST, 7) else { panic!("not new") };
        ledger.cancel(here, None);
        ledger.cancel(later, Some(Attempt::FIRST));
        assert_eq!(running.stop.cause(), Some(Cause::Cancelled));
        assert!(ledger.is_cancelled(later, Attempt::FIRST) && !ledger.is_cancelled(JobId::generate(), Attempt::FIRST));
        assert!(ledger.is_cancelled(here, Attempt::FIRST.next()), "without an attempt it is for all of them");
        let second = Attempt::FIRST.next();
        assert!(!ledger.is_cancelled(later, second), "the job was put back");
        let Arrival::New(again) = ledger.arrive(later, second, 8) else { panic!("not new") };
        ledger.cancel(later, Some(Attempt::FIRST));
        assert_eq!(again.stop.cause(), None);
        let driven_again = JobId::generate();
        ledger.stop(driven_again);
        assert!(!ledger.is_cancelled(driven_again, Attempt::FIRST));
    }

    #[test]
    fn only_what_takes_long_is_named() {
        let ledger = Arc::new(Ledger::default());
        let Arrival::New(running) = ledger.arrive(JobId::generate(), Attempt::FIRST, 7) else { panic!("not new") };
        assert_eq!(ledger.longer_than(Duration::ZERO), [running.job]);
        assert!(ledger.longer_than(Duration::from_secs(60)).is_empty());
    }
}
