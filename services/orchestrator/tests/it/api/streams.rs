//! Long answers: watches and streams of submissions, and how they end.

use super::server::{DEADLINE, Server, problem, refusal};
use agentforge_proto::v1 as pb;
use agentforge_proto::v1::submit_jobs_response::Outcome;
use futures_util::StreamExt;
use reqwest::Method;
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// The events of a stream, by name, until it ends.
async fn events(answer: reqwest::Response) -> Vec<(String, Value)> {
    let text = timeout(DEADLINE, answer.text()).await.expect("the stream ends").unwrap();
    let blocks = text.split("\n\n").filter(|b| b.contains("data: "));
    blocks
        .map(|block| {
            let line = |key: &str| block.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default().to_owned();
            (line("event: "), serde_json::from_str(&line("data: ")).unwrap())
        })
        .collect()
}

#[tokio::test]
async fn a_watch_tells_each_change_and_ends_when_the_job_is_final() {
    let server = Server::start(&[]).await;
    let job = server.submit(r#"{"tool":"echo"}"#).await;
    let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    let mut rpc = server.jobs().await;
    let id = job["id"].as_str().unwrap().to_owned();
    let mut rpc_watch = rpc.watch_job(pb::WatchJobRequest { id }).await.unwrap().into_inner();
    assert_eq!(rpc_watch.message().await.unwrap().unwrap().state(), pb::JobState::Accepted);

    let watch = server.get(&format!("{path}/watch")).await;
    assert_eq!(watch.headers()["content-type"], "text/event-stream");
    server.post(&format!("{path}/cancel"), "").await;
    let received = events(watch).await;
    assert!(received.iter().all(|(name, _)| name == "job"), "{received:?}");
    assert_eq!(received.last().unwrap().1["state"], "cancelled");
    let versions: Vec<_> = received.iter().map(|(_, job)| job["version"].as_i64().unwrap()).collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");

    assert_eq!(rpc_watch.message().await.unwrap().unwrap().state(), pb::JobState::Cancelled);
    assert!(rpc_watch.message().await.unwrap().is_none());
    // A job that is final already is reported once, even to a caller that saw another version of it.
    assert_eq!(events(server.get(&format!("{path}/watch")).await).await.len(), 1);
    let last = versions.last().unwrap().to_string();
    for seen in ["1", "rubbish", "-1"] {
        let watch = server.send(Method::GET, &format!("{path}/watch"), &[("last-event-id", seen)], "").await;
        assert_eq!((watch.status().as_u16(), events(watch).await.len()), (200, 1), "{seen}");
    }
    // A caller that has the final event learns that there is no more: an EventSource would ask forever.
    let watch = server.send(Method::GET, &format!("{path}/watch"), &[("last-event-id", &last)], "").await;
    assert_eq!((watch.status().as_u16(), watch.bytes().await.unwrap().len()), (204, 0));
}

#[tokio::test]
async fn watches_end_with_the_service() {
    let server = Server::start(&[]).await;
    let job = server.submit(r#"{"tool":"echo"}"#).await;
    let id = job["id"].as_str().unwrap().to_owned();
    let watch = server.get(&format!("/v1/jobs/{id}/watch")).await;
    let mut rpc_watch = server.jobs().await.watch_job(pb::WatchJobRequest { id }).await.unwrap().into_inner();
    rpc_watch.message().await.unwrap().unwrap();
    let stop = tokio::spawn(server.stop());
    let received = events(watch).await;
    // The event stream ends properly; a browser connects again by itself.
    assert_eq!((received.len(), &received[0].1["state"]), (1, &Value::from("accepted")), "{received:?}");
    let status = rpc_watch.message().await.unwrap_err();
    assert_eq!((status.code(), refusal(&status).0), (tonic::Code::Unavailable, "unavailable".into()));
    drop(rpc_watch);
    let took = stop.await.unwrap();
    assert!(took < Duration::from_secs(4), "the stop took {took:?} of 5 s of grace");
}

#[tokio::test]
async fn a_submission_may_wait_for_its_end() {
    let server = Server::start(&[]).await;
    // Nothing runs here: the wait ends by itself, and by a cancel.
    let answer = server.post("/v1/jobs?wait=20ms", r#"{"tool":"echo"}"#).await;
    assert_eq!((answer.status().as_u16(), &answer.json::<Value>().await.unwrap()["state"]), (202, &"accepted".into()));

    let id = "0199c0de-0000-7000-8000-000000000001";
    let request = pb::SubmitJobRequest {
        id: id.into(),
        tool: "echo".into(),
        wait: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
        ..Default::default()
    };
    let mut rpc = server.jobs().await;
    let waits = tokio::spawn(async move { rpc.submit_job(request).await });
    agentforge_harness::eventually(DEADLINE, "the job is stored", async || {
        server.post(&format!("/v1/jobs/{id}/cancel"), "").await.status() == 200
    })
    .await;
    let received = timeout(DEADLINE, waits).await.expect("the wait ends with the job").unwrap().unwrap().into_inner();
    let read = server.jobs().await.get_job(pb::GetJobRequest { id: id.into(), wait: None }).await.unwrap();
    assert_eq!(received.job.unwrap(), read.into_inner(), "answered from the commit and read from the store");

    let refused = server.post("/v1/jobs?wait=61s", r#"{"tool":"echo"}"#).await;
    let refused = problem(refused).await;
    assert_eq!((&refused["code"], &refused["field"]), (&"invalid_argument".into(), &"wait".into()), "{refused}");
    let nowhere_else = tokio_stream::iter([pb::SubmitJobRequest {
        tool: "echo".into(),
        wait: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..Default::default()
    }]);
    let mut answers = server.jobs().await.submit_jobs(nowhere_else).await.unwrap().into_inner();
    match answers.message().await.unwrap().unwrap().outcome {
        Some(Outcome::Refused(r)) => assert_eq!((r.code.as_str(), r.field.as_str()), ("invalid_argument", "wait")),
        other => panic!("{other:?}"),
    }
}

fn request(n: u64) -> pb::SubmitJobRequest {
    let tool = if n % 10 == 3 { "not a tool" } else { "echo" };
    pb::SubmitJobRequest { tool: tool.into(), args: format!("{{\"n\":{n}}}"), ..Default::default() }
}

#[tokio::test]
async fn a_stream_of_submissions_is_answered_in_order_and_in_place() {
    const N: u64 = 5_000;
    let server = Server::start(&[]).await;
    let answers = server.jobs().await.submit_jobs(tokio_stream::iter((0..N).map(request))).await.unwrap().into_inner();
    let answers: Vec<_> = timeout(DEADLINE, answers.map(Result::unwrap).collect()).await.unwrap();
    assert_eq!(answers.len() as u64, N);
    for (n, answer) in (0..N).zip(&answers) {
        assert_eq!(answer.index, n);
        match answer.outcome.as_ref().unwrap() {
            Outcome::Accepted(a) => assert!(a.created && n % 10 != 3),
            Outcome::Refused(r) => {
                assert_eq!((n % 10, r.code.as_str(), r.field.as_str()), (3, "invalid_argument", "tool"))
            }
        }
    }
    // Accepted means stored: the last of them can be read.
    let Some(Outcome::Accepted(last)) = answers.last().unwrap().outcome.clone() else { panic!("refused") };
    let job = server.jobs().await.get_job(pb::GetJobRequest { id: last.id, wait: None }).await.unwrap().into_inner();
    assert_eq!(job.args, format!("{{\"n\":{}}}", N - 1));
}

#[tokio::test]
async fn a_stop_ends_an_open_stream_after_its_answers() {
    let server = Server::start(&[]).await;
    let open = tokio_stream::iter((0..3).map(|_| request(0))).chain(tokio_stream::pending());
    let mut answers = server.jobs().await.submit_jobs(open).await.unwrap().into_inner();
    for n in 0..3 {
        assert_eq!(answers.message().await.unwrap().unwrap().index, n);
    }
    let stop = tokio::spawn(server.stop());
    let status = timeout(DEADLINE, answers.message()).await.unwrap().unwrap_err();
    assert_eq!((status.code(), refusal(&status).0), (tonic::Code::Unavailable, "unavailable".into()));
    drop(answers);
    let took = stop.await.unwrap();
    assert!(took < Duration::from_secs(4), "the stop took {took:?} of 5 s of grace");
}
