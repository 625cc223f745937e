//! A group commit: the writes that share one transaction, and what became of each.

use super::claim::Park;
use super::identity::Clash;
use super::outbox::OutboxRow;
use crate::caller::Caller;
use crate::model::{DeadReason, Job, NewJob, State};
use crate::transition::{Backoff, Change, Current, Ignored, ResultEffect};
use agentforge_audit::Entry;
use agentforge_message_id::{JobId, Mission};
use agentforge_proto::bus::{ErrorClass, Rejected};
use agentforge_proto::time::Micros;

/// Many writes that are committed together.
#[derive(Debug, Default)]
pub struct Group {
    /// New jobs, in order of acceptance. Those with `claim` are published by this process at once.
    pub submits: Vec<Submit>,
    /// Changes to stored jobs, applied in order.
    pub changes: Vec<(JobId, Change)>,
    /// Messages on queues that were not jobs. Kept once each, as dead letters.
    pub rejects: Vec<Rejected>,
    /// Rows of the outbox of which nothing is left to publish.
    pub outbox_sent: Vec<i64>,
    /// Messages of the outbox that can never be published: they are put aside.
    pub outbox_parked: Vec<Park>,
    /// Whether this process takes it upon itself to publish the new rows of the outbox.
    pub claim_outbox: bool,
    /// What of it callers asked for, and who: each gets its entry in the audit log.
    pub acts: Vec<(Caller, Subject)>,
    /// Entries of the audit log that are about no write of this group: reads, refusals.
    pub entries: Vec<Entry>,
}

/// A write of a group that a caller asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The submission with this index.
    Submit(usize),
    /// The change with this index.
    Change(usize),
}

impl Group {
    /// How many writes.
    pub fn len(&self) -> usize {
        let audited = self.submits.len() + self.changes.len() + self.entries.len();
        audited + self.rejects.len() + self.outbox_sent.len() + self.outbox_parked.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether it is nothing but PubAcks that are noted.
    pub fn is_marks(&self) -> bool {
        self.submits.is_empty()
            && self.entries.is_empty()
            && self.rejects.is_empty()
            && self.outbox_parked.is_empty()
            && self.changes.iter().all(|(_, change)| matches!(change, Change::Queued { .. }))
    }
}

/// A new job on its way into the store.
#[derive(Debug)]
pub struct Submit {
    /// As admission made it.
    pub job: NewJob,
    /// Whether this process takes it upon itself to publish it (ignored when `run_at` is later).
    pub claim: bool,
}

/// How a commit is to be made.
#[derive(Clone, Copy, Debug)]
pub struct CommitContext<'a> {
    /// The moment of the commit.
    pub now: Micros,
    /// Waits before a failed attempt is published again, where the job has none of its own.
    pub backoff: &'a Backoff,
    /// In whose name rows are claimed.
    pub owner: &'a Owner,
    /// Until when claims hold.
    pub claim_until: Micros,
    /// Which states have a life-cycle event, by `State as i16` as bit number.
    pub events: EventMask,
    /// Whose events these are: entries of the audit log name no mission of their own.
    pub mission: &'a Mission,
}

impl CommitContext<'_> {
    /// For a thread of its own.
    pub(super) fn to_owned(self) -> OwnContext {
        let Self { now, backoff, owner, claim_until, events, mission } = self;
        OwnContext { now, backoff: *backoff, owner: owner.clone(), claim_until, events, mission: mission.clone() }
    }
}

/// A [`CommitContext`] that borrows nothing.
#[derive(Debug)]
pub(super) struct OwnContext {
    now: Micros,
    backoff: Backoff,
    owner: Owner,
    claim_until: Micros,
    events: EventMask,
    mission: Mission,
}

impl OwnContext {
    pub(super) fn context(&self) -> CommitContext<'_> {
        let Self { now, backoff, owner, claim_until, events, mission } = self;
        CommitContext { now: *now, backoff, owner, claim_until: *claim_until, events: *events, mission }
    }
}

/// Which states are published as events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventMask(pub u16);

impl EventMask {
    /// An event for every change of state.
    pub const ALL: Self = Self(0b1_1111_1110);
    /// Final states only.
    pub const FINAL: Self = Self(0b1_1111_0000);
    /// No events at all.
    pub const OFF: Self = Self(0);
    /// Whether `state` is published.
    pub const fn includes(self, state: State) -> bool {
        self.0 & (1 << state as i16) != 0
    }
}

/// This process, as claims name it: fresh at every start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner(pub String);

/// What became of a group; the vectors answer the group's, index by index.
#[derive(Debug, Default)]
pub struct Committed {
    /// Answers to `submits`.
    pub submits: Vec<Submitted>,
    /// Answers to `changes`: the job after the change, or why it did nothing.
    pub changes: Vec<Result<Changed, Ignored>>,
    /// The results that were stored, by the row number of their job.
    pub results: Vec<(i64, ResultEffect)>,
    /// Those of `rejects` that were new: why each is a dead letter.
    pub rejects_new: Vec<DeadReason>,
    /// Rows that this commit put into the outbox, claimed by this process where asked for, in order.
    pub outbox: Vec<OutboxRow>,
}

/// What became of a submission.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the large one is the usual one")]
pub enum Submitted {
    /// It is new, and stored by this commit.
    Created(CreatedJob),
    /// Stored before, with the same body.
    Existing(Box<Job>),
    /// Something else has that id or key.
    Conflict {
        /// The job that has it.
        existing: JobId,
        /// Why it is none.
        clash: Clash,
    },
}

impl Submitted {
    /// The job that the submission stands for now.
    pub(super) fn into_id(self) -> JobId {
        match self {
            Self::Created(made) => made.job.id,
            Self::Existing(job) => job.id,
            Self::Conflict { existing, .. } => existing,
        }
    }
}

/// A job stored now.
#[derive(Debug)]
pub struct CreatedJob {
    /// Row number: order of acceptance.
    pub seq: i64,
    /// The job as submitted.
    pub job: NewJob,
    /// Whether the claim was given.
    pub claimed: bool,
}

/// A change that was applied.
#[derive(Debug)]
pub struct Changed {
    /// The state before.
    pub from: State,
    /// The job after.
    pub job: Current,
    /// Whether the job's dead letter was made by this change.
    pub dead: Option<DeadReason>,
    /// The class of the error, where the change was a failure.
    pub failed: Option<ErrorClass>,
    /// Whether a worker's word was not believed, and the attempt handed back.
    pub disputed: bool,
}
