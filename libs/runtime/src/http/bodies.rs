//! The memory for what callers send: one budget for all listeners and protocols of the process.
//!
//! What has arrived is counted until its request is over. Who would exceed the budget is refused, to send it again; a
//! stream of messages waits instead, and its client with it.

use crate::{memory, metrics};
use agentforge_config::{Common, common::REQUEST_BODIES_MAX};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The share of the memory limit: the rest is for what the service keeps, and for working on the bodies.
const SHARE: u64 = 8;
/// Two of the largest bodies that there are.
const LEAST: u64 = 32 << 20;
/// More are no use: what takes them in is slower.
const MOST: u64 = 256 << 20;

/// Calls that may wait for memory at once; what the others have sent ahead is let go.
const WAITING_MAX: usize = 32;

static BODIES: OnceLock<Bodies> = OnceLock::new();

/// The budget. Clones share it.
#[derive(Clone, Debug)]
pub struct Bodies(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max: usize,
    used: AtomicUsize,
    freed: Notify,
    waiting: Arc<Semaphore>,
}

/// Bytes of the budget, given back when dropped.
#[derive(Debug)]
pub struct Held {
    bodies: Bodies,
    bytes: usize,
}

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRefusal {
    /// There is no memory for it now.
    Memory,
    /// It did not arrive in time.
    Late,
}

/// The budget of this process: REQUEST_BODIES_MAX, or a share of the memory that it may have.
pub fn bodies() -> &'static Bodies {
    BODIES.get_or_init(|| Bodies::new(default_max(memory::limit())))
}

/// Takes the settings for the budget. The first call decides.
pub(crate) fn configure(common: &Common) {
    let set = common.request_bodies_max.map(|size| usize::try_from(size.bytes()).unwrap_or(usize::MAX));
    let bodies = BODIES.get_or_init(|| Bodies::new(set.unwrap_or_else(|| default_max(memory::limit()))));
    metrics::BODIES_MAX_BYTES.set(&[], bodies.max() as f64);
    // On the page from the start.
    metrics::BODIES_BYTES.shift(&[], 0.0);
}

fn default_max(memory: u64) -> usize {
    usize::try_from((memory / SHARE).clamp(LEAST, MOST)).unwrap_or(usize::MAX)
}

impl Bodies {
    /// A budget of `max` bytes.
    pub fn new(max: usize) -> Self {
        let (used, waiting) = (AtomicUsize::new(0), Arc::new(Semaphore::new(WAITING_MAX)));
        Self(Arc::new(Inner { max: max.max(1), used, freed: Notify::new(), waiting }))
    }

    /// The whole budget, bytes.
    pub fn max(&self) -> usize {
        self.0.max
    }

    /// Bytes of it, or `None` if they are not free. More than all of it is all of it.
    pub fn try_hold(&self, bytes: usize) -> Option<Held> {
        let bytes = bytes.min(self.0.max);
        let free = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.0.max);
        self.0.used.fetch_update(Relaxed, Relaxed, free).ok()?;
        metrics::BODIES_BYTES.shift(&[], bytes as f64);
        Some(Held { bodies: self.clone(), bytes })
    }

    /// A place among those that wait for memory, if there is one: what waits has sent more than was counted.
    pub fn try_queue(&self) -> Option<OwnedSemaphorePermit> {
        self.0.waiting.clone().try_acquire_owned().ok()
    }

    /// Waits until they are free.
    pub async fn hold(&self, bytes: usize) -> Held {
        loop {
            // Before the look: what is given back after it wakes this up.
            let freed = self.0.freed.notified();
            if let Some(held) = self.try_hold(bytes) {
                return held;
            }
            freed.await;
        }
    }

    /// Counts a caller that is refused because of its body.
    pub fn count_refusal(&self, refusal: BodyRefusal) {
        metrics::BODIES_REFUSED.inc(&[match refusal {
            BodyRefusal::Memory => "memory",
            BodyRefusal::Late => "late",
        }]);
    }

    /// Why a request is refused, in words.
    pub fn refusal(&self) -> String {
        let (max, setting) = (self.0.max >> 20, REQUEST_BODIES_MAX.key);
        format!("the bodies of requests reach {max} MiB, the most in memory at once ({setting}); try again")
    }
}

impl Held {
    /// Adds bytes if they are free.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        match self.bodies.try_hold(bytes) {
            Some(mut more) => {
                self.bytes += std::mem::take(&mut more.bytes);
                true
            }
            None => false,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.bodies.0.used.fetch_sub(self.bytes, Relaxed);
            metrics::BODIES_BYTES.shift(&[], -(self.bytes as f64));
            self.bodies.0.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_default_is_a_share_of_the_memory_within_bounds() {
        assert_eq!(default_max(128 << 20), 32 << 20);
        assert_eq!(default_max(512 << 20), 64 << 20);
        assert_eq!(default_max(64 << 30), 256 << 20);
    }

    #[tokio::test]
    async fn what_is_held_is_given_back_and_who_waits_gets_it() {
        let bodies = Bodies::new(10);
        let mut held = bodies.try_hold(4).unwrap();
        assert!(held.grow(6) && !held.grow(1));
        assert!(bodies.try_hold(1).is_none());
        assert!(bodies.refusal().contains("REQUEST_BODIES_MAX"));
        let waiting = tokio::spawn({
            let bodies = bodies.clone();
            async move { bodies.hold(10).await }
        });
        tokio::task::yield_now().await;
        drop(held);
        let held = tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap();
        assert!(bodies.try_hold(1).is_none());
        drop(held);
        assert!(bodies.try_hold(1 << 30).is_some(), "more than all of it is all of it");
    }
}
