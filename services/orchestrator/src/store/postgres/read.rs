//! Questions: one statement each, outside of transactions.

use super::readers::{self, Columns};
use super::text::bytes;
use crate::model::{AttemptRecord, DeadLetter, Job, State};
use crate::store::fault::Fault;
use crate::store::queues;
use crate::store::rows::{self, attempt_columns, job_columns, letter_columns};
use crate::store::{
    CLAIMS_END_WITHIN_US, DeadLetterFilter, Depth, JobFilter, PAGE_BYTES_MAX, Page, Pick, SCAN_ROWS_MAX, StaleJob,
    Waiting, lines_of_jobs,
};
use agentforge_message_id::{JobId, Mission, Queue};
use agentforge_proto::time::Micros;
use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{query, query_as, query_scalar};

pub(super) async fn job(pool: &PgPool, id: JobId) -> Result<Option<Job>, Fault> {
    let sql = concat!(
        "SELECT ",
        job_columns!(),
        " FROM jobs AS j JOIN job_payloads AS p ON p.seq = j.seq LEFT JOIN job_results AS r ON r.seq = j.seq \
         WHERE j.id = $1"
    );
    let row = query(sql).bind(id.as_bytes().as_slice()).fetch_optional(pool).await?;
    row.as_ref().map(readers::job).transpose()
}

/// Walks back by row number, reads `SCAN_ROWS_MAX` rows at most, and stops there even if the page is not full: about 1
/// µs per row that does not match, more with labels.
pub(super) async fn jobs(pool: &PgPool, f: &JobFilter) -> Result<Page<Job>, Fault> {
    let sql = concat!(
        "SELECT ",
        job_columns!(),
        " FROM (SELECT * FROM jobs WHERE seq < $1 ORDER BY seq DESC LIMIT $2) AS j \
         JOIN job_payloads AS p ON p.seq = j.seq LEFT JOIN job_results AS r ON r.seq = j.seq \
         WHERE ($3::text IS NULL OR j.mission = $3) AND ($4::text IS NULL OR j.queue = $4) AND ($5::text IS NULL OR j.tool = $5) \
           AND ($6::bigint = 0 OR ($6 >> j.state::int) & 1 = 1) \
           AND ($7::text IS NULL OR NOT EXISTS (SELECT 1 FROM jsonb_array_elements($7::jsonb) AS want \
                WHERE j.labels::jsonb ->> (want ->> 0) IS DISTINCT FROM want ->> 1)) \
           AND ($9::bigint IS NULL OR j.created_at >= $9) AND ($10::bigint IS NULL OR j.created_at < $10) \
           AND ($11::bigint IS NULL OR j.finished_at >= $11) AND ($12::bigint IS NULL OR j.finished_at < $12) \
         ORDER BY j.seq DESC LIMIT $8"
    );
    let before = f.before.unwrap_or(i64::MAX);
    let states = f.states.iter().fold(0_i64, |bits, s| bits | 1 << (*s as i16));
    let labels = (!f.labels.is_empty()).then(|| serde_json::to_string(&f.labels).expect("strings are always JSON"));
    let mut rows = query(sql)
        .bind(before)
        .bind(SCAN_ROWS_MAX)
        .bind(f.mission.as_ref().map(Mission::as_str))
        .bind(f.queue.as_ref().map(Queue::as_str))
        .bind(f.tool.as_ref().map(agentforge_message_id::ToolName::as_str))
        .bind(states)
        .bind(labels)
        .bind(i64::from(f.limit))
        .bind(f.times.created_after.map(|m| m.0))
        .bind(f.times.created_before.map(|m| m.0))
        .bind(f.times.finished_after.map(|m| m.0))
        .bind(f.times.finished_before.map(|m| m.0))
        .fetch(pool);
    let (mut items, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        let job = readers::job(&row)?;
        bytes += job.args.len() + job.result.as_ref().map_or(0, String::len);
        items.push(job);
        if bytes > PAGE_BYTES_MAX {
            break;
        }
    }
    drop(rows);
    let is_full = items.len() >= f.limit as usize || bytes > PAGE_BYTES_MAX;
    let next = match items.last() {
        Some(last) if is_full => Some(last.seq),
        _ => end_of_scan(pool, "jobs", before).await?,
    };
    Ok(Page { items, next })
}

/// The last row that a scan from `before` looked at; `None` when it saw them all.
async fn end_of_scan(pool: &PgPool, table: &'static str, before: i64) -> Result<Option<i64>, Fault> {
    let sql = match table {
        "jobs" => "SELECT seq FROM jobs WHERE seq < $1 ORDER BY seq DESC LIMIT 1 OFFSET $2",
        _ => "SELECT seq FROM dead_letters WHERE seq < $1 ORDER BY seq DESC LIMIT 1 OFFSET $2",
    };
    Ok(query_scalar(sql).bind(before).bind(SCAN_ROWS_MAX - 1).fetch_optional(pool).await?)
}

pub(super) async fn attempts(pool: &PgPool, id: JobId) -> Result<Vec<AttemptRecord>, Fault> {
    let sql = concat!(
        "SELECT ",
        attempt_columns!(),
        " FROM job_attempts WHERE seq = (SELECT seq FROM jobs WHERE id = $1) ORDER BY attempt"
    );
    let rows = query(sql).bind(id.as_bytes().as_slice()).fetch_all(pool).await?;
    rows.iter().map(readers::attempt_record).collect()
}

pub(super) async fn versions(pool: &PgPool, ids: &[JobId]) -> Result<Vec<(JobId, State, i64)>, Fault> {
    let rows = query("SELECT id, state, version FROM jobs WHERE id = ANY($1)").bind(bytes(ids)).fetch_all(pool).await?;
    let version = |row: &PgRow| {
        let mut c = Columns::of(row);
        Ok((rows::job_id(c.take()?)?, rows::state(c.take()?)?, c.take()?))
    };
    rows.iter().map(version).collect()
}

/// Not: what looks for work is planned each time. A plan that was made while the table was nearly empty reads it
/// whole, and a session would keep it; these statements run a few times a second at most.
pub(super) const PLAN_KEPT: bool = false;

/// The queues with accepted jobs, and when the first of each may be claimed.
pub(super) async fn lines(pool: &PgPool) -> Result<Vec<queues::Line>, Fault> {
    let sql = concat!(
        lines_of_jobs!(),
        "SELECT queue, (SELECT min(claimable_at) FROM jobs WHERE claimable_at IS NOT NULL AND jobs.queue = lines.queue) \
         FROM lines WHERE queue IS NOT NULL"
    );
    Ok(query_as(sql).persistent(PLAN_KEPT).fetch_all(pool).await?)
}

pub(super) async fn next_due(pool: &PgPool, pick: &Pick) -> Result<Option<Micros>, Fault> {
    Ok(queues::first_of(lines(pool).await?, pick))
}

/// Counts only in the index, except for what is claimed.
pub(super) async fn waiting(pool: &PgPool, now: Micros) -> Result<Waiting, Fault> {
    let sql = concat!(
        lines_of_jobs!(),
        "SELECT queue, \
           (SELECT count(*) FROM jobs AS j WHERE j.queue = lines.queue AND j.claimable_at <= $1), \
           (SELECT count(*) FROM jobs AS j WHERE j.queue = lines.queue AND j.claimable_at > $1 \
              AND j.claimable_at <= $2 AND j.claim_owner IS NOT NULL), \
           (SELECT count(*) FROM jobs AS j WHERE j.queue = lines.queue AND j.claimable_at > $1) \
         FROM lines WHERE queue IS NOT NULL"
    );
    let until = now.0.saturating_add(CLAIMS_END_WITHIN_US);
    queues::waiting(query_as(sql).persistent(PLAN_KEPT).bind(now.0).bind(until).fetch_all(pool).await?)
}

/// Looks at every job that is due, queued or running: about 1 µs each.
pub(super) async fn depths(pool: &PgPool, now: Micros) -> Result<Vec<Depth>, Fault> {
    let rows: Vec<(String, String, i64, i64)> = query_as(concat!(
        lines_of_jobs!(),
        "SELECT mission, queue, count(*), min(since) FROM ( \
           SELECT j.mission, j.queue, greatest(j.created_at, j.available_at) AS since FROM lines JOIN jobs AS j \
             ON j.queue = lines.queue WHERE j.claimable_at <= $2 AND j.available_at <= $1 \
           UNION ALL \
           SELECT mission, queue, greatest(created_at, available_at) FROM jobs WHERE checked_at IS NOT NULL AND state = 2) AS waiting \
         GROUP BY mission, queue LIMIT 1000"
    ))
    .persistent(PLAN_KEPT)
    .bind(now.0)
    .bind(now.0.saturating_add(CLAIMS_END_WITHIN_US))
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|(mission, queue, pending, oldest)| {
            Ok(Depth {
                mission: rows::name("job", Mission::new(mission))?,
                queue: rows::name("job", Queue::new(queue))?,
                pending: pending.unsigned_abs(),
                oldest: Micros(oldest),
            })
        })
        .collect()
}

/// Of the newest jobs: a mark of an old one that was retried late does no harm, the search goes back further then.
pub(super) async fn newest_mark(pool: &PgPool) -> Result<Option<u64>, Fault> {
    let sql = "SELECT max(stream_seq) FROM (SELECT stream_seq FROM jobs ORDER BY seq DESC LIMIT $1) AS newest";
    let mark: Option<i64> = query_scalar(sql).persistent(PLAN_KEPT).bind(SCAN_ROWS_MAX).fetch_one(pool).await?;
    Ok(mark.and_then(|mark| u64::try_from(mark).ok()))
}

pub(super) async fn past_deadline(
    pool: &PgPool,
    now: Micros,
    read_to: Micros,
    limit: u32,
) -> Result<Vec<JobId>, Fault> {
    let ids: Vec<Vec<u8>> = query_scalar(
        "SELECT id FROM jobs WHERE expires_at <= $1 AND (state = 1 OR expires_at <= $2) ORDER BY expires_at LIMIT $3",
    )
    .bind(now.0)
    .bind(read_to.0)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    ids.iter().map(|id| rows::job_id(id)).collect()
}

pub(super) async fn stale(pool: &PgPool, before: Micros, limit: u32) -> Result<Vec<StaleJob>, Fault> {
    let rows = query(
        "SELECT id, attempt, state, stream_seq, checked_at FROM jobs WHERE checked_at < $1 ORDER BY checked_at LIMIT $2",
    )
    .bind(before.0)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.iter().map(readers::stale_job).collect()
}

pub(super) async fn dead_letters(pool: &PgPool, f: &DeadLetterFilter) -> Result<Page<DeadLetter>, Fault> {
    let sql = concat!(
        "SELECT ",
        letter_columns!(),
        " FROM (SELECT * FROM dead_letters WHERE seq < $1 ORDER BY seq DESC LIMIT $2) AS letters \
         WHERE ($3::text IS NULL OR mission = $3) AND ($4::text IS NULL OR queue = $4) AND ($5::text IS NULL OR reason = $5) \
           AND ($6::boolean OR redriven_at IS NULL) ORDER BY seq DESC LIMIT $7"
    );
    let before = f.before.unwrap_or(i64::MAX);
    let rows = query(sql)
        .bind(before)
        .bind(SCAN_ROWS_MAX)
        .bind(f.mission.as_deref())
        .bind(f.queue.as_deref())
        .bind(f.reason.as_deref())
        .bind(f.include_redriven)
        .bind(i64::from(f.limit))
        .fetch_all(pool)
        .await?;
    let items: Vec<DeadLetter> = rows.iter().map(readers::dead_letter).collect::<Result<_, _>>()?;
    let next = match items.last() {
        Some(last) if items.len() >= f.limit as usize => Some(last.seq),
        _ => end_of_scan(pool, "dead_letters", before).await?,
    };
    Ok(Page { items, next })
}
