//! What people see of queues: what is open, who serves them, how fast they move, and whether they are paused.

use super::App;
use super::rates::{ByQueue, RATE_JOBS_MAX, RATE_WINDOW, key, rates_of};
use crate::error::Error;
use crate::model::{Agent, Presence};
use crate::store::{QueueCounts, QueuePause};
use agentforge_message_id::{Mission, Queue};
use agentforge_proto::time::Micros;
use std::collections::BTreeMap;

/// Workers read for the list of queues.
const AGENTS_MAX: u32 = 1_000;

/// A queue, who serves it, and how it moves.
#[derive(Clone, Debug)]
pub struct QueueStats {
    /// What is open in it.
    pub counts: QueueCounts,
    /// Workers online that serve it.
    pub workers: u32,
    /// Jobs that these run at once, in all their queues.
    pub capacity: u32,
    /// Jobs per second that workers ended, as of the last minute.
    pub ended_per_second: f64,
    /// Its pause.
    pub paused: Option<Paused>,
}

/// A pause as people see it.
#[derive(Clone, Debug)]
pub struct Paused {
    /// Since when, and by whom.
    pub pause: QueuePause,
    /// Whether the NATS server holds back what is in its stream already.
    pub in_effect: bool,
}

impl QueueStats {
    fn of(counts: QueueCounts) -> Self {
        Self { counts, workers: 0, capacity: 0, ended_per_second: 0.0, paused: None }
    }

    fn empty(mission: Mission, queue: Queue) -> Self {
        let (accepted, delayed, queued, running) = (0, 0, 0, 0);
        Self::of(QueueCounts { mission, queue, accepted, delayed, queued, running, oldest: None })
    }

    /// Jobs that are due and have not begun.
    pub const fn waiting(&self) -> u64 {
        self.counts.accepted + self.counts.queued
    }

    /// How long what waits takes at this rate, in seconds. Unknown while nothing ends, and while it is paused.
    pub fn drain_seconds(&self) -> Option<f64> {
        match self.waiting() {
            _ if self.paused.is_some() => None,
            0 => Some(0.0),
            waiting => (self.ended_per_second > 0.0).then(|| waiting as f64 / self.ended_per_second),
        }
    }
}

impl App {
    /// Queues with something open, queues that somebody serves, and queues that are paused.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn queue_stats(&self, mission: Option<&str>) -> Result<Vec<QueueStats>, Error> {
        let now = Micros::now();
        let counts = self.store().queue_counts(now).await?;
        let agents = self.store().agents(None, None, AGENTS_MAX).await?;
        let mut all = merged(counts, &agents, now);
        for pause in self.store().queue_pauses().await? {
            let in_effect = pause.mission == *self.mission()
                && self.pauses().of(&pause.queue).is_some()
                && self.pauses().is_in_effect();
            let nothing = || QueueStats::empty(pause.mission.clone(), pause.queue.clone());
            let paused = all.entry(key(&pause.mission, pause.queue.as_str())).or_insert_with(nothing);
            paused.paused = Some(Paused { pause, in_effect });
        }
        for (key, rate) in self.rates(now).await? {
            if let Some(queue) = all.get_mut(&key) {
                queue.ended_per_second = rate;
            }
        }
        let mut all: Vec<_> = all.into_values().collect();
        all.retain(|q| mission.is_none_or(|mission| q.counts.mission.as_str() == mission));
        all.retain(|q| self.has_queue(q.counts.mission.as_str(), q.counts.queue.as_str()));
        Ok(all)
    }

    /// One of them, empty where it is none.
    ///
    /// # Errors
    /// `unavailable`.
    pub(super) async fn one_queue(&self, queue: &Queue) -> Result<QueueStats, Error> {
        let mission = self.mission();
        let found = self.queue_stats(Some(mission.as_str())).await?.into_iter().find(|q| q.counts.queue == *queue);
        Ok(found.unwrap_or_else(|| QueueStats::empty(mission.clone(), queue.clone())))
    }

    /// Jobs per second that workers ended, by queue. One count at a time is under way; others wait for it.
    async fn rates(&self, now: Micros) -> Result<ByQueue, Error> {
        let mut last = self.0.rates.last().await;
        if let Some(rates) = last.fresh() {
            return Ok(rates);
        }
        let ended = self.store().ended_by_queue(now.minus(RATE_WINDOW), RATE_JOBS_MAX).await?;
        Ok(last.keep(rates_of(&ended, now)))
    }
}

/// Open jobs in addition to the workers present, in order of mission and queue.
fn merged(counts: Vec<QueueCounts>, agents: &[Agent], now: Micros) -> BTreeMap<(String, String), QueueStats> {
    let mut all: BTreeMap<_, _> =
        counts.into_iter().map(|c| (key(&c.mission, c.queue.as_str()), QueueStats::of(c))).collect();
    for agent in agents.iter().filter(|a| a.presence(now) == Presence::Online) {
        for queue in &agent.queues {
            let Ok(name) = Queue::new(queue.clone()) else { continue };
            let nothing = || QueueStats::empty(agent.mission.clone(), name);
            let served = all.entry(key(&agent.mission, queue)).or_insert_with(nothing);
            served.workers += 1;
            served.capacity = served.capacity.saturating_add(agent.capacity);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_backlog_is_known_while_jobs_end() {
        let mut queue = QueueStats::empty(Mission::new("dev").unwrap(), Queue::default());
        assert_eq!(queue.drain_seconds(), Some(0.0));
        (queue.counts.accepted, queue.counts.queued) = (10, 20);
        assert_eq!(queue.drain_seconds(), None, "nothing ends");
        queue.ended_per_second = 3.0;
        assert_eq!(queue.drain_seconds(), Some(10.0));
        let (mission, by) = (Mission::new("dev").unwrap(), "ops".to_owned());
        let pause = QueuePause { mission, queue: Queue::default(), since: Micros(1), by };
        queue.paused = Some(Paused { pause, in_effect: true });
        assert_eq!(queue.drain_seconds(), None, "it is paused");
    }
}
