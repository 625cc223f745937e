//! The audit of the API: each operation of the table that changes something leaves an entry with its caller, on both
//! protocols, done or refused.

use super::server::Server;
use agentforge_orchestrator::api::Role;
use agentforge_orchestrator::api::operations::OPERATIONS;
use reqwest::Method;
use serde_json::{Value, json};

const TOKENS: &str =
    "dash:read:read-0123456789abcdef,ci:submit:submit-0123456789abcdef,ops:admin:admin-0123456789abcdef";
const ADMIN: &str = "Bearer admin-0123456789abcdef";
const READER: &str = "Bearer read-0123456789abcdef";
/// Something that is not there.
const NO_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// Reads of what is sensitive.
const SENSITIVE: [&str; 1] = ["GetDeadLetter"];

async fn entries(server: &Server, query: &str) -> Vec<Value> {
    let headers = [("authorization", ADMIN)];
    let answer = server.send(Method::GET, &format!("/v1/audit?limit=1000&{query}"), &headers, "").await;
    assert_eq!(answer.status(), 200);
    let page: Value = answer.json().await.unwrap();
    page["entries"].as_array().unwrap().clone()
}

/// A body with which the operation gets as far as the application.
fn body(operation: &str) -> Value {
    match operation {
        "SubmitJob" => json!({"tool": "echo", "args": {"password": "hunter2-hunter2"}}),
        "SubmitJobs" => json!([{"tool": "echo"}, {"tool": "echo"}]),
        "RetryJobs" => json!({"states": ["failed"]}),
        "RetryParkedMessages" | "DiscardParkedMessages" => json!({"all": true}),
        "CreateSchedule" => {
            json!({"name": "nightly", "cron": "0 3 * * *", "job": {"tool": "echo", "args": {"password": "hunter2-hunter2"}}})
        }
        _ => json!({}),
    }
}

fn audited() -> impl Iterator<Item = &'static agentforge_orchestrator::api::operations::Operation> {
    OPERATIONS.iter().filter(|o| o.method != "GET" || SENSITIVE.contains(&o.name))
}

#[tokio::test]
async fn each_change_by_rest_leaves_an_entry_with_its_caller() {
    let server = Server::start(&[("API_TOKENS", TOKENS)]).await;
    for operation in audited() {
        let path = operation.route.replace("{id}", NO_ID);
        let method = Method::from_bytes(operation.method.as_bytes()).unwrap();
        let headers =
            [("authorization", ADMIN), ("content-type", "application/json"), ("x-request-id", operation.name)];
        let text = if operation.method == "GET" { String::new() } else { body(operation.name).to_string() };
        let status = server.send(method.clone(), &path, &headers, &text).await.status().as_u16();
        let found = entries(&server, &format!("operation={}&principal=ops", operation.name)).await;
        assert!(!found.is_empty(), "{} answered {status} and left no entry", operation.name);
        let entry = &found[0];
        assert_eq!((&entry["role"], &entry["surface"]), (&json!("admin"), &json!("rest")), "{entry}");
        assert_eq!(entry["request_id"], operation.name, "{entry}");
        assert_eq!(entry["address"], "127.0.0.1", "{entry}");
        assert_eq!(entry["outcome"] == "ok", (200..300).contains(&status), "{status}: {entry}");
        if operation.role != Role::Read {
            let denied = [("authorization", READER), ("content-type", "application/json")];
            let answer = server.send(method, &path, &denied, &text).await;
            assert_eq!(answer.status(), 403);
            let found = entries(&server, &format!("operation={}&principal=dash", operation.name)).await;
            assert_eq!(found[0]["outcome"], "permission_denied", "{}", operation.name);
        }
    }
    let all = entries(&server, "").await;
    assert!(!Value::Array(all).to_string().contains("hunter2"), "args are in no entry");
    // A call without a token is not of anyone.
    let before = entries(&server, "").await.len();
    assert_eq!(server.post("/v1/jobs", r#"{"tool":"echo"}"#).await.status(), 401);
    assert_eq!(entries(&server, "").await.len(), before);
}

#[tokio::test]
async fn each_change_by_grpc_leaves_an_entry_with_its_caller() {
    let server = Server::start(&[("API_TOKENS", TOKENS)]).await;
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    // An empty message, so that each RPC of the table can be called: most are refused, by the application.
    let call = async |rpc: &str, auth: &str| {
        let request = client.post(format!("{}{rpc}", server.grpc));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        request.header("authorization", auth).body(vec![0u8; 5]).send().await.unwrap().bytes().await.unwrap();
    };
    for operation in audited() {
        let Some(rpc) = operation.rpc else { continue };
        call(rpc, ADMIN).await;
        let found = entries(&server, &format!("operation={}&principal=ops", operation.name)).await;
        assert!(!found.is_empty(), "{rpc} left no entry");
        assert_eq!((&found[0]["surface"], &found[0]["address"]), (&json!("grpc"), &json!("127.0.0.1")), "{}", found[0]);
        if operation.role != Role::Read {
            call(rpc, READER).await;
            let found = entries(&server, &format!("operation={}&principal=dash", operation.name)).await;
            assert_eq!(found[0]["outcome"], "permission_denied", "{rpc}");
        }
    }
}

#[tokio::test]
async fn jobs_and_schedules_keep_who_made_them() {
    let server = Server::start(&[("API_TOKENS", TOKENS)]).await;
    let send = async |method: Method, path: &str, token: &str, body: Value| -> Value {
        let headers = [("authorization", token), ("content-type", "application/json")];
        server.send(method, path, &headers, &body.to_string()).await.json().await.unwrap()
    };
    let submitter = "Bearer submit-0123456789abcdef";
    let job = send(Method::POST, "/v1/jobs", submitter, json!({"tool": "echo"})).await;
    assert_eq!((&job["submitted_by"], &job["cancelled_by"]), (&json!("ci"), &Value::Null));
    send(Method::POST, "/v1/jobs", ADMIN, json!({"tool": "echo"})).await;
    let path = format!("/v1/jobs/{}/cancel", job["id"].as_str().unwrap());
    let cancelled = send(Method::POST, &path, ADMIN, json!({})).await;
    assert_eq!((&cancelled["submitted_by"], &cancelled["cancelled_by"]), (&json!("ci"), &json!("ops")));
    let list = send(Method::GET, "/v1/jobs?submitted_by=ci", ADMIN, json!({})).await;
    assert_eq!(list["jobs"].as_array().unwrap().len(), 1, "{list}");

    let schedule = send(Method::POST, "/v1/schedules", ADMIN, body("CreateSchedule")).await;
    assert_eq!((&schedule["created_by"], &schedule["updated_by"]), (&json!("ops"), &Value::Null));
    let path = format!("/v1/schedules/{}", schedule["id"].as_str().unwrap());
    let changed = send(Method::PATCH, &path, ADMIN, json!({"cron": "0 4 * * *"})).await;
    assert_eq!(changed["updated_by"], "ops");
    let entry = &entries(&server, "operation=UpdateSchedule").await[0];
    let detail = &entry["detail"];
    assert_eq!((&detail["before"]["cron"], &detail["after"]["cron"]), (&json!("0 3 * * *"), &json!("0 4 * * *")));
}
