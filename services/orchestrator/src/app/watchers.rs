//! Notifies watchers of a job that it changed.
//!
//! In-process only. Commits of this process are reported in full, so that a waiter needs no read of its own; of other
//! replicas' commits only the version is known. Watchers also check themselves now and then.

use crate::transition::{Current, ResultEffect};
use agentforge_message_id::JobId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Cheap to clone; all clones are the same watchers.
#[derive(Clone, Debug, Default)]
pub struct JobWatchers(Arc<Mutex<HashMap<JobId, watch::Sender<LastUpdate>>>>);

/// A job as a commit of this process left it.
#[derive(Debug)]
pub struct Update {
    /// What changes of a job.
    pub job: Current,
    /// Its result, where this commit stored one.
    pub result: Option<ResultEffect>,
}

/// The last update of a job; `update` is missing when another process made the change.
#[derive(Clone, Debug, Default)]
struct LastUpdate {
    version: i64,
    update: Option<Arc<Update>>,
}

/// One watcher's subscription. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Subscription {
    id: JobId,
    watchers: JobWatchers,
    rx: watch::Receiver<LastUpdate>,
}

impl JobWatchers {
    fn map(&self) -> MutexGuard<'_, HashMap<JobId, watch::Sender<LastUpdate>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens for changes of `id` from now on.
    pub fn listen(&self, id: JobId) -> Subscription {
        let rx = self.map().entry(id).or_insert_with(|| watch::channel(LastUpdate::default()).0).subscribe();
        Subscription { id, watchers: self.clone(), rx }
    }

    /// Reports what a commit made of a job; `result` is evaluated only if there is a watcher.
    pub fn committed(&self, job: &Current, result: impl FnOnce() -> Option<ResultEffect>) {
        self.notify(job.id, job.version, || Some(Arc::new(Update { job: job.clone(), result: result() })));
    }

    /// Says that `id` is at `version` now, and no more.
    pub fn changed(&self, id: JobId, version: i64) {
        self.notify(id, version, || None);
    }

    /// Older updates are ignored.
    fn notify(&self, id: JobId, version: i64, update: impl FnOnce() -> Option<Arc<Update>>) {
        if let Some(tx) = self.map().get(&id) {
            tx.send_if_modified(|known| {
                let newer = version > known.version;
                if newer {
                    *known = LastUpdate { version, update: update() };
                }
                newer
            });
        }
    }

    /// Jobs somebody listens for.
    pub fn len(&self) -> usize {
        self.map().len()
    }

    /// Whether there is no watcher.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The jobs somebody listens for, at most `max`.
    pub fn watched(&self, max: usize) -> Vec<JobId> {
        self.map().keys().take(max).copied().collect()
    }
}

impl Subscription {
    /// The job it listens for.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Waits for the next change. Changes in between may be folded into one. `None`: read the store.
    pub async fn heard(&mut self) -> Option<Arc<Update>> {
        if self.rx.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.rx.borrow_and_update().update.clone()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut map = self.watchers.map();
        // This subscription still counts as a receiver.
        if map.get(&self.id).is_some_and(|tx| tx.receiver_count() <= 1) {
            map.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ears_hear_their_job_and_leave_nothing_behind() {
        let (watchers, id) = (JobWatchers::default(), JobId::generate());
        let mut a = watchers.listen(id);
        let b = watchers.listen(id);
        watchers.changed(JobId::generate(), 1);
        watchers.changed(id, 2);
        assert!(a.heard().await.is_none(), "who hears only of a version reads the store");
        drop(a);
        assert_eq!(watchers.len(), 1);
        drop(b);
        assert!(watchers.is_empty());
    }
}
