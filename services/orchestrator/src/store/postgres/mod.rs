//! The store in Postgres: shared by any number of orchestrators.
//!
//! Replicas share work by row locks and claims that run out. Nothing connects before it is asked, so
//! that a service started before its database comes up and waits.

mod agents;
mod audit;
mod backup;
mod claims;
mod clock;
mod commit;
mod connection;
mod login;
mod orders;
mod parked;
mod pooler;
mod queries;
mod schedules;
mod slo;
#[cfg(test)]
mod tests;
mod text;
mod write;

pub(super) use backup::{backup, restore};

use super::{
    AuditFilter, AuditKeep, AuditRow, CommitContext, Committed, DeadLetterFilter, Depth, Error, Fired, Firing, Group,
    JobFilter, Order, OutboxPick, OutboxRow, Outgoing, Owner, Page, Parked, Pick, QueueCounts, QueueEnded, QueuePause,
    StaleJob, Store, Waiting, audit::page_of as audit_page, codes, columns::micros, fault::Fault, listing, queues,
    writes::Writes,
};
use crate::model::{Agent, AttemptRecord, DeadLetter, Job, Schedule, State};
use crate::operation::{Claimed, Operation};
use crate::slo::{Bucket, Finished, Unit};
use agentforge_audit::{Chain, Chained, Entry, Head};
use agentforge_message_id::{AgentId, JobId, Mission, OperationId, Queue, ScheduleId};
use agentforge_proto::time::Micros;
use async_trait::async_trait;
use queries::{installation, jobs, lookup, operations};
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

/// The store in Postgres.
pub struct PostgresStore {
    options: PgConnectOptions,
    pool: PgPool,
    left: connection::Left,
    writes: Writes,
    _login: Option<login::Following>,
}

impl PostgresStore {
    /// A store that connects when it is asked, and logs in as `url_file` says when that changes. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Url`] when `url` cannot be read.
    pub fn open(url: &str, pool_size: NonZeroU32, url_file: Option<&Path>) -> Result<Self, Error> {
        let options = connection::options(url)?;
        let left = connection::Left::default();
        let pool = connection::pool(options.clone(), pool_size, left.clone());
        let follow = |file: &Path| login::Following::start(pool.clone(), url.to_owned(), file.to_owned());
        let login = url_file.map(follow);
        Ok(Self { options, pool, left, writes: Writes::default(), _login: login })
    }

    fn asked<T>(&self, attempted: &'static str, answer: Result<T, Fault>) -> Result<T, Error> {
        answer.map_err(|f| {
            if let Fault::Sql(e) = &f
                && codes::is_left_behind(e)
            {
                // One session with this error speaks for all that were opened before: a failover.
                self.left.note();
            }
            f.trying_to(attempted)
        })
    }

    async fn connection(&self, attempted: &'static str) -> Result<PoolConnection<Postgres>, Error> {
        self.asked(attempted, self.pool.acquire().await.map_err(Fault::Sql))
    }

    /// As [`Self::asked`], of a write that callers wait for.
    fn written<T>(&self, attempted: &'static str, answer: Result<T, Fault>) -> Result<T, Error> {
        let done = self.asked(attempted, answer);
        // What is wrong with a statement says nothing of the next.
        if done.as_ref().err().is_none_or(Error::is_retryable) {
            self.writes.note(done.is_ok());
        }
        done
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn kind(&self) -> &'static str {
        "postgres"
    }
    fn is_shared(&self) -> bool {
        true
    }
    async fn prepare(&self) -> Result<(), Error> {
        connection::prepare(&self.pool.connect_options()).await?;
        // Without them a later commit opens its own.
        let _ = connection::open_sessions(&self.pool).await;
        Ok(())
    }
    fn place(&self) -> String {
        let (host, port) = (self.options.get_host(), self.options.get_port());
        format!("postgres {host}:{port}/{}", self.options.get_database().unwrap_or_default())
    }
    async fn claim_mission(&self, mission: &Mission) -> Result<(), Error> {
        let mut c = self.connection("note the mission").await?;
        match self.asked("note the mission", installation::claim(&mut c, mission).await)? {
            found if found == mission.as_str() => Ok(()),
            found => Err(Error::OtherMission { found, ours: mission.to_string() }),
        }
    }
    async fn ping(&self) -> Result<(), Error> {
        if self.writes.is_recent() {
            let one = sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(&self.pool).await;
            return self.asked("ping", one.map(drop).map_err(Fault::Sql));
        }
        self.written("write a probe", installation::probe(&self.pool, &self.writes.filler()).await)
    }
    async fn commit(&self, group: Group, ctx: CommitContext<'_>) -> Result<Committed, Error> {
        self.written("commit a group", commit::commit(&self.pool, group, &ctx).await)
    }
    async fn order(&self, order: Order, entry: Entry, ctx: CommitContext<'_>) -> Result<u64, Error> {
        self.asked(order.attempted(), orders::carry_out(&self.pool, &order, entry, &ctx).await)
    }

    async fn audit(&self, filter: &AuditFilter) -> Result<Page<AuditRow>, Error> {
        let rows = self.asked("read the audit log", queries::audit::page(&self.pool, filter).await)?;
        let end = queries::audit::end_of_scan(&self.pool, filter.before).await;
        Ok(audit_page(rows, filter, self.asked("read the audit log", end)?))
    }
    async fn audit_chains(&self) -> Result<Vec<Chain>, Error> {
        self.asked("read the audit log", queries::audit::chains(&self.pool).await)
    }
    async fn audit_chain(&self, chain: i64, after: i64, limit: u32) -> Result<Vec<Chained>, Error> {
        self.asked("read the audit log", queries::audit::chain(&self.pool, chain, after, limit).await)
    }
    async fn take_in(&self, entries: Vec<Entry>) -> Result<u64, Error> {
        self.asked("take audit entries in", audit::take_in(&self.pool, entries).await)
    }
    async fn checkpoint_audit(&self, ctx: CommitContext<'_>) -> Result<Head, Error> {
        self.asked("write a checkpoint of the audit log", audit::checkpoint(&self.pool, &ctx).await)
    }
    async fn prune_audit(&self, keep: AuditKeep, ctx: CommitContext<'_>) -> Result<u64, Error> {
        self.asked("prune the audit log", audit::prune(&self.pool, keep, &ctx).await)
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        self.asked("read a job", jobs::job(&self.pool, id).await)
    }
    async fn jobs(&self, filter: &JobFilter) -> Result<Page<Job>, Error> {
        self.asked("list jobs", listing::page(&self.pool, filter).await)
    }
    async fn attempts(&self, id: JobId) -> Result<Vec<AttemptRecord>, Error> {
        self.asked("list attempts", jobs::attempts(&self.pool, id).await)
    }
    async fn versions(&self, ids: &[JobId]) -> Result<Vec<(JobId, State, i64)>, Error> {
        self.asked("read versions", queries::versions(&self.pool, ids).await)
    }

    async fn claim_due_of(
        &self,
        owner: &Owner,
        now: Micros,
        until: Micros,
        limit: u32,
        pick: &Pick,
    ) -> Result<Vec<Outgoing>, Error> {
        self.asked("claim jobs", claims::claim_due(&self.pool, owner, now, until, limit, pick).await)
    }
    async fn next_due_of(&self, pick: &Pick) -> Result<Option<Micros>, Error> {
        self.asked("find the next due job", jobs::next_due(&self.pool, pick).await)
    }
    async fn release(&self, owner: &Owner, ids: &[JobId]) -> Result<(), Error> {
        self.asked("release claims", claims::release(&self.pool, owner, ids).await)
    }
    async fn claim_outbox_of(
        &self,
        owner: &Owner,
        now: Micros,
        until: Micros,
        limit: u32,
        pick: &OutboxPick,
    ) -> Result<Vec<OutboxRow>, Error> {
        self.asked("claim the outbox", claims::claim_outbox(&self.pool, owner, now, until, limit, pick).await)
    }
    async fn release_outbox(&self, owner: &Owner, seqs: &[i64]) -> Result<(), Error> {
        self.asked("release claims on the outbox", claims::release_outbox(&self.pool, owner, seqs).await)
    }
    async fn parked(&self, before: Option<i64>, limit: u32) -> Result<Vec<Parked>, Error> {
        self.asked("list messages put aside", queries::parked::page(&self.pool, before, limit).await)
    }
    async fn parked_count(&self) -> Result<u64, Error> {
        self.asked("count messages put aside", queries::parked::count(&self.pool).await)
    }
    async fn release_orphans(&self, _owner: &Owner) -> Result<(), Error> {
        // Whose claims are orphaned, no replica can know: they run out.
        Ok(())
    }
    async fn queue_counts(&self, now: Micros) -> Result<Vec<QueueCounts>, Error> {
        self.asked("count what is open", lookup::queue_counts(&self.pool, now).await)
    }
    async fn state_counts(&self) -> Result<[(State, u64); State::ALL.len()], Error> {
        self.asked("count jobs", queries::listing::counts(&self.pool).await)
    }
    async fn ids_between(&self, from: JobId, to: JobId, limit: u32) -> Result<Vec<JobId>, Error> {
        self.asked("find jobs", lookup::ids_between(&self.pool, from, to, limit).await)
    }
    async fn dead_letter(&self, id: &str, job: Option<JobId>) -> Result<Option<DeadLetter>, Error> {
        self.asked("read a dead letter", lookup::dead_letter(&self.pool, id, job).await)
    }
    async fn queues(&self) -> Result<Vec<Queue>, Error> {
        self.asked("find queues with jobs", jobs::lines(&self.pool).await.map(queues::queues_of))
    }
    async fn waiting(&self, now: Micros) -> Result<Waiting, Error> {
        self.asked("count accepted jobs", jobs::waiting(&self.pool, now).await)
    }
    async fn newest_mark(&self) -> Result<Option<u64>, Error> {
        self.asked("find the newest mark", jobs::newest_mark(&self.pool).await)
    }
    async fn depths(&self, now: Micros) -> Result<Vec<Depth>, Error> {
        self.asked("measure the queues", jobs::depths(&self.pool, now).await)
    }

    async fn past_deadline(&self, now: Micros, read_to: Micros, limit: u32) -> Result<Vec<JobId>, Error> {
        self.asked("find expired jobs", jobs::past_deadline(&self.pool, now, read_to, limit).await)
    }
    async fn stale(&self, before: Micros, limit: u32) -> Result<Vec<StaleJob>, Error> {
        self.asked("find stale jobs", jobs::stale(&self.pool, before, limit).await)
    }
    async fn touch(&self, ids: &[JobId], now: Micros) -> Result<(), Error> {
        self.asked("note a check", claims::touch(&self.pool, ids, now).await)
    }

    async fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Page<DeadLetter>, Error> {
        self.asked("list dead letters", jobs::dead_letters(&self.pool, filter).await)
    }

    async fn schedule(&self, id: ScheduleId) -> Result<Option<Schedule>, Error> {
        self.asked("read a schedule", queries::schedules::one(&self.pool, id).await)
    }
    async fn schedules(&self, after: Option<&str>, limit: u32) -> Result<Vec<Schedule>, Error> {
        self.asked("list schedules", queries::schedules::page(&self.pool, after, limit).await)
    }
    async fn due_schedules(&self, now: Micros, limit: u32) -> Result<Vec<Schedule>, Error> {
        self.asked("find due schedules", queries::schedules::due(&self.pool, now, limit).await)
    }
    async fn waiting_schedules(&self, limit: u32) -> Result<Vec<Schedule>, Error> {
        self.asked("find waiting schedules", queries::schedules::waiting(&self.pool, limit).await)
    }
    async fn rewind_schedule(&self, id: ScheduleId, planned: Micros, next: Option<Micros>) -> Result<bool, Error> {
        self.asked("rewind a schedule", queries::schedules::rewind(&self.pool, id, planned, next).await)
    }
    async fn fire_schedule(&self, firing: Firing, ctx: CommitContext<'_>) -> Result<Fired, Error> {
        self.asked("fire a schedule", schedules::fire(&self.pool, firing, &ctx).await)
    }

    async fn operation(&self, id: OperationId) -> Result<Option<Operation>, Error> {
        self.asked("read an operation", operations::one(&self.pool, id).await)
    }
    async fn operations(&self, before: Option<OperationId>, limit: u32) -> Result<Vec<Operation>, Error> {
        self.asked("list operations", operations::page(&self.pool, before, limit).await)
    }
    async fn claim_operations(
        &self,
        owner: &Owner,
        now: Micros,
        until: Micros,
        limit: u32,
    ) -> Result<Vec<Claimed>, Error> {
        if !self.asked("find operations", operations::waits(&self.pool, now).await)? {
            return Ok(vec![]);
        }
        let mut c = self.connection("claim operations").await?;
        self.asked("claim operations", operations::claim(&mut c, owner, now, until, limit).await)
    }
    async fn save_operation(&self, operation: &Operation, owner: &Owner, until: Micros) -> Result<Option<bool>, Error> {
        let mut c = self.connection("store how far an operation is").await?;
        self.asked("store how far an operation is", operations::save(&mut c, operation, owner, until).await)
    }
    async fn queue_pauses(&self) -> Result<Vec<QueuePause>, Error> {
        self.asked("read which queues are paused", queries::pauses::all(&self.pool).await)
    }
    async fn ended_by_queue(&self, since: Micros, limit: u32) -> Result<Vec<QueueEnded>, Error> {
        self.asked("count jobs that ended", lookup::ended_by_queue(&self.pool, since, limit).await)
    }
    async fn upsert_agents(&self, agents: &[Agent]) -> Result<(), Error> {
        self.written("store heartbeats", agents::upsert(&self.pool, agents).await)
    }
    async fn agent(&self, id: &AgentId) -> Result<Option<Agent>, Error> {
        self.asked("read an agent", queries::agents::one(&self.pool, id).await)
    }
    async fn agents(&self, mission: Option<&Mission>, after: Option<&str>, limit: u32) -> Result<Vec<Agent>, Error> {
        self.asked("list agents", queries::agents::page(&self.pool, mission, after, limit).await)
    }
    async fn forget_agents(&self, before: Micros) -> Result<u64, Error> {
        self.asked("forget agents", queries::agents::forget(&self.pool, before).await)
    }

    async fn merge_slo(&self, unit: Unit, rows: &[Bucket]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        self.asked("store minutes of objectives", slo::merge(&self.pool, unit, rows).await)
    }
    async fn slo_buckets(&self, minute: i64) -> Result<Vec<Bucket>, Error> {
        self.asked("read minutes of objectives", queries::slo::since(&self.pool, minute).await)
    }
    async fn last_slo_minute(&self, name: &str) -> Result<Option<i64>, Error> {
        self.asked("find the last minute of an objective", queries::slo::last_minute(&self.pool, name).await)
    }
    async fn finished_by_minute(&self, from: i64, to: i64) -> Result<Vec<Finished>, Error> {
        self.asked("count finished jobs", queries::slo::finished(&self.pool, from, to).await)
    }
    async fn forget_slo(&self, minute: i64) -> Result<u64, Error> {
        self.asked("forget minutes of objectives", queries::slo::forget(&self.pool, minute).await)
    }

    async fn prune(&self, before: Micros, limit: u32) -> Result<u64, Error> {
        self.asked("prune jobs", claims::prune(&self.pool, before, limit).await)
    }
    async fn set_back(&self, now: Micros, back: Duration) -> Result<u64, Error> {
        self.asked("follow the clock", clock::set_back(&self.pool, now, micros(back)).await)
    }
    async fn clock(&self) -> Result<Option<Micros>, Error> {
        self.asked("read the clock", queries::clock(&self.pool).await.map(Some))
    }
    async fn newest_accepted(&self) -> Result<Option<Micros>, Error> {
        self.asked("find the newest job", jobs::newest_accepted(&self.pool).await)
    }
    async fn close(&self) {
        self.pool.close().await;
    }
}
