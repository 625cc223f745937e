//! The queues that there are: which have workers, which have jobs, and how many there may be.
//!
//! A queue exists from its first job or its first worker. Submitters choose the names, so their number is bounded: each
//! has a place in the relay, and a consumer once a worker serves it. Workers are known from their heartbeats, including
//! those that other replicas received.

use crate::error::{Code, Error};
use crate::model::{Agent, Job, Presence, State};
use agentforge_message_id::Queue;
use agentforge_proto::time::Micros;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A queue named by a submission counts so long before its job is seen in the store or the stream.
const NEW_FOR: Duration = Duration::from_secs(30);
/// Served queues that a warning names.
const NAMED_MAX: usize = 8;

/// What is known of the queues. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct Queues(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    /// Those that always have a consumer.
    configured: BTreeSet<Queue>,
    /// How long a tool counts as there after the last word of a worker that has it.
    tool_grace: Duration,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Until when a worker's last word holds.
    served: HashMap<Queue, Micros>,
    /// Until when a tool counts as there, for each queue: also behind workers that have gone.
    tools: HashMap<Queue, HashMap<String, Micros>>,
    /// Those with jobs, in the store or in the stream.
    used: HashSet<Queue>,
    /// Those named by a submission lately.
    new: HashMap<Queue, Instant>,
}

impl Queues {
    /// At most `max` queues, in addition to those that are configured. A tool counts as available for `tool_grace`
    /// after the last heartbeat of a worker that has it.
    pub fn new(max: usize, configured: impl IntoIterator<Item = Queue>, tool_grace: Duration) -> Self {
        let configured = configured.into_iter().chain([Queue::default()]).collect();
        Self(Arc::new(Shared { max, configured, tool_grace, known: Mutex::default() }))
    }

    /// How long a tool may be missing before its job fails (TOOL_GRACE).
    pub fn tool_grace(&self) -> Duration {
        self.0.tool_grace
    }

    /// The tools that workers of this queue announced within the grace.
    pub fn tools_of(&self, queue: &Queue, now: Micros) -> HashSet<String> {
        let known = self.known();
        let tools = known.tools.get(queue).into_iter().flatten();
        tools.filter(|(_, until)| **until >= now).map(|(tool, _)| tool.clone()).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queues that always have a consumer: the default one and those of QUEUES.
    pub fn configured(&self) -> &BTreeSet<Queue> {
        &self.0.configured
    }

    /// The queues that have workers, jobs, or always a consumer: at most `max`.
    pub fn names(&self, max: usize) -> Vec<Queue> {
        let known = self.known();
        let all = self.configured().iter().chain(known.served.keys()).chain(&known.used).chain(known.new.keys());
        all.take(max).cloned().collect()
    }

    /// The bound (QUEUES_MAX).
    pub fn max(&self) -> usize {
        self.0.max
    }

    /// A worker announced which queues it serves.
    pub fn note_agent(&self, agent: &Agent) {
        let mut known = self.known();
        note(&mut known.served, agent, Micros::now());
        note_tools(&mut known.tools, agent, self.0.tool_grace);
    }

    /// Takes the workers that the store knows: what it does not know is served no more.
    pub fn set_agents(&self, agents: &[Agent]) {
        let (mut served, mut tools, now) = (HashMap::new(), HashMap::new(), Micros::now());
        agents.iter().for_each(|a| note(&mut served, a, now));
        agents.iter().for_each(|a| note_tools(&mut tools, a, self.0.tool_grace));
        let mut known = self.known();
        known.served = served;
        known.tools = tools;
    }

    /// Takes the queues that have jobs.
    pub fn set_used(&self, used: HashSet<Queue>) {
        let mut known = self.known();
        known.new.retain(|_, at| at.elapsed() < NEW_FOR);
        known.used = used;
    }

    /// Refuses a submission that would make one queue too many.
    ///
    /// # Errors
    /// `too_many_requests`, with the bound and its knob.
    pub fn admit(&self, queue: &Queue) -> Result<(), Error> {
        if self.0.configured.contains(queue) {
            return Ok(());
        }
        let mut known = self.known();
        if known.used.contains(queue) || known.served.contains_key(queue) || known.new.contains_key(queue) {
            return Ok(());
        }
        let Known { served, used, new, .. } = &mut *known;
        let others = served.keys().filter(|q| !used.contains(*q)).count();
        let named = new.keys().filter(|q| !used.contains(*q) && !served.contains_key(*q)).count();
        let n = used.len() + others + named;
        if n < self.0.max {
            new.insert(queue.clone(), Instant::now());
            return Ok(());
        }
        let message = format!(
            "{n} queues have jobs or workers, the limit is {} (QUEUES_MAX), and {queue} would be one more; \
             use a queue that exists, or wait until one is empty",
            self.0.max
        );
        Err(Error { field: Some("queue"), ..Error::new(Code::TooManyRequests, message) }
            .retry_after(Duration::from_secs(60)))
    }

    /// What is wrong with where an open job waits; `None` when a worker serves its queue.
    pub fn warning(&self, job: &Job) -> Option<String> {
        if !matches!(job.state, State::Accepted | State::Queued) {
            return None;
        }
        let (known, now) = (self.known(), Micros::now());
        if known.served.get(&job.queue).is_some_and(|until| *until >= now) {
            return None;
        }
        let mut served: Vec<&str> =
            known.served.iter().filter(|(_, until)| **until >= now).map(|(q, _)| q.as_str()).collect();
        served.sort_unstable();
        let more = served.len().saturating_sub(NAMED_MAX);
        served.truncate(NAMED_MAX);
        let queues = match (served.is_empty(), more) {
            (true, _) => "no worker is online".to_owned(),
            (false, 0) => format!("served are: {}", served.join(", ")),
            (false, more) => format!("served are: {} and {more} more", served.join(", ")),
        };
        Some(format!("no worker serves this queue ({}); {queues}", job.queue))
    }
}

/// Notes the queues of a worker that is here.
fn note(served: &mut HashMap<Queue, Micros>, agent: &Agent, now: Micros) {
    if agent.presence(now) != Presence::Online {
        return;
    }
    let until = agent.last_seen_at.plus(agent.interval * Agent::MISSED_BEATS_MAX);
    for queue in agent.queues.iter().filter_map(|q| Queue::new(q).ok()) {
        let other = served.entry(queue).or_insert(until);
        *other = (*other).max(until);
    }
}

/// Notes the tools of a worker, also of one that has gone: in a rolling update the next one may be on its way.
fn note_tools(tools: &mut HashMap<Queue, HashMap<String, Micros>>, agent: &Agent, grace: Duration) {
    let until = agent.last_seen_at.plus(grace.max(agent.interval * Agent::MISSED_BEATS_MAX));
    for queue in agent.queues.iter().filter_map(|q| Queue::new(q).ok()) {
        let of_queue = tools.entry(queue).or_default();
        for tool in &agent.tools {
            let other = of_queue.entry(tool.clone()).or_insert(until);
            *other = (*other).max(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> Queue {
        Queue::new(name).unwrap()
    }

    #[test]
    fn names_of_submitters_are_bounded() {
        let queues = Queues::new(3, [queue("configured")], Duration::ZERO);
        for name in ["a", "b", "c", "a", "configured", "default"] {
            queues.admit(&queue(name)).unwrap();
        }
        let e = queues.admit(&queue("d")).unwrap_err();
        assert_eq!((e.code, e.field), (Code::TooManyRequests, Some("queue")));
        assert!(e.message.contains("QUEUES_MAX") && e.message.contains('3'), "{e}");
        // Those that were named have jobs now; one is empty.
        queues.set_used([queue("a"), queue("b")].into());
        assert!(queues.admit(&queue("d")).is_err(), "c was named a moment ago");
        queues.known().new.clear();
        queues.admit(&queue("d")).unwrap();
        assert!(queues.admit(&queue("c")).is_err());
    }
}
