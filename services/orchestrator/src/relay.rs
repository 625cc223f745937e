//! The relay: moves what SQL accepted to JetStream, in order, until a PubAck confirms it.
//!
//! Two lanes share one loop: attempts of jobs, and the outbox (events, dead letters). Each consists of lines (a queue;
//! events; one queue's dead letters): a line that cannot be published is held by itself and tried with one message at a
//! time, the others continue. A message that can never be published is taken out, with its reason. Work arrives in
//! memory from the committer, or by scanning the store. A claim says which process publishes; one that grew old is
//! returned. Publishing twice is harmless: `Nats-Msg-Id` first, the fence in `transition` in the end.

mod forgets;
mod lanes;
mod lines;
mod marks;
mod opening;
mod room;
mod tail;

pub use forgets::Forgets;
pub use lanes::{JobLane, OutboxLane};
pub use opening::results_are_read;
pub use room::{Room, look_loop};

use crate::app::{Backlog, Handed};
use crate::metrics;
use crate::store::{self, Owner, Store};
use agentforge_jetstream::{Nats, publish, trace, trace::Operation};
use agentforge_message_id::MsgId;
use agentforge_proto::time::Micros;
use async_nats::HeaderMap;
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lines::Lines;
use std::collections::HashMap;
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
const SCAN_INTERVAL: Duration = Duration::from_secs(1);
/// A line that is held again and again for one reason is logged no more often than this.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Lines whose last word is remembered.
const TOLD_MAX: usize = 512;

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
    /// The line that it leaves or waits with.
    fn line(item: &Self::Item) -> &str;
    /// The queue of a line, for metrics.
    fn queue_of(line: &str) -> &str;
    /// What it is called in the log.
    fn name(item: &Self::Item) -> String;
    /// Subject, id, headers and bytes.
    fn message(&self, item: &Self::Item) -> Message;
    /// Takes room for it; else the reason why its line waits, or why it can never leave.
    fn take_room(&self, item: &Self::Item) -> Result<(), publish::Error>;
    /// Whether a held line is worth a try: what is known here needs no claim and no message.
    fn may_try(&self, line: &str) -> bool;
    /// It was not published after all.
    fn give_room(&self, item: &Self::Item);
    /// Claims from the store, in order, of all lines but those held. None: there is no more.
    async fn claim(&self, limit: u32, held: Vec<String>) -> Result<Vec<Self::Item>, store::Error>;
    /// Claims the first of a line.
    async fn claim_of(&self, line: &str) -> Result<Option<Self::Item>, store::Error>;
    /// When the store should be asked next.
    async fn next_due(&self, held: Vec<String>) -> Result<Option<Micros>, store::Error>;
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

/// One lane's loop.
pub struct Relay<L: Lane> {
    lane: Arc<L>,
    nats: Nats,
    handed: Handed<L::Item>,
    forgotten: mpsc::Receiver<i64>,
    lines: Lines<L::Item>,
    scan_at: Instant,
    /// NATS is unavailable, and nothing is published.
    is_away: bool,
    told: HashMap<Box<str>, (&'static str, Instant)>,
}

/// Every line of a lane, if NATS is unavailable: not a name that a queue can have.
const ALL_LINES: &str = "*";
/// Why nothing is published while NATS is unavailable.
const AWAY: &str = "unavailable";

/// An item, whether it was a held line's try, and what came of it.
type Outcome<T> = (T, bool, Result<publish::Ack, publish::Error>);
type UnderWay<T> = FuturesUnordered<BoxFuture<'static, Outcome<T>>>;

impl<L: Lane> Relay<L> {
    /// A relay that takes work from `handed`, and its handle for what is cancelled before its publish.
    pub(crate) fn new(lane: Arc<L>, nats: Nats, handed: Handed<L::Item>) -> (Self, Forgets) {
        let (forgets, forgotten) = forgets::forgets();
        // An alert cannot tell a gauge that is not there from one that was never raised.
        ["full", AWAY].iter().for_each(|reason| metrics::RELAY_HELD.set(&[L::NAME, ALL_LINES, reason], 0.0));
        let relay = Self {
            lane,
            nats,
            handed,
            forgotten,
            lines: Lines::new(L::line),
            scan_at: Instant::now(),
            is_away: false,
            told: HashMap::new(),
        };
        (relay, forgets)
    }

    /// Waits for `opening`, then runs until `stop` fires; then publishes nothing new, takes the PubAcks that are
    /// due and gives claims back.
    pub async fn run(mut self, opening: impl Future<Output = ()>, stop: CancellationToken) {
        tokio::select! {
            () = opening => {}
            () = stop.cancelled() => return,
        }
        let mut under_way = UnderWay::new();
        let mut connected = self.nats.connected();
        // What the last process left comes first.
        self.lane.backlog().note_unclaimed();
        self.lane.backlog().set_open(true);
        while !stop.is_cancelled() {
            self.shed().await;
            self.look_at_link();
            self.send(&mut under_way).await;
            let has_room = self.lines.len() < SCAN_LIMIT as usize;
            let linger_until = self.linger_until().filter(|_| !self.is_away && under_way.len() < WINDOW);
            let try_at = self.lines.next_try().filter(|_| !self.is_away);
            tokio::select! {
                biased;
                Some(outcome) = under_way.next(), if !under_way.is_empty() => {
                    self.settle(outcome).await;
                    while let Some(Some(outcome)) = under_way.next().now_or_never() {
                        self.settle(outcome).await;
                    }
                }
                Some(seq) = self.forgotten.recv() => self.forget(seq),
                Some(items) = self.handed.next() => self.accept(items),
                at = woken(&*self.lane) => self.scan_at = self.scan_at.min(Instant::now() + at.since(Micros::now())),
                () = tokio::time::sleep_until(self.scan_at), if has_room && !self.is_away => self.scan().await,
                () = sleep_until(linger_until), if linger_until.is_some() => {}
                () = sleep_until(try_at), if try_at.is_some() => self.try_line(&mut under_way).await,
                Ok(()) = connected.changed(), if self.is_away => {}
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
        let rest = self.lines.take_all();
        if let Err(e) = self.lane.release(rest).await {
            info!(lane = L::NAME, error = %e, "claims are left to expire");
        }
    }

    /// Nothing is sent while NATS is unavailable: messages that wait for a connection in parallel would be sent in any
    /// order.
    fn look_at_link(&mut self) {
        let is_away = !self.nats.is_connected();
        if is_away == self.is_away || is_away && self.lines.len() == 0 {
            return;
        }
        self.is_away = is_away;
        self.lane.backlog().set_open(!is_away);
        metrics::RELAY_HELD.set(&[L::NAME, ALL_LINES, AWAY], f64::from(u8::from(is_away)));
        if is_away {
            self.tell(ALL_LINES, AWAY, &"NATS is unavailable");
        } else {
            debug!(lane = L::NAME, reason = AWAY, "the relay continues");
            self.scan_at = Instant::now();
        }
    }

    /// Whether what waits is worth a wake-up now.
    fn company_came(&self) -> bool {
        self.lines.len() >= COMPANY || self.linger_until().is_none_or(|until| until <= Instant::now())
    }

    fn linger_until(&self) -> Option<Instant> {
        self.lines.first_since().map(|since| since + L::LINGER)
    }

    /// Sends what may leave, as far as the window goes.
    async fn send(&mut self, under_way: &mut UnderWay<L::Item>) {
        while under_way.len() < WINDOW && !self.is_away && self.company_came() {
            let Some(item) = self.lines.pop() else { break };
            self.send_one(item, false, under_way).await;
        }
    }

    async fn send_one(&mut self, item: L::Item, is_try: bool, under_way: &mut UnderWay<L::Item>) {
        match self.lane.take_room(&item) {
            Ok(()) => under_way.push(self.publish(item, is_try)),
            Err(e) => self.not_published(item, is_try, e).await,
        }
    }

    /// One message of a held line tries the door.
    async fn try_line(&mut self, under_way: &mut UnderWay<L::Item>) {
        let Some(line) = self.lines.begin_try(Instant::now()) else { return };
        if !self.lane.may_try(&line) {
            let reason = self.lines.reason(&line).unwrap_or(AWAY);
            self.lines.hold(&line, reason, Instant::now());
            return;
        }
        let item = match self.lines.pop_of(&line) {
            Some(item) => Some(item),
            None => match self.lane.claim_of(&line).await {
                Ok(item) => {
                    self.lane.backlog().hold(usize::from(item.is_some()));
                    item
                }
                Err(e) => {
                    metrics::DB_ERRORS.inc(&[]);
                    let reason = self.lines.reason(&line).unwrap_or(AWAY);
                    self.hold(&line, reason, &e);
                    return;
                }
            },
        };
        match item {
            Some(item) => self.send_one(item, true, under_way).await,
            // Nothing waits any more.
            None => self.reopen(&line),
        }
    }

    fn publish(&self, item: L::Item, is_try: bool) -> BoxFuture<'static, Outcome<L::Item>> {
        let message = self.lane.message(&item);
        let nats = self.nats.clone();
        // Not cut short by the scheduler: of many messages in one turn, those that it makes wait would be
        // woken in the reverse order. The window bounds how many there are.
        let publish = tokio::task::unconstrained(async move {
            let Message { subject, msg_id, mut headers, payload } = message;
            let span = trace::carried_on(&mut headers, || {
                let name = Operation::Publish.span_name(&subject);
                info_span!("publish", subject, otel.name = name, otel.kind = "producer")
            });
            if !span.is_disabled() {
                trace::describe_message(&span, Operation::Publish, &subject, msg_id.to_string());
            }
            let outcome = publish::publish(&nats, subject, msg_id, headers, payload).instrument(span).await;
            (item, is_try, outcome)
        });
        publish.boxed()
    }

    async fn settle(&mut self, (item, is_try, outcome): Outcome<L::Item>) {
        match outcome {
            Ok(ack) => {
                if ack.duplicate {
                    metrics::DUPLICATES_SUPPRESSED.inc(&["publish"]);
                }
                metrics::RELAY_PUBLISHED.inc(&[L::NAME]);
                self.lane.backlog().let_go(1);
                if is_try {
                    self.reopen(L::line(&item));
                }
                self.lane.published(item, ack).await;
            }
            Err(e) => {
                self.lane.give_room(&item);
                self.not_published(item, is_try, e).await;
            }
        }
    }

    async fn not_published(&mut self, item: L::Item, is_try: bool, e: publish::Error) {
        if e.is_of_the_message() {
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
            if is_try {
                self.reopen(L::line(&item));
            }
            self.lane.refused(item, &e).await;
            return;
        }
        // While NATS is unavailable the lane waits as a whole; a line that was held before stays held.
        if self.nats.is_connected() {
            self.hold(L::line(&item), e.code(), &e);
        } else if is_try {
            let reason = self.lines.reason(L::line(&item)).unwrap_or(AWAY);
            self.hold(L::line(&item), reason, &e);
        }
        if !self.lines.insert(L::seq(&item), item, Instant::now()) {
            self.lane.backlog().let_go(1);
        }
    }

    fn hold(&mut self, line: &str, reason: &'static str, e: &dyn std::fmt::Display) {
        let was = self.lines.hold(line, reason, Instant::now());
        if was == Some(reason) {
            return;
        }
        self.lane.backlog().close(line, reason);
        was.into_iter().for_each(|was| self.show(line, was));
        self.show(line, reason);
        self.tell(line, reason, e);
    }

    fn reopen(&mut self, line: &str) {
        let Some(reason) = self.lines.reopen(line) else { return };
        debug!(lane = L::NAME, line, reason, "a queue continues");
        self.show(line, reason);
        self.lane.backlog().reopen(line);
        self.scan_at = Instant::now();
    }

    /// How many lines are held for `reason` under the label of `line`.
    fn show(&self, line: &str, reason: &'static str) {
        let label = metrics::queue_label(L::queue_of(line));
        let same =
            |(other, why): &(&str, &'static str)| *why == reason && metrics::queue_label(L::queue_of(other)) == label;
        let n = self.lines.held().filter(same).count();
        metrics::RELAY_HELD.set(&[L::NAME, label, reason], n as f64);
    }

    /// A reason that took the place of another is news; the same again is, after a while.
    fn tell(&mut self, line: &str, reason: &'static str, e: &dyn std::fmt::Display) {
        let is_old = |(of, at): &(&'static str, Instant)| *of != reason || at.elapsed() >= LOG_INTERVAL;
        if !self.told.get(line).is_none_or(is_old) {
            return;
        }
        if self.told.len() >= TOLD_MAX {
            self.told.retain(|_, (_, at)| at.elapsed() < LOG_INTERVAL);
        }
        if self.told.len() < TOLD_MAX {
            self.told.insert(line.into(), (reason, Instant::now()));
        }
        warn!(lane = L::NAME, line, reason, error = %e, "the relay is held; accepted work waits in the database");
    }

    fn accept(&mut self, items: Vec<L::Item>) {
        let since = Instant::now();
        if self.lines.len() < QUEUE_MAX {
            let (came, mut new) = (items.len(), 0);
            for item in items {
                new += usize::from(self.lines.insert(L::seq(&item), item, since));
            }
            self.lane.backlog().let_go(came - new);
        } else {
            // They lie in the store; their claims run out and a scan finds them.
            self.lane.backlog().let_go(items.len());
        }
    }

    fn forget(&mut self, seq: i64) {
        if self.lines.remove(seq) {
            self.lane.backlog().let_go(1);
        }
    }

    fn held(&self) -> Vec<String> {
        self.lines.held().map(|(line, _)| line.to_owned()).collect()
    }

    async fn scan(&mut self) {
        self.scan_at = Instant::now() + SCAN_INTERVAL;
        let generation = self.lane.backlog().generation();
        match self.lane.claim(SCAN_LIMIT, self.held()).await {
            Ok(items) => {
                let since = Instant::now();
                // A claim may end early by bytes: only an empty one says that there is no more.
                let more = !items.is_empty();
                for item in items {
                    let is_new = self.lines.insert(L::seq(&item), item, since);
                    self.lane.backlog().hold(usize::from(is_new));
                }
                if more {
                    self.scan_at = since;
                    return;
                }
                self.lane.backlog().note_scanned(generation);
                if let Ok(Some(due)) = self.lane.next_due(self.held()).await {
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

    /// What waited too long in memory, or found no place in it, goes back to the store, whose word is newer.
    async fn shed(&mut self) {
        let mut back = self.lines.take_spilled();
        let spilled = back.len();
        if let Some(limit) = L::FRESH.and_then(|fresh| Instant::now().checked_sub(fresh)).filter(|_| !self.is_away) {
            back.extend(self.lines.take_older(limit));
        }
        if back.is_empty() {
            return;
        }
        let n = back.len();
        if let Err(e) = self.lane.release(back).await {
            warn!(lane = L::NAME, error = &e as &dyn std::error::Error, "old claims are left to expire");
        }
        self.lane.backlog().let_go(n);
        if n > spilled {
            self.scan_at = Instant::now();
        }
    }
}

/// When the store is to be asked, once that is news.
async fn woken<L: Lane>(lane: &L) -> Micros {
    lane.backlog().woken().await
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
