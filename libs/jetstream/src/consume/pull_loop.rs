//! The loop behind a puller: connect, find the consumer, subscribe, then ask, hand out, and watch.
//!
//! Each round has a subscription of its own, so nothing that was asked for in an earlier round can
//! arrive in a later one. A round ends when the connection breaks, when the server says that the
//! consumer is gone or served elsewhere, or when something that must come did not.

use super::{
    PullOptions,
    delivery::Delivery,
    ledger::{Ledger, Next},
    status::{Meaning, Unserved, meaning},
};
use crate::{
    backoff::full_jitter,
    metrics::LOOP_LAST_PROGRESS,
    nats::{Nats, SendError},
};
use agentforge_metrics::Gauge;
use async_nats::{Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use std::{
    future::Future,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// A turn at least this often, for liveness and the progress gauge.
const TICK: Duration = Duration::from_secs(1);
/// Asking for the consumer's state.
const BIND: Duration = Duration::from_secs(3);
/// Pauses between tries to find the consumer.
const REBIND_BASE: Duration = Duration::from_millis(100);
const REBIND_CAP: Duration = Duration::from_secs(2);
/// Pause after a refused request: too many are waiting, or a limit of the consumer is below ours.
const REFUSED: Duration = Duration::from_secs(1);
/// A command must find room in the client within this; it does unless the connection hangs.
const COMMAND: Duration = Duration::from_secs(1);
/// How much later than `expires` the word of a request's end may come before it is taken for lost.
const LATE: Duration = Duration::from_secs(2);
/// Two heartbeats and this much without a word mean that the server has forgotten our requests.
const SLACK: Duration = Duration::from_millis(500);
/// Messages handed out in one turn, before the clock and the grants are looked at again.
const PER_TURN: usize = 256;
/// When stopping: open requests that bring nothing for this long are taken for idle and ended.
const QUIET: Duration = Duration::from_millis(100);
/// When stopping: the longest wait for what may still be on its way.
const STOPPING: Duration = Duration::from_secs(2);

/// What the loop and its puller share.
pub(super) struct Shared {
    /// Slots that were granted and not yet taken into the ledger by a turn.
    granted: AtomicUsize,
    /// Ends the wait of a turn. It keeps one permit, so a grant between two waits is not missed.
    wake: Notify,
    /// The loop has free slots and no room for deliveries, so a reader must wake it; otherwise it need not.
    short_of_room: AtomicBool,
    stop: CancellationToken,
    start: std::time::Instant,
    /// Milliseconds from `start` to the last turn. The liveness check compares it with the clock.
    last_turn_ms: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            granted: AtomicUsize::new(0),
            wake: Notify::new(),
            short_of_room: AtomicBool::new(false),
            stop: CancellationToken::new(),
            start: std::time::Instant::now(),
            last_turn_ms: AtomicU64::new(0),
        }
    }
}

impl Shared {
    pub(super) fn grant(&self, n: usize) {
        self.granted.fetch_add(n, Ordering::SeqCst);
        self.wake.notify_one();
    }
    pub(super) fn was_read(&self) {
        if self.short_of_room.load(Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
    pub(super) fn since_last_turn(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.last_turn_ms.load(Ordering::Relaxed)))
    }
    fn turn(&self) {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_turn_ms.store(ms, Ordering::Relaxed);
    }
}

struct PullLoop {
    nats: Nats,
    stream: String,
    consumer: String,
    options: PullOptions,
    shared: std::sync::Arc<Shared>,
    deliveries: mpsc::Sender<Delivery>,
    bound: watch::Sender<bool>,
    /// Outlives rounds: what is granted stays granted, and [`PullLoop::serve`] turns what was outstanding into free slots.
    ledger: Ledger,
    progress: Gauge,
    /// Numbers requests over all rounds; it is the last token of their reply subjects.
    last_request: u64,
}

/// One subscription's time.
struct Round {
    /// Of the connection that the subscription was made on. Another epoch has another subscription, or none.
    epoch: u64,
    /// Replies to request `n` come on `<inbox>.<n>`, so that a status can be attributed to its request.
    inbox: String,
    subscription: Subscriber,
    /// When the server last said anything, or had nothing to say.
    heard: Instant,
    /// No requests before this.
    hold_until: Instant,
}

/// Why a round is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Stopped,
    ConnectionLost,
    /// According to the server.
    ConsumerMoved,
    /// The server says nothing.
    Silent,
}

pub(super) async fn run(
    nats: Nats,
    stream: String,
    consumer: String,
    options: PullOptions,
    shared: std::sync::Arc<Shared>,
    deliveries: mpsc::Sender<Delivery>,
    bound: watch::Sender<bool>,
) {
    let progress = LOOP_LAST_PROGRESS.gauge_handle(&[options.loop_name]);
    let ledger = Ledger::new(options.max_outstanding);
    let mut this =
        PullLoop { nats, stream, consumer, options, shared, deliveries, bound, ledger, progress, last_request: 0 };
    this.rounds().await;
    this.bound.send_replace(false);
    debug!(loop_name = this.options.loop_name, "pull loop ended");
}

impl PullLoop {
    /// One round after the other until the stop. Pauses grow only while no round can be opened.
    async fn rounds(&mut self) {
        let mut failures = 0;
        loop {
            let nats = self.nats.clone();
            let connected = async move {
                // The epoch is read before the subscription is made. If the connection breaks in between, the first turn
                // sees that this epoch is lost, and the round is over before it waits for anything.
                loop {
                    if let Some(epoch) = nats.epoch_by(Instant::now() + TICK).await {
                        return epoch;
                    }
                }
            };
            let Some(epoch) = self.until_stopped(connected).await else { return };
            let Some(found) = self.until_stopped(find(self.nats.clone(), self.info_subject())).await else { return };
            let opened = match found {
                Ok(()) => {
                    self.nats.missing().found(&self.consumer);
                    self.open(epoch).await
                }
                Err(NotFound::Missing(reason)) => {
                    self.nats.missing().note(&self.consumer);
                    Err(reason)
                }
                Err(NotFound::Unanswered(reason)) => Err(reason),
            };
            let over = match opened {
                Ok(round) => {
                    failures = 0;
                    self.set_bound(true, "");
                    self.serve(round).await
                }
                Err(reason) => {
                    failures += 1;
                    self.set_bound(false, &reason);
                    let pause = full_jitter(failures, REBIND_BASE, REBIND_CAP);
                    if self.until_stopped(sleep(pause)).await.is_none() {
                        return;
                    }
                    continue;
                }
            };
            match over {
                Over::Stopped => return,
                Over::ConnectionLost => self.set_bound(false, "the connection broke"),
                Over::ConsumerMoved => debug!(consumer = self.consumer, "consumer moved or deleted; looking for it"),
                Over::Silent => warn!(
                    loop_name = self.options.loop_name,
                    consumer = self.consumer,
                    "the server went silent on open pull requests; subscribing again"
                ),
            }
        }
    }

    /// Runs `work` while taking a turn each second; `None` once the puller was stopped.
    async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            self.shared.turn();
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => return None,
                done = &mut work => return Some(done),
                () = sleep(TICK) => {}
            }
        }
    }

    async fn open(&self, epoch: u64) -> Result<Round, String> {
        let inbox = self.nats.client().new_inbox();
        let subscribed = timeout(COMMAND, self.nats.client().subscribe(format!("{inbox}.*"))).await;
        let subscription = match subscribed {
            Ok(Ok(subscription)) => subscription,
            Ok(Err(e)) => return Err(e.to_string()),
            Err(_) => return Err("the client takes no commands".into()),
        };
        let now = Instant::now();
        Ok(Round { epoch, inbox, subscription, heard: now, hold_until: now })
    }

    /// Serves one round to its end and leaves nothing outstanding.
    async fn serve(&mut self, mut round: Round) -> Over {
        let over = self.turns(&mut round).await;
        if over == Over::Stopped {
            self.wait_for_last(&mut round).await;
        }
        // What is here was delivered to us, however the round ended. It is handed out before the ledger forgets what is
        // outstanding; after that it would count as not requested, and be returned.
        while let Some(Some(message)) = round.subscription.next().now_or_never() {
            let _ = self.take(&mut round, message).await;
        }
        let _ = timeout(COMMAND, round.subscription.unsubscribe()).await;
        self.ledger.lose_all();
        over
    }

    async fn turns(&mut self, round: &mut Round) -> Over {
        let mut link = self.nats.link();
        let mut gauge_at = Instant::now();
        // Each await below may be dropped by the select in favour of another: a message stays in the subscription, a wake
        // keeps its permit, and grants are taken only at the start of a turn.
        loop {
            self.shared.turn();
            let now = Instant::now();
            if link.borrow_and_update().has_lost(round.epoch) {
                return Over::ConnectionLost;
            }
            self.ledger.grant(self.shared.granted.swap(0, Ordering::SeqCst));
            // With nothing outstanding the server owes no heartbeat, so its silence means nothing.
            if self.ledger.outstanding() == 0 {
                round.heard = now;
            }
            // The gauge shows when the server was last heard, not when the loop last turned: a loop that turns and hears
            // nothing makes no progress.
            if now >= gauge_at {
                let quiet_for = now - round.heard;
                self.progress.set((unix_now().saturating_sub(quiet_for)).as_secs_f64());
                gauge_at = now + TICK;
            }
            if now.duration_since(round.heard) > self.options.heartbeat * 2 + SLACK || self.ledger.expire(now) {
                return Over::Silent;
            }
            let Ok(look_again) = self.ask(round, now).await else { return Over::ConnectionLost };

            // In this order, because messages may come without end.
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => return Over::Stopped,
                changed = link.changed() => if changed.is_err() { return Over::ConnectionLost },
                message = round.subscription.next() => {
                    let Some(message) = message else { return Over::ConnectionLost };
                    round.heard = Instant::now();
                    if let Err(over) = self.take_many(round, message).await {
                        return over;
                    }
                }
                () = self.shared.wake.notified() => {}
                () = sleep_until(look_again.min(now + TICK)) => {}
            }
        }
    }

    /// Asks for as many messages as there is reason to. Returns when to look again; an error when the
    /// client takes no commands.
    async fn ask(&mut self, round: &mut Round, now: Instant) -> Result<Instant, ()> {
        if now < round.hold_until {
            return Ok(round.hold_until);
        }
        loop {
            match self.ledger.next(now, self.queued()) {
                Next::At(when) => return Ok(when),
                Next::Nothing { short_of_room } => {
                    let told = self.shared.short_of_room.swap(short_of_room, Ordering::SeqCst);
                    // A reader that took something before it could see the flag gave no sign: look once more.
                    if !short_of_room || told {
                        return Ok(now + TICK);
                    }
                }
                Next::Pull(n) => {
                    self.last_request += 1;
                    let reply = format!("{}.{}", round.inbox, self.last_request);
                    let body = format!(
                        "{{\"batch\":{n},\"expires\":{},\"idle_heartbeat\":{}}}",
                        self.options.expires.as_nanos(),
                        self.options.heartbeat.as_nanos()
                    );
                    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.consumer);
                    let sent = self.nats.client().publish_with_reply(subject, reply, body.into());
                    // Whether it went out is not known; the round ends, and with it everything that could answer it.
                    if !matches!(timeout(COMMAND, sent).await, Ok(Ok(()))) {
                        return Err(());
                    }
                    self.ledger.requested(self.last_request, n, now + self.options.expires + LATE);
                    return Ok(now + TICK);
                }
            }
        }
    }

    fn queued(&self) -> usize {
        self.deliveries.max_capacity() - self.deliveries.capacity()
    }

    async fn take_many(&mut self, round: &mut Round, first: Message) -> Result<(), Over> {
        self.take(round, first).await?;
        for _ in 1..PER_TURN {
            let Some(Some(message)) = round.subscription.next().now_or_never() else { break };
            self.take(round, message).await?;
        }
        Ok(())
    }

    /// Accounts for one message: hands a delivery out, or does what a status says.
    async fn take(&mut self, round: &mut Round, message: Message) -> Result<(), Over> {
        match message.status {
            Some(status) => self.on_status(round, status, &message),
            None => {
                self.hand_out(message).await;
                Ok(())
            }
        }
    }

    async fn hand_out(&mut self, message: Message) {
        // Not from a consumer: somebody knows our inbox. It uses no slot.
        let Some(delivery) = Delivery::new(self.nats.clone(), message) else { return };
        // The channel has room for all that may be outstanding, so a refusal means that the puller was dropped.
        let unwanted = if self.ledger.delivered() {
            match self.deliveries.try_send(delivery) {
                Ok(()) => return,
                Err(refused) => {
                    self.ledger.give_back();
                    refused.into_inner()
                }
            }
        } else {
            delivery
        };
        debug!(seq = unwanted.info().stream_seq, "an unclaimed message is returned");
        if let Err(error) = unwanted.nak(None).await {
            debug!(%error, "could not be returned; redelivered after the ack wait");
        }
    }

    fn on_status(&mut self, round: &mut Round, status: StatusCode, message: &Message) -> Result<(), Over> {
        let description = message.description.as_deref().unwrap_or_default();
        let pending = message.headers.as_ref().and_then(|h| h.get("Nats-Pending-Messages"));
        let id = message.subject.rsplit('.').next().and_then(|id| id.parse().ok()).unwrap_or(0);
        match meaning(status.as_u16(), description, pending.map(|v| v.as_str())) {
            Meaning::Heartbeat => {}
            Meaning::Over { unserved: Unserved::Count(n) } => self.ledger.ended(id, n),
            // Deliveries do not name their request, so only a new subscription makes sure that none comes late.
            Meaning::Over { unserved: Unserved::Unknown } => {
                debug!(%status, description, "a pull request ended without a count");
                return Err(Over::Silent);
            }
            Meaning::Refused => {
                warn!(consumer = self.consumer, %status, description, "pull request refused; pausing");
                // The ledger bounds it by the request's batch: none of it was served.
                self.ledger.ended(id, usize::MAX);
                round.hold_until = Instant::now() + REFUSED + full_jitter(1, REFUSED, REFUSED);
            }
            Meaning::Wrong => {
                error!(consumer = self.consumer, %status, description, "pull request is wrong; pausing");
                self.ledger.ended(id, usize::MAX);
                round.hold_until = Instant::now() + REFUSED * 5;
            }
            Meaning::Rebind => {
                debug!(consumer = self.consumer, %status, description, "the consumer must be found again");
                return Err(Over::ConsumerMoved);
            }
        }
        Ok(())
    }

    /// After a stop: takes what is on its way, then ends the requests that wait for messages to come.
    async fn wait_for_last(&mut self, round: &mut Round) {
        let end = Instant::now() + STOPPING;
        while self.ledger.outstanding() > 0 && Instant::now() < end {
            let Ok(Some(message)) = timeout(QUIET, round.subscription.next()).await else { break };
            if self.take(round, message).await.is_err() {
                break;
            }
        }
        if self.ledger.outstanding() == 0 {
            return;
        }
        // Without interest in their reply subject the server forgets idle requests; what it sent before still comes.
        let drained = timeout(COMMAND, round.subscription.drain()).await;
        while drained.is_ok() {
            let Ok(Some(message)) = timeout(QUIET, round.subscription.next()).await else { break };
            let _ = self.take(round, message).await;
        }
    }

    fn set_bound(&self, bound: bool, reason: &str) {
        let changed = self.bound.send_if_modified(|b| std::mem::replace(b, bound) != bound);
        let (name, consumer) = (self.options.loop_name, &self.consumer);
        match (bound, changed) {
            (true, true) => info!(loop_name = name, stream = self.stream, consumer, "pulling"),
            (false, true) => {
                warn!(loop_name = name, stream = self.stream, consumer, reason, "cannot pull; trying again")
            }
            (false, false) => debug!(loop_name = name, consumer, reason, "still cannot pull"),
            (true, false) => {}
        }
    }

    fn info_subject(&self) -> Subject {
        format!("$JS.API.CONSUMER.INFO.{}.{}", self.stream, self.consumer).into()
    }
}

/// Why there is nothing to pull from.
enum NotFound {
    /// The server has no such consumer or stream.
    Missing(String),
    /// No server that would know answers.
    Unanswered(String),
}

/// Whether the consumer exists and answers, or why not.
async fn find(nats: Nats, subject: Subject) -> Result<(), NotFound> {
    #[derive(serde::Deserialize)]
    struct Answer {
        error: Option<Refusal>,
    }
    #[derive(serde::Deserialize)]
    struct Refusal {
        #[serde(default)]
        code: u16,
        #[serde(default)]
        description: String,
    }
    let message = nats.request(subject, Bytes::new(), BIND).await.map_err(|e| {
        let reason = match e {
            SendError::NotConnected => "not connected to NATS",
            SendError::Refused(_) => "the NATS client is closed",
            SendError::NoReply(_) => "JetStream does not answer",
        };
        NotFound::Unanswered(reason.to_owned())
    })?;
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(NotFound::Unanswered("JetStream is not available".into()));
    }
    match serde_json::from_slice::<Answer>(&message.payload) {
        Ok(Answer { error: None }) => Ok(()),
        Ok(Answer { error: Some(Refusal { code: 404, description }) }) => Err(NotFound::Missing(description)),
        Ok(Answer { error: Some(refusal) }) => Err(NotFound::Unanswered(refusal.description)),
        Err(e) => Err(NotFound::Unanswered(format!("the server's answer is not understood: {e}"))),
    }
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
