//! Looks of people: what is open by queue, ids by their beginning, one dead letter.

use super::connection::Writer;
use super::readers;
use crate::model::DeadLetter;
use crate::store::QueueCounts;
use crate::store::fault::Fault;
use crate::store::queues;
use crate::store::rows::{self, letter_columns};
use agentforge_message_id::JobId;
use agentforge_proto::time::Micros;
use sqlx::sqlite::SqlitePool;
use sqlx::{query, query_as, query_scalar};

/// Like `DEPTHS`, with all that is open: about 1 µs per job, on a reading connection.
pub(super) const QUEUES: &str = "SELECT mission, queue, sum(state = 1 AND due), sum(state = 1 AND NOT due), sum(state = 2), \
       sum(state = 3), min(CASE WHEN state = 2 OR (state = 1 AND due) THEN since END) FROM ( \
       SELECT mission, queue, 1 AS state, available_at <= ?1 AS due, max(created_at, available_at) AS since FROM jobs \
         WHERE claimable_at IS NOT NULL \
       UNION ALL \
       SELECT mission, queue, state, 1, max(created_at, available_at) FROM jobs WHERE checked_at IS NOT NULL) \
     GROUP BY mission, queue ORDER BY mission, queue LIMIT 1000";

pub(super) async fn queue_counts(pool: &SqlitePool, now: Micros) -> Result<Vec<QueueCounts>, Fault> {
    let rows: Vec<queues::CountsRow> = query_as(QUEUES).bind(now.0).fetch_all(pool).await?;
    rows.into_iter().map(queues::counts).collect()
}

pub(super) const IDS: &str = "SELECT id FROM jobs WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?";

pub(super) async fn ids_between(pool: &SqlitePool, from: JobId, to: JobId, limit: u32) -> Result<Vec<JobId>, Fault> {
    let (from, to) = (from.as_bytes().to_vec(), to.as_bytes().to_vec());
    let ids: Vec<Vec<u8>> = query_scalar(IDS).bind(from).bind(to).bind(limit).fetch_all(pool).await?;
    ids.iter().map(|id| rows::job_id(id)).collect()
}

pub(super) async fn dead_letter(pool: &SqlitePool, id: &str, job: Option<JobId>) -> Result<Option<DeadLetter>, Fault> {
    let sql = concat!(
        "SELECT ",
        letter_columns!(),
        " FROM dead_letters WHERE id = ?1 OR job_id = ?2 ORDER BY seq DESC LIMIT 1"
    );
    let row = query(sql).bind(id).bind(job.map(|job| job.as_bytes().to_vec())).fetch_optional(pool).await?;
    row.as_ref().map(readers::dead_letter).transpose()
}

pub(super) async fn discard_letters(w: &mut Writer, seqs: &[i64]) -> Result<u64, Fault> {
    let seqs = serde_json::to_string(seqs).expect("numbers are always JSON");
    let done = query("DELETE FROM dead_letters WHERE seq IN (SELECT value FROM json_each(?))").bind(seqs);
    Ok(done.execute(&mut w.connection).await?.rows_affected())
}
