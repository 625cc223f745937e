//! Keeps a label's values few, regardless of what callers send.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};

/// The value that stands for all values not admitted.
pub const OTHER: &str = "other";

/// Longest label value admitted, in bytes.
const VALUE_MAX: usize = 128;

/// Admits a bounded set of values and maps the rest to [`OTHER`]. `const`, so it can be a `static`.
#[derive(Debug)]
pub struct Bounded {
    max: usize,
    seen: RwLock<BTreeSet<String>>,
}

impl Bounded {
    /// Admits the first `max` different values.
    pub const fn new(max: usize) -> Self {
        Self { max, seen: RwLock::new(BTreeSet::new()) }
    }

    /// Admits exactly these values.
    pub fn only<S: Into<String>>(values: impl IntoIterator<Item = S>) -> Self {
        Self { max: 0, seen: RwLock::new(values.into_iter().map(Into::into).collect()) }
    }

    /// The value itself if it is admitted, else [`OTHER`].
    pub fn label<'a>(&self, value: &'a str) -> &'a str {
        match self.admit(value) {
            Admitted::Known | Admitted::Now => value,
            Admitted::Not => OTHER,
        }
    }

    /// Whether the value is admitted, and whether it is so for the first time.
    pub fn admit(&self, value: &str) -> Admitted {
        if self.seen.read().unwrap_or_else(PoisonError::into_inner).contains(value) {
            return Admitted::Known;
        }
        if self.max == 0 || value.is_empty() || value.len() > VALUE_MAX {
            return Admitted::Not;
        }
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(value) {
            return Admitted::Known;
        }
        if seen.len() >= self.max {
            return Admitted::Not;
        }
        seen.insert(value.to_owned());
        Admitted::Now
    }
}

/// What became of a value that asked to be a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// It was admitted before.
    Known,
    /// It is admitted with this call.
    Now,
    /// There is no place for it.
    Not,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_past_the_limit_are_other_and_early_ones_stay() {
        static LABELS: Bounded = Bounded::new(2);
        assert_eq!(LABELS.label("a"), "a");
        assert_eq!([LABELS.admit("b"), LABELS.admit("b")], [Admitted::Now, Admitted::Known]);
        assert_eq!(LABELS.label("c"), OTHER);
        assert_eq!(LABELS.label("a"), "a");
        assert_eq!(LABELS.label(""), OTHER);
    }

    #[test]
    fn long_values_take_no_place() {
        let labels = Bounded::new(1);
        assert_eq!(labels.label(&"x".repeat(VALUE_MAX + 1)), OTHER);
        assert_eq!(labels.label("a"), "a");
    }

    #[test]
    fn a_fixed_set_admits_nothing_else() {
        let labels = Bounded::only(["echo", "sleep"]);
        assert_eq!(labels.label("echo"), "echo");
        assert_eq!(labels.label("rm"), OTHER);
    }

    #[test]
    fn many_threads_never_pass_the_limit() {
        let labels = Bounded::new(8);
        let admitted = std::sync::Mutex::new(BTreeSet::new());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (labels, admitted) = (&labels, &admitted);
                scope.spawn(move || {
                    for n in 0..100 {
                        let value = format!("v{}", n * (thread + 1));
                        admitted.lock().unwrap().insert(labels.label(&value).to_owned());
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner().unwrap().len(), 9, "eight values and other");
    }
}
