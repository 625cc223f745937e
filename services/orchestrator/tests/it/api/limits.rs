//! Every limit refuses with its number and its knob, and a wait where one helps.

use super::server::{DEADLINE, Server, problem, refusal};
use agentforge_harness::eventually;
use agentforge_proto::v1 as pb;
use serde_json::{Value, json};
use tonic_types::StatusExt;

#[tokio::test]
async fn a_request_of_more_than_two_mebibytes_is_refused_by_both() {
    let server = Server::start(&[]).await;
    let args = json!({"fill": "x".repeat(3 * 1024 * 1024)}).to_string();
    let answer = server.post("/v1/jobs", format!(r#"{{"tool":"echo","args":{args}}}"#)).await;
    assert_eq!(answer.status(), 413);
    let body = problem(answer).await;
    assert_eq!(body["code"], "too_large");
    assert!(body["detail"].as_str().unwrap().contains("2097152"), "the limit is named: {body}");

    let mut jobs = server.jobs().await;
    let request = pb::SubmitJobRequest { tool: "echo".into(), args, ..Default::default() };
    let status = jobs.submit_job(request.clone()).await.unwrap_err();
    assert_eq!(
        (status.code(), refusal(&status)),
        (tonic::Code::InvalidArgument, ("too_large".into(), None)),
        "{status:?}"
    );
    assert!(status.message().contains("2097152"), "{status:?}");

    // In a stream it ends the stream, after the answers to what came before it.
    let small = pb::SubmitJobRequest { tool: "echo".into(), ..Default::default() };
    let mut answers = jobs.submit_jobs(tokio_stream::iter([small, request])).await.unwrap().into_inner();
    assert!(matches!(
        answers.message().await.unwrap().unwrap().outcome,
        Some(pb::submit_jobs_response::Outcome::Accepted(_))
    ));
    let status = answers.message().await.unwrap_err();
    assert_eq!(refusal(&status), ("too_large".into(), None), "{status:?}");
}

/// A body that does not say how long it is, is bounded all the same.
#[tokio::test]
async fn a_body_without_a_length_is_bounded() {
    let server = Server::start(&[]).await;
    let chunk = bytes::Bytes::from(vec![b' '; 64 * 1024]);
    let chunks = futures_util::stream::iter(std::iter::repeat_n(chunk, 100).map(Ok::<_, std::io::Error>));
    let answer = server.post("/v1/jobs", reqwest::Body::wrap_stream(chunks)).await;
    assert_eq!(problem(answer).await["code"], "too_large");
}

#[tokio::test]
async fn a_full_outbox_pushes_back_with_a_wait() {
    let server = Server::start(&[("OUTBOX_MAX", "1")]).await;
    server.submit(r#"{"tool":"echo"}"#).await;
    let answer = eventually(DEADLINE, "the outbox is full", async || {
        let answer = server.post("/v1/jobs", r#"{"tool":"echo"}"#).await;
        if answer.status() == 429 { Ok(answer) } else { Err(answer.status().to_string()) }
    })
    .await;
    assert!(answer.headers().contains_key("retry-after"));
    let body = problem(answer).await;
    assert_eq!(body["code"], "outbox_full");
    assert!(body["detail"].as_str().unwrap().contains("OUTBOX_MAX"), "the knob is named: {body}");

    let mut jobs = server.jobs().await;
    let request = pb::SubmitJobRequest { tool: "echo".into(), ..Default::default() };
    let status = jobs.submit_job(request.clone()).await.unwrap_err();
    assert_eq!((status.code(), refusal(&status).0), (tonic::Code::ResourceExhausted, "outbox_full".into()));
    assert!(status.get_error_details().retry_info().unwrap().retry_delay.is_some());
    assert!(status.metadata().contains_key("retry-after"));
    let answer =
        jobs.submit_jobs(tokio_stream::iter([request])).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(pb::submit_jobs_response::Outcome::Refused(refused)) = answer.outcome else { panic!("accepted") };
    assert_eq!(refused.code, "outbox_full");
    assert!(refused.retry_after.is_some());
    let batch: Value = server.post("/v1/jobs:batch", r#"[{"tool":"echo"}]"#).await.json().await.unwrap();
    assert!(batch["items"][0]["refused"]["retry_after_ms"].is_u64(), "{batch}");
}

#[tokio::test]
async fn the_one_request_too_many_is_turned_away() {
    let server = Server::start(&[("HTTP_CONCURRENCY", "1")]).await;
    let job = server.submit(r#"{"tool":"echo"}"#).await;
    let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    let (client, url) = (server.client.clone(), server.url(&format!("{path}?wait=15s")));
    // The checks below take the only place too, for a moment: the waiter may have to try again.
    let waiting = tokio::spawn(async move {
        eventually(DEADLINE, "the waiter got the place", async || {
            let status = client.get(&url).send().await.unwrap().status();
            if status == 429 { None } else { Some(status) }
        })
        .await
    });
    let answer = eventually(DEADLINE, "the only place is taken", async || {
        let answer = server.get(&path).await;
        if answer.status() == 429 { Ok(answer) } else { Err(answer.status().to_string()) }
    })
    .await;
    let body = problem(answer).await;
    assert_eq!(body["code"], "too_many_requests");
    assert!(body["detail"].as_str().unwrap().contains("HTTP_CONCURRENCY"), "{body}");
    assert!(body["retry_after_ms"].is_u64());
    // Operators' endpoints are not behind the gate, and the wait ends with the service.
    assert_eq!(server.get("/healthz").await.status(), 200);
    server.begin_stop();
    assert_eq!(waiting.await.unwrap(), 200, "the job as it stands");
}

#[tokio::test]
async fn one_queue_too_many_is_refused_by_both() {
    let server = Server::start(&[("QUEUES_MAX", "2"), ("QUEUES", "configured")]).await;
    for queue in ["a", "b", "a", "configured", "default"] {
        server.submit(&format!(r#"{{"tool":"echo","queue":"{queue}"}}"#)).await;
    }
    let body = problem(server.post("/v1/jobs", r#"{"tool":"echo","queue":"c"}"#).await).await;
    assert_eq!((&body["code"], &body["field"]), (&json!("too_many_requests"), &json!("queue")));
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("QUEUES_MAX") && detail.contains("the limit is 2"), "{detail}");
    assert!(body["retry_after_ms"].is_u64(), "{body}");
    let mut jobs = server.jobs().await;
    let request = pb::SubmitJobRequest { tool: "echo".into(), queue: "c".into(), ..Default::default() };
    let status = jobs.submit_job(request).await.unwrap_err();
    assert_eq!(refusal(&status), ("too_many_requests".into(), Some("queue".into())), "{status:?}");
}

#[tokio::test]
async fn jobs_for_later_are_bounded_apart_from_those_that_are_due() {
    let server = Server::start(&[("OUTBOX_MAX", "3"), ("SCHEDULED_MAX", "2")]).await;
    let later = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(100)).to_string();
    let delayed = format!(r#"{{"tool":"echo","run_at":"{later}"}}"#);
    server.submit(&delayed).await;
    server.submit(&delayed).await;
    let body = problem(server.post("/v1/jobs", delayed.clone()).await).await;
    assert_eq!(body["code"], "outbox_full");
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("SCHEDULED_MAX") && !detail.contains("NATS"), "{detail}");
    for _ in 0..3 {
        server.submit(r#"{"tool":"echo"}"#).await;
    }
    let body = problem(server.post("/v1/jobs", r#"{"tool":"echo"}"#).await).await;
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("OUTBOX_MAX") && detail.contains("NATS is unavailable"), "{detail}");
}
