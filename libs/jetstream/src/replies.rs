//! Replies to requests: one subscription for all, each waiter with a deadline.
//!
//! Unlike the client's own requests, a waiter here ends when the connection breaks (the reply can no
//! longer come), leaves nothing behind when it times out, and needs no timer of its own.

use crate::link::Link;
use async_nats::{Client, Message, Subscriber};
use futures_util::{FutureExt, StreamExt};
use std::{
    collections::HashMap,
    fmt::Write,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot, watch},
    time::{Instant, sleep_until},
};

/// How often deadlines are looked at while something waits; a wait may last this much longer than asked.
const SWEEP: Duration = Duration::from_millis(50);
/// The same while nothing waited: the first wait after that may last this much longer.
const IDLE_SWEEP: Duration = Duration::from_millis(250);

/// Replies that are handed out before deadlines and the connection are looked at again.
const AT_ONCE: usize = 256;

/// Why no reply came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoReply {
    /// The connection broke. Whether the request was served is unknown.
    Lost,
    /// The deadline passed. Whether the request was served is unknown.
    TimedOut,
}

type Reply = Result<Message, NoReply>;

/// Who gets a reply.
enum Answer {
    One(oneshot::Sender<Reply>),
    /// The place of one of many.
    OfMany(Arc<Many>, usize),
}

impl Answer {
    fn give(self, reply: Reply) {
        match self {
            Self::One(sender) => _ = sender.send(reply),
            Self::OfMany(many, place) => many.put(place, Some(reply)),
        }
    }
}

struct Waiter {
    answer: Answer,
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

/// Replies to requests that are sent together.
struct Many(Mutex<Arrived>);

struct Arrived {
    replies: Vec<Option<Reply>>,
    /// Those that are to come.
    left: usize,
    waker: Option<Waker>,
}

impl Many {
    /// Fills a place, once; nothing comes for a request that was not sent.
    fn put(&self, place: usize, reply: Option<Reply>) {
        let mut arrived = self.lock();
        arrived.replies[place] = reply;
        arrived.left -= 1;
        let waker = if arrived.left == 0 { arrived.waker.take() } else { None };
        drop(arrived);
        waker.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.0.lock().expect("nothing panics under this lock")
    }
}

/// Places for the replies to many requests, in their order: one wake-up for all, when the last has arrived. `None` stands for
/// a request that was forgotten.
pub(crate) struct PendingMany {
    many: Arc<Many>,
    first: u64,
}

impl Future for PendingMany {
    type Output = Vec<Option<Reply>>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut arrived = self.many.lock();
        if arrived.left == 0 {
            return Poll::Ready(std::mem::take(&mut arrived.replies));
        }
        if !arrived.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            arrived.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
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
        self.lock().insert(id, Waiter { answer: Answer::One(tx), deadline, epoch, _permit: permit });
        (self.subject(id), Pending { answer })
    }

    /// Takes `n` places at once.
    pub(crate) fn expect_many(&self, n: usize, epoch: u64, deadline: Instant) -> PendingMany {
        let first = self.next.fetch_add(n as u64, Ordering::Relaxed);
        let replies = std::iter::repeat_with(|| None).take(n).collect();
        let many = Arc::new(Many(Mutex::new(Arrived { replies, left: n, waker: None })));
        let mut waiting = self.lock();
        waiting.extend((first..).zip(0..n).map(|(id, place)| {
            (id, Waiter { answer: Answer::OfMany(Arc::clone(&many), place), deadline, epoch, _permit: None })
        }));
        drop(waiting);
        PendingMany { many, first }
    }

    /// Where the reply to one of many goes.
    pub(crate) fn subject_of(&self, pending: &PendingMany, place: usize) -> String {
        self.subject(pending.first + place as u64)
    }

    /// Frees the place of one of many that could not be sent.
    pub(crate) fn forget_one_of(&self, pending: &PendingMany, place: usize) {
        if self.lock().remove(&(pending.first + place as u64)).is_some() {
            pending.many.put(place, None);
        }
    }

    fn subject(&self, id: u64) -> String {
        let mut subject = String::with_capacity(self.prefix.len() + 20);
        subject.push_str(&self.prefix);
        let _ = write!(subject, "{id}");
        subject
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
            waiter.answer.give(Ok(message));
        }
    }

    fn end(&self, ends: impl Fn(&Waiter) -> bool, why: NoReply) {
        let ended: Vec<_> = self.lock().extract_if(|_, waiter| ends(waiter)).collect();
        for (_, waiter) in ended {
            waiter.answer.give(Err(why));
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
    let mut sweep_at = Instant::now() + SWEEP;
    loop {
        tokio::select! {
            message = subscription.next() => match message {
                Some(message) => {
                    replies.answer(message);
                    for _ in 0..AT_ONCE {
                        let Some(Some(message)) = subscription.next().now_or_never() else { break };
                        replies.answer(message);
                    }
                }
                None => break,
            },
            changed = link.changed() => match changed {
                Ok(()) => {
                    let link = *link.borrow_and_update();
                    replies.end(|waiter| link.has_lost(waiter.epoch), NoReply::Lost);
                }
                Err(_) => break,
            },
            () = sleep_until(sweep_at) => {
                let now = Instant::now();
                sweep_at = now + if replies.lock().is_empty() { IDLE_SWEEP } else { SWEEP };
                replies.end(|waiter| waiter.deadline <= now, NoReply::TimedOut);
            }
        }
    }
    replies.end(|_| true, NoReply::Lost);
}
