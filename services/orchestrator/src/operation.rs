//! Operations: work on many jobs that continues without its caller, and how far it is. Values only.

use agentforge_message_id::{JobId, OperationId};
use agentforge_proto::time::Micros;
use serde::{Deserialize, Serialize};

/// Operations that are waiting or running at most; more are refused.
pub const OPEN_MAX: u32 = 100;
/// Ended operations that are kept; the oldest go.
pub const ENDED_MAX: u32 = 1_000;

/// What an operation does. Stored as numbers; never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Puts dead jobs back.
    Redrive = 1,
    /// Puts jobs back that ended without success.
    Retry = 2,
    /// Stops open jobs.
    Cancel = 3,
}

/// Where an operation is. Stored as numbers; never renumber. Up to [`State::Running`] it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No orchestrator has taken it yet.
    Waiting = 1,
    /// An orchestrator carries it out, or did until it ended; then the next one continues.
    Running = 2,
    /// It is done.
    Succeeded = 3,
    /// It cannot continue; the error says why. Jobs that were put back or stopped stay so.
    Failed = 4,
    /// A caller stopped it. What it did stays so.
    Cancelled = 5,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Redrive, Self::Retry, Self::Cancel];
    /// The one with the highest number.
    pub const LAST: Self = Self::Cancel;

    /// The word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Retry => "retry",
            Self::Cancel => "cancel",
        }
    }

    /// The one with this stored number.
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as i16 == number)
    }
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The one with this stored number.
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as i16 == number)
    }

    /// Whether it has ended.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}

/// An operation as callers see it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// A UUIDv7: operations in the order of their ids are in the order of their creation.
    pub id: OperationId,
    /// What it does.
    pub kind: Kind,
    /// Where it is.
    pub state: State,
    /// Whether a caller asked it to stop.
    pub cancel_asked: bool,
    /// When it was accepted.
    pub created_at: Micros,
    /// The name of the token that started it.
    pub started_by: Option<String>,
    /// How far it is.
    pub progress: OperationProgress,
}

/// An operation that this process carries out.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// As it was stored before this claim.
    pub operation: Operation,
    /// What was asked for, as JSON.
    pub spec: String,
}

/// How far an operation is, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OperationProgress {
    /// Jobs that it is about, where they can be counted first.
    pub total: Option<u64>,
    /// Found to match.
    pub matched: u64,
    /// Jobs that are accepted again.
    pub put_back: u64,
    /// Jobs that were stopped.
    pub cancelled: u64,
    /// Neither put back nor stopped.
    pub skipped: u64,
    /// Why the first of these were not.
    pub reasons: Vec<NotPutBack>,
    /// When it began.
    pub started_at: Option<Micros>,
    /// When it ended.
    pub ended_at: Option<Micros>,
    /// Why it failed; while it runs, what it waits for.
    pub error: Option<String>,
    /// Where it continues.
    pub position: Position,
}

/// Where a walk over jobs continues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Position {
    /// The page that it is at begins before this row; none: at the newest.
    pub before: Option<i64>,
    /// Jobs that were taken on.
    pub taken: u32,
}

/// A job that was not put back, or not stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotPutBack {
    /// As the caller or the filter named it; it may be unknown.
    pub job: JobId,
    /// For people: the state that does not allow it, or that the job is unknown.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_progress_of_other_versions_is_read() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind as i16), Some(kind));
            assert!(kind as i16 <= Kind::LAST as i16);
        }
        for state in State::ALL {
            assert_eq!(State::from_number(state as i16), Some(state));
            assert_eq!(state.is_final(), state as i16 > 2, "the index of open ones says so: {state:?}");
        }
        let read: OperationProgress = serde_json::from_str(r#"{"put_back":7,"of_later":1}"#).unwrap();
        assert_eq!((read.put_back, read.position), (7, Position::default()));
    }
}
