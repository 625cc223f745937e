//! Questions: they run on the reading connections and never wait for a commit.

use super::readers::{self, Columns};
use super::sql::{Batch, push_id};
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
use sqlx::sqlite::{SqliteExecutor, SqlitePool, SqliteRow};
use sqlx::{query, query_as, query_scalar};
use std::sync::LazyLock;

static VERSIONS: LazyLock<Batch> = LazyLock::new(|| Batch::list("SELECT id, state, version FROM jobs WHERE id IN", ""));

pub(super) async fn job(pool: &SqlitePool, id: JobId) -> Result<Option<Job>, Fault> {
    let sql = concat!(
        "SELECT ",
        job_columns!(),
        " FROM jobs AS j JOIN job_payloads AS p ON p.seq = j.seq LEFT JOIN job_results AS r ON r.seq = j.seq \
         WHERE j.id = ?"
    );
    let row = query(sql).bind(id.as_bytes().as_slice()).fetch_optional(pool).await?;
    row.as_ref().map(readers::job).transpose()
}

pub(super) const JOBS: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM (SELECT * FROM jobs WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2) AS j \
     JOIN job_payloads AS p ON p.seq = j.seq LEFT JOIN job_results AS r ON r.seq = j.seq \
     WHERE (?3 IS NULL OR j.mission = ?3) AND (?4 IS NULL OR j.queue = ?4) AND (?5 IS NULL OR j.tool = ?5) \
       AND (?6 = 0 OR (?6 >> j.state) & 1) \
       AND (?7 IS NULL OR NOT EXISTS (SELECT 1 FROM json_each(?7) AS want WHERE NOT EXISTS ( \
            SELECT 1 FROM json_each(j.labels) AS have \
            WHERE have.key = want.value ->> 0 AND have.value = want.value ->> 1))) \
       AND (?9 IS NULL OR j.created_at >= ?9) AND (?10 IS NULL OR j.created_at < ?10) \
       AND (?11 IS NULL OR j.finished_at >= ?11) AND (?12 IS NULL OR j.finished_at < ?12) \
     ORDER BY j.seq DESC LIMIT ?8"
);

/// Walks back by row number, reads `SCAN_ROWS_MAX` rows at most, and stops there even if the page is not full: about 1
/// µs per row that does not match, more with labels.
pub(super) async fn jobs(pool: &SqlitePool, f: &JobFilter) -> Result<Page<Job>, Fault> {
    let before = f.before.unwrap_or(i64::MAX);
    let states = f.states.iter().fold(0_i64, |bits, s| bits | 1 << (*s as i16));
    let labels = (!f.labels.is_empty()).then(|| serde_json::to_string(&f.labels).expect("strings are always JSON"));
    let mut rows = query(JOBS)
        .bind(before)
        .bind(SCAN_ROWS_MAX)
        .bind(f.mission.as_ref().map(Mission::as_str))
        .bind(f.queue.as_ref().map(Queue::as_str))
        .bind(f.tool.as_ref().map(agentforge_message_id::ToolName::as_str))
        .bind(states)
        .bind(labels)
        .bind(f.limit)
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
async fn end_of_scan(pool: &SqlitePool, table: &'static str, before: i64) -> Result<Option<i64>, Fault> {
    let sql = match table {
        "jobs" => "SELECT seq FROM jobs WHERE seq < ? ORDER BY seq DESC LIMIT 1 OFFSET ?",
        _ => "SELECT seq FROM dead_letters WHERE seq < ? ORDER BY seq DESC LIMIT 1 OFFSET ?",
    };
    Ok(query_scalar(sql).bind(before).bind(SCAN_ROWS_MAX - 1).fetch_optional(pool).await?)
}

pub(super) async fn attempts(pool: &SqlitePool, id: JobId) -> Result<Vec<AttemptRecord>, Fault> {
    let sql = concat!(
        "SELECT ",
        attempt_columns!(),
        " FROM job_attempts WHERE seq = (SELECT seq FROM jobs WHERE id = ?) ORDER BY attempt"
    );
    let rows = query(sql).bind(id.as_bytes().as_slice()).fetch_all(pool).await?;
    rows.iter().map(readers::attempt_record).collect()
}

pub(super) async fn versions(pool: &SqlitePool, ids: &[JobId]) -> Result<Vec<(JobId, State, i64)>, Fault> {
    let mut connection = pool.acquire().await?;
    let rows = VERSIONS.fetch(&mut connection, ids, push_id).await?;
    let version = |row: &SqliteRow| {
        let mut c = Columns::of(row);
        Ok((rows::job_id(c.take()?)?, rows::state(c.take()?)?, c.take()?))
    };
    rows.iter().map(version).collect()
}

pub(super) const LINES: &str = concat!(
    lines_of_jobs!(),
    "SELECT queue, (SELECT min(claimable_at) FROM jobs WHERE claimable_at IS NOT NULL AND jobs.queue = lines.queue) \
     FROM lines WHERE queue IS NOT NULL"
);

/// The queues with accepted jobs, and when the first of each may be claimed.
pub(super) async fn lines(c: impl SqliteExecutor<'_>) -> Result<Vec<queues::Line>, Fault> {
    Ok(query_as(LINES).fetch_all(c).await?)
}

pub(super) async fn next_due(pool: &SqlitePool, pick: &Pick) -> Result<Option<Micros>, Fault> {
    Ok(queues::first_of(lines(pool).await?, pick))
}

pub(super) const WAITING: &str = concat!(
    lines_of_jobs!(),
    "SELECT queue, \
       (SELECT count(*) FROM jobs AS j WHERE j.queue = lines.queue AND j.claimable_at <= ?1), \
       (SELECT count(*) FROM jobs AS j WHERE j.queue = lines.queue AND j.claimable_at > ?1 \
          AND j.claimable_at <= ?2 AND j.claim_owner IS NOT NULL), \
       (SELECT count(*) FROM jobs AS j WHERE j.queue = lines.queue AND j.claimable_at > ?1) \
     FROM lines WHERE queue IS NOT NULL"
);

/// Counts only in the index, except for what is claimed: a million jobs take some 30 ms.
pub(super) async fn waiting(pool: &SqlitePool, now: Micros) -> Result<Waiting, Fault> {
    let until = now.0.saturating_add(CLAIMS_END_WITHIN_US);
    queues::waiting(query_as(WAITING).bind(now.0).bind(until).fetch_all(pool).await?)
}

pub(super) const DEPTHS: &str = concat!(
    lines_of_jobs!(),
    "SELECT mission, queue, count(*), min(since) FROM ( \
       SELECT j.mission, j.queue, max(j.created_at, j.available_at) AS since FROM lines JOIN jobs AS j \
         ON j.queue = lines.queue WHERE j.claimable_at <= ?2 AND j.available_at <= ?1 \
       UNION ALL \
       SELECT mission, queue, max(created_at, available_at) FROM jobs WHERE checked_at IS NOT NULL AND state = 2) \
     GROUP BY mission, queue LIMIT 1000"
);

/// Looks at every job that is due, queued or running: about 1 µs each, on a reading connection.
pub(super) async fn depths(pool: &SqlitePool, now: Micros) -> Result<Vec<Depth>, Fault> {
    let rows: Vec<(String, String, i64, i64)> =
        query_as(DEPTHS).bind(now.0).bind(now.0.saturating_add(CLAIMS_END_WITHIN_US)).fetch_all(pool).await?;
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
pub(super) async fn newest_mark(pool: &SqlitePool) -> Result<Option<u64>, Fault> {
    let sql = "SELECT max(stream_seq) FROM (SELECT stream_seq FROM jobs ORDER BY seq DESC LIMIT ?) AS newest";
    let mark: Option<i64> = query_scalar(sql).bind(SCAN_ROWS_MAX).fetch_one(pool).await?;
    Ok(mark.and_then(|mark| u64::try_from(mark).ok()))
}

pub(super) const EXPIRED: &str =
    "SELECT id FROM jobs WHERE expires_at <= ? AND (state = 1 OR expires_at <= ?) ORDER BY expires_at LIMIT ?";

pub(super) async fn past_deadline(
    pool: &SqlitePool,
    now: Micros,
    read_to: Micros,
    limit: u32,
) -> Result<Vec<JobId>, Fault> {
    let ids: Vec<Vec<u8>> = query_scalar(EXPIRED).bind(now.0).bind(read_to.0).bind(limit).fetch_all(pool).await?;
    ids.iter().map(|id| rows::job_id(id)).collect()
}

pub(super) const STALE: &str =
    "SELECT id, attempt, state, stream_seq, checked_at FROM jobs WHERE checked_at < ? ORDER BY checked_at LIMIT ?";

pub(super) async fn stale(pool: &SqlitePool, before: Micros, limit: u32) -> Result<Vec<StaleJob>, Fault> {
    let rows = query(STALE).bind(before.0).bind(limit).fetch_all(pool).await?;
    rows.iter().map(readers::stale_job).collect()
}

pub(super) async fn dead_letters(pool: &SqlitePool, f: &DeadLetterFilter) -> Result<Page<DeadLetter>, Fault> {
    let sql = concat!(
        "SELECT ",
        letter_columns!(),
        " FROM (SELECT * FROM dead_letters WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2) \
         WHERE (?3 IS NULL OR mission = ?3) AND (?4 IS NULL OR queue = ?4) AND (?5 IS NULL OR reason = ?5) \
           AND (?6 OR redriven_at IS NULL) ORDER BY seq DESC LIMIT ?7"
    );
    let before = f.before.unwrap_or(i64::MAX);
    let rows = query(sql)
        .bind(before)
        .bind(SCAN_ROWS_MAX)
        .bind(f.mission.as_deref())
        .bind(f.queue.as_deref())
        .bind(f.reason.as_deref())
        .bind(f.include_redriven)
        .bind(f.limit)
        .fetch_all(pool)
        .await?;
    let items: Vec<DeadLetter> = rows.iter().map(readers::dead_letter).collect::<Result<_, _>>()?;
    let next = match items.last() {
        Some(last) if items.len() >= f.limit as usize => Some(last.seq),
        _ => end_of_scan(pool, "dead_letters", before).await?,
    };
    Ok(Page { items, next })
}
