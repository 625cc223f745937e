//! A caller over REST, as any client would be: it remembers what was acknowledged, and nothing else.

use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

/// One orchestrator, as a caller sees it.
#[derive(Clone)]
pub struct Api {
    base: String,
    http: reqwest::Client,
}

/// An answer: status, Retry-After in seconds, body.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub retry_after: Option<u64>,
    pub body: Value,
}

impl Api {
    pub fn new(base: &str) -> Self {
        // The harness talks plain HTTP to loopback only, yet the client wants a TLS provider.
        agentforge_harness_tls();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        Self { base: base.trim_end_matches('/').to_owned(), http }
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        let sent = self.http.post(format!("{}{path}", self.base)).json(body).send().await?;
        read(sent).await
    }

    pub async fn post_bytes(&self, path: &str, body: Vec<u8>) -> Result<Answer, reqwest::Error> {
        let request = self.http.post(format!("{}{path}", self.base)).header("content-type", "application/json");
        read(request.body(body).send().await?).await
    }

    pub async fn get(&self, path: &str) -> Result<Answer, reqwest::Error> {
        read(self.http.get(format!("{}{path}", self.base)).send().await?).await
    }

    pub async fn text(&self, path: &str) -> Result<String, reqwest::Error> {
        self.http.get(format!("{}{path}", self.base)).send().await?.text().await
    }

    /// Submits and expects it to be stored.
    pub async fn submit(&self, body: Value) -> Value {
        let answer = self.post("/v1/jobs", &body).await.unwrap();
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
        answer.body
    }

    /// Submits `tool` with `args` and returns the id.
    pub async fn job(&self, tool: &str, args: Value) -> String {
        self.submit(json!({"tool": tool, "args": args})).await["id"].as_str().unwrap().to_owned()
    }

    /// The job, once it is final; at most 60 s.
    pub async fn finished(&self, id: &str) -> Value {
        let mut last = Value::Null;
        for _ in 0..6 {
            last = self.get(&format!("/v1/jobs/{id}?wait=10s")).await.unwrap().body;
            if is_final(&last) {
                return last;
            }
        }
        panic!("job {id} is not final after 60 s: {last}");
    }

    /// The job now.
    pub async fn read(&self, id: &str) -> Value {
        self.get(&format!("/v1/jobs/{id}")).await.unwrap().body
    }

    /// The sum of a metric's series that contain all of `labels`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        self.text("/metrics").await.map_or(f64::NAN, |page| metric_of(&page, name, labels))
    }
}

/// The sum of a metric's series on a page.
pub fn metric_of(page: &str, name: &str, labels: &[&str]) -> f64 {
    page.lines()
        .filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter(|l| labels.iter().all(|label| l.contains(label)))
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .fold(0.0, |sum, n| sum + n)
}

pub fn is_final(job: &Value) -> bool {
    matches!(job["state"].as_str(), Some("succeeded" | "failed" | "dead" | "cancelled" | "expired"))
}

async fn read(response: reqwest::Response) -> Result<Answer, reqwest::Error> {
    let status = response.status();
    let retry_after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
    let text = response.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer { status, retry_after, body })
}

fn agentforge_harness_tls() {
    let _ = agentforge_runtime::Process::for_tests();
}
