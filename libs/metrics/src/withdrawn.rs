//! Series that were on the page and are not any more.
//!
//! The recorder keeps every series for the life of the process. A gauge of something that is gone would keep its last
//! value forever; it is left out of the page instead, until it is set again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

/// Lines begin so that are left out.
static LEFT_OUT: RwLock<BTreeSet<String>> = RwLock::new(BTreeSet::new());
/// Whether there are any: gauges are set often.
static ANY: AtomicBool = AtomicBool::new(false);

/// Leaves a series out.
pub(crate) fn leave_out(name: &str, labels: &[&str], values: &[&str]) {
    LEFT_OUT.write().unwrap_or_else(PoisonError::into_inner).insert(line(name, labels, values));
    ANY.store(true, Ordering::Release);
}

/// Shows a series again.
pub(crate) fn show(name: &str, labels: &[&str], values: &[&str]) {
    if ANY.load(Ordering::Acquire) {
        let line = line(name, labels, values);
        if LEFT_OUT.read().unwrap_or_else(PoisonError::into_inner).contains(&line) {
            LEFT_OUT.write().unwrap_or_else(PoisonError::into_inner).remove(&line);
        }
    }
}

/// A family's text without what is left out; nothing where no series is left.
pub(crate) fn without(family: &str) -> Option<String> {
    let left_out = LEFT_OUT.read().unwrap_or_else(PoisonError::into_inner);
    let is_shown = |text: &&str| text.starts_with('#') || !left_out.iter().any(|line| text.starts_with(line));
    let shown: Vec<&str> = family.lines().filter(is_shown).collect();
    shown.iter().any(|text| !text.starts_with('#')).then(|| shown.join("\n"))
}

/// Whether anything is left out.
pub(crate) fn any() -> bool {
    ANY.load(Ordering::Acquire)
}

/// How the series' line begins on the page.
fn line(name: &str, labels: &[&str], values: &[&str]) -> String {
    if labels.is_empty() {
        return format!("{name} ");
    }
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> = labels.iter().zip(values).map(|(l, v)| format!("{l}=\"{}\"", escaped(v))).collect();
    format!("{name}{{{}}} ", pairs.join(","))
}
