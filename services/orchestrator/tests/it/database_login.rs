//! The database's login is changed under load, as docs/howto/postgres.md says: no call is refused.

use agentforge_harness::{Postgres, PostgresOptions, Proc, cargo_bin, eventually, free_port, http_post, require};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(30);

/// Passwords count from here on; the tests' own user needs none.
async fn ask_for_passwords(postgres: &Postgres) {
    let lines = "('local all all trust'), ('host all postgres 127.0.0.1/32 trust'), \
                 ('host all all 127.0.0.1/32 scram-sha-256')";
    let place = postgres.sql("postgres", "SHOW hba_file").await;
    let place = place.lines().map(str::trim).find(|line| line.ends_with(".conf")).expect("a file").to_owned();
    let write =
        format!("COPY (SELECT line FROM (VALUES {lines}) AS lines (line)) TO '{place}'; SELECT pg_reload_conf()");
    postgres.sql("postgres", &write).await;
}

fn url(postgres: &Postgres, user: &str, password: &str) -> String {
    // The tables are the group's, and every member may use them.
    format!("postgres://{user}:{password}@{}/jobs?options=-c%20role%3Dforge", postgres.address())
}

fn write(file: &Path, text: &str) {
    let part = file.with_extension("part");
    std::fs::write(&part, text).unwrap();
    std::fs::set_permissions(&part, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::rename(part, file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_login_of_the_database_is_changed_under_load_without_a_refused_call() {
    let (Some(()), Some(())) = (require("postgres"), require("nats-server")) else { return };
    let nats = agentforge_harness::NatsServer::start(Default::default()).await;
    let postgres = Postgres::own(PostgresOptions::default()).await;
    let make = "CREATE ROLE forge NOLOGIN; CREATE ROLE forge_a LOGIN PASSWORD 'first-of-the-two' IN ROLE forge";
    postgres.sql("postgres", make).await;
    postgres.sql("postgres", "CREATE DATABASE jobs OWNER forge").await;
    ask_for_passwords(&postgres).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    write(&file, &url(&postgres, "forge_a", "first-of-the-two"));
    let mut orchestrator = Proc::builder(cargo_bin("agentforge-orchestrator"))
        .env("ENV", "dev")
        .env("NATS_URL", nats.url())
        .env("DATABASE_URL_FILE", file.display().to_string())
        .env("DATA_DIR", dir.path().display().to_string())
        .env("HTTP_PORT", "0")
        .env("GRPC_PORT", "0")
        .env("METRICS_PORT", free_port().to_string())
        .start();
    let api = orchestrator.ready(WAIT).await["orchestrator"]["http"].as_str().unwrap().to_owned();

    let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (stop, accepted, jobs) = (stop.clone(), accepted.clone(), format!("{api}/v1/jobs"));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let (status, body) = http_post(&jobs, r#"{"tool": "echo"}"#).await.unwrap();
                    assert_eq!(status, 202, "{}", String::from_utf8_lossy(&body));
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let more = |count: u64| {
        let goal = accepted.load(Ordering::Relaxed) + count;
        let accepted = accepted.clone();
        async move {
            eventually(WAIT, "more jobs are accepted", || async {
                let now = accepted.load(Ordering::Relaxed);
                if now >= goal { Ok(()) } else { Err(now) }
            })
            .await;
        }
    };
    more(20).await;

    // 1. A second login of the same group. 2. The file names it. 3. Sessions of the first end by their age: here at once,
    //    one after the other, when they are idle. 4. The first may not log in any more.
    postgres.sql("postgres", "CREATE ROLE forge_b LOGIN PASSWORD 'second-of-the-two' IN ROLE forge").await;
    write(&file, &url(&postgres, "forge_b", "second-of-the-two"));
    eventually(WAIT, "the file was read", || {
        let log = orchestrator.full_log();
        async move { if log.contains("log in as DATABASE_URL_FILE says now") { Ok(()) } else { Err(log) } }
    })
    .await;
    postgres.sql("postgres", "ALTER ROLE forge_a NOLOGIN").await;
    more(20).await;
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    // With no call under way, every session of the first login can end: all that follows logs in as the second.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'forge_a'";
    postgres.sql("postgres", end).await;
    eventually(WAIT, "calls are served with the second login only", || async {
        let (status, body) =
            http_post(&format!("{api}/v1/jobs"), r#"{"tool": "echo"}"#).await.map_err(|e| e.to_string())?;
        let users =
            postgres.sql("postgres", "SELECT DISTINCT usename FROM pg_stat_activity WHERE datname = 'jobs'").await;
        let is_second = users.contains("forge_b") && !users.contains("forge_a");
        if status == 202 && is_second { Ok(()) } else { Err(format!("{status} {body:?} {users}")) }
    })
    .await;

    // Another database is not taken for a login.
    write(&file, &url(&postgres, "forge_b", "second-of-the-two").replace("/jobs?", "/postgres?"));
    eventually(WAIT, "it is reported", || {
        let log = orchestrator.full_log();
        async move { if log.contains("names another database") { Ok(()) } else { Err(log) } }
    })
    .await;
    assert!(!orchestrator.full_log().contains("of-the-two"), "no password is logged");
}
