//! Messages of the outbox that were put aside.

/// The queries, on one driver.
macro_rules! parked {
    ($database:ty) => {
        use sqlx::{Executor, query, query_scalar};
        use $crate::store::Parked;
        use $crate::store::fault::Fault;
        use $crate::store::rows::{self, parked_columns};

        /// The newest first, from before `before`.
        pub(in crate::store) async fn page(
            c: impl Executor<'_, Database = $database>,
            before: Option<i64>,
            limit: u32,
        ) -> Result<Vec<Parked>, Fault> {
            let sql =
                concat!("SELECT ", parked_columns!(), " FROM outbox_parked WHERE seq < $1 ORDER BY seq DESC LIMIT $2");
            let rows = query(sql).bind(before.unwrap_or(i64::MAX)).bind(i64::from(limit)).fetch_all(c).await?;
            rows.iter().map(rows::parked).collect()
        }

        pub(in crate::store) async fn count(c: impl Executor<'_, Database = $database>) -> Result<u64, Fault> {
            let n: i64 = query_scalar("SELECT count(*) FROM outbox_parked").fetch_one(c).await?;
            Ok(n.unsigned_abs())
        }
    };
}

pub(in crate::store) use parked;
