//! What only this store promises: listings keep to their indexes, on tables that nothing is known of.

use super::PostgresStore;
use super::queries::listing;
use crate::store::Store;
use sqlx::{AssertSqlSafe, Row as _};
use std::num::NonZeroU32;

const FILTER: &str = "NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL";

#[tokio::test]
async fn listings_use_their_indexes_whatever_is_known_of_the_tables() {
    let Some(()) = agentforge_harness::require("postgres") else { return };
    let url = agentforge_harness::Postgres::start().await.database("listings_use_their_indexes").await;
    let store = PostgresStore::open(&url, NonZeroU32::MIN, None).unwrap();
    store.prepare().await.unwrap();
    let (walk, matching) = (format!("{FILTER}, 9000, 9, 9"), format!("{FILTER}, '[1, 2]'"));
    let plans: [(&str, &str, &[&str]); 19] = [
        (listing::WALK, &walk, &["jobs_pkey", "job_payloads_pkey", "job_results_pkey"]),
        (listing::WALKED, "9000, 9", &["jobs_pkey"]),
        (listing::MATCHING, &matching, &["jobs_pkey"]),
        (listing::WHOLE, "'[1, 2]'", &["jobs_pkey", "job_payloads_pkey", "job_results_pkey"]),
        (listing::LABEL, "'team', 'a', 9000, 9", &["job_labels_pkey"]),
        (listing::LISTED, "5::smallint, 9000, 9", &["jobs_listed"]),
        (listing::KIND, "'dev', 'default', 'echo', 'ci', 9000, 9", &["jobs_kinds"]),
        (listing::KIND_OF_NOBODY, "'dev', 'default', 'echo', 9000, 9", &["jobs_kinds"]),
        (listing::ACCEPTED, "9000, 9", &["jobs_due"]),
        (listing::PUBLISHED, "9000, 9", &["jobs_checked"]),
        (listing::ALL, "9000, 9", &["jobs_pkey"]),
        (listing::CREATED, "1, 0, 9, 9000, 9", &["jobs_created_blocks"]),
        (listing::FINISHED, "1, 0, 9, 9000, 9", &["jobs_finished_blocks"]),
        (listing::CREATED_BELOW, "1, 0, 9", &["jobs_created_blocks"]),
        (listing::CREATED_ABOVE, "1, 0, 9", &["jobs_created_blocks"]),
        (listing::FINISHED_BELOW, "1, 0, 9", &["jobs_finished_blocks"]),
        (listing::FINISHED_ABOVE, "1, 0, 9", &["jobs_finished_blocks"]),
        (listing::KINDS, "9", &["jobs_kinds", "jobs_pkey"]),
        (listing::COUNTS, "", &["jobs_due", "jobs_checked", "jobs_finished", "jobs_listed"]),
    ];
    let mut c = store.pool.acquire().await.unwrap();
    for rows in [0, 10_000] {
        if rows > 0 {
            let fill = format!(
                "INSERT INTO jobs (id, state, attempt, attempt_limit, max_attempts, version, republished, created_at, \
                   available_at, finished_at, mission, queue, tool) SELECT decode(md5(n::text), 'hex'), 4, 1, 1, 1, 1, 0, \
                   n, n, n, 'dev', 'default', 'echo' FROM generate_series(1, {rows}) AS n"
            );
            sqlx::raw_sql(AssertSqlSafe(fill)).execute(&mut *c).await.unwrap();
        }
        // A plan that is kept is one for any values.
        for (mode, (sql, values, indexes)) in
            ["custom", "generic"].into_iter().flat_map(|m| plans.iter().map(move |p| (m, p)))
        {
            let call = if values.is_empty() { String::new() } else { format!("({values})") };
            let mode = format!("SET plan_cache_mode = force_{mode}_plan");
            for statement in [mode.clone(), "DEALLOCATE ALL".to_owned(), format!("PREPARE listing AS {sql}")] {
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *c).await.unwrap();
            }
            let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE listing{call}"));
            let plan = sqlx::raw_sql(explain).fetch_all(&mut *c).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
            let named = indexes.iter().all(|index| plan.iter().any(|step| step.contains(index)));
            let walks = plan.iter().any(|step| step.contains("Seq Scan"));
            assert!(named && !walks, "with {rows} rows, {mode}: {sql}: expected {indexes:?}: {plan:#?}");
        }
    }
}
