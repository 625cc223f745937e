//! What an endpoint's lanes work on: its events, and its retries that are due.
//!
//! One lane at a time asks. While the circuit is open, retries and events stay where they are; events that
//! their stream may soon discard, or that no stream keeps, are handed out to be set aside. One message at a
//! time is handed out as the probe. What was pulled and is not wanted now goes back at once, so that nothing
//! waits here until its ack wait is over.

use crate::delivery::{circuit::Phase, flow::Gate};
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

/// Between looks at a probe that is out.
const PROBING: Duration = Duration::from_secs(60);

/// Where events come from.
pub enum Feed {
    /// A durable consumer.
    Stream(Puller),
    /// A core subscription.
    Core(async_nats::Subscriber),
}

/// An event or a retry.
pub enum Message {
    /// Comes again unless it is settled.
    Stream(Delivery),
    /// Comes once.
    Core(async_nats::Message),
}

/// Where a message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A feed, by its number.
    Event(usize),
    /// The stream of retries.
    Due,
}

/// What is to be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Deliver.
    Try,
    /// Deliver, and inform the circuit.
    Probe,
    /// Put it to the due retries: the circuit is open.
    SetAside,
}

/// A message for a lane.
pub struct Taken {
    /// The message.
    pub message: Message,
    /// Where it came from.
    pub from: From,
    /// What to do.
    pub how: How,
}

/// Slots of one place, and those that are kept back while its messages are not wanted.
struct Kept {
    slots: Slots,
    owed: AtomicUsize,
}

impl Kept {
    fn release(&self, is_wanted: bool) {
        match is_wanted {
            true => self.slots.grant(1),
            false => drop(self.owed.fetch_add(1, Ordering::SeqCst)),
        }
    }

    fn pay(&self, most: usize) {
        let taken = self.owed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |owed| Some(owed - owed.min(most)));
        let n = taken.unwrap_or_default().min(most);
        if n > 0 {
            self.slots.grant(n);
        }
    }
}

/// Gives slots back when a message is settled.
pub struct Returns {
    events: Vec<Option<Kept>>,
    due: Kept,
    gate: Arc<Gate>,
}

impl Returns {
    /// One slot is free again.
    pub fn release(&self, from: From) {
        let is_closed = self.gate.phase() == Phase::Closed;
        match from {
            From::Event(at) => {
                if let Some(Some(kept)) = self.events.get(at) {
                    kept.release(is_closed || !self.gate.events_may_wait());
                }
            }
            From::Due => self.due.release(is_closed),
        }
    }

    fn pay_events(&self, most: usize) {
        self.events.iter().flatten().for_each(|kept| kept.pay(most));
    }
}

/// The messages of one endpoint.
pub struct Source {
    feeds: Vec<Feed>,
    due: Puller,
    returns: Arc<Returns>,
    gate: Arc<Gate>,
    news: watch::Receiver<bool>,
    stop: CancellationToken,
    due_next: bool,
    probe_paid: bool,
}

impl Source {
    /// With `slots` for each feed, and for due retries.
    pub fn new(
        feeds: Vec<Feed>,
        due: Puller,
        gate: Arc<Gate>,
        slots: usize,
        stop: CancellationToken,
    ) -> (Self, Arc<Returns>) {
        let kept = |puller: &Puller| Kept { slots: puller.slots(), owed: AtomicUsize::new(slots) };
        let events = feeds.iter().map(|feed| match feed {
            Feed::Stream(puller) => Some(kept(puller)),
            Feed::Core(_) => None,
        });
        let returns = Arc::new(Returns { events: events.collect(), due: kept(&due), gate: gate.clone() });
        let news = gate.news();
        let this = Self { feeds, due, returns: returns.clone(), gate, news, stop, due_next: false, probe_paid: false };
        (this, returns)
    }

    /// The next message; `None` after the stop.
    pub async fn next(&mut self) -> Option<Taken> {
        loop {
            if self.stop.is_cancelled() {
                return None;
            }
            self.news.mark_unchanged();
            let taken = match self.gate.phase() {
                Phase::Closed => self.when_closed().await,
                Phase::Open { until } => self.when_shut(until).await,
                // Its end is signalled.
                Phase::Probing => self.when_shut(Instant::now() + PROBING).await,
                Phase::ProbeDue => self.probe().await,
            };
            if taken.is_some() {
                return taken;
            }
        }
    }

    async fn when_closed(&mut self) -> Option<Taken> {
        self.probe_paid = false;
        self.returns.due.pay(usize::MAX);
        self.returns.pay_events(usize::MAX);
        // What is here already is taken in turns, so that neither side starves the other.
        self.due_next = !self.due_next;
        if self.due_next
            && let Some(delivery) = self.due.try_next()
        {
            return Some(due(delivery, How::Try));
        }
        if let Some((at, message)) = ready_event(&mut self.feeds) {
            return Some(Taken { message, from: From::Event(at), how: How::Try });
        }
        let Self { feeds, due: puller, stop, news, .. } = self;
        tokio::select! {
            Some(delivery) = puller.next() => Some(due(delivery, How::Try)),
            (at, message) = any_event(feeds) => Some(Taken { message, from: From::Event(at), how: How::Try }),
            _ = news.changed() => None,
            () = stop.cancelled() => None,
        }
    }

    /// Only events that may not wait come out, to be set aside. Requests that are still open at the server bring
    /// what goes back.
    async fn when_shut(&mut self, until: Instant) -> Option<Taken> {
        self.probe_paid = false;
        let may_wait = self.gate.events_may_wait();
        if !may_wait {
            self.returns.pay_events(usize::MAX);
        }
        while let Some(delivery) = self.due.try_next() {
            put_back(&self.returns, &delivery, From::Due).await;
        }
        let Self { feeds, due: puller, returns, stop, news, .. } = self;
        tokio::select! {
            Some(delivery) = puller.next() => {
                put_back(returns, &delivery, From::Due).await;
                None
            }
            (at, message) = any_event(feeds) => match message {
                Message::Stream(delivery) if may_wait => {
                    put_back(returns, &delivery, From::Event(at)).await;
                    None
                }
                message => Some(Taken { message, from: From::Event(at), how: How::SetAside }),
            },
            () = sleep_until(until) => None,
            _ = news.changed() => None,
            () = stop.cancelled() => None,
        }
    }

    /// The first message that comes is the probe.
    async fn probe(&mut self) -> Option<Taken> {
        if !self.probe_paid {
            self.returns.due.pay(1);
            self.returns.pay_events(1);
            self.probe_paid = true;
        }
        let Self { feeds, due: puller, stop, news, .. } = self;
        let taken = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            Some(delivery) = puller.next() => due(delivery, How::Probe),
            (at, message) = any_event(feeds) => Taken { message, from: From::Event(at), how: How::Probe },
            _ = news.changed() => return None,
        };
        self.gate.begin_probe();
        Some(taken)
    }
}

async fn put_back(returns: &Returns, delivery: &Delivery, from: From) {
    // Unsaid, it comes again after the ack wait.
    let _ = delivery.nak(None).await;
    returns.release(from);
}

fn due(delivery: Delivery, how: How) -> Taken {
    Taken { message: Message::Stream(delivery), from: From::Due, how }
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

/// The next event of any feed; never when all have ended, which they do only at a stop.
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
