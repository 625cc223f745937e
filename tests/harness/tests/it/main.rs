//! The harness against real servers: restarts keep ports and data, and faults are what they say.
#![allow(clippy::unwrap_used)]

use agentforge_harness::{NatsOptions, NatsServer, Postgres, PostgresOptions, Proc, eventually, require};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_nats_server_keeps_ports_and_streams_over_kill_and_restart() {
    let Some(()) = require("nats-server") else { return };
    let mut server = NatsServer::start(NatsOptions::default().extra("max_payload: 65536")).await;
    let url = server.url();
    let client = async_nats::connect(&url).await.unwrap();
    assert_eq!(client.server_info().max_payload, 65536);
    let js = async_nats::jetstream::new(client.clone());
    js.create_stream("kept").await.unwrap();
    js.publish("kept", "x".into()).await.unwrap().await.unwrap();

    server.kill9();
    assert!(server.pid().is_none());
    server.restart().await;
    assert_eq!(server.url(), url);
    eventually(SOON, "the stream is back on the same port", || async {
        let mut stream = js.get_stream("kept").await.map_err(|e| e.to_string())?;
        let messages = stream.info().await.map_err(|e| e.to_string())?.state.messages;
        if messages == 1 { Ok(()) } else { Err(format!("{messages} messages")) }
    })
    .await;

    server.pause();
    let silent = tokio::time::timeout(Duration::from_millis(300), js.query_account()).await;
    assert!(!matches!(silent, Ok(Ok(_))), "a paused server answered");
    server.resume();
    eventually(SOON, "a resumed server answers", || js.query_account()).await;
    server.stop_gracefully().await;
}

#[tokio::test]
async fn databases_are_fresh_and_survive_a_crash_of_the_server() {
    let Some(()) = require("postgres") else { return };
    let mut server = Postgres::own(PostgresOptions::default()).await;
    let (a, b) = (server.database("same").await, server.database("same").await);
    assert_ne!(a, b);
    let name = a.rsplit('/').next().unwrap();
    server.sql(name, "CREATE TABLE t (n int); INSERT INTO t VALUES (42)").await;
    server.kill9();
    server.restart().await;
    assert_eq!(server.sql(name, "SELECT n FROM t").await, "42");
}

/// A child of a killed test process must not live on. A second copy of this very test program plays
/// the process that dies.
#[tokio::test]
async fn children_die_with_the_process_that_started_them() {
    let (Some(()), Some(())) = (require("nats-server"), require("setpriv")) else { return };
    let own = std::env::current_exe().unwrap();
    let mut parent = Proc::builder(own).args(["--exact", "plays_the_process_that_dies", "--nocapture"]).start();
    let told = parent.ready(Duration::from_secs(60)).await;
    let pids: Vec<u64> = ["nats", "postgres"].iter().filter_map(|k| told[*k].as_u64()).collect();
    let alive = |pid: &u64| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "));
    assert!(!pids.is_empty() && pids.iter().all(alive), "{told}");
    parent.kill9();
    eventually(SOON, "the children are gone", || async { !pids.iter().any(alive) }).await;
}

/// Only a copy started by the test above has a READY_FILE; everywhere else there is nothing to play.
#[tokio::test]
async fn plays_the_process_that_dies() {
    let Ok(file) = std::env::var("READY_FILE") else { return };
    let server = NatsServer::start(NatsOptions::default()).await;
    let mut told = serde_json::json!({"nats": server.pid()});
    if require("postgres").is_some() {
        let pid = Postgres::start().await.sql("postgres", "SELECT pg_backend_pid()").await;
        assert!(pid.parse::<u32>().is_ok());
        told["postgres"] = Postgres::start().await.pid().into();
    }
    std::fs::write(format!("{file}.tmp"), told.to_string()).unwrap();
    std::fs::rename(format!("{file}.tmp"), file).unwrap();
    std::future::pending::<()>().await;
}
