//! The reads that a page of jobs is made of: each along one index.

/// What a job must be to be listed; parameters 1 to 11. `labelled` is the condition that it has all labels of `$5`, an
/// array of pairs as JSON, `told` that its error has the text `$11`, in small letters.
macro_rules! conditions {
    ($labelled:literal, $told:literal) => {
        concat!(
            "(CAST($1 AS text) IS NULL OR j.mission = $1) AND (CAST($2 AS text) IS NULL OR j.queue = $2) \
               AND (CAST($3 AS text) IS NULL OR j.tool = $3) \
               AND (CAST($4 AS bigint) = 0 OR ($4 >> CAST(j.state AS integer)) & 1 = 1) \
               AND (CAST($5 AS text) IS NULL OR ",
            $labelled,
            ") AND (CAST($6 AS bigint) IS NULL OR j.created_at >= $6) \
               AND (CAST($7 AS bigint) IS NULL OR j.created_at < $7) \
               AND (CAST($8 AS bigint) IS NULL OR j.finished_at >= $8) \
               AND (CAST($9 AS bigint) IS NULL OR j.finished_at < $9) \
               AND (CAST($10 AS text) IS NULL OR j.submitted_by = $10) \
               AND (CAST($11 AS text) IS NULL OR ",
            $told,
            ")"
        )
    };
}
pub(in crate::store) use conditions;

/// The first block from `$1` on, in the direction of `$step`, that has a time from `$2` to before `$3`. A block without one
/// is passed over in one step down the index.
macro_rules! block_with {
    ($column:literal, $last:literal, $step:literal, $more:literal) => {
        concat!(
            "WITH RECURSIVE blocks (n, hit) AS ( \
               SELECT CAST($1 AS bigint), EXISTS (SELECT 1 FROM jobs WHERE (seq >> 12) = $1 AND ",
            $column,
            " >= $2 AND ",
            $column,
            " < $3) UNION ALL \
               SELECT n ",
            $step,
            ", EXISTS (SELECT 1 FROM jobs WHERE (seq >> 12) = n ",
            $step,
            " AND ",
            $column,
            " >= $2 AND ",
            $column,
            " < $3) FROM blocks WHERE NOT hit AND n ",
            $more,
            " (SELECT ",
            $last,
            "(seq) >> 12 FROM jobs)) SELECT n FROM blocks WHERE hit"
        )
    };
}
pub(in crate::store) use block_with;

/// The rows of a block with such a time.
macro_rules! rows_of_block {
    ($column:literal) => {
        concat!(
            "SELECT seq FROM jobs WHERE (seq >> 12) = $1 AND ",
            $column,
            " >= $2 AND ",
            $column,
            " < $3 AND seq < $4 ORDER BY seq DESC LIMIT $5"
        )
    };
}
pub(in crate::store) use rows_of_block;

/// The queries, on one driver. Plans are kept, because each statement has one index that serves it; `plan_kept` is whether
/// those of what counts, sorts, or reads all kinds are, too. `among` is the condition that `j.seq` is in `$12`, a JSON
/// array; `of_list` the same with `$1`. `listed` is the condition that a job is in the state `$1` and listed by it;
/// `all_listed` counts such jobs by state.
macro_rules! listing {
    (
        $database:ty, $pool:ty, plan_kept: $plan_kept:expr, labelled: $labelled:literal, told: $told:literal,
        among: $among:literal, of_list: $of_list:literal, listed: $listed:literal, all_listed: $all_listed:literal
    ) => {
        use agentforge_message_id::{Mission, Queue, ToolName};
        use futures_util::TryStreamExt as _;
        use sqlx::{AssertSqlSafe, Database, query, query_as, query_scalar};
        use $crate::model::{Job, State};
        use $crate::store::fault::Fault;
        use $crate::store::listing::{BLOCK_BITS, Column, KINDS_MAX, Kind, Reads, Span, Walked, Way, by_state, size};
        use $crate::store::queries::{block_with, conditions, rows_of_block};
        use $crate::store::rows::{self, outcome_columns};
        use $crate::store::spec::spec_columns;
        use $crate::store::{JobFilter, PAGE_BYTES_MAX};

        type Numbers<'q> = sqlx::query::QueryScalar<'q, $database, i64, <$database as Database>::Arguments>;
        type Query<'q> = sqlx::query::Query<'q, $database, <$database as Database>::Arguments>;

        pub(in crate::store) const WALK: &str = concat!(
            "SELECT ",
            outcome_columns!(),
            spec_columns!(),
            " FROM (SELECT * FROM jobs WHERE seq < $12 ORDER BY seq DESC LIMIT $13) AS j \
             JOIN job_payloads AS p ON p.seq = j.seq LEFT JOIN job_results AS r ON r.seq = j.seq WHERE ",
            conditions!($labelled, $told),
            " ORDER BY j.seq DESC LIMIT $14"
        );
        pub(in crate::store) const WALKED: &str = "SELECT seq FROM jobs WHERE seq < $1 ORDER BY seq DESC LIMIT 1 OFFSET $2";
        pub(in crate::store) const MATCHING: &str =
            concat!("SELECT j.seq FROM jobs AS j WHERE ", $among, " AND ", conditions!($labelled, $told));
        pub(in crate::store) const WHOLE: &str = concat!(
            "SELECT ",
            outcome_columns!(),
            spec_columns!(),
            " FROM jobs AS j JOIN job_payloads AS p ON p.seq = j.seq LEFT JOIN job_results AS r ON r.seq = j.seq WHERE ",
            $of_list
        );

        pub(in crate::store) const LABEL: &str =
            "SELECT seq FROM job_labels WHERE key = $1 AND value = $2 AND seq < $3 ORDER BY seq DESC LIMIT $4";
        pub(in crate::store) const LISTED: &str =
            concat!("SELECT seq FROM jobs WHERE ", $listed, " AND seq < $2 ORDER BY seq DESC LIMIT $3");
        pub(in crate::store) const KIND: &str = "SELECT seq FROM jobs WHERE mission = $1 AND queue = $2 AND tool = $3 \
             AND submitted_by = $4 AND seq < $5 ORDER BY seq DESC LIMIT $6";
        pub(in crate::store) const KIND_OF_NOBODY: &str = "SELECT seq FROM jobs WHERE mission = $1 AND queue = $2 \
             AND tool = $3 AND submitted_by IS NULL AND seq < $4 ORDER BY seq DESC LIMIT $5";
        /// From the end of the index: what is sorted is nearly in order then.
        pub(in crate::store) const ACCEPTED: &str = "SELECT seq FROM (SELECT seq FROM jobs \
             WHERE claimable_at IS NOT NULL AND seq + 0 < $1 ORDER BY queue DESC, claimable_at DESC, seq DESC \
             LIMIT 1000000000) AS accepted ORDER BY seq DESC LIMIT $2";
        pub(in crate::store) const PUBLISHED: &str = "SELECT seq FROM (SELECT seq FROM jobs \
             WHERE checked_at IS NOT NULL AND seq + 0 < $1 ORDER BY checked_at DESC LIMIT 1000000000) AS published \
             ORDER BY seq DESC LIMIT $2";
        pub(in crate::store) const ALL: &str = "SELECT seq FROM jobs WHERE seq < $1 ORDER BY seq DESC LIMIT $2";
        pub(in crate::store) const FIRST_BLOCK: &str = "SELECT min(seq) >> 12 FROM jobs";
        pub(in crate::store) const CREATED: &str = rows_of_block!("created_at");
        pub(in crate::store) const FINISHED: &str = rows_of_block!("finished_at");
        pub(in crate::store) const CREATED_BELOW: &str = block_with!("created_at", "min", "- 1", ">");
        pub(in crate::store) const CREATED_ABOVE: &str = block_with!("created_at", "max", "+ 1", "<");
        pub(in crate::store) const FINISHED_BELOW: &str = block_with!("finished_at", "min", "- 1", ">");
        pub(in crate::store) const FINISHED_ABOVE: &str = block_with!("finished_at", "max", "+ 1", "<");

        /// One step down the index for each kind, however many jobs there are of it.
        pub(in crate::store) const KINDS: &str = "WITH RECURSIVE kinds (seq) AS ( \
               SELECT (SELECT seq FROM jobs ORDER BY mission, queue, tool, submitted_by NULLS FIRST LIMIT 1) \
               UNION ALL \
               SELECT coalesce( \
                 (SELECT n.seq FROM jobs AS n WHERE n.mission = j.mission AND n.queue = j.queue AND n.tool = j.tool \
                    AND n.submitted_by > coalesce(j.submitted_by, '') ORDER BY n.submitted_by NULLS FIRST LIMIT 1), \
                 (SELECT n.seq FROM jobs AS n WHERE n.mission = j.mission AND n.queue = j.queue AND n.tool > j.tool \
                    ORDER BY n.tool, n.submitted_by NULLS FIRST LIMIT 1), \
                 (SELECT n.seq FROM jobs AS n WHERE n.mission = j.mission AND n.queue > j.queue \
                    ORDER BY n.queue, n.tool, n.submitted_by NULLS FIRST LIMIT 1), \
                 (SELECT n.seq FROM jobs AS n WHERE n.mission > j.mission \
                    ORDER BY n.mission, n.queue, n.tool, n.submitted_by NULLS FIRST LIMIT 1)) \
               FROM kinds JOIN jobs AS j ON j.seq = kinds.seq) \
             SELECT j.mission, j.queue, j.tool, j.submitted_by FROM kinds JOIN jobs AS j ON j.seq = kinds.seq LIMIT $1";

        /// Reads only indexes. All that is published, and all that ended, each less what is listed.
        pub(in crate::store) const COUNTS: &str = concat!(
            "SELECT CAST(1 AS bigint) AS state, count(*) AS n FROM jobs WHERE claimable_at IS NOT NULL UNION ALL \
             SELECT CAST(2 AS bigint), count(*) FROM jobs WHERE checked_at IS NOT NULL UNION ALL \
             SELECT CAST(4 AS bigint), count(*) FROM jobs WHERE finished_at IS NOT NULL UNION ALL ",
            $all_listed
        );

        pub(in crate::store) async fn counts(
            c: impl sqlx::Executor<'_, Database = $database>,
        ) -> Result<[(State, u64); State::ALL.len()], Fault> {
            let rows: Vec<(i64, i64)> = query_as(COUNTS).persistent($plan_kept).fetch_all(c).await?;
            Ok(by_state(&rows))
        }

        /// A statement with the values of [`conditions`].
        fn filtered<'q>(sql: &'static str, f: &'q JobFilter) -> Query<'q> {
            let states = f.states.iter().fold(0_i64, |bits, s| bits | 1 << (*s as i16));
            let labels =
                (!f.labels.is_empty()).then(|| serde_json::to_string(&f.labels).expect("strings are always JSON"));
            query(sql)
                .bind(f.mission.as_ref().map(Mission::as_str))
                .bind(f.queue.as_ref().map(Queue::as_str))
                .bind(f.tool.as_ref().map(ToolName::as_str))
                .bind(states)
                .bind(labels)
                .bind(f.times.created_after.map(|m| m.0))
                .bind(f.times.created_before.map(|m| m.0))
                .bind(f.times.finished_after.map(|m| m.0))
                .bind(f.times.finished_before.map(|m| m.0))
                .bind(f.submitted_by.as_deref())
                .bind(f.error.as_deref().map(str::to_ascii_lowercase))
        }

        fn list(seqs: &[i64]) -> String {
            serde_json::to_string(seqs).expect("numbers are always JSON")
        }

        /// Along an index; of times there is one for each block.
        const fn statement(way: &Way) -> &'static str {
            match way {
                Way::Label(..) => LABEL,
                Way::Listed(_) => LISTED,
                Way::Kind(Kind { submitted_by: Some(_), .. }) => KIND,
                Way::Kind(_) => KIND_OF_NOBODY,
                Way::Accepted => ACCEPTED,
                Way::Published => PUBLISHED,
                Way::All | Way::Times(..) => ALL,
            }
        }

        /// A statement with the values of its way.
        fn along<'q>(read: Numbers<'q>, way: &'q Way) -> Numbers<'q> {
            match way {
                Way::Label(key, value) => read.bind(key).bind(value),
                Way::Listed(state) => read.bind(*state as i16),
                Way::Kind(Kind { mission, queue, tool, submitted_by }) => {
                    let read = read.bind(mission).bind(queue).bind(tool);
                    if let Some(by) = submitted_by { read.bind(by) } else { read }
                }
                Way::Accepted | Way::Published | Way::Times(..) | Way::All => read,
            }
        }

        impl Reads for $pool {
            async fn walk(&self, f: &JobFilter, before: i64, count: i64) -> Result<Walked, Fault> {
                let mut rows = filtered(WALK, f).bind(before).bind(count).bind(i64::from(f.limit)).fetch(self);
                let (mut items, mut bytes) = (Vec::new(), 0);
                while let Some(row) = rows.try_next().await? {
                    let job = rows::job(&row)?;
                    bytes += size(&job);
                    items.push(job);
                    if bytes > PAGE_BYTES_MAX {
                        break;
                    }
                }
                drop(rows);
                let end = query_scalar(WALKED).bind(before).bind(count - 1);
                Ok(Walked { items, bytes, end: end.fetch_optional(self).await? })
            }

            async fn seqs(&self, way: &Way, before: i64, limit: i64) -> Result<Vec<i64>, Fault> {
                if let Way::Times(column, span) = way {
                    return by_blocks(self, *column, *span, before, limit).await;
                }
                let read = along(query_scalar(statement(way)), way).persistent(!way.is_sorted() || $plan_kept);
                Ok(read.bind(before).bind(limit).fetch_all(self).await?)
            }

            async fn count(&self, way: &Way, before: i64, limit: i64) -> Result<i64, Fault> {
                let sql = AssertSqlSafe(format!("SELECT count(*) FROM ({}) AS found", statement(way)));
                let read = along(query_scalar(sql), way);
                Ok(read.bind(before).bind(limit).fetch_one(self).await?)
            }

            async fn kinds(&self) -> Result<Vec<Kind>, Fault> {
                let rows: Vec<(String, String, String, Option<String>)> =
                    query_as(KINDS).persistent($plan_kept).bind(KINDS_MAX + 1).fetch_all(self).await?;
                let kind = |(mission, queue, tool, submitted_by)| Kind { mission, queue, tool, submitted_by };
                Ok(rows.into_iter().map(kind).collect())
            }

            async fn highest(&self, column: Column, span: Span, from: i64) -> Result<Option<i64>, Fault> {
                let sql = if column == Column::Created { CREATED_BELOW } else { FINISHED_BELOW };
                block_from(self, sql, span, from).await
            }

            async fn lowest(&self, column: Column, span: Span) -> Result<Option<i64>, Fault> {
                let first: Option<i64> = query_scalar(FIRST_BLOCK).fetch_one(self).await?;
                let Some(first) = first else { return Ok(None) };
                let sql = if column == Column::Created { CREATED_ABOVE } else { FINISHED_ABOVE };
                block_from(self, sql, span, first).await
            }

            async fn matching(&self, f: &JobFilter, seqs: &[i64]) -> Result<Vec<i64>, Fault> {
                let rows = filtered(MATCHING, f).bind(list(seqs)).fetch_all(self).await?;
                Ok(rows.iter().map(|row| sqlx::Row::try_get(row, 0)).collect::<Result<_, _>>()?)
            }

            async fn whole(&self, seqs: &[i64]) -> Result<Vec<Job>, Fault> {
                let rows = query(WHOLE).bind(list(seqs)).fetch_all(self).await?;
                rows.iter().map(rows::job).collect()
            }
        }

        async fn block_from(pool: &$pool, sql: &'static str, span: Span, from: i64) -> Result<Option<i64>, Fault> {
            let block = query_scalar(sql).bind(from).bind(span.0).bind(span.1);
            Ok(block.fetch_optional(pool).await?)
        }

        /// Block by block: in each of them rows are sorted, and there are no more than 4,096.
        async fn by_blocks(
            pool: &$pool,
            column: Column,
            span: Span,
            mut before: i64,
            limit: i64,
        ) -> Result<Vec<i64>, Fault> {
            let (below, of_block) = match column {
                Column::Created => (CREATED_BELOW, CREATED),
                Column::Finished => (FINISHED_BELOW, FINISHED),
            };
            let mut found: Vec<i64> = Vec::new();
            while (found.len() as i64) < limit {
                let Some(block) = block_from(pool, below, span, (before - 1) >> BLOCK_BITS).await? else { break };
                let rows = query_scalar(of_block).bind(block).bind(span.0).bind(span.1);
                let rows: Vec<i64> = rows.bind(before).bind(limit - found.len() as i64).fetch_all(pool).await?;
                found.extend(rows);
                before = block << BLOCK_BITS;
            }
            Ok(found)
        }
    };
}

pub(in crate::store) use listing;
