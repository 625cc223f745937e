//! The audit log as it is read.

/// The queries, on one driver.
macro_rules! audit {
    ($database:ty) => {
        use agentforge_audit::{Chain, Chained};
        use sqlx::{Executor, query};
        use $crate::store::audit::{AUDIT_SCAN_MAX, AuditFilter, AuditRow, ID_BYTES_MIN};
        use $crate::store::fault::Fault;
        use $crate::store::rows::{self, audit_columns};

        /// The newest first; reads `AUDIT_SCAN_MAX` rows at most.
        pub(in crate::store) async fn page(
            c: impl Executor<'_, Database = $database>,
            f: &AuditFilter,
        ) -> Result<Vec<AuditRow>, Fault> {
            let sql = concat!(
                "SELECT ",
                audit_columns!(),
                " FROM (SELECT * FROM audit WHERE seq < $1 ORDER BY seq DESC LIMIT $2) AS a \
                 WHERE (CAST($3 AS text) IS NULL OR principal = $3) AND (CAST($4 AS text) IS NULL OR operation = $4) \
                   AND (CAST($5 AS text) IS NULL OR object_id = $5 OR (length($5) >= $10 \
                     AND replace(coalesce(object_id, '') || ' ' || coalesce(detail, ''), $5, '') \
                       <> coalesce(object_id, '') || ' ' || coalesce(detail, ''))) \
                   AND (CAST($6 AS text) IS NULL OR outcome = $6) \
                   AND (CAST($7 AS bigint) IS NULL OR at >= $7) AND (CAST($8 AS bigint) IS NULL OR at < $8) \
                 ORDER BY seq DESC LIMIT $9"
            );
            let rows = query(sql)
                .bind(f.before.unwrap_or(i64::MAX))
                .bind(AUDIT_SCAN_MAX)
                .bind(f.principal.as_deref())
                .bind(f.operation.as_deref())
                .bind(f.object.as_deref())
                .bind(f.outcome.as_deref())
                .bind(f.since.map(|m| m.0))
                .bind(f.until.map(|m| m.0))
                .bind(i64::from(f.limit))
                .bind(ID_BYTES_MIN)
                .fetch_all(c)
                .await?;
            rows.iter().map(rows::audit_row).collect()
        }

        /// Where a scan from `before` ends; `None` when it reads to the end.
        pub(in crate::store) async fn end_of_scan(
            c: impl Executor<'_, Database = $database>,
            before: Option<i64>,
        ) -> Result<Option<i64>, Fault> {
            let sql = "SELECT seq FROM audit WHERE seq < $1 ORDER BY seq DESC LIMIT 1 OFFSET $2";
            let end = sqlx::query_scalar(sql).bind(before.unwrap_or(i64::MAX)).bind(AUDIT_SCAN_MAX - 1);
            Ok(end.fetch_optional(c).await?)
        }

        /// A chain's entries in order, after `after`.
        pub(in crate::store) async fn chain(
            c: impl Executor<'_, Database = $database>,
            chain: i64,
            after: i64,
            limit: u32,
        ) -> Result<Vec<Chained>, Fault> {
            let sql = concat!(
                "SELECT ",
                audit_columns!(),
                " FROM audit WHERE chain = $1 AND place > $2 ORDER BY place, seq LIMIT $3"
            );
            let rows = query(sql).bind(chain).bind(after).bind(i64::from(limit)).fetch_all(c).await?;
            rows.iter().map(|row| rows::audit_row(row).map(|found| found.chained)).collect()
        }

        /// All chains.
        pub(in crate::store) async fn chains(
            c: impl Executor<'_, Database = $database>,
        ) -> Result<Vec<Chain>, Fault> {
            let sql = "SELECT chain, place, hash, base_place, base_hash FROM audit_chains ORDER BY chain";
            query(sql).fetch_all(c).await?.iter().map(rows::audit_chain).collect()
        }

        /// The first entries of a chain as place, time and hash.
        pub(in crate::store) async fn first(
            c: impl Executor<'_, Database = $database>,
            chain: i64,
            limit: i64,
        ) -> Result<Vec<(i64, i64, Vec<u8>)>, Fault> {
            let sql = "SELECT place, at, hash FROM audit WHERE chain = $1 ORDER BY place LIMIT $2";
            Ok(sqlx::query_as(sql).bind(chain).bind(limit).fetch_all(c).await?)
        }

        /// Deletes a chain's entries up to `base`, and notes that it begins there.
        pub(in crate::store) async fn cut(
            c: &mut <$database as sqlx::Database>::Connection,
            chain: i64,
            base: agentforge_audit::Base,
        ) -> Result<u64, Fault> {
            let delete = query("DELETE FROM audit WHERE chain = $1 AND place <= $2");
            let gone = delete.bind(chain).bind(base.place).execute(&mut *c).await?.rows_affected();
            query("UPDATE audit_chains SET base_place = $1, base_hash = $2 WHERE chain = $3")
                .bind(base.place)
                .bind(base.hash.0.to_vec())
                .bind(chain)
                .execute(&mut *c)
                .await?;
            Ok(gone)
        }

        /// Whether an entry with this id is stored.
        pub(in crate::store) async fn has(
            c: impl Executor<'_, Database = $database>,
            id: &str,
        ) -> Result<bool, Fault> {
            let sql = "SELECT EXISTS (SELECT 1 FROM audit WHERE id = $1)";
            Ok(sqlx::query_scalar(sql).bind(id).fetch_one(c).await?)
        }
    };
}

pub(in crate::store) use audit;
