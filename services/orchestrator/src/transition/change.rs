//! What can happen to a job, and why it may do nothing.

use crate::model::{JobError, State};
use agentforge_message_id::Attempt;
use agentforge_proto::bus::{Finished, Started};
use agentforge_proto::time::Micros;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// What happened to a job.
#[derive(Clone, Debug)]
pub enum Change {
    /// The PubAck of its attempt came.
    Queued {
        /// Which attempt was published.
        attempt: Attempt,
        /// Where the stream keeps it.
        stream_seq: i64,
        /// When the PubAck came.
        at: Micros,
    },
    /// Its message can never be published: NATS refuses it for good.
    Refused {
        /// The attempt whose message it is.
        attempt: Attempt,
        /// What NATS refuses and the limit: it becomes the error of the job.
        error: Box<JobError>,
        /// The moment of the refusal.
        at: Micros,
    },
    /// A worker began.
    Started(Started),
    /// A worker ended.
    Finished(Box<Finished>),
    /// A worker has no such tool. Others may have it.
    ToolMissing {
        /// The report of the worker that lacks the tool.
        finished: Box<Finished>,
        /// The tools that workers of the job's queue announced within the grace.
        announced: Box<HashSet<String>>,
        /// How long a tool may be missing from when the job may run.
        grace: Duration,
    },
    /// A caller cancels.
    Cancel {
        /// The moment of the cancel; the job ends then.
        at: Micros,
        /// The name of the caller's token.
        by: Option<String>,
        /// Only a job that is in one of these states is stopped; empty: any that is open.
        only: Arc<[State]>,
    },
    /// The deadline passed.
    Expire {
        /// The moment at which the deadline was found to have passed.
        at: Micros,
    },
    /// A caller puts a dead job back.
    Redrive {
        /// The moment of the redrive; the job may be published from then on.
        at: Micros,
    },
    /// A caller puts a job back that ended without success, for any reason.
    Retry {
        /// The moment of the retry; the job may be published from then on.
        at: Micros,
        /// From then to its new deadline; `None`: as long as it had before.
        lifetime: Option<Duration>,
    },
    /// Its message was found to be gone with no result in transit: publish it again.
    Republish {
        /// The attempt that was found missing.
        attempt: Attempt,
        /// The moment at which it was missed; it may be published from then on.
        at: Micros,
    },
}

/// Why a change does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// No such job.
    Unknown,
    /// The job is final: a late or second result.
    Final,
    /// The job was cancelled or has expired: its messages on queues are no longer needed.
    Stopped,
    /// The report is for another attempt than the current one.
    OtherAttempt,
    /// The job has passed this point already.
    Passed,
    /// Another job has its idempotency key now: running both would do the work twice.
    KeyTaken,
}

impl Ignored {
    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown_job",
            Self::Final => "final",
            Self::Stopped => "stopped",
            Self::OtherAttempt => "other_attempt",
            Self::Passed => "passed",
            Self::KeyTaken => "key_taken",
        }
    }
}
