//! Questions about jobs: they never wait for a commit.

/// The queries, on one driver. `plan_kept` is whether the plan of what looks for work is kept.
macro_rules! jobs {
    ($database:ty, $pool:ty, plan_kept: $plan_kept:expr) => {
        use agentforge_message_id::JobId;
        use agentforge_proto::time::Micros;
        use sqlx::{Executor, query, query_as, query_scalar};
        use $crate::model::{AttemptRecord, DeadLetter, Job};
        use $crate::store::fault::Fault;
        use $crate::store::queues;
        use $crate::store::rows::{self, attempt_columns, letter_columns, outcome_columns, stale_columns};
        use $crate::store::spec::spec_columns;
        use $crate::store::{
            CLAIMS_END_WITHIN_US, DeadLetterFilter, Depth, Page, Pick, SCAN_ROWS_MAX, StaleJob, Waiting, lines_of_jobs,
        };

        pub(in crate::store) async fn job(
            c: impl Executor<'_, Database = $database>,
            id: JobId,
        ) -> Result<Option<Job>, Fault> {
            let sql = concat!(
                "SELECT ",
                outcome_columns!(),
                spec_columns!(),
                " FROM jobs AS j JOIN job_payloads AS p ON p.seq = j.seq LEFT JOIN job_results AS r ON r.seq = j.seq \
                 WHERE j.id = $1"
            );
            query(sql).bind(id.as_bytes().as_slice()).fetch_optional(c).await?.as_ref().map(rows::job).transpose()
        }

        /// The last row that a scan from `before` read; `None` when it saw them all.
        async fn end_of_scan(pool: &$pool, sql: &'static str, before: i64) -> Result<Option<i64>, Fault> {
            Ok(query_scalar(sql).bind(before).bind(SCAN_ROWS_MAX - 1).fetch_optional(pool).await?)
        }

        /// The oldest first.
        pub(in crate::store) async fn attempts(
            c: impl Executor<'_, Database = $database>,
            id: JobId,
        ) -> Result<Vec<AttemptRecord>, Fault> {
            let sql = concat!(
                "SELECT ",
                attempt_columns!(),
                " FROM job_attempts WHERE seq = (SELECT seq FROM jobs WHERE id = $1) ORDER BY attempt"
            );
            let rows = query(sql).bind(id.as_bytes().as_slice()).fetch_all(c).await?;
            rows.iter().map(rows::attempt_record).collect()
        }

        pub(in crate::store) const LINES: &str = concat!(
            lines_of_jobs!(),
            "SELECT queue, \
               (SELECT min(claimable_at) FROM jobs WHERE claimable_at IS NOT NULL AND jobs.queue = lines.queue) \
             FROM lines WHERE queue IS NOT NULL"
        );

        /// The queues with accepted jobs, and when the first of each may be claimed.
        pub(in crate::store) async fn lines(
            c: impl Executor<'_, Database = $database>,
        ) -> Result<Vec<queues::Line>, Fault> {
            Ok(query_as(LINES).persistent($plan_kept).fetch_all(c).await?)
        }

        pub(in crate::store) async fn next_due(
            c: impl Executor<'_, Database = $database>,
            pick: &Pick,
        ) -> Result<Option<Micros>, Fault> {
            Ok(queues::first_of(lines(c).await?, pick))
        }

        pub(in crate::store) const WAITING: &str = concat!(
            lines_of_jobs!(),
            "SELECT queue, \
               (SELECT count(*) FROM jobs AS j WHERE j.queue = lines.queue AND j.claimable_at <= $1), \
               (SELECT count(*) FROM jobs AS j WHERE j.queue = lines.queue AND j.claimable_at > $1 \
                  AND j.claimable_at <= $2 AND j.claim_owner IS NOT NULL), \
               (SELECT count(*) FROM jobs AS j WHERE j.queue = lines.queue AND j.claimable_at > $1) \
             FROM lines WHERE queue IS NOT NULL"
        );

        /// Counts only in the index, except for what is claimed: a million jobs take some 30 ms.
        pub(in crate::store) async fn waiting(
            c: impl Executor<'_, Database = $database>,
            now: Micros,
        ) -> Result<Waiting, Fault> {
            let until = now.0.saturating_add(CLAIMS_END_WITHIN_US);
            queues::waiting(query_as(WAITING).persistent($plan_kept).bind(now.0).bind(until).fetch_all(c).await?)
        }

        pub(in crate::store) const DEPTHS: &str = concat!(
            lines_of_jobs!(),
            "SELECT mission, queue, count(*) AS pending, \
               min(CASE WHEN created_at > available_at THEN created_at ELSE available_at END) AS oldest \
             FROM (SELECT j.mission, j.queue, j.created_at, j.available_at FROM lines JOIN jobs AS j \
                     ON j.queue = lines.queue WHERE j.claimable_at <= $2 AND j.available_at <= $1 \
                   UNION ALL \
                   SELECT mission, queue, created_at, available_at FROM jobs \
                     WHERE checked_at IS NOT NULL AND state = 2) AS waiting \
             GROUP BY mission, queue LIMIT 1000"
        );

        /// Reads every job that is due, queued or running: about 1 µs each.
        pub(in crate::store) async fn depths(
            c: impl Executor<'_, Database = $database>,
            now: Micros,
        ) -> Result<Vec<Depth>, Fault> {
            let until = now.0.saturating_add(CLAIMS_END_WITHIN_US);
            let rows = query(DEPTHS).persistent($plan_kept).bind(now.0).bind(until).fetch_all(c).await?;
            rows.iter().map(rows::depth).collect()
        }

        /// Of the newest jobs: a mark of an old one that was retried late does no harm, the search goes back further
        /// then.
        pub(in crate::store) async fn newest_mark(
            c: impl Executor<'_, Database = $database>,
        ) -> Result<Option<u64>, Fault> {
            let sql = "SELECT max(stream_seq) FROM (SELECT stream_seq FROM jobs ORDER BY seq DESC LIMIT $1) AS newest";
            let mark: Option<i64> =
                query_scalar(sql).persistent($plan_kept).bind(SCAN_ROWS_MAX).fetch_one(c).await?;
            Ok(mark.and_then(|mark| u64::try_from(mark).ok()))
        }

        pub(in crate::store) async fn newest_accepted(
            c: impl Executor<'_, Database = $database>,
        ) -> Result<Option<Micros>, Fault> {
            let sql = "SELECT created_at FROM jobs ORDER BY seq DESC LIMIT 1";
            Ok(query_scalar(sql).fetch_optional(c).await?.map(Micros))
        }

        pub(in crate::store) const EXPIRED: &str = "SELECT id FROM jobs WHERE expires_at <= $1 \
             AND (state = 1 OR expires_at <= $2) ORDER BY expires_at LIMIT $3";

        pub(in crate::store) async fn past_deadline(
            c: impl Executor<'_, Database = $database>,
            now: Micros,
            read_to: Micros,
            limit: u32,
        ) -> Result<Vec<JobId>, Fault> {
            let ids: Vec<Vec<u8>> =
                query_scalar(EXPIRED).bind(now.0).bind(read_to.0).bind(i64::from(limit)).fetch_all(c).await?;
            ids.iter().map(|id| rows::job_id(id)).collect()
        }

        pub(in crate::store) const STALE: &str =
            concat!("SELECT ", stale_columns!(), " FROM jobs WHERE checked_at < $1 ORDER BY checked_at LIMIT $2");

        pub(in crate::store) async fn stale(
            c: impl Executor<'_, Database = $database>,
            before: Micros,
            limit: u32,
        ) -> Result<Vec<StaleJob>, Fault> {
            let rows = query(STALE).bind(before.0).bind(i64::from(limit)).fetch_all(c).await?;
            rows.iter().map(rows::stale_job).collect()
        }

        pub(in crate::store) async fn dead_letters(
            pool: &$pool,
            f: &DeadLetterFilter,
        ) -> Result<Page<DeadLetter>, Fault> {
            let sql = concat!(
                "SELECT ",
                letter_columns!(),
                " FROM (SELECT * FROM dead_letters WHERE seq < $1 ORDER BY seq DESC LIMIT $2) AS letters \
                 WHERE (CAST($3 AS text) IS NULL OR mission = $3) AND (CAST($4 AS text) IS NULL OR queue = $4) \
                   AND (CAST($5 AS text) IS NULL OR reason = $5) \
                   AND (CAST($6 AS boolean) OR redriven_at IS NULL) ORDER BY seq DESC LIMIT $7"
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
            let items: Vec<DeadLetter> = rows.iter().map(rows::dead_letter).collect::<Result<_, _>>()?;
            let next = match items.last() {
                Some(last) if items.len() >= f.limit as usize => Some(last.seq),
                _ => {
                    let sql = "SELECT seq FROM dead_letters WHERE seq < $1 ORDER BY seq DESC LIMIT 1 OFFSET $2";
                    end_of_scan(pool, sql, before).await?
                }
            };
            Ok(Page { items, next })
        }
    };
}

pub(in crate::store) use jobs;
