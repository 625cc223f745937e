//! Payloads that are marked sensitive: no read of the contract shows one to a viewer, and none shows one without an entry.

use super::contract_calls::{Call, grpc_reads, rest_reads};
use super::server::Server;
use agentforge_access::{Role, Scopes, TokenFile, digest};
use agentforge_harness::{NatsOptions, NatsServer, eventually, require};
use async_nats::jetstream;
use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);
/// Is in args, results, errors and log tails of what is sensitive, and nowhere else.
const SECRET: &str = "hunter2";
/// Is in those of what is not.
const PLAIN: &str = "weather";
const MARKED: (&str, &str) = ("AUDIT_SENSITIVE_TOOLS", "payroll,kyc-*");

fn bearer(name: &str) -> String {
    format!("Bearer {name}-0123456789abcdef")
}

fn tokens(dir: &TempDir) -> String {
    let lines = [
        ("ops", Role::Admin, &[][..]),
        ("ci", Role::Submit, &[]),
        ("dash", Role::Read, &[]),
        ("default", Role::Read, &["queue:default"]),
        ("payer", Role::Read, &["tool:payroll"]),
    ];
    let line = |(name, role, scopes): (&str, Role, &[&str])| {
        let scopes = Scopes::parse(scopes.iter().copied()).unwrap();
        TokenFile::line(name, role, &digest(format!("{name}-0123456789abcdef")), None, &scopes)
    };
    let path = dir.path().join("tokens");
    std::fs::write(&path, lines.map(line).join("\n")).unwrap();
    path.display().to_string()
}

/// An orchestrator with a payroll job that succeeded and one that is dead, the same of echo, and a schedule of each.
struct World {
    server: Server,
    done: String,
    dead: String,
    schedule: String,
    _nats: NatsServer,
    _dir: TempDir,
}

impl World {
    async fn start() -> Self {
        let nats = NatsServer::start(NatsOptions::default()).await;
        let dir = TempDir::new().unwrap();
        let (file, url) = (tokens(&dir), nats.url());
        let server = Server::start(&[("ACCESS_TOKENS_FILE", &file), ("NATS_URL", &url), MARKED]).await;
        let js = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
        let (mut ids, mut schedule) = (vec![], String::new());
        for (tool, text) in [("payroll", SECRET), ("echo", PLAIN)] {
            for outcome in [
                json!({"succeeded": {"output": {"paid": text}}}),
                json!({"failed": {"class": "validation", "message": text, "log_tail": text}}),
            ] {
                let key = format!("{tool} {}", outcome.get("failed").is_some());
                let body = json!({"tool": tool, "args": {"to": text}, "idempotency_key": key});
                let id = send(&server, Method::POST, "/v1/jobs", "ci", body).await["id"].as_str().unwrap().to_owned();
                end(&js, &id, &outcome).await;
                eventually(SOON, "the job is final", async || {
                    let job = send(&server, Method::GET, &format!("/v1/jobs/{id}"), "ops", Value::Null).await;
                    if job["finished_at"].is_string() { Ok(()) } else { Err(job) }
                })
                .await;
                ids.push(id);
            }
            let body = json!({"name": tool, "cron": "0 3 * * *", "job": {"tool": tool, "args": {"to": text}}});
            let made = send(&server, Method::POST, "/v1/schedules", "ops", body).await;
            if tool == "payroll" {
                made["id"].as_str().unwrap().clone_into(&mut schedule);
            }
        }
        let (done, dead) = (ids[0].clone(), ids[1].clone());
        Self { server, done, dead, schedule, _nats: nats, _dir: dir }
    }

    /// The ids that a read of the contract can be about.
    fn objects(&self, call: &Call) -> Vec<Option<&str>> {
        match &*call.operation {
            _ if !call.has_id => vec![None],
            "GetDeadLetter" => vec![Some(&self.dead)],
            name if name.contains("Schedule") || name.contains("NextRuns") => vec![Some(&self.schedule)],
            _ => vec![Some(&self.done), Some(&self.dead)],
        }
    }

    async fn entries(&self, query: &str) -> Vec<Value> {
        let path = format!("/v1/audit?limit=1000&{query}");
        let page = send(&self.server, Method::GET, &path, "ops", Value::Null).await;
        page["entries"].as_array().unwrap().clone()
    }
}

async fn send(server: &Server, method: Method, path: &str, who: &str, body: Value) -> Value {
    let token = bearer(who);
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let answer = server.send(method, path, &headers, &text).await;
    assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
    answer.json().await.unwrap()
}

/// Does what a worker does with a job.
async fn end(js: &jetstream::Context, id: &str, outcome: &Value) {
    let consumer: jetstream::consumer::PullConsumer = eventually(SOON, "the queue has its consumer", async || {
        js.get_consumer_from_stream("worker-dev", "swarm_jobs").await.map_err(|e| e.to_string())
    })
    .await;
    loop {
        let mut messages = consumer.fetch().max_messages(1).expires(Duration::from_secs(5)).messages().await.unwrap();
        let Some(message) = messages.next().await else { continue };
        let message = message.unwrap();
        let attempt: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(attempt["job"], id);
        let report = json!({"finished": {
            "job": id, "attempt": attempt["attempt"], "delivery": 1, "worker": "w-1", "started_at": 1, "finished_at": 2,
            "outcome": outcome,
        }});
        let mut token = async_nats::HeaderMap::new();
        token.insert("Agentforge-Task-Token", attempt["token"].as_str().unwrap());
        let sent = js.publish_with_headers("swarm.results.dev.default", token, report.to_string().into()).await;
        sent.unwrap().await.unwrap();
        message.ack().await.unwrap();
        return;
    }
}

/// Every read that the contract has is made, with all that it can be about; which of them show the secret.
async fn reads(world: &World, who: &str) -> Vec<String> {
    let (mut showed, mut plain) = (Vec::new(), 0);
    for call in rest_reads().into_iter().chain(grpc_reads()) {
        for object in world.objects(&call) {
            let request = format!("{who}-{}", uuid::Uuid::now_v7());
            let text = call.text(&world.server, &bearer(who), &request, object).await;
            plain += usize::from(text.contains(PLAIN));
            let is_shown = text.contains(SECRET);
            let mut found = world.entries(&format!("operation={}&principal={who}", call.operation)).await;
            found.retain(|e| e["request_id"] == *request);
            if is_shown {
                let named = serde_json::to_string(&found).unwrap();
                let about = object.map_or(vec![], |id| vec![id]);
                assert!(!found.is_empty() && about.iter().all(|id| named.contains(id)), "{call:?} {object:?}: {named}");
                showed.push(call.operation.clone());
            } else if call.operation != "GetDeadLetter" {
                let refused = found.iter().all(|e| e["outcome"] != "ok");
                assert!(refused, "{call:?} shows nothing sensitive and has {found:?}");
            }
            assert!(!found.iter().any(|e| e.to_string().contains(SECRET)), "{found:?}");
        }
    }
    assert!(plain >= 6, "what is not marked is shown: {plain}");
    showed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_of_the_contract_shows_a_viewer_what_is_sensitive_and_none_goes_unrecorded() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start().await;
    let nothing: [String; 0] = [];
    assert_eq!(reads(&world, "dash").await, nothing);
    assert_eq!(reads(&world, "default").await, nothing);
    let all = reads(&world, "ops").await;
    for operation in [
        "GetJob",
        "ListJobs",
        "WatchJob",
        "GetJobOutput",
        "ListAttempts",
        "GetDeadLetter",
        "ListDeadLetters",
        "GetSchedule",
        "ListSchedules",
    ] {
        assert!(all.iter().filter(|shown| *shown == operation).count() >= 2, "{operation} by both protocols: {all:?}");
    }
    // What is hidden says so.
    let path = format!("/v1/jobs/{}", world.done);
    let job = send(&world.server, Method::GET, &path, "dash", Value::Null).await;
    let word = json!({"redacted": "this payload is marked sensitive"});
    assert_eq!((&job["args"], &job["result"], &job["state"]), (&word, &word, &json!("succeeded")), "{job}");
    let token = bearer("dash");
    let answer = world.server.send(Method::GET, &format!("{path}/output"), &[("authorization", &token)], "").await;
    assert_eq!(answer.status(), 403);
    assert!(answer.text().await.unwrap().contains("marked sensitive"));
    let refused = &world.entries("operation=GetJobOutput&principal=dash").await[0];
    assert_eq!((&refused["outcome"], &refused["object_id"]), (&json!("permission_denied"), &json!(world.done)));
    // An error is found by its words by those who may read it, and by no one else.
    for (who, text, found) in
        [("dash", SECRET, 0), ("dash", "Validation: WEA", 1), ("ops", SECRET, 1), ("payer", SECRET, 1)]
    {
        let list = send(&world.server, Method::GET, &format!("/v1/jobs?error={text}"), who, Value::Null).await;
        assert_eq!(list["jobs"].as_array().unwrap().len(), found, "{who} {text}: {list}");
    }
    let body = json!({"states": ["failed", "dead"], "error": PLAIN, "dry_run": true});
    let counted = send(&world.server, Method::POST, "/v1/jobs:retry", "ops", body).await;
    assert_eq!(counted["matched"], 1, "{counted}");
    let too_long = format!("/v1/jobs?error={}", "x".repeat(257));
    let token = bearer("ops");
    let answer = world.server.send(Method::GET, &too_long, &[("authorization", &token)], "").await;
    assert_eq!(answer.status(), 400);
    // A scope that names the tool is a right to see it, which is recorded too.
    let job = send(&world.server, Method::GET, &path, "payer", Value::Null).await;
    assert_eq!(job["result"]["paid"], SECRET, "{job}");
    assert_eq!(world.entries("operation=GetJob&principal=payer").await.len(), 1);
    // So is who waits, and who submits again and gets what is there.
    send(&world.server, Method::GET, &format!("{path}?wait=1s"), "ci", Value::Null).await;
    assert_eq!(world.entries(&format!("operation=GetJob&principal=ci&object={}", world.done)).await.len(), 1);
    let before = world.entries("operation=SubmitJob&principal=ci").await.len();
    let again = json!({"tool": "payroll", "args": {"to": SECRET}, "idempotency_key": "payroll false"});
    let job = send(&world.server, Method::POST, "/v1/jobs", "ci", again).await;
    assert_eq!(job["result"]["paid"], SECRET, "{job}");
    let after = world.entries("operation=SubmitJob&principal=ci").await;
    assert_eq!(after.len(), before + 2, "the submission, and the read: {after:?}");
    assert_eq!(after[0]["detail"]["sensitive"], true, "{after:?}");
}

/// A page is a bounded number of entries, which name all that was shown.
#[tokio::test]
async fn a_list_of_sensitive_jobs_names_each_of_them() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(&[("ACCESS_TOKENS_FILE", &tokens(&dir)), MARKED]).await;
    let batch: Vec<Value> = (0..250).map(|n| json!({"tool": "kyc-eu", "args": {"n": n}})).collect();
    send(&server, Method::POST, "/v1/jobs:batch", "ci", json!(batch)).await;
    let page = send(&server, Method::GET, "/v1/jobs?limit=1000", "ops", Value::Null).await;
    let path = "/v1/audit?operation=ListJobs&limit=1000";
    let found = send(&server, Method::GET, path, "ops", Value::Null).await;
    let found = found["entries"].as_array().unwrap();
    assert_eq!(found.len(), 3, "{found:?}");
    let named = serde_json::to_string(found).unwrap();
    let jobs = page["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 250);
    assert!(jobs.iter().all(|job| named.contains(job["id"].as_str().unwrap())));
    // Who is shown nothing has read nothing.
    send(&server, Method::GET, "/v1/jobs?limit=1000", "dash", Value::Null).await;
    let found = send(&server, Method::GET, path, "ops", Value::Null).await;
    assert_eq!(found["entries"].as_array().unwrap().len(), 3);
}
