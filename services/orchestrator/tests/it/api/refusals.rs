//! What is refused, and that REST and gRPC say the same about it.

use super::server::{Refusal, Server, problem, refusal};
use agentforge_proto::v1 as pb;
use reqwest::Method;
use serde_json::{Value, json};

/// The answer to every failure is a problem.
#[tokio::test]
async fn every_rest_refusal_is_a_problem() {
    let server = Server::start(&[]).await;
    let job = server.submit(r#"{"tool":"echo"}"#).await;
    let id = job["id"].as_str().unwrap();
    let nobody = "/v1/jobs/01890a5d-ac96-774b-bcce-b302099a8057";
    let json_type: &[(&str, &str)] = &[("content-type", "application/json")];
    let output = format!("/v1/jobs/{id}/output");
    type Row<'a> = (Method, &'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str, Value);
    let rows: Vec<Row<'_>> = vec![
        (Method::GET, "/v1/nothing", &[], "", 404, "not_found", json!(null)),
        (Method::GET, "/v1/jobs/x/y/z", &[], "", 404, "not_found", json!(null)),
        (Method::PUT, "/v1/jobs", &[], "", 405, "method_not_allowed", json!(null)),
        (Method::DELETE, "/docs", &[], "", 405, "method_not_allowed", json!(null)),
        (Method::GET, nobody, &[], "", 404, "not_found", json!(null)),
        (Method::GET, "/v1/jobs/not-a-uuid", &[], "", 400, "invalid_argument", json!("id")),
        (Method::GET, "/v1/jobs/%ff", &[], "", 400, "invalid_argument", json!(null)),
        (Method::GET, "/v1/jobs?stat=queued", &[], "", 400, "invalid_argument", json!("stat")),
        (Method::GET, "/v1/jobs?state=sleeping", &[], "", 400, "invalid_argument", json!("state")),
        (Method::GET, "/v1/jobs?limit=1001", &[], "", 400, "invalid_argument", json!("limit")),
        (Method::GET, "/v1/jobs?limit=ten", &[], "", 400, "invalid_argument", json!("limit")),
        (Method::GET, "/v1/jobs?cursor=zzz", &[], "", 400, "invalid_argument", json!("cursor")),
        (Method::GET, "/v1/jobs?label=red", &[], "", 400, "invalid_argument", json!("label")),
        (Method::GET, "/v1/jobs?tool=a&tool=b", &[], "", 400, "invalid_argument", json!("tool")),
        (Method::GET, &output, &[], "", 409, "failed_precondition", json!(null)),
        (Method::POST, "/v1/jobs", json_type, "{", 400, "invalid_argument", json!(null)),
        (Method::POST, "/v1/jobs", json_type, "", 400, "invalid_argument", json!(null)),
        (Method::POST, "/v1/jobs", json_type, r#"{"tool":"echo","tols":1}"#, 400, "invalid_argument", json!("tols")),
        (Method::POST, "/v1/jobs", json_type, r#"{"tool":[]}"#, 400, "invalid_argument", json!("tool")),
        (
            Method::POST,
            "/v1/jobs",
            &[("content-type", "text/plain")],
            r#"{"tool":"echo"}"#,
            415,
            "unsupported_media_type",
            json!(null),
        ),
        (
            Method::POST,
            "/v1/jobs:batch",
            &[("content-type", "text/csv")],
            "[]",
            415,
            "unsupported_media_type",
            json!(null),
        ),
        (Method::POST, "/v1/jobs:batch", json_type, r#"{"tool":"echo"}"#, 400, "invalid_argument", json!(null)),
        (Method::POST, "/v1/dead-letters/redrive", json_type, r#"{"rate":-1}"#, 400, "invalid_argument", json!("rate")),
        (
            Method::POST,
            "/v1/schedules",
            json_type,
            r#"{"name":"n","cron":"* * *","job":{"tool":"echo"}}"#,
            400,
            "invalid_argument",
            json!("cron"),
        ),
        (Method::GET, "/v1/agents/nobody", &[], "", 404, "not_found", json!(null)),
        (Method::GET, "/v1/agents?status=asleep", &[], "", 400, "invalid_argument", json!("status")),
    ];
    for (method, path, headers, body, status, code, field) in rows {
        let at = format!("{method} {path} {body}");
        let answer = server.send(method, path, headers, body).await;
        assert_eq!(answer.status(), status, "{at}");
        if status == 405 {
            assert!(answer.headers().contains_key("allow"), "{at}");
        }
        let body = problem(answer).await;
        assert_eq!((&body["code"], &body["field"]), (&json!(code), &field), "{at}: {body}");
    }
    let malformed = problem(server.post("/v1/jobs", "{\n \"tool\": nope}").await).await;
    assert!(malformed["detail"].as_str().unwrap().contains("line 2 column"), "{malformed}");
}

/// One submission, said both ways.
fn both(change: impl Fn(&mut Value, &mut pb::SubmitJobRequest)) -> (Value, pb::SubmitJobRequest) {
    let mut rest = json!({"tool": "echo", "args": {"a": 1}});
    let mut rpc = pb::SubmitJobRequest { tool: "echo".into(), args: r#"{"a":1}"#.into(), ..Default::default() };
    change(&mut rest, &mut rpc);
    (rest, rpc)
}

#[tokio::test]
async fn rest_and_grpc_refuse_the_same_for_the_same_reason() {
    let server = Server::start(&[]).await;
    let mut jobs = server.jobs().await;
    let long = "k".repeat(300);
    let big = "x".repeat(1_500_000);
    let past = "2020-01-01T00:00:00Z";
    let past_proto = Some(prost_types::Timestamp { seconds: 1_577_836_800, nanos: 0 });
    let rows: Vec<(&str, Option<&str>, (Value, pb::SubmitJobRequest))> = vec![
        ("invalid_argument", Some("tool"), both(|r, p| (r["tool"], p.tool) = (json!(""), String::new()))),
        ("invalid_argument", Some("tool"), both(|r, p| (r["tool"], p.tool) = (json!("a b"), "a b".into()))),
        ("invalid_argument", Some("id"), both(|r, p| (r["id"], p.id) = (json!("x"), "x".into()))),
        ("invalid_argument", Some("mission"), both(|r, p| (r["mission"], p.mission) = (json!("a_b"), "a_b".into()))),
        ("invalid_argument", Some("queue"), both(|r, p| (r["queue"], p.queue) = (json!("a.b"), "a.b".into()))),
        ("invalid_argument", Some("args"), both(|r, p| (r["args"], p.args) = (json!([1]), "[1]".into()))),
        (
            "too_large",
            Some("args"),
            both(|r, p| (r["args"], p.args) = (json!({"b": big}), json!({"b": big}).to_string())),
        ),
        (
            "too_large",
            Some("idempotency_key"),
            both(|r, p| (r["idempotency_key"], p.idempotency_key) = (json!(long), long.clone())),
        ),
        ("too_large", Some("task"), both(|r, p| (r["task"], p.task) = (json!(long), long.clone()))),
        (
            "invalid_argument",
            Some("max_attempts"),
            both(|r, p| (r["max_attempts"], p.max_attempts) = (json!(101), 101)),
        ),
        (
            "invalid_argument",
            Some("labels"),
            both(|r, p| {
                r["labels"] = json!({"a b": "c"});
                p.labels.insert("a b".into(), "c".into());
            }),
        ),
        (
            "invalid_argument",
            Some("timeout"),
            both(|r, p| {
                r["timeout"] = json!("999d");
                p.timeout = Some(prost_types::Duration { seconds: 999 * 86_400, nanos: 0 });
            }),
        ),
        (
            "invalid_argument",
            Some("timeout"),
            both(|r, p| {
                r["timeout"] = json!("-1s");
                p.timeout = Some(prost_types::Duration { seconds: -1, nanos: 0 });
            }),
        ),
        ("invalid_argument", Some("deadline"), both(|r, p| (r["deadline"], p.deadline) = (json!(past), past_proto))),
        (
            "invalid_argument",
            Some("run_at"),
            both(|r, p| {
                r["run_at"] = json!("9999-01-01T00:00:00Z");
                p.run_at = Some(prost_types::Timestamp { seconds: 253_370_764_800, nanos: 0 });
            }),
        ),
    ];
    for (code, field, (rest, rpc)) in rows {
        let want: Refusal = (code.to_owned(), field.map(str::to_owned));
        let at: String = rest.to_string().chars().take(120).collect();
        let body = problem(server.post("/v1/jobs", rest.to_string()).await).await;
        let got = (body["code"].as_str().unwrap().to_owned(), body["field"].as_str().map(str::to_owned));
        assert_eq!(got, want, "REST {at}: {body}");
        let status = jobs.submit_job(rpc.clone()).await.unwrap_err();
        assert_eq!(refusal(&status), want, "gRPC {at}: {status:?}");
        if rpc.timeout.is_none_or(|t| t.seconds > 0) {
            assert_eq!(status.message(), body["detail"], "{at}");
        }
        // And in a stream it is answered in its place.
        let answer =
            jobs.submit_jobs(tokio_stream::iter([rpc])).await.unwrap().into_inner().message().await.unwrap().unwrap();
        let Some(pb::submit_jobs_response::Outcome::Refused(refused)) = answer.outcome else {
            panic!("{at} was accepted")
        };
        assert_eq!((refused.code, Some(refused.field)), (want.0, want.1), "stream {at}");
    }
    let listed: Value = server.get("/v1/jobs").await.json().await.unwrap();
    assert_eq!(listed["jobs"], json!([]), "nothing refused was stored");
}

#[tokio::test]
async fn lookups_fail_alike() {
    let server = Server::start(&[]).await;
    let mut jobs = server.jobs().await;
    let id = "01890a5d-ac96-774b-bcce-b302099a8057".to_owned();
    let not_found: Refusal = ("not_found".into(), None);
    let statuses = [
        jobs.get_job(pb::GetJobRequest { id: id.clone(), wait: None }).await.unwrap_err(),
        jobs.cancel_job(pb::CancelJobRequest { id: id.clone() }).await.unwrap_err(),
        jobs.list_attempts(pb::ListAttemptsRequest { id: id.clone() }).await.unwrap_err(),
        jobs.watch_job(pb::WatchJobRequest { id: id.clone() }).await.unwrap_err(),
    ];
    for status in statuses {
        assert_eq!((status.code(), refusal(&status)), (tonic::Code::NotFound, not_found.clone()), "{status:?}");
    }
    for (method, path) in [
        (Method::GET, ""),
        (Method::POST, "/cancel"),
        (Method::GET, "/attempts"),
        (Method::GET, "/watch"),
        (Method::GET, "/output"),
    ] {
        let answer = server.send(method, &format!("/v1/jobs/{id}{path}"), &[], "").await;
        assert_eq!(problem(answer).await["code"], "not_found", "{path}");
    }
    let wait = Some(prost_types::Duration { seconds: 61, nanos: 0 });
    let status = jobs.get_job(pb::GetJobRequest { id: id.clone(), wait }).await.unwrap_err();
    assert_eq!(refusal(&status), ("invalid_argument".into(), Some("wait".into())));
    let body = problem(server.get(&format!("/v1/jobs/{id}?wait=61s")).await).await;
    assert_eq!((&body["code"], &body["field"]), (&json!("invalid_argument"), &json!("wait")));
    assert!(body["detail"].as_str().unwrap().contains("60"), "the limit is named: {body}");
}
