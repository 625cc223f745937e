//! One orchestrator in this process, on free ports, with its own data directory.

use agentforge_config::Reader;
use agentforge_harness::eventually;
use agentforge_orchestrator::{Config, Orchestrator};
use agentforge_proto::v1::jobs_client::JobsClient;
use agentforge_runtime::{Runtime, Service};
use reqwest::{Method, Response};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// Longest wait for anything that a test expects.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Stops when it is dropped, or with [`Server::stop`].
pub struct Server {
    pub http: String,
    pub grpc: String,
    pub client: reqwest::Client,
    runtime: Runtime,
    task: Option<JoinHandle<anyhow::Result<()>>>,
    pub data: TempDir,
}

impl Server {
    /// Starts one with these settings in addition to the usual ones, and waits until it is ready.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_with(None, settings).await
    }

    /// The same for a client of its own, such as one with a certificate.
    pub async fn start_for(client: reqwest::Client, settings: &[(&str, &str)]) -> Self {
        Self::start_with(Some(client), settings).await
    }

    async fn start_with(client: Option<reqwest::Client>, settings: &[(&str, &str)]) -> Self {
        let data = TempDir::new().unwrap();
        let runtime = Runtime::for_tests("orchestrator");
        let usual = [
            ("DATA_DIR", data.path().to_str().unwrap()),
            ("HTTP_PORT", "0"),
            ("GRPC_PORT", "0"),
            ("METRICS_PORT", "0"),
            // No listener there: jobs are accepted and stay so.
            ("NATS_URL", "nats://127.0.0.1:1"),
        ];
        let env: BTreeMap<String, String> =
            usual.iter().chain(settings).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut reader = Reader::new(&env);
        let config = Config::read(&mut reader);
        reader.finish().unwrap();
        let orchestrator = Orchestrator::build(config, runtime.clone()).await.unwrap();
        // The service brings the cryptography that clients use here.
        let usual = || reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
        let client = client.unwrap_or_else(usual);
        let endpoints = orchestrator.endpoints();
        let scheme = if endpoints.is_tls { "https" } else { "http" };
        let task = tokio::spawn(orchestrator.run());
        let server = Self {
            http: format!("{scheme}://{}", endpoints.http.unwrap()),
            grpc: format!("{scheme}://{}", endpoints.grpc.unwrap()),
            client,
            runtime,
            task: Some(task),
            data,
        };
        eventually(DEADLINE, "the orchestrator is ready", async || {
            let answer = server.client.get(format!("{}/readyz", server.http)).send().await;
            answer.is_ok_and(|a| a.status() == 200)
        })
        .await;
        server
    }

    pub fn begin_stop(&self) {
        self.runtime.stopping().cancel();
    }

    /// Stops and says how long that took.
    pub async fn stop(mut self) -> Duration {
        let begun = std::time::Instant::now();
        self.begin_stop();
        let task = self.task.take().unwrap();
        tokio::time::timeout(DEADLINE, task).await.expect("the stop ends in time").unwrap().unwrap();
        begun.elapsed()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.http)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Response {
        let json = "application/json";
        self.client.post(self.url(path)).header("content-type", json).body(body).send().await.unwrap()
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut request = self.client.request(method, self.url(path)).body(body.to_owned());
        if !body.is_empty() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    /// Submits and returns the job.
    pub async fn submit(&self, body: &str) -> Value {
        let answer = self.post("/v1/jobs", body.to_owned()).await;
        let status = answer.status();
        let job: Value = answer.json().await.unwrap();
        assert_eq!(status, 202, "{job}");
        job
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(self.grpc.clone()).unwrap().connect().await.unwrap()
    }

    pub async fn jobs(&self) -> JobsClient<Channel> {
        JobsClient::new(self.channel().await)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.begin_stop();
    }
}

/// The body of a refusal, once it is shown to be a whole problem.
pub async fn problem(answer: Response) -> Value {
    let status = answer.status();
    let headers = answer.headers().clone();
    let header = |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let text = answer.text().await.unwrap();
    assert_eq!(header("content-type"), "application/problem+json", "{status}: {text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["status"], status.as_u16(), "{body}");
    assert_eq!(body["request_id"], header("x-request-id"), "{body}");
    assert_eq!(body["type"], format!("/docs#{}", body["code"].as_str().unwrap()), "{body}");
    assert!(body["title"].as_str().is_some_and(|t| !t.is_empty()), "{body}");
    assert!(body["detail"].as_str().is_some_and(|t| !t.is_empty()), "{body}");
    if let Some(ms) = body["retry_after_ms"].as_u64() {
        assert_eq!(header("retry-after"), ms.div_ceil(1000).max(1).to_string(), "{body}");
    }
    body
}

/// A code and a field, from either protocol.
pub type Refusal = (String, Option<String>);

/// What a status contains besides its message.
pub fn refusal(status: &tonic::Status) -> Refusal {
    use tonic_types::StatusExt;
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "agentforge");
    let trailer = status.metadata().get("x-agentforge-code").map(|v| v.to_str().unwrap().to_owned());
    assert_eq!(trailer.as_deref(), Some(info.reason.as_str()));
    assert!(info.metadata.contains_key("request_id"), "{info:?}");
    let field = info.metadata.get("field").cloned();
    let violation = details.bad_request().map(|b| b.field_violations[0].field.clone());
    assert_eq!(field, violation);
    (info.reason.clone(), field)
}
