//! The hot path on Postgres: one group, one transaction, columns as arrays.
//!
//! Rows are locked in the order of their ids, so that replicas that meet wait for each other instead
//! of dead-locking; what still collides is tried again, from the look-up on.

use super::connection::Session;
use super::readers::{self, Columns};
use super::text::{bytes, clean};
use crate::model::Job;
use crate::store::fault::Fault;
use crate::store::plan::{self, Found, LetterDetails, Plan};
use crate::store::rows::{attempt_columns, current_columns, job_columns, taken_columns};
use crate::store::{CommitContext, Committed, Group, OutboxRow, events};
use agentforge_message_id::JobId;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{query, query_scalar};
use std::collections::HashMap;
use std::time::Duration;

/// How often a commit that collided with another replica's is tried.
const TRIES: u32 = 5;
/// Longest wait before such a try, spread at random.
const WAIT: Duration = Duration::from_millis(50);

/// Applies `group` in a transaction of its own.
pub(super) async fn commit(pool: &PgPool, group: Group, ctx: &CommitContext<'_>) -> Result<Committed, Fault> {
    let mut tries = 1;
    let applied = loop {
        match try_commit(pool, &group, ctx).await {
            Err(fault) if fault.is_collision() && tries < TRIES => tries += 1,
            done => break done?,
        }
        tokio::time::sleep(WAIT.mul_f64(rand::random())).await;
    };
    applied.answer(group)
}

async fn try_commit(pool: &PgPool, group: &Group, ctx: &CommitContext<'_>) -> Result<Applied, Fault> {
    let mut session = Session::open(pool).await?;
    let done = async {
        let mut tx = session.begin().await?;
        let applied = apply(&mut tx, group, ctx).await?;
        tx.commit().await?;
        Ok(applied)
    };
    let done = done.await;
    session.settle(done)
}

/// The result of a group, before it is reported.
pub(super) struct Applied {
    plan: Plan,
    outbox: Vec<OutboxRow>,
    existing: HashMap<JobId, Job>,
}

impl Applied {
    pub(super) fn answer(self, group: Group) -> Result<Committed, Fault> {
        let answer = self.plan.answer(group, &self.existing, self.outbox);
        answer.map(|(committed, _)| committed).ok_or_else(|| Fault::row("job", "it has no payload"))
    }
}

/// Applies `group` inside a transaction.
pub(super) async fn apply(c: &mut PgConnection, group: &Group, ctx: &CommitContext<'_>) -> Result<Applied, Fault> {
    let found = look_up(c, group).await?;
    let mut numbers = job_numbers(c, group.submits.len()).await?.into_iter();
    let number = || numbers.next().expect("as many were taken as there are submissions");
    let mut plan = plan::fold(group, ctx, found, number, rand::random::<f64>);
    let details = letter_details(c, &plan).await?;
    let mut outbox = plan.take_outbox(group, &details, || 0);
    super::write::jobs(c, group, &plan, ctx).await?;
    super::write::letters(c, &plan, ctx).await?;
    super::write::outbox(c, &mut outbox, group, ctx).await?;
    let existing = whole_jobs(c, &plan.existing()).await?;
    Ok(Applied { plan, outbox, existing })
}

async fn look_up(c: &mut PgConnection, group: &Group) -> Result<Found, Fault> {
    let ids = plan::ids_to_check(group);
    let keys = plan::keys_to_check(group);
    let mut taken = Vec::new();
    if !ids.is_empty() {
        let sql = concat!("SELECT ", taken_columns!(), " FROM jobs AS j WHERE j.id = ANY($1)");
        taken.extend(query(sql).bind(bytes(&ids)).fetch_all(&mut *c).await?);
    }
    if !keys.is_empty() {
        let sql = concat!(
            "SELECT ",
            taken_columns!(),
            " FROM UNNEST($1::text[], $2::text[]) AS n (mission, key) \
             JOIN jobs AS j ON j.mission = n.mission AND j.idempotency_key = n.key"
        );
        let (missions, keys): (Vec<_>, Vec<_>) = keys.iter().map(|(mission, key)| (*mission, clean(key))).unzip();
        taken.extend(query(sql).bind(missions).bind(keys).fetch_all(&mut *c).await?);
    }
    Ok(Found {
        taken: taken.iter().map(readers::taken).collect::<Result<_, _>>()?,
        currents: currents(c, &plan::ids_to_load(group)).await?,
        letters: known_letters(c, group).await?,
    })
}

async fn currents(c: &mut PgConnection, ids: &[JobId]) -> Result<Vec<crate::transition::Current>, Fault> {
    if ids.is_empty() {
        return Ok(vec![]);
    }
    let sql = concat!("SELECT ", current_columns!(), " FROM jobs AS j WHERE j.id = ANY($1) ORDER BY j.id FOR UPDATE");
    let rows = query(sql).bind(bytes(ids)).fetch_all(c).await?;
    rows.iter().map(readers::current).collect()
}

async fn known_letters(c: &mut PgConnection, group: &Group) -> Result<std::collections::HashSet<String>, Fault> {
    if group.rejects.is_empty() {
        return Ok(Default::default());
    }
    let ids: Vec<String> = group.rejects.iter().map(events::rejected_id).collect();
    let known: Vec<String> =
        query_scalar("SELECT id FROM dead_letters WHERE id = ANY($1)").bind(ids).fetch_all(c).await?;
    Ok(known.into_iter().collect())
}

/// Row numbers for new jobs. Those that are not used are lost, which is what sequences do.
async fn job_numbers(c: &mut PgConnection, n: usize) -> Result<Vec<i64>, Fault> {
    if n == 0 {
        return Ok(vec![]);
    }
    let n = i32::try_from(n).unwrap_or(i32::MAX);
    let sql = "SELECT nextval('jobs_seq_seq') FROM generate_series(1, $1)";
    Ok(query_scalar(sql).bind(n).fetch_all(c).await?)
}

async fn letter_details(c: &mut PgConnection, plan: &Plan) -> Result<HashMap<i64, LetterDetails>, Fault> {
    let seqs = plan.seqs_of_letters();
    let mut details: HashMap<i64, LetterDetails> = HashMap::with_capacity(seqs.len());
    if seqs.is_empty() {
        return Ok(details);
    }
    let payloads = query("SELECT seq, args, traceparent FROM job_payloads WHERE seq = ANY($1)");
    for row in payloads.bind(&seqs).fetch_all(&mut *c).await? {
        let mut columns = Columns::of(&row);
        let d = details.entry(columns.take()?).or_default();
        (d.args, d.traceparent) = (columns.take()?, columns.take()?);
    }
    let attempts =
        concat!("SELECT seq, ", attempt_columns!(), " FROM job_attempts WHERE seq = ANY($1) ORDER BY seq, attempt");
    for row in query(attempts).bind(&seqs).fetch_all(c).await? {
        let (seq, attempt) = readers::attempt_of_job(&row)?;
        details.entry(seq).or_default().attempts.push(attempt);
    }
    Ok(details)
}

/// Jobs by id, with their payloads and results.
async fn whole_jobs(c: &mut PgConnection, ids: &[JobId]) -> Result<HashMap<JobId, Job>, Fault> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = concat!(
        "SELECT ",
        job_columns!(),
        " FROM jobs AS j JOIN job_payloads AS p ON p.seq = j.seq LEFT JOIN job_results AS r ON r.seq = j.seq \
         WHERE j.id = ANY($1)"
    );
    let rows = query(sql).bind(bytes(ids)).fetch_all(c).await?;
    rows.iter().map(|row| readers::job(row).map(|job| (job.id, job))).collect()
}
