//! What the wall clock's steps back mean for what is stored.

use super::connection::Writer;
use crate::store::fault::Fault;
use agentforge_proto::time::Micros;
use sqlx::Connection as _;
use sqlx::query;

/// Claims, waits for retries, and jobs that were due when they came; `run_at` stays where its caller put it.
const WAITS: &str = "UPDATE jobs SET available_at = available_at - ?2, claimable_at = claimable_at - ?2 \
     WHERE claimable_at > ?1 AND (claim_owner IS NOT NULL OR attempt > 1 OR available_at <= created_at + 5000000)";
/// Deadlines of jobs that came on the clock before: it was ahead of this one.
const DEADLINES: &str = "UPDATE jobs SET deadline = deadline - ?2, expires_at = expires_at - ?2 \
     WHERE expires_at > ?1 AND created_at > ?1";
const CHECKS: &str = "UPDATE jobs SET checked_at = checked_at - ?2 WHERE checked_at > ?1";
/// Only those from before the step: later ones end soon by themselves.
const CLAIMS: &str = "UPDATE outbox SET \
     claim_until = CASE WHEN group_until IS NULL THEN claim_until - ?2 ELSE claim_until END, \
     group_until = group_until - ?2 WHERE coalesce(group_until, claim_until) > ?1 + ?2 / 2";

const OPERATIONS: &str = "UPDATE operations SET claim_until = claim_until - ?2 \
     WHERE state <= 2 AND claim_until > ?1 + ?2 / 2";

pub(super) async fn set_back(w: &mut Writer, now: Micros, back: i64) -> Result<u64, Fault> {
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    let moved = query(WAITS).bind(now.0).bind(back).execute(&mut *tx).await?.rows_affected();
    for sql in [DEADLINES, CHECKS, CLAIMS, OPERATIONS] {
        query(sql).bind(now.0).bind(back).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    w.known.recent.forget();
    Ok(moved)
}
