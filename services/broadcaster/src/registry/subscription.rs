//! One endpoint at work: its consumers, its lanes, and what is known of it.
//! Owns everything of the endpoint, so that one that hangs or fails holds up no other. Waits while NATS is unavailable,
//! while it is disabled and while its consumers cannot be created, and continues by itself.

use crate::{
    delivery::{
        circuit::Phase,
        dispatcher::{Desk, Parts},
        flow::Gate,
        outcome::chain,
        source::{Feed, Source},
    },
    endpoints::declaration::Endpoint,
    metrics::Meters,
    registry::Context,
    retry::{record::Places, store::Store},
    topology::{
        consumers::{self, Floors, Waiting},
        names::{self, QUEUE_GROUP, STREAM_RETRIES},
        streams::{self as topology, Sources},
    },
};
use agentforge_jetstream::{PullOptions, Puller};
use futures_util::FutureExt;
use jiff::Timestamp;
use serde::Serialize;
use std::{
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Mutex, Notify},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Between looks at what waits, at the state that replicas share, and at streams that were missing.
const LOOK: Duration = Duration::from_secs(5);
/// Of so many looks one asks whether the streams are the same.
const LOOKS: u32 = 6;
/// Before another try to make what is missing.
const AGAIN: Duration = Duration::from_secs(1);
/// The part of an ack wait in addition to two requests: time to store a failure.
const ACK_WAIT_MORE: Duration = Duration::from_secs(10);
/// With a rate, no more is held than goes out in this time.
const HELD_MAX: Duration = Duration::from_secs(10);

/// How an endpoint gets on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Not at work yet; why.
    Waiting(String),
    /// At work.
    Active,
    /// It answered 410.
    Disabled,
}

/// One endpoint.
pub struct Running {
    /// As it is configured.
    pub endpoint: Arc<Endpoint>,
    /// What its lanes share.
    pub desk: Arc<Desk>,
    /// Stops it.
    pub stop: CancellationToken,
    /// Makes it look at its state now.
    pub look: Notify,
    /// Whether its consumers go with it when it ends.
    pub forget: AtomicBool,
    stage: StdMutex<Stage>,
    pending: AtomicU64,
    known_since: SystemTime,
    floors: Floors,
}

/// Why an engine ended.
enum Over {
    Stopped,
    Disabled,
    /// Streams of its subjects came or went.
    Moved,
}

impl Running {
    /// Prepares one; nothing happens before [`Self::run`].
    pub fn new(context: &Context, endpoint: Arc<Endpoint>) -> Self {
        let config = &context.config;
        let meters = Arc::new(Meters::new(&endpoint.name));
        let store = Store {
            nats: context.nats.clone(),
            env: config.common.env.clone(),
            endpoint: endpoint.name.clone(),
            places: Places::new(&config.common.env, &endpoint),
            clock: context.clock.clone(),
            room: context.room.clone(),
            dlq_max_bytes: config.keeping.dlq_max_bytes,
            made: context.ready.clone(),
            doubt: context.doubt.clone(),
            leaving: context.leaving.clone(),
        };
        let parts = Parts {
            dialer: context.dialer.clone(),
            store,
            schedule: config.schedule.clone(),
            circuit: config.circuit,
            meters,
            log: context.log.clone(),
        };
        Self {
            desk: Arc::new(Desk::new(endpoint.clone(), parts)),
            endpoint,
            stop: context.stop.child_token(),
            look: Notify::new(),
            forget: AtomicBool::new(false),
            stage: StdMutex::new(Stage::Waiting("starting".to_owned())),
            pending: AtomicU64::new(0),
            known_since: SystemTime::now(),
            floors: Floors::default(),
        }
    }

    /// How it gets on.
    pub fn stage(&self) -> Stage {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Messages that wait for it, as they were counted last.
    pub fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    fn set_stage(&self, stage: Stage) {
        let before = std::mem::replace(&mut *self.stage.lock().unwrap_or_else(PoisonError::into_inner), stage.clone());
        if before == stage {
            return;
        }
        match &stage {
            Stage::Waiting(why) => warn!(endpoint = self.endpoint.name, why, "the endpoint waits"),
            Stage::Active => info!(endpoint = self.endpoint.name, "delivering"),
            Stage::Disabled => warn!(endpoint = self.endpoint.name, "the endpoint is disabled"),
        }
    }

    /// Works until it is stopped.
    pub async fn run(self: Arc<Self>, context: Arc<Context>) {
        let name = &self.endpoint.name;
        let mut first = true;
        while !self.stop.is_cancelled() {
            match self.prepare(&context, first).await {
                Ok(None) => {
                    self.set_stage(Stage::Disabled);
                    self.desk.gate.set_disabled(true);
                    self.rest(LOOK).await;
                }
                Ok(Some(sources)) => {
                    first = false;
                    match self.engine(&context, sources).await {
                        Over::Stopped => break,
                        Over::Moved => {}
                        Over::Disabled => {
                            let at = Timestamp::now();
                            let url_digest = self.endpoint.url_digest();
                            let disabled = crate::registry::state::Disabled { at, url_digest };
                            let change =
                                |state: &mut crate::registry::state::State| state.disabled = Some(disabled.clone());
                            while let Err(error) = context.states.change(name, change).await {
                                warn!(endpoint = name, %error, "the disabled state cannot be stored yet");
                                tokio::select! {
                                    () = self.stop.cancelled() => return,
                                    () = sleep(AGAIN) => {}
                                }
                            }
                        }
                    }
                }
                Err(why) => {
                    self.set_stage(Stage::Waiting(why));
                    context.doubt.notify_one();
                    self.rest(AGAIN).await;
                }
            }
        }
        self.pending.store(0, Ordering::Relaxed);
        self.desk.meters.pending.set(0.0);
        if self.forget.load(Ordering::SeqCst) {
            // One that remains delays nothing, and is removed with its stream's messages at the latest.
            let js = context.nats.jetstream();
            if let Err(error) = topology::forget(js, &context.config.common.env, &self.endpoint).await {
                warn!(endpoint = name, error = %chain(&error), "the consumers of a deleted endpoint stay");
            }
        }
    }

    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.look.notified() => {}
            () = sleep(pause) => {}
        }
    }

    /// Makes the consumers. `None`: it is disabled.
    async fn prepare(&self, context: &Context, first: bool) -> Result<Option<Sources>, String> {
        let mut ready = context.ready.clone();
        tokio::select! {
            made = ready.wait_for(Option::is_some) => drop(made),
            () = self.stop.cancelled() => return Err("stopping".to_owned()),
        }
        let state = context.states.read(&self.endpoint.name).await.map_err(|e| e.to_string())?;
        if state.is_disabled(&self.endpoint.url_digest()) {
            return Ok(None);
        }
        if self.stage() == Stage::Disabled {
            self.desk.gate.set_disabled(false);
        }
        self.desk.gate.set_paused(state.paused.is_some());
        if first && state.circuit_open {
            self.desk.gate.reopen();
        }
        self.consumers(context).await.map(Some)
    }

    async fn consumers(&self, context: &Context) -> Result<Sources, String> {
        let js = context.nats.jetstream();
        let sources = topology::sources(js, &self.endpoint).await.map_err(|e| chain(&e))?;
        let env = &context.config.common.env;
        let (ack_wait, since) = (self.ack_wait(sources.streams.len() + 1), self.known_since);
        let made = consumers::consumers(js, env, &self.endpoint, &sources, ack_wait, since, &self.floors).await;
        made.map_err(|e| chain(&e))?;
        Ok(sources)
    }

    /// Two requests, for what was pulled ahead waits for one; with a rate, also until everything that is held from
    /// so many places has gone out.
    fn ack_wait(&self, places: usize) -> Duration {
        let held = self.endpoint.rate.map(|rate| Duration::from_secs_f64((self.slots() * places) as f64 / rate));
        2 * self.endpoint.timeout + ACK_WAIT_MORE + held.unwrap_or_default()
    }

    /// Messages that are held at once of each kind: those in work and as many ahead.
    fn slots(&self) -> usize {
        let slots = 2 * self.endpoint.concurrency;
        match self.endpoint.rate {
            Some(rate) => slots.min((rate * HELD_MAX.as_secs_f64()) as usize).max(1),
            None => slots,
        }
    }

    async fn engine(self: &Arc<Self>, context: &Arc<Context>, sources: Sources) -> Over {
        let name = &self.endpoint.name;
        let stop = self.stop.child_token();
        let feeds = match self.feeds(context, &sources).await {
            Ok(feeds) => feeds,
            Err(why) => {
                self.set_stage(Stage::Waiting(why));
                self.rest(AGAIN).await;
                return Over::Moved;
            }
        };
        match (&sources.homeless[..], context.config.core_fallback) {
            ([_, ..], false) => self.set_stage(Stage::Waiting(format!(
                "no stream keeps {}; a stream that does is found when it is there",
                sources.homeless.join(", ")
            ))),
            _ => self.set_stage(Stage::Active),
        }
        let slots = self.slots();
        let (env, durable) = (&context.config.common.env, names::durable(&context.config.common.env, name));
        let due = Puller::start(context.nats.clone(), STREAM_RETRIES, &durable, PullOptions::new("retries", slots));
        let (source, returns) = Source::new(feeds, due, self.desk.gate.clone(), slots, stop.clone());
        let source = Arc::new(Mutex::new(source));
        let mut lanes = JoinSet::new();
        let begin = |lanes: &mut JoinSet<()>| {
            lanes.spawn(self.desk.clone().lane(source.clone(), returns.clone(), stop.clone()));
        };
        (0..self.endpoint.concurrency.min(slots)).for_each(|_| begin(&mut lanes));
        let keeper = tokio::spawn(keep_circuit(context.clone(), self.desk.gate.clone(), name.clone(), stop.clone()));

        // What was said of it before it was enabled is over.
        let _ = self.desk.disabled.notified().now_or_never();
        let (mut tick, mut looks) = (interval(LOOK), 0u32);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let over = loop {
            tokio::select! {
                () = self.stop.cancelled() => break Over::Stopped,
                () = self.desk.disabled.notified() => break Over::Disabled,
                ended = lanes.join_next() => match ended {
                    Some(Err(panic)) => {
                        error!(endpoint = name, error = %panic, "a lane panicked; replacing it");
                        begin(&mut lanes);
                    }
                    Some(Ok(())) | None => break Over::Moved,
                },
                () = self.look.notified() => tick.reset_immediately(),
                _ = tick.tick() => {
                    self.desk.caller.close_idle();
                    looks = looks.wrapping_add(1);
                    let everything = looks.is_multiple_of(LOOKS) || !sources.homeless.is_empty();
                    if let Some(over) = self.look_around(context, &durable, &sources, everything).await {
                        break over;
                    }
                }
            }
        };
        stop.cancel();
        // In flight is finished, or handed back when the grace is nearly over.
        while lanes.join_next().await.is_some() {}
        let _ = keeper.await;
        drop(source);
        info!(endpoint = name, env, "stopped delivering");
        over
    }

    async fn feeds(&self, context: &Context, sources: &Sources) -> Result<Vec<Feed>, String> {
        let durable = names::durable(&context.config.common.env, &self.endpoint.name);
        let mut feeds = Vec::new();
        for (stream, _) in &sources.streams {
            let options = PullOptions::new("events", self.slots());
            feeds.push(Feed::Stream(Puller::start(context.nats.clone(), stream, &durable, options)));
        }
        if context.config.core_fallback {
            for subject in &sources.homeless {
                // One group per endpoint: each endpoint gets each event, from one of the replicas.
                let group = format!("{QUEUE_GROUP}-{}", self.endpoint.name);
                let subscription = context.nats.client().queue_subscribe(subject.clone(), group).await;
                feeds.push(Feed::Core(subscription.map_err(|e| e.to_string())?));
            }
        }
        Ok(feeds)
    }

    /// Counts what waits, and sees whether everything is as it was.
    async fn look_around(&self, context: &Context, durable: &str, sources: &Sources, everything: bool) -> Option<Over> {
        if !context.nats.is_connected() {
            return None;
        }
        let state = context.states.read(&self.endpoint.name).await.ok()?;
        if state.is_disabled(&self.endpoint.url_digest()) {
            // Another replica's endpoint answered 410.
            return Some(Over::Moved);
        }
        self.desk.gate.set_paused(state.paused.is_some());
        let counted = self.count_waiting(context, durable, sources).await;
        if counted.is_none() {
            context.doubt.notify_one();
        }
        // A server that lost its streams has no consumer either.
        if (everything || counted.is_none()) && self.consumers(context).await.ok()? != *sources {
            return Some(Over::Moved);
        }
        let waiting = counted?;
        let messages = waiting.iter().map(|(_, waiting)| waiting.messages).sum();
        self.pending.store(messages, Ordering::Relaxed);
        self.desk.meters.pending.set(messages as f64);
        self.judge_streams(context, &waiting).await;
        None
    }

    /// What waits in each stream, the retries' last.
    async fn count_waiting<'a>(
        &self,
        context: &Context,
        durable: &str,
        sources: &'a Sources,
    ) -> Option<Vec<(&'a str, Waiting)>> {
        let js = context.nats.jetstream();
        let mut waiting = Vec::new();
        for stream in sources.streams.iter().map(|(name, _)| name.as_str()).chain([STREAM_RETRIES]) {
            waiting.push((stream, consumers::waiting(js, stream, durable, &self.floors).await.ok()?));
        }
        Some(waiting)
    }

    /// While the circuit is open: sees whether events may stay where they are. What cannot be seen is as before.
    async fn judge_streams(&self, context: &Context, waiting: &[(&str, Waiting)]) {
        let gate = &self.desk.gate;
        let (js, now) = (context.nats.jetstream(), context.clock.now());
        let mut may = true;
        if gate.phase() != Phase::Closed {
            for (stream, waiting) in waiting.iter().filter(|(stream, _)| *stream != STREAM_RETRIES) {
                match topology::may_wait(js, stream, *waiting, now).await {
                    Ok(this) => may &= this,
                    Err(_) => return,
                }
            }
        }
        gate.set_events_may_wait(may);
    }
}

/// Keeps in the bucket whether the circuit is open, so that a restart does not begin with a storm.
async fn keep_circuit(context: Arc<Context>, gate: Arc<Gate>, endpoint: String, stop: CancellationToken) {
    let mut news = gate.news();
    let mut kept = *news.borrow();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = news.changed() => if changed.is_err() {
                return;
            },
        }
        let is_open = *news.borrow_and_update();
        if is_open != kept {
            match context.states.change(&endpoint, |state| state.circuit_open = is_open).await {
                Ok(()) => kept = is_open,
                Err(error) => warn!(endpoint, %error, "the state of the circuit is not stored"),
            }
        }
    }
}
