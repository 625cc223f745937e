//! Queues are paused and resumed, and every process learns of it.
//!
//! The row in the database is the pause: it holds across restarts and for every orchestrator. Each of them keeps the rows
//! in memory, so that a job asks no database whether it may leave.

use super::App;
use super::pauses::Pauses;
use super::queue_stats::QueueStats;
use crate::caller::Caller;
use crate::error::{Code, Error};
use crate::metrics;
use crate::model::{Job, State};
use crate::store::{Order, PAUSES_MAX, QueuePause};
use agentforge_access::Kind;
use agentforge_message_id::Queue;
use agentforge_proto::time::Micros;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long an answer waits for the server to follow. It follows later, too.
const EFFECT_MAX: Duration = Duration::from_secs(5);
/// How often the rows are read where others write them, or while they are not known yet.
const READ_INTERVAL: Duration = Duration::from_secs(1);

impl App {
    pub(crate) fn pauses(&self) -> &Pauses {
        &self.0.pauses
    }

    /// Pauses a queue: what is accepted for it waits, and what runs ends. One that is paused stays as it was.
    ///
    /// # Errors
    /// `invalid_argument`, `permission_denied`, `too_many_requests` when very many are paused, `unavailable`.
    pub async fn pause_queue(&self, caller: &Caller, name: &str) -> Result<QueueStats, Error> {
        let queue = self.recorded(caller, "queue", Some(name), self.holdable(name)).await?;
        if self.0.store.queue_pauses().await?.len() >= PAUSES_MAX as usize {
            let message = format!("{PAUSES_MAX} queues are paused, the most there may be; resume one");
            return Err(Error::new(Code::TooManyRequests, message).retry_after(EFFECT_MAX));
        }
        let (mission, by) = (self.mission().clone(), caller.name().to_owned());
        let pause = QueuePause { mission, queue: queue.clone(), since: Micros::now(), by };
        let entry = caller.entry().about("queue", Some(queue.to_string()));
        if self.order(Order::PauseQueue(pause), entry).await? > 0 {
            info!(%queue, by = caller.name(), "queue paused; its jobs wait");
        }
        self.followed(&queue).await
    }

    /// Resumes a queue. One that is not paused stays as it was.
    ///
    /// # Errors
    /// `invalid_argument`, `permission_denied`, `unavailable`.
    pub async fn resume_queue(&self, caller: &Caller, name: &str) -> Result<QueueStats, Error> {
        let queue = self.recorded(caller, "queue", Some(name), self.holdable(name)).await?;
        let entry = caller.entry().about("queue", Some(queue.to_string()));
        let order = Order::ResumeQueue { mission: self.mission().clone(), queue: queue.clone() };
        if self.order(order, entry).await? > 0 {
            info!(%queue, by = caller.name(), "queue resumed");
        }
        self.followed(&queue).await
    }

    /// What is wrong with where an open job waits.
    pub(super) fn warning(&self, job: &Job) -> Option<String> {
        let waits = matches!(job.state, State::Accepted | State::Queued);
        let pause = if waits { self.pauses().of(&job.queue) } else { None };
        match pause {
            Some(pause) => {
                let (queue, since, by) = (&pause.queue, pause.since.timestamp(), &pause.by);
                Some(format!("queue {queue} is paused since {since:.0} by {by}: its jobs wait until it is resumed"))
            }
            None => self.0.queues.warning(job),
        }
    }

    /// The queue as it is once the server follows, or as far as it has got.
    async fn followed(&self, queue: &Queue) -> Result<QueueStats, Error> {
        self.read_pauses().await?;
        self.pauses().take_effect(EFFECT_MAX).await;
        self.one_queue(queue).await
    }

    /// The queue of this name, where all of its jobs are within the scopes.
    fn holdable(&self, name: &str) -> Result<Queue, Error> {
        let queue = Queue::new(name).map_err(|e| Error::field("name", e.to_string()))?;
        // A token for one tool does not stop those of others: only scopes that name no tool take the empty name.
        if self.has_queue(self.mission().as_str(), queue.as_str()) && self.1.has(Kind::Tool, "") {
            return Ok(queue);
        }
        let message = format!("the token's scopes ({}) do not include all jobs of queue {queue}", self.1);
        Err(Error::new(Code::PermissionDenied, message))
    }

    /// The queues that are always there have a series from the start, so that a rule does not miss it.
    fn show_configured(&self) {
        let mission = metrics::mission_label(self.mission().as_str());
        for queue in self.queues().configured().iter().filter(|queue| !self.pauses().holds(queue.as_str())) {
            metrics::QUEUE_PAUSED.set(&[mission, metrics::queue_label(queue.as_str())], 0.0);
        }
    }

    /// Reads which queues are paused.
    ///
    /// # Errors
    /// `unavailable`; what was known stays.
    pub(crate) async fn read_pauses(&self) -> Result<(), Error> {
        let mut found = self.0.store.queue_pauses().await?;
        found.retain(|pause| pause.mission == *self.mission());
        let mission = metrics::mission_label(self.mission().as_str());
        let names: Vec<Queue> = found.iter().map(|pause| pause.queue.clone()).collect();
        for queue in self.pauses().set(found) {
            metrics::QUEUE_PAUSED.set(&[mission, metrics::queue_label(queue.as_str())], 0.0);
        }
        for queue in names {
            metrics::QUEUE_PAUSED.set(&[mission, metrics::queue_label(queue.as_str())], 1.0);
        }
        Ok(())
    }
}

/// Keeps what is known of the pauses true, until `stop` fires: other orchestrators write to a shared database. One that
/// only this process writes is read until it answers.
///
/// # Errors
/// Never; the type is the supervisor's.
pub(crate) async fn pauses_loop(app: App, stop: CancellationToken) -> Result<(), anyhow::Error> {
    let (mut is_known, mut is_logged) = (false, false);
    loop {
        if !is_known || app.0.store.is_shared() {
            match app.read_pauses().await {
                Ok(()) => {
                    if !is_known {
                        app.show_configured();
                    }
                    (is_known, is_logged) = (true, false);
                }
                Err(e) if !std::mem::replace(&mut is_logged, true) => {
                    warn!(
                        error = &e as &dyn std::error::Error,
                        "which queues are paused could not be read; trying again"
                    );
                }
                Err(_) => {}
            }
        }
        if !crate::reconcile::pause(&stop, READ_INTERVAL).await {
            return Ok(());
        }
    }
}
