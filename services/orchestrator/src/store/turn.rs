//! A schedule's turn as the store takes it: once, regardless of the number of callers, and never together with an
//! earlier one that must be over.

use crate::model::{NewJob, Schedule};
use crate::turns::Skip;
use agentforge_audit::Entry;
use agentforge_message_id::{JobId, ScheduleId};
use agentforge_proto::time::Micros;

/// What is done about a turn, by exactly one replica.
#[derive(Clone, Debug)]
pub struct Firing {
    /// The schedule whose turn it is.
    pub id: ScheduleId,
    /// What must still be so; another replica that was first has changed it.
    pub slot: Slot,
    /// What becomes of the turn.
    pub act: Act,
    /// Turns that are skipped with it.
    pub skipped: Vec<Skip>,
    /// The entry in the audit log, where somebody asked for it.
    pub entry: Option<Entry>,
}

/// Where the turn comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// It is due by the clock; then another is next.
    Due {
        /// The schedule's next turn as it was read.
        expected: Micros,
        /// Its next turn from now on.
        next: Option<Micros>,
    },
    /// It waited for an earlier one.
    Waiting(Micros),
    /// Somebody wants it now, paused or not.
    Now,
}

/// What becomes of a turn.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "the large one is the usual one")]
pub enum Act {
    /// Its job is made.
    Start {
        /// The time it stands for.
        turn: Micros,
        /// The job of the turn, as admission made it of the template.
        job: NewJob,
        /// Only if the job of the last turn is over.
        alone: bool,
    },
    /// It waits for the end of the last one. Nothing else may wait.
    Wait(Micros),
    /// No job is made; only the schedule's next turn moves.
    Pass,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fired {
    /// The turn is taken; with its job, where one was made or had been made before.
    Done(Option<JobId>),
    /// Another was first, or the schedule is gone.
    Lost,
    /// The job of the last turn is not over: nothing was done.
    Busy(JobId),
}

/// A schedule's row as a turn finds it, inside the transaction.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) schedule: Schedule,
    /// The job of the last turn, while it is not over.
    pub(super) open: Option<JobId>,
}

/// What a turn makes of the row that it finds: what to store, or the caller's answer instead.
pub(super) fn judge(found: Option<Found>, firing: &Firing) -> Result<Schedule, Fired> {
    let Some(Found { mut schedule, open }) = found else { return Err(Fired::Lost) };
    match firing.slot {
        Slot::Due { expected, next } => {
            if schedule.next_run_at != Some(expected) || schedule.paused {
                return Err(Fired::Lost);
            }
            schedule.next_run_at = next;
        }
        Slot::Waiting(turn) => {
            if schedule.waiting_turn != Some(turn) || schedule.paused {
                return Err(Fired::Lost);
            }
            schedule.waiting_turn = None;
        }
        Slot::Now => {}
    }
    match &firing.act {
        Act::Start { alone: true, .. } if open.is_some() => return Err(open.map_or(Fired::Lost, Fired::Busy)),
        Act::Start { turn, .. } => schedule.last_scheduled_at = Some(*turn),
        Act::Wait(_) if schedule.waiting_turn.is_some() => return Err(Fired::Lost),
        Act::Wait(turn) => schedule.waiting_turn = Some(*turn),
        Act::Pass => {}
    }
    schedule.turns_skipped += firing.skipped.iter().map(|skip| u64::from(skip.count)).sum::<u64>();
    if let Some(skip) = firing.skipped.iter().max_by_key(|skip| skip.turn) {
        let (at, reason, detail) = (skip.turn, skip.reason.as_str().to_owned(), skip.detail.clone());
        schedule.last_skipped = Some(crate::model::SkippedTurn { at, reason, detail });
    }
    Ok(schedule)
}

/// The entry of a run that somebody asked for, with its job; none while it waits for an earlier one.
pub(super) fn started(entry: Entry, job: Option<JobId>) -> Entry {
    entry.with(&serde_json::json!({ "job": job.map(|job| job.to_string()) }))
}
