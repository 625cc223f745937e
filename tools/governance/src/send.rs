//! Sends one notice: to an HTTP endpoint, or to NATS, from where the broadcaster takes it to every endpoint that wants it.
//!
//! The only network of this crate besides the seeder's. Relies on `agentforge-egress` for which addresses may be called:
//! the URL is the operator's own word, so the host that it names is opened, and no other.

use agentforge_egress::{Policy, Timeouts, client, read_body_capped};
use agentforge_jetstream::{Nats, NatsConfig, publish};
use agentforge_message_id::MsgId;
use agentforge_terminal::{Failure, Result, runtime};
use serde_json::Value;
use std::time::Duration;
use url::Url;

/// Below it are the subjects of notices; the stream of events has them, so the broadcaster can send them.
pub const SUBJECT: &str = "agentforge.events.governance";
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an endpoint may take to answer.
const ANSWER: Duration = Duration::from_secs(15);
/// So much of an answer is read.
const ANSWER_BYTES_MAX: usize = 4_096;

/// Sends a notice to `target`: `https://…` and `http://…` are called, `nats://…` and `tls://…` are servers where it is
/// published below [`SUBJECT`] as `kind`. Sent twice under the same `id`, the stream keeps it once.
///
/// # Errors
/// It did not arrive; the message names the host and never the rest of the URL, which may be a secret.
pub fn send(target: &str, kind: &str, id: MsgId, notice: &Value) -> Result {
    let url = Url::parse(target).map_err(|e| Failure::usage(format!("the webhook is not a URL: {e}")))?;
    let runtime = runtime()?;
    let sent = runtime.block_on(async {
        match url.scheme() {
            "nats" | "tls" => to_stream(target, kind, id, notice).await,
            _ => to_endpoint(url, notice).await,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    sent
}

async fn to_endpoint(url: Url, notice: &Value) -> Result {
    let host = url.host_str().unwrap_or_default().to_owned();
    let (policy, _) = Policy::from_entries([host.trim_matches(['[', ']'])]);
    let timeouts = Timeouts { connect: CONNECT, total: ANSWER };
    let client = client(&policy, timeouts).map_err(|e| Failure::new(format!("{host}: {e}")))?;
    let request = client.request(reqwest::Method::POST, url).map_err(|e| Failure::usage(e.to_string()))?;
    let failed = |e: reqwest::Error| Failure::new(format!("{host} cannot be called: {}", chain(&e.without_url())));
    let response = request.json(notice).send().await.map_err(failed)?;
    let status = response.status();
    // The answer is read, so that the endpoint does not see a connection that breaks.
    let _ = read_body_capped(response, ANSWER_BYTES_MAX).await;
    if !status.is_success() {
        return Err(Failure::new(format!("{host} answers {status}")));
    }
    Ok(())
}

async fn to_stream(servers: &str, kind: &str, id: MsgId, notice: &Value) -> Result {
    let config = NatsConfig::for_url(servers).map_err(|e| Failure::usage(format!("the NATS servers: {e}")))?;
    let failed = |e: &dyn std::error::Error| Failure::new(format!("NATS: {}", chain(e)));
    let nats = Nats::connect(&config, "agentforge-governance").await.map_err(|e| failed(&e))?;
    if !nats.wait_connected(CONNECT).await {
        return Err(Failure::new(format!("NATS: no connection within {} s", CONNECT.as_secs())));
    }
    let subject = format!("{SUBJECT}.{kind}");
    let payload = notice.to_string().into_bytes().into();
    publish(&nats, subject, id, async_nats::HeaderMap::new(), payload).await.map_err(|e| failed(&e))?;
    Ok(())
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
