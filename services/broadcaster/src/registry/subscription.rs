//! One served endpoint: its consumers, its dispatch tasks, and its status.
//!
//! Owns everything of the endpoint, so that an endpoint that hangs or fails affects no other. Waits while NATS is
//! unavailable, while the endpoint is disabled and while its consumers cannot be created, and continues by itself.

use crate::{
    delivery::{
        circuit::Phase,
        dispatcher::{Dispatcher, DispatcherParts},
        flow::FlowControl,
        source::{Feed, Source},
    },
    endpoints::declaration::Endpoint,
    error::chain,
    metrics::Meters,
    registry::{
        context::Context,
        state::{Disabled, EndpointState},
    },
    retry::{record::RetrySubjects, store::RetryStore},
    topology::{
        backlog::{self, AckFloors, Backlog},
        consumers,
        names::{self, QUEUE_GROUP, STREAM_RETRIES},
        sources::{self, EventSources},
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

/// Between checks of the backlog, of the state that replicas share, and of streams that were missing.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// One of this many checks also asks whether the streams of the subjects are still the same.
const CHECKS_PER_SOURCE_CHECK: u32 = 6;
/// Between attempts to create what is missing.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The time for storing a failed message, in the ack wait.
const ACK_WAIT_MARGIN: Duration = Duration::from_secs(10);
/// With a rate, no more messages are pulled ahead than go out in this time.
const HOLD_MAX: Duration = Duration::from_secs(10);

/// Whether an endpoint is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not yet, for this reason.
    Waiting(String),
    /// Its messages are taken and sent.
    Active,
    /// It answered 410.
    Disabled,
}

pub struct Subscription {
    /// As it is configured.
    pub endpoint: Arc<Endpoint>,
    /// What its dispatch tasks share.
    pub dispatcher: Arc<Dispatcher>,
    pub stop: CancellationToken,
    /// Makes it check its state now.
    pub check_now: Notify,
    /// Whether its consumers are deleted when it ends.
    pub delete_consumers: AtomicBool,
    status: StdMutex<Status>,
    pending: AtomicU64,
    known_since: SystemTime,
    floors: AckFloors,
}

/// Why delivering ended.
enum DeliveryEnd {
    Stopped,
    Disabled,
    /// A stream of its subjects was created or deleted.
    SourcesChanged,
}

impl Subscription {
    /// Prepares one; nothing happens before [`Self::run`].
    pub fn new(context: &Context, endpoint: Arc<Endpoint>) -> Self {
        let config = &context.config;
        let meters = Arc::new(Meters::new(&endpoint.name));
        let store = RetryStore {
            nats: context.nats.clone(),
            env: config.common.env.clone(),
            endpoint: endpoint.name.clone(),
            subjects: RetrySubjects::new(&config.common.env, &endpoint),
            clock: context.clock.clone(),
            quota: context.quota.clone(),
            dlq_max_bytes: config.limits.dlq_max_bytes,
            capabilities: context.capabilities.clone(),
            topology_check: context.topology_check.clone(),
            leaving: context.leaving.clone(),
        };
        let parts = DispatcherParts {
            dialer: context.dialer.clone(),
            store,
            schedule: config.schedule.clone(),
            circuit: config.circuit,
            meters,
            recent: context.recent.clone(),
        };
        Self {
            dispatcher: Arc::new(Dispatcher::new(endpoint.clone(), parts)),
            endpoint,
            stop: context.stop.child_token(),
            check_now: Notify::new(),
            delete_consumers: AtomicBool::new(false),
            status: StdMutex::new(Status::Waiting("starting".to_owned())),
            pending: AtomicU64::new(0),
            known_since: SystemTime::now(),
            floors: AckFloors::default(),
        }
    }

    /// How it gets on.
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Messages that wait for it, at the last check.
    pub fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    fn set_status(&self, status: Status) {
        let before =
            std::mem::replace(&mut *self.status.lock().unwrap_or_else(PoisonError::into_inner), status.clone());
        if before == status {
            return;
        }
        match &status {
            Status::Waiting(why) => warn!(endpoint = self.endpoint.name, why, "the endpoint waits"),
            Status::Active => info!(endpoint = self.endpoint.name, "delivering"),
            Status::Disabled => warn!(endpoint = self.endpoint.name, "the endpoint is disabled"),
        }
    }

    /// Works until it is stopped.
    pub async fn run(self: Arc<Self>, context: Arc<Context>) {
        let name = &self.endpoint.name;
        let mut first = true;
        while !self.stop.is_cancelled() {
            match self.prepare(&context, first).await {
                Ok(None) => {
                    self.set_status(Status::Disabled);
                    self.dispatcher.flow.set_disabled(true);
                    self.pause_for(CHECK_INTERVAL).await;
                }
                Ok(Some(sources)) => {
                    first = false;
                    match self.deliver(&context, sources).await {
                        DeliveryEnd::Stopped => break,
                        DeliveryEnd::SourcesChanged => {}
                        DeliveryEnd::Disabled => {
                            let at = Timestamp::now();
                            let url_digest = self.endpoint.url_digest();
                            let disabled = Disabled { at, url_digest };
                            let change = |state: &mut EndpointState| state.disabled = Some(disabled.clone());
                            while let Err(error) = context.states.change(name, change).await {
                                warn!(endpoint = name, %error, "the disabled state cannot be stored yet");
                                tokio::select! {
                                    () = self.stop.cancelled() => return,
                                    () = sleep(RETRY_INTERVAL) => {}
                                }
                            }
                        }
                    }
                }
                Err(why) => {
                    self.set_status(Status::Waiting(why));
                    context.topology_check.notify_one();
                    self.pause_for(RETRY_INTERVAL).await;
                }
            }
        }
        self.pending.store(0, Ordering::Relaxed);
        self.dispatcher.meters.pending.set(0.0);
        if self.delete_consumers.load(Ordering::SeqCst) {
            // One that remains delays nothing, and is removed with its stream's messages at the latest.
            let js = context.nats.jetstream();
            if let Err(error) = sources::delete_consumers(js, &context.config.common.env, &self.endpoint).await {
                warn!(endpoint = name, error = %chain(&error), "the consumers of a deleted endpoint stay");
            }
        }
    }

    async fn pause_for(&self, pause: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.check_now.notified() => {}
            () = sleep(pause) => {}
        }
    }

    /// Creates the consumers. `None`: it is disabled.
    async fn prepare(&self, context: &Context, first: bool) -> Result<Option<EventSources>, String> {
        let mut capabilities = context.capabilities.clone();
        tokio::select! {
            ensured = capabilities.wait_for(Option::is_some) => drop(ensured),
            () = self.stop.cancelled() => return Err("stopping".to_owned()),
        }
        let state = context.states.read(&self.endpoint.name).await.map_err(|e| e.to_string())?;
        if state.is_disabled(&self.endpoint.url_digest()) {
            return Ok(None);
        }
        if self.status() == Status::Disabled {
            self.dispatcher.flow.set_disabled(false);
        }
        self.dispatcher.flow.set_paused(state.paused.is_some());
        if first && state.circuit_open {
            self.dispatcher.flow.reopen();
        }
        self.consumers(context).await.map(Some)
    }

    async fn consumers(&self, context: &Context) -> Result<EventSources, String> {
        let js = context.nats.jetstream();
        let sources = sources::sources(js, &self.endpoint).await.map_err(|e| chain(&e))?;
        let env = &context.config.common.env;
        let (ack_wait, since) = (self.ack_wait(sources.streams.len() + 1), self.known_since);
        let ensured =
            consumers::ensure_consumers(js, env, &self.endpoint, &sources, ack_wait, since, &self.floors).await;
        ensured.map_err(|e| chain(&e))?;
        Ok(sources)
    }

    /// How long a message may stay unacknowledged: two requests, as one that was pulled ahead waits for another; with a
    /// rate, also until everything that is held from so many feeds has gone out.
    fn ack_wait(&self, feeds: usize) -> Duration {
        let held = self.endpoint.rate.map(|rate| Duration::from_secs_f64((self.slots() * feeds) as f64 / rate));
        2 * self.endpoint.timeout + ACK_WAIT_MARGIN + held.unwrap_or_default()
    }

    /// Messages that are held at once from each feed: those in work, and as many pulled ahead.
    fn slots(&self) -> usize {
        let slots = 2 * self.endpoint.concurrency;
        match self.endpoint.rate {
            Some(rate) => slots.min((rate * HOLD_MAX.as_secs_f64()) as usize).max(1),
            None => slots,
        }
    }

    async fn deliver(self: &Arc<Self>, context: &Arc<Context>, sources: EventSources) -> DeliveryEnd {
        let name = &self.endpoint.name;
        let stop = self.stop.child_token();
        let feeds = match self.feeds(context, &sources).await {
            Ok(feeds) => feeds,
            Err(why) => {
                self.set_status(Status::Waiting(why));
                self.pause_for(RETRY_INTERVAL).await;
                return DeliveryEnd::SourcesChanged;
            }
        };
        match (&sources.unbound[..], context.config.core_fallback) {
            ([_, ..], false) => self.set_status(Status::Waiting(format!(
                "no stream keeps {}; a stream that does is found when it is there",
                sources.unbound.join(", ")
            ))),
            _ => self.set_status(Status::Active),
        }
        let slots = self.slots();
        let (env, durable) = (&context.config.common.env, names::durable(&context.config.common.env, name));
        let due = Puller::start(context.nats.clone(), STREAM_RETRIES, &durable, PullOptions::new("retries", slots));
        let (source, returns) = Source::new(feeds, due, self.dispatcher.flow.clone(), slots, stop.clone());
        let source = Arc::new(Mutex::new(source));
        let mut tasks = JoinSet::new();
        let begin = |tasks: &mut JoinSet<()>| {
            tasks.spawn(self.dispatcher.clone().run(source.clone(), returns.clone(), stop.clone()));
        };
        (0..self.endpoint.concurrency.min(slots)).for_each(|_| begin(&mut tasks));
        let persisting =
            tokio::spawn(persist_circuit(context.clone(), self.dispatcher.flow.clone(), name.clone(), stop.clone()));

        // A 410 from before the endpoint was enabled does not count.
        let _ = self.dispatcher.disabled.notified().now_or_never();
        let (mut tick, mut checks) = (interval(CHECK_INTERVAL), 0u32);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            tokio::select! {
                () = self.stop.cancelled() => break DeliveryEnd::Stopped,
                () = self.dispatcher.disabled.notified() => break DeliveryEnd::Disabled,
                ended = tasks.join_next() => match ended {
                    Some(Err(panic)) => {
                        error!(endpoint = name, error = %panic, "a dispatch task panicked; replacing it");
                        begin(&mut tasks);
                    }
                    Some(Ok(())) | None => break DeliveryEnd::SourcesChanged,
                },
                () = self.check_now.notified() => tick.reset_immediately(),
                _ = tick.tick() => {
                    self.dispatcher.caller.close_idle();
                    checks = checks.wrapping_add(1);
                    let with_sources = checks.is_multiple_of(CHECKS_PER_SOURCE_CHECK) || !sources.unbound.is_empty();
                    if let Some(end) = self.check(context, &durable, &sources, with_sources).await {
                        break end;
                    }
                }
            }
        };
        stop.cancel();
        // Messages in flight are finished, or handed back near the end of a drain.
        while tasks.join_next().await.is_some() {}
        let _ = persisting.await;
        drop(source);
        info!(endpoint = name, env, "stopped delivering");
        end
    }

    async fn feeds(&self, context: &Context, sources: &EventSources) -> Result<Vec<Feed>, String> {
        let durable = names::durable(&context.config.common.env, &self.endpoint.name);
        let mut feeds = Vec::new();
        for (stream, _) in &sources.streams {
            let options = PullOptions::new("events", self.slots());
            feeds.push(Feed::Stream(Puller::start(context.nats.clone(), stream, &durable, options)));
        }
        if context.config.core_fallback {
            for subject in &sources.unbound {
                // One group per endpoint: each endpoint gets each event, from one of the replicas.
                let group = format!("{QUEUE_GROUP}-{}", self.endpoint.name);
                let subscription = context.nats.client().queue_subscribe(subject.clone(), group).await;
                feeds.push(Feed::Core(subscription.map_err(|e| e.to_string())?));
            }
        }
        Ok(feeds)
    }

    /// Reads the backlog, and checks whether state, streams and consumers are as before.
    async fn check(
        &self,
        context: &Context,
        durable: &str,
        sources: &EventSources,
        with_sources: bool,
    ) -> Option<DeliveryEnd> {
        if !context.nats.is_connected() {
            return None;
        }
        let state = context.states.read(&self.endpoint.name).await.ok()?;
        if state.is_disabled(&self.endpoint.url_digest()) {
            // It answered 410 to another replica.
            return Some(DeliveryEnd::SourcesChanged);
        }
        self.dispatcher.flow.set_paused(state.paused.is_some());
        let counted = self.backlogs(context, durable, sources).await;
        if counted.is_none() {
            context.topology_check.notify_one();
        }
        // Where a consumer is missing its stream may be, too.
        if (with_sources || counted.is_none()) && self.consumers(context).await.ok()? != *sources {
            return Some(DeliveryEnd::SourcesChanged);
        }
        let backlogs = counted?;
        let messages = backlogs.iter().map(|(_, backlog)| backlog.messages).sum();
        self.pending.store(messages, Ordering::Relaxed);
        self.dispatcher.meters.pending.set(messages as f64);
        self.update_events_may_wait(context, &backlogs).await;
        None
    }

    /// The backlog in each stream, that of the retries last.
    async fn backlogs<'a>(
        &self,
        context: &Context,
        durable: &str,
        sources: &'a EventSources,
    ) -> Option<Vec<(&'a str, Backlog)>> {
        let js = context.nats.jetstream();
        let mut backlogs = Vec::new();
        for stream in sources.streams.iter().map(|(name, _)| name.as_str()).chain([STREAM_RETRIES]) {
            backlogs.push((stream, backlog::backlog(js, stream, durable, &self.floors).await.ok()?));
        }
        Some(backlogs)
    }

    /// While the circuit is open, decides whether events may stay in their streams. What cannot be read changes nothing.
    async fn update_events_may_wait(&self, context: &Context, backlogs: &[(&str, Backlog)]) {
        let flow = &self.dispatcher.flow;
        let (js, now) = (context.nats.jetstream(), context.clock.now());
        let mut may = true;
        if flow.phase() != Phase::Closed {
            for (stream, backlog) in backlogs.iter().filter(|(stream, _)| *stream != STREAM_RETRIES) {
                match backlog::may_wait(js, stream, *backlog, now).await {
                    Ok(this) => may &= this,
                    Err(_) => return,
                }
            }
        }
        flow.set_events_may_wait(may);
    }
}

/// Stores in the bucket whether the circuit is open, so that a restart does not begin with a burst of requests.
async fn persist_circuit(context: Arc<Context>, flow: Arc<FlowControl>, endpoint: String, stop: CancellationToken) {
    let mut changes = flow.changes();
    let mut persisted = *changes.borrow();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() {
                return;
            },
        }
        let is_open = *changes.borrow_and_update();
        if is_open != persisted {
            match context.states.change(&endpoint, |state| state.circuit_open = is_open).await {
                Ok(()) => persisted = is_open,
                Err(error) => warn!(endpoint, %error, "the state of the circuit is not stored"),
            }
        }
    }
}
