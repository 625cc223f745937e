//! What the relay and the committer share: whether a new item may be handed over in memory, or must not overtake items
//! in SQL; and which queues are held.

use agentforge_proto::time::Micros;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// What the relay and the committer share about one source's backlog in SQL.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Rises when something due is stored without a claim.
    unclaimed: AtomicU64,
    /// The value of `unclaimed` at the last scan that found nothing more.
    scanned: AtomicU64,
    /// What the relay holds in memory, or is on its way there.
    held: AtomicUsize,
    /// Whether the relay can publish at all.
    open: AtomicBool,
    /// Lines that cannot leave, with the reason.
    closed: RwLock<HashMap<Box<str>, &'static str>>,
    /// When the store is to be asked, microseconds since 1970.
    wake: Wake,
    /// Whether what could leave had better wait for what comes in.
    yields: AtomicBool,
    resumed: Notify,
    /// Jobs that are published and not done, as far as this process knows.
    at_workers: AtomicUsize,
    /// Jobs that the workers present run at once.
    slots: AtomicUsize,
}

/// A moment that only comes nearer until it is taken.
#[derive(Debug)]
struct Wake {
    at: AtomicI64,
    changed: Notify,
}

impl Default for Wake {
    fn default() -> Self {
        Self { at: AtomicI64::new(i64::MAX), changed: Notify::new() }
    }
}

impl Backlog {
    /// Items the relay may hold in memory, the group that crosses the bound not counted.
    pub(super) const HELD_MAX: usize = 32_768;

    /// Jobs that wait at workers in addition to those that run, from which on they have enough: what they do in the time
    /// that the relay may yield.
    const ENOUGH: usize = 2_048;

    /// Whether something new may be handed over in memory without overtaking what lies in SQL.
    pub(super) fn may_claim(&self) -> bool {
        self.open.load(Ordering::Acquire)
            && self.scanned.load(Ordering::Acquire) == self.generation()
            && self.held.load(Ordering::Relaxed) < Self::HELD_MAX
    }

    fn closed(&self) -> RwLockReadGuard<'_, HashMap<Box<str>, &'static str>> {
        self.closed.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a line cannot leave; `None` when it can, as far as is known.
    pub(crate) fn reason(&self, line: &str) -> Option<&'static str> {
        self.closed().get(line).copied()
    }

    /// How many lines cannot leave, and one of them with its reason.
    pub(crate) fn any_closed(&self) -> Option<(usize, String, &'static str)> {
        let closed = self.closed();
        closed.iter().min().map(|(line, reason)| (closed.len(), line.to_string(), *reason))
    }

    /// Whether workers have more to do than they do now, for a while. An estimate: replicas publish too, and what was
    /// published before a start is not counted.
    pub(super) fn has_enough_at_workers(&self) -> bool {
        self.at_workers.load(Ordering::Relaxed) >= Self::ENOUGH + self.slots.load(Ordering::Relaxed)
    }

    /// How many jobs the workers present run at once.
    pub(super) fn set_slots(&self, slots: usize) {
        self.slots.store(slots, Ordering::Relaxed);
    }

    /// A job was published.
    pub(crate) fn note_published(&self) {
        self.at_workers.fetch_add(1, Ordering::Relaxed);
    }

    /// A job ended, or waits for its next attempt.
    pub(super) fn note_done(&self) {
        let less = |n: usize| Some(n.saturating_sub(1));
        let _ = self.at_workers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Whether what could leave waits a little: callers submit as much as commits take, and nothing is idle for want of it.
    pub(crate) fn is_yielding(&self) -> bool {
        self.yields.load(Ordering::Relaxed)
    }

    /// What could leave waits, or no more.
    pub(super) fn set_yielding(&self, yields: bool) {
        if self.yields.swap(yields, Ordering::Relaxed) && !yields {
            self.resumed.notify_one();
        }
    }

    /// Waits until nothing has to wait any more.
    pub(crate) async fn resumed(&self) {
        self.resumed.notified().await;
    }

    /// Whether the relay publishes at all.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// A line cannot leave: nothing of it is handed over.
    pub(crate) fn close(&self, line: &str, reason: &'static str) {
        self.closed.write().unwrap_or_else(PoisonError::into_inner).insert(line.into(), reason);
    }

    /// It can again. What of it lies in SQL goes first.
    pub(crate) fn reopen(&self, line: &str) {
        let mut closed = self.closed.write().unwrap_or_else(PoisonError::into_inner);
        closed.remove(line);
        self.note_unclaimed();
    }

    /// An item of a queue is in SQL without a claim. While the queue is closed that is not news: the store is asked
    /// when it opens.
    pub(super) fn note_unclaimed_of(&self, line: &str) -> bool {
        let closed = self.closed();
        let is_news = !closed.contains_key(line);
        if is_news {
            self.note_unclaimed();
        }
        is_news
    }

    /// Something due lies in SQL without a claim.
    pub(crate) fn note_unclaimed(&self) {
        self.unclaimed.fetch_add(1, Ordering::AcqRel);
    }

    /// To be read before a scan, and passed to [`Self::note_scanned`] when it found nothing more.
    pub(crate) fn generation(&self) -> u64 {
        self.unclaimed.load(Ordering::Acquire)
    }

    /// A scan that began at `generation` found nothing more.
    pub(crate) fn note_scanned(&self, generation: u64) {
        self.scanned.store(generation, Ordering::Release);
    }

    /// Something is due at `at`, such as a retry: the store is to be asked then. Of several moments the earliest
    /// counts; each scan of the store finds the next.
    pub(crate) fn wake_at(&self, at: Micros) {
        self.wake.at.fetch_min(at.0, Ordering::AcqRel);
        self.wake.changed.notify_one();
    }

    /// Waits until something is due at a moment that was not known before, and says when.
    pub(crate) async fn woken(&self) -> Micros {
        loop {
            let at = self.wake.at.swap(i64::MAX, Ordering::AcqRel);
            if at != i64::MAX {
                return Micros(at);
            }
            self.wake.changed.notified().await;
        }
    }

    /// `n` items are in memory.
    pub(crate) fn hold(&self, n: usize) {
        self.held.fetch_add(n, Ordering::Relaxed);
    }

    /// `n` items left memory, by publish or release.
    pub(crate) fn let_go(&self, n: usize) {
        self.held.fetch_sub(n, Ordering::Relaxed);
    }

    /// Whether the relay publishes now; nothing is handed over while it does not.
    pub(crate) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
        if !open {
            // Items stored from now on have no claim: ask there before handing over again.
            self.note_unclaimed();
        }
    }
}
