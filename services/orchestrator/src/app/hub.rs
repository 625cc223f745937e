//! Tells who waits for a job that it changed.
//!
//! In-process only. Where other replicas commit too, watchers also look for themselves now and then.

use agentforge_message_id::JobId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Cheap to clone; all clones are the same hub.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Mutex<HashMap<JobId, watch::Sender<i64>>>>);

/// One watcher's ear. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Ear {
    id: JobId,
    hub: Hub,
    rx: watch::Receiver<i64>,
}

impl Hub {
    fn map(&self) -> MutexGuard<'_, HashMap<JobId, watch::Sender<i64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens for changes of `id` from now on.
    pub fn listen(&self, id: JobId) -> Ear {
        let rx = self.map().entry(id).or_insert_with(|| watch::channel(0).0).subscribe();
        Ear { id, hub: self.clone(), rx }
    }

    /// Says that `id` is at `version` now; older news is no news.
    pub fn changed(&self, id: JobId, version: i64) {
        if let Some(tx) = self.map().get(&id) {
            tx.send_if_modified(|known| {
                let newer = version > *known;
                *known = version.max(*known);
                newer
            });
        }
    }

    /// Jobs somebody listens for.
    pub fn len(&self) -> usize {
        self.map().len()
    }

    /// Whether nobody listens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The jobs somebody listens for, at most `max`.
    pub fn watched(&self, max: usize) -> Vec<JobId> {
        self.map().keys().take(max).copied().collect()
    }
}

impl Ear {
    /// Waits for the next change. Changes in between may be folded into one.
    pub async fn heard(&mut self) {
        if self.rx.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
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
        a.heard().await;
        drop(a);
        assert_eq!(hub.len(), 1);
        drop(b);
        assert!(hub.is_empty());
    }
}
