//! Minutes of the objectives.

use crate::model::State;
use crate::slo::{Bucket, CAP_US, FAST_US, Finished, Unit};
use crate::store::fault::Fault;
use sqlx::postgres::PgPool;
use sqlx::{query, query_as, query_scalar};

/// A second that two processes observed counts once, and was up if either saw it up.
const MERGE_SECONDS: &str = "INSERT INTO slo_buckets (slo, minute, seen, good) \
     SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS new (slo, minute, seen, good) \
     ORDER BY minute, slo \
     ON CONFLICT (minute, slo) DO UPDATE SET seen = slo_buckets.seen | excluded.seen, \
       good = slo_buckets.good | excluded.good";

/// Counts are made of the same rows by everybody, and only rise.
const MERGE_EVENTS: &str = "INSERT INTO slo_buckets (slo, minute, seen, good) \
     SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS new (slo, minute, seen, good) \
     ORDER BY minute, slo \
     ON CONFLICT (minute, slo) DO UPDATE SET seen = greatest(slo_buckets.seen, excluded.seen), \
       good = greatest(slo_buckets.good, excluded.good)";

/// Rows are written in order, so that replicas do not dead-lock.
pub(super) async fn merge(pool: &PgPool, unit: Unit, rows: &[Bucket]) -> Result<(), Fault> {
    let statement = match unit {
        Unit::Seconds => MERGE_SECONDS,
        Unit::Events => MERGE_EVENTS,
    };
    query(statement)
        .bind(rows.iter().map(|row| row.slo.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.minute).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.seen).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.good).collect::<Vec<_>>())
        .execute(pool)
        .await?;
    Ok(())
}

pub(super) async fn since(pool: &PgPool, minute: i64) -> Result<Vec<Bucket>, Fault> {
    let rows: Vec<(String, i64, i64, i64)> =
        query_as("SELECT slo, minute, seen, good FROM slo_buckets WHERE minute >= $1 ORDER BY minute, slo")
            .bind(minute)
            .fetch_all(pool)
            .await?;
    Ok(rows.into_iter().map(|(slo, minute, seen, good)| Bucket { slo, minute, seen, good }).collect())
}

pub(super) async fn last_minute(pool: &PgPool, slo: &str) -> Result<Option<i64>, Fault> {
    let sql = "SELECT minute FROM slo_buckets WHERE slo = $1 ORDER BY minute DESC LIMIT 1";
    Ok(query_scalar(sql).bind(slo).fetch_optional(pool).await?)
}

/// Reads every job of these minutes: about 1 µs each.
pub(super) async fn finished(pool: &PgPool, from: i64, to: i64) -> Result<Vec<Finished>, Fault> {
    let rows: Vec<(i64, i64, i64, i64)> = query_as(
        "SELECT finished_at / 60000000, count(*), count(*) FILTER (WHERE state = $3 AND took <= $4), \
           count(*) FILTER (WHERE state = $3 AND took <= $5) \
         FROM (SELECT state, finished_at, \
                 finished_at - CASE attempt WHEN 1 THEN greatest(created_at, available_at) ELSE created_at END AS took \
               FROM jobs WHERE finished_at >= $1 AND finished_at < $2 AND state <> $6) AS ended GROUP BY 1 ORDER BY 1",
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

pub(super) async fn forget(pool: &PgPool, before: i64) -> Result<u64, Fault> {
    Ok(query("DELETE FROM slo_buckets WHERE minute < $1").bind(before).execute(pool).await?.rows_affected())
}
