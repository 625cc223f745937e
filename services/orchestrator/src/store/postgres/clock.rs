//! What the wall clock's steps back mean for what is stored.

use super::connection::Session;
use crate::store::fault::Fault;
use agentforge_proto::time::Micros;
use sqlx::postgres::PgPool;
use sqlx::query;

/// Claims, waits for retries, and jobs that were due when they came; `run_at` stays where its caller put it.
const WAITS: &str = "WITH held AS (SELECT seq FROM jobs WHERE claimable_at > $1::bigint \
       AND (claim_owner IS NOT NULL OR attempt > 1 OR available_at <= created_at + 5000000) ORDER BY id FOR UPDATE) \
     UPDATE jobs SET available_at = available_at - $2::bigint, claimable_at = claimable_at - $2::bigint \
     FROM held WHERE jobs.seq = held.seq AND claimable_at IS NOT NULL";
/// Deadlines of jobs that came on the clock before: it was ahead of this one.
const DEADLINES: &str = "WITH held AS (SELECT seq FROM jobs WHERE expires_at > $1::bigint AND created_at > $1::bigint \
       ORDER BY id FOR UPDATE) \
     UPDATE jobs SET deadline = deadline - $2::bigint, expires_at = expires_at - $2::bigint \
     FROM held WHERE jobs.seq = held.seq AND expires_at IS NOT NULL";
const CHECKS: &str = "WITH held AS (SELECT seq FROM jobs WHERE checked_at > $1::bigint ORDER BY id FOR UPDATE) \
     UPDATE jobs SET checked_at = checked_at - $2::bigint FROM held WHERE jobs.seq = held.seq AND checked_at IS NOT NULL";
/// Only those from before the step: later ones end soon by themselves.
const CLAIMS: &str = "UPDATE outbox SET claim_until = CASE WHEN group_until IS NULL THEN claim_until - $2::bigint ELSE claim_until END, \
     group_until = group_until - $2::bigint WHERE coalesce(group_until, claim_until) > $1::bigint + $2::bigint / 2";

const OPERATIONS: &str = "UPDATE operations SET claim_until = claim_until - $2::bigint \
     WHERE state <= 2 AND claim_until > $1::bigint + $2::bigint / 2";

pub(super) async fn set_back(pool: &PgPool, now: Micros, back: i64) -> Result<u64, Fault> {
    let mut session = Session::open(pool).await?;
    let done = set_back_in(&mut session, now, back).await;
    session.settle(done)
}

async fn set_back_in(session: &mut Session, now: Micros, back: i64) -> Result<u64, Fault> {
    let mut tx = session.begin().await?;
    let moved = query(WAITS).bind(now.0).bind(back).execute(&mut *tx).await?.rows_affected();
    for sql in [DEADLINES, CHECKS, CLAIMS, OPERATIONS] {
        query(sql).bind(now.0).bind(back).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(moved)
}
