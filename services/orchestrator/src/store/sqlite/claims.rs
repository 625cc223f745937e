//! Which process publishes what: claims on jobs and on rows of the outbox, and jobs that need a check.
//!
//! A claim moves `claimable_at` to its end, so that due, unclaimed jobs are always at the front of
//! one index, and a claim that runs out comes back by itself.

use super::connection::Writer;
use super::lite::Bind as _;
use super::queries::jobs::lines;
use super::sql::{Args, Batch, push_id};
use crate::store::fault::Fault;
use crate::store::queues;
use crate::store::rows::{self, attempted_columns, outbox_columns};
use crate::store::spec::spec_columns;
use crate::store::{OutboxPick, OutboxRow, Outgoing, Owner, PAGE_BYTES_MAX, Pick};
use agentforge_message_id::{JobId, Queue};
use agentforge_proto::time::Micros;
use futures_util::TryStreamExt as _;
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;
use sqlx::{query, query_scalar};
use std::sync::LazyLock;

static CLAIM: LazyLock<Batch> =
    LazyLock::new(|| Batch::list("UPDATE jobs SET claim_owner = ?, claimable_at = ? WHERE seq IN", ""));

static RELEASE: LazyLock<Batch> = LazyLock::new(|| {
    Batch::list(
        "UPDATE jobs SET claim_owner = NULL, claimable_at = available_at \
         WHERE claimable_at IS NOT NULL AND claim_owner = ? AND id IN",
        "",
    )
});

static CLAIM_OUTBOX: LazyLock<Batch> = LazyLock::new(|| {
    let head = "UPDATE outbox SET claim_owner = ?, \
         claim_until = CASE WHEN group_until IS NULL THEN ? ELSE claim_until END, \
         group_until = CASE WHEN group_until IS NULL THEN NULL ELSE ? END WHERE seq IN";
    Batch::list(head, "")
});

static RELEASE_OUTBOX: LazyLock<Batch> = LazyLock::new(|| {
    let head = "UPDATE outbox SET claim_owner = NULL, \
         claim_until = CASE WHEN group_until IS NULL THEN 0 ELSE claim_until END, \
         group_until = CASE WHEN group_until IS NULL THEN NULL ELSE 0 END WHERE claim_owner = ? AND seq IN";
    Batch::list(head, "")
});

static TOUCH: LazyLock<Batch> =
    LazyLock::new(|| Batch::list("UPDATE jobs SET checked_at = ? WHERE checked_at IS NOT NULL AND id IN", ""));

pub(super) async fn claim_due(
    w: &mut Writer,
    owner: &Owner,
    now: Micros,
    until: Micros,
    limit: u32,
    pick: &Pick,
) -> Result<Vec<Outgoing>, Fault> {
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    let queues = match pick {
        Pick::Only(queue) => vec![queue.clone()],
        Pick::AllBut(_) => queues::due_lines(lines(&mut *tx).await?, now, pick),
    };
    // Each queue has its part, so that a long one keeps no other waiting.
    let (mut due, mut left) = (Vec::new(), queues.len());
    for queue in &queues {
        if due.len() >= limit as usize {
            break;
        }
        let share = (limit.saturating_sub(due.len() as u32) / left.max(1) as u32).max(1);
        due_of(&mut tx, queue, now, share, PAGE_BYTES_MAX / left, &mut due).await?;
        left -= 1;
    }
    let claim = |a: &mut Args| _ = a.text(&*owner.0).push(until.0);
    CLAIM.execute_with(&mut tx, claim, &due, |a, o| _ = a.push(o.seq)).await?;
    tx.commit().await?;
    due.sort_unstable_by_key(|o| o.seq);
    Ok(due)
}

pub(super) const DUE: &str = concat!(
    "SELECT ",
    attempted_columns!(),
    spec_columns!(),
    " FROM jobs AS j JOIN job_payloads AS p ON p.seq = j.seq \
     WHERE j.queue = ? AND j.claimable_at <= ? ORDER BY j.claimable_at, j.seq LIMIT ?"
);

async fn due_of(
    c: &mut SqliteConnection,
    queue: &Queue,
    now: Micros,
    limit: u32,
    bytes_max: usize,
    due: &mut Vec<Outgoing>,
) -> Result<(), Fault> {
    let mut rows = query(DUE).bind(queue.as_str()).bind(now.0).bind(limit).fetch(c);
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

pub(super) async fn release(w: &mut Writer, owner: &Owner, ids: &[JobId]) -> Result<(), Fault> {
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    RELEASE.execute_with(&mut tx, |a| _ = a.text(&*owner.0), ids, push_id).await?;
    Ok(tx.commit().await?)
}

pub(super) async fn claim_outbox(
    w: &mut Writer,
    owner: &Owner,
    now: Micros,
    until: Micros,
    limit: u32,
    pick: &OutboxPick,
) -> Result<Vec<OutboxRow>, Fault> {
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    let (but, only) = rows::outbox_lines(pick);
    let free = concat!(
        "SELECT ",
        outbox_columns!(),
        " FROM outbox WHERE coalesce(group_until, claim_until) <= ?1 \
        AND (?3 IS NULL OR CASE WHEN substr(subject, 1, 18) = 'agentforge.events.' THEN 'agentforge.events.' \
               ELSE subject END NOT IN (SELECT value FROM json_each(?3))) \
        AND (?4 IS NULL OR subject = ?4 OR ?4 = 'agentforge.events.' AND substr(subject, 1, 18) = ?4) \
        ORDER BY seq LIMIT ?2"
    );
    let mut found = query(free).bind(now.0).bind(limit).bind(but).bind(only).fetch(&mut *tx);
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while bytes < PAGE_BYTES_MAX
        && let Some(row) = found.try_next().await?
    {
        let row = rows::outbox_row(&row)?;
        bytes += row.bytes();
        rows.push(row);
    }
    drop(found);
    let claim = |a: &mut Args| _ = a.text(&*owner.0).push(until.0).push(until.0);
    CLAIM_OUTBOX.execute_with(&mut tx, claim, &rows, |a, r| _ = a.push(r.seq)).await?;
    tx.commit().await?;
    Ok(rows)
}

pub(super) async fn release_outbox(w: &mut Writer, owner: &Owner, seqs: &[i64]) -> Result<(), Fault> {
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    RELEASE_OUTBOX.execute_with(&mut tx, |a| _ = a.text(&*owner.0), seqs, |a, seq| _ = a.push(*seq)).await?;
    Ok(tx.commit().await?)
}

/// The file belongs only to this process: claims of others are from processes that have ended.
pub(super) async fn release_orphans(w: &mut Writer, owner: &Owner) -> Result<(), Fault> {
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    query(
        "UPDATE jobs SET claim_owner = NULL, claimable_at = available_at \
         WHERE claimable_at IS NOT NULL AND claim_owner <> ?",
    )
    .bind(&owner.0)
    .execute(&mut *tx)
    .await?;
    query(
        "UPDATE outbox SET claim_owner = NULL, \
         claim_until = CASE WHEN group_until IS NULL THEN 0 ELSE claim_until END, \
         group_until = CASE WHEN group_until IS NULL THEN NULL ELSE 0 END WHERE claim_owner <> ?",
    )
    .bind(&owner.0)
    .execute(&mut *tx)
    .await?;
    query("UPDATE operations SET claim_until = 0 WHERE state <= 2 AND claim_owner <> ?")
        .bind(&owner.0)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

pub(super) async fn touch(w: &mut Writer, ids: &[JobId], now: Micros) -> Result<(), Fault> {
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    TOUCH.execute_with(&mut tx, |a| _ = a.push(now.0), ids, push_id).await?;
    Ok(tx.commit().await?)
}

static DELETE_FROM: LazyLock<[Batch; 4]> = LazyLock::new(|| {
    ["job_attempts", "job_results", "job_payloads", "jobs"]
        .map(|t| Batch::list(&format!("DELETE FROM {t} WHERE seq IN"), ""))
});

static DELETE_LETTERS: LazyLock<Batch> =
    LazyLock::new(|| Batch::list("DELETE FROM dead_letters WHERE job_id IN (SELECT id FROM jobs WHERE seq IN", ")"));

pub(super) const FINISHED: &str = "SELECT seq FROM jobs WHERE finished_at < ? ORDER BY finished_at LIMIT ?";

pub(super) async fn prune(w: &mut Writer, before: Micros, limit: u32) -> Result<u64, Fault> {
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    let seqs: Vec<i64> = query_scalar(FINISHED).bind(before.0).bind(limit).fetch_all(&mut *tx).await?;
    DELETE_LETTERS.execute(&mut tx, &seqs, |a, seq| _ = a.push(*seq)).await?;
    for delete in DELETE_FROM.iter() {
        delete.execute(&mut tx, &seqs, |a, seq| _ = a.push(*seq)).await?;
    }
    query(
        "DELETE FROM dead_letters WHERE seq IN \
         (SELECT seq FROM dead_letters WHERE job_id IS NULL AND created_at < ? ORDER BY created_at LIMIT ?)",
    )
    .bind(before.0)
    .bind(limit)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    if !seqs.is_empty() {
        w.known.recent.forget();
    }
    Ok(seqs.len() as u64)
}
