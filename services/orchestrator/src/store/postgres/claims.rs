//! Who publishes what: claims on jobs and on rows of the outbox, and jobs that need a look.
//!
//! Replicas pass over each other's locked rows, so that a row is claimed once. A claim moves
//! `claimable_at` to its end: one that runs out, its replica being gone, comes back by itself.

use super::commit::bytes;
use super::connection::Session;
use super::readers;
use crate::store::fault::Fault;
use crate::store::rows::outgoing_columns;
use crate::store::{OutboxRow, Outgoing, Owner, PAGE_BYTES_MAX};
use agentforge_message_id::JobId;
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
) -> Result<Vec<Outgoing>, Fault> {
    let mut session = Session::open(pool).await?;
    let done = claim_in(&mut session, owner, now, until, limit).await;
    session.settle(done)
}

async fn claim_in(
    session: &mut Session,
    owner: &Owner,
    now: Micros,
    until: Micros,
    limit: u32,
) -> Result<Vec<Outgoing>, Fault> {
    let mut tx = session.begin().await?;
    let mut due = due(&mut tx, now, limit).await?;
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

async fn due(c: &mut PgConnection, now: Micros, limit: u32) -> Result<Vec<Outgoing>, Fault> {
    let sql = concat!(
        "SELECT ",
        outgoing_columns!(),
        " FROM jobs AS j JOIN job_payloads AS p ON p.seq = j.seq \
         WHERE j.claimable_at <= $1 ORDER BY j.claimable_at, j.seq LIMIT $2 FOR UPDATE OF j SKIP LOCKED"
    );
    let mut rows = query(sql).bind(now.0).bind(i64::from(limit)).fetch(c);
    let (mut due, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        let job = readers::outgoing(&row)?;
        bytes += job.args.len();
        due.push(job);
        if bytes > PAGE_BYTES_MAX {
            break;
        }
    }
    Ok(due)
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
) -> Result<Vec<OutboxRow>, Fault> {
    let rows = query(
        "WITH free AS (SELECT seq FROM outbox WHERE claim_until <= $1 ORDER BY seq LIMIT $2 FOR UPDATE SKIP LOCKED), \
         claimed AS (UPDATE outbox SET claim_owner = $3, claim_until = $4 FROM free WHERE outbox.seq = free.seq \
           RETURNING outbox.seq, subject, msg_id, payload) \
         SELECT seq, subject, msg_id, payload FROM claimed ORDER BY seq",
    )
    .bind(now.0)
    .bind(i64::from(limit))
    .bind(&owner.0)
    .bind(until.0)
    .fetch_all(pool)
    .await?;
    rows.iter().map(readers::outbox_row).collect()
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
