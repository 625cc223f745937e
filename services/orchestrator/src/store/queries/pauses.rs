//! Queues that are paused.

/// The queries, on one driver.
macro_rules! pauses {
    ($database:ty) => {
        use agentforge_message_id::{Mission, Queue};
        use agentforge_proto::time::Micros;
        use sqlx::{Executor, query, query_as};
        use $crate::store::fault::Fault;
        use $crate::store::{PAUSES_MAX, QueuePause, rows};

        /// 0 when it is paused already: then it stays as it was.
        pub(in crate::store) async fn pause(
            c: impl Executor<'_, Database = $database>,
            pause: &QueuePause,
        ) -> Result<u64, Fault> {
            let sql = "INSERT INTO queue_pauses (mission, queue, paused_at, paused_by) VALUES ($1, $2, $3, $4) \
                       ON CONFLICT (mission, queue) DO NOTHING";
            let done = query(sql)
                .bind(pause.mission.as_str())
                .bind(pause.queue.as_str())
                .bind(pause.since.0)
                .bind(&pause.by)
                .execute(c)
                .await?;
            Ok(done.rows_affected())
        }

        /// 0 when it was not paused.
        pub(in crate::store) async fn resume(
            c: impl Executor<'_, Database = $database>,
            mission: &Mission,
            queue: &Queue,
        ) -> Result<u64, Fault> {
            let sql = "DELETE FROM queue_pauses WHERE mission = $1 AND queue = $2";
            Ok(query(sql).bind(mission.as_str()).bind(queue.as_str()).execute(c).await?.rows_affected())
        }

        pub(in crate::store) async fn all(
            c: impl Executor<'_, Database = $database>,
        ) -> Result<Vec<QueuePause>, Fault> {
            let sql = "SELECT mission, queue, paused_at, paused_by FROM queue_pauses ORDER BY mission, queue LIMIT $1";
            let found: Vec<(String, String, i64, String)> =
                query_as(sql).bind(i64::from(PAUSES_MAX)).fetch_all(c).await?;
            let pause = |(mission, queue, since, by)| {
                Ok(QueuePause {
                    mission: rows::name("pause", Mission::new(mission))?,
                    queue: rows::name("pause", Queue::new(queue))?,
                    since: Micros(since),
                    by,
                })
            };
            found.into_iter().map(pause).collect()
        }
    };
}

pub(in crate::store) use pauses;
