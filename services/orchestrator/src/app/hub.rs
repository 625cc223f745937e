//! Notifies watchers of a job that it changed.
//! In-process only. Commits of this process are reported in full, so that a waiter needs no read of its own; of other
//! replicas' commits only the version is known. Watchers also check themselves now and then.

use crate::transition::{Current, ResultEffect};
use agentforge_message_id::JobId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Cheap to clone; all clones are the same hub.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Mutex<HashMap<JobId, watch::Sender<Word>>>>);

/// A job as a commit of this process left it.
#[derive(Debug)]
pub struct News {
    /// What changes of a job.
    pub job: Current,
    /// Its result, where this commit stored one.
    pub result: Option<ResultEffect>,
}

/// The last update of a job; `news` is missing when another process made the change.
#[derive(Clone, Debug, Default)]
struct Word {
    version: i64,
    news: Option<Arc<News>>,
}

/// One watcher's ear. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Ear {
    id: JobId,
    hub: Hub,
    rx: watch::Receiver<Word>,
}

impl Hub {
    fn map(&self) -> MutexGuard<'_, HashMap<JobId, watch::Sender<Word>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens for changes of `id` from now on.
    pub fn listen(&self, id: JobId) -> Ear {
        let rx = self.map().entry(id).or_insert_with(|| watch::channel(Word::default()).0).subscribe();
        Ear { id, hub: self.clone(), rx }
    }

    /// Reports what a commit made of a job; `result` is evaluated only if there is a watcher.
    pub fn committed(&self, job: &Current, result: impl FnOnce() -> Option<ResultEffect>) {
        self.tell(job.id, job.version, || Some(Arc::new(News { job: job.clone(), result: result() })));
    }

    /// Says that `id` is at `version` now, and no more.
    pub fn changed(&self, id: JobId, version: i64) {
        self.tell(id, version, || None);
    }

    /// Older updates are ignored.
    fn tell(&self, id: JobId, version: i64, news: impl FnOnce() -> Option<Arc<News>>) {
        if let Some(tx) = self.map().get(&id) {
            tx.send_if_modified(|known| {
                let newer = version > known.version;
                if newer {
                    *known = Word { version, news: news() };
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

impl Ear {
    /// The job it listens for.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Waits for the next change. Changes in between may be folded into one. `None`: look for yourself.
    pub async fn heard(&mut self) -> Option<Arc<News>> {
        if self.rx.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.rx.borrow_and_update().news.clone()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut map = self.hub.map();
        // This ear still counts as a receiver.
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
        let (hub, id) = (Hub::default(), JobId::generate());
        let mut a = hub.listen(id);
        let b = hub.listen(id);
        hub.changed(JobId::generate(), 1);
        hub.changed(id, 2);
        assert!(a.heard().await.is_none(), "who hears only of a version looks for itself");
        drop(a);
        assert_eq!(hub.len(), 1);
        drop(b);
        assert!(hub.is_empty());
    }
}
