//! Minutes of the objectives, merged.

use super::connection::Writer;
use super::lite::Bind as _;
use super::sql::Batch;
use crate::slo::{Bucket, Unit};
use crate::store::fault::Fault;
use sqlx::Connection as _;
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
            a.text(&*row.slo).push(row.minute).push(row.seen).push(row.good);
        })
        .await?;
    Ok(tx.commit().await?)
}
