//! Gives every open state a timer: deadlines, lost messages, retention.
//!
//! A job that is queued or running for long is compared with the stream. While its message is
//! there, JetStream's ack wait is the timer. When it is gone, a result may be on its way; only when
//! `swarm_results` holds nothing older either, the attempt is published anew. The fence makes a
//! wrong guess harmless.

use crate::app::App;
use crate::metrics;
use crate::store::StaleJob;
use crate::transition::Change;
use agentforge_jetstream::Nats;
use agentforge_jetstream::subjects;
use agentforge_message_id::{JobId, Mission};
use agentforge_proto::time::Micros;
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Jobs looked at in one step.
const STEP: u32 = 200;
/// How often deadlines are looked at.
const DEADLINE_EVERY: Duration = Duration::from_millis(500);
/// How often finished jobs are pruned.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// Jobs pruned in one transaction.
const PRUNE_STEP: u32 = 500;
/// Agents not heard of for so long are forgotten.
const FORGET_AGENTS_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Ends jobs whose deadline passed, and tells their workers.
pub async fn expire_loop(app: App, stop: CancellationToken) -> Result<(), anyhow::Error> {
    while pause(&stop, DEADLINE_EVERY).await {
        loop {
            let now = Micros::now();
            let ids = match app.store().past_deadline(now, STEP).await {
                Ok(ids) => ids,
                Err(e) => {
                    metrics::DB_ERRORS.inc(&[]);
                    warn!(error = &e as &dyn std::error::Error, "deadlines could not be read; trying again");
                    break;
                }
            };
            let more = ids.len() >= STEP as usize;
            if app.expire(ids, now).await.is_err() || !more {
                break;
            }
        }
    }
    Ok(())
}

/// Deletes what is older than the retention, in small steps.
pub async fn prune_loop(app: App, retention: Duration, stop: CancellationToken) -> Result<(), anyhow::Error> {
    while pause(&stop, PRUNE_EVERY).await {
        let before = Micros::now().minus(retention);
        loop {
            match app.store().prune(before, PRUNE_STEP).await {
                Ok(0) => break,
                Ok(n) => metrics::JOBS_PRUNED.add(&[], n),
                Err(e) => {
                    warn!(error = &e as &dyn std::error::Error, "finished jobs could not be pruned; trying again");
                    break;
                }
            }
            // Callers' commits go first.
            if !pause(&stop, Duration::from_millis(50)).await {
                return Ok(());
            }
        }
        if let Err(e) = app.store().forget_agents(Micros::now().minus(FORGET_AGENTS_AFTER)).await {
            warn!(error = &e as &dyn std::error::Error, "agents could not be forgotten; trying again");
        }
    }
    Ok(())
}

/// Compares long queued and running jobs with the stream: at start all that run, later what is old.
pub async fn stale_loop(
    app: App,
    nats: Nats,
    mission: Mission,
    after: Duration,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let mut connected = nats.connected();
    let started = Micros::now();
    let mut first = true;
    loop {
        if connected.wait_for(|c| *c).now_or_stop(&stop).await.is_none() {
            return Ok(());
        }
        let before = if first { started } else { Micros::now().minus(after) };
        match step(&app, &nats, &mission, before, first).await {
            Ok(more) => {
                first = first && more;
                let rest = if more {
                    Duration::from_millis(50)
                } else {
                    (after / 4).clamp(Duration::from_millis(200), Duration::from_secs(30))
                };
                if !pause(&stop, rest).await {
                    return Ok(());
                }
            }
            Err(problem) => {
                warn!(problem, "queued and running jobs could not be compared with the stream; trying again");
                if !pause(&stop, Duration::from_secs(2)).await {
                    return Ok(());
                }
            }
        }
    }
}

/// One step; says whether there may be more.
async fn step(app: &App, nats: &Nats, mission: &Mission, before: Micros, first: bool) -> Result<bool, String> {
    let stale = app.store().stale(before, STEP).await.map_err(|e| e.to_string())?;
    if stale.is_empty() {
        return Ok(false);
    }
    let more = stale.len() >= STEP as usize;
    let stream = nats.jetstream().get_stream(subjects::STREAM_JOBS).await.map_err(|e| e.to_string())?;
    let mut gone = Vec::new();
    for job in &stale {
        if !has_message(&stream, job).await? {
            gone.push(job);
        }
    }
    let now = Micros::now();
    // At start only look: results of the last run are still to be read.
    if !gone.is_empty() && !first && results_are_drained(nats, mission).await? {
        republish(app, &gone, now).await?;
    }
    let seen: Vec<JobId> = stale.iter().map(|j| j.id).collect();
    app.store().touch(&seen, now).await.map_err(|e| e.to_string())?;
    Ok(more)
}

async fn has_message(stream: &Stream, job: &StaleJob) -> Result<bool, String> {
    let Some(seq) = job.stream_seq.and_then(|s| u64::try_from(s).ok()) else {
        return Ok(false);
    };
    match stream.direct_get(seq).await {
        Ok(message) => {
            let wanted = format!("{}:{}", job.id, job.attempt);
            let id = message.headers.get("Nats-Msg-Id").map(|v| v.as_str()).unwrap_or_default();
            Ok(id.strip_prefix(&wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')))
        }
        Err(e) if e.kind() == DirectGetErrorKind::NotFound => Ok(false),
        Err(e) => Err(e.to_string()),
    }
}

async fn results_are_drained(nats: &Nats, mission: &Mission) -> Result<bool, String> {
    let stream = nats.jetstream().get_stream(subjects::STREAM_RESULTS).await.map_err(|e| e.to_string())?;
    let durable = subjects::orchestrator_durable(mission);
    let info = stream.consumer_info(durable).await.map_err(|e| e.to_string())?;
    Ok(info.num_pending == 0 && info.num_ack_pending == 0)
}

async fn republish(app: &App, gone: &[&StaleJob], at: Micros) -> Result<(), String> {
    let changes: Vec<_> = gone.iter().map(|j| (j.id, Change::Republish { attempt: j.attempt, at })).collect();
    let outcomes = app.apply_reports(changes, vec![]).await.map_err(|e| e.to_string())?;
    let n = outcomes.iter().filter(|o| o.is_ok()).count();
    if n > 0 {
        metrics::REPUBLISHED.add(&[], n as u64);
        info!(jobs = n, "messages were gone from swarm_jobs without a result; published anew");
    }
    Ok(())
}

/// Waits; `false` when `stop` fired first.
pub async fn pause(stop: &CancellationToken, d: Duration) -> bool {
    tokio::time::timeout(d, stop.cancelled()).await.is_err()
}

trait OrStop: Future + Sized {
    /// The output, or `None` when `stop` fires first.
    async fn now_or_stop(self, stop: &CancellationToken) -> Option<Self::Output> {
        tokio::select! {
            out = self => Some(out),
            () = stop.cancelled() => None,
        }
    }
}

impl<F: Future> OrStop for F {}
