//! What people ask for: what is open by queue, ids by their beginning, one dead letter.

/// The queries, on one driver.
macro_rules! lookup {
    ($database:ty) => {
        use agentforge_message_id::JobId;
        use agentforge_proto::time::Micros;
        use sqlx::{Executor, query, query_as, query_scalar};
        use $crate::model::DeadLetter;
        use $crate::store::fault::Fault;
        use $crate::store::queues;
        use $crate::store::rows::{self, letter_columns};
        use $crate::store::{QueueCounts, QueueEnded};

        /// Reads all that is open: about 1 µs per job.
        pub(in crate::store) async fn queue_counts(
            c: impl Executor<'_, Database = $database>,
            now: Micros,
        ) -> Result<Vec<QueueCounts>, Fault> {
            let rows: Vec<queues::CountsRow> = query_as(
                "SELECT mission, queue, count(*) FILTER (WHERE state = 1 AND due), \
                   count(*) FILTER (WHERE state = 1 AND NOT due), count(*) FILTER (WHERE state = 2), \
                   count(*) FILTER (WHERE state = 3), \
                   min(CASE WHEN created_at > available_at THEN created_at ELSE available_at END) \
                     FILTER (WHERE state = 2 OR (state = 1 AND due)) \
                 FROM (SELECT mission, queue, 1 AS state, available_at <= $1 AS due, created_at, available_at \
                         FROM jobs WHERE claimable_at IS NOT NULL \
                       UNION ALL \
                       SELECT mission, queue, state, true, created_at, available_at FROM jobs \
                         WHERE checked_at IS NOT NULL) AS waiting \
                 GROUP BY mission, queue ORDER BY mission, queue LIMIT 1000",
            )
            .bind(now.0)
            .fetch_all(c)
            .await?;
            rows.into_iter().map(queues::counts).collect()
        }

        /// Reads at most `limit` jobs, newest first: 10,000 take some 10 ms.
        pub(in crate::store) async fn ended_by_queue(
            c: impl Executor<'_, Database = $database>,
            since: Micros,
            limit: u32,
        ) -> Result<Vec<QueueEnded>, Fault> {
            let rows: Vec<(String, String, i64, i64)> = query_as(
                "WITH ended AS (SELECT mission, queue, state, finished_at FROM jobs WHERE finished_at >= $1 \
                   ORDER BY finished_at DESC LIMIT $2) \
                 SELECT mission, queue, count(*), \
                   (SELECT CASE WHEN count(*) < $2 THEN $1 ELSE min(finished_at) END FROM ended) FROM ended \
                 WHERE state IN (4, 5, 6) GROUP BY mission, queue ORDER BY mission, queue LIMIT 1000",
            )
            .bind(since.0)
            .bind(i64::from(limit))
            .fetch_all(c)
            .await?;
            rows.into_iter().map(queues::ended).collect()
        }

        /// Both included, in their order.
        pub(in crate::store) async fn ids_between(
            c: impl Executor<'_, Database = $database>,
            from: JobId,
            to: JobId,
            limit: u32,
        ) -> Result<Vec<JobId>, Fault> {
            let ids: Vec<Vec<u8>> = query_scalar("SELECT id FROM jobs WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3")
                .bind(from.as_bytes().to_vec())
                .bind(to.as_bytes().to_vec())
                .bind(i64::from(limit))
                .fetch_all(c)
                .await?;
            ids.iter().map(|id| rows::job_id(id)).collect()
        }

        pub(in crate::store) async fn dead_letter(
            c: impl Executor<'_, Database = $database>,
            id: &str,
            job: Option<JobId>,
        ) -> Result<Option<DeadLetter>, Fault> {
            let sql = concat!(
                "SELECT ",
                letter_columns!(),
                " FROM dead_letters WHERE id = $1 OR job_id = $2 ORDER BY seq DESC LIMIT 1"
            );
            let row = query(sql).bind(id).bind(job.map(|job| job.as_bytes().to_vec())).fetch_optional(c).await?;
            row.as_ref().map(rows::dead_letter).transpose()
        }
    };
}

pub(in crate::store) use lookup;
