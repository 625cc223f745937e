//! The orchestrator as the process that is shipped, without NATS: what it accepts stays accepted.

use agentforge_harness::Proc;
use serde_json::Value;
use std::time::Duration;

/// How long a process may take to be ready on a busy machine.
const READY: Duration = Duration::from_secs(120);

pub struct Orchestrator {
    pub process: Proc,
    base: String,
    client: reqwest::Client,
}

impl Orchestrator {
    /// On a store, `postgres://…` or `sqlite://…`.
    pub async fn start(store: &str, settings: &[(&str, &str)]) -> Self {
        let mut process = Proc::builder(env!("CARGO_BIN_EXE_agentforge-orchestrator"))
            .env("ENV", "dev")
            // No listener there.
            .env("NATS_URL", "nats://127.0.0.1:1")
            .env("DATABASE_URL", store)
            .env("LOG_FORMAT", "json")
            .envs(["HTTP_PORT", "GRPC_PORT", "METRICS_PORT"].map(|port| (port, "0")))
            .envs(settings.iter().copied())
            .start();
        let ready = process.ready(READY).await;
        let base = ready["orchestrator"]["http"].as_str().unwrap().to_owned();
        // The client wants the process's TLS provider, though nothing here is encrypted.
        let _process = agentforge_runtime::Process::for_tests();
        let client = reqwest::Client::builder().no_proxy().timeout(READY).build().unwrap();
        Self { process, base, client }
    }

    /// Where it is reached.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// One request; the answer's status and JSON.
    pub async fn ask(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(reqwest::Method::POST, path, Some(body)).await;
        assert!((200..300).contains(&status), "POST {path}: {status} {answer}");
        answer
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask(reqwest::Method::GET, path, None).await;
        assert!((200..300).contains(&status), "GET {path}: {status} {answer}");
        answer
    }
}
