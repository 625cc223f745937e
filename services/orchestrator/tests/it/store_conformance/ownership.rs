//! Migrations, and who may use a database.

use super::world::*;
use agentforge_message_id::Mission;
use agentforge_orchestrator::model::State;
use agentforge_orchestrator::store::{self, Error, Options};
use std::time::{Duration, Instant};

pub async fn preparing_again_changes_nothing(w: &World) {
    let id = w.job_in(10, State::Queued).await;
    let other = w.other().await;
    let (a, b) = tokio::join!(w.store.prepare(), other.prepare());
    a.unwrap();
    b.unwrap();
    assert_eq!(w.job(id).await.state, State::Queued);
    w.submit_many(20, 2).await;
    w.store.ping().await.unwrap();
}

pub async fn a_database_belongs_to_one_mission(w: &World) {
    let (prod, staging) = (Mission::new("prod").unwrap(), Mission::new("staging").unwrap());
    w.store.claim_mission(&prod).await.unwrap();
    w.store.claim_mission(&prod).await.unwrap();
    let e = w.other().await.claim_mission(&staging).await.unwrap_err();
    let text = e.to_string();
    for part in ["mission prod", "MISSION is staging", "Set MISSION=prod", "DATABASE_URL"] {
        assert!(text.contains(part), "{part} missing in: {text}");
    }
    assert!(!e.is_retryable());
}

pub async fn a_changed_migration_is_refused(w: &World) {
    let checksum = if w.store.is_shared() { "'\\x00'" } else { "x'00'" };
    w.sql(&format!("UPDATE _sqlx_migrations SET checksum = {checksum}")).await;
    let e = w.store.prepare().await.unwrap_err();
    assert!(matches!(e, Error::Migration(_)) && !e.is_retryable(), "{e}");
    // The lock was not left behind.
    assert!(matches!(w.store.prepare().await.unwrap_err(), Error::Migration(_)));
}

pub async fn a_migration_of_a_later_version_is_tolerated(w: &World) {
    let checksum = if w.store.is_shared() { "'\\x00'" } else { "x'00'" };
    w.sql(&format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'of a later version', true, {checksum}, 1); \
         ALTER TABLE jobs ADD COLUMN of_a_later_version INTEGER DEFAULT 7"
    ))
    .await;
    w.store.prepare().await.unwrap();
    let id = w.job_in(10, State::Succeeded).await;
    assert_eq!(w.job(id).await.result.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_second_process_on_one_sqlite_file_is_refused() {
    let w = World::sqlite().await;
    let again = || store::open(&w.url, w.path(), &Options::default()).map(drop);
    let e = again().unwrap_err();
    assert!(
        matches!(&e, Error::InUse(file) if file.ends_with("jobs.db")) && e.to_string().contains("postgres://"),
        "{e}"
    );
    w.store.close().await;
    again().unwrap();
}

#[tokio::test]
async fn opening_never_waits_for_a_server() {
    // A port without a listener, and an address that never answers.
    for address in [format!("127.0.0.1:{}", agentforge_harness::free_port()), "192.0.2.1:5432".into()] {
        let url = format!("postgres://u:secret@{address}/d");
        let dir = tempfile::tempdir().unwrap();
        let begun = Instant::now();
        let store = store::open(&url, dir.path(), &Options::default()).unwrap();
        assert!(begun.elapsed().as_millis() < 500);
        for e in [store.prepare().await.unwrap_err(), store.ping().await.unwrap_err()] {
            assert!(e.is_retryable() && !format!("{e:?}").contains("secret"), "{e:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_comes_back_is_used_again() {
    let Some(()) = agentforge_harness::require("postgres") else { return };
    let mut server = agentforge_harness::Postgres::own(Default::default()).await;
    let url = server.database("crash").await;
    let dir = tempfile::tempdir().unwrap();
    let store = store::open(&url, dir.path(), &Options::default()).unwrap();
    store.prepare().await.unwrap();
    let w = World { store, url, ..World::sqlite().await };
    let id = w.job_in(10, State::Running).await;
    server.kill9();
    assert!(w.store.ping().await.unwrap_err().is_retryable());
    let down = w.store.commit(Default::default(), w.ctx(15)).await.map(drop).unwrap_err();
    assert!(down.is_retryable(), "{down:?}");
    server.restart().await;
    agentforge_harness::eventually(Duration::from_secs(20), "the store finds the server again", || w.store.ping())
        .await;
    assert_eq!(w.job(id).await.state, State::Running);
}
