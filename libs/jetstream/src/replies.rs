//! Replies to requests: one subscription for all, each waiter with a deadline.
//!
//! Unlike the client's own requests, a waiter here ends when the connection breaks (the reply can no
//! longer come), leaves nothing behind when it times out, and needs no timer of its own.

use crate::link::Link;
use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt;
use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval},
};

/// How often deadlines are looked at; a wait may last this much longer than asked.
const SWEEP: Duration = Duration::from_millis(50);

/// Why no reply came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoReply {
    /// The connection broke. Whether the request was served is unknown.
    Lost,
    /// The deadline passed. Whether the request was served is unknown.
    TimedOut,
}

struct Waiter {
    answer: oneshot::Sender<Result<Message, NoReply>>,
    deadline: Instant,
    /// The connection over which the request goes out.
    epoch: u64,
    /// Held until the reply arrived, so that it bounds the requests in flight even if none is polled.
    _permit: Option<OwnedSemaphorePermit>,
}

/// The waiters of one client.
pub(crate) struct Replies {
    prefix: String,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiter>>,
}

/// A place for one reply. The place is free again when the reply came, the deadline passed or the
/// connection broke; dropping this changes nothing.
pub(crate) struct Pending {
    answer: oneshot::Receiver<Result<Message, NoReply>>,
}

impl Future for Pending {
    type Output = Result<Message, NoReply>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A dropped sender means that the client was closed for good.
        Pin::new(&mut self.answer).poll(cx).map(|reply| reply.unwrap_or(Err(NoReply::Lost)))
    }
}

impl Replies {
    /// The waiters and the subscription to [`run`] them with.
    pub(crate) async fn new(client: &Client) -> Result<(Arc<Self>, Subscriber), async_nats::SubscribeError> {
        let prefix = format!("{}.", client.new_inbox());
        let subscription = client.subscribe(format!("{prefix}*")).await?;
        let replies = Self { prefix, next: AtomicU64::new(1), waiting: Mutex::default() };
        Ok((Arc::new(replies), subscription))
    }

    /// Takes a place: the reply subject, and where the reply arrives.
    pub(crate) fn expect(
        &self,
        epoch: u64,
        deadline: Instant,
        permit: Option<OwnedSemaphorePermit>,
    ) -> (String, Pending) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (tx, answer) = oneshot::channel();
        self.lock().insert(id, Waiter { answer: tx, deadline, epoch, _permit: permit });
        (format!("{}{id}", self.prefix), Pending { answer })
    }

    /// Frees the place of a request that could not be sent.
    pub(crate) fn forget(&self, subject: &str) {
        if let Some(id) = self.id(subject) {
            self.lock().remove(&id);
        }
    }

    fn answer(&self, message: Message) {
        // Unknown: a reply that came after its deadline.
        let waiter = self.id(&message.subject).and_then(|id| self.lock().remove(&id));
        if let Some(waiter) = waiter {
            let _ = waiter.answer.send(Ok(message));
        }
    }

    fn end(&self, ends: impl Fn(&Waiter) -> bool, why: NoReply) {
        let ended: Vec<_> = self.lock().extract_if(|_, waiter| ends(waiter)).collect();
        for (_, waiter) in ended {
            let _ = waiter.answer.send(Err(why));
        }
    }

    fn id(&self, subject: &str) -> Option<u64> {
        subject.strip_prefix(&self.prefix)?.parse().ok()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiter>> {
        self.waiting.lock().expect("nothing panics under this lock")
    }
}

/// Hands replies out until the client is closed. Waiters end when their connection breaks.
pub(crate) async fn run(replies: Arc<Replies>, mut subscription: Subscriber, mut link: watch::Receiver<Link>) {
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = subscription.next() => match message {
                Some(message) => replies.answer(message),
                None => break,
            },
            changed = link.changed() => match changed {
                Ok(()) => {
                    let link = *link.borrow_and_update();
                    replies.end(|waiter| link.has_lost(waiter.epoch), NoReply::Lost);
                }
                Err(_) => break,
            },
            _ = sweep.tick() => {
                let now = Instant::now();
                replies.end(|waiter| waiter.deadline <= now, NoReply::TimedOut);
            }
        }
    }
    replies.end(|_| true, NoReply::Lost);
}
