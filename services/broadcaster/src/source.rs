//! What an endpoint's lanes work on: its events, and its retries that are due.
//!
//! One lane at a time asks. While the circuit is open, due retries stay where they are and events are handed
//! out to be set aside; one message at a time is handed out as the probe. What was pulled and is not wanted
//! now goes back at once, so that nothing waits here until its ack wait is over.

use crate::{circuit::Phase, gate::Gate};
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
    /// Deliver, and tell the circuit.
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

/// Gives slots back when a message is settled.
pub struct Returns {
    events: Vec<Option<Slots>>,
    due: Slots,
    /// Slots of due retries that are kept back while the circuit is open.
    owed: AtomicUsize,
    gate: Arc<Gate>,
}

impl Returns {
    /// One slot is free again.
    pub fn release(&self, from: From) {
        match from {
            From::Event(at) => {
                if let Some(Some(slots)) = self.events.get(at) {
                    slots.grant(1);
                }
            }
            From::Due if self.gate.phase() == Phase::Closed => self.due.grant(1),
            From::Due => drop(self.owed.fetch_add(1, Ordering::SeqCst)),
        }
    }

    fn pay(&self, most: usize) {
        let taken = self.owed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |owed| Some(owed - owed.min(most)));
        let n = taken.unwrap_or_default().min(most);
        if n > 0 {
            self.due.grant(n);
        }
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
    /// Begins with `slots` for each feed.
    pub fn new(
        feeds: Vec<Feed>,
        due: Puller,
        gate: Arc<Gate>,
        slots: usize,
        stop: CancellationToken,
    ) -> (Self, Arc<Returns>) {
        let events = feeds.iter().map(|feed| match feed {
            Feed::Stream(puller) => Some(puller.slots()),
            Feed::Core(_) => None,
        });
        let owed = AtomicUsize::new(slots);
        let returns = Arc::new(Returns { events: events.collect(), due: due.slots(), owed, gate: gate.clone() });
        for slots_of in returns.events.iter().flatten() {
            slots_of.grant(slots);
        }
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
                // Its end is told.
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
        self.returns.pay(usize::MAX);
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

    /// Only events come out, to be set aside. Requests for due retries that are still open bring what goes back.
    async fn when_shut(&mut self, until: Instant) -> Option<Taken> {
        self.probe_paid = false;
        self.put_back_due().await;
        let Self { feeds, due: puller, returns, stop, news, .. } = self;
        tokio::select! {
            Some(delivery) = puller.next() => {
                put_back(returns, &delivery).await;
                None
            }
            (at, message) = any_event(feeds) => Some(Taken { message, from: From::Event(at), how: How::SetAside }),
            () = sleep_until(until) => None,
            _ = news.changed() => None,
            () = stop.cancelled() => None,
        }
    }

    /// The first message that comes is the probe.
    async fn probe(&mut self) -> Option<Taken> {
        if !self.probe_paid {
            self.returns.pay(1);
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

    /// Due retries that were pulled before the circuit opened.
    async fn put_back_due(&mut self) {
        while let Some(delivery) = self.due.try_next() {
            put_back(&self.returns, &delivery).await;
        }
    }
}

async fn put_back(returns: &Returns, delivery: &Delivery) {
    // Unsaid, it comes again after the ack wait.
    let _ = delivery.nak(None).await;
    returns.release(From::Due);
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

/// The next event of any feed; for ever when all have ended, which they do at a stop only.
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
