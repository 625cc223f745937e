//! `agentforge verify`: whether an installation does its work, asked from outside as a user would.
//!
//! Every check is made, regardless of the earlier ones, and each reports what it saw. Leaves one small job behind.

use super::backlog::{Outcome, Workload, submit_and_drain};
use crate::context::Context;
use agentforge_client::{rest, view::state_word};
use agentforge_proto::v1::{self, AgentStatus, JobState};
use agentforge_terminal::{
    Explain, FAILED, Failure, GREEN, RED, Result, clean, duration, short_duration, styled, until_final,
};
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;

/// Agents looked through.
const AGENTS: u32 = 200;
/// Between two checks for a worker.
const LOOKS_EVERY: Duration = Duration::from_millis(250);
/// The maximum length of a detail.
const DETAIL_CHARS: usize = 200;

/// What to ask.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge verify                                       what `agentforge dev` runs here
  agentforge verify --server https://forge.example --http http://orchestrator:8080 --json
  agentforge verify --backlog 500                         and drain 500 jobs
  agentforge verify --headers https://console.example     only the headers of these pages

Exit code 1 when a check fails.")]
pub struct Args {
    /// The orchestrator's HTTP address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    http: String,
    /// The NATS exporter's address: whether it reports the workers' queue
    #[arg(long, value_name = "URL")]
    exporter: Option<String>,
    /// How long a job may take; workers that were scaled to zero have to start first
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    wait: Duration,
    /// Also drain a backlog of this many jobs
    #[arg(long, value_name = "N")]
    backlog: Option<u64>,
    /// How long the backlog may take
    #[arg(long, value_name = "DURATION", default_value = "20m", value_parser = duration)]
    cap: Duration,
    /// Only check the security headers of these addresses, direct or behind a proxy
    #[arg(long, value_name = "URL", num_args = 1.., conflicts_with_all = ["exporter", "backlog"])]
    headers: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

impl Check {
    fn new(name: &'static str, seen: Result<String, String>) -> Self {
        let ok = seen.is_ok();
        Self { name, ok, detail: clean(&seen.unwrap_or_else(|e| e), DETAIL_CHARS) }
    }
}

/// Makes the checks.
///
/// # Errors
/// Exit code 1 when one of them failed.
pub async fn run(args: Args, context: &Context) -> Result {
    if !args.headers.is_empty() {
        let mut checks = Vec::new();
        for url in &args.headers {
            let seen = super::headers::check(url).await;
            checks.push(Check::new(
                "headers",
                seen.map(|seen| format!("{url} {seen}")).map_err(|e| format!("{url} {e}")),
            ));
        }
        return report(&checks, context);
    }
    let mut checks =
        vec![Check::new("orchestrator is ready", rest::is_ready(&args.http).await.map(|()| args.http.clone()))];
    checks.push(Check::new("NATS will do", nats(&args.http).await));
    let job = echo(context, args.wait).await;
    let mission = job.as_ref().map(|job| job.mission.clone()).unwrap_or_default();
    checks.push(Check::new("a job runs", job.map(|job| job.id)));
    checks.push(Check::new("workers are online", online(context, args.wait).await));
    if let Some(url) = &args.exporter {
        checks.push(Check::new("the exporter reports the queue", exported(url, &mission).await));
    }
    if let Some(count) = args.backlog {
        let workload = Workload { count, queue: String::new(), tool: "echo".to_owned() };
        let outcome = submit_and_drain(&context.client, &workload, args.cap, None, |_| {}).await;
        let seen = match outcome {
            Outcome::Drained { seconds, .. } => {
                Ok(format!("{count} jobs in {}", short_duration(Duration::from_secs_f64(seconds))))
            }
            other => Err(other.words()),
        };
        checks.push(Check::new("a backlog drains", seen));
    }
    report(&checks, context)
}

fn report(checks: &[Check], context: &Context) -> Result {
    let ok = checks.iter().all(|check| check.ok);
    if context.out.json {
        context.out.document(&serde_json::json!({ "ok": ok, "checks": checks }))?;
    } else {
        for check in checks {
            let word = if check.ok { styled(GREEN, "ok    ") } else { styled(RED, "failed") };
            context.out.line(format!("{word} {}: {}", check.name, check.detail))?;
        }
    }
    if ok { Ok(()) } else { Err(Failure::quiet(FAILED)) }
}

/// What the orchestrator reports about its NATS server: one that is too old fails, one newer than those tested is
/// reported.
async fn nats(http: &str) -> Result<String, String> {
    let body = rest::page(http, "/readyz").await?;
    let body: serde_json::Value = serde_json::from_str(&body).map_err(|e| format!("/readyz is not JSON: {e}"))?;
    let nats = &body["checks"]["nats"];
    let words = nats["detail"].as_str().unwrap_or("nothing is said of it").to_owned();
    if nats["ok"] == true { Ok(words) } else { Err(words) }
}

/// A job from the submission to its result.
async fn echo(context: &Context, wait: Duration) -> Result<v1::Job, String> {
    let began = Instant::now();
    let request = v1::SubmitJobRequest { tool: "echo".into(), args: r#"{"verify":true}"#.into(), ..Default::default() };
    let client = &context.client;
    let submitted = client.jobs().submit_job(client.request(request)).await;
    let submitted = submitted.map_err(|status| client.failure("submitting a job", &status).message)?;
    let id = submitted.into_inner().job.ok_or("the answer to a submission is empty")?.id;
    let job = until_final(client, &id, began, Some(wait), false).await.map_err(|failure| failure.message)?;
    let echoed = job.result.as_deref().and_then(|result| serde_json::from_str::<serde_json::Value>(result).ok());
    let is_right = echoed == Some(serde_json::json!({"verify": true}));
    match job.state() {
        JobState::Succeeded if is_right => Ok(job),
        JobState::Succeeded => Err(format!("job {id} came back as {:?}", job.result)),
        state => Err(format!("job {id} ended {}", state_word(state))),
    }
}

/// A worker shows itself with its first heartbeat, which may come after its first job.
async fn online(context: &Context, wait: Duration) -> Result<String, String> {
    let (began, client) = (Instant::now(), &context.client);
    loop {
        let request = v1::ListAgentsRequest { status: AgentStatus::Online as i32, limit: AGENTS, ..Default::default() };
        let answer = client.agents().list_agents(client.request(request)).await;
        let agents = answer.map_err(|status| client.failure("listing agents", &status).message)?.into_inner().agents;
        match agents.len() {
            0 if began.elapsed() < wait => tokio::time::sleep(LOOKS_EVERY).await,
            0 => return Err("no worker has shown itself".to_owned()),
            n => return Ok(format!("{n}")),
        }
    }
}

async fn exported(url: &str, mission: &str) -> Result<String, String> {
    let page = rest::page(url, "/metrics").await?;
    let consumer = format!("consumer=\"worker-{mission}\"");
    let found = page.lines().find(|l| l.starts_with("nats_jetstream_consumer_num_pending{") && l.contains(&consumer));
    found.map(str::to_owned).ok_or_else(|| format!("no series of {consumer}"))
}
