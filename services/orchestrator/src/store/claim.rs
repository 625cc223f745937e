//! What the relay asks of a store: of which lines it claims, what waits, and what was put aside.

use super::outbox::OutboxMessage;
use crate::model::JobSpec;
use agentforge_message_id::{Attempt, Queue};
use agentforge_proto::time::Micros;
use std::ops::Deref;
use std::sync::Arc;

/// An attempt to be published. It is read as its job's description: `outgoing.queue`.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Row number: order of acceptance.
    pub seq: i64,
    /// The attempt to publish.
    pub attempt: Attempt,
    /// How often it was published again.
    pub republished: u32,
    /// Past it the attempt is not begun.
    pub deadline: Option<Micros>,
    /// What its message says of the job.
    pub spec: Arc<JobSpec>,
}

impl Deref for Outgoing {
    type Target = JobSpec;

    fn deref(&self) -> &JobSpec {
        &self.spec
    }
}

/// Of which queues jobs are claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// All but these.
    AllBut(Vec<Queue>),
    /// This one and no other.
    Only(Queue),
}

impl Default for Pick {
    fn default() -> Self {
        Self::AllBut(vec![])
    }
}

impl Pick {
    /// Whether jobs of `queue` are meant.
    pub fn takes(&self, queue: &Queue) -> bool {
        match self {
            Self::AllBut(others) => !others.contains(queue),
            Self::Only(one) => one == queue,
        }
    }
}

/// Of which lines rows of the outbox are claimed: a line is `agentforge.events.`, or a subject that does not begin so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboxPick {
    /// All but these.
    AllBut(Vec<String>),
    /// This one and no other.
    Only(String),
}

impl Default for OutboxPick {
    fn default() -> Self {
        Self::AllBut(vec![])
    }
}

/// Jobs that are accepted and not published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Those that are due, claimed ones included, by queue; queues with none may be missing.
    pub due: Vec<(Queue, u64)>,
    /// Those whose time has not come.
    pub later: u64,
}

/// Longer than any claim holds: what is claimable within it and has an owner is claimed, not for later.
pub(crate) const CLAIMS_END_WITHIN_US: i64 = 60_000_000;

/// The queues with accepted jobs, each with its first moment: one step down the index for each, however many jobs
/// there are. The same SQL for both stores.
macro_rules! lines_of_jobs {
    () => {
        "WITH RECURSIVE lines (queue) AS ( \
           SELECT (SELECT min(queue) FROM jobs WHERE claimable_at IS NOT NULL) \
           UNION ALL \
           SELECT (SELECT min(queue) FROM jobs WHERE claimable_at IS NOT NULL AND queue > lines.queue) FROM lines \
             WHERE lines.queue IS NOT NULL) "
    };
}
pub(crate) use lines_of_jobs;

/// A message of the outbox on its way aside: no server would ever take it. Its row stays until all of it is settled.
#[derive(Clone, Debug)]
pub struct Park {
    /// The number of its row in the outbox.
    pub seq: i64,
    /// The message.
    pub message: OutboxMessage,
    /// The kind of refusal, one word.
    pub code: &'static str,
    /// The refusal in words.
    pub reason: String,
}

/// A message that was put aside.
#[derive(Clone, Debug)]
pub struct Parked {
    /// Its number; the order of parking.
    pub seq: i64,
    /// When its row was written.
    pub created_at: Micros,
    /// When it was put aside.
    pub parked_at: Micros,
    /// Subject that it was for.
    pub subject: String,
    /// The `Nats-Msg-Id` that it keeps when it is tried again.
    pub msg_id: String,
    /// Size of its payload.
    pub bytes: u64,
    /// The kind of refusal, one word.
    pub code: String,
    /// The refusal in words.
    pub reason: String,
}

/// Parked messages that are kept; beyond it the oldest are dropped. Each may be as large as a message can be, and each
/// dead letter also has a row of its own.
pub const PARKED_MAX: i64 = 1_000;
