//! The nouns of the orchestrator: jobs, attempts, dead letters, schedules, agents.
//!
//! Values only. What a job may become is decided in `transition`; what may be submitted, in `admission`.

mod job;
mod spec;

pub use job::{Job, NewJob};
pub use spec::JobSpec;

use crate::turns::{CatchUp, Overlap};
use agentforge_message_id::{AgentId, Attempt, JobId, Mission, ScheduleId, Site};
use agentforge_proto::bus::ErrorClass;
use agentforge_proto::time::Micros;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The state of a job. The numbers are stored: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(i16)]
pub enum State {
    /// Stored; waits in SQL to be published: the first time, until `run_at`, or before a retry.
    Accepted = 1,
    /// Published to its queue.
    Queued = 2,
    /// A worker said that it began.
    Running = 3,
    /// Has its one committed result.
    Succeeded = 4,
    /// Failed with an error that no retry can fix.
    Failed = 5,
    /// Used up its attempts or lost too many workers.
    Dead = 6,
    /// Stopped by a caller.
    Cancelled = 7,
    /// Its deadline passed first.
    Expired = 8,
}

impl State {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Accepted,
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Dead,
        Self::Cancelled,
        Self::Expired,
    ];

    /// Whether nothing can follow but a retry or a redrive.
    pub const fn is_final(self) -> bool {
        self as i16 >= Self::Succeeded as i16
    }
    /// Whether it is an end without success, which a retry may undo.
    pub const fn may_be_retried(self) -> bool {
        matches!(self, Self::Failed | Self::Dead | Self::Cancelled | Self::Expired)
    }
    /// The word used in JSON, subjects and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
    /// From the stored number.
    pub fn from_number(n: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|s| *s as i16 == n)
    }
    /// From the word.
    pub fn from_word(w: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == w)
    }
}

/// How long retries wait; what is not set is the orchestrator's own (RETRY_BASE, RETRY_CAP).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Before the first retry; doubles from there.
    pub base: Option<Duration>,
    /// Longest wait, but for a tool's Retry-After.
    pub cap: Option<Duration>,
}

impl RetryPolicy {
    /// This one where it says something, else `other`.
    pub fn or(self, other: Self) -> Self {
        Self { base: self.base.or(other.base), cap: self.cap.or(other.cap) }
    }
    /// Whether it says something.
    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }
}

/// Whether a submission may take its key from an earlier job that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyReuse {
    /// Never: a key stands for one job as long as that is kept.
    #[default]
    Never,
    /// From a job that was cancelled or expired.
    AfterStop,
    /// From a job that ended without success.
    AfterFailure,
}

impl KeyReuse {
    /// Whether a job in this state gives its key away.
    pub const fn allows(self, state: State) -> bool {
        match self {
            Self::Never => false,
            Self::AfterStop => matches!(state, State::Cancelled | State::Expired),
            Self::AfterFailure => state.may_be_retried(),
        }
    }
}

/// An error as a job shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    /// Decides whether another attempt follows.
    pub class: ErrorClass,
    /// What went wrong, for people; callers act on the class.
    pub message: String,
    /// The last of the tool's standard error.
    pub log_tail: String,
}

/// One try, as stored.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    /// From 1, as the orchestrator counts.
    pub attempt: Attempt,
    /// succeeded, failed, cancelled, expired or worker_lost.
    pub outcome: String,
    /// Why it failed.
    pub error: Option<JobError>,
    /// Who ran it.
    pub worker: Option<String>,
    /// Which delivery of its message.
    pub delivery: u64,
    /// When the worker began, on the worker's clock; `None` if none did.
    pub started_at: Option<Micros>,
    /// When it ended: on the worker's clock, or the moment of a refusal on ours.
    pub finished_at: Micros,
    /// When the next try may be published.
    pub retry_at: Option<Micros>,
}

/// Why a dead letter exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadReason {
    /// Every attempt failed.
    AttemptsExhausted,
    /// An error that no retry can fix.
    NotRetryable,
    /// Its workers died too often.
    WorkerLost,
    /// A message that was not a job.
    InvalidMessage,
    /// A message without a good signature.
    InvalidSignature,
}

impl DeadReason {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::AttemptsExhausted, Self::NotRetryable, Self::WorkerLost, Self::InvalidMessage, Self::InvalidSignature];

    /// The word used in JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::NotRetryable => "not_retryable",
            Self::WorkerLost => "worker_lost",
            Self::InvalidMessage => "invalid_message",
            Self::InvalidSignature => "invalid_signature",
        }
    }
}

/// A dead letter as listed.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Row number, for the cursor.
    pub seq: i64,
    /// Key; also its message's `Nats-Msg-Id`.
    pub id: String,
    /// The job, where there was one.
    pub job: Option<JobId>,
    /// The job's mission; of a message that was rejected, the one that its subject names.
    pub mission: String,
    /// The job's queue; of a message that was rejected, the one that its subject names.
    pub queue: String,
    /// Tool; empty where there was no job.
    pub tool: String,
    /// Why: a [`DeadReason`] word.
    pub reason: String,
    /// Of the last attempt; of a message that was rejected, what is wrong with it.
    pub error: JobError,
    /// When the job ended, or the message was rejected.
    pub created_at: Micros,
    /// When it was put back.
    pub redriven_at: Option<Micros>,
}

/// A schedule, with the job it makes.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Chosen by us, a UUIDv7.
    pub id: ScheduleId,
    /// Unique among all schedules, 1 to 128 bytes.
    pub name: String,
    /// Cron expression of five fields: minute, hour, day of month, month, day of week.
    pub cron: String,
    /// IANA name of the zone whose wall clock the expression means.
    pub time_zone: String,
    /// JSON of what it repeats (see `admission::JobRequest`).
    pub template: String,
    /// Makes no jobs while true.
    pub paused: bool,
    /// When it was created; turns before it are not missed.
    pub created_at: Micros,
    /// Last time it made a job.
    pub last_run_at: Option<Micros>,
    /// The job it made last.
    pub last_job_id: Option<JobId>,
    /// Next time; `None` while paused.
    pub next_run_at: Option<Micros>,
    /// What becomes of a turn while an earlier one is not over.
    pub overlap: Overlap,
    /// What becomes of missed turns.
    pub catch_up: CatchUp,
    /// How long after its time a turn's job may end.
    pub deadline: Option<Duration>,
    /// Last change by a caller.
    pub updated_at: Option<Micros>,
    /// The time that the last job stands for.
    pub last_scheduled_at: Option<Micros>,
    /// The turn that waits for the end of the one before.
    pub waiting_turn: Option<Micros>,
    /// While paused: the first turn that was missed for it.
    pub paused_turn: Option<Micros>,
    /// Turns that made no job.
    pub turns_skipped: u64,
    /// The last of them.
    pub last_skipped: Option<SkippedTurn>,
    /// How often it was planned again because the clock was set back.
    pub rewinds: i64,
    /// The name of the token that created it; its jobs are submitted in this name.
    pub created_by: Option<String>,
    /// The name of the token that changed it last.
    pub updated_by: Option<String>,
}

/// A turn that made no job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedTurn {
    /// The time it stood for.
    pub at: Micros,
    /// A [`SkipReason`](crate::turns::SkipReason) word.
    pub reason: String,
    /// The same for people.
    pub detail: String,
}

/// A worker's presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Presence {
    /// Fewer than three heartbeats in a row are missing.
    Online,
    /// Missed three beats.
    Offline,
    /// Its last heartbeat said that it stops: it is not an outage.
    Left,
}

impl Presence {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Online, Self::Offline, Self::Left];

    /// The word used in JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Left => "left",
        }
    }
}

/// A worker as last heard from.
#[derive(Clone, Debug)]
pub struct Agent {
    /// As the worker names itself, unique among all workers.
    pub id: AgentId,
    /// Mission it serves.
    pub mission: Mission,
    /// Where the worker runs.
    pub site: Site,
    /// The host that it says it is on; for people.
    pub host: String,
    /// Version of its binary.
    pub version: String,
    /// Tools, at most 256.
    pub tools: Vec<String>,
    /// The queues that it serves.
    pub queues: Vec<String>,
    /// Jobs at once, at most.
    pub capacity: u32,
    /// How many jobs it ran at its last heartbeat.
    pub inflight: u32,
    /// Time between beats.
    pub interval: Duration,
    /// Whether its last heartbeat said that it stops.
    pub left: bool,
    /// When its first heartbeat arrived, on our clock.
    pub first_seen_at: Micros,
    /// When its last heartbeat arrived, on our clock.
    pub last_seen_at: Micros,
    /// End of its client certificate.
    pub certificate_expires_at: Option<Micros>,
    /// How far its clock is ahead of ours, microseconds; behind is negative. None before its second beat, and
    /// for workers of earlier versions.
    pub clock_skew_us: Option<i64>,
    /// What the commands of its tools file are not confined by, as words. None without such commands, and for workers of
    /// earlier versions.
    pub unconfined: Option<String>,
}

impl Agent {
    /// Beats that may be missed before a worker counts as offline.
    pub const MISSED_BEATS_MAX: u32 = 3;

    /// The worker's status at `now`.
    pub fn presence(&self, now: Micros) -> Presence {
        if self.left {
            Presence::Left
        } else if now.since(self.last_seen_at) > self.interval * Self::MISSED_BEATS_MAX {
            Presence::Offline
        } else {
            Presence::Online
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_round_trip_and_know_their_end() {
        for s in State::ALL {
            assert_eq!(State::from_number(s as i16), Some(s));
            assert_eq!(State::from_word(s.as_str()), Some(s));
        }
        assert_eq!(State::ALL.iter().filter(|s| s.is_final()).count(), 5);
    }
}
