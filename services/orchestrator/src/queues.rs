//! Keeps what is known of the queues true: who serves them, which have jobs, and which consumers are of no use.
//!
//! Every replica does this for itself, from what the store and the server say: what one of them removes, none of
//! the others makes again.

use crate::app::App;
use crate::consumers::{AGENTS_MAX, QueueConsumers};
use crate::metrics;
use crate::model::{Agent, Presence};
use crate::reconcile::pause;
use crate::relay::StreamCapacity;
use crate::store;
use agentforge_jetstream::{Nats, subjects};
use agentforge_message_id::Queue;
use agentforge_proto::time::Micros;
use async_nats::jetstream::consumer;
use futures_util::TryStreamExt;
use std::collections::{BTreeSet, HashSet};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Between two readings of the workers and of the queues with jobs.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);
/// Pages of workers read, at most.
const PAGES_MAX: usize = 50;
/// Shortest and longest time between two sweeps of idle consumers.
const SWEEP_INTERVAL: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// What the keeper works with.
pub struct Keeper {
    /// The store, and what callers learn.
    pub app: App,
    /// The connection by which idle consumers are found and removed.
    pub nats: Nats,
    /// Queues that are to have a consumer.
    pub consumers: QueueConsumers,
    /// Which queues have messages in `swarm_jobs`.
    pub capacity: StreamCapacity,
    /// When an idle consumer goes.
    pub idle_after: Duration,
}

impl Keeper {
    /// Runs until `stop` fires.
    ///
    /// # Errors
    /// Never; the type is the supervisor's.
    pub async fn run(self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let every = (self.idle_after / 4).clamp(SWEEP_INTERVAL.0, SWEEP_INTERVAL.1);
        let mut sweep_at = Instant::now() + every;
        loop {
            self.refresh().await;
            if Instant::now() >= sweep_at && self.nats.is_connected() {
                sweep_at = Instant::now() + every;
                if let Err(problem) = self.sweep().await {
                    warn!(problem, "idle consumers could not be listed; trying again");
                }
            }
            if !pause(&stop, CHECK_INTERVAL.min(every)).await {
                return Ok(());
            }
        }
    }

    /// Who serves what, and which queues have jobs.
    async fn refresh(&self) {
        if let Ok(agents) = agents(&self.app).await {
            self.app.queues().set_agents(&agents);
        }
        if let Ok(waiting) = self.app.queues_with_jobs().await {
            let used: HashSet<Queue> = waiting.into_iter().chain(self.capacity.queues()).collect();
            self.app.queues().set_used(used);
        }
    }

    /// The queues of which a worker was heard within the idle time.
    async fn wanted(&self) -> Result<BTreeSet<Queue>, String> {
        let agents = agents(&self.app).await;
        let now = Micros::now();
        let since = now.minus(self.idle_after);
        let is_near = |a: &Agent| a.last_seen_at >= since || a.presence(now) == Presence::Online;
        let agents = agents.map_err(|e| e.to_string())?.into_iter().filter(is_near);
        let announced = agents.flat_map(|a| a.queues).filter_map(|q| Queue::new(q).ok());
        Ok(announced.chain(self.app.queues().configured().iter().cloned()).collect())
    }

    async fn sweep(&self) -> Result<(), String> {
        let wanted = self.wanted().await?;
        self.consumers.keep(&wanted);
        let prefix = format!("{}_", subjects::worker_durable(self.app.mission(), &Queue::default()));
        let stream =
            self.nats.jetstream().get_stream_no_info(subjects::STREAM_JOBS).await.map_err(|e| e.to_string())?;
        let mut consumers = stream.consumers();
        let mut idle = Vec::new();
        while let Some(info) = consumers.try_next().await.map_err(|e| e.to_string())? {
            let Some(queue) = info.name.strip_prefix(&prefix).and_then(|q| Queue::new(q).ok()) else { continue };
            if !wanted.contains(&queue) && is_idle(&info, self.idle_after) {
                idle.push((queue, info.name));
            }
        }
        for (queue, name) in idle {
            match stream.delete_consumer(&name).await {
                Ok(_) => {
                    metrics::CONSUMERS_REMOVED.inc(&[]);
                    info!(%queue, consumer = name, idle_after = ?self.idle_after, "no worker and no job: the queue's consumer is removed");
                }
                Err(error) => debug!(%error, consumer = name, "an idle consumer was not removed"),
            }
        }
        Ok(())
    }
}

/// All workers of the mission, page by page: ids of those that are gone stay among them for a day.
async fn agents(app: &App) -> Result<Vec<Agent>, store::Error> {
    let mut all: Vec<Agent> = Vec::new();
    for _ in 0..PAGES_MAX {
        let after = all.last().map(|a| a.id.to_string());
        let page = app.workers(Some(app.mission()), after.as_deref(), AGENTS_MAX).await?;
        let is_last = page.len() < AGENTS_MAX as usize;
        all.extend(page);
        if is_last {
            break;
        }
    }
    Ok(all)
}

/// No request waits at it, nothing waits in it, and nothing has happened for this long. A new server may have forgotten
/// what happened: then the time since the consumer was created counts.
fn is_idle(info: &consumer::Info, after: Duration) -> bool {
    let moments = [Some(info.created), info.delivered.last_active, info.ack_floor.last_active];
    let last = moments.into_iter().flatten().max().unwrap_or(info.created);
    let last = i64::try_from(last.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX);
    let silent = Micros::now().since(Micros(last));
    info.num_pending == 0 && info.num_ack_pending == 0 && info.num_waiting == 0 && silent >= after
}
