//! What only this store promises: a full disk loses nothing, the log stays short, no statement that
//! runs often walks a whole table.

use super::connection::{Connections, options};
use super::lite::{Known, Lite};
use super::queries::{jobs, listing};
use super::{SqliteStore, claims, statements};
use crate::admission::{JobRequest, SubmitInput, admit, tests::limits};
use crate::store::{CommitContext, EventMask, Group, Owner, Store, Submit};
use crate::transition::{Backoff, Change};
use agentforge_message_id::{AgentId, Attempt, JobId, Mission};
use agentforge_proto::bus::{Finished, Outcome, Success};
use agentforge_proto::time::Micros;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};
use std::path::{Path, PathBuf};

fn submits(n: usize, args_bytes: usize) -> Group {
    let input = || SubmitInput {
        request: JobRequest { tool: "echo".into(), ..JobRequest::default() },
        ..SubmitInput::default()
    };
    let job = || {
        let mut job = admit(input(), &limits(), Micros(1), None).unwrap();
        std::sync::Arc::make_mut(&mut job.spec).args = format!("\"{}\"", "x".repeat(args_bytes));
        job
    };
    Group { submits: (0..n).map(|_| Submit { job: job(), claim: false }).collect(), ..Group::default() }
}

async fn commit(store: &SqliteStore, group: Group) -> Result<(), crate::store::Error> {
    let (backoff, owner, mission) = (Backoff::default(), Owner("us".into()), Mission::new("dev").unwrap());
    let ctx = CommitContext {
        now: Micros(1),
        backoff: &backoff,
        owner: &owner,
        claim_until: Micros(2),
        events: EventMask::ALL,
        mission: &mission,
    };
    store.commit(group, ctx).await.map(drop)
}

async fn opened(dir: &Path) -> (SqliteStore, PathBuf) {
    let file = dir.join("jobs.db");
    let store = SqliteStore::open(&file).unwrap();
    store.prepare().await.unwrap();
    (store, file)
}

#[tokio::test]
async fn a_full_disk_refuses_the_group_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = opened(dir.path()).await;
    commit(&store, submits(3, 10)).await.unwrap();
    {
        // As good as a full disk: SQLite itself says SQLITE_FULL and may roll back on its own.
        let mut w = store.connections.writer().await.unwrap();
        let full = |lite: &Lite, _: &mut Known| {
            lite.batch("PRAGMA max_page_count = 1");
            Ok(())
        };
        w.work(full).await.unwrap();
        w.settle("fill the disk", Ok(())).unwrap();
    }
    let e = commit(&store, submits(50, 20_000)).await.unwrap_err();
    assert!(e.is_retryable(), "{e:?}");
    assert_eq!(store.accepted_count().await.unwrap(), 3);
    // There is room again: the writer was reopened, and the same store continues.
    commit(&store, submits(50, 20_000)).await.unwrap();
    assert_eq!(store.accepted_count().await.unwrap(), 53);
}

fn attempt_of(job: JobId) -> (Change, Change) {
    let (attempt, worker) = (Attempt::new(1).unwrap(), AgentId::new("worker-1").unwrap());
    let queued = Change::Queued { attempt, stream_seq: 7, at: Micros(2) };
    let output = Some(serde_json::value::RawValue::from_string("{}".into()).unwrap());
    let finished = Change::Finished(Box::new(Finished {
        job,
        attempt,
        delivery: 1,
        worker,
        started_at: Micros(3),
        finished_at: Micros(4),
        outcome: Outcome::Succeeded(Success { output, output_ref: None, idempotent_replay: None }),
        traceparent: None,
        request_id: None,
    }));
    (queued, finished)
}

#[tokio::test]
async fn a_job_costs_a_handful_of_statements() {
    const JOBS: usize = 64;
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = opened(dir.path()).await;
    let ran = async || {
        let mut w = store.connections.writer().await.unwrap();
        let ran = w.work(|lite: &Lite, _: &mut Known| Ok(lite.ran.replace(0))).await.unwrap();
        w.settle("count", Ok(ran)).unwrap()
    };
    ran().await;
    let group = submits(JOBS, 10);
    let ids: Vec<JobId> = group.submits.iter().map(|submit| submit.job.id).collect();
    commit(&store, group).await.unwrap();
    // Each: the job, its payload. Together: begin, the outbox, commit.
    let accepted = ran().await;
    assert!(accepted <= 2 * JOBS + 4, "{accepted} statements accept {JOBS} jobs");
    let (queued, finished): (Vec<_>, Vec<_>) = ids.iter().map(|id| attempt_of(*id)).unzip();
    let changes =
        |changes: Vec<Change>| Group { changes: ids.iter().copied().zip(changes).collect(), ..Group::default() };
    commit(&store, changes(queued)).await.unwrap();
    let marked = ran().await;
    assert!(marked <= JOBS + 4, "{marked} statements note that {JOBS} jobs are in their stream");
    commit(&store, changes(finished)).await.unwrap();
    // Each: the job, its attempt, its result. It is remembered, and not read.
    let ended = ran().await;
    assert!(ended <= 3 * JOBS + 4, "{ended} statements end {JOBS} jobs");
}

#[tokio::test]
async fn the_log_starts_anew_while_commits_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, file) = opened(dir.path()).await;
    store.stop.cancel();
    let log = file.with_extension("db-wal");
    let mut longest = 0;
    for _ in 0..6 {
        // Each round writes more than the length from which the log is to restart.
        for _ in 0..3 {
            commit(&store, submits(20, 400_000)).await.unwrap();
        }
        let (copied, committed) = tokio::join!(store.connections.copy_back(), commit(&store, submits(1, 10)));
        copied.unwrap();
        committed.unwrap();
        longest = longest.max(std::fs::metadata(&log).unwrap().len());
    }
    let written = 6 * 3 * 20 * 400_000;
    assert!(longest < written / 2, "{longest} bytes of log for {written} bytes of arguments");
}

#[tokio::test]
async fn statements_that_run_often_use_their_index() {
    let dir = tempfile::tempdir().unwrap();
    let (store, file) = opened(dir.path()).await;
    let mut c = options(&file).connect().await.unwrap();
    let plans = [
        (claims::DUE, "SEARCH j USING INDEX jobs_due (queue=? AND claimable_at<?)"),
        (claims::FINISHED, "SEARCH jobs USING COVERING INDEX jobs_finished (finished_at<?)"),
        (jobs::LINES, "SEARCH jobs USING COVERING INDEX jobs_due (queue>?)"),
        (jobs::LINES, "SEARCH jobs USING COVERING INDEX jobs_due (queue=?"),
        (jobs::WAITING, "SEARCH j USING COVERING INDEX jobs_due (queue=? AND claimable_at<?)"),
        (jobs::WAITING, "SEARCH j USING COVERING INDEX jobs_due (queue=? AND claimable_at>?)"),
        (jobs::EXPIRED, "SEARCH jobs USING INDEX jobs_expiring (expires_at<?)"),
        (jobs::STALE, "SEARCH jobs USING INDEX jobs_checked (checked_at<?)"),
        (jobs::DEPTHS, "SEARCH j USING INDEX jobs_due (queue=? AND claimable_at<?)"),
        (jobs::DEPTHS, "jobs_checked"),
        (listing::WALK, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid<?)"),
        (statements::TAKEN_KEYS, "SEARCH j USING INDEX jobs_by_key (mission=? AND idempotency_key=?)"),
        (statements::CURRENTS, "SEARCH j USING INDEX sqlite_autoindex_jobs_1 (id=?)"),
        (statements::UPDATE_WHOLE, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"),
        (statements::DELETE_OUTBOX, "SEARCH outbox USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (statements::MARK_REDRIVEN, "SEARCH dead_letters USING INDEX dead_letters_by_job (job_id=?)"),
    ];
    for (sql, expected) in plans {
        let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"))).fetch_all(&mut c).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get::<String, _>(3)).collect();
        assert!(plan.iter().any(|step| step.contains(expected)), "{}: {plan:#?}", &sql[..sql.len().min(200)]);
        assert!(!plan.iter().any(|step| step.starts_with("USE TEMP B-TREE FOR ORDER BY")), "it sorts: {plan:#?}");
    }
    store.close().await;
}

#[tokio::test]
async fn listings_use_their_indexes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, file) = opened(dir.path()).await;
    let mut c = options(&file).connect().await.unwrap();
    let plans = [
        (listing::WALKED, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid<?)"),
        (listing::MATCHING, "SEARCH j USING INTEGER PRIMARY KEY (rowid=?)"),
        (listing::WHOLE, "SEARCH j USING INTEGER PRIMARY KEY (rowid=?)"),
        (listing::LABEL, "SEARCH job_labels USING PRIMARY KEY (key=? AND value=? AND seq<?)"),
        (listing::LISTED, "SEARCH jobs USING COVERING INDEX jobs_listed (state=? AND rowid<?)"),
        (listing::KIND, "COVERING INDEX jobs_kinds (mission=? AND queue=? AND tool=? AND submitted_by=? AND rowid<?)"),
        (listing::KIND_OF_NOBODY, "jobs_kinds (mission=? AND queue=? AND tool=? AND submitted_by=? AND rowid<?)"),
        (listing::ACCEPTED, "USING COVERING INDEX jobs_due"),
        (listing::PUBLISHED, "USING COVERING INDEX jobs_checked"),
        (listing::ALL, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid<?)"),
        (listing::CREATED, "COVERING INDEX jobs_created_blocks (<expr>=? AND created_at>? AND created_at<?)"),
        (listing::FINISHED, "COVERING INDEX jobs_finished_blocks (<expr>=? AND finished_at>? AND finished_at<?)"),
        (listing::CREATED_BELOW, "COVERING INDEX jobs_created_blocks (<expr>=? AND created_at>? AND created_at<?)"),
        (listing::CREATED_ABOVE, "COVERING INDEX jobs_created_blocks (<expr>=? AND created_at>? AND created_at<?)"),
        (listing::FINISHED_BELOW, "COVERING INDEX jobs_finished_blocks (<expr>=? AND finished_at>? AND finished_at<?)"),
        (listing::FINISHED_ABOVE, "COVERING INDEX jobs_finished_blocks (<expr>=? AND finished_at>? AND finished_at<?)"),
        (listing::KINDS, "SEARCH n USING COVERING INDEX jobs_kinds (mission=? AND queue=? AND tool>?)"),
        (listing::KINDS, "SEARCH n USING COVERING INDEX jobs_kinds (mission>?)"),
        (listing::COUNTS, "USING COVERING INDEX jobs_finished "),
        (listing::COUNTS, "USING COVERING INDEX jobs_listed"),
    ];
    for (sql, expected) in plans {
        let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"))).fetch_all(&mut c).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get::<String, _>(3)).collect();
        assert!(plan.iter().any(|step| step.contains(expected)), "{sql}: {expected}: {plan:#?}");
        let walks = |step: &&String| step.starts_with("SCAN jobs") && !step.contains("USING COVERING INDEX");
        assert!(!plan.iter().any(|step| walks(&step)), "{sql}: it walks through all jobs: {plan:#?}");
    }
    store.close().await;
}

#[tokio::test]
async fn the_file_is_free_again_after_close() {
    let dir = tempfile::tempdir().unwrap();
    let (store, file) = opened(dir.path()).await;
    commit(&store, submits(3, 10)).await.unwrap();
    store.close().await;
    assert!(!file.with_extension("db-wal").exists(), "the last connection empties the log");
    drop(Connections::open(&file).unwrap());
}
