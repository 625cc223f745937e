//! Retries, keys, policies and waits as callers meet them, over REST and gRPC.

use super::server::{Server, problem};
use agentforge_harness::eventually;
use agentforge_proto::v1 as pb;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

async fn get(server: &Server, id: &str) -> Value {
    server.get(&format!("/v1/jobs/{id}")).await.json().await.unwrap()
}

fn id_of(job: &Value) -> String {
    job["id"].as_str().unwrap().to_owned()
}

/// A job that ended expired: no worker takes it, and its time is short.
async fn expired(server: &Server, more: Value) -> String {
    let mut body = json!({"tool": "echo", "deadline_in": "1s"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let id = id_of(&server.submit(&body.to_string()).await);
    eventually(Duration::from_secs(20), "it expires", async || get(server, &id).await["state"] == "expired").await;
    id
}

async fn cancelled(server: &Server, body: &str) -> String {
    let id = id_of(&server.submit(body).await);
    assert_eq!(server.post(&format!("/v1/jobs/{id}/cancel"), "").await.status(), 200);
    id
}

#[tokio::test]
async fn a_job_that_ended_without_success_is_put_back() {
    let server = Server::start(&[]).await;
    let id = expired(&server, json!({})).await;
    let job: Value = server.post(&format!("/v1/jobs/{id}/retry"), "").await.json().await.unwrap();
    assert_eq!((job["state"].as_str(), job["finished_at"].is_null()), (Some("accepted"), true), "{job}");
    let deadline: jiff::Timestamp = job["deadline"].as_str().unwrap().parse().unwrap();
    let left = deadline.as_microsecond() - jiff::Timestamp::now().as_microsecond();
    assert!(left <= 1_000_000, "as long as before, from now: {left} µs");

    let id = cancelled(&server, r#"{"tool":"echo"}"#).await;
    let mut jobs = server.jobs().await;
    let deadline_in = Some(prost_types::Duration { seconds: 7_200, nanos: 0 });
    let job = jobs.retry_job(pb::RetryJobRequest { id: id.clone(), deadline_in }).await.unwrap().into_inner();
    assert_eq!(job.state(), pb::JobState::Accepted);
    assert!(job.deadline.unwrap().seconds > jiff::Timestamp::now().as_second() + 7_000);

    // What cannot be put back says why.
    let refused = problem(server.post(&format!("/v1/jobs/{id}/retry"), "").await).await;
    assert_eq!((refused["code"].as_str(), refused["status"].as_u64()), (Some("failed_precondition"), Some(409)));
    assert!(refused["detail"].as_str().unwrap().contains("it is accepted"), "{refused}");
    let unknown = agentforge_message_id::JobId::generate();
    assert_eq!(server.post(&format!("/v1/jobs/{unknown}/retry"), "").await.status(), 404);
    let wrong = problem(server.post(&format!("/v1/jobs/{id}/retry"), r#"{"deadline_in":"0s"}"#).await).await;
    assert_eq!(wrong["field"], "deadline_in");
}

#[tokio::test]
async fn many_are_counted_first_and_put_back_at_a_rate() {
    let server = Server::start(&[]).await;
    let mut mine = Vec::new();
    for n in 0..5 {
        let queue = if n < 3 { "red" } else { "blue" };
        mine.push(cancelled(&server, &json!({"tool": "echo", "queue": queue}).to_string()).await);
    }
    let filter = json!({"states": ["cancelled", "expired"], "queue": "red"});
    let dry: Value = {
        let mut body = filter.clone();
        body["dry_run"] = json!(true);
        server.post("/v1/jobs:retry", body.to_string()).await.json().await.unwrap()
    };
    assert_eq!((&dry["matched"], &dry["retried"], &dry["done"]), (&json!(3), &json!(0), &json!(true)), "{dry}");
    assert_eq!(get(&server, &mine[0]).await["state"], "cancelled");

    let ndjson = [("accept", "application/x-ndjson"), ("content-type", "application/json")];
    let lines = server.send(Method::POST, "/v1/jobs:retry", &ndjson, &filter.to_string()).await.text().await.unwrap();
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!((&last["retried"], &last["done"]), (&json!(3), &json!(true)), "{lines}");
    for (n, id) in mine.iter().enumerate() {
        assert_eq!(get(&server, id).await["state"], if n < 3 { "accepted" } else { "cancelled" });
    }

    // By ids: each one that was not put back is reported with its reason.
    let unknown = agentforge_message_id::JobId::generate().to_string();
    let ids = json!({"job_ids": [mine[3], mine[0], unknown]});
    let done: Value = server.post("/v1/jobs:retry", ids.to_string()).await.json().await.unwrap();
    assert_eq!((&done["retried"], &done["skipped"]), (&json!(1), &json!(2)), "{done}");
    let reasons = done["not_put_back"].as_array().unwrap();
    let reason = |id: &str| reasons.iter().find(|r| r["job_id"] == id).unwrap()["reason"].as_str().unwrap().to_owned();
    assert!(reason(&mine[0]).contains("accepted") && reason(&unknown).contains("no such job"), "{done}");

    // A redrive says of a cancelled job that a retry is what it needs.
    let redriven: Value =
        server.post("/v1/dead-letters/redrive", json!({"job_ids": [mine[4]]}).to_string()).await.json().await.unwrap();
    assert_eq!((&redriven["redriven"], &redriven["skipped"]), (&json!(0), &json!(1)));
    assert!(redriven["not_put_back"][0]["reason"].as_str().unwrap().contains("retry"), "{redriven}");

    for (body, field) in [
        ("{}", "states"),
        (r#"{"states":["succeeded"]}"#, "states"),
        (r#"{"states":["nothing"]}"#, "states"),
        (r#"{"states":["expired"],"rate":5000}"#, "rate"),
        (r#"{"job_ids":["x"]}"#, "job_ids"),
        (r#"{"states":["expired"],"created_after":"soon"}"#, "created_after"),
    ] {
        assert_eq!(problem(server.post("/v1/jobs:retry", body).await).await["field"], field, "{body}");
    }
}

#[tokio::test]
async fn retries_of_many_are_bounded_in_time() {
    let server = Server::start(&[]).await;
    let old = cancelled(&server, r#"{"tool":"echo"}"#).await;
    let border = jiff::Timestamp::now().to_string();
    let new = cancelled(&server, r#"{"tool":"echo"}"#).await;
    let listed: Value = server.get(&format!("/v1/jobs?created_after={border}")).await.json().await.unwrap();
    assert_eq!(listed["jobs"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["jobs"][0]["id"], new);
    let body = json!({"states": ["cancelled"], "finished_before": border});
    let done: Value = server.post("/v1/jobs:retry", body.to_string()).await.json().await.unwrap();
    assert_eq!(done["retried"], 1, "{done}");
    assert_eq!(get(&server, &old).await["state"], "accepted");
    assert_eq!(get(&server, &new).await["state"], "cancelled");
}

#[tokio::test]
async fn a_change_of_defaults_makes_no_conflict() {
    let data = tempfile::TempDir::new().unwrap();
    let url = format!("sqlite://{}", data.path().join("jobs.db").display());
    let body = r#"{"tool":"echo","args":{"n":1},"idempotency_key":"order-1"}"#;
    let server = Server::start(&[("DATABASE_URL", &url)]).await;
    let id = id_of(&server.submit(body).await);
    server.stop().await;
    let changed =
        [("DATABASE_URL", url.as_str()), ("JOB_TIMEOUT", "10m"), ("JOB_MAX_ATTEMPTS", "7"), ("JOB_DEADLINE", "off")];
    let server = Server::start(&changed).await;
    let again = server.post("/v1/jobs", body).await;
    assert_eq!(again.status(), 200);
    assert_eq!(again.json::<Value>().await.unwrap()["id"], id);
}

#[tokio::test]
async fn a_body_is_told_by_all_of_its_digits() {
    let server = Server::start(&[]).await;
    let body = |n: &str| format!(r#"{{"tool":"echo","args":{{"n":{n}}},"idempotency_key":"k"}}"#);
    server.submit(&body("123456789012345678901")).await;
    assert_eq!(server.post("/v1/jobs", body("123456789012345678901")).await.status(), 200);
    for other in ["123456789012345678902", "123456789012345678901.0"] {
        let refused = problem(server.post("/v1/jobs", body(other)).await).await;
        assert_eq!((refused["code"].as_str(), refused["field"].as_str()), (Some("conflict"), Some("idempotency_key")));
    }
}

#[tokio::test]
async fn an_id_and_a_key_are_both_honoured_or_both_refused() {
    let server = Server::start(&[]).await;
    let fresh = || agentforge_message_id::JobId::generate().to_string();
    let (x, y) = (fresh(), fresh());
    let body = |id: &str, key: &str| json!({"tool": "echo", "id": id, "idempotency_key": key});
    server.submit(&body(&x, "A").to_string()).await;
    for (id, key, field) in [(&x, "C", "idempotency_key"), (&y, "A", "id")] {
        let refused = problem(server.post("/v1/jobs", body(id, key).to_string()).await).await;
        assert_eq!((refused["status"].as_u64(), refused["field"].as_str()), (Some(409), Some(field)), "{refused}");
        assert!(refused["detail"].as_str().unwrap().contains(&x), "{refused}");
        let batch = json!([body(id, key), body(&x, "A")]).to_string();
        let answer: Value = server.post("/v1/jobs:batch", batch).await.json().await.unwrap();
        assert_eq!(answer["items"][0]["refused"]["field"], field, "{answer}");
        assert_eq!(answer["items"][1]["accepted"]["created"], false, "{answer}");
        let request = pb::SubmitJobRequest {
            tool: "echo".into(),
            id: id.clone(),
            idempotency_key: key.into(),
            ..Default::default()
        };
        let status = server.jobs().await.submit_job(request).await.unwrap_err();
        assert_eq!(super::server::refusal(&status), ("conflict".into(), Some(field.into())));
    }
    // The key that was refused with its job is still free.
    server.submit(r#"{"tool":"echo","idempotency_key":"C"}"#).await;
}

#[tokio::test]
async fn a_key_is_used_again_after_an_end_that_the_caller_names() {
    let server = Server::start(&[]).await;
    let first = cancelled(&server, r#"{"tool":"echo","idempotency_key":"k"}"#).await;
    let again = |reuse: &str| json!({"tool": "echo", "idempotency_key": "k", "key_reuse": reuse}).to_string();
    let same: Value = server.post("/v1/jobs", again("never")).await.json().await.unwrap();
    assert_eq!(same["id"], first);
    let answers = (0..200).map(|_| server.post("/v1/jobs", again("after_stop")));
    let mut statuses = Vec::new();
    let mut ids = std::collections::HashSet::new();
    for answer in futures_util::future::join_all(answers).await {
        statuses.push(answer.status().as_u16());
        ids.insert(id_of(&answer.json().await.unwrap()));
    }
    assert_eq!((ids.len(), statuses.iter().filter(|s| **s == 202).count()), (1, 1), "{statuses:?}");
    assert!(!ids.contains(&first));
    let refused = problem(server.post(&format!("/v1/jobs/{first}/retry"), "").await).await;
    assert!(refused["detail"].as_str().unwrap().contains("newer job"), "{refused}");
    for (body, field) in [
        (again("sometimes"), "key_reuse"),
        (json!({"tool": "echo", "key_reuse": "after_stop"}).to_string(), "key_reuse"),
    ] {
        assert_eq!(problem(server.post("/v1/jobs", body).await).await["field"], field);
    }
}

#[tokio::test]
async fn a_relative_start_under_a_key_can_be_sent_again() {
    let server = Server::start(&[]).await;
    let body = r#"{"tool":"echo","run_in":"10m","deadline_in":"1h","idempotency_key":"nightly"}"#;
    let job = server.submit(body).await;
    assert_eq!((&job["waits_for"], &job["next_attempt_at"]), (&json!("run_at"), &job["run_at"]), "{job}");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(server.post("/v1/jobs", body).await.status(), 200);
    let due = server.submit(r#"{"tool":"echo"}"#).await;
    assert_eq!(due["waits_for"], "publish", "NATS is unavailable: {due}");
}

#[tokio::test]
async fn text_is_judged_by_what_it_means() {
    let server = Server::start(&[]).await;
    let args = |args: &str| format!(r#"{{"tool":"echo","args":{args}}}"#);
    let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n - 1), "]".repeat(n - 1));
    for good in [r#"{"a":"\\u0000"}"#.to_owned(), deep(128), r#"{"a":"\ud83d\ude00"}"#.to_owned()] {
        assert_eq!(server.post("/v1/jobs", args(&good)).await.status(), 202, "{good}");
        let listed = server.get("/v1/jobs?limit=1").await.text().await.unwrap();
        assert!(listed.contains(&good), "{listed}");
    }
    for (bad, word) in [
        (deep(129), "128 levels"),
        (deep(3_000), "128 levels"),
        (r#"{"a":["\u0000"]}"#.to_owned(), "NUL (\\u0000) at .a[0]"),
        (r#"{"a":{"b":"\ud800"}}"#.to_owned(), "surrogate"),
        (r#"{"a":1,"\u0061":2}"#.to_owned(), "twice"),
    ] {
        let refused = problem(server.post("/v1/jobs", args(&bad)).await).await;
        assert_eq!(refused["field"], "args", "{refused}");
        assert!(refused["detail"].as_str().unwrap().contains(word), "{refused}");
        let schedule = format!(r#"{{"name":"s","cron":"0 3 * * *","job":{}}}"#, args(&bad));
        assert_eq!(server.post("/v1/schedules", schedule).await.status(), 400);
        let request = pb::SubmitJobRequest { tool: "echo".into(), args: bad, ..Default::default() };
        assert!(server.jobs().await.submit_job(request).await.is_err());
    }
}

#[tokio::test]
async fn a_policy_of_the_job_is_shown_and_one_of_its_tool_is_its_default() {
    let server = Server::start(&[("TOOL_RETRIES", "http=20/1s/2m, ocr=1")]).await;
    let job = server.submit(r#"{"tool":"echo","retry":{"base":"2s","cap_ms":60000}}"#).await;
    assert_eq!((&job["retry"], &job["max_attempts"]), (&json!({"base_ms": 2000, "cap_ms": 60000}), &json!(12)));
    let job = server.submit(r#"{"tool":"http"}"#).await;
    assert_eq!((&job["retry"], &job["max_attempts"]), (&json!({"base_ms": 1000, "cap_ms": 120_000}), &json!(20)));
    let job = server.submit(r#"{"tool":"ocr"}"#).await;
    assert_eq!((&job["retry"], &job["max_attempts"]), (&Value::Null, &json!(1)));
    for (body, field) in [
        (r#"{"tool":"echo","retry":{"base":"2m","cap":"1s"}}"#, "retry.base"),
        (r#"{"tool":"echo","retry":{"base":"1ms"}}"#, "retry.base"),
        (r#"{"tool":"echo","retry":{"cap":"25h"}}"#, "retry.cap"),
        (r#"{"tool":"echo","max_attempts":0}"#, "max_attempts"),
    ] {
        assert_eq!(problem(server.post("/v1/jobs", body).await).await["field"], field, "{body}");
    }
}
