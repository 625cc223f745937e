//! Looks of people: what is open by queue, ids by their beginning, one dead letter.

use super::readers;
use crate::model::DeadLetter;
use crate::store::QueueCounts;
use crate::store::fault::Fault;
use crate::store::queues;
use crate::store::rows::{self, letter_columns};
use agentforge_message_id::JobId;
use agentforge_proto::time::Micros;
use sqlx::postgres::PgPool;
use sqlx::{query, query_as, query_scalar};

pub(super) async fn queue_counts(pool: &PgPool, now: Micros) -> Result<Vec<QueueCounts>, Fault> {
    let rows: Vec<queues::CountsRow> = query_as(
        "SELECT mission, queue, count(*) FILTER (WHERE state = 1 AND due), count(*) FILTER (WHERE state = 1 AND NOT due), \
           count(*) FILTER (WHERE state = 2), count(*) FILTER (WHERE state = 3), \
           min(since) FILTER (WHERE state = 2 OR (state = 1 AND due)) FROM ( \
           SELECT mission, queue, 1 AS state, available_at <= $1 AS due, greatest(created_at, available_at) AS since \
             FROM jobs WHERE claimable_at IS NOT NULL \
           UNION ALL \
           SELECT mission, queue, state, true, greatest(created_at, available_at) FROM jobs \
             WHERE checked_at IS NOT NULL) AS open \
         GROUP BY mission, queue ORDER BY mission, queue LIMIT 1000",
    )
    .bind(now.0)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(queues::counts).collect()
}

pub(super) async fn ids_between(pool: &PgPool, from: JobId, to: JobId, limit: u32) -> Result<Vec<JobId>, Fault> {
    let ids: Vec<Vec<u8>> = query_scalar("SELECT id FROM jobs WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3")
        .bind(from.as_bytes().to_vec())
        .bind(to.as_bytes().to_vec())
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?;
    ids.iter().map(|id| rows::job_id(id)).collect()
}

pub(super) async fn dead_letter(pool: &PgPool, id: &str, job: Option<JobId>) -> Result<Option<DeadLetter>, Fault> {
    let sql = concat!(
        "SELECT ",
        letter_columns!(),
        " FROM dead_letters WHERE id = $1 OR job_id = $2 ORDER BY seq DESC LIMIT 1"
    );
    let row = query(sql).bind(id).bind(job.map(|job| job.as_bytes().to_vec())).fetch_optional(pool).await?;
    row.as_ref().map(readers::dead_letter).transpose()
}

pub(super) async fn discard_letters(pool: &PgPool, seqs: &[i64]) -> Result<u64, Fault> {
    let done = query("DELETE FROM dead_letters WHERE seq = ANY($1)").bind(seqs).execute(pool).await?;
    Ok(done.rows_affected())
}
