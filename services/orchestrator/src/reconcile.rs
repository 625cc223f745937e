//! Gives every open state a timer: deadlines, lost messages, retention.
//!
//! A job that is queued or running for long is compared with the stream. While its message exists, JetStream's ack wait
//! is the timer. When it is gone, a result may be on its way; only when everything that `swarm_results` held is
//! committed, the attempt is published again. The fence makes a wrong guess harmless. A deadline waits for the same.

use crate::app::App;
use crate::metrics;
use crate::model::State;
use crate::reports::{self, Horizon};
use crate::store::StaleJob;
use crate::transition::Change;
use agentforge_jetstream::Nats;
use agentforge_jetstream::subjects;
use agentforge_message_id::{JobId, Mission};
use agentforge_proto::time::Micros;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Jobs read in one step.
const STEP: u32 = 200;
/// Between two searches for deadlines that passed.
const DEADLINE_EVERY: Duration = Duration::from_millis(500);
/// Jobs checked between two passes, to see whether messages vanished.
const PROBE: u32 = 8;
/// How often that is done.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// A job that was published or seen by its worker within this is left alone: three beats of a worker.
const YOUNG: Duration = Duration::from_secs(15);
/// How long the reports that lie there may take to be committed, before the comparison is tried again.
const CAUGHT_UP: Duration = Duration::from_secs(5);
/// How often finished jobs are pruned.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// Jobs pruned in one transaction.
const PRUNE_STEP: u32 = 500;
/// Agents that were last heard from this long ago are removed.
const FORGET_AGENTS_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Ends jobs whose deadline passed, and notifies their workers. A published one ends only when all reports that were
/// stored by then are committed: it may have completed, with its report still unread.
pub async fn expire_loop(app: App, nats: Nats, mission: Mission, stop: CancellationToken) -> Result<(), anyhow::Error> {
    let mut horizon = Horizon::new();
    while pause(&stop, DEADLINE_EVERY).await {
        let now = Micros::now();
        // If nothing is overdue, the server is not asked.
        let overdue = app.past_deadline(now, now, 1).await;
        let read_to = match overdue {
            Ok(ids) if ids.is_empty() => continue,
            _ => horizon.advance(&nats, &mission, now).await,
        };
        loop {
            let ids = match app.past_deadline(now, read_to, STEP).await {
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
            match app.prune(before, PRUNE_STEP).await {
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
        if let Err(e) = app.forget_workers(Micros::now().minus(FORGET_AGENTS_AFTER)).await {
            warn!(error = &e as &dyn std::error::Error, "old agents could not be removed; trying again");
        }
    }
    Ok(())
}

/// Compares long queued and running jobs with the stream: at start all that run, later old ones, and all of them at
/// once when the stream was recreated or messages turn out to be gone before their time.
pub async fn stale_loop(
    app: App,
    nats: Nats,
    mission: Mission,
    after: Duration,
    mut renewed: watch::Receiver<u64>,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let mut connected = nats.connected();
    let mut pass = Pass { before: Some(Micros::now()), runners_beat: false };
    let mut probe_at = Instant::now() + PROBE_EVERY;
    let mut logged = String::new();
    loop {
        if connected.wait_for(|c| *c).now_or_stop(&stop).await.is_none() {
            return Ok(());
        }
        if renewed.has_changed().unwrap_or(false) {
            renewed.borrow_and_update();
            pass = Pass::of_all();
        }
        if pass.before.is_none() && Instant::now() >= probe_at {
            probe_at = Instant::now() + PROBE_EVERY;
            if some_are_gone(&app, &nats).await.unwrap_or(false) {
                pass = Pass::of_all();
            }
        }
        let before = pass.before.unwrap_or_else(|| Micros::now().minus(after));
        let rest = match step(&app, &nats, &mission, before, pass.runners_beat).await {
            Ok(true) => Duration::from_millis(50),
            Ok(false) => {
                pass = Pass::default();
                logged.clear();
                (after / 4).clamp(Duration::from_millis(200), PROBE_EVERY)
            }
            Err(problem) => {
                if logged != problem {
                    warn!(problem, "queued and running jobs could not be compared with the stream; trying again");
                    logged = problem;
                }
                Duration::from_secs(2)
            }
        };
        tokio::select! {
            is_on = pause(&stop, rest) => if !is_on { return Ok(()) },
            Ok(()) = renewed.changed() => renewed.mark_changed(),
        }
    }
}

/// One time through the jobs that are published.
#[derive(Default)]
struct Pass {
    /// Those not checked since then; without it, those that are old.
    before: Option<Micros>,
    /// Workers have had the time to say what they run.
    runners_beat: bool,
}

impl Pass {
    /// All but the youngest, whose messages or reports may be on their way.
    fn of_all() -> Self {
        Self { before: Some(Micros::now().minus(YOUNG)), runners_beat: true }
    }
}

/// Whether a message of one of the jobs that were checked longest ago is gone although the job is old enough: the
/// stream was purged, or removed unnoticed.
async fn some_are_gone(app: &App, nats: &Nats) -> Result<bool, String> {
    let sample = app.stale(Micros::now().minus(YOUNG), PROBE).await.map_err(|e| e.to_string())?;
    if sample.is_empty() {
        return Ok(false);
    }
    let stream = jobs_stream(nats).await?;
    for job in &sample {
        if !has_message(&stream, job).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn jobs_stream(nats: &Nats) -> Result<Stream, String> {
    nats.jetstream().get_stream(subjects::STREAM_JOBS).await.map_err(|e| {
        if matches!(e.kind(), GetStreamErrorKind::JetStream(_)) {
            nats.missing().note(subjects::STREAM_JOBS);
        }
        format!("{}: {e}", subjects::STREAM_JOBS)
    })
}

/// One step; says whether there may be more.
async fn step(app: &App, nats: &Nats, mission: &Mission, before: Micros, runners_beat: bool) -> Result<bool, String> {
    let stale = app.stale(before, STEP).await.map_err(|e| e.to_string())?;
    if stale.is_empty() {
        return Ok(false);
    }
    let more = stale.len() >= STEP as usize;
    let stream = jobs_stream(nats).await?;
    let mut gone = Vec::new();
    for job in &stale {
        if !has_message(&stream, job).await? {
            gone.push(job);
        }
    }
    let now = Micros::now();
    // A worker that runs a job reports it with each heartbeat, which counts as a check. After a start, none had the
    // time.
    gone.retain(|job| runners_beat || job.state != State::Running);
    if !gone.is_empty() {
        // What is acknowledged was reported before: with all reports committed, only what is lost is still open.
        reports::caught_up(nats, mission, CAUGHT_UP).await?;
        republish(app, &gone, now).await?;
    }
    let seen: Vec<JobId> = stale.iter().map(|j| j.id).collect();
    app.note_checked(&seen, now).await.map_err(|e| e.to_string())?;
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

async fn republish(app: &App, gone: &[&StaleJob], at: Micros) -> Result<(), String> {
    let changes: Vec<_> = gone.iter().map(|j| (j.id, Change::Republish { attempt: j.attempt, at })).collect();
    let outcomes = app.apply_reports(changes, vec![]).await.map_err(|e| e.to_string())?;
    let n = outcomes.iter().filter(|o| o.is_ok()).count();
    if n > 0 {
        metrics::REPUBLISHED.add(&[], n as u64);
        info!(jobs = n, "messages were gone from swarm_jobs without a result; published again");
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
