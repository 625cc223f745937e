//! What the loops ask of the store: whether it takes writes, what waits, what is overdue, what is old. They hold an
//! [`App`] and no store, but for the committer, the relay and the drain.

use super::App;
use crate::model::{Agent, State};
use crate::slo::{Bucket, Finished, Unit};
use crate::store::{Depth, Error, Owner, StaleJob, Waiting};
use agentforge_message_id::{JobId, Mission, Queue};
use agentforge_proto::time::Micros;
use std::time::Duration;

impl App {
    /// Where the database is, for people.
    pub(crate) fn database(&self) -> String {
        self.store().place()
    }

    /// Whether other processes may write the same rows.
    pub(crate) fn has_replicas(&self) -> bool {
        self.store().is_shared()
    }

    /// Brings the schema up to date, claims the database for our mission, and frees what a process that is gone had
    /// claimed. To be called before anything else.
    pub(crate) async fn open_database(&self, owner: &Owner) -> Result<(), Error> {
        self.store().prepare().await?;
        self.store().claim_mission(self.mission()).await?;
        self.store().release_orphans(owner).await
    }

    /// Whether work can be stored.
    pub(crate) async fn check_database(&self) -> Result<(), Error> {
        self.store().ping().await
    }

    /// Jobs that are accepted and not published.
    pub(crate) async fn waiting(&self) -> Result<Waiting, Error> {
        self.store().waiting(Micros::now()).await
    }

    /// What waits, by queue.
    pub(crate) async fn depths(&self, now: Micros) -> Result<Vec<Depth>, Error> {
        self.store().depths(now).await
    }

    /// Messages that were put aside.
    pub(crate) async fn parked_count(&self) -> Result<u64, Error> {
        self.store().parked_count().await
    }

    /// The queues with accepted jobs.
    pub(crate) async fn queues_with_jobs(&self) -> Result<Vec<Queue>, Error> {
        self.store().queues().await
    }

    /// The highest place in the stream that is noted of recent jobs.
    pub(crate) async fn newest_mark(&self) -> Result<Option<u64>, Error> {
        self.store().newest_mark().await
    }

    /// State and version of those of `ids` that exist; at most 1,000 ids.
    pub(crate) async fn versions(&self, ids: &[JobId]) -> Result<Vec<(JobId, State, i64)>, Error> {
        self.store().versions(ids).await
    }

    /// Open jobs whose deadline passed, as [`crate::store::Store::past_deadline`].
    pub(crate) async fn past_deadline(&self, now: Micros, read_to: Micros, limit: u32) -> Result<Vec<JobId>, Error> {
        self.store().past_deadline(now, read_to, limit).await
    }

    /// Queued and running jobs that were not checked since `before`.
    pub(crate) async fn stale(&self, before: Micros, limit: u32) -> Result<Vec<StaleJob>, Error> {
        self.store().stale(before, limit).await
    }

    /// Notes that these were checked.
    pub(crate) async fn note_checked(&self, ids: &[JobId], now: Micros) -> Result<(), Error> {
        self.store().touch(ids, now).await
    }

    /// Deletes jobs that have been final since before `before`; returns how many.
    pub(crate) async fn prune(&self, before: Micros, limit: u32) -> Result<u64, Error> {
        self.store().prune(before, limit).await
    }

    /// When the newest job was accepted.
    pub(crate) async fn newest_accepted(&self) -> Result<Option<Micros>, Error> {
        self.store().newest_accepted().await
    }

    /// Follows a clock that was set back; returns how many jobs waited for it.
    pub(crate) async fn set_back(&self, now: Micros, back: Duration) -> Result<u64, Error> {
        self.store().set_back(now, back).await
    }

    /// Workers as stored, by id from behind `after`.
    pub(crate) async fn workers(
        &self,
        mission: Option<&Mission>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Agent>, Error> {
        self.store().agents(mission, after, limit).await
    }

    /// Stores a worker's heartbeat.
    pub(crate) async fn note_worker(&self, agent: &Agent) -> Result<(), Error> {
        self.store().upsert_agents(std::slice::from_ref(agent)).await
    }

    /// Deletes workers that were last heard from before `before`.
    pub(crate) async fn forget_workers(&self, before: Micros) -> Result<u64, Error> {
        self.store().forget_agents(before).await
    }

    /// Merges minutes of objectives.
    pub(crate) async fn merge_minutes(&self, unit: Unit, rows: &[Bucket]) -> Result<(), Error> {
        self.store().merge_slo(unit, rows).await
    }

    /// Minutes of objectives from `minute` on.
    pub(crate) async fn minutes_since(&self, minute: i64) -> Result<Vec<Bucket>, Error> {
        self.store().slo_buckets(minute).await
    }

    /// The last minute that is stored of an objective.
    pub(crate) async fn last_minute(&self, objective: &str) -> Result<Option<i64>, Error> {
        self.store().last_slo_minute(objective).await
    }

    /// Jobs that ended, by minute.
    pub(crate) async fn finished_by_minute(&self, from: i64, to: i64) -> Result<Vec<Finished>, Error> {
        self.store().finished_by_minute(from, to).await
    }

    /// Deletes minutes of objectives before `minute`.
    pub(crate) async fn forget_minutes(&self, minute: i64) -> Result<u64, Error> {
        self.store().forget_slo(minute).await
    }
}
