//! What waits in memory, line by line: pure, no clock and no I/O.
//!
//! A line is what leaves or waits together: a queue of jobs, or what of the outbox has one destination. One that
//! cannot leave is held by itself: it keeps a few of its items for the next try, the rest go back to the store.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Shortest and longest pause between two tries of a line.
pub(super) const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Items that a held line keeps in memory: enough to continue at once, few enough for hundreds of lines.
const KEPT_MAX: usize = 16;

/// An item and when it came.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub(super) item: T,
    pub(super) since: Instant,
}

#[derive(Debug)]
struct Held<T> {
    items: BTreeMap<i64, Waiting<T>>,
    reason: &'static str,
    until: Instant,
    pause: Duration,
    /// One of its messages is on its way.
    is_tried: bool,
}

/// All lines of a source.
#[derive(Debug)]
pub(super) struct Lines<T> {
    line_of: fn(&T) -> &str,
    ready: BTreeMap<i64, Waiting<T>>,
    held: HashMap<Arc<str>, Held<T>>,
    /// The earliest try, as long as nothing changed.
    next_try: Option<Instant>,
    /// What found no place.
    spilled: Vec<T>,
}

impl<T> Lines<T> {
    pub(super) fn new(line_of: fn(&T) -> &str) -> Self {
        Self { line_of, ready: BTreeMap::new(), held: HashMap::new(), next_try: None, spilled: Vec::new() }
    }

    /// Items that may leave, as far as is known.
    pub(super) fn len(&self) -> usize {
        self.ready.len()
    }

    /// The first of those.
    pub(super) fn first(&self) -> Option<&T> {
        self.ready.first_key_value().map(|(_, w)| &w.item)
    }

    /// When the first of those came.
    pub(super) fn first_since(&self) -> Option<Instant> {
        self.ready.first_key_value().map(|(_, w)| w.since)
    }

    /// Puts an item into its place; returns what was there already.
    pub(super) fn insert(&mut self, seq: i64, item: T, since: Instant) -> Option<T> {
        let waiting = Waiting { item, since };
        if self.held.is_empty() {
            return self.ready.insert(seq, waiting).map(|w| w.item);
        }
        match self.held.get_mut((self.line_of)(&waiting.item)) {
            None => self.ready.insert(seq, waiting).map(|w| w.item),
            Some(held) => {
                let was = held.items.insert(seq, waiting).map(|w| w.item);
                if held.items.len() > KEPT_MAX {
                    self.spilled.extend(held.items.pop_last().map(|(_, w)| w.item));
                }
                was
            }
        }
    }

    /// The first that may leave.
    pub(super) fn pop(&mut self) -> Option<T> {
        loop {
            let (seq, waiting) = self.ready.pop_first()?;
            if self.held.is_empty() || !self.held.contains_key((self.line_of)(&waiting.item)) {
                return Some(waiting.item);
            }
            // It came before its line was held.
            self.insert(seq, waiting.item, waiting.since);
        }
    }

    /// What found no place in memory, to be given back.
    pub(super) fn take_spilled(&mut self) -> Vec<T> {
        std::mem::take(&mut self.spilled)
    }

    /// Takes an item out, where it is here.
    pub(super) fn remove(&mut self, seq: i64) -> Option<T> {
        let held = || self.held.values_mut().find_map(|h| h.items.remove(&seq));
        self.ready.remove(&seq).or_else(held).map(|w| w.item)
    }

    /// Removes what came before `limit`.
    pub(super) fn take_older(&mut self, limit: Instant) -> Vec<T> {
        let mut old: Vec<T> = Vec::new();
        if self.first_since().is_some_and(|first| first < limit) {
            old.extend(self.ready.extract_if(.., |_, w| w.since < limit).map(|(_, w)| w.item));
        }
        for held in self.held.values_mut() {
            old.extend(held.items.extract_if(.., |_, w| w.since < limit).map(|(_, w)| w.item));
        }
        old
    }

    /// Empties the memory: what was ready, held and spilled.
    pub(super) fn take_all(&mut self) -> Vec<T> {
        let held = self.held.drain().flat_map(|(_, h)| h.items.into_values());
        let all = std::mem::take(&mut self.ready).into_values().chain(held).map(|w| w.item);
        all.chain(std::mem::take(&mut self.spilled)).collect()
    }

    /// Holds a line, or holds it on. Says which reason it takes the place of, where it was held already.
    pub(super) fn hold(&mut self, line: &str, reason: &'static str, now: Instant) -> Option<&'static str> {
        let was = match self.held.get_mut(line) {
            // The rest of one window fails together: that is one failure.
            Some(held) if held.until > now && !held.is_tried => Some(std::mem::replace(&mut held.reason, reason)),
            Some(held) => {
                held.pause = (held.pause * 2).min(PAUSE.1);
                held.until = now + held.pause;
                held.is_tried = false;
                Some(std::mem::replace(&mut held.reason, reason))
            }
            None => {
                let held =
                    Held { items: BTreeMap::new(), reason, until: now + PAUSE.0, pause: PAUSE.0, is_tried: false };
                self.held.insert(line.into(), held);
                None
            }
        };
        self.plan();
        was
    }

    /// Resumes a line; its items may be published. Returns why it was held.
    pub(super) fn reopen(&mut self, line: &str) -> Option<&'static str> {
        let held = self.held.remove(line)?;
        self.ready.extend(held.items);
        self.plan();
        Some(held.reason)
    }

    /// Why a line is held.
    pub(super) fn reason(&self, line: &str) -> Option<&'static str> {
        if self.held.is_empty() { None } else { self.held.get(line).map(|h| h.reason) }
    }

    /// The lines that are held.
    pub(super) fn held(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.held.iter().map(|(line, h)| (&**line, h.reason))
    }

    /// When a held line is to be tried next.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.next_try
    }

    /// A line whose time has come; it counts as tried from now on.
    pub(super) fn begin_try(&mut self, now: Instant) -> Option<Arc<str>> {
        let due = self.held.iter_mut().filter(|(_, h)| !h.is_tried && h.until <= now).min_by_key(|(_, h)| h.until);
        let line = due.map(|(line, held)| {
            held.is_tried = true;
            Arc::clone(line)
        });
        self.plan();
        line
    }

    /// The first item of a held line.
    pub(super) fn pop_of(&mut self, line: &str) -> Option<T> {
        // Items from before the line was held are before it.
        let (line_of, seqs) = (self.line_of, self.ready.iter());
        let mine: Vec<i64> = seqs.filter(|(_, w)| line_of(&w.item) == line).map(|(seq, _)| *seq).collect();
        for seq in mine {
            if let Some(w) = self.ready.remove(&seq) {
                self.insert(seq, w.item, w.since);
            }
        }
        self.held.get_mut(line)?.items.pop_first().map(|(_, w)| w.item)
    }

    fn plan(&mut self) {
        self.next_try = self.held.values().filter(|h| !h.is_tried).map(|h| h.until).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Item = (i64, &'static str);

    fn lines() -> (Lines<Item>, Instant) {
        (Lines::new(|item| item.1), Instant::now())
    }

    fn put(lines: &mut Lines<Item>, items: &[Item], now: Instant) {
        for item in items {
            assert_eq!(lines.insert(item.0, *item, now), None);
        }
    }

    #[test]
    fn a_held_line_holds_no_other_and_keeps_its_order() {
        let (mut l, now) = lines();
        put(&mut l, &[(1, "a"), (2, "b"), (3, "a"), (4, "b")], now);
        assert_eq!(l.pop(), Some((1, "a")));
        assert_eq!(l.hold("a", "full", now), None);
        put(&mut l, &[(1, "a"), (5, "a")], now);
        assert_eq!((l.pop(), l.pop(), l.pop()), (Some((2, "b")), Some((4, "b")), None));
        assert_eq!(l.begin_try(now), None, "not before its time");
        let later = now + PAUSE.0;
        assert_eq!(l.begin_try(later).as_deref(), Some("a"));
        assert_eq!(l.begin_try(later), None, "one try at a time");
        assert_eq!(l.pop_of("a"), Some((1, "a")));
        assert_eq!(l.reopen("a"), Some("full"));
        assert_eq!((l.pop(), l.pop(), l.pop()), (Some((3, "a")), Some((5, "a")), None));
    }

    #[test]
    fn what_came_before_the_hold_is_tried_first() {
        let (mut l, now) = lines();
        put(&mut l, &[(7, "a"), (9, "a"), (8, "b")], now);
        l.hold("a", "full", now);
        put(&mut l, &[(10, "a")], now);
        l.begin_try(now + PAUSE.0);
        assert_eq!(l.pop_of("a"), Some((7, "a")));
        assert_eq!(l.len(), 1);
    }

    #[test]
    fn a_held_line_keeps_few_and_gives_the_last_back() {
        let (mut l, now) = lines();
        l.hold("a", "full", now);
        for seq in 0..100 {
            l.insert(seq, (seq, "a"), now);
        }
        let back = l.take_spilled();
        assert_eq!(back.len(), 100 - KEPT_MAX);
        assert!(back.iter().all(|(seq, _)| *seq >= KEPT_MAX as i64));
        assert_eq!((l.remove(0), l.remove(0)), (Some((0, "a")), None));
        l.insert(500, (500, "b"), now);
        assert_eq!(l.take_all().len(), KEPT_MAX);
    }

    #[test]
    fn pauses_grow_and_one_window_is_one_failure() {
        let (mut l, mut now) = lines();
        l.hold("a", "full", now);
        for _ in 0..1_000 {
            assert_eq!(l.hold("a", "full", now), Some("full"));
        }
        assert_eq!(l.next_try(), Some(now + PAUSE.0));
        for _ in 0..10 {
            now = l.next_try().unwrap();
            assert!(l.begin_try(now).is_some());
            assert_eq!(l.next_try(), None);
            assert!(l.hold("a", "no_stream", now).is_some());
        }
        assert_eq!((l.next_try(), l.reason("a")), (Some(now + PAUSE.1), Some("no_stream")));
    }

    #[test]
    fn old_ones_are_found_wherever_they_are() {
        let (mut l, now) = lines();
        let later = now + Duration::from_secs(3);
        put(&mut l, &[(1, "a"), (2, "b")], now);
        l.hold("a", "full", now);
        put(&mut l, &[(3, "a")], now);
        put(&mut l, &[(4, "a"), (5, "b")], later);
        let mut old: Vec<_> = l.take_older(later).into_iter().map(|i| i.0).collect();
        old.sort_unstable();
        assert_eq!(old, [1, 2, 3]);
        assert_eq!((l.pop(), l.pop_of("a")), (Some((5, "b")), Some((4, "a"))));
    }
}
