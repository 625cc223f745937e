//! One message that JetStream will never accept: it leaves the queue with its reason, and the rest continue.

use crate::api::Api;
use crate::stack::{Options, Stack};
use agentforge_harness::{NatsOptions, NatsServer, Postgres, eventually, require};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

async fn too_large_for_the_real_server(store: Option<String>, killed: bool) {
    let mut nats = NatsServer::start(NatsOptions::default().extra("max_payload: 256KB")).await;
    nats.kill9();
    let mut options = Options::new().workers(0).orchestrator("JOB_DEADLINE", "off");
    options.store = store;
    let mut stack = Stack::start_on(nats, options).await;
    let api = stack.api();

    // Accepted while the server's limit is unknown.
    let large = api.job("echo", json!({"fill": "x".repeat(600_000)})).await;
    let mut small = vec![];
    for n in 0..10 {
        small.push(api.job("echo", json!({"n": n})).await);
    }
    stack.nats.restart().await;
    if killed {
        stack.kill_orchestrator(0).await;
    }
    let mut worker = stack.spawn_worker();
    worker.ready(SOON).await;
    stack.workers.push(worker);

    let failed = api.finished(&large).await;
    assert_eq!((&failed["state"], &failed["error"]["class"]), (&json!("failed"), &json!("validation")), "{failed}");
    let why = failed["error"]["message"].as_str().unwrap();
    for told in ["262144", "max_payload", "too large"] {
        assert!(why.contains(told), "{told} is not in: {why}");
    }
    for id in &small {
        assert_eq!(api.finished(id).await["state"], "succeeded", "those behind it go on");
    }
    let letters = api.get("/v1/dead-letters").await.unwrap().body;
    let letters = letters["dead_letters"].as_array().unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((&letters[0]["job_id"], &letters[0]["reason"]), (&json!(large), &json!("not_retryable")));
    held_by_nothing(&api).await;
    eventually(SOON, "what is too large is refused at once from now on", || async {
        let body = json!({"tool": "echo", "args": {"fill": "x".repeat(600_000)}});
        let answer = api.post("/v1/jobs", &body).await.unwrap();
        if answer.status.as_u16() == 413 { Ok(()) } else { Err(answer.status) }
    })
    .await;
}

async fn held_by_nothing(api: &Api) {
    eventually(SOON, "the relay is not held", || async {
        let held = api.metric("agentforge_relay_held", &[]).await;
        if held == 0.0 { Ok(()) } else { Err(held) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_too_large_for_the_real_server_fails_alone() {
    let Some(()) = require("nats-server") else { return };
    too_large_for_the_real_server(None, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_too_large_for_the_real_server_fails_alone_on_postgres_after_a_kill() {
    let (Some(()), Some(())) = (require("nats-server"), require("postgres")) else { return };
    let store = Postgres::start().await.database("poison").await;
    too_large_for_the_real_server(Some(store), true).await;
}

/// A client that may publish reports chooses the text in them; text becomes a subject, an id and headers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_in_reports_stops_no_event_and_no_dead_letter() {
    let Some(()) = require("nats-server") else { return };
    let mut stack = Stack::start(Options::new()).await;
    let api = stack.api();
    let js = stack.jetstream().await;
    let rejected = |subject: &str, stream: &str, sequence: u64| {
        json!({"rejected": {
            "worker": "w", "subject": subject, "stream": stream, "sequence": sequence, "stored_at_ns": 1,
            "reason": "r\r\nx", "payload_bytes": 1, "payload_hex": "00", "at": 1,
        }})
    };
    let reports = [
        rejected("swarm.jobs.> *.x", "swarm_jobs", 1),
        rejected("swarm.jobs.*.>", "swarm_jobs", 2),
        rejected(&format!("swarm.jobs.{}.x", "y".repeat(5_000)), "swarm_jobs", 3),
        rejected("swarm.jobs.dev.default", "swarm\r\njobs", 4),
        rejected("", &"s".repeat(5_000), 5),
    ];
    for report in &reports {
        let sent = js.publish("swarm.results.dev.default", report.to_string().into()).await.unwrap();
        sent.await.unwrap();
    }
    let letters = |n: usize| {
        let api = &api;
        async move {
            eventually(SOON, "each is a dead letter", || async {
                let letters = api.get("/v1/dead-letters?limit=100").await.unwrap().body;
                let found = letters["dead_letters"].as_array().map_or(0, Vec::len);
                if found == n { Ok(()) } else { Err(found) }
            })
            .await;
        }
    };
    letters(reports.len()).await;
    // A report of a job whose worker lies about the request that it goes back to.
    let job = api.submit(json!({"tool": "echo", "queue": "by-hand"})).await;
    let finished = json!({"finished": {
        "job": job["id"], "attempt": 1, "delivery": 1, "worker": "w", "started_at": 1, "finished_at": 2,
        "request_id": "a\r\nNats-Rollup: all", "traceparent": "\n", "outcome": {"succeeded": {"output": 1}},
    }});
    // The queue has no worker: its only message has the token.
    let stream = js.get_stream("swarm_jobs").await.unwrap();
    let message = eventually(SOON, "the attempt is published", || async {
        stream.get_last_raw_message_by_subject("swarm.jobs.dev.by-hand").await.map_err(|e| e.to_string())
    })
    .await;
    let attempt: Value = serde_json::from_slice(&message.payload).unwrap();
    let mut token = async_nats::HeaderMap::new();
    token.insert("Agentforge-Task-Token", attempt["token"].as_str().unwrap());
    let sent = js.publish_with_headers("swarm.results.dev.by-hand", token, finished.to_string().into()).await;
    sent.unwrap().await.unwrap();
    assert_eq!(api.finished(job["id"].as_str().unwrap()).await["state"], "succeeded");

    stack.kill_orchestrator(0).await;
    let before = events(&js).await;
    for n in 0..4 {
        let id = api.job("echo", json!({"n": n})).await;
        assert_eq!(api.finished(&id).await["state"], "succeeded");
    }
    eventually(SOON, "events leave", || async {
        let now = events(&js).await;
        if now >= before + 4 { Ok(()) } else { Err(now - before) }
    })
    .await;
    letters(reports.len()).await;
    eventually(SOON, "and so do dead letters", || async {
        let dlq = js.get_stream("swarm_dlq").await.unwrap().cached_info().state.messages;
        let parked = api.get("/v1/outbox/parked").await.unwrap().body["messages"].as_array().unwrap().len() as u64;
        if dlq + parked == reports.len() as u64 { Ok(()) } else { Err((dlq, parked)) }
    })
    .await;
    held_by_nothing(&api).await;
}

async fn events(js: &async_nats::jetstream::Context) -> u64 {
    js.get_stream("events").await.unwrap().cached_info().state.messages
}

/// Rows that an earlier version wrote, and an operator's way with them.
async fn a_row_that_can_never_leave(store: Option<String>) {
    let mut options = Options::new();
    options.store = store;
    let mut stack = Stack::start(options).await;
    let api = stack.api();
    let js = stack.jetstream().await;
    stack.orchestrators[0].kill9();
    let rows: [(&str, &str, usize); 3] =
        [("swarm.dlq.> *.x", "one", 10), ("agentforge.events.job.dev.failed", "two", 2_000_000), ("a..b", "three", 10)];
    for (subject, msg_id, bytes) in rows {
        sql_row(&stack.database_url(), subject, msg_id, bytes).await;
    }
    stack.start_orchestrator(0).await;
    let parked = eventually(SOON, "each is put aside", || async {
        let page = api.get("/v1/outbox/parked").await.unwrap().body;
        if page["messages"].as_array().map_or(0, Vec::len) == rows.len() { Ok(page) } else { Err(page) }
    })
    .await;
    let mut of: Vec<(&str, &str)> = parked["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["msg_id"].as_str().unwrap(), m["code"].as_str().unwrap()))
        .collect();
    of.sort_unstable();
    assert_eq!(of, [("one", "refused"), ("three", "refused"), ("two", "too_large")]);
    assert!(parked["messages"][0]["reason"].as_str().is_some_and(|r| !r.is_empty()), "{parked}");
    let before = events(&js).await;
    let id = api.job("echo", json!({"behind": "them"})).await;
    assert_eq!(api.finished(&id).await["state"], "succeeded");
    eventually(SOON, "events leave", || async { events(&js).await > before }).await;
    eventually(SOON, "the gauge tells", || async {
        api.metric("agentforge_outbox_parked", &[]).await == rows.len() as f64
    })
    .await;

    // Tried once more, they come back; discarded, they are gone.
    let ids: Vec<&Value> = parked["messages"].as_array().unwrap().iter().map(|m| &m["id"]).collect();
    let answer = api.post("/v1/outbox/parked/retry", &json!({"ids": ids})).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body["messages"]), (200, &json!(rows.len())));
    eventually(SOON, "they are put aside again", || async {
        let page = api.get("/v1/outbox/parked").await.unwrap().body;
        if page["messages"].as_array().map_or(0, Vec::len) == rows.len() { Ok(()) } else { Err(page) }
    })
    .await;
    let refused = api.post("/v1/outbox/parked/discard", &json!({})).await.unwrap();
    assert_eq!(
        (refused.status.as_u16(), &refused.body["field"]),
        (400, &json!("ids")),
        "nothing is discarded by accident"
    );
    let answer = api.post("/v1/outbox/parked/discard", &json!({"all": true})).await.unwrap();
    assert_eq!(answer.body["messages"], json!(rows.len()));
    assert_eq!(api.get("/v1/outbox/parked").await.unwrap().body["messages"], json!([]));
}

async fn sql_row(url: &str, subject: &str, msg_id: &str, bytes: usize) {
    use sqlx::Connection;
    let payload = vec![b'x'; bytes];
    if url.starts_with("postgres") {
        let mut c = sqlx::PgConnection::connect(url).await.unwrap();
        let sql = "INSERT INTO outbox (claim_until, created_at, subject, msg_id, payload) VALUES (0, 1, $1, $2, $3)";
        sqlx::query(sql).bind(subject).bind(msg_id).bind(payload).execute(&mut c).await.unwrap();
    } else {
        let mut c = sqlx::SqliteConnection::connect(url).await.unwrap();
        let sql = "INSERT INTO outbox (claim_until, created_at, subject, msg_id, payload) VALUES (0, 1, ?, ?, ?)";
        sqlx::query(sql).bind(subject).bind(msg_id).bind(payload).execute(&mut c).await.unwrap();
        c.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_can_never_leave_is_put_aside() {
    let Some(()) = require("nats-server") else { return };
    a_row_that_can_never_leave(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_can_never_leave_is_put_aside_on_postgres() {
    let (Some(()), Some(())) = (require("nats-server"), require("postgres")) else { return };
    let store = Postgres::start().await.database("parked").await;
    a_row_that_can_never_leave(Some(store)).await;
}
