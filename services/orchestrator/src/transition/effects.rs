//! What an applied change leaves to be written in addition to the job's row.

use crate::model::{DeadReason, JobError};
use agentforge_message_id::{Attempt, JobId};
use agentforge_proto::bus::OutputRef;
use agentforge_proto::time::Micros;

/// What an applied change writes besides the row.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// A finished try.
    pub attempt: Option<AttemptEffect>,
    /// The job's one result.
    pub result: Option<ResultEffect>,
    /// A dead letter.
    pub dead: Option<DeadReason>,
    /// Marks the job's dead letters as put back.
    pub redriven: bool,
    /// A worker's word about the deadline or a cancel was not believed.
    pub disputed: bool,
    /// The next attempt must be published: the claim, if any, is dropped.
    pub release_claim: bool,
}

/// A finished try, to be stored.
#[derive(Clone, Debug)]
pub struct AttemptEffect {
    /// Its number, from 1, as the orchestrator counts.
    pub attempt: Attempt,
    /// succeeded, failed, cancelled, expired or worker_lost.
    pub outcome: &'static str,
    /// Why it failed.
    pub error: Option<JobError>,
    /// Who ran it.
    pub worker: Option<String>,
    /// Delivery of its message.
    pub delivery: u64,
    /// When the worker began, on the worker's clock; `None` if none did.
    pub started_at: Option<Micros>,
    /// When it ended: on the worker's clock, or the moment of a refusal on ours.
    pub finished_at: Micros,
    /// When the next try may be published.
    pub retry_at: Option<Micros>,
}

/// The committed result.
#[derive(Clone, Debug)]
pub struct ResultEffect {
    /// JSON text, passed on byte for byte; `None` when it is in the object store, or there is none.
    pub output: Option<String>,
    /// Where a large one is.
    pub output_ref: Option<OutputRef>,
    /// The earlier job whose result it is.
    pub replay_of: Option<JobId>,
}
