//! Room in `swarm_jobs`, by queue: a queue may use as much of the stream as it leaves free.
//!
//! All queues share one stream. One whose jobs are not taken would fill it and stop all others; so it waits once its
//! share is used: half of the stream if it is the only one, a third each of two, and what is left stays free for those
//! that move. The server reports messages by subject and bytes in total; the size of a queue's messages is known from
//! what was sent and compared with that. If nothing is known, the server's own limit is the only one.

use agentforge_jetstream::{Nats, StreamUse, subjects};
use agentforge_message_id::{Mission, Queue};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How often the server is asked while a queue waits or the stream is used by more than an eighth.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How often it is asked else.
const CHECK_INTERVAL_IDLE: Duration = Duration::from_secs(2);
/// Between two checks a queue sends at most this part of what was left, and all of them together that: other replicas
/// and missions send at the same time, unseen.
const QUEUE_SHARE: u64 = 8;
const ALL_SHARE: u64 = 4;
/// Polls that may fail in a row before what was known counts for nothing.
const FAILURES_MAX: u32 = 3;
/// Queues that are kept count of; beyond it the server's limit is the only one.
const QUEUES_MAX: usize = 4_096;

/// What a message may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave: its place is reserved.
    Fits,
    /// Wait: its queue uses so many bytes, and no more are left free.
    Waits {
        /// Used by the queue.
        used: u64,
        /// The stream's max_bytes.
        max: u64,
    },
    /// Never leave: the stream is smaller.
    Never {
        /// The stream's max_bytes.
        max: u64,
    },
}

/// What is known of the room in `swarm_jobs`, and what was reserved of it since. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct StreamCapacity(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// The stream's size, once it is known and bounded.
    max: Option<u64>,
    /// In use at the last check.
    used: u64,
    /// Sent since, by all queues together.
    unseen: u64,
    queues: HashMap<Box<str>, QueueUse>,
    /// A queue was asked to wait since the last check.
    is_wanted: bool,
}

/// What one queue uses of the stream, bytes.
#[derive(Clone, Copy, Debug, Default)]
struct QueueUse {
    /// In use at the last check, as estimated.
    at_poll: u64,
    /// Messages at the last check.
    messages: u64,
    /// Sent by this process, ever.
    sent: u64,
    /// Of those, known to be stored.
    stored: u64,
    /// Of those, in `at_poll`.
    seen: u64,
    /// Mean size of a message, as sent lately.
    mean: f64,
}

impl QueueUse {
    fn used(&self) -> u64 {
        self.at_poll + self.unseen()
    }
    fn unseen(&self) -> u64 {
        self.sent.saturating_sub(self.seen)
    }
}

impl StreamCapacity {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for a message that is about to be sent.
    pub fn reserve(&self, queue: &str, bytes: u64) -> Verdict {
        let mut known = self.known();
        if let Some(max) = known.max {
            if bytes > max {
                return Verdict::Never { max };
            }
            let free = max.saturating_sub(known.used).saturating_sub(known.unseen);
            let queue_use = known.queues.get(queue).copied().unwrap_or_default();
            let used = queue_use.used();
            // What others send is seen only at the next check: in between no queue takes much of what is left.
            let seen_free = max.saturating_sub(known.used);
            let is_burst = |unseen: u64, share: u64| unseen > 0 && unseen + bytes > seen_free / share;
            let is_too_fast = is_burst(queue_use.unseen(), QUEUE_SHARE) || is_burst(known.unseen, ALL_SHARE);
            if bytes > free || used > free || is_too_fast {
                known.is_wanted = true;
                return Verdict::Waits { used, max };
            }
        }
        if known.queues.len() >= QUEUES_MAX && !known.queues.contains_key(queue) {
            return Verdict::Fits;
        }
        let queue_use = match known.queues.get_mut(queue) {
            Some(queue_use) => queue_use,
            None => known.queues.entry(queue.into()).or_default(),
        };
        queue_use.sent += bytes;
        queue_use.mean =
            if queue_use.mean == 0.0 { bytes as f64 } else { queue_use.mean + (bytes as f64 - queue_use.mean) / 16.0 };
        known.unseen += bytes;
        Verdict::Fits
    }

    /// Whether a queue could send anything at all.
    pub fn has_room(&self, queue: &str) -> bool {
        let mut known = self.known();
        let Some(max) = known.max else { return true };
        let free = max.saturating_sub(known.used).saturating_sub(known.unseen);
        let queue_use = known.queues.get(queue).copied().unwrap_or_default();
        let seen_free = max.saturating_sub(known.used);
        let is_slow = queue_use.unseen() <= seen_free / QUEUE_SHARE && known.unseen <= seen_free / ALL_SHARE;
        let has_room = free > 0 && queue_use.used() <= free && is_slow;
        known.is_wanted |= !has_room;
        has_room
    }

    /// The server no longer reports: what was known grows old, and its own limit is the only one.
    fn forget(&self) {
        *self.known() = Known::default();
    }

    /// It was not sent after all.
    pub fn release(&self, queue: &str, bytes: u64) {
        let mut known = self.known();
        if let Some(queue_use) = known.queues.get_mut(queue) {
            queue_use.sent = queue_use.sent.saturating_sub(bytes).max(queue_use.stored);
            known.unseen = known.unseen.saturating_sub(bytes);
        }
    }

    /// The stream has it.
    pub fn stored(&self, queue: &str, bytes: u64) {
        if let Some(queue_use) = self.known().queues.get_mut(queue) {
            queue_use.stored += bytes;
        }
    }

    /// The queues that had messages in the stream at the last check.
    pub fn queues(&self) -> Vec<Queue> {
        let known = self.known();
        let used = known.queues.iter().filter(|(_, queue_use)| queue_use.messages > 0);
        used.filter_map(|(queue, _)| Queue::new(&**queue).ok()).collect()
    }

    /// What was stored when the server was asked; to be passed with its answer.
    fn begin_poll(&self) -> HashMap<Box<str>, u64> {
        self.known().queues.iter().map(|(queue, queue_use)| (queue.clone(), queue_use.stored)).collect()
    }

    /// Takes the server's answer. Subjects of other missions weigh as an average message does.
    fn finish_poll(&self, stored: &HashMap<Box<str>, u64>, found: &StreamUse, prefix: &str) {
        let mut guard = self.known();
        let known: &mut Known = &mut guard;
        known.max = found.max_bytes;
        known.used = found.bytes;
        let average = if found.messages == 0 { 0.0 } else { found.bytes as f64 / found.messages as f64 };
        let mean_of = |known: &Known, queue: &str| {
            known.queues.get(queue).map(|queue_use| queue_use.mean).filter(|mean| *mean > 0.0).unwrap_or(average)
        };
        let weight = |known: &Known, subject: &str, n: u64| {
            subject.strip_prefix(prefix).map_or(average, |queue| mean_of(known, queue)) * n as f64
        };
        let all: f64 = found.subjects.iter().map(|(subject, n)| weight(known, subject, *n)).sum();
        let scale = if all > 0.0 { found.bytes as f64 / all } else { 0.0 };
        for (queue, queue_use) in &mut known.queues {
            (queue_use.at_poll, queue_use.messages) = (0, 0);
            queue_use.seen = stored.get(queue).copied().unwrap_or(queue_use.seen).max(queue_use.seen);
        }
        for (subject, n) in &found.subjects {
            let Some(queue) = subject.strip_prefix(prefix) else { continue };
            let bytes = (weight(known, subject, *n) * scale) as u64;
            if known.queues.len() < QUEUES_MAX || known.queues.contains_key(queue) {
                let queue_use = known.queues.entry(queue.into()).or_default();
                (queue_use.at_poll, queue_use.messages) = (bytes, *n);
            }
        }
        // Queues of which nothing is stored or under way are forgotten, but for their weight while there are few.
        if known.queues.len() > QUEUES_MAX / 2 {
            known.queues.retain(|_, queue_use| queue_use.used() > 0);
        }
        known.unseen = known.queues.values().map(QueueUse::unseen).sum();
        known.is_wanted = false;
    }

    fn pause(&self) -> Duration {
        let known = self.known();
        let is_used = known.max.is_some_and(|max| known.used > max / 8);
        if known.is_wanted || is_used { CHECK_INTERVAL } else { CHECK_INTERVAL_IDLE }
    }
}

/// Asks the server what is in the stream, as often as that matters, until `stop` fires.
///
/// # Errors
/// Never; the type is the supervisor's.
pub async fn poll_loop(
    nats: Nats,
    capacity: StreamCapacity,
    mission: Mission,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let mut connected = nats.connected();
    let prefix = subjects::job_prefix(&mission);
    let (mut polled, mut failed): (Option<Instant>, u32) = (None, 0);
    loop {
        tokio::select! {
            up = connected.wait_for(|c| *c) => { let _ = up?; }
            () = stop.cancelled() => return Ok(()),
        }
        if polled.is_none_or(|at| at.elapsed() >= capacity.pause()) {
            polled = Some(Instant::now());
            let stored = capacity.begin_poll();
            match StreamUse::of(nats.jetstream(), subjects::STREAM_JOBS, ">").await {
                Ok(found) => {
                    capacity.finish_poll(&stored, &found, &prefix);
                    failed = 0;
                }
                Err(error) => {
                    debug!(%error, "the room in swarm_jobs is not known");
                    failed += 1;
                    if failed >= FAILURES_MAX {
                        capacity.forget();
                    }
                }
            }
        }
        if !crate::reconcile::pause(&stop, CHECK_INTERVAL).await {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KB: u64 = 1_000;

    fn used(max: u64, subjects: &[(&str, u64)], bytes: u64) -> StreamUse {
        StreamUse {
            max_bytes: Some(max),
            bytes,
            messages: subjects.iter().map(|(_, n)| n).sum(),
            subjects: subjects.iter().map(|(s, n)| ((*s).to_owned(), *n)).collect(),
        }
    }

    fn poll(capacity: &StreamCapacity, found: &StreamUse) {
        let stored = capacity.begin_poll();
        capacity.finish_poll(&stored, found, "swarm.jobs.dev.");
    }

    /// Sends what `queue` may send, with a check after each burst; `held` is what is in the stream, in messages of
    /// `bytes` by subject.
    fn fill(capacity: &StreamCapacity, queue: &str, bytes: u64, max: u64, held: &mut Vec<(String, u64)>) -> u64 {
        let subject = format!("swarm.jobs.dev.{queue}");
        held.push((subject, 0));
        loop {
            let mut burst = 0;
            while capacity.reserve(queue, bytes) == Verdict::Fits {
                capacity.stored(queue, bytes);
                burst += 1;
                assert!(burst < 1_000_000);
            }
            held.last_mut().unwrap().1 += burst;
            let subjects: Vec<(&str, u64)> = held.iter().map(|(s, n)| (s.as_str(), *n)).collect();
            let all: u64 = subjects.iter().map(|(_, n)| n * bytes).sum();
            poll(capacity, &used(max, &subjects, all));
            if burst == 0 {
                return held.last().unwrap().1;
            }
        }
    }

    #[test]
    fn a_queue_uses_as_much_as_it_leaves_free() {
        let capacity = StreamCapacity::default();
        assert_eq!(capacity.reserve("any", u64::MAX / 4), Verdict::Fits, "nothing is known yet");
        let (capacity, max, mut held) = (StreamCapacity::default(), 1_000 * KB, vec![]);
        poll(&capacity, &used(max, &[], 0));
        let first = fill(&capacity, "stopped", 10 * KB, max, &mut held);
        assert!((45..=55).contains(&first), "{first} of 100");
        let second = fill(&capacity, "stopped-too", 10 * KB, max, &mut held);
        assert!((20..=27).contains(&second), "{second} of the rest");
        assert_eq!(capacity.reserve("default", 50 * KB), Verdict::Fits, "there is always some left");
        assert_eq!(capacity.reserve("default", 2_000 * KB), Verdict::Never { max });
    }

    /// Two replicas that know nothing of each other until the next check do not fill the stream together.
    #[test]
    fn replicas_together_leave_some_free() {
        let (replicas, max, mut n) =
            ([StreamCapacity::default(), StreamCapacity::default(), StreamCapacity::default()], 1_000 * KB, 0);
        replicas.iter().for_each(|capacity| poll(capacity, &used(max, &[], 0)));
        loop {
            let before = n;
            for capacity in &replicas {
                while capacity.reserve("stopped", 10 * KB) == Verdict::Fits {
                    capacity.stored("stopped", 10 * KB);
                    n += 1;
                }
            }
            replicas
                .iter()
                .for_each(|capacity| poll(capacity, &used(max, &[("swarm.jobs.dev.stopped", n)], n * 10 * KB)));
            if n == before {
                break;
            }
        }
        assert!((45..=85).contains(&n), "{n} of 100");
        assert_eq!(replicas[0].reserve("default", 50 * KB), Verdict::Fits);
    }

    #[test]
    fn what_the_server_has_is_shared_out_by_weight() {
        let capacity = StreamCapacity::default();
        for (queue, bytes, n) in [("heavy", 100 * KB, 4), ("light", KB, 40)] {
            for _ in 0..n {
                assert_eq!(capacity.reserve(queue, bytes), Verdict::Fits, "nothing is known yet");
                capacity.stored(queue, bytes);
            }
        }
        poll(&capacity, &used(1_000 * KB, &[("swarm.jobs.dev.heavy", 4), ("swarm.jobs.dev.light", 40)], 440 * KB));
        let of = |queue: &str| capacity.known().queues[queue].used() / KB;
        assert_eq!((of("heavy"), of("light")), (400, 40));
        // The heavy ones were taken.
        poll(&capacity, &used(1_000 * KB, &[("swarm.jobs.dev.light", 40)], 40 * KB));
        assert_eq!((of("heavy"), of("light")), (0, 40));
        assert_eq!(capacity.queues(), [Queue::new("light").unwrap()]);
    }

    /// A poll that does not show what is still under way must not make room for it twice.
    #[test]
    fn what_is_under_way_counts_until_it_is_stored() {
        let capacity = StreamCapacity::default();
        poll(&capacity, &used(1_000 * KB, &[], 0));
        let mut n = 0;
        while capacity.reserve("q", 100 * KB) == Verdict::Fits {
            n += 1;
        }
        poll(&capacity, &used(1_000 * KB, &[], 0));
        assert!(matches!(capacity.reserve("q", 100 * KB), Verdict::Waits { .. }));
        (0..n).for_each(|_| capacity.release("q", 100 * KB));
        assert_eq!(capacity.reserve("q", 100 * KB), Verdict::Fits, "none was sent after all");
        assert!(capacity.has_room("another"));
    }

    #[test]
    fn other_missions_use_room_too() {
        let capacity = StreamCapacity::default();
        poll(&capacity, &used(1_000 * KB, &[("swarm.jobs.prod.default", 9)], 900 * KB));
        assert_eq!(capacity.reserve("default", 60 * KB), Verdict::Fits);
        assert!(matches!(capacity.reserve("default", 60 * KB), Verdict::Waits { .. }));
        // A server that no longer reports stops no queue.
        capacity.forget();
        assert_eq!(capacity.reserve("default", 60 * KB), Verdict::Fits);
        let unbounded = StreamUse { max_bytes: None, ..used(0, &[], 1 << 40) };
        poll(&capacity, &unbounded);
        assert_eq!(capacity.reserve("default", 60 * KB), Verdict::Fits);
    }
}
