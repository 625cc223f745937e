//! The audit of the API: each operation of the contract that changes something leaves an entry with its caller, its object and
//! its outcome, on both protocols, done or refused. The operations are those of the OpenAPI document and of the proto files.

use super::contract_calls::{Call, grpc_calls, rest_calls};
use super::server::Server;
use agentforge_harness::eventually;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection as _;
use std::collections::HashSet;
use std::time::Duration;

const TOKENS: &str =
    "dash:read:read-0123456789abcdef,ci:submit:submit-0123456789abcdef,ops:admin:admin-0123456789abcdef";
const ADMIN: &str = "Bearer admin-0123456789abcdef";
const SUBMITTER: &str = "Bearer submit-0123456789abcdef";
const READER: &str = "Bearer read-0123456789abcdef";
/// Something that is not there.
const NO_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

async fn entries(server: &Server, query: &str) -> Vec<Value> {
    let headers = [("authorization", ADMIN)];
    let answer = server.send(Method::GET, &format!("/v1/audit?limit=1000&{query}"), &headers, "").await;
    assert_eq!(answer.status(), 200);
    let page: Value = answer.json().await.unwrap();
    page["entries"].as_array().unwrap().clone()
}

async fn send(server: &Server, method: Method, path: &str, token: &str, body: Value) -> Value {
    let headers = [("authorization", token), ("content-type", "application/json")];
    let answer = server.send(method, path, &headers, &body.to_string()).await;
    assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
    answer.json().await.unwrap()
}

async fn id_of(server: &Server, path: &str, body: Value) -> String {
    send(server, Method::POST, path, ADMIN, body).await["id"].as_str().unwrap().to_owned()
}

/// A job that may be put back.
async fn cancelled(server: &Server) -> String {
    let id = id_of(server, "/v1/jobs", json!({"tool": "echo"})).await;
    send(server, Method::POST, &format!("/v1/jobs/{id}/cancel"), ADMIN, json!({})).await;
    id
}

/// The id of something that this operation can be done to; of what is not known here, of nothing.
async fn object_for(server: &Server, operation: &str) -> String {
    match operation {
        "RetryJob" => cancelled(server).await,
        _ if operation.ends_with("Job") => id_of(server, "/v1/jobs", json!({"tool": "echo"})).await,
        _ if operation.ends_with("Schedule") => {
            let name = format!("for {operation} {}", uuid::Uuid::now_v7());
            id_of(server, "/v1/schedules", json!({"name": name, "cron": "0 3 * * *", "job": {"tool": "echo"}})).await
        }
        _ if operation.ends_with("Operation") => {
            id_of(server, "/v1/dead-letters/redrive", json!({"async": true})).await
        }
        _ => NO_ID.to_owned(),
    }
}

/// The entries of one request.
async fn entries_of(server: &Server, call: &Call, request: &str) -> Vec<Value> {
    let mut found = entries(server, &format!("operation={}", call.operation)).await;
    found.retain(|e| e["request_id"] == request);
    found
}

/// Makes each call done, refused for what it is about, and refused for who asks; each has its entry.
async fn each_leaves_its_entry(server: &Server, surface: &str, calls: Vec<Call>) {
    // So that there is something to put back.
    cancelled(server).await;
    let mut requests = 0;
    let mut made = async |call: &Call, token: &str, object: Option<&str>| {
        requests += 1;
        let request = format!("{surface}-{requests}");
        let answer = call.make(server, token, &request, object).await;
        let found = entries_of(server, call, &request).await;
        assert!(!found.is_empty(), "{call:?} left no entry; the answer is {answer}");
        for entry in &found {
            assert_eq!((&entry["surface"], &entry["address"]), (&json!(surface), &json!("127.0.0.1")), "{entry}");
        }
        (answer, found)
    };
    for call in &calls {
        let object = if call.has_id { Some(object_for(server, &call.operation).await) } else { None };
        let (answer, found) = made(call, ADMIN, object.as_deref()).await;
        for entry in &found {
            let who = (&entry["principal"], &entry["role"], &entry["outcome"]);
            assert_eq!(who, (&json!("ops"), &json!("admin"), &json!("ok")), "{call:?} {answer}: {entry}");
            assert_ne!(entry["object_kind"], "", "{entry}");
        }
        // What was named, or made, is the object.
        if let Some(id) = object.as_deref().or(answer["id"].as_str()) {
            assert!(found.iter().any(|e| e["object_id"] == id), "{call:?}: {found:?}");
        }
        if call.operation.starts_with("Create") || call.operation == "SubmitJob" {
            assert!(found[0]["object_id"].is_string(), "{call:?}: {found:?}");
        }
        if call.has_id {
            let (answer, found) = made(call, ADMIN, Some(NO_ID)).await;
            let entry = &found[0];
            assert_eq!((&entry["outcome"], &entry["object_id"]), (&json!("not_found"), &json!(NO_ID)), "{answer}");
        }
        let (_, found) = made(call, READER, object.as_deref()).await;
        let entry = &found[0];
        assert_eq!((&entry["principal"], &entry["outcome"]), (&json!("dash"), &json!("permission_denied")), "{entry}");
    }
    let all = entries(server, "").await;
    assert!(!Value::Array(all).to_string().contains("hunter2"), "args are in no entry");
}

#[tokio::test]
async fn each_change_by_rest_leaves_an_entry_with_its_caller() {
    let server = Server::start(&[("API_TOKENS", TOKENS)]).await;
    let calls = rest_calls();
    assert!(calls.len() >= 16, "{calls:?}");
    each_leaves_its_entry(&server, "rest", calls).await;
    // A call without a token is not of anyone.
    let before = entries(&server, "").await.len();
    assert_eq!(server.post("/v1/jobs", r#"{"tool":"echo"}"#).await.status(), 401);
    assert_eq!(entries(&server, "").await.len(), before);
}

#[tokio::test]
async fn each_change_by_grpc_leaves_an_entry_with_its_caller() {
    let server = Server::start(&[("API_TOKENS", TOKENS)]).await;
    let calls = grpc_calls();
    assert!(calls.len() >= 14, "{calls:?}");
    each_leaves_its_entry(&server, "grpc", calls).await;
}

/// Reading a dead letter is recorded, found or not.
#[tokio::test]
async fn a_read_of_a_dead_letter_leaves_an_entry() {
    let server = Server::start(&[("API_TOKENS", TOKENS)]).await;
    let path = format!("/v1/dead-letters/{NO_ID}");
    assert_eq!(server.send(Method::GET, &path, &[("authorization", READER)], "").await.status(), 404);
    let entry = &entries(&server, "operation=GetDeadLetter").await[0];
    assert_eq!((&entry["principal"], &entry["outcome"]), (&json!("dash"), &json!("not_found")));
}

/// Who put a job back is found by its id, also where it was one of many.
#[tokio::test]
async fn each_job_of_a_walk_is_named() {
    let server = Server::start(&[("API_TOKENS", TOKENS)]).await;
    let mut ids = Vec::new();
    for _ in 0..230 {
        ids.push(cancelled(&server).await);
    }
    let named = async |operation: &str, id: &str| {
        let found = entries(&server, &format!("operation={operation}&object={id}")).await;
        assert_eq!(found.len(), 1, "{operation} of {id}: {found:?}");
        found.into_iter().next().unwrap()
    };
    // With one call that waits.
    let body = json!({"states": ["cancelled"], "rate": 1000});
    let done = send(&server, Method::POST, "/v1/jobs:retry", ADMIN, body).await;
    assert_eq!(done["retried"], 230, "{done}");
    let mut shares = HashSet::new();
    for id in &ids {
        let entry = named("RetryJobs", id).await;
        assert_eq!(
            (&entry["principal"], &entry["role"], &entry["surface"]),
            (&json!("ops"), &json!("admin"), &json!("rest"))
        );
        shares.insert(entry["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(shares.len(), 3, "a hundred in each");
    // One by one, by somebody else.
    for id in &ids {
        send(&server, Method::POST, &format!("/v1/jobs/{id}/cancel"), SUBMITTER, json!({})).await;
    }
    let mut who: Vec<Value> = entries(&server, &format!("operation=CancelJob&object={}", ids[7])).await;
    assert_eq!(who.drain(..).map(|e| e["principal"].clone()).collect::<Vec<_>>(), ["ci", "ops"]);
    // As an operation, which has no call any more.
    let body = json!({"states": ["cancelled"], "rate": 1000, "async": true});
    let operation = id_of(&server, "/v1/jobs:retry", body).await;
    eventually(Duration::from_secs(60), "the operation is done", async || {
        let path = format!("/v1/operations/{operation}");
        let shown: Value = server.send(Method::GET, &path, &[("authorization", ADMIN)], "").await.json().await.unwrap();
        if shown["state"] == "succeeded" { Ok(()) } else { Err(shown) }
    })
    .await;
    for id in &ids {
        let found = entries(&server, &format!("operation=RetryJobs&object={id}")).await;
        assert_eq!(found.len(), 2, "{found:?}");
        let entry = &found[0];
        assert_eq!((&entry["principal"], &entry["surface"]), (&json!("ops"), &json!("operation")), "{entry}");
        assert_eq!(entry["detail"]["operation"], json!(operation), "which says who asked, from where");
    }
    let start = &entries(&server, &format!("object={operation}")).await;
    assert!(start.iter().any(|e| e["object_id"] == json!(operation) && e["role"] == "admin"), "{start:?}");
}

#[tokio::test]
async fn jobs_and_schedules_keep_who_made_them() {
    let server = Server::start(&[("API_TOKENS", TOKENS)]).await;
    let send =
        async |method: Method, path: &str, token: &str, body: Value| send(&server, method, path, token, body).await;
    let job = send(Method::POST, "/v1/jobs", SUBMITTER, json!({"tool": "echo"})).await;
    assert_eq!((&job["submitted_by"], &job["cancelled_by"]), (&json!("ci"), &Value::Null));
    send(Method::POST, "/v1/jobs", ADMIN, json!({"tool": "echo"})).await;
    let path = format!("/v1/jobs/{}/cancel", job["id"].as_str().unwrap());
    let cancelled = send(Method::POST, &path, ADMIN, json!({})).await;
    assert_eq!((&cancelled["submitted_by"], &cancelled["cancelled_by"]), (&json!("ci"), &json!("ops")));
    let list = send(Method::GET, "/v1/jobs?submitted_by=ci", ADMIN, json!({})).await;
    assert_eq!(list["jobs"].as_array().unwrap().len(), 1, "{list}");

    let schedule = send(
        Method::POST,
        "/v1/schedules",
        ADMIN,
        json!({"name": "nightly", "cron": "0 3 * * *", "job": {"tool": "echo"}}),
    )
    .await;
    assert_eq!((&schedule["created_by"], &schedule["updated_by"]), (&json!("ops"), &Value::Null));
    let path = format!("/v1/schedules/{}", schedule["id"].as_str().unwrap());
    let changed = send(Method::PATCH, &path, ADMIN, json!({"cron": "0 4 * * *"})).await;
    assert_eq!(changed["updated_by"], "ops");
    let entry = &entries(&server, "operation=UpdateSchedule").await[0];
    let detail = &entry["detail"];
    assert_eq!((&detail["before"]["cron"], &detail["after"]["cron"]), (&json!("0 3 * * *"), &json!("0 4 * * *")));
}

/// Rows of the tables that calls change, as they are.
async fn rows(db: &mut sqlx::SqliteConnection) -> Vec<(String, i64)> {
    let mut rows = Vec::new();
    for table in ["jobs", "job_payloads", "schedules", "operations", "dead_letters", "outbox_parked", "audit"] {
        let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        rows.push((table.to_owned(), sqlx::query_scalar(sql).fetch_one(&mut *db).await.unwrap()));
    }
    let of_states = "SELECT state || ' ' || coalesce(cancelled_by, ''), count(*) FROM jobs GROUP BY 1 ORDER BY 1";
    rows.extend(sqlx::query_as::<_, (String, i64)>(of_states).fetch_all(&mut *db).await.unwrap());
    let of_schedules = "SELECT name || paused || coalesce(updated_by, ''), 1 FROM schedules ORDER BY 1";
    rows.extend(sqlx::query_as::<_, (String, i64)>(of_schedules).fetch_all(db).await.unwrap());
    rows
}

/// The table takes no entry: no call of the contract is carried out, and none that reads what is sensitive is answered.
#[tokio::test]
async fn a_call_that_cannot_be_recorded_is_refused_and_nothing_is_done() {
    let server = Server::start(&[("API_TOKENS", TOKENS), ("AUDIT_SENSITIVE_TOOLS", "payroll")]).await;
    cancelled(&server).await;
    let secret = id_of(&server, "/v1/jobs", json!({"tool": "payroll", "args": {"password": "hunter2-hunter2"}})).await;
    let mut calls = Vec::new();
    for call in rest_calls().into_iter().chain(grpc_calls()) {
        let object = if call.has_id { Some(object_for(&server, &call.operation).await) } else { None };
        calls.push((call, object));
    }
    let waiting = async || {
        let shown: Value =
            server.send(Method::GET, "/v1/operations", &[("authorization", ADMIN)], "").await.json().await.unwrap();
        shown["operations"].as_array().unwrap().iter().filter(|o| o["ended_at"].is_null()).count()
    };
    eventually(Duration::from_secs(60), "no operation is open", async || waiting().await == 0).await;
    let file = server.data.path().join("agentforge.db");
    let mut db = sqlx::SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let lock = "CREATE TRIGGER no_audit BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END";
    sqlx::query(lock).execute(&mut db).await.unwrap();
    let before = rows(&mut db).await;
    for (call, object) in &calls {
        let text = call.text(&server, ADMIN, "locked", object.as_deref()).await;
        let is_refused = ["unavailable", "internal", "grpc-status: 14", "grpc-status: 13"];
        assert!(is_refused.iter().any(|word| text.contains(word)), "{call:?}: {text}");
        assert_eq!(rows(&mut db).await, before, "{call:?} changed something: {text}");
    }
    for path in ["", "/output", "/watch"] {
        let answer =
            server.send(Method::GET, &format!("/v1/jobs/{secret}{path}"), &[("authorization", ADMIN)], "").await;
        let status = answer.status();
        assert!(!answer.text().await.unwrap().contains("hunter2"), "{path}");
        assert!(status.is_server_error() || path == "/output", "{path}: {status}");
    }
    let list = server.send(Method::GET, "/v1/jobs", &[("authorization", ADMIN)], "").await;
    assert!(list.status().is_server_error());
    let plain = server.send(Method::GET, "/v1/jobs?tool=echo", &[("authorization", ADMIN)], "").await;
    assert_eq!(plain.status(), 200, "what is not sensitive is read");
    sqlx::query("DROP TRIGGER no_audit").execute(&mut db).await.unwrap();
    eventually(Duration::from_secs(60), "calls are carried out again", async || {
        let headers = [("authorization", ADMIN), ("content-type", "application/json")];
        server.send(Method::POST, "/v1/jobs", &headers, r#"{"tool":"echo"}"#).await.status() == 202
    })
    .await;
}
