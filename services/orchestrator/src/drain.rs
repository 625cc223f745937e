//! The tasks of the service and the order in which they end: first those that take work from callers and workers, then
//! what commits and publishes it, so that everything accepted is committed.

use crate::store::Store;
use agentforge_jetstream::Nats;
use agentforge_runtime::{OnEnd, Runtime};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// What of the grace period is kept for the last commits.
const LAST_COMMITS: Duration = Duration::from_secs(2);

/// Starts tasks by name, and waits for their ends in order. A task that ends before the stop stops the service.
pub(crate) struct Tasks {
    runtime: Runtime,
    front: TaskTracker,
    back: TaskTracker,
    /// Fires once nothing takes work any more.
    pub(crate) last: CancellationToken,
}

type Ended = Result<(), anyhow::Error>;

impl Tasks {
    /// No task yet; their log lines and failures go to `runtime`.
    pub(crate) fn new(runtime: &Runtime) -> Self {
        let (front, back, last) = (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
        Self { runtime: runtime.clone(), front, back, last }
    }

    /// A task whose end is not waited for: it holds nothing that could be lost.
    pub(crate) fn spawn(&self, name: &'static str, task: impl Future<Output = Ended> + Send + 'static) {
        self.runtime.supervisor().spawn(name, OnEnd::Stop, task);
    }

    /// A task that takes work from callers or workers; it ends first.
    pub(crate) fn front(&self, name: &'static str, task: impl Future<Output = Ended> + Send + 'static) {
        self.spawn(name, self.front.track_future(task));
    }

    /// A task that commits or publishes what the others took; it is waited for last.
    pub(crate) fn back(&self, name: &'static str, task: impl Future<Output = Ended> + Send + 'static) {
        self.spawn(name, self.back.track_future(task));
    }

    /// As [`Tasks::back`], of what cannot fail.
    pub(crate) fn back_until_done(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.back(name, async {
            task.await;
            Ok(())
        });
    }

    /// The stop came before there was anything to drain but callers.
    pub(crate) async fn refuse_callers(self) {
        self.front.close();
        let _ = tokio::time::timeout_at(self.runtime.drain_deadline(), self.front.wait()).await;
    }

    /// Waits for the stop, then for the tasks, in their order and within the grace period; then ends the connections.
    pub(crate) async fn drain(self, nats: &Nats, store: &dyn Store) {
        self.runtime.stopping().cancelled().await;
        self.front.close();
        let deadline = self.runtime.drain_deadline();
        let last_commits = deadline.checked_sub(LAST_COMMITS).unwrap_or(deadline);
        if tokio::time::timeout_at(last_commits, self.front.wait()).await.is_err() {
            warn!("callers were still being served at the end of the grace period (SHUTDOWN_GRACE)");
        }
        self.last.cancel();
        self.back.close();
        let _ = tokio::time::timeout_at(deadline, self.back.wait()).await;
        if let Err(error) = nats.drain().await {
            info!(%error, "NATS was not drained");
        }
        store.close().await;
    }
}
