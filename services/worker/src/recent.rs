//! A bounded memory of what happened lately: forgets by age and, when full, the oldest first.
//!
//! Values only; the clock comes in.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

/// Keys seen at most `age_max` ago, at most `count_max` of them.
#[derive(Debug)]
pub struct Recent<K> {
    seen: HashMap<K, Instant>,
    order: VecDeque<(Instant, K)>,
    count_max: usize,
    age_max: Duration,
}

impl<K: Eq + Hash + Clone> Recent<K> {
    /// An empty memory.
    pub fn new(count_max: usize, age_max: Duration) -> Self {
        Self { seen: HashMap::new(), order: VecDeque::new(), count_max, age_max }
    }

    /// Remembers the key from `now` on.
    pub fn insert(&mut self, key: K, now: Instant) {
        self.forget(now);
        while self.order.len() >= self.count_max {
            self.forget_oldest();
        }
        self.seen.insert(key.clone(), now);
        self.order.push_back((now, key));
    }

    /// Whether the key was seen lately.
    pub fn contains(&self, key: &K, now: Instant) -> bool {
        self.seen.get(key).is_some_and(|at| now.saturating_duration_since(*at) <= self.age_max)
    }

    fn forget(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > self.age_max) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((at, key)) = self.order.pop_front() else { return };
        // A key seen again has a younger entry further back, which keeps it.
        if self.seen.get(&key) == Some(&at) {
            self.seen.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_by_age_and_by_count() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut recent = Recent::new(3, Duration::from_secs(10));
        recent.insert("a", at(0));
        recent.insert("b", at(1));
        assert!(recent.contains(&"a", at(10)) && !recent.contains(&"a", at(11)));
        recent.insert("a", at(2));
        recent.insert("c", at(3));
        recent.insert("d", at(4));
        assert!(!recent.contains(&"b", at(4)), "the oldest makes room");
        assert!(recent.contains(&"a", at(4)), "seen again, so younger");
        recent.insert("e", at(30));
        assert_eq!((recent.order.len(), recent.seen.len()), (1, 1));
    }
}
