//! The messages of one endpoint: its events, and its due retries. One dispatch task at a time asks for the next.
//!
//! Closed circuit: each feed has all its slots, that is, as many messages as slots may be pulled and not settled.
//! Open circuit: settled messages give their slots back here and not to their feed (they are withheld), so that retries
//! and events stay in their streams. Requests that are still open at the server deliver a few more; those are handed back
//! at once, so that none waits here until its ack wait is over. Exceptions are events that their stream may soon discard
//! or that no stream keeps: they are handed out to be set aside among the retries.
//! Probe due: each feed gets one slot, and the first message is the probe. Its end closes the circuit or opens it again.

use crate::delivery::{circuit::Phase, flow::FlowControl};
use agentforge_jetstream::{Delivery, Puller, Slots};
use futures_util::{FutureExt, StreamExt, future::select_all};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Between checks while a probe is out; its end is also notified.
const PROBE_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// A source of events.
pub enum Feed {
    /// A durable consumer.
    Stream(Puller),
    /// A core subscription.
    Core(async_nats::Subscriber),
}

/// An event or a retry.
pub enum Message {
    /// Delivered again unless it is settled.
    Stream(Delivery),
    /// An event of core NATS, which is not delivered again if it is lost here.
    Core(async_nats::Message),
}

/// The feed of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedId {
    /// A feed of events, by its number.
    Events(usize),
    /// The stream of retries.
    Retries,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Send it to the endpoint now.
    Attempt,
    /// Deliver, and inform the circuit.
    Probe,
    /// Store it among the due retries: the circuit is open.
    SetAside,
}

/// A message for a dispatch task.
pub struct Assignment {
    pub message: Message,
    pub feed: FeedId,
    pub mode: Mode,
}

/// The slots of one feed, and how many of them are withheld from it.
struct FeedSlots {
    slots: Slots,
    withheld: AtomicUsize,
}

impl FeedSlots {
    fn release(&self, is_wanted: bool) {
        if is_wanted {
            self.slots.grant(1);
        } else {
            self.withheld.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn grant_withheld(&self, most: usize) {
        let before = self
            .withheld
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |withheld| Some(withheld - withheld.min(most)));
        let n = before.unwrap_or_default().min(most);
        if n > 0 {
            self.slots.grant(n);
        }
    }
}

/// Takes back the slot of a settled message.
pub struct SlotReturns {
    events: Vec<Option<FeedSlots>>,
    due: FeedSlots,
    flow: Arc<FlowControl>,
}

impl SlotReturns {
    /// One slot is free again.
    pub fn release(&self, feed: FeedId) {
        let is_closed = self.flow.phase() == Phase::Closed;
        match feed {
            FeedId::Events(at) => {
                if let Some(Some(slots)) = self.events.get(at) {
                    slots.release(is_closed || !self.flow.events_may_wait());
                }
            }
            FeedId::Retries => self.due.release(is_closed),
        }
    }

    fn grant_events(&self, most: usize) {
        self.events.iter().flatten().for_each(|slots| slots.grant_withheld(most));
    }
}

/// The messages of one endpoint.
pub struct Source {
    feeds: Vec<Feed>,
    due: Puller,
    returns: Arc<SlotReturns>,
    flow: Arc<FlowControl>,
    changes: watch::Receiver<bool>,
    stop: CancellationToken,
    due_next: bool,
    probe_granted: bool,
}

impl Source {
    /// With `slots` for each feed, and for due retries.
    pub fn new(
        feeds: Vec<Feed>,
        due: Puller,
        flow: Arc<FlowControl>,
        slots: usize,
        stop: CancellationToken,
    ) -> (Self, Arc<SlotReturns>) {
        let feed_slots = |puller: &Puller| FeedSlots { slots: puller.slots(), withheld: AtomicUsize::new(slots) };
        let events = feeds.iter().map(|feed| match feed {
            Feed::Stream(puller) => Some(feed_slots(puller)),
            Feed::Core(_) => None,
        });
        let returns = Arc::new(SlotReturns { events: events.collect(), due: feed_slots(&due), flow: flow.clone() });
        let changes = flow.changes();
        let this =
            Self { feeds, due, returns: returns.clone(), flow, changes, stop, due_next: false, probe_granted: false };
        (this, returns)
    }

    /// The next message; `None` after the stop.
    pub async fn next(&mut self) -> Option<Assignment> {
        loop {
            if self.stop.is_cancelled() {
                return None;
            }
            self.changes.mark_unchanged();
            let assignment = match self.flow.phase() {
                Phase::Closed => self.next_when_closed().await,
                Phase::Open { until } => self.next_when_open(until).await,
                // Its end is signalled.
                Phase::Probing => self.next_when_open(Instant::now() + PROBE_CHECK_INTERVAL).await,
                Phase::ProbeDue => self.probe().await,
            };
            if assignment.is_some() {
                return assignment;
            }
        }
    }

    async fn next_when_closed(&mut self) -> Option<Assignment> {
        self.probe_granted = false;
        self.returns.due.grant_withheld(usize::MAX);
        self.returns.grant_events(usize::MAX);
        // Pulled messages are taken in turns, so that events and retries do not starve each other.
        self.due_next = !self.due_next;
        if self.due_next
            && let Some(delivery) = self.due.try_next()
        {
            return Some(due(delivery, Mode::Attempt));
        }
        if let Some((at, message)) = ready_event(&mut self.feeds) {
            return Some(Assignment { message, feed: FeedId::Events(at), mode: Mode::Attempt });
        }
        let Self { feeds, due: puller, stop, changes, .. } = self;
        tokio::select! {
            Some(delivery) = puller.next() => Some(due(delivery, Mode::Attempt)),
            (at, message) = any_event(feeds) => Some(Assignment { message, feed: FeedId::Events(at), mode: Mode::Attempt }),
            _ = changes.changed() => None,
            () = stop.cancelled() => None,
        }
    }

    /// Only events that may not wait come out, to be set aside. What open requests still deliver is handed back.
    async fn next_when_open(&mut self, until: Instant) -> Option<Assignment> {
        self.probe_granted = false;
        let may_wait = self.flow.events_may_wait();
        if !may_wait {
            self.returns.grant_events(usize::MAX);
        }
        while let Some(delivery) = self.due.try_next() {
            hand_back(&self.returns, &delivery, FeedId::Retries).await;
        }
        let Self { feeds, due: puller, returns, stop, changes, .. } = self;
        tokio::select! {
            Some(delivery) = puller.next() => {
                hand_back(returns, &delivery, FeedId::Retries).await;
                None
            }
            (at, message) = any_event(feeds) => match message {
                Message::Stream(delivery) if may_wait => {
                    hand_back(returns, &delivery, FeedId::Events(at)).await;
                    None
                }
                message => Some(Assignment { message, feed: FeedId::Events(at), mode: Mode::SetAside }),
            },
            () = sleep_until(until) => None,
            _ = changes.changed() => None,
            () = stop.cancelled() => None,
        }
    }

    /// The first message that comes is the probe.
    async fn probe(&mut self) -> Option<Assignment> {
        if !self.probe_granted {
            self.returns.due.grant_withheld(1);
            self.returns.grant_events(1);
            self.probe_granted = true;
        }
        let Self { feeds, due: puller, stop, changes, .. } = self;
        let assignment = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            Some(delivery) = puller.next() => due(delivery, Mode::Probe),
            (at, message) = any_event(feeds) => Assignment { message, feed: FeedId::Events(at), mode: Mode::Probe },
            _ = changes.changed() => return None,
        };
        self.flow.begin_probe();
        Some(assignment)
    }
}

async fn hand_back(returns: &SlotReturns, delivery: &Delivery, feed: FeedId) {
    // If this is lost, the message is redelivered after the ack wait.
    let _ = delivery.nak(None).await;
    returns.release(feed);
}

fn due(delivery: Delivery, mode: Mode) -> Assignment {
    Assignment { message: Message::Stream(delivery), feed: FeedId::Retries, mode }
}

fn ready_event(feeds: &mut [Feed]) -> Option<(usize, Message)> {
    feeds.iter_mut().enumerate().find_map(|(at, feed)| {
        let message = match feed {
            Feed::Stream(puller) => Message::Stream(puller.try_next()?),
            Feed::Core(subscription) => Message::Core(subscription.next().now_or_never()??),
        };
        Some((at, message))
    })
}

/// The next event of any feed; pends forever when all have ended, which only a stop does.
async fn any_event(feeds: &mut [Feed]) -> (usize, Message) {
    if let [Feed::Stream(puller)] = feeds {
        // The usual case, without a box for each wait.
        return match puller.next().await {
            Some(delivery) => (0, Message::Stream(delivery)),
            None => std::future::pending().await,
        };
    }
    if feeds.is_empty() {
        return std::future::pending().await;
    }
    let each = feeds.iter_mut().enumerate().map(|(at, feed)| {
        async move {
            let message = match feed {
                Feed::Stream(puller) => puller.next().await.map(Message::Stream),
                Feed::Core(subscription) => subscription.next().await.map(Message::Core),
            };
            match message {
                Some(message) => (at, message),
                None => std::future::pending().await,
            }
        }
        .boxed()
    });
    select_all(each).await.0
}
