//! What operators order: writes outside of the commits of jobs. Each is one transaction with its entry in the audit log.

use super::QueuePause;
use crate::model::Schedule;
use crate::operation::Operation;
use agentforge_audit::Entry;
use agentforge_message_id::{Mission, OperationId, Queue, ScheduleId};
use agentforge_proto::time::Micros;

/// A write that somebody asked for.
#[derive(Clone, Debug)]
pub enum Order {
    /// Stores a schedule; 0 when its name is taken.
    CreateSchedule(Box<Schedule>),
    /// Stores what callers may change of a schedule that was last changed at `read_at`. 0 when it was changed since, is
    /// gone, or another has the name.
    UpdateSchedule {
        /// As it is to be.
        schedule: Box<Schedule>,
        /// When it was last changed, as it was read.
        read_at: Option<Micros>,
        /// Whether its next turn is set too.
        retime: bool,
    },
    /// Pauses (`next` is `None`) or resumes; 0 when there is none.
    PauseSchedule {
        /// Which one.
        id: ScheduleId,
        /// Whether it makes no jobs from now on.
        paused: bool,
        /// Its next turn.
        next: Option<Micros>,
    },
    /// Removes; 0 when there was none. Jobs it made stay.
    DeleteSchedule(ScheduleId),
    /// Stores an operation with what was asked for, as JSON; 0 when too many are open. The oldest of very many ended ones
    /// go.
    CreateOperation {
        /// The operation, which waits.
        operation: Box<Operation>,
        /// What was asked for.
        spec: String,
    },
    /// Asks an operation to stop, unless it has ended.
    CancelOperation(OperationId),
    /// Pauses a queue; 0 when it is paused already.
    PauseQueue(QueuePause),
    /// Resumes a queue; 0 when it was not paused.
    ResumeQueue {
        /// Its mission.
        mission: Mission,
        /// Which one.
        queue: Queue,
    },
    /// Puts these messages that were put aside, or all, back into the outbox; says how many there were.
    Unpark(Option<Vec<i64>>),
    /// Deletes these messages that were put aside, or all; says how many there were.
    DiscardParked(Option<Vec<i64>>),
    /// Deletes these dead letters; says how many there were.
    DiscardLetters(Vec<i64>),
}

impl Order {
    /// What is attempted, for errors.
    pub(super) const fn attempted(&self) -> &'static str {
        match self {
            Self::CreateSchedule(_) => "create a schedule",
            Self::UpdateSchedule { .. } => "update a schedule",
            Self::PauseSchedule { .. } => "pause a schedule",
            Self::DeleteSchedule(_) => "delete a schedule",
            Self::CreateOperation { .. } => "store an operation",
            Self::CancelOperation(_) => "cancel an operation",
            Self::PauseQueue(_) => "pause a queue",
            Self::ResumeQueue { .. } => "resume a queue",
            Self::Unpark(_) => "put messages back into the outbox",
            Self::DiscardParked(_) => "discard messages put aside",
            Self::DiscardLetters(_) => "discard dead letters",
        }
    }

    /// Whether it says how many rows there were: then none is an answer, and not a refusal.
    pub(super) const fn counts(&self) -> bool {
        matches!(
            self,
            Self::CancelOperation(_)
                | Self::PauseQueue(_)
                | Self::ResumeQueue { .. }
                | Self::Unpark(_)
                | Self::DiscardParked(_)
                | Self::DiscardLetters(_)
        )
    }
}

/// What an order came to.
#[derive(Debug)]
pub(super) enum Done {
    /// So many rows.
    Rows(u64),
    /// What it was about, by its ids.
    Named(Vec<String>),
}

impl Done {
    /// How many things it was about.
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Rows(rows) => *rows,
            Self::Named(ids) => ids.len() as u64,
        }
    }

    /// The entries of the order: of many things as many as name them all.
    pub(super) fn entries(&self, order: &Order, entry: Entry) -> Vec<Entry> {
        match self {
            Self::Named(ids) => {
                let kind = entry.object_kind.clone();
                entry.naming(&kind, ids)
            }
            Self::Rows(rows) if order.counts() => vec![entry.counted(*rows)],
            Self::Rows(_) => vec![entry],
        }
    }
}
