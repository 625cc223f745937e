//! The store in one SQLite file: for one orchestrator, with nothing to set up.
//!
//! WAL, one connection that writes, every commit on disk before it is answered. A lock next to the file keeps a second
//! process away.

mod agents;
mod audit;
mod backup;
mod claims;
mod clock;
mod commit;
mod connection;
mod lite;
mod orders;
mod parked;
mod queries;
mod recent;
mod schedules;
mod settings;
mod slo;
mod sql;
mod statements;
#[cfg(test)]
mod tests;

pub(super) use backup::{backup, restore};

use super::{
    AuditFilter, AuditKeep, AuditRow, CommitContext, Committed, DeadLetterFilter, Depth, Error, Fired, Firing, Group,
    JobFilter, Order, OutboxPick, OutboxRow, Outgoing, Owner, Page, Parked, Pick, QueueCounts, QueueEnded, QueuePause,
    StaleJob, Store, Waiting, audit::page_of as audit_page, columns::micros, fault::Fault, listing, queues,
};
use crate::model::{Agent, AttemptRecord, DeadLetter, Job, Schedule, State};
use crate::operation::{Claimed, Operation};
use crate::slo::{Bucket, Finished, Unit};
use agentforge_audit::{Chain, Chained, Entry, Head};
use agentforge_message_id::{AgentId, JobId, Mission, OperationId, Queue, ScheduleId};
use agentforge_proto::time::Micros;
use async_trait::async_trait;
use connection::Connections;
use queries::{installation, jobs, lookup, operations};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The store in one SQLite file.
pub struct SqliteStore {
    connections: Arc<Connections>,
    stop: CancellationToken,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteStore {
    /// Takes `file` for this process; makes its folder, opens nothing yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process has it; [`Error::Url`] when the folder cannot be used.
    pub fn open(file: &Path) -> Result<Self, Error> {
        let connections = Arc::new(Connections::open(file)?);
        let stop = CancellationToken::new();
        let (kept, stopped) = (Arc::clone(&connections), stop.clone());
        let keeper = tokio::spawn(async move { kept.keep_log_short(stopped).await });
        Ok(Self { connections, stop, keeper: Mutex::new(Some(keeper)) })
    }

    fn asked<T>(attempted: &'static str, answer: Result<T, Fault>) -> Result<T, Error> {
        answer.map_err(|f| f.trying_to(attempted))
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn kind(&self) -> &'static str {
        "sqlite"
    }
    fn is_shared(&self) -> bool {
        false
    }
    async fn prepare(&self) -> Result<(), Error> {
        self.connections.prepare().await
    }
    fn place(&self) -> String {
        format!("sqlite {}", self.connections.file.display())
    }
    async fn claim_mission(&self, mission: &Mission) -> Result<(), Error> {
        let mut w = self.connections.writer().await?;
        let done = installation::claim(&mut w.connection, mission).await;
        match w.settle("note the mission", done)? {
            found if found == mission.as_str() => Ok(()),
            found => Err(Error::OtherMission { found, ours: mission.to_string() }),
        }
    }
    async fn ping(&self) -> Result<(), Error> {
        self.connections.check().await?;
        if self.connections.writes.is_recent() {
            return Ok(());
        }
        let mut w = self.connections.writer().await?;
        let done = installation::probe(&mut w.connection, &self.connections.writes.filler()).await;
        w.settle("write a probe", done)
    }
    async fn commit(&self, group: Group, ctx: CommitContext<'_>) -> Result<Committed, Error> {
        let mut w = self.connections.writer().await?;
        let own = ctx.to_owned();
        let done = w.work(move |lite, known| commit::commit(lite, known, group, &own.context())).await;
        w.settle("commit a group", done)
    }
    async fn order(&self, order: Order, entry: Entry, ctx: CommitContext<'_>) -> Result<u64, Error> {
        let mut w = self.connections.writer().await?;
        let done = orders::carry_out(&mut w, &order, entry, &ctx).await;
        w.settle(order.attempted(), done)
    }

    async fn audit(&self, filter: &AuditFilter) -> Result<Page<AuditRow>, Error> {
        let readers = &self.connections.readers;
        let rows = Self::asked("read the audit log", queries::audit::page(readers, filter).await)?;
        let end = queries::audit::end_of_scan(readers, filter.before);
        Ok(audit_page(rows, filter, Self::asked("read the audit log", end.await)?))
    }
    async fn audit_chains(&self) -> Result<Vec<Chain>, Error> {
        Self::asked("read the audit log", queries::audit::chains(&self.connections.readers).await)
    }
    async fn audit_chain(&self, chain: i64, after: i64, limit: u32) -> Result<Vec<Chained>, Error> {
        Self::asked("read the audit log", queries::audit::chain(&self.connections.readers, chain, after, limit).await)
    }
    async fn take_in(&self, entries: Vec<Entry>) -> Result<u64, Error> {
        let mut w = self.connections.writer().await?;
        let done = audit::take_in(&mut w, entries).await;
        w.settle("take audit entries in", done)
    }
    async fn checkpoint_audit(&self, ctx: CommitContext<'_>) -> Result<Head, Error> {
        let mut w = self.connections.writer().await?;
        let done = audit::checkpoint(&mut w, &ctx).await;
        w.settle("write a checkpoint of the audit log", done)
    }
    async fn prune_audit(&self, keep: AuditKeep, ctx: CommitContext<'_>) -> Result<u64, Error> {
        let mut w = self.connections.writer().await?;
        let done = audit::prune(&mut w, keep, &ctx).await;
        w.settle("prune the audit log", done)
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        Self::asked("read a job", jobs::job(&self.connections.readers, id).await)
    }
    async fn jobs(&self, filter: &JobFilter) -> Result<Page<Job>, Error> {
        Self::asked("list jobs", listing::page(&self.connections.readers, filter).await)
    }
    async fn attempts(&self, id: JobId) -> Result<Vec<AttemptRecord>, Error> {
        Self::asked("list attempts", jobs::attempts(&self.connections.readers, id).await)
    }
    async fn versions(&self, ids: &[JobId]) -> Result<Vec<(JobId, State, i64)>, Error> {
        Self::asked("read versions", queries::versions(&self.connections.readers, ids).await)
    }

    async fn claim_due_of(
        &self,
        owner: &Owner,
        now: Micros,
        until: Micros,
        limit: u32,
        pick: &Pick,
    ) -> Result<Vec<Outgoing>, Error> {
        let mut w = self.connections.writer().await?;
        let done = claims::claim_due(&mut w, owner, now, until, limit, pick).await;
        w.settle("claim jobs", done)
    }
    async fn next_due_of(&self, pick: &Pick) -> Result<Option<Micros>, Error> {
        Self::asked("find the next due job", jobs::next_due(&self.connections.readers, pick).await)
    }
    async fn release(&self, owner: &Owner, ids: &[JobId]) -> Result<(), Error> {
        let mut w = self.connections.writer().await?;
        let done = claims::release(&mut w, owner, ids).await;
        w.settle("release claims", done)
    }
    async fn claim_outbox_of(
        &self,
        owner: &Owner,
        now: Micros,
        until: Micros,
        limit: u32,
        pick: &OutboxPick,
    ) -> Result<Vec<OutboxRow>, Error> {
        let mut w = self.connections.writer().await?;
        let done = claims::claim_outbox(&mut w, owner, now, until, limit, pick).await;
        w.settle("claim the outbox", done)
    }
    async fn release_outbox(&self, owner: &Owner, seqs: &[i64]) -> Result<(), Error> {
        let mut w = self.connections.writer().await?;
        let done = claims::release_outbox(&mut w, owner, seqs).await;
        w.settle("release claims on the outbox", done)
    }
    async fn parked(&self, before: Option<i64>, limit: u32) -> Result<Vec<Parked>, Error> {
        Self::asked("list messages put aside", queries::parked::page(&self.connections.readers, before, limit).await)
    }
    async fn parked_count(&self) -> Result<u64, Error> {
        Self::asked("count messages put aside", queries::parked::count(&self.connections.readers).await)
    }
    async fn release_orphans(&self, owner: &Owner) -> Result<(), Error> {
        let mut w = self.connections.writer().await?;
        let done = claims::release_orphans(&mut w, owner).await;
        w.settle("release orphaned claims", done)
    }
    async fn queue_counts(&self, now: Micros) -> Result<Vec<QueueCounts>, Error> {
        Self::asked("count what is open", lookup::queue_counts(&self.connections.readers, now).await)
    }
    async fn state_counts(&self) -> Result<[(State, u64); State::ALL.len()], Error> {
        Self::asked("count jobs", queries::listing::counts(&self.connections.readers).await)
    }
    async fn ids_between(&self, from: JobId, to: JobId, limit: u32) -> Result<Vec<JobId>, Error> {
        Self::asked("find jobs", lookup::ids_between(&self.connections.readers, from, to, limit).await)
    }
    async fn dead_letter(&self, id: &str, job: Option<JobId>) -> Result<Option<DeadLetter>, Error> {
        Self::asked("read a dead letter", lookup::dead_letter(&self.connections.readers, id, job).await)
    }
    async fn queues(&self) -> Result<Vec<Queue>, Error> {
        let lines = jobs::lines(&self.connections.readers).await.map(queues::queues_of);
        Self::asked("find queues with jobs", lines)
    }
    async fn waiting(&self, now: Micros) -> Result<Waiting, Error> {
        Self::asked("count accepted jobs", jobs::waiting(&self.connections.readers, now).await)
    }
    async fn newest_mark(&self) -> Result<Option<u64>, Error> {
        Self::asked("find the newest mark", jobs::newest_mark(&self.connections.readers).await)
    }
    async fn depths(&self, now: Micros) -> Result<Vec<Depth>, Error> {
        Self::asked("measure the queues", jobs::depths(&self.connections.readers, now).await)
    }

    async fn past_deadline(&self, now: Micros, read_to: Micros, limit: u32) -> Result<Vec<JobId>, Error> {
        Self::asked("find expired jobs", jobs::past_deadline(&self.connections.readers, now, read_to, limit).await)
    }
    async fn stale(&self, before: Micros, limit: u32) -> Result<Vec<StaleJob>, Error> {
        Self::asked("find stale jobs", jobs::stale(&self.connections.readers, before, limit).await)
    }
    async fn touch(&self, ids: &[JobId], now: Micros) -> Result<(), Error> {
        let mut w = self.connections.writer().await?;
        let done = claims::touch(&mut w, ids, now).await;
        w.settle("note a check", done)
    }

    async fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Page<DeadLetter>, Error> {
        Self::asked("list dead letters", jobs::dead_letters(&self.connections.readers, filter).await)
    }

    async fn schedule(&self, id: ScheduleId) -> Result<Option<Schedule>, Error> {
        Self::asked("read a schedule", queries::schedules::one(&self.connections.readers, id).await)
    }
    async fn schedules(&self, after: Option<&str>, limit: u32) -> Result<Vec<Schedule>, Error> {
        Self::asked("list schedules", queries::schedules::page(&self.connections.readers, after, limit).await)
    }
    async fn due_schedules(&self, now: Micros, limit: u32) -> Result<Vec<Schedule>, Error> {
        Self::asked("find due schedules", queries::schedules::due(&self.connections.readers, now, limit).await)
    }
    async fn waiting_schedules(&self, limit: u32) -> Result<Vec<Schedule>, Error> {
        Self::asked("find waiting schedules", queries::schedules::waiting(&self.connections.readers, limit).await)
    }
    async fn rewind_schedule(&self, id: ScheduleId, planned: Micros, next: Option<Micros>) -> Result<bool, Error> {
        let mut w = self.connections.writer().await?;
        let done = queries::schedules::rewind(&mut w.connection, id, planned, next).await;
        w.settle("rewind a schedule", done)
    }
    async fn fire_schedule(&self, firing: Firing, ctx: CommitContext<'_>) -> Result<Fired, Error> {
        let mut w = self.connections.writer().await?;
        let own = ctx.to_owned();
        let fire = move |lite: &lite::Lite, known: &mut lite::Known| {
            lite.transaction(|lite| schedules::fire(lite, known, firing, &own.context()))
        };
        let done = w.work(fire).await;
        w.settle("fire a schedule", done)
    }

    async fn operation(&self, id: OperationId) -> Result<Option<Operation>, Error> {
        Self::asked("read an operation", operations::one(&self.connections.readers, id).await)
    }
    async fn operations(&self, before: Option<OperationId>, limit: u32) -> Result<Vec<Operation>, Error> {
        Self::asked("list operations", operations::page(&self.connections.readers, before, limit).await)
    }
    async fn claim_operations(
        &self,
        owner: &Owner,
        now: Micros,
        until: Micros,
        limit: u32,
    ) -> Result<Vec<Claimed>, Error> {
        if !Self::asked("find operations", operations::waits(&self.connections.readers, now).await)? {
            return Ok(vec![]);
        }
        let mut w = self.connections.writer().await?;
        let done = operations::claim(&mut w.connection, owner, now, until, limit).await;
        w.settle("claim operations", done)
    }
    async fn save_operation(&self, operation: &Operation, owner: &Owner, until: Micros) -> Result<Option<bool>, Error> {
        let mut w = self.connections.writer().await?;
        let done = operations::save(&mut w.connection, operation, owner, until).await;
        w.settle("store how far an operation is", done)
    }
    async fn queue_pauses(&self) -> Result<Vec<QueuePause>, Error> {
        Self::asked("read which queues are paused", queries::pauses::all(&self.connections.readers).await)
    }
    async fn ended_by_queue(&self, since: Micros, limit: u32) -> Result<Vec<QueueEnded>, Error> {
        Self::asked("count jobs that ended", lookup::ended_by_queue(&self.connections.readers, since, limit).await)
    }
    async fn upsert_agents(&self, agents: &[Agent]) -> Result<(), Error> {
        let mut w = self.connections.writer().await?;
        let done = agents::upsert(&mut w, agents).await;
        w.settle("store heartbeats", done)
    }
    async fn agent(&self, id: &AgentId) -> Result<Option<Agent>, Error> {
        Self::asked("read an agent", queries::agents::one(&self.connections.readers, id).await)
    }
    async fn agents(&self, mission: Option<&Mission>, after: Option<&str>, limit: u32) -> Result<Vec<Agent>, Error> {
        Self::asked("list agents", queries::agents::page(&self.connections.readers, mission, after, limit).await)
    }
    async fn forget_agents(&self, before: Micros) -> Result<u64, Error> {
        let mut w = self.connections.writer().await?;
        let done = queries::agents::forget(&mut w.connection, before).await;
        w.settle("forget agents", done)
    }

    async fn merge_slo(&self, unit: Unit, rows: &[Bucket]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut w = self.connections.writer().await?;
        let done = slo::merge(&mut w, unit, rows).await;
        w.settle("store minutes of objectives", done)
    }
    async fn slo_buckets(&self, minute: i64) -> Result<Vec<Bucket>, Error> {
        Self::asked("read minutes of objectives", queries::slo::since(&self.connections.readers, minute).await)
    }
    async fn last_slo_minute(&self, name: &str) -> Result<Option<i64>, Error> {
        Self::asked(
            "find the last minute of an objective",
            queries::slo::last_minute(&self.connections.readers, name).await,
        )
    }
    async fn finished_by_minute(&self, from: i64, to: i64) -> Result<Vec<Finished>, Error> {
        Self::asked("count finished jobs", queries::slo::finished(&self.connections.readers, from, to).await)
    }
    async fn forget_slo(&self, minute: i64) -> Result<u64, Error> {
        let mut w = self.connections.writer().await?;
        let done = queries::slo::forget(&mut w.connection, minute).await;
        w.settle("forget minutes of objectives", done)
    }

    async fn prune(&self, before: Micros, limit: u32) -> Result<u64, Error> {
        let mut w = self.connections.writer().await?;
        let done = claims::prune(&mut w, before, limit).await;
        w.settle("prune jobs", done)
    }
    async fn set_back(&self, now: Micros, back: Duration) -> Result<u64, Error> {
        let mut w = self.connections.writer().await?;
        let done = clock::set_back(&mut w, now, micros(back)).await;
        w.settle("follow the clock", done)
    }
    async fn clock(&self) -> Result<Option<Micros>, Error> {
        Ok(None)
    }
    async fn newest_accepted(&self) -> Result<Option<Micros>, Error> {
        Self::asked("find the newest job", jobs::newest_accepted(&self.connections.readers).await)
    }
    async fn close(&self) {
        self.stop.cancel();
        if let Some(keeper) = self.keeper.lock().await.take() {
            // It ends after the copy that it is at; a panic in it was reported by its thread.
            let _ = keeper.await;
        }
        self.connections.close().await;
    }
}
