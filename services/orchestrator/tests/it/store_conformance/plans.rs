//! What a session on Postgres prepares while the tables are empty must serve them when they are full.

use super::world::*;
use agentforge_orchestrator::store::Group;
use sqlx::Connection as _;
use std::time::Duration;

const ROUNDS: i64 = 24;
const JOBS: usize = 200;

/// Rows that were read by walking through a table, in all tables of a job; and the jobs that the server knows of.
async fn walked(url: &str) -> (i64, i64) {
    let mut c = sqlx::PgConnection::connect(url).await.unwrap();
    let sql = "SELECT sum(seq_tup_read)::bigint, sum(n_tup_ins) FILTER (WHERE relname = 'jobs')::bigint \
         FROM pg_stat_user_tables WHERE relname LIKE 'job%' OR relname = 'outbox'";
    sqlx::query_as(sql).fetch_one(&mut c).await.unwrap()
}

/// Waits until the server has counted what was done.
async fn counted(url: &str, jobs: i64) -> i64 {
    agentforge_harness::eventually(Duration::from_secs(30), "the server has counted the jobs", || async {
        let (walked, known) = walked(url).await;
        if known >= jobs { Ok(walked) } else { Err(known) }
    })
    .await
}

#[tokio::test]
async fn commits_from_an_empty_database_on_walk_through_no_table() {
    let Some(()) = agentforge_harness::require("postgres") else { return };
    let w = World::postgres("commits_from_an_empty_database_on_walk_through_no_table").await;
    let mut half = 0;
    for round in 0..ROUNDS {
        let ids = w.submit_many(round, JOBS).await;
        let of = |change: fn(agentforge_message_id::JobId, i64) -> agentforge_orchestrator::transition::Change| Group {
            changes: ids.iter().map(|id| (*id, change(*id, round))).collect(),
            ..Group::default()
        };
        w.commit(round, of(|_, now| queued(1, now))).await;
        w.commit(round, of(|id, _| finished(id, 1, success("1")))).await;
        let sent = w.rows_of_outbox().await.iter().map(|row| row.seq).collect();
        w.commit(round, Group { outbox_sent: sent, ..Group::default() }).await;
        if round + 1 == ROUNDS / 2 {
            half = counted(&w.url, (round + 1) * JOBS as i64).await;
        }
    }
    let whole = counted(&w.url, ROUNDS * JOBS as i64).await;
    // A walk through the jobs of a half, once, would be more.
    assert!(whole - half < JOBS as i64, "{half} rows were walked through in the first half, {whole} in all");
}
