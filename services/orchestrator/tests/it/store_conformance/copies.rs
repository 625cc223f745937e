//! Backup and restore.

use super::world::*;
use agentforge_orchestrator::model::State;
use agentforge_orchestrator::store::{self, Error, JobFilter, Options};
use std::sync::Arc;

/// Another, empty database of the same kind: its URL and data folder.
async fn elsewhere(w: &World) -> (String, tempfile::TempDir) {
    let url = if w.store.is_shared() {
        agentforge_harness::Postgres::start().await.database("elsewhere").await
    } else {
        "sqlite://sub/restored.db".into()
    };
    (url, tempfile::tempdir().unwrap())
}

pub async fn a_copy_taken_while_writing_is_whole(w: &World) {
    let before = w.job_in(10, State::Succeeded).await;
    let copy = w.path().join("copy.backup");
    let writer = {
        let w = World { store: Arc::clone(&w.store), ..World::sqlite().await };
        tokio::spawn(async move {
            let mut n = 0;
            loop {
                n += w.submit_many(20, 20).await.len();
                if n > 100_000 {
                    return;
                }
            }
        })
    };
    store::backup(&w.url, w.path(), &copy).await.unwrap();
    writer.abort();
    assert!(
        matches!(store::backup(&w.url, w.path(), &copy).await, Err(Error::Copy { .. })),
        "a copy is never overwritten"
    );

    let (url, dir) = elsewhere(w).await;
    store::restore(&url, dir.path(), &copy, false).await.unwrap();
    let restored = store::open(&url, dir.path(), &Options::default()).unwrap();
    restored.prepare().await.unwrap();
    let job = restored.job(before).await.unwrap().unwrap();
    assert_eq!((job.state, job.result.as_deref()), (State::Succeeded, Some("1")));
    // Groups are in it whole or not at all.
    let jobs = restored.jobs(&JobFilter { limit: 10_000, ..JobFilter::default() }).await.unwrap();
    let jobs = jobs.items.len();
    assert_eq!(jobs % 20, 1, "{jobs}");
    let w = World { store: restored, url, dir, ..World::sqlite().await };
    w.submit_many(30, 3).await;
    assert_eq!((w.rows("jobs").await, w.rows("job_payloads").await), (jobs as i64 + 3, jobs as i64 + 3));
}

pub async fn a_restore_replaces_only_when_forced(w: &World) {
    let old = w.job_in(10, State::Queued).await;
    let copy = w.path().join("copy.backup");
    store::backup(&w.url, w.path(), &copy).await.unwrap();
    let new = w.job_in(20, State::Queued).await;

    let running = store::restore(&w.url, w.path(), &copy, true).await.unwrap_err();
    assert!(matches!(running, Error::InUse(_) | Error::Copy { .. }), "an orchestrator runs: {running}");
    w.store.close().await;

    let e = store::restore(&w.url, w.path(), &copy, false).await.unwrap_err();
    assert!(e.to_string().contains("force"), "{e}");
    let broken = w.path().join("broken.backup");
    std::fs::write(&broken, b"not a database").unwrap();
    store::restore(&w.url, w.path(), &broken, true).await.unwrap_err();

    store::restore(&w.url, w.path(), &copy, true).await.unwrap();
    let store = w.reopened().await;
    assert!(store.job(old).await.unwrap().is_some());
    assert!(store.job(new).await.unwrap().is_none());
}
