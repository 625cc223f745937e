//! Minutes of the objectives.

use super::connection::Writer;
use super::sql::Batch;
use crate::model::State;
use crate::slo::{Bucket, CAP_US, FAST_US, Finished, Unit};
use crate::store::fault::Fault;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use sqlx::{Connection as _, query, query_as, query_scalar};
use std::sync::LazyLock;

const COLUMNS: [&str; 4] = ["slo", "minute", "seen", "good"];

/// A second that two processes observed counts once, and was up if either saw it up.
static MERGE_SECONDS: LazyLock<Batch> = LazyLock::new(|| {
    Batch::insert(
        "slo_buckets",
        &COLUMNS,
        "ON CONFLICT (minute, slo) DO UPDATE SET seen = slo_buckets.seen | excluded.seen, \
         good = slo_buckets.good | excluded.good",
    )
});

/// Counts are made of the same rows by everybody, and only rise.
static MERGE_EVENTS: LazyLock<Batch> = LazyLock::new(|| {
    Batch::insert(
        "slo_buckets",
        &COLUMNS,
        "ON CONFLICT (minute, slo) DO UPDATE SET seen = max(slo_buckets.seen, excluded.seen), \
         good = max(slo_buckets.good, excluded.good)",
    )
});

pub(super) async fn merge(w: &mut Writer, unit: Unit, rows: &[Bucket]) -> Result<(), Fault> {
    let statement = match unit {
        Unit::Seconds => &MERGE_SECONDS,
        Unit::Events => &MERGE_EVENTS,
    };
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    statement
        .execute(&mut tx, rows, |a, row| {
            a.text(&row.slo).push(row.minute).push(row.seen).push(row.good);
        })
        .await?;
    Ok(tx.commit().await?)
}

pub(super) async fn since(pool: &SqlitePool, minute: i64) -> Result<Vec<Bucket>, Fault> {
    let rows: Vec<(String, i64, i64, i64)> =
        query_as("SELECT slo, minute, seen, good FROM slo_buckets WHERE minute >= ? ORDER BY minute, slo")
            .bind(minute)
            .fetch_all(pool)
            .await?;
    Ok(rows.into_iter().map(|(slo, minute, seen, good)| Bucket { slo, minute, seen, good }).collect())
}

pub(super) async fn last_minute(pool: &SqlitePool, slo: &str) -> Result<Option<i64>, Fault> {
    let sql = "SELECT minute FROM slo_buckets WHERE slo = ? ORDER BY minute DESC LIMIT 1";
    Ok(query_scalar(sql).bind(slo).fetch_optional(pool).await?)
}

/// Reads every job of these minutes: about 1 µs each.
pub(super) async fn finished(pool: &SqlitePool, from: i64, to: i64) -> Result<Vec<Finished>, Fault> {
    let rows: Vec<(i64, i64, i64, i64)> = query_as(
        "SELECT finished_at / 60000000, count(*), count(*) FILTER (WHERE state = ?3 AND took <= ?4), \
           count(*) FILTER (WHERE state = ?3 AND took <= ?5) \
         FROM (SELECT state, finished_at, \
                 finished_at - CASE attempt WHEN 1 THEN max(created_at, available_at) ELSE created_at END AS took \
               FROM jobs WHERE finished_at >= ?1 AND finished_at < ?2 AND state <> ?6) GROUP BY 1 ORDER BY 1",
    )
    .bind(from * 60_000_000)
    .bind(to * 60_000_000)
    .bind(State::Succeeded as i16)
    .bind(FAST_US)
    .bind(CAP_US)
    .bind(State::Cancelled as i16)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|(minute, total, fast, capped)| Finished { minute, total, fast, capped }).collect())
}

pub(super) async fn forget(c: &mut SqliteConnection, before: i64) -> Result<u64, Fault> {
    Ok(query("DELETE FROM slo_buckets WHERE minute < ?").bind(before).execute(c).await?.rows_affected())
}
