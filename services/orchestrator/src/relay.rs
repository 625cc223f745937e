//! The relay: moves what SQL accepted to JetStream, in order, until a PubAck says that it is there.
//!
//! Two lanes share one loop: attempts of jobs, and the outbox (events, dead letters), so that a full
//! `events` stream never holds a job. Work comes in memory from the committer, or by scanning the
//! store. A claim says who publishes; one that grew old is given back, and the store is asked again.
//! Publishing twice is harmless: `Nats-Msg-Id` first, the fence in `transition` in the end.

mod lanes;

pub use lanes::{JobLane, OutboxLane};

use crate::app::{Backlog, Handoff};
use crate::metrics;
use crate::store::{self, Owner, Store};
use agentforge_jetstream::{Nats, publish, trace};
use agentforge_message_id::MsgId;
use agentforge_proto::time::Micros;
use async_nats::HeaderMap;
use async_trait::async_trait;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

/// Publishes that wait for their PubAck at once.
const WINDOW: usize = 1_024;
/// Items kept in memory; the rest waits in the store.
const QUEUE_MAX: usize = 16_384;
/// Items that wait for no more company.
const COMPANY: usize = 64;
/// Rows of one scan.
const SCAN_LIMIT: u32 = 1_024;
/// How often the store is asked when nothing else calls for it.
const SCAN_EVERY: Duration = Duration::from_secs(1);
/// A relay that is held again and again says so no more often than this.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Shortest and longest pause while the stream is full or NATS is away.
const HOLD: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What the loop needs to know of a lane.
#[async_trait]
pub trait Lane: Send + Sync + 'static {
    /// What is published.
    type Item: Send + Sync + 'static;
    /// `jobs` or `outbox`.
    const NAME: &'static str;
    /// How long an item may wait for company, so that one wake-up serves many.
    const LINGER: Duration;
    /// A claim older than this is given back instead of used, where the store's word may be newer.
    const FRESH: Option<Duration>;

    /// What it and the committer know of the backlog in the store.
    fn backlog(&self) -> &Backlog;

    /// Its place in the order.
    fn seq(item: &Self::Item) -> i64;
    /// What it is called in the log.
    fn name(item: &Self::Item) -> String;
    /// Subject, id, headers and bytes.
    fn message(&self, item: &Self::Item) -> Message;
    /// Takes what the committer hands over; `None` when there is only a reason to look into the store.
    fn accept(&self, handoff: Handoff) -> (Vec<Self::Item>, Option<Micros>);
    /// Claims from the store, in order. None: there is no more.
    async fn claim(&self, limit: u32) -> Result<Vec<Self::Item>, store::Error>;
    /// When the store should be asked next.
    async fn next_due(&self) -> Result<Option<Micros>, store::Error>;
    /// The PubAck came. Waits while more publishes are settled than the store can note.
    async fn published(&self, item: Self::Item, ack: publish::Ack);
    /// It can never be published: it leaves the line, with the reason. Waits as [`Lane::published`] does.
    async fn refused(&self, item: Self::Item, error: &publish::Error);
    /// Gives claims back.
    async fn release(&self, items: Vec<Self::Item>) -> Result<(), store::Error>;
}

/// A message to publish.
#[derive(Debug)]
pub struct Message {
    /// Subject.
    pub subject: String,
    /// `Nats-Msg-Id`.
    pub msg_id: MsgId,
    /// Further headers.
    pub headers: HeaderMap,
    /// Bytes.
    pub payload: bytes::Bytes,
}

/// Shared by both lanes.
#[derive(Clone)]
pub struct Shared {
    /// Database.
    pub store: Arc<dyn Store>,
    /// This process.
    pub owner: Owner,
    /// How long claims hold.
    pub claim_for: Duration,
}

struct Held<T> {
    item: T,
    since: Instant,
}

/// One lane's loop.
pub struct Relay<L: Lane> {
    lane: Arc<L>,
    nats: Nats,
    handoffs: mpsc::UnboundedReceiver<Handoff>,
    forgets: mpsc::UnboundedReceiver<i64>,
    queue: BTreeMap<i64, Held<L::Item>>,
    scan_at: Instant,
    hold: Option<Hold>,
    told: Option<(&'static str, Instant)>,
}

struct Hold {
    until: Instant,
    pause: Duration,
    reason: &'static str,
}

type Outcome<T> = (T, Result<publish::Ack, publish::Error>);

impl<L: Lane> Relay<L> {
    /// A relay that takes work from `handoffs` and drops what `forgets` names (cancelled before its publish).
    pub fn new(
        lane: Arc<L>,
        nats: Nats,
        handoffs: mpsc::UnboundedReceiver<Handoff>,
        forgets: mpsc::UnboundedReceiver<i64>,
    ) -> Self {
        // An alert cannot tell a gauge that is not there from one that was never raised.
        ["full", "unavailable"].iter().for_each(|reason| metrics::RELAY_HELD.set(&[L::NAME, reason], 0.0));
        Self { lane, nats, handoffs, forgets, queue: BTreeMap::new(), scan_at: Instant::now(), hold: None, told: None }
    }

    /// Runs until `stop` fires; then publishes nothing new, takes the PubAcks that are due and gives claims back.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        let mut connected = self.nats.connected();
        // What the last process left comes first.
        self.lane.backlog().note_unclaimed();
        self.lane.backlog().set_open(true);
        while !stop.is_cancelled() {
            self.shed_old_claims().await;
            self.hold_while_away();
            while under_way.len() < WINDOW && self.hold.is_none() && self.company_came() {
                let Some((_, held)) = self.queue.pop_first() else { break };
                under_way.push(self.publish(held.item));
            }
            let has_room = self.queue.len() < SCAN_LIMIT as usize;
            let hold_until = self.hold.as_ref().map(|h| h.until);
            let linger_until = self.linger_until().filter(|_| self.hold.is_none() && under_way.len() < WINDOW);
            tokio::select! {
                biased;
                Some(outcome) = under_way.next(), if !under_way.is_empty() => {
                    self.settle(outcome).await;
                    while let Some(Some(outcome)) = under_way.next().now_or_never() {
                        self.settle(outcome).await;
                    }
                }
                Some(seq) = self.forgets.recv() => self.forget(seq),
                Some(handoff) = self.handoffs.recv() => self.accept(handoff),
                () = tokio::time::sleep_until(self.scan_at), if has_room && self.hold.is_none() => self.scan().await,
                () = sleep_until(linger_until), if linger_until.is_some() => {}
                () = sleep_until(hold_until), if hold_until.is_some() => {
                    // One message tries the door; the pause grows until it opens.
                    if !self.nats.is_connected() {
                        self.wait_longer();
                    } else if let Some((_, held)) = self.queue.pop_first() {
                        let outcome = self.publish(held.item).await;
                        self.settle(outcome).await;
                    } else {
                        self.release_hold();
                    }
                }
                Ok(()) = connected.changed(), if hold_until.is_some() => {
                    if let Some(h) = self.hold.as_mut().filter(|_| *connected.borrow()) {
                        h.until = Instant::now();
                    }
                }
                () = stop.cancelled() => {}
            }
        }
        self.lane.backlog().set_open(false);
        let last_word = Instant::now() + Duration::from_secs(2);
        let acks = async {
            while let Some(outcome) = under_way.next().await {
                self.settle(outcome).await;
            }
        };
        let _ = tokio::time::timeout_at(last_word, acks).await;
        drop(under_way);
        let rest: Vec<_> = std::mem::take(&mut self.queue).into_values().map(|h| h.item).collect();
        if let Err(e) = self.lane.release(rest).await {
            info!(lane = L::NAME, error = %e, "claims are left to run out");
        }
    }

    /// Nothing is sent while NATS is away: messages that wait side by side for a connection would leave
    /// in any order.
    fn hold_while_away(&mut self) {
        if self.hold.is_none() && !self.queue.is_empty() && !self.nats.is_connected() {
            self.hold("unavailable", &"NATS is away");
        }
    }

    fn wait_longer(&mut self) {
        if let Some(h) = &mut self.hold {
            h.pause = (h.pause * 2).min(HOLD.1);
            h.until = Instant::now() + h.pause;
        }
    }

    /// Whether what waits is worth a wake-up now.
    fn company_came(&self) -> bool {
        self.queue.len() >= COMPANY || self.linger_until().is_none_or(|until| until <= Instant::now())
    }

    fn linger_until(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|(_, held)| held.since + L::LINGER)
    }

    fn publish(&self, item: L::Item) -> impl Future<Output = Outcome<L::Item>> + use<L> {
        let message = self.lane.message(&item);
        let nats = self.nats.clone();
        // Not cut short by the scheduler: of many messages in one turn, those that it makes wait would be
        // woken in the reverse order. The window bounds how many there are.
        tokio::task::unconstrained(async move {
            let Message { subject, msg_id, mut headers, payload } = message;
            let span = trace::carried_on(&mut headers, || {
                info_span!("publish", subject, otel.name = format!("publish {}", L::NAME), otel.kind = "producer")
            });
            let outcome = publish::publish(&nats, subject, msg_id, headers, payload).instrument(span).await;
            (item, outcome)
        })
    }

    async fn settle(&mut self, (item, outcome): Outcome<L::Item>) {
        match outcome {
            Ok(ack) => {
                if ack.duplicate {
                    metrics::DUPLICATES_SUPPRESSED.inc(&["publish"]);
                }
                metrics::RELAY_PUBLISHED.inc(&[L::NAME]);
                self.lane.backlog().let_go(1);
                self.release_hold();
                self.lane.published(item, ack).await;
            }
            Err(e) if e.is_of_the_message() => {
                // Nothing behind it waits for what can never be.
                warn!(
                    lane = L::NAME,
                    item = L::name(&item),
                    code = e.code(),
                    error = %e,
                    "a message that can never be published leaves the relay"
                );
                metrics::RELAY_REFUSED.inc(&[L::NAME, e.code()]);
                self.lane.backlog().let_go(1);
                self.lane.refused(item, &e).await;
                self.release_hold();
            }
            Err(e) => {
                let reason = if matches!(e, publish::Error::Full { .. }) { "full" } else { "unavailable" };
                self.hold(reason, &e);
                if self.queue.insert(L::seq(&item), Held { item, since: Instant::now() }).is_some() {
                    self.lane.backlog().let_go(1);
                }
            }
        }
    }

    fn hold(&mut self, reason: &'static str, e: &dyn std::fmt::Display) {
        let pause = match &self.hold {
            // The rest of one window fails together: that is one failure.
            Some(h) if h.until > Instant::now() => return,
            Some(h) => (h.pause * 2).min(HOLD.1),
            None => HOLD.0,
        };
        // What is told is what holds it now: a reason that took the place of another is news.
        if self.told.is_none_or(|(of, at)| of != reason || self.hold.is_none() && at.elapsed() >= TELL_EVERY) {
            self.told = Some((reason, Instant::now()));
            warn!(lane = L::NAME, reason, error = %e, "the relay is held; accepted work waits in the database");
        }
        if let Some(h) = self.hold.as_ref().filter(|h| h.reason != reason) {
            metrics::RELAY_HELD.set(&[L::NAME, h.reason], 0.0);
        }
        metrics::RELAY_HELD.set(&[L::NAME, reason], 1.0);
        self.lane.backlog().set_open(false);
        self.hold = Some(Hold { until: Instant::now() + pause, pause, reason });
    }

    fn release_hold(&mut self) {
        if let Some(h) = self.hold.take() {
            debug!(lane = L::NAME, reason = h.reason, "the relay goes on");
            metrics::RELAY_HELD.set(&[L::NAME, h.reason], 0.0);
            self.lane.backlog().set_open(true);
            self.scan_at = Instant::now();
        }
    }

    fn accept(&mut self, handoff: Handoff) {
        let (items, look_at) = self.lane.accept(handoff);
        let since = Instant::now();
        if self.queue.len() < QUEUE_MAX {
            self.queue.extend(items.into_iter().map(|item| (L::seq(&item), Held { item, since })));
        } else {
            // They lie in the store; their claims run out and a scan finds them.
            self.lane.backlog().let_go(items.len());
        }
        if let Some(at) = look_at {
            self.scan_at = self.scan_at.min(since + at.since(Micros::now()));
        }
    }

    fn forget(&mut self, seq: i64) {
        if self.queue.remove(&seq).is_some() {
            self.lane.backlog().let_go(1);
        }
    }

    async fn scan(&mut self) {
        self.scan_at = Instant::now() + SCAN_EVERY;
        let generation = self.lane.backlog().generation();
        match self.lane.claim(SCAN_LIMIT).await {
            Ok(items) => {
                let since = Instant::now();
                // A claim may end early by bytes: only an empty one says that there is no more.
                let more = !items.is_empty();
                let known = self.queue.len();
                self.queue.extend(items.into_iter().map(|item| (L::seq(&item), Held { item, since })));
                self.lane.backlog().hold(self.queue.len() - known);
                if more {
                    self.scan_at = since;
                    return;
                }
                self.lane.backlog().note_scanned(generation);
                if let Ok(Some(due)) = self.lane.next_due().await {
                    self.scan_at = self.scan_at.min(since + due.since(Micros::now()).max(Duration::from_millis(5)));
                }
            }
            Err(e) => {
                metrics::DB_ERRORS.inc(&[]);
                warn!(
                    lane = L::NAME,
                    error = &e as &dyn std::error::Error,
                    "the store could not be scanned for work; trying again"
                );
            }
        }
    }

    /// What waited too long in memory goes back to the store, whose word is newer.
    async fn shed_old_claims(&mut self) {
        let Some((_, first)) = self.queue.first_key_value() else { return };
        let Some(fresh) = L::FRESH else { return };
        if first.since.elapsed() < fresh || self.hold.is_some() {
            return;
        }
        let old: Vec<_> = self.queue.extract_if(.., |_, h| h.since.elapsed() >= fresh).map(|(_, h)| h.item).collect();
        let n = old.len();
        if let Err(e) = self.lane.release(old).await {
            warn!(lane = L::NAME, error = &e as &dyn std::error::Error, "old claims are left to run out");
        }
        self.lane.backlog().let_go(n);
        self.scan_at = Instant::now();
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
