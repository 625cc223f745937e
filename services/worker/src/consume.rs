//! The loops that pull: one per queue, each handing what comes to a task of its own.
//!
//! Relies on the puller for slots and for never going silent. Nothing is decided or decoded here, so
//! that a loop is never held up by a job.

use crate::{error::Error, job, worker::Worker};
use agentforge_jetstream::{Delivery, Nats, PullOptions, Puller, subjects};
use agentforge_message_id::{Mission, Queue};
use agentforge_runtime::{Gate, Heartbeat};
use async_nats::jetstream::consumer::pull;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// A loop without a turn for this long hangs.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(30);
/// How often a loop shows that it lives.
const TICK: Duration = Duration::from_secs(1);
/// Before another try to read a consumer's settings.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Starts pulling for a queue. Nothing comes before the first slot is granted.
pub(crate) fn puller(nats: &Nats, mission: &Mission, queue: &Queue, name: &'static str, slots: usize) -> Puller {
    let durable = subjects::worker_durable(mission, queue);
    Puller::start(nats.clone(), subjects::STREAM_JOBS, durable, PullOptions::new(name, slots))
}

/// Pulls until the drain; every delivery gets a task of `tasks`. What comes while the last requests
/// are being ended gets one too, and is handed back by it.
pub(crate) async fn serve(
    worker: Arc<Worker>,
    queue: usize,
    mut puller: Puller,
    tasks: TaskTracker,
    heart: Heartbeat,
) -> Result<(), anyhow::Error> {
    // The drain is not over while a loop may still spawn.
    let _open = tasks.token();
    let (mut tick, mut stopping) = (interval(TICK), false);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let hand_out = |delivery: Delivery| {
        worker.slot_taken(queue, delivery.info().pending);
        tasks.spawn(job::settle(worker.clone(), queue, delivery));
    };
    loop {
        tokio::select! {
            delivery = puller.next() => match delivery {
                Some(delivery) => {
                    hand_out(delivery);
                    while let Some(delivery) = puller.try_next() {
                        hand_out(delivery);
                    }
                }
                None if stopping => return Ok(()),
                None => return Err(Error::LoopEnded(worker.queues[queue].name.to_string()).into()),
            },
            () = worker.draining.cancelled(), if !stopping => {
                puller.stop();
                stopping = true;
            }
            _ = tick.tick() => if puller.since_last_turn() < STALL_MAX {
                heart.beat();
            },
        }
    }
}

/// What is known of the consumers of all queues.
pub(crate) struct Bindings {
    gate: Gate,
    queues: Mutex<BTreeMap<usize, Binding>>,
}

struct Binding {
    name: String,
    bound: bool,
    ack_wait: Option<Duration>,
}

impl Bindings {
    pub(crate) fn new(gate: Gate, worker: &Worker) -> Self {
        let binding =
            |queue| Binding { name: subjects::worker_durable(&worker.mission, queue), bound: false, ack_wait: None };
        let queues = worker.queues.iter().enumerate().map(|(index, queue)| (index, binding(&queue.name)));
        Self { gate, queues: Mutex::new(queues.collect()) }
    }

    fn set_bound(&self, queue: usize, bound: bool) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(binding) = queues.get_mut(&queue) {
            binding.bound = bound;
        }
        let missing: Vec<&str> = queues.values().filter(|b| !b.bound).map(|b| b.name.as_str()).collect();
        match missing.as_slice() {
            [] => self.gate.set(true, "bound"),
            missing => self.gate.set(false, format!("waiting for {}", missing.join(", "))),
        }
    }

    fn set_ack_wait(&self, queue: usize, ack_wait: Duration, worker: &Worker) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(binding) = queues.get_mut(&queue) {
            binding.ack_wait = Some(ack_wait);
        }
        worker.keepalive.set_ack_wait(queues.values().filter_map(|b| b.ack_wait));
    }
}

/// Watches whether a queue's consumer is bound, and reads its ack_wait when it is.
pub(crate) async fn watch_binding(
    worker: Arc<Worker>,
    queue: usize,
    mut bound: watch::Receiver<bool>,
    bindings: Arc<Bindings>,
) -> Result<(), anyhow::Error> {
    loop {
        let is_bound = *bound.borrow_and_update();
        bindings.set_bound(queue, is_bound);
        let mut asked = !is_bound;
        while !asked {
            match ack_wait(&worker, queue).await {
                Ok(ack_wait) => {
                    info!(queue = %worker.queues[queue].name, ack_wait_seconds = ack_wait.as_secs_f64(), "serving");
                    bindings.set_ack_wait(queue, ack_wait, &worker);
                    asked = true;
                }
                Err(error) => {
                    warn!(error, queue = %worker.queues[queue].name, "the consumer's settings could not be read");
                    tokio::select! {
                        () = sleep(RETRY_INTERVAL) => {}
                        () = worker.draining.cancelled() => return Ok(()),
                    }
                }
            }
        }
        tokio::select! {
            changed = bound.changed() => if changed.is_err() {
                // The loop is gone; its own end says why.
                worker.draining.cancelled().await;
                return Ok(());
            },
            () = worker.draining.cancelled() => return Ok(()),
        }
    }
}

async fn ack_wait(worker: &Worker, queue: usize) -> Result<Duration, String> {
    let durable = subjects::worker_durable(&worker.mission, &worker.queues[queue].name);
    let js = worker.nats.jetstream();
    let consumer = js.get_consumer_from_stream::<pull::Config, _, _>(&durable, subjects::STREAM_JOBS).await;
    consumer.map(|consumer| consumer.cached_info().config.ack_wait).map_err(|e| e.to_string())
}

/// Between two checks of which server it is: another one may answer after a short break.
const SERVER_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Keeps the gate of the connection, and says why there is none.
pub(crate) async fn watch_connection(nats: Nats, gate: Gate, worker: Arc<Worker>) -> Result<(), anyhow::Error> {
    let mut connected = nats.connected();
    loop {
        connected.borrow_and_update();
        let trouble = nats.trouble();
        let (usable, words) = nats.readiness();
        gate.set(usable, words);
        tokio::select! {
            changed = connected.changed() => if changed.is_err() {
                worker.draining.cancelled().await;
                return Ok(());
            },
            // The reason may change while the connection does not.
            () = sleep(TICK), if trouble.is_some() => {}
            () = sleep(SERVER_CHECK_INTERVAL) => {}
            () = worker.draining.cancelled() => return Ok(()),
        }
    }
}
