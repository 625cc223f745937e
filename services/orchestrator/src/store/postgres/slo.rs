//! Minutes of the objectives, merged.

use crate::slo::{Bucket, Unit};
use crate::store::fault::Fault;
use sqlx::postgres::PgPool;
use sqlx::query;

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
