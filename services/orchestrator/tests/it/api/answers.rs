//! What callers get when nothing is wrong.

use super::server::{Server, problem, refusal};
use agentforge_harness::eventually;
use agentforge_proto::v1 as pb;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_job_reads_as_it_was_submitted() {
    let server = Server::start(&[]).await;
    let args = "{ \"n\" : 12345678901234567890.10,\n \"u\":\"\\u00e9\" }";
    let body = format!(
        r#"{{"tool":"echo","args":{args},"queue":"q1","labels":{{"team":"red"}},"max_attempts":5,"timeout":"90s",
            "run_at":"2020-01-31T08:00:00.5+01:00","task":"t","reuse":true}}"#
    );
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    let headers = [JSON, ("traceparent", traceparent.as_str()), ("x-request-id", "my-request-1")];
    let answer = server.send(Method::POST, "/v1/jobs", &headers, &body).await;
    assert_eq!(answer.status(), 202);
    assert_eq!(answer.headers()["x-request-id"], "my-request-1");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let text = answer.text().await.unwrap();
    assert!(text.contains(args), "args are passed through byte for byte: {text}");
    let job: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(location, format!("/v1/jobs/{}", job["id"].as_str().unwrap()));
    let want = [
        ("mission", json!("dev")),
        ("queue", json!("q1")),
        ("tool", json!("echo")),
        ("labels", json!({"team": "red"})),
        ("state", json!("accepted")),
        ("attempts", json!(0)),
        ("max_attempts", json!(5)),
        ("timeout_ms", json!(90_000)),
        ("run_at", json!("2020-01-31T07:00:00.500000Z")),
        ("task", json!("t")),
        ("reuse", json!(true)),
        ("trace_id", json!(trace)),
    ];
    for (field, value) in want {
        assert_eq!(job[field], value, "{field}");
    }
    for field in [
        "result",
        "output_ref",
        "error",
        "queued_at",
        "started_at",
        "finished_at",
        "worker",
        "schedule_id",
        "scheduled_at",
        "idempotent_replay",
    ] {
        assert_eq!(job.get(field), Some(&Value::Null), "{field} is there and null");
    }
    let read = server.get(&location).await.text().await.unwrap();
    assert!(read.contains(args));
    let id = job["id"].as_str().unwrap().to_owned();
    let same = server.jobs().await.get_job(pb::GetJobRequest { id, wait: None }).await.unwrap().into_inner();
    assert_eq!(
        (same.args.as_str(), same.trace_id.as_deref(), same.state()),
        (args, Some(trace), pb::JobState::Accepted)
    );
}

#[tokio::test]
async fn the_same_submission_is_stored_once_whichever_way_it_comes() {
    let server = Server::start(&[]).await;
    let key = [JSON, ("idempotency-key", "order-17")];
    let first = server.send(Method::POST, "/v1/jobs", &key, r#"{"tool":"echo","args":{"a":1,"b":2}}"#).await;
    assert_eq!(first.status(), 202);
    let first: Value = first.json().await.unwrap();
    // The key in the body, the fields of args in another order.
    let again = server.post("/v1/jobs", r#"{"args":{"b":2, "a":1},"tool":"echo","idempotency_key":"order-17"}"#).await;
    assert_eq!(again.status(), 200);
    assert_eq!(again.json::<Value>().await.unwrap()["id"], first["id"]);
    let mut jobs = server.jobs().await;
    let mut request = pb::SubmitJobRequest {
        tool: "echo".into(),
        args: r#"{"a":1,"b":2}"#.into(),
        idempotency_key: "order-17".into(),
        ..Default::default()
    };
    let third = jobs.submit_job(request.clone()).await.unwrap().into_inner();
    assert_eq!((third.created, json!(third.job.unwrap().id)), (false, first["id"].clone()));

    let other = server.send(Method::POST, "/v1/jobs", &key, r#"{"tool":"echo","args":{"a":2}}"#).await;
    assert_eq!(other.status(), 409);
    let body = problem(other).await;
    assert_eq!(body["code"], "conflict");
    request.args = r#"{"a":2}"#.into();
    let status = jobs.submit_job(request).await.unwrap_err();
    assert_eq!((status.code(), refusal(&status).0), (tonic::Code::AlreadyExists, "conflict".into()));

    let differ = server.send(Method::POST, "/v1/jobs", &key, r#"{"tool":"echo","idempotency_key":"order-18"}"#).await;
    assert_eq!(problem(differ).await["field"], "idempotency_key");
}

#[tokio::test]
async fn a_batch_is_answered_item_by_item_in_order() {
    let server = Server::start(&[]).await;
    let items =
        json!([{"tool": "echo", "labels": {"n": "0"}}, {"tool": "a b"}, {"tool": "echo", "oops": 1}, {"tool": "echo"}]);
    let answer = server.post("/v1/jobs:batch", items.to_string()).await;
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!((&answer["accepted"], &answer["refused"]), (&json!(2), &json!(2)));
    let outcomes: Vec<_> = answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| (i["index"].as_u64().unwrap(), i["refused"]["field"].as_str()))
        .collect();
    assert_eq!(outcomes, [(0, None), (1, Some("tool")), (2, Some("oops")), (3, None)]);
    assert!(answer["items"][0]["accepted"]["created"].as_bool().unwrap());

    let lines: String = items.as_array().unwrap().iter().map(|i| format!("{i}\n")).collect();
    let answer = server.send(Method::POST, "/v1/jobs:batch", &[("content-type", "application/x-ndjson")], &lines).await;
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let answers: Vec<Value> = answer.text().await.unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(answers.iter().map(|a| a["accepted"].is_object()).collect::<Vec<_>>(), [true, false, false, true]);
    let listed: Value = server.get("/v1/jobs").await.json().await.unwrap();
    assert_eq!(listed["jobs"].as_array().unwrap().len(), 4);

    let many = format!("[{}]", vec![r#"{"tool":"echo"}"#; 1000].join(","));
    let answer: Value = server.post("/v1/jobs:batch", many).await.json().await.unwrap();
    assert_eq!(answer["accepted"], 1000);
    let too_many = problem(server.post("/v1/jobs:batch", format!("[{}]", vec!["{}"; 1001].join(","))).await).await;
    assert_eq!(too_many["code"], "too_large");
    assert!(too_many["detail"].as_str().unwrap().contains("1000"), "{too_many}");
}

#[tokio::test]
async fn a_listing_is_filtered_and_goes_on_with_its_cursor() {
    let server = Server::start(&[]).await;
    for n in 0..5 {
        let labels = if n % 2 == 0 { json!({"parity": "even", "note": "a,b"}) } else { json!({"parity": "odd"}) };
        server.submit(&json!({"tool": "echo", "args": {"n": n}, "labels": labels}).to_string()).await;
    }
    let cancelled = server.submit(r#"{"tool":"sleep"}"#).await;
    let cancel = format!("/v1/jobs/{}/cancel", cancelled["id"].as_str().unwrap());
    let answer: Value = server.post(&cancel, "").await.json().await.unwrap();
    assert_eq!((&answer["state"], &answer["attempts"]), (&json!("cancelled"), &json!(0)), "it never began");

    let numbers = async |query: &str| -> (Vec<i64>, Option<String>) {
        let page: Value = server.get(&format!("/v1/jobs?{query}")).await.json().await.unwrap();
        let numbers = page["jobs"].as_array().unwrap_or_else(|| panic!("{page}")).iter();
        (
            numbers.map(|j| j["args"]["n"].as_i64().unwrap_or(-1)).collect(),
            page["next_cursor"].as_str().map(str::to_owned),
        )
    };
    assert_eq!(numbers("").await.0, [-1, 4, 3, 2, 1, 0], "newest first");
    assert_eq!(numbers("tool=sleep&state=cancelled,failed&state=dead").await.0, [-1]);
    assert_eq!(numbers("state=accepted&label=parity=even&label=note=a%2Cb").await.0, [4, 2, 0]);
    assert_eq!(numbers("queue=other").await.0, [] as [i64; 0]);
    let (first, cursor) = numbers("tool=echo&limit=2").await;
    assert_eq!(first, [4, 3]);
    let (second, cursor) = numbers(&format!("tool=echo&limit=2&cursor={}", cursor.unwrap())).await;
    assert_eq!(second, [2, 1]);
    let (last, cursor) = numbers(&format!("tool=echo&limit=2&cursor={}", cursor.unwrap())).await;
    assert_eq!((last, cursor), (vec![0], None));

    let request = pb::ListJobsRequest {
        states: vec![pb::JobState::Accepted.into()],
        labels: vec!["parity=odd".into()],
        ..Default::default()
    };
    let page = server.jobs().await.list_jobs(request).await.unwrap().into_inner();
    assert_eq!((page.jobs.len(), page.next_cursor.as_str()), (2, ""));
}

#[tokio::test]
async fn jobs_are_counted_by_state_over_both() {
    let server = Server::start(&[]).await;
    let id = server.submit(r#"{"tool":"sleep"}"#).await["id"].as_str().unwrap().to_owned();
    server.submit(r#"{"tool":"echo"}"#).await;
    server.post(&format!("/v1/jobs/{id}/cancel"), "").await;
    let counts: Value = server.get("/v1/jobs:counts").await.json().await.unwrap();
    let of = |state: &str| counts[state].as_u64().unwrap_or_else(|| panic!("{counts}"));
    assert_eq!(
        (of("accepted") + of("queued") + of("running"), of("cancelled"), of("succeeded")),
        (1, 1, 0),
        "{counts}"
    );
    assert!(counts["counted_at"].is_string(), "{counts}");

    // What is given may be older than the last submission, but not by much.
    server.submit(r#"{"tool":"echo"}"#).await;
    let mut jobs = server.jobs().await;
    eventually(Duration::from_secs(20), "the counts follow", || async {
        let counts = jobs.clone().get_job_counts(pb::GetJobCountsRequest {}).await.unwrap().into_inner();
        if counts.accepted + counts.queued + counts.running == 2 { Ok(()) } else { Err(counts) }
    })
    .await;
    let counts = jobs.get_job_counts(pb::GetJobCountsRequest {}).await.unwrap().into_inner();
    assert_eq!((counts.cancelled, counts.dead, counts.counted_at.is_some()), (1, 0, true));
}

/// Clients refuse messages above 4 MiB, so a page must not become one.
#[tokio::test]
async fn a_page_of_large_jobs_fits_into_a_message() {
    let server = Server::start(&[]).await;
    let args = json!({"fill": "x".repeat(900_000)});
    for _ in 0..6 {
        server.submit(&json!({"tool": "echo", "args": args}).to_string()).await;
    }
    let mut jobs = server.jobs().await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = jobs.list_jobs(pb::ListJobsRequest { cursor, ..Default::default() }).await.unwrap().into_inner();
        seen.extend(page.jobs.into_iter().map(|j| j.id));
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((all, seen.len()), (6, 6), "each job once");
}

#[tokio::test]
async fn a_schedule_lives_through_both_protocols() {
    use pb::schedules_client::SchedulesClient;
    let server = Server::start(&[]).await;
    let body = json!({"name": "nightly", "cron": "0 3 * * *", "time_zone": "Europe/Vienna",
        "job": {"tool": "echo", "args": {"a": 1}, "timeout_ms": 1500}});
    let answer = server.post("/v1/schedules", body.to_string()).await;
    assert_eq!(answer.status(), 201);
    let path = answer.headers()["location"].to_str().unwrap().to_owned();
    let schedule: Value = answer.json().await.unwrap();
    assert_eq!((&schedule["job"]["args"], &schedule["job"]["timeout_ms"]), (&json!({"a": 1}), &json!(1500)));
    assert!(schedule["next_run_at"].is_string() && !schedule["paused"].as_bool().unwrap());
    let taken = server.post("/v1/schedules", body.to_string()).await;
    assert_eq!(taken.status(), 409);
    assert_eq!(problem(taken).await["field"], "name");

    let mut schedules = SchedulesClient::new(server.channel().await);
    let id = schedule["id"].as_str().unwrap().to_owned();
    let same = schedules.get_schedule(pb::GetScheduleRequest { id: id.clone() }).await.unwrap().into_inner();
    assert_eq!((same.name.as_str(), same.job.unwrap().args.as_str()), ("nightly", r#"{"a":1}"#));
    let paused: Value = server.post(&format!("{path}/pause"), "").await.json().await.unwrap();
    assert_eq!((&paused["paused"], &paused["next_run_at"]), (&json!(true), &json!(null)));
    let runs: Value = server.get(&format!("{path}/next-runs?limit=3")).await.json().await.unwrap();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 3);
    let resumed = schedules
        .resume_schedule(pb::ResumeScheduleRequest { id: id.clone(), catch_up: false })
        .await
        .unwrap()
        .into_inner();
    assert!(!resumed.paused && resumed.next_run_at.is_some());
    let listed: Value = server.get("/v1/schedules").await.json().await.unwrap();
    assert_eq!(listed["schedules"].as_array().unwrap().len(), 1);
    assert_eq!(server.send(Method::DELETE, &path, &[], "").await.status(), 204);
    assert_eq!(problem(server.get(&path).await).await["code"], "not_found");
    let status = schedules.pause_schedule(pb::PauseScheduleRequest { id }).await.unwrap_err();
    assert_eq!(refusal(&status).0, "not_found");
}

#[tokio::test]
async fn a_redrive_of_nothing_is_done_at_once() {
    let server = Server::start(&[]).await;
    let answer: Value = server.post("/v1/dead-letters/redrive", "").await.json().await.unwrap();
    assert_eq!(answer, json!({"redriven": 0, "skipped": 0, "done": true}));
    let headers = [JSON, ("accept", "application/x-ndjson")];
    let answer = server.send(Method::POST, "/v1/dead-letters/redrive", &headers, r#"{"rate": 10}"#).await;
    let text = answer.text().await.unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["done"], true);
    let listed: Value = server.get("/v1/dead-letters?include_redriven=true").await.json().await.unwrap();
    assert_eq!(listed, json!({"dead_letters": [], "next_cursor": null}));
    let agents: Value = server.get("/v1/agents").await.json().await.unwrap();
    assert_eq!(agents, json!({"agents": [], "next_cursor": null}));
}

#[tokio::test]
async fn an_open_job_that_nobody_serves_says_so_over_both() {
    let server = Server::start(&[]).await;
    let job = server.submit(r#"{"tool":"echo","queue":"bulk"}"#).await;
    let says_so = |warning: &str| warning.starts_with("no worker serves this queue (bulk)");
    assert!(says_so(job["warning"].as_str().unwrap()), "{job}");
    let id = job["id"].as_str().unwrap().to_owned();
    let read: Value = server.get(&format!("/v1/jobs/{id}")).await.json().await.unwrap();
    assert!(says_so(read["warning"].as_str().unwrap()), "{read}");
    let list: Value = server.get("/v1/jobs").await.json().await.unwrap();
    assert!(says_so(list["jobs"][0]["warning"].as_str().unwrap()), "{list}");
    let mut jobs = server.jobs().await;
    let read = jobs.get_job(pb::GetJobRequest { id: id.clone(), ..Default::default() }).await.unwrap().into_inner();
    assert!(says_so(read.warning()), "{read:?}");
    // It ends, and there is nothing to warn of.
    let ended: Value = server.post(&format!("/v1/jobs/{id}/cancel"), "").await.json().await.unwrap();
    assert_eq!((&ended["state"], &ended["warning"]), (&json!("cancelled"), &Value::Null));
}
