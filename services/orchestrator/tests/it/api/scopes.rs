//! A token with scopes sees and does what it is for, and nothing else is there for it: by REST and by gRPC.

use super::server::{Server, problem};
use agentforge_access::{Role, Scopes, TokenFile, digest};
use agentforge_proto::v1;
use agentforge_proto::v1::jobs_client::JobsClient;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Code;

const SUFFIX: &str = "-0123456789abcdef";

/// One that may do all, one for jobs of `echo` in queue `a`, an admin of queue `a`, and one for a site.
fn tokens(dir: &TempDir) -> String {
    let lines = [
        ("all", Role::Admin, &[][..]),
        ("mine", Role::Submit, &["queue:a", "tool:echo"]),
        ("chief", Role::Admin, &["queue:a"]),
        ("north", Role::Admin, &["site:north"]),
    ];
    let line = |(name, role, scopes): (&str, Role, &[&str])| {
        let scopes = Scopes::parse(scopes.iter().copied()).unwrap();
        TokenFile::line(name, role, &digest(format!("{name}{SUFFIX}")), None, &scopes)
    };
    let path = dir.path().join("tokens");
    std::fs::write(&path, lines.map(line).join("\n")).unwrap();
    path.display().to_string()
}

struct As<'s>(&'s Server, &'static str);

impl As<'_> {
    async fn send(&self, method: Method, path: &str, body: &Value) -> Response {
        let bearer = format!("Bearer {}{SUFFIX}", self.1);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.0.send(method, path, &headers, &text).await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.send(Method::GET, path, &Value::Null).await;
        assert_eq!(answer.status(), 200, "{} reads {path}", self.1);
        answer.json().await.unwrap()
    }

    async fn submit(&self, tool: &str, queue: &str) -> String {
        let answer = self.send(Method::POST, "/v1/jobs", &json!({"tool": tool, "queue": queue})).await;
        assert_eq!(answer.status(), 202, "{} submits {tool} to {queue}", self.1);
        answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
    }

    async fn refused(&self, method: Method, path: &str, body: Value, status: u16) {
        let answer = self.send(method.clone(), path, &body).await;
        assert_eq!(answer.status(), status, "{} {method} {path}", self.1);
        let code = if status == 404 { "not_found" } else { "permission_denied" };
        assert_eq!(problem(answer).await["code"], code, "{} {method} {path}", self.1);
    }

    async fn rpc<T>(&self, message: T) -> (JobsClient<tonic::transport::Channel>, tonic::Request<T>) {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {}{SUFFIX}", self.1).parse().unwrap());
        (self.0.jobs().await, request)
    }
}

fn ids(list: &Value) -> Vec<&str> {
    list["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn another_queues_jobs_do_not_exist_for_a_token_with_scopes() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(&[("ACCESS_TOKENS_FILE", &tokens(&dir))]).await;
    let (all, mine) = (As(&server, "all"), As(&server, "mine"));
    let others = [all.submit("echo", "b").await, all.submit("sh", "a").await];
    let own = mine.submit("echo", "a").await;

    for (tool, queue) in [("echo", "b"), ("sh", "a"), ("echo", "default")] {
        mine.refused(Method::POST, "/v1/jobs", json!({"tool": tool, "queue": queue}), 403).await;
    }
    let batch = json!([{"tool": "echo", "queue": "b"}, {"tool": "echo", "queue": "a"}]);
    let answer: Value = mine.send(Method::POST, "/v1/jobs:batch", &batch).await.json().await.unwrap();
    assert_eq!((answer["accepted"].as_u64(), answer["refused"].as_u64()), (Some(1), Some(1)), "{answer}");

    for id in &others {
        for path in ["", "/attempts", "/watch", "/output", "?wait=1s"] {
            mine.refused(Method::GET, &format!("/v1/jobs/{id}{path}"), Value::Null, 404).await;
        }
        for act in ["cancel", "retry"] {
            mine.refused(Method::POST, &format!("/v1/jobs/{id}/{act}"), Value::Null, 404).await;
        }
        assert_eq!(all.get(&format!("/v1/jobs/{id}")).await["state"], "accepted", "nothing was cancelled");
    }
    assert_eq!(mine.get(&format!("/v1/jobs/{own}")).await["id"], own.as_str());

    let seen = mine.get("/v1/jobs").await;
    assert!(ids(&seen).len() == 2 && ids(&seen).contains(&own.as_str()), "its own and that of the batch: {seen}");
    assert_eq!(ids(&all.get("/v1/jobs").await).len(), 4);
    let page = mine.get("/v1/jobs?limit=1").await;
    assert!(ids(&page).iter().all(|id| !others.iter().any(|o| o == id)), "{page}");
    for filter in ["queue=b", "tool=sh"] {
        mine.refused(Method::GET, &format!("/v1/jobs?{filter}"), Value::Null, 403).await;
    }
    let found = mine.get(&format!("/v1/jobs:find?prefix={}", &others[0][..13])).await;
    assert!(!found.to_string().contains(&others[0]), "{found}");
    let queues = mine.get("/v1/queues").await;
    assert!(queues.to_string().contains("\"a\"") && !queues.to_string().contains("\"b\""), "{queues}");
    mine.refused(Method::GET, "/v1/dead-letters?queue=b", Value::Null, 403).await;

    // What is about everything is not for a token with scopes, and jobs are not for a site's.
    for path in ["/v1/agents", "/v1/operations", "/v1/outbox/parked", "/v1/sites", "/v1/slo"] {
        As(&server, "chief").refused(Method::GET, path, Value::Null, 403).await;
    }
    let north = As(&server, "north");
    north.refused(Method::GET, "/v1/jobs", Value::Null, 403).await;
    north.refused(Method::GET, &format!("/v1/jobs/{own}"), Value::Null, 404).await;
    north.refused(Method::POST, "/v1/jobs", json!({"tool": "echo", "queue": "a"}), 403).await;
}

#[tokio::test]
async fn schedules_are_those_whose_jobs_are_within_the_scopes() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(&[("ACCESS_TOKENS_FILE", &tokens(&dir))]).await;
    let (all, chief) = (As(&server, "all"), As(&server, "chief"));
    let body =
        |name: &str, queue: &str| json!({"name": name, "cron": "0 3 1 1 *", "job": {"tool": "echo", "queue": queue}});
    let create = async |who: &As<'_>, name: &str, queue: &str| {
        let answer = who.send(Method::POST, "/v1/schedules", &body(name, queue)).await;
        assert_eq!(answer.status(), 201, "{name}");
        answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let (foreign, own) = (create(&all, "foreign", "b").await, create(&chief, "own", "a").await);
    chief.refused(Method::POST, "/v1/schedules", body("wish", "b"), 403).await;
    let change = json!({"job": {"tool": "echo", "queue": "b"}});
    chief.refused(Method::PATCH, &format!("/v1/schedules/{own}"), change, 403).await;
    for (method, path, body) in [
        (Method::GET, "", Value::Null),
        (Method::PATCH, "", json!({"cron": "* * * * *"})),
        (Method::POST, "/run", Value::Null),
        (Method::POST, "/pause", Value::Null),
        (Method::POST, "/resume", Value::Null),
        (Method::GET, "/next-runs", Value::Null),
        (Method::DELETE, "", Value::Null),
    ] {
        chief.refused(method, &format!("/v1/schedules/{foreign}{path}"), body, 404).await;
    }
    let list = chief.get("/v1/schedules").await;
    assert!(list.to_string().contains(&own) && !list.to_string().contains(&foreign), "{list}");
    let kept = all.get(&format!("/v1/schedules/{foreign}")).await;
    assert_eq!((kept["paused"].as_bool(), kept["cron"].as_str()), (Some(false), Some("0 3 1 1 *")));
}

/// Many at once are those of its scopes, and no more.
#[tokio::test]
async fn a_cancel_of_many_and_a_pause_stay_within_the_scopes() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(&[("ACCESS_TOKENS_FILE", &tokens(&dir))]).await;
    let (all, mine, chief) = (As(&server, "all"), As(&server, "mine"), As(&server, "chief"));
    let foreign = all.submit("echo", "b").await;
    let own = [all.submit("sh", "a").await, all.submit("echo", "a").await];
    let open = json!({"states": ["accepted", "queued", "running"]});
    mine.refused(Method::POST, "/v1/jobs:cancel", open.clone(), 403).await;
    let detached = json!({"states": ["accepted"], "async": true});
    chief.refused(Method::POST, "/v1/jobs:cancel", detached, 403).await;
    let named = json!({"states": ["accepted"], "queue": "b"});
    chief.refused(Method::POST, "/v1/jobs:cancel", named, 403).await;
    let post = async |path: &str, body: &Value| -> Value {
        let answer = chief.send(Method::POST, path, body).await;
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    };
    let mut dry = open.clone();
    dry["dry_run"] = json!(true);
    assert_eq!(post("/v1/jobs:cancel", &dry).await["matched"], 2);
    let by_id = post("/v1/jobs:cancel", &json!({"job_ids": [foreign]})).await;
    assert_eq!(
        (&by_id["cancelled"], &by_id["not_cancelled"][0]["reason"]),
        (&json!(0), &json!("there is no such job"))
    );
    assert_eq!(post("/v1/jobs:cancel", &open).await["cancelled"], 2);
    for id in own {
        assert_eq!(all.get(&format!("/v1/jobs/{id}")).await["state"], "cancelled");
    }
    assert_eq!(all.get(&format!("/v1/jobs/{foreign}")).await["state"], "accepted");
    assert_eq!(post("/v1/jobs:retry", &json!({"states": ["cancelled"]})).await["retried"], 2);

    for queue in ["b", "default"] {
        chief.refused(Method::POST, &format!("/v1/queues/{queue}/pause"), Value::Null, 403).await;
    }
    // A role below, and one tool of the queue, are not enough.
    mine.refused(Method::POST, "/v1/queues/a/pause", Value::Null, 403).await;
    let paused = post("/v1/queues/a/pause", &Value::Null).await;
    assert_eq!(paused["paused"]["by"], "chief", "{paused}");
    assert_eq!(post("/v1/queues/a/resume", &Value::Null).await["paused"], Value::Null);
}

#[tokio::test]
async fn grpc_has_the_same_walls() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(&[("ACCESS_TOKENS_FILE", &tokens(&dir))]).await;
    let (all, mine) = (As(&server, "all"), As(&server, "mine"));
    let foreign = all.submit("echo", "b").await;
    let own = mine.submit("echo", "a").await;
    let id = foreign.clone();

    let (mut jobs, request) = mine.rpc(v1::GetJobRequest { id: id.clone(), ..Default::default() }).await;
    assert_eq!(jobs.get_job(request).await.unwrap_err().code(), Code::NotFound);
    let (mut jobs, request) = mine.rpc(v1::WatchJobRequest { id: id.clone() }).await;
    assert_eq!(jobs.watch_job(request).await.unwrap_err().code(), Code::NotFound);
    let (mut jobs, request) = mine.rpc(v1::CancelJobRequest { id: id.clone() }).await;
    assert_eq!(jobs.cancel_job(request).await.unwrap_err().code(), Code::NotFound);
    let (mut jobs, request) = mine.rpc(v1::GetJobOutputRequest { id }).await;
    assert_eq!(jobs.get_job_output(request).await.unwrap_err().code(), Code::NotFound);
    let (mut jobs, request) = mine.rpc(v1::ListJobsRequest::default()).await;
    let listed = jobs.list_jobs(request).await.unwrap().into_inner().jobs;
    assert_eq!(listed.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), [own.as_str()]);

    // The stream of submissions is judged one by one, after its call was let in.
    let submission =
        |queue: &str| v1::SubmitJobRequest { tool: "echo".into(), queue: queue.into(), ..Default::default() };
    let sent = futures_util::stream::iter([submission("b"), submission("a")]);
    let (mut jobs, request) = mine.rpc(sent).await;
    let mut answers = jobs.submit_jobs(request).await.unwrap().into_inner();
    let mut outcomes = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        outcomes.push(match answer.outcome.unwrap() {
            v1::submit_jobs_response::Outcome::Accepted(_) => "accepted".to_owned(),
            v1::submit_jobs_response::Outcome::Refused(refused) => refused.code,
        });
    }
    assert_eq!(outcomes, ["permission_denied", "accepted"]);
}
