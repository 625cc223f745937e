//! How fast queues move, as counted last: values, and the moment they are from.

use crate::store::QueueEnded;
use agentforge_message_id::Mission;
use agentforge_proto::time::Micros;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// A rate is that of the last minute, …
pub(super) const RATE_WINDOW: Duration = Duration::from_secs(60);
/// … or of so many jobs, where these ended in less time: reading more takes longer than callers wait.
pub(super) const RATE_JOBS_MAX: u32 = 10_000;
/// Rates as old as this are given as they are.
const RATE_FRESH: Duration = Duration::from_secs(2);
/// A window that is shorter says little.
const RATE_WINDOW_MIN: Duration = Duration::from_millis(100);

/// Jobs per second, by mission and queue.
pub(super) type ByQueue = BTreeMap<(String, String), f64>;

/// The rates as they were counted last.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<Option<(Instant, ByQueue)>>);

/// The last rates, held by the one who may count them again; others wait.
pub(super) struct Last<'r>(MutexGuard<'r, Option<(Instant, ByQueue)>>);

impl Rates {
    /// Waits for the one who counts.
    pub(super) async fn last(&self) -> Last<'_> {
        Last(self.0.lock().await)
    }
}

impl Last<'_> {
    /// The last ones, where they may be given as they are.
    pub(super) fn fresh(&self) -> Option<ByQueue> {
        let (at, rates) = self.0.as_ref()?;
        (at.elapsed() < RATE_FRESH).then(|| rates.clone())
    }

    /// Keeps these, and gives them back.
    pub(super) fn keep(&mut self, rates: ByQueue) -> ByQueue {
        *self.0 = Some((Instant::now(), rates.clone()));
        rates
    }
}

/// Of the time that was looked at.
pub(super) fn rates_of(ended: &[QueueEnded], now: Micros) -> ByQueue {
    let window = |q: &QueueEnded| now.since(q.since).max(RATE_WINDOW_MIN).as_secs_f64();
    let rate = |q: &QueueEnded| (key(&q.mission, q.queue.as_str()), q.jobs as f64 / window(q));
    ended.iter().map(rate).collect()
}

/// What a queue is found by.
pub(super) fn key(mission: &Mission, queue: &str) -> (String, String) {
    (mission.to_string(), queue.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_message_id::Queue;

    fn ended(queue: &str, jobs: u64, since: i64) -> QueueEnded {
        let (mission, queue) = (Mission::new("dev").unwrap(), Queue::new(queue).unwrap());
        QueueEnded { mission, queue, jobs, since: Micros(since) }
    }

    #[test]
    fn a_rate_is_of_the_time_that_was_looked_at() {
        let now = Micros(100_000_000);
        let of = |rates: &ByQueue, queue: &str| rates[&("dev".to_owned(), queue.to_owned())];
        let few = rates_of(&[ended("a", 30, 40_000_000), ended("b", 6, 40_000_000)], now);
        assert_eq!((of(&few, "a"), of(&few, "b")), (0.5, 0.1));
        // As many as are read: they ended within two seconds.
        let many = rates_of(&[ended("a", 9_000, 98_000_000), ended("b", 1_000, 98_000_000)], now);
        assert_eq!((of(&many, "a"), of(&many, "b")), (4_500.0, 500.0));
    }
}
