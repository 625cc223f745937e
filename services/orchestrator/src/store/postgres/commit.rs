//! The hot path on Postgres: one group, one transaction, columns as arrays.
//!
//! Rows are locked in the order of their ids, so that replicas that meet wait for each other instead
//! of dead-locking; what still collides is tried again, from the look-up on.

use super::audit;
use super::connection::Session;
use super::text::{bytes, clean};
use super::write;
use crate::model::Job;
use crate::store::fault::Fault;
use crate::store::outbox::rows_of;
use crate::store::plan::{self, Answers, Found, LetterDetails, Plan, Subjects};
use crate::store::rows::{self, attempt_columns, current_columns, outcome_columns, taken_columns};
use crate::store::spec::spec_columns;
use crate::store::{CommitContext, Committed, Group};
use crate::transition::Current;
use agentforge_message_id::JobId;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{query, query_scalar};
use std::collections::{HashMap, HashSet};
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
    Ok(applied.to(group))
}

async fn try_commit(pool: &PgPool, group: &Group, ctx: &CommitContext<'_>) -> Result<Answers, Fault> {
    let mut session = Session::open(pool).await?;
    let done = async {
        let mut tx = session.begin_known().await?;
        let applied = apply(&mut tx, group, ctx).await?;
        tx.commit().await?;
        Ok(applied)
    };
    let done = done.await;
    session.settle(done)
}

/// One group, from top to bottom, inside a transaction.
pub(super) async fn apply(c: &mut PgConnection, group: &Group, ctx: &CommitContext<'_>) -> Result<Answers, Fault> {
    // Read, and lock what changes.
    let subjects = plan::Subjects::of(group);
    let found = look_up(c, &subjects).await?;
    let mut numbers = job_numbers(c, group.submits.len()).await?.into_iter();
    let number = || numbers.next().expect("as many were taken as there are submissions");

    // Decide. The outbox numbers its rows itself.
    let mut plan = plan::decide(group, ctx, found, number, rand::random::<f64>);
    let details = letter_details(c, &plan).await?;
    let mut messages = plan.take_messages(&details);

    // Write.
    write::jobs(c, &plan, ctx).await?;
    write::letters(c, &plan, ctx).await?;
    write::leave_outbox(c, group, ctx).await?;

    // Answer. Submissions that were stored before are answered with their job as this commit leaves it.
    let existing = whole_jobs(c, &plan.existing()).await?;
    // Last, so that a chain is held for a moment only.
    messages.extend(audit::append(c, plan.entries(ctx.now), ctx).await?);
    let mut outbox = rows_of(messages, || 0);
    write::join_outbox(c, &mut outbox, group.claim_outbox, ctx).await?;
    plan.answers(&existing, outbox).ok_or_else(|| Fault::row("job", "it has no payload"))
}

async fn look_up(c: &mut PgConnection, subjects: &Subjects<'_>) -> Result<Found, Fault> {
    let mut taken = Vec::new();
    if !subjects.ids.is_empty() {
        let sql = concat!("SELECT ", taken_columns!(), " FROM jobs AS j WHERE j.id = ANY($1)");
        taken.extend(query(sql).bind(bytes(&subjects.ids)).fetch_all(&mut *c).await?);
    }
    if !subjects.keys.is_empty() {
        let sql = concat!(
            "SELECT ",
            taken_columns!(),
            " FROM UNNEST($1::text[], $2::text[]) AS n (mission, key) \
             JOIN jobs AS j ON j.mission = n.mission AND j.idempotency_key = n.key"
        );
        let (missions, keys): (Vec<_>, Vec<_>) =
            subjects.keys.iter().map(|(mission, key)| (*mission, clean(key))).unzip();
        taken.extend(query(sql).bind(missions).bind(keys).fetch_all(&mut *c).await?);
    }
    Ok(Found {
        taken: taken.iter().map(rows::taken).collect::<Result<_, _>>()?,
        currents: currents(c, &subjects.changed).await?,
        letters: known_letters(c, &subjects.letters).await?,
    })
}

async fn currents(c: &mut PgConnection, ids: &[JobId]) -> Result<Vec<Box<Current>>, Fault> {
    if ids.is_empty() {
        return Ok(vec![]);
    }
    let sql = concat!("SELECT ", current_columns!(), " FROM jobs AS j WHERE j.id = ANY($1) ORDER BY j.id FOR UPDATE");
    let rows = query(sql).bind(bytes(ids)).fetch_all(c).await?;
    rows.iter().map(|row| rows::current(row).map(Box::new)).collect()
}

async fn known_letters(c: &mut PgConnection, ids: &[String]) -> Result<HashSet<String>, Fault> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
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

async fn letter_details(c: &mut PgConnection, plan: &Plan<'_>) -> Result<HashMap<i64, LetterDetails>, Fault> {
    let seqs = plan.seqs_of_letters();
    let mut details: HashMap<i64, LetterDetails> = HashMap::with_capacity(seqs.len());
    if seqs.is_empty() {
        return Ok(details);
    }
    let payloads = query("SELECT seq, args, traceparent FROM job_payloads WHERE seq = ANY($1)");
    for row in payloads.bind(&seqs).fetch_all(&mut *c).await? {
        let (seq, args, traceparent) = rows::payload(&row)?;
        details.insert(seq, LetterDetails { args, traceparent, attempts: vec![] });
    }
    let attempts =
        concat!("SELECT seq, ", attempt_columns!(), " FROM job_attempts WHERE seq = ANY($1) ORDER BY seq, attempt");
    for row in query(attempts).bind(&seqs).fetch_all(c).await? {
        let (seq, attempt) = rows::attempt_of_job(&row)?;
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
        outcome_columns!(),
        spec_columns!(),
        " FROM jobs AS j JOIN job_payloads AS p ON p.seq = j.seq LEFT JOIN job_results AS r ON r.seq = j.seq \
         WHERE j.id = ANY($1)"
    );
    let rows = query(sql).bind(bytes(ids)).fetch_all(c).await?;
    rows.iter().map(|row| rows::job(row).map(|job| (job.id, job))).collect()
}
