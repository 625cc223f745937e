//! The newest events of this process, for `GET /events/recent`: a bounded list in memory.

use jiff::Timestamp;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Events that are kept.
pub const EVENTS_MAX: usize = 100;

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Counts up in the life of a process.
    pub seq: u64,
    /// When.
    pub ts: Timestamp,
    /// What, such as `latency.targets.init`.
    pub event: &'static str,
    /// The particulars.
    pub data: serde_json::Value,
}

/// The list.
#[derive(Debug, Default)]
pub struct Recent(Mutex<(u64, VecDeque<Event>)>);

impl Recent {
    /// Adds one.
    pub fn add(&self, event: &'static str, data: serde_json::Value) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.0 += 1;
        let event = Event { seq: list.0, ts: Timestamp::now(), event, data };
        if list.1.len() == EVENTS_MAX {
            list.1.pop_front();
        }
        list.1.push_back(event);
    }

    /// The newest `limit`, newest first, of a kind if one is named.
    pub fn newest(&self, kind: Option<&str>, limit: usize) -> Vec<Event> {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |event: &&Event| kind.is_none_or(|kind| event.event == kind);
        list.1.iter().rev().filter(wanted).take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let recent = Recent::default();
        (0..EVENTS_MAX + 5).for_each(|n| recent.add(if n % 2 == 0 { "even" } else { "odd" }, n.into()));
        let all = recent.newest(None, usize::MAX);
        assert_eq!((all.len(), all[0].seq, all[EVENTS_MAX - 1].seq), (EVENTS_MAX, 105, 6));
        assert_eq!(recent.newest(Some("odd"), 1)[0].data, 103);
    }
}
