//! Which process publishes what: claims on jobs and on rows of the outbox, and jobs that need a check.
//!
//! Replicas pass over each other's locked rows, so that a row is claimed once. A claim moves
//! `claimable_at` to its end: one that runs out, its replica being gone, comes back by itself.

use super::connection::Session;
use super::queries::{PLAN_KEPT, jobs};
use super::text::bytes;
use crate::store::fault::Fault;
use crate::store::queues;
use crate::store::rows::{self, attempted_columns};
use crate::store::spec::spec_columns;
use crate::store::{OutboxPick, OutboxRow, Outgoing, Owner, PAGE_BYTES_MAX, Pick};
use agentforge_message_id::{JobId, Queue};
use agentforge_proto::time::Micros;
use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{query, query_scalar};

pub(super) async fn claim_due(
    pool: &PgPool,
    owner: &Owner,
    now: Micros,
    until: Micros,
    limit: u32,
    pick: &Pick,
) -> Result<Vec<Outgoing>, Fault> {
    // Outside of the transaction: most polls find nothing.
    let lines = match pick {
        Pick::Only(queue) => vec![queue.clone()],
        Pick::AllBut(_) => queues::due_lines(jobs::lines(pool).await?, now, pick),
    };
    if lines.is_empty() {
        return Ok(vec![]);
    }
    let mut session = Session::open(pool).await?;
    let done = claim_in(&mut session, owner, now, until, limit, &lines).await;
    session.settle(done)
}

async fn claim_in(
    session: &mut Session,
    owner: &Owner,
    now: Micros,
    until: Micros,
    limit: u32,
    lines: &[Queue],
) -> Result<Vec<Outgoing>, Fault> {
    let mut tx = session.begin().await?;
    // Each queue has its part, so that a long one keeps no other waiting.
    let (mut due, mut left) = (Vec::new(), lines.len());
    for queue in lines {
        if due.len() >= limit as usize {
            break;
        }
        let share = (limit.saturating_sub(due.len() as u32) / left.max(1) as u32).max(1);
        due_of(&mut tx, queue, now, share, PAGE_BYTES_MAX / left, &mut due).await?;
        left -= 1;
    }
    if !due.is_empty() {
        query("UPDATE jobs SET claim_owner = $1, claimable_at = $2 WHERE seq = ANY($3)")
            .bind(&owner.0)
            .bind(until.0)
            .bind(due.iter().map(|o| o.seq).collect::<Vec<_>>())
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    due.sort_unstable_by_key(|o| o.seq);
    Ok(due)
}

async fn due_of(
    c: &mut PgConnection,
    queue: &Queue,
    now: Micros,
    limit: u32,
    bytes_max: usize,
    due: &mut Vec<Outgoing>,
) -> Result<(), Fault> {
    let sql = concat!(
        "SELECT ",
        attempted_columns!(),
        spec_columns!(),
        " FROM jobs AS j JOIN job_payloads AS p ON p.seq = j.seq \
         WHERE j.queue = $1 AND j.claimable_at <= $2 ORDER BY j.claimable_at, j.seq LIMIT $3 \
         FOR UPDATE OF j SKIP LOCKED"
    );
    let mut rows = query(sql).persistent(PLAN_KEPT).bind(queue.as_str()).bind(now.0).bind(i64::from(limit)).fetch(c);
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        let job = rows::outgoing(&row)?;
        bytes += job.text_bytes();
        due.push(job);
        if bytes > bytes_max {
            break;
        }
    }
    Ok(())
}

pub(super) async fn release(pool: &PgPool, owner: &Owner, ids: &[JobId]) -> Result<(), Fault> {
    query(
        "WITH mine AS (SELECT seq FROM jobs WHERE id = ANY($1) AND claim_owner = $2 AND claimable_at IS NOT NULL \
           ORDER BY id FOR UPDATE) \
         UPDATE jobs SET claim_owner = NULL, claimable_at = available_at FROM mine WHERE jobs.seq = mine.seq",
    )
    .bind(bytes(ids))
    .bind(&owner.0)
    .execute(pool)
    .await?;
    Ok(())
}

pub(super) async fn claim_outbox(
    pool: &PgPool,
    owner: &Owner,
    now: Micros,
    until: Micros,
    limit: u32,
    pick: &OutboxPick,
) -> Result<Vec<OutboxRow>, Fault> {
    let (but, only) = rows::outbox_lines(pick);
    let rows = query(
        "WITH free AS (SELECT seq, length(payload) AS bytes FROM outbox \
           WHERE coalesce(group_until, claim_until) <= $1 \
           AND ($5::text IS NULL OR NOT ($5::jsonb ? CASE WHEN subject LIKE 'agentforge.events.%' \
                  THEN 'agentforge.events.' ELSE subject END)) \
           AND ($6::text IS NULL OR subject = $6 OR $6 = 'agentforge.events.' AND subject LIKE 'agentforge.events.%') \
           ORDER BY seq LIMIT $2 FOR UPDATE SKIP LOCKED), \
         summed AS (SELECT seq, sum(bytes) OVER (ORDER BY seq) - bytes AS bytes_before FROM free), \
         claimed AS (UPDATE outbox SET claim_owner = $3, \
           claim_until = CASE WHEN group_until IS NULL THEN $4 ELSE claim_until END, \
           group_until = CASE WHEN group_until IS NULL THEN NULL ELSE $4 END FROM summed \
           WHERE outbox.seq = summed.seq AND bytes_before < $7 \
           RETURNING outbox.seq, subject, msg_id, payload) \
         SELECT seq, subject, msg_id, payload FROM claimed ORDER BY seq",
    )
    .bind(now.0)
    .bind(i64::from(limit))
    .bind(&owner.0)
    .bind(until.0)
    .bind(but)
    .bind(only)
    .bind(i64::try_from(PAGE_BYTES_MAX).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await?;
    rows.iter().map(rows::outbox_row).collect()
}

pub(super) async fn release_outbox(pool: &PgPool, owner: &Owner, seqs: &[i64]) -> Result<(), Fault> {
    query(
        "UPDATE outbox SET claim_owner = NULL, claim_until = CASE WHEN group_until IS NULL THEN 0 ELSE claim_until END, \
         group_until = CASE WHEN group_until IS NULL THEN NULL ELSE 0 END WHERE claim_owner = $1 AND seq = ANY($2)",
    )
    .bind(&owner.0)
    .bind(seqs)
    .execute(pool)
    .await?;
    Ok(())
}

pub(super) async fn touch(pool: &PgPool, ids: &[JobId], now: Micros) -> Result<(), Fault> {
    query(
        "WITH seen AS (SELECT seq FROM jobs WHERE id = ANY($1) AND checked_at IS NOT NULL ORDER BY id FOR UPDATE) \
         UPDATE jobs SET checked_at = $2 FROM seen WHERE jobs.seq = seen.seq",
    )
    .bind(bytes(ids))
    .bind(now.0)
    .execute(pool)
    .await?;
    Ok(())
}

pub(super) async fn prune(pool: &PgPool, before: Micros, limit: u32) -> Result<u64, Fault> {
    let mut session = Session::open(pool).await?;
    let done = prune_in(&mut session, before, limit).await;
    session.settle(done)
}

async fn prune_in(session: &mut Session, before: Micros, limit: u32) -> Result<u64, Fault> {
    let mut tx = session.begin().await?;
    let seqs: Vec<i64> = query_scalar(
        "SELECT seq FROM jobs WHERE finished_at < $1 ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED",
    )
    .bind(before.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *tx)
    .await?;
    for delete in [
        "DELETE FROM dead_letters WHERE job_id IN (SELECT id FROM jobs WHERE seq = ANY($1))",
        "DELETE FROM job_attempts WHERE seq = ANY($1)",
        "DELETE FROM job_results WHERE seq = ANY($1)",
        "DELETE FROM job_payloads WHERE seq = ANY($1)",
        "DELETE FROM jobs WHERE seq = ANY($1)",
    ] {
        query(delete).bind(&seqs).execute(&mut *tx).await?;
    }
    query(
        "DELETE FROM dead_letters WHERE seq IN (SELECT seq FROM dead_letters WHERE job_id IS NULL AND created_at < $1 \
           ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(before.0)
    .bind(i64::from(limit))
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(seqs.len() as u64)
}
