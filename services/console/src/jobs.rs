//! Jobs at the orchestrator, submitted and cancelled in the name of a caller.

use crate::accounts::Identity;
use crate::intake::{Submit, SubmitError};
use agentforge_access::Principal;
use agentforge_egress::{Client, Policy, Timeouts, client, read_body_capped};
use async_trait::async_trait;
use reqwest::{Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tracing::warn;
use url::Url;
use uuid::Uuid;

/// Of one call, its answer included.
const CALL_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const ANSWER_MAX: usize = 2 * 1024 * 1024;
/// Characters of a refusal that are passed on.
const DETAIL_MAX: usize = 300;

/// The orchestrator's REST API.
pub struct Orchestrator {
    base: Option<Url>,
    client: Client,
    identity: Identity,
}

#[derive(Deserialize)]
struct Job {
    id: Uuid,
}

#[derive(Deserialize)]
struct Refusal {
    detail: Option<String>,
}

impl Orchestrator {
    /// At this address, if there is one.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(base: Option<Url>, identity: Identity) -> Result<Self, agentforge_egress::Error> {
        let host = base.as_ref().and_then(Url::host_str).unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // The operator's own word: it may be at a private address, and without TLS.
        let (policy, _) = Policy::from_entries([host].into_iter().filter(|host| !host.is_empty()));
        let client = client(&policy, Timeouts { connect: Duration::from_secs(3), total: CALL_MAX })?;
        Ok(Self { base, client, identity })
    }

    async fn call(&self, caller: &Principal, path: &str, body: &Value) -> Result<(StatusCode, Vec<u8>), String> {
        let base = self.base.as_ref().ok_or("ORCHESTRATOR_URL is not set")?;
        let url = format!("{}/{path}", base.as_str().trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|e| e.to_string())?;
        let request = self.client.request(Method::POST, url).map_err(|e| e.to_string())?;
        let request = request.header(header::AUTHORIZATION, self.identity.bearer(caller));
        let answer = request.json(body).send().await.map_err(|e| e.without_url().to_string())?;
        let status = answer.status();
        let body = read_body_capped(answer, ANSWER_MAX).await.map_err(|e| e.without_url().to_string())?;
        Ok((status, body.bytes))
    }
}

#[async_trait]
impl Submit for Orchestrator {
    async fn submit(&self, caller: &Principal, body: Value) -> Result<Uuid, SubmitError> {
        let (status, answer) = self.call(caller, "v1/jobs", &body).await.map_err(SubmitError::Unavailable)?;
        if status.is_success() {
            let job: Result<Job, _> = serde_json::from_slice(&answer);
            return job.map(|job| job.id).map_err(|e| SubmitError::Unavailable(format!("the answer has no job: {e}")));
        }
        let detail = serde_json::from_slice::<Refusal>(&answer).ok().and_then(|refusal| refusal.detail);
        let detail = detail.unwrap_or_else(|| format!("status {status}"));
        let detail: String = detail.chars().take(DETAIL_MAX).collect();
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => SubmitError::Forbidden(detail),
            StatusCode::TOO_MANY_REQUESTS => SubmitError::Unavailable(detail),
            status if status.is_client_error() => SubmitError::Refused(detail),
            _ => SubmitError::Unavailable(detail),
        })
    }

    async fn cancel(&self, caller: &Principal, job: Uuid) {
        let done = self.call(caller, &format!("v1/jobs/{job}/cancel"), &json!({})).await;
        match done {
            Ok((status, _)) if status.is_success() => {}
            Ok((status, _)) => warn!(%job, %status, "the job of an item that went another way was not cancelled"),
            Err(error) => warn!(%job, error, "the job of an item that went another way was not cancelled"),
        }
    }
}
