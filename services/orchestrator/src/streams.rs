//! Keeps streams, consumers and buckets as planned, for as long as the orchestrator runs.
//!
//! Where the topology makes the streams (`NATS_TOPOLOGY=wait`), this looks at them, and makes the consumers of queues.
//!
//! Checks when it starts, when the connection is back, when a queue is new, whenever an object was reported missing
//! (`Nats::missing`), and every few seconds anyway: what an operator or a tool removes under a connected system would
//! otherwise go unnoticed while nothing is in transit. What cannot be created as planned shuts the gate, and is tried
//! again. Only at a start does an unfit stream end the service.

use crate::app::App;
use crate::consumers::{AGENTS_MAX, QueueConsumers};
use crate::metrics;
use crate::model::Presence;
use crate::reconcile::pause;
use agentforge_jetstream::{Nats, subjects, topology};
use agentforge_message_id::{Mission, Queue};
use agentforge_proto::time::Micros;
use agentforge_runtime::Gate;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Between two periodic checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Between two tries at what is not as planned: about this, doubled each time …
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// … up to this.
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(8);
/// A server that starts has no JetStream for a moment; after this many checks in a row it is off.
const OFF_AFTER: u32 = 3;
/// This many seconds of refused credentials are not temporary, such as a login service that restarts.
const REFUSED_AFTER: u32 = 5;
/// Between any two checks: reports arrive in bursts.
const BREATH: Duration = Duration::from_millis(200);

/// What the rest of the service learns.
pub struct Signals {
    /// True once results can be taken.
    pub ready: watch::Sender<bool>,
    /// Changes when `swarm_jobs` is another one than before: its messages are gone.
    pub renewed: watch::Sender<u64>,
    /// Shut while something is not as planned.
    pub gate: Gate,
}

/// Makes streams and the consumers of all known queues as they should be, and keeps them so until `stop` fires.
///
/// # Errors
/// At the first check: a stream that exists and cannot be made to fit.
pub async fn run(
    app: App,
    nats: Nats,
    settings: (topology::TopologyConfig, Mission, topology::Maker),
    consumers: QueueConsumers,
    signals: Signals,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let (config, mission, maker) = settings;
    // Workers that were here a moment ago find their consumers at once.
    if let Ok(agents) = app.workers(Some(&mission), None, AGENTS_MAX).await {
        let online = agents.iter().filter(|a| a.presence(Micros::now()) == Presence::Online);
        online.flat_map(|a| &a.queues).filter_map(|q| Queue::new(q).ok()).for_each(|q| consumers.note(&q));
    }
    let (mut queues, mut complaints) = (consumers.changes(), nats.missing().reports());
    let mut pauses = app.pauses().changes();
    let mut connected = nats.connected();
    let mut state = State::default();
    loop {
        if !wait_connected(&nats, &signals.gate, &stop).await {
            return Ok(());
        }
        queues.borrow_and_update();
        complaints.borrow_and_update();
        // What the database says now: a consumer that is made is paused from its first moment.
        let is_known = app.read_pauses().await.is_ok();
        let change = *pauses.borrow_and_update();
        let (served, paused) = (consumers.queues(), app.pauses().queues());
        let mut plan = topology::plan(&config, &mission, &served);
        topology::pause(&mut plan, &mission, &paused);
        let inspection = tokio::select! {
            inspection = topology::keep(nats.jetstream(), &plan, maker) => inspection,
            () = stop.cancelled() => return Ok(()),
        };
        let names = served.iter().map(|queue| (queue, subjects::worker_durable(&mission, queue)));
        let is_resumed = resume(&app, &nats, names, &inspection.paused).await;
        let is_of_jobs = |e: &topology::Error| e.name() == subjects::STREAM_JOBS || e.name().starts_with("worker-");
        if is_known && is_resumed && !inspection.faults.iter().any(is_of_jobs) {
            app.pauses().set_in_effect(change);
        }
        if let Some(unfit) = state.take_in(inspection, &plan, &nats, &signals).await {
            return Err(anyhow::Error::from(unfit).context("streams or consumers do not fit"));
        }
        if !pause(&stop, BREATH).await {
            return Ok(());
        }
        tokio::select! {
            new = queues.changed() => new?,
            changed = pauses.changed() => changed?,
            reported = complaints.changed(), if state.failures == 0 => reported?,
            // A server that lost its data comes back without streams.
            lost = connected.wait_for(|c| !*c) => { let _ = lost?; }
            () = tokio::time::sleep(if is_resumed { state.rest() } else { RETRY_INTERVAL }) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Has consumers deliver again that were found paused, and says whether all do. The database is asked before each: it may
/// have been paused since the plan was made, by another orchestrator. And after it, in case that was just now.
async fn resume<'q>(
    app: &App,
    nats: &Nats,
    names: impl Iterator<Item = (&'q Queue, String)>,
    found: &[String],
) -> bool {
    let mut all = true;
    for (queue, name) in names.filter(|(_, name)| found.contains(name)) {
        let is_paused = async || match app.read_pauses().await {
            Ok(()) => app.pauses().holds(queue.as_str()),
            // What is not known stays as it is.
            Err(_) => true,
        };
        if is_paused().await {
            all = false;
            continue;
        }
        let mut done = topology::set_paused(nats.jetstream(), &name, false).await;
        if done.is_ok() && is_paused().await {
            done = topology::set_paused(nats.jetstream(), &name, true).await;
            all = false;
        }
        match done {
            Ok(()) => info!(%queue, consumer = name, "its consumer delivers again"),
            Err(e) => {
                warn!(%queue, error = &e as &dyn std::error::Error, "its consumer could not be resumed; trying again");
                all = false;
            }
        }
    }
    all
}

/// Waits for the connection; `false` when the stop comes first. An outage of NATS passes, and accepted jobs wait in the
/// database: that shuts no gate. A server that refuses our credentials needs a person.
async fn wait_connected(nats: &Nats, gate: &Gate, stop: &CancellationToken) -> bool {
    let mut refused = 0;
    while !nats.is_connected() {
        refused = if nats.trouble().is_some_and(|t| t.is_refusal) { refused + 1 } else { 0 };
        if refused < REFUSED_AFTER {
            gate.set(true, "NATS is unavailable; they are checked when it is back");
        } else if let Some(trouble) = nats.trouble() {
            gate.set(false, trouble.reason);
        }
        let mut connected = nats.connected();
        let up = tokio::time::timeout(Duration::from_secs(1), connected.wait_for(|c| *c));
        tokio::select! {
            _ = up => {}
            () = stop.cancelled() => return false,
        }
    }
    true
}

/// What is known from one check to the next.
#[derive(Default)]
struct State {
    /// Checks in a row that found a fault.
    failures: u32,
    /// A check was answered, and no stream was unfit.
    started: bool,
    /// The problem that was last logged; empty when there is none.
    logged: String,
    /// When each stream was made.
    made: BTreeMap<String, i128>,
}

impl State {
    /// Reports the result of a check. Returns an unfit stream when it is the first check.
    async fn take_in(
        &mut self,
        mut inspection: topology::Inspection,
        plan: &topology::Plan,
        nats: &Nats,
        signals: &Signals,
    ) -> Option<topology::Error> {
        if !self.started {
            if let Some(n) = inspection.faults.iter().position(|e| !e.is_retryable() && !e.is_short_of_storage()) {
                return Some(inspection.faults.swap_remove(n));
            }
            self.started = !inspection.made.is_empty();
        }
        if !inspection.report.created.is_empty() || !inspection.report.updated.is_empty() {
            let topology::Report { created, updated } = &inspection.report;
            info!(?created, ?updated, "streams and consumers are as planned");
        }
        let made = std::mem::take(&mut inspection.made);
        let is_other = |name: &str| self.made.get(name).zip(made.get(name)).is_some_and(|(was, is)| was != is);
        if is_other(subjects::STREAM_JOBS) {
            warn!(stream = subjects::STREAM_JOBS, "the stream was recreated; its messages are published again");
            signals.renewed.send_modify(|n| *n += 1);
        }
        let reader_is_missing = inspection.faults.iter().any(|e| e.name().starts_with("orchestrator-"));
        if made.contains_key(subjects::STREAM_RESULTS) && !reader_is_missing {
            signals.ready.send_replace(true);
        }
        self.made.extend(made);
        metrics::STREAMS_AMISS.set(&[], inspection.faults.len() as f64);
        if inspection.faults.is_empty() {
            if self.failures > 0 {
                info!("all streams, consumers and buckets are as planned again");
            }
            self.failures = 0;
            self.logged.clear();
            signals.gate.set(true, "as planned");
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        let mut problem = inspection.faults.iter().map(chain).collect::<Vec<_>>().join("; ");
        if inspection.faults.iter().any(topology::Error::is_short_of_storage) {
            problem = format!("{problem}; {}", topology::room(nats.jetstream(), plan).await);
        }
        let is_passing = inspection.faults.iter().all(|e| self.is_passing(e));
        if self.logged != problem {
            if is_passing {
                warn!(problem, "streams and consumers do not exist yet; trying again")
            } else {
                error!(problem, "streams and consumers cannot be created as planned; trying again")
            }
            self.logged.clone_from(&problem);
        }
        // Temporary faults keep no job from being accepted: they wait in the database.
        signals.gate.set(is_passing, problem);
        None
    }

    /// Whether it may be over without a person: no room and no JetStream are not.
    fn is_passing(&self, fault: &topology::Error) -> bool {
        let is_off = fault.is_no_jetstream() && self.failures > OFF_AFTER;
        fault.is_retryable() && !fault.is_short_of_storage() && !is_off
    }

    fn rest(&self) -> Duration {
        match self.failures {
            0 => CHECK_INTERVAL,
            n => RETRY_INTERVAL.saturating_mul(1 << (n - 1).min(8)).min(RETRY_INTERVAL_MAX),
        }
    }
}

/// An error and what it came from, in one line.
pub fn chain(e: &topology::Error) -> String {
    match std::error::Error::source(e) {
        Some(source) => format!("{e}: {source}"),
        None => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_made_less_often_and_never_seldom() {
        let rests: Vec<u64> = (0..6).map(|failures| State { failures, ..State::default() }.rest().as_secs()).collect();
        assert_eq!(rests, [10, 1, 2, 4, 8, 8]);
        assert_eq!(State { failures: u32::MAX, ..State::default() }.rest(), RETRY_INTERVAL_MAX);
    }
}
