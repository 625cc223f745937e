//! What the orchestrator asks of a database, and the two that answer.
//!
//! One interface, two typed implementations, one conformance suite. The hot path is [`Store::commit`]:
//! many submissions and changes in one transaction, so that an fsync is shared. Decisions are not
//! made here: rows are read, `transition::apply` decides, rows are written.

mod audit;
mod claim;
mod codes;
mod columns;
mod error;
pub mod events;
mod fault;
mod filter;
mod group;
mod identity;
mod listing;
mod migrate;
mod open;
mod order;
mod outbox;
mod pause;
mod plan;
pub mod postgres;
mod queries;
mod queues;
mod rows;
mod spec;
pub mod sqlite;
mod turn;
mod writes;

pub use audit::{AUDIT_SCAN_MAX, AuditFilter, AuditKeep, AuditRow};
pub(crate) use claim::{CLAIMS_END_WITHIN_US, lines_of_jobs};
pub use claim::{OutboxPick, Outgoing, PARKED_MAX, Park, Parked, Pick, Waiting};
pub use error::Error;
pub use filter::{DeadLetterFilter, JobFilter, PAGE_BYTES_MAX, Page, SCAN_ROWS_MAX, Times};
pub use group::{Changed, CommitContext, Committed, CreatedJob, EventMask, Group, Owner, Subject, Submit, Submitted};
pub use identity::Clash;
pub use open::{Options, backup, open, restore};
pub use order::Order;
pub use outbox::{EVENTS, OutboxMessage, OutboxRow};
pub use pause::QueuePause;
pub use turn::{Act, Fired, Firing, Slot};

use crate::model::{Agent, AttemptRecord, DeadLetter, Job, Schedule, State};
use crate::operation::{Claimed, Operation};
use crate::slo::{Bucket, Finished, Unit};
use agentforge_audit::{Chain, Chained, Entry, Head};
use agentforge_message_id::{AgentId, Attempt, JobId, Mission, OperationId, Queue, ScheduleId};
use agentforge_proto::time::Micros;
use async_trait::async_trait;
use std::time::Duration;

/// A job that has been queued or running for long.
#[derive(Clone, Debug)]
pub struct StaleJob {
    /// The job whose message is looked for.
    pub id: JobId,
    /// The attempt that was published; a change for another one does nothing.
    pub attempt: Attempt,
    /// queued or running.
    pub state: State,
    /// Where the stream kept its message.
    pub stream_seq: Option<i64>,
    /// When it was last checked, or queued.
    pub checked_at: Micros,
}

/// What waits in one queue.
#[derive(Clone, Debug)]
pub struct Depth {
    /// The mission of these jobs.
    pub mission: Mission,
    /// Where they wait.
    pub queue: Queue,
    /// Jobs accepted or queued and due, not begun.
    pub pending: u64,
    /// When the oldest of them was accepted (or due, if later).
    pub oldest: Micros,
}

/// What is open in one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueCounts {
    /// The mission of these jobs.
    pub mission: Mission,
    /// The queue whose open jobs are counted.
    pub queue: Queue,
    /// Accepted and due, not yet published.
    pub accepted: u64,
    /// Accepted for later.
    pub delayed: u64,
    /// Published, not begun.
    pub queued: u64,
    /// With a worker that reported the start.
    pub running: u64,
    /// Since when the oldest waits that is due and not begun.
    pub oldest: Option<Micros>,
}

/// Queues that may be paused at once.
pub const PAUSES_MAX: u32 = 1_000;

/// Jobs of one queue that ended lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueEnded {
    /// Their mission.
    pub mission: Mission,
    /// Their queue.
    pub queue: Queue,
    /// How many succeeded, failed or died.
    pub jobs: u64,
    /// Since when: as was asked for, or, where more ended than are read, when the first of those that were read did.
    pub since: Micros,
}

/// What a database does for the orchestrator. Every method is one transaction.
///
/// # Errors
/// All methods return [`Error`]; nothing is committed then.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// `sqlite` or `postgres`.
    fn kind(&self) -> &'static str;
    /// Whether other processes may write the same rows.
    fn is_shared(&self) -> bool;
    /// Brings the schema up to date, under a lock. Call it before anything else, and again after an
    /// error that is retryable.
    async fn prepare(&self) -> Result<(), Error>;
    /// Where the database is, for people: kind, and path or server.
    fn place(&self) -> String;
    /// Records the owner of the database: the first to do so has it for good.
    async fn claim_mission(&self, mission: &Mission) -> Result<(), Error>;
    /// Whether work can be stored: writes, unless something was written a moment ago.
    async fn ping(&self) -> Result<(), Error>;
    /// Applies a group in one durable transaction.
    async fn commit(&self, group: Group, ctx: CommitContext<'_>) -> Result<Committed, Error>;
    /// Carries out what an operator orders, with its entry in the audit log; says how many things it was about. An order
    /// that comes to nothing has no entry, unless it is one that counts.
    async fn order(&self, order: Order, entry: Entry, ctx: CommitContext<'_>) -> Result<u64, Error>;

    /// Entries of the audit log, newest first, and where the next page continues; reads [`AUDIT_SCAN_MAX`] rows at most.
    async fn audit(&self, filter: &AuditFilter) -> Result<Page<AuditRow>, Error>;
    /// The chains of the audit log.
    async fn audit_chains(&self) -> Result<Vec<Chain>, Error>;
    /// A chain's entries in their order, after the place `after`.
    async fn audit_chain(&self, chain: i64, after: i64, limit: u32) -> Result<Vec<Chained>, Error>;
    /// Takes entries of other services in, each once; says how many were new.
    async fn take_in(&self, entries: Vec<Entry>) -> Result<u64, Error>;
    /// Appends an entry that names the heads of all chains. Its own hash is the anchor of all that was before.
    async fn checkpoint_audit(&self, ctx: CommitContext<'_>) -> Result<Head, Error>;
    /// Takes the oldest entries out, about a thousand of each chain; says how many.
    async fn prune_audit(&self, keep: AuditKeep, ctx: CommitContext<'_>) -> Result<u64, Error>;

    /// One job, whole.
    async fn job(&self, id: JobId) -> Result<Option<Job>, Error>;
    /// A page of jobs, newest first. It is empty only at the end of the list, or after five seconds of looking.
    async fn jobs(&self, filter: &JobFilter) -> Result<Page<Job>, Error>;
    /// The tries at a job, oldest first; empty for an unknown job.
    async fn attempts(&self, id: JobId) -> Result<Vec<AttemptRecord>, Error>;
    /// State and version of those of `ids` that exist. At most 1,000 ids a call.
    async fn versions(&self, ids: &[JobId]) -> Result<Vec<(JobId, State, i64)>, Error>;

    /// Claims due accepted jobs for publishing, in the order in which they became due (jobs without
    /// `run_at`: as accepted). May give fewer than there are, once they are [`PAGE_BYTES_MAX`] large.
    async fn claim_due(&self, owner: &Owner, now: Micros, until: Micros, limit: u32) -> Result<Vec<Outgoing>, Error> {
        self.claim_due_of(owner, now, until, limit, &Pick::default()).await
    }
    /// Like `claim_due`, only of these queues. Each queue gets its part of `limit`.
    async fn claim_due_of(
        &self,
        owner: &Owner,
        now: Micros,
        until: Micros,
        limit: u32,
        pick: &Pick,
    ) -> Result<Vec<Outgoing>, Error>;
    /// When the next accepted, unclaimed job is due; claims that run out count at their end.
    async fn next_due(&self) -> Result<Option<Micros>, Error> {
        self.next_due_of(&Pick::default()).await
    }
    /// Like `next_due`, only of these queues.
    async fn next_due_of(&self, pick: &Pick) -> Result<Option<Micros>, Error>;
    /// Gives claims back, for jobs that were not published.
    async fn release(&self, owner: &Owner, ids: &[JobId]) -> Result<(), Error>;
    /// Claims rows of the outbox in order of writing.
    async fn claim_outbox(
        &self,
        owner: &Owner,
        now: Micros,
        until: Micros,
        limit: u32,
    ) -> Result<Vec<OutboxRow>, Error> {
        self.claim_outbox_of(owner, now, until, limit, &OutboxPick::default()).await
    }
    /// Like `claim_outbox`, only of these lines.
    async fn claim_outbox_of(
        &self,
        owner: &Owner,
        now: Micros,
        until: Micros,
        limit: u32,
        pick: &OutboxPick,
    ) -> Result<Vec<OutboxRow>, Error>;
    /// Gives claims on rows of the outbox back.
    async fn release_outbox(&self, owner: &Owner, seqs: &[i64]) -> Result<(), Error>;
    /// Messages that were put aside, newest first, before `before`.
    async fn parked(&self, before: Option<i64>, limit: u32) -> Result<Vec<Parked>, Error>;
    /// How many there are.
    async fn parked_count(&self) -> Result<u64, Error>;
    /// Drops claims of processes that are gone: all claims but `owner`'s where the store is not shared.
    async fn release_orphans(&self, owner: &Owner) -> Result<(), Error>;
    /// Jobs accepted and not yet published, retries and `run_at` included.
    async fn accepted_count(&self) -> Result<u64, Error> {
        let waiting = self.waiting(Micros(i64::MAX / 2)).await?;
        Ok(waiting.due.iter().map(|(_, n)| n).sum::<u64>() + waiting.later)
    }
    /// The queues with accepted jobs.
    async fn queues(&self) -> Result<Vec<Queue>, Error>;
    /// The same by queue: what is due (the outbox that OUTBOX_MAX bounds), and what is for later.
    async fn waiting(&self, now: Micros) -> Result<Waiting, Error>;
    /// The highest place in the stream that is noted of recent jobs.
    async fn newest_mark(&self) -> Result<Option<u64>, Error>;
    /// What waits, by queue. At most 1,000 queues.
    async fn depths(&self, now: Micros) -> Result<Vec<Depth>, Error>;

    /// What is open, by queue, in order of mission and queue. At most 1,000 queues.
    async fn queue_counts(&self, now: Micros) -> Result<Vec<QueueCounts>, Error>;
    /// Queues that are paused, in order of mission and queue. At most [`PAUSES_MAX`].
    async fn queue_pauses(&self) -> Result<Vec<QueuePause>, Error>;
    /// The newest jobs that ended since `since`, at most `limit`, by queue. Those that were cancelled or have expired are
    /// left out.
    async fn ended_by_queue(&self, since: Micros, limit: u32) -> Result<Vec<QueueEnded>, Error>;
    /// How many jobs are in each state, in the order of the states; of one moment.
    async fn state_counts(&self) -> Result<[(State, u64); State::ALL.len()], Error>;
    /// Ids from `from` to `to`, both included, in their order.
    async fn ids_between(&self, from: JobId, to: JobId, limit: u32) -> Result<Vec<JobId>, Error>;

    /// Open jobs whose deadline passed. Those that were published may have a report on its way: they are found
    /// once their deadline is before `read_to`, up to where all reports are committed.
    async fn past_deadline(&self, now: Micros, read_to: Micros, limit: u32) -> Result<Vec<JobId>, Error>;
    /// Queued and running jobs not checked since `before`, those that wait longest first.
    async fn stale(&self, before: Micros, limit: u32) -> Result<Vec<StaleJob>, Error>;
    /// Notes that these were checked.
    async fn touch(&self, ids: &[JobId], now: Micros) -> Result<(), Error>;

    /// The dead letter with this id, or the latest of this job.
    async fn dead_letter(&self, id: &str, job: Option<JobId>) -> Result<Option<DeadLetter>, Error>;
    /// A page of dead letters, newest first. Reads [`SCAN_ROWS_MAX`] rows at most.
    async fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Page<DeadLetter>, Error>;

    /// The schedule with this id, paused or not.
    async fn schedule(&self, id: ScheduleId) -> Result<Option<Schedule>, Error>;
    /// Schedules by name after `after`.
    async fn schedules(&self, after: Option<&str>, limit: u32) -> Result<Vec<Schedule>, Error>;
    /// Schedules whose turn has come.
    async fn due_schedules(&self, now: Micros, limit: u32) -> Result<Vec<Schedule>, Error>;
    /// Schedules with a turn that waited, and whose turn before is over.
    async fn waiting_schedules(&self, limit: u32) -> Result<Vec<Schedule>, Error>;
    /// Takes a turn: moves the schedule on and stores its job, or does nothing.
    async fn fire_schedule(&self, firing: Firing, ctx: CommitContext<'_>) -> Result<Fired, Error>;
    /// The clock was set back: a schedule whose next turn is still `planned` continues with `next`, and its turns occur
    /// a second time. `false` when it was changed since, or is paused.
    async fn rewind_schedule(&self, id: ScheduleId, planned: Micros, next: Option<Micros>) -> Result<bool, Error>;

    /// The operation with this id, while it is kept: see [`ENDED_MAX`](crate::operation::ENDED_MAX).
    async fn operation(&self, id: OperationId) -> Result<Option<Operation>, Error>;
    /// Operations before `before`, newest first.
    async fn operations(&self, before: Option<OperationId>, limit: u32) -> Result<Vec<Operation>, Error>;
    /// Claims open operations that no process carries out, oldest first.
    async fn claim_operations(
        &self,
        owner: &Owner,
        now: Micros,
        until: Micros,
        limit: u32,
    ) -> Result<Vec<Claimed>, Error>;
    /// Stores state and progress of an operation of `owner`, and holds its claim until `until`. Whether a stop was
    /// asked for; `None` when another process has it, or it has ended.
    async fn save_operation(&self, operation: &Operation, owner: &Owner, until: Micros) -> Result<Option<bool>, Error>;

    /// Stores the content of heartbeats.
    async fn upsert_agents(&self, agents: &[Agent]) -> Result<(), Error>;
    /// The worker with this id, as its last heartbeat described it.
    async fn agent(&self, id: &AgentId) -> Result<Option<Agent>, Error>;
    /// Agents by id after `after`.
    async fn agents(&self, mission: Option<&Mission>, after: Option<&str>, limit: u32) -> Result<Vec<Agent>, Error>;
    /// Removes agents last heard from before `before`.
    async fn forget_agents(&self, before: Micros) -> Result<u64, Error>;

    /// Merges minutes of objectives of one unit: what several processes say of the same minute, or one
    /// says twice, counts once.
    async fn merge_slo(&self, unit: Unit, rows: &[Bucket]) -> Result<(), Error>;
    /// The minutes of all objectives from `minute` (since 1970) on.
    async fn slo_buckets(&self, minute: i64) -> Result<Vec<Bucket>, Error>;
    /// The last minute that an objective has.
    async fn last_slo_minute(&self, slo: &str) -> Result<Option<i64>, Error>;
    /// Jobs that became final in the minutes from `from` to before `to`, the cancelled left out.
    async fn finished_by_minute(&self, from: i64, to: i64) -> Result<Vec<Finished>, Error>;
    /// Forgets minutes before `minute`.
    async fn forget_slo(&self, minute: i64) -> Result<u64, Error>;

    /// Deletes up to `limit` jobs (with all that hangs on them) that were final before `before`, and as
    /// many dead letters of no job. Says how many jobs.
    async fn prune(&self, before: Micros, limit: u32) -> Result<u64, Error>;
    /// The wall clock went back by `back` and shows `now`: what was written on the clock before comes to stand
    /// on this one as far ahead as it was. Says how many jobs wait no longer than they should.
    async fn set_back(&self, now: Micros, back: Duration) -> Result<u64, Error>;
    /// What the database's own clock shows; `None` where it is ours.
    async fn clock(&self) -> Result<Option<Micros>, Error>;
    /// When the newest job was accepted.
    async fn newest_accepted(&self) -> Result<Option<Micros>, Error>;
    /// Ends the connections.
    async fn close(&self);
}
