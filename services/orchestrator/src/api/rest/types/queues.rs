//! Queues and counts as JSON.

use super::{Moment, moment};
use crate::app::{JobCounts, QueueStats};
use serde::Serialize;
use utoipa::ToSchema;

/// A queue: what is open in it, and who serves it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Queue)]
pub struct QueueView {
    /// Mission.
    mission: String,
    /// Queue.
    queue: String,
    /// Accepted and due, not yet published.
    accepted: u64,
    /// Accepted for later: `run_at`, or the pause before a retry.
    delayed: u64,
    /// Published, not begun.
    queued: u64,
    /// Begun.
    running: u64,
    /// Since when the oldest job waits that is due and not begun; null when none does.
    #[schema(value_type = Option<String>, format = DateTime)]
    oldest_waiting_since: Option<Moment>,
    /// Workers online that serve it.
    workers: u32,
    /// Jobs that these run at once, in all their queues.
    capacity: u32,
    /// Jobs per second that workers ended: of the last minute, or of the last 10,000 jobs where these took less.
    ended_per_second: f64,
    /// How long what is due takes at this rate; null while nothing ends, and while the queue is paused.
    drain_seconds: Option<f64>,
    /// Its pause; null while it runs.
    paused: Option<PauseView>,
}

/// A queue's pause.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QueuePause)]
pub struct PauseView {
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    since: Moment,
    /// The name of the token that asked for it.
    by: String,
    /// Whether the NATS server delivers nothing of it. False for a moment after the call, and while NATS is unavailable.
    in_effect: bool,
}

impl From<QueueStats> for QueueView {
    fn from(q: QueueStats) -> Self {
        Self {
            mission: q.counts.mission.to_string(),
            queue: q.counts.queue.to_string(),
            accepted: q.counts.accepted,
            delayed: q.counts.delayed,
            queued: q.counts.queued,
            running: q.counts.running,
            oldest_waiting_since: moment(q.counts.oldest),
            workers: q.workers,
            capacity: q.capacity,
            ended_per_second: q.ended_per_second,
            drain_seconds: q.drain_seconds(),
            paused: q.paused.map(|p| PauseView { since: p.pause.since.into(), by: p.pause.by, in_effect: p.in_effect }),
        }
    }
}

/// All queues, in order of mission and queue.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueueList {
    /// The queues.
    pub(crate) queues: Vec<QueueView>,
}

/// Ids that begin as asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct FoundJobs {
    /// Oldest first, at most ten.
    pub(crate) ids: Vec<String>,
}

/// How many jobs are in each state.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobCounts)]
pub struct JobCountsView {
    /// Stored, not yet published, or for later.
    accepted: u64,
    /// Published, not begun.
    queued: u64,
    /// Begun.
    running: u64,
    /// Ended with a result.
    succeeded: u64,
    /// Ended with an error that no retry fixes.
    failed: u64,
    /// Used up their attempts, or lost too many workers.
    dead: u64,
    /// Stopped by a caller.
    cancelled: u64,
    /// Not ended by their deadlines.
    expired: u64,
    /// When they were counted.
    #[schema(value_type = String, format = DateTime)]
    counted_at: Moment,
}

impl From<JobCounts> for JobCountsView {
    fn from(counts: JobCounts) -> Self {
        let [accepted, queued, running, succeeded, failed, dead, cancelled, expired] = counts.of.map(|(_, n)| n);
        let counted_at = Moment(counts.at);
        Self { accepted, queued, running, succeeded, failed, dead, cancelled, expired, counted_at }
    }
}
