//! Minutes of the objectives.

/// The queries, on one driver.
macro_rules! slo {
    ($database:ty) => {
        use sqlx::{Executor, query, query_as, query_scalar};
        use $crate::model::State;
        use $crate::slo::{Bucket, CAP_US, FAST_US, Finished};
        use $crate::store::fault::Fault;

        pub(in crate::store) async fn since(
            c: impl Executor<'_, Database = $database>,
            minute: i64,
        ) -> Result<Vec<Bucket>, Fault> {
            let sql = "SELECT slo, minute, seen, good FROM slo_buckets WHERE minute >= $1 ORDER BY minute, slo";
            let rows: Vec<(String, i64, i64, i64)> = query_as(sql).bind(minute).fetch_all(c).await?;
            Ok(rows.into_iter().map(|(slo, minute, seen, good)| Bucket { slo, minute, seen, good }).collect())
        }

        pub(in crate::store) async fn last_minute(
            c: impl Executor<'_, Database = $database>,
            slo: &str,
        ) -> Result<Option<i64>, Fault> {
            let sql = "SELECT minute FROM slo_buckets WHERE slo = $1 ORDER BY minute DESC LIMIT 1";
            Ok(query_scalar(sql).bind(slo).fetch_optional(c).await?)
        }

        /// Reads every job of these minutes: about 1 µs each. A first attempt took from when it might run.
        pub(in crate::store) async fn finished(
            c: impl Executor<'_, Database = $database>,
            from: i64,
            to: i64,
        ) -> Result<Vec<Finished>, Fault> {
            let rows: Vec<(i64, i64, i64, i64)> = query_as(
                "SELECT finished_at / 60000000, count(*), count(*) FILTER (WHERE state = $3 AND took <= $4), \
                   count(*) FILTER (WHERE state = $3 AND took <= $5) \
                 FROM (SELECT state, finished_at, finished_at - CASE WHEN attempt = 1 AND available_at > created_at \
                         THEN available_at ELSE created_at END AS took \
                       FROM jobs WHERE finished_at >= $1 AND finished_at < $2 AND state <> $6) AS ended \
                 GROUP BY 1 ORDER BY 1",
            )
            .bind(from * 60_000_000)
            .bind(to * 60_000_000)
            .bind(State::Succeeded as i16)
            .bind(FAST_US)
            .bind(CAP_US)
            .bind(State::Cancelled as i16)
            .fetch_all(c)
            .await?;
            Ok(rows.into_iter().map(|(minute, total, fast, capped)| Finished { minute, total, fast, capped }).collect())
        }

        pub(in crate::store) async fn forget(
            c: impl Executor<'_, Database = $database>,
            before: i64,
        ) -> Result<u64, Fault> {
            Ok(query("DELETE FROM slo_buckets WHERE minute < $1").bind(before).execute(c).await?.rows_affected())
        }
    };
}

pub(in crate::store) use slo;
