//! Queues as JSON.

use super::{Moment, moment};
use crate::app::QueueStats;
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
