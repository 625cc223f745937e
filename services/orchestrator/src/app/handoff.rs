//! What the committer hands to the relay in memory, so that it is published without a second read.
//!
//! The backlog's count bounds it: at most [`Backlog::HELD_MAX`] items and a group are in memory. The committer never
//! waits for the relay, which waits for the committer: what finds no room is in the store, and is found there when its
//! claim ends.

use super::Backlog;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Hand-offs on their way. Each has at least one item, so that the count of items is reached first.
const HANDOFFS_MAX: usize = 2 * Backlog::HELD_MAX;

/// The committer's side: it gives items.
pub(crate) struct Handoffs<T> {
    items: mpsc::Sender<Vec<T>>,
    backlog: Arc<Backlog>,
}

/// The relay's side: it takes them, whole groups at a time.
pub(crate) struct Handed<T> {
    items: mpsc::Receiver<Vec<T>>,
    backlog: Arc<Backlog>,
}

/// Both sides of one source.
pub(crate) fn handoffs<T>() -> (Handoffs<T>, Handed<T>) {
    let (sender, items) = mpsc::channel(HANDOFFS_MAX);
    let backlog = Arc::new(Backlog::default());
    (Handoffs { items: sender, backlog: Arc::clone(&backlog) }, Handed { items, backlog })
}

impl<T> Handoffs<T> {
    /// What both sides know of the backlog in the store.
    pub(crate) fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// Hands over claimed items, in their order; together they are `count` messages.
    pub(crate) fn hand_over(&self, items: Vec<T>, count: usize) {
        if items.is_empty() {
            return;
        }
        self.backlog.hold(count);
        if self.items.try_send(items).is_err() {
            self.backlog.let_go(count);
            self.backlog.note_unclaimed();
        }
    }
}

impl<T> Handed<T> {
    /// What both sides know of the backlog in the store.
    pub(crate) fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// The next items; `None` when the committer has ended.
    pub(crate) async fn next(&mut self) -> Option<Vec<T>> {
        self.items.recv().await
    }

    /// Those that are there already.
    #[cfg(test)]
    pub(crate) fn try_next(&mut self) -> Option<Vec<T>> {
        self.items.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_proto::time::Micros;

    #[tokio::test]
    async fn what_finds_no_room_is_left_to_the_store() {
        let (to, mut from) = handoffs();
        to.backlog().set_open(true);
        to.backlog().note_scanned(to.backlog().generation());
        for n in 0..HANDOFFS_MAX {
            to.hand_over(vec![n], 1);
        }
        assert!(!to.backlog().may_claim(), "more than may be held");
        let before = to.backlog().generation();
        to.hand_over(vec![0], 1);
        assert_ne!(to.backlog().generation(), before, "the store has something that is not in memory");
        assert_eq!(from.next().await, Some(vec![0]));
        to.hand_over(vec![], 0);
        drop(to);
        let mut rest = 0;
        while let Some(items) = from.next().await {
            rest += items.len();
        }
        assert_eq!(rest, HANDOFFS_MAX - 1, "an empty one is none");
    }

    #[tokio::test]
    async fn the_earliest_wake_up_counts_and_none_is_lost() {
        let (to, from) = handoffs::<u8>();
        to.backlog().wake_at(Micros(30));
        to.backlog().wake_at(Micros(10));
        to.backlog().wake_at(Micros(20));
        assert_eq!(from.backlog().woken().await, Micros(10));
        let later = tokio::time::timeout(std::time::Duration::from_millis(20), from.backlog().woken()).await;
        assert!(later.is_err(), "one wake-up covers all three");
        let (wait, ()) = tokio::join!(from.backlog().woken(), async { to.backlog().wake_at(Micros(5)) });
        assert_eq!(wait, Micros(5));
    }
}
