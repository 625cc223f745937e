//! The promise of migrations: a binary of the version before runs on this schema, and this version reads what it wrote.

use super::world::*;
use agentforge_message_id::{JobId, ScheduleId};
use agentforge_orchestrator::model::State;
use agentforge_orchestrator::store::DeadLetterFilter;
use agentforge_proto::time::Micros;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _, query};
use std::collections::BTreeMap;
use uuid::Uuid;

const STATEMENTS: &str = include_str!("../fixtures/statements_0_1.sql");
/// How version 0.1 finds what to publish.
const DUE: &str = "SELECT j.seq, p.args FROM jobs AS j JOIN job_payloads AS p ON p.seq = j.seq \
     WHERE j.claimable_at <= 100 ORDER BY j.claimable_at, j.seq LIMIT 10";

/// The statements as one database has them.
fn statements(postgres: bool) -> Vec<String> {
    let text: String = STATEMENTS.lines().filter(|l| !l.starts_with("--")).collect::<Vec<_>>().join("\n");
    let (open, close) = if postgres { ("'\\x", "'::bytea") } else { ("x'", "'") };
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("{blob:") {
        let (digits, after) = after.split_once('}').unwrap();
        out += &format!("{before}{open}{digits}{close}");
        rest = after;
    }
    out += rest;
    let (yes, no, greatest) = if postgres { ("true", "false", "greatest") } else { ("1", "0", "max") };
    let out = out.replace("{true}", yes).replace("{false}", no).replace("{greatest}", greatest);
    out.split(';').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect()
}

pub async fn statements_of_the_version_before_run_on_this_schema(w: &World) {
    let all = statements(w.store.is_shared());
    assert!(all.len() > 30);
    for statement in all {
        // What ran last is in the output of a failure.
        eprintln!("{statement}");
        w.sql(&statement).await;
    }
    let id = |digit: u8| JobId::from_uuid(Uuid::from_bytes([digit * 0x11; 16]));
    let job = w.job(id(1)).await;
    assert_eq!((job.state, job.result.as_deref()), (State::Succeeded, Some(r#"{"n":1}"#)));
    assert_eq!(w.store.attempts(id(1)).await.unwrap().len(), 1);
    assert_eq!(w.claim(200, 10).await, [id(2)], "what it left is published by this version");
    let letters = w.store.dead_letters(&DeadLetterFilter { limit: 9, ..DeadLetterFilter::default() }).await.unwrap();
    assert_eq!(letters.items[0].job, Some(id(2)));
    let schedule = w.store.schedule(ScheduleId::from_uuid(Uuid::from_bytes([0x33; 16]))).await.unwrap().unwrap();
    assert_eq!((schedule.next_run_at, schedule.last_job_id), (Some(Micros(120)), Some(id(2))));
    assert_eq!(w.store.agents(None, None, 9).await.unwrap()[0].version, "0.1.0");
}

/// A row with several messages would be one message to the version before, with a subject that is none: it never sees
/// that row as free.
pub async fn the_version_before_leaves_rows_of_several_messages_alone(w: &World) {
    w.submit_many(10, 3).await;
    w.submit_many(11, 1).await;
    let free = format!("outbox WHERE claim_until <= {}", i64::MAX - 1);
    assert_eq!((w.rows("outbox").await, w.rows(&free).await), (2, 1));
    assert_eq!(w.outbox().await.len(), 4);
    assert_eq!(w.rows(&free).await, 1, "a claim changes nothing of that");
    let seqs: Vec<i64> = w.rows_of_outbox().await.iter().map(|row| row.seq).collect();
    w.store.release_outbox(&w.owner, &seqs).await.unwrap();
    assert_eq!(w.rows(&free).await, 1, "nor does its end");
    assert_eq!(w.store.claim_outbox(&w.owner, Micros(20), Micros(30), 9).await.unwrap().len(), 2);
}

/// Its own index is gone; it takes another one, whose rows are the open jobs only, and sorts them. So it is slower
/// with a large backlog, and does not read finished jobs.
pub async fn the_version_before_finds_due_jobs_without_reading_finished_ones(w: &World) {
    let plan = if w.store.is_shared() {
        let mut c = sqlx::PgConnection::connect(&w.url).await.unwrap();
        // Of an empty table the planner would read all.
        c.execute("SET enable_seqscan = off").await.unwrap();
        let rows = query(AssertSqlSafe(format!("EXPLAIN {DUE}"))).fetch_all(&mut c).await.unwrap();
        rows.iter().map(|r| r.get::<String, _>(0)).collect::<Vec<_>>()
    } else {
        let mut c = w.sqlite_connection().await;
        let rows = query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {DUE}"))).fetch_all(&mut c).await.unwrap();
        rows.iter().map(|r| r.get::<String, _>(3)).collect()
    };
    assert!(plan.iter().any(|line| line.contains("jobs_due")), "{plan:#?}");
}

/// Of each table its columns, with type, whether a value must be given, and the unique keys.
type Schema = BTreeMap<String, String>;

async fn sqlite_schema(c: &mut sqlx::SqliteConnection) -> Schema {
    let columns = query(
        "SELECT t.name || '.' || c.name, c.type || CASE WHEN c.\"notnull\" AND c.dflt_value IS NULL THEN ' given' ELSE '' END \
         FROM sqlite_schema t JOIN pragma_table_info(t.name) c WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite%'",
    );
    let keys = query(
        "SELECT t.name || ': ' || i.name, 'unique' FROM sqlite_schema t JOIN pragma_index_list(t.name) i \
         WHERE t.type = 'table' AND i.\"unique\"",
    );
    let mut rows = columns.fetch_all(&mut *c).await.unwrap();
    rows.extend(keys.fetch_all(&mut *c).await.unwrap());
    rows.iter().map(|r| (r.get(0), r.get(1))).collect()
}

async fn postgres_schema(c: &mut sqlx::PgConnection) -> Schema {
    let columns = query(
        "SELECT table_name || '.' || column_name, data_type || \
           CASE WHEN is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO' THEN ' given' ELSE '' END \
         FROM information_schema.columns WHERE table_schema = 'public'",
    );
    let keys = query(
        "SELECT tablename || ': ' || indexname, 'unique' FROM pg_indexes \
         WHERE schemaname = 'public' AND indexdef LIKE 'CREATE UNIQUE%'",
    );
    let mut rows = columns.fetch_all(&mut *c).await.unwrap();
    rows.extend(keys.fetch_all(&mut *c).await.unwrap());
    rows.iter().map(|r| (r.get(0), r.get(1))).collect()
}

fn only_adds(step: &str, before: &Schema, after: &Schema) {
    for (name, kind) in before {
        assert_eq!(after.get(name), Some(kind), "{step} takes {name} away, or changes it");
    }
    let tables: Vec<_> = before.keys().filter_map(|k| k.split(['.', ':']).next()).collect();
    for (name, kind) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
        let known = tables.contains(&name.split(['.', ':']).next().unwrap());
        assert!(!known || !kind.ends_with("given"), "{step}: a row of the version before has no {name}");
        assert!(!known || kind != "unique", "{step}: rows of the version before may break {name}");
    }
}

fn steps(kind: &str) -> Vec<(String, String)> {
    let folders = ["migrations".to_owned(), format!("{kind}/migrations")];
    let mut steps: Vec<_> = folders
        .iter()
        .flat_map(|f| std::fs::read_dir(format!("{}/src/store/{f}", env!("CARGO_MANIFEST_DIR"))).unwrap())
        .map(|f| f.unwrap().path())
        .map(|f| (f.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&f).unwrap()))
        .collect();
    steps.sort();
    assert!(steps.len() >= 10);
    steps
}

#[tokio::test]
async fn each_migration_only_adds_what_has_a_default() {
    let mut c = sqlx::SqliteConnection::connect("sqlite::memory:").await.unwrap();
    let mut before = Schema::new();
    for (name, sql) in steps("sqlite") {
        c.execute(AssertSqlSafe(sql)).await.unwrap();
        let after = sqlite_schema(&mut c).await;
        only_adds(&name, &before, &after);
        before = after;
    }
    let Some(()) = agentforge_harness::require("postgres") else { return };
    let url = agentforge_harness::Postgres::start().await.database("each_migration").await;
    let mut c = sqlx::PgConnection::connect(&url).await.unwrap();
    let mut before = Schema::new();
    for (name, sql) in steps("postgres") {
        c.execute(AssertSqlSafe(sql)).await.unwrap();
        let after = postgres_schema(&mut c).await;
        only_adds(&name, &before, &after);
        before = after;
    }
}
