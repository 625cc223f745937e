//! A fresh store for a case, and short words for what cases do to it.

use agentforge_access::Principal;
use agentforge_message_id::{AgentId, Attempt, JobId, Mission, ScheduleId, Site};
use agentforge_orchestrator::admission::{JobRequest, Limits, SubmitInput, admit};
use agentforge_orchestrator::caller::Caller;
pub use agentforge_orchestrator::model::JobSpec;
use agentforge_orchestrator::model::{Agent, Job, NewJob, Schedule, State};
use agentforge_orchestrator::operation::Operation;
use agentforge_orchestrator::store::{
    self, Changed, CommitContext, Committed, CreatedJob, EventMask, Group, Options, Order, OutboxMessage, OutboxRow,
    Owner, Store, Submit, Submitted,
};
use agentforge_orchestrator::transition::{Backoff, Change, Ignored};
use agentforge_proto::bus::{ErrorClass, Failure, Finished, Outcome, Started, Success};
use agentforge_proto::time::Micros;
use serde_json::value::RawValue;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// From acceptance to the deadline of these tests' jobs, microseconds.
pub const DEADLINE: i64 = 1_200_000_000;
/// How long claims hold in these tests, microseconds.
pub const CLAIM: i64 = 30_000_000;

pub struct World {
    pub store: Arc<dyn Store>,
    pub url: String,
    pub dir: tempfile::TempDir,
    pub owner: Owner,
    pub backoff: Backoff,
    pub events: EventMask,
    pub mission: Mission,
}

impl World {
    pub async fn sqlite() -> Self {
        Self::open("sqlite://jobs.db".into()).await
    }

    pub async fn postgres(case: &str) -> Self {
        Self::open(agentforge_harness::Postgres::start().await.database(case).await).await
    }

    async fn open(url: String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = store::open(&url, dir.path(), &Options::default()).unwrap();
        store.prepare().await.unwrap();
        let (owner, backoff) = (Owner("us".into()), Backoff::default());
        let mission = Mission::new("dev").unwrap();
        Self { store, url, dir, owner, backoff, events: EventMask::ALL, mission }
    }

    /// A store of the same kind on another database.
    pub async fn another(&self, name: &str) -> Self {
        if self.store.is_shared() { Self::postgres(name).await } else { Self::sqlite().await }
    }

    /// Another process's store on the same database, where that may be; else the same one.
    pub async fn other(&self) -> Arc<dyn Store> {
        if self.store.is_shared() { self.reopened().await } else { Arc::clone(&self.store) }
    }

    pub async fn reopened(&self) -> Arc<dyn Store> {
        let store = store::open(&self.url, self.path(), &Options::default()).unwrap();
        store.prepare().await.unwrap();
        store
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn ctx(&self, now: i64) -> CommitContext<'_> {
        CommitContext {
            now: Micros(now),
            backoff: &self.backoff,
            owner: &self.owner,
            claim_until: Micros(now + CLAIM),
            events: self.events,
            mission: &self.mission,
        }
    }

    /// Carries an order out as somebody's; whether it came to something.
    pub async fn order(&self, order: Order) -> u64 {
        let entry = caller("ops", "Order").entry().about("thing", None);
        self.store.order(order, entry, self.ctx(1)).await.unwrap()
    }

    pub async fn create_schedule(&self, schedule: &Schedule) -> bool {
        self.order(Order::CreateSchedule(Box::new(schedule.clone()))).await == 1
    }

    pub async fn update_schedule(&self, schedule: &Schedule, read_at: Option<Micros>, retime: bool) -> bool {
        self.order(Order::UpdateSchedule { schedule: Box::new(schedule.clone()), read_at, retime }).await == 1
    }

    pub async fn set_schedule_paused(&self, id: ScheduleId, paused: bool, next: Option<Micros>) -> bool {
        self.order(Order::PauseSchedule { id, paused, next }).await == 1
    }

    pub async fn create_operation(&self, operation: &Operation, spec: &str) -> bool {
        let spec = spec.to_owned();
        self.order(Order::CreateOperation { operation: Box::new(operation.clone()), spec }).await == 1
    }

    pub async fn commit(&self, now: i64, group: Group) -> Committed {
        let group = Group { claim_outbox: true, ..group };
        self.store.commit(group, self.ctx(now)).await.unwrap()
    }

    pub async fn try_submit(&self, now: i64, job: NewJob) -> Submitted {
        let group = Group { submits: vec![Submit { job, claim: false }], ..Group::default() };
        self.commit(now, group).await.submits.remove(0)
    }

    pub async fn submit(&self, now: i64, job: NewJob) -> CreatedJob {
        created(self.try_submit(now, job).await)
    }

    /// Submits `n` plain jobs in one group, unclaimed.
    pub async fn submit_many(&self, now: i64, n: usize) -> Vec<JobId> {
        let submits = (0..n).map(|_| Submit { job: job(now), claim: false }).collect();
        let done = self.commit(now, Group { submits, ..Group::default() }).await;
        done.submits.into_iter().map(|s| created(s).job.id).collect()
    }

    pub async fn change(&self, now: i64, id: JobId, change: Change) -> Result<Changed, Ignored> {
        self.commit(now, Group { changes: vec![(id, change)], ..Group::default() }).await.changes.remove(0)
    }

    /// Brings a new job to `state` by the usual way, one commit a step.
    pub async fn job_in(&self, now: i64, state: State) -> JobId {
        let id = self.submit(now, job(now)).await.job.id;
        if state >= State::Queued {
            self.change(now, id, queued(1, now)).await.unwrap();
        }
        if state >= State::Running {
            self.change(now, id, started(id, 1, now)).await.unwrap();
        }
        let last = match state {
            State::Accepted | State::Queued | State::Running => return id,
            State::Succeeded => finished(id, 1, success("1")),
            State::Failed => finished(id, 1, failure(ErrorClass::Validation)),
            State::Dead => finished(id, 1, failure(ErrorClass::WorkerLost)),
            State::Cancelled => cancel(now),
            State::Expired => Change::Expire { at: Micros(now + DEADLINE) },
        };
        assert_eq!(self.change(now, id, last).await.unwrap().job.state, state);
        id
    }

    pub async fn job(&self, id: JobId) -> Job {
        self.store.job(id).await.unwrap().expect("the job is stored")
    }

    pub async fn claim(&self, now: i64, limit: u32) -> Vec<JobId> {
        let due = self.store.claim_due(&self.owner, Micros(now), Micros(now + CLAIM), limit).await.unwrap();
        due.into_iter().map(|o| o.id).collect()
    }

    /// All rows that wait in the outbox, regardless of their claims.
    pub async fn rows_of_outbox(&self) -> Vec<OutboxRow> {
        let far = Micros(i64::MAX - 1);
        self.store.claim_outbox(&self.owner, far, far, 10_000).await.unwrap()
    }

    /// All messages of those.
    pub async fn outbox(&self) -> Vec<OutboxMessage> {
        messages(self.rows_of_outbox().await)
    }

    /// Those with subjects that begin so.
    pub async fn events_of(&self, prefix: &str) -> Vec<OutboxMessage> {
        self.outbox().await.into_iter().filter(|row| row.subject.starts_with(prefix)).collect()
    }

    /// Rows of a table, seen from outside the store.
    pub async fn rows(&self, table: &str) -> i64 {
        self.sql_number(&format!("SELECT count(*) FROM {table}")).await
    }

    pub async fn sql_number(&self, sql: &str) -> i64 {
        use sqlx::{AssertSqlSafe, Connection, query_scalar};
        let sql = AssertSqlSafe(sql.to_owned());
        if self.store.is_shared() {
            let mut c = sqlx::PgConnection::connect(&self.url).await.unwrap();
            query_scalar(sql).fetch_one(&mut c).await.unwrap()
        } else {
            let mut c = self.sqlite_connection().await;
            query_scalar(sql).fetch_one(&mut c).await.unwrap()
        }
    }

    pub async fn sql(&self, sql: &str) {
        use sqlx::{AssertSqlSafe, Connection, Executor};
        let sql = AssertSqlSafe(sql.to_owned());
        if self.store.is_shared() {
            sqlx::PgConnection::connect(&self.url).await.unwrap().execute(sql).await.unwrap();
        } else {
            self.sqlite_connection().await.execute(sql).await.unwrap();
        }
    }

    pub async fn sqlite_connection(&self) -> sqlx::SqliteConnection {
        use sqlx::ConnectOptions;
        let file = self.path().join(self.url.trim_start_matches("sqlite://"));
        sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap()
    }
}

pub fn created(s: Submitted) -> CreatedJob {
    match s {
        Submitted::Created(c) => c,
        other => panic!("not created: {other:?}"),
    }
}

/// A plain job, as it is admitted.
pub fn job(now: i64) -> NewJob {
    let limits = Limits {
        args_max_bytes: 1024 * 1024,
        max_attempts_max: 100,
        max_attempts_default: 3,
        tool_retries: Default::default(),
        timeout_default: Duration::from_secs(60),
        timeout_max: Duration::from_secs(60),
        deadline_default: Some(Duration::from_micros(DEADLINE.unsigned_abs())),
        run_at_max: Duration::from_secs(60),
        mission_default: Mission::new("dev").unwrap(),
    };
    let request = JobRequest { tool: "echo".into(), args: r#"{"hello":"world"}"#.into(), ..JobRequest::default() };
    admit(SubmitInput { request, ..SubmitInput::default() }, &limits, Micros(now), None).unwrap()
}

/// A job that says who it is, so that it can be submitted again.
pub fn named(now: i64, key: Option<&str>, hash: u8) -> NewJob {
    NewJob {
        spec: JobSpec { idempotency_key: key.map(str::to_owned), ..JobSpec::clone(&job(now).spec) }.into(),
        id_from_caller: key.is_none(),
        body_hash: Some([hash; 32]),
        ..job(now)
    }
}

pub fn attempt(n: u32) -> Attempt {
    Attempt::new(n).unwrap()
}

pub fn worker() -> AgentId {
    AgentId::new("worker-1").unwrap()
}

pub fn cancel(at: i64) -> Change {
    Change::Cancel { at: Micros(at), by: Some("ops".into()), only: [].into() }
}

/// A caller of these tests.
pub fn caller(name: &str, operation: &'static str) -> Caller {
    let principal = Principal { name: name.into(), ..Principal::anyone() };
    Caller::new(&principal, Some([10, 0, 0, 7].into()), Some("req-1".into()), "rest", operation)
}

pub fn queued(n: u32, at: i64) -> Change {
    Change::Queued { attempt: attempt(n), stream_seq: 77, at: Micros(at) }
}

pub fn started(job: JobId, n: u32, at: i64) -> Change {
    Change::Started(Started { job, attempt: attempt(n), delivery: 1, worker: worker(), at: Micros(at) })
}

pub fn finished(job: JobId, n: u32, outcome: Outcome) -> Change {
    Change::Finished(Box::new(Finished {
        job,
        attempt: attempt(n),
        delivery: 1,
        worker: worker(),
        started_at: Micros(5),
        finished_at: Micros(6),
        outcome,
        traceparent: None,
        request_id: None,
    }))
}

pub fn success(json: &str) -> Outcome {
    let output = Some(RawValue::from_string(json.into()).unwrap());
    Outcome::Succeeded(Success { output, output_ref: None, idempotent_replay: None })
}

pub fn failure(class: ErrorClass) -> Outcome {
    Outcome::Failed(Failure::new(class, format!("it was {}", class.as_str())))
}

pub fn agent(id: &str, mission: &str, seen: i64, inflight: u32) -> Agent {
    Agent {
        id: AgentId::new(id).unwrap(),
        mission: Mission::new(mission).unwrap(),
        site: Site::new("hq").unwrap(),
        host: "host".into(),
        version: "1.0".into(),
        tools: vec!["echo".into()],
        queues: vec!["default".into()],
        capacity: 8,
        inflight,
        interval: Duration::from_secs(10),
        left: false,
        first_seen_at: Micros(seen),
        last_seen_at: Micros(seen),
        certificate_expires_at: Some(Micros(999)),
        clock_skew_us: Some(-7),
        unconfined: Some("cgroup ipc".into()),
    }
}

/// The messages of rows, in order.
pub fn messages(rows: Vec<OutboxRow>) -> Vec<OutboxMessage> {
    rows.into_iter().flat_map(|row| row.messages).collect()
}
