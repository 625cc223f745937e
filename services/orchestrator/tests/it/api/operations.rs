//! Operations as callers meet them, over REST and gRPC.

use super::server::{DEADLINE, Server, problem};
use agentforge_harness::eventually;
use agentforge_message_id::{JobId, OperationId};
use agentforge_proto::v1 as pb;
use agentforge_proto::v1::operations_client::OperationsClient;
use reqwest::Method;
use serde_json::{Value, json};

async fn ended(server: &Server, path: &str) -> Value {
    eventually(DEADLINE, "the operation ends", async || {
        let now: Value = server.get(path).await.json().await.unwrap();
        if now["ended_at"].is_string() { Ok(now) } else { Err(now) }
    })
    .await
}

#[tokio::test]
async fn who_does_not_want_to_wait_gets_an_operation_to_ask_about() {
    let server = Server::start(&[]).await;
    let unknown = JobId::generate();
    let body = json!({"job_ids": [unknown]}).to_string();
    let headers = [("prefer", "respond-async"), ("content-type", "application/json")];
    let answer = server.send(Method::POST, "/v1/dead-letters/redrive", &headers, &body).await;
    assert_eq!(answer.status(), 202);
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("preference-applied"), "respond-async");
    let path = header("location");
    let first: Value = answer.json().await.unwrap();
    assert_eq!(path, format!("/v1/operations/{}", first["id"].as_str().unwrap()));
    assert_eq!((&first["kind"], &first["put_back"]), (&json!("redrive"), &json!(0)), "{first}");
    let end = ended(&server, &path).await;
    assert_eq!((&end["state"], &end["total"], &end["skipped"]), (&json!("succeeded"), &json!(1), &json!(1)), "{end}");
    assert_eq!(end["not_put_back"][0]["job_id"], unknown.to_string());

    // gRPC has the same names and answers.
    let mut jobs = server.jobs().await;
    let request = pb::RetryJobsRequest { job_ids: vec![unknown.to_string()], r#async: true, ..Default::default() };
    let mut stream = jobs.retry_jobs(request).await.unwrap().into_inner();
    let named = stream.message().await.unwrap().unwrap();
    assert!(!named.done && stream.message().await.unwrap().is_none(), "one message, which names it");
    let end = ended(&server, &format!("/v1/operations/{}", named.operation_id)).await;
    assert_eq!((&end["kind"], &end["state"]), (&json!("retry"), &json!("succeeded")));
    let mut operations = OperationsClient::new(server.channel().await);
    let read = operations.get_operation(pb::GetOperationRequest { id: named.operation_id.clone() }).await.unwrap();
    assert_eq!(read.get_ref().state(), pb::OperationState::Succeeded);
    let list = operations.list_operations(pb::ListOperationsRequest { limit: 1, ..Default::default() }).await.unwrap();
    assert_eq!(list.get_ref().operations[0].id, named.operation_id, "newest first");
    let next: Value =
        server.get(&format!("/v1/operations?cursor={}", list.get_ref().next_cursor)).await.json().await.unwrap();
    assert_eq!((&next["operations"][0]["id"], &next["next_cursor"]), (&first["id"], &Value::Null), "{next}");
}

#[tokio::test]
async fn what_cannot_become_an_operation_is_refused_at_once() {
    let server = Server::start(&[]).await;
    for (path, body, field) in [
        ("/v1/jobs:retry", json!({"async": true}), "states"),
        ("/v1/jobs:retry", json!({"async": true, "states": ["cancelled"], "dry_run": true}), "dry_run"),
        ("/v1/jobs:retry", json!({"async": true, "states": ["running"]}), "states"),
        ("/v1/dead-letters/redrive", json!({"async": true, "rate": 2000}), "rate"),
        ("/v1/dead-letters/redrive", json!({"async": true, "job_ids": ["7"]}), "job_ids"),
    ] {
        let refused = problem(server.post(path, body.to_string()).await).await;
        assert_eq!((refused["status"].as_u64(), refused["field"].as_str()), (Some(400), Some(field)), "{refused}");
    }
    let none: Value = server.get("/v1/operations").await.json().await.unwrap();
    assert_eq!(none["operations"], json!([]));
    let unknown = OperationId::generate();
    assert_eq!(problem(server.get(&format!("/v1/operations/{unknown}")).await).await["code"], "not_found");
    assert_eq!(problem(server.get("/v1/operations/7").await).await["field"], "id");
    assert_eq!(server.post(&format!("/v1/operations/{unknown}/cancel"), "").await.status(), 404);
}
