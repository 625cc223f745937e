//! The relay: moves what SQL accepted to JetStream, in order, until a PubAck confirms it.
//!
//! Two sources share one loop: attempts of jobs, and the outbox (events, dead letters). Each consists of lines (a
//! queue; events; one queue's dead letters): a line that cannot be published is held by itself and tried with one
//! message at a time, the others continue. A message that can never be published is taken out, with its reason. Work
//! arrives in memory from the committer, or by scanning the store. A claim says which process publishes; one that grew
//! old is returned. Publishing twice is harmless: `Nats-Msg-Id` first, the fence in `transition` in the end.

mod capacity;
mod forgets;
mod lines;
mod marks;
mod opening;
mod sending;
mod source;
mod sources;
mod tail;
mod unsigned;

pub use capacity::{StreamCapacity, poll_loop};
pub use forgets::Forgets;
pub use opening::results_are_read;
pub use source::{Shared, Source};
pub use sources::{JobSource, OutboxSource};

use crate::app::{Handed, PAUSED};
use crate::metrics;
use agentforge_jetstream::{Nats, publish};
use agentforge_proto::time::Micros;
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
use tracing::{debug, info, warn};

/// Publishes that wait for their PubAck at once.
const WINDOW: usize = 1_024;
/// Items kept in memory; the rest waits in the store.
const QUEUE_MAX: usize = 32_768;
/// Items that wait for no more company.
const COMPANY: usize = 64;
/// Longest wait of what could leave, while it makes room for submissions: less than `FRESH`, so that no claim grows old.
const YIELD_MAX: Duration = Duration::from_millis(500);
/// Rows of one scan.
const SCAN_LIMIT: u32 = 1_024;
/// How often the store is asked when nothing else calls for it.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);
/// A line that is held again and again for one reason is logged no more often than this.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Lines whose last log line is remembered.
const LOGGED_MAX: usize = 512;

/// The loop of one source.
pub struct Relay<S: Source> {
    source: Arc<S>,
    nats: Nats,
    handed: Handed<S::Item>,
    forgotten: mpsc::Receiver<i64>,
    lines: Lines<S::Item>,
    /// Messages that wait for their PubAck.
    sent: usize,
    scan_at: Instant,
    /// NATS is unavailable, and nothing is published.
    is_disconnected: bool,
    logged: HashMap<Box<str>, (&'static str, Instant)>,
}

/// Every line of a source, if NATS is unavailable: not a name that a queue can have.
const ALL_LINES: &str = "*";
/// Why nothing is published while NATS is unavailable.
const UNAVAILABLE: &str = "unavailable";

/// An item that was sent, all of its messages or the first for a try.
struct Outcome<T> {
    item: T,
    /// Whether it was the try of a held line.
    is_try: bool,
    /// What came of each message, in order.
    results: Vec<Result<publish::Ack, publish::Error>>,
}

/// Some dozens of messages each, whose PubAcks wake the loop once.
type UnderWay<T> = FuturesUnordered<BoxFuture<'static, Vec<Outcome<T>>>>;

impl<S: Source> Relay<S> {
    /// A relay that takes work from `handed`, and its handle for what is cancelled before its publish.
    pub(crate) fn new(source: Arc<S>, nats: Nats, handed: Handed<S::Item>) -> (Self, Forgets) {
        let (forgets, forgotten) = forgets::forgets();
        // An alert cannot tell a gauge that is not there from one that was never raised.
        ["full", UNAVAILABLE].iter().for_each(|reason| metrics::RELAY_HELD.set(&[S::NAME, ALL_LINES, reason], 0.0));
        let relay = Self {
            source,
            nats,
            handed,
            forgotten,
            lines: Lines::new(S::line),
            sent: 0,
            scan_at: Instant::now(),
            is_disconnected: false,
            logged: HashMap::new(),
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
        self.source.backlog().note_unclaimed();
        self.source.backlog().set_open(true);
        while !stop.is_cancelled() {
            self.shed().await;
            self.check_link();
            self.send(&mut under_way).await;
            let has_room = self.lines.len() < SCAN_LIMIT as usize;
            let linger_until = self.linger_until().filter(|_| !self.is_disconnected && self.sent < WINDOW);
            let try_at = self.lines.next_try().filter(|_| !self.is_disconnected);
            tokio::select! {
                biased;
                Some(outcomes) = under_way.next(), if !under_way.is_empty() => {
                    self.settle_all(outcomes).await;
                    while let Some(Some(outcomes)) = under_way.next().now_or_never() {
                        self.settle_all(outcomes).await;
                    }
                }
                Some(seq) = self.forgotten.recv() => self.forget(seq),
                Some(items) = self.handed.next() => self.accept(items),
                at = woken(&*self.source) => self.scan_at = self.scan_at.min(Instant::now() + at.since(Micros::now())),
                () = tokio::time::sleep_until(self.scan_at), if has_room && !self.is_disconnected => self.scan().await,
                () = sleep_until(linger_until), if linger_until.is_some() => {}
                () = self.source.backlog().resumed() => {}
                () = sleep_until(try_at), if try_at.is_some() => self.try_line(&mut under_way).await,
                Ok(()) = connected.changed(), if self.is_disconnected => {}
                () = stop.cancelled() => {}
            }
        }
        self.source.backlog().set_open(false);
        let last_word = Instant::now() + Duration::from_secs(2);
        let acks = async {
            while let Some(outcomes) = under_way.next().await {
                self.settle_all(outcomes).await;
            }
        };
        let _ = tokio::time::timeout_at(last_word, acks).await;
        drop(under_way);
        let rest = self.lines.take_all();
        if let Err(e) = self.source.release(rest).await {
            info!(lane = S::NAME, error = %e, "claims are left to expire");
        }
    }

    /// Nothing is sent while NATS is unavailable: messages that wait for a connection in parallel would be sent in any
    /// order.
    fn check_link(&mut self) {
        let is_disconnected = !self.nats.is_connected();
        if is_disconnected == self.is_disconnected || is_disconnected && self.lines.len() == 0 {
            return;
        }
        self.is_disconnected = is_disconnected;
        self.source.backlog().set_open(!is_disconnected);
        metrics::RELAY_HELD.set(&[S::NAME, ALL_LINES, UNAVAILABLE], f64::from(u8::from(is_disconnected)));
        if is_disconnected {
            self.log_held(ALL_LINES, UNAVAILABLE, &"NATS is unavailable");
        } else {
            debug!(lane = S::NAME, reason = UNAVAILABLE, "the relay continues");
            self.scan_at = Instant::now();
        }
    }

    /// Whether what waits is worth a wake-up now.
    fn company_came(&self) -> bool {
        let is_company = || self.lines.len() >= COMPANY || self.lines.first().is_some_and(|i| S::parts(i) >= COMPANY);
        !self.source.backlog().is_yielding() && is_company()
            || self.linger_until().is_none_or(|until| until <= Instant::now())
    }

    fn linger_until(&self) -> Option<Instant> {
        let linger = if self.source.backlog().is_yielding() { YIELD_MAX } else { S::LINGER };
        self.lines.first_since().map(|since| since + linger)
    }

    /// Sends what may leave, as far as the window goes.
    async fn send(&mut self, under_way: &mut UnderWay<S::Item>) {
        let (mut together, mut messages) = (Vec::new(), 0);
        while self.sent + messages < WINDOW && !self.is_disconnected && self.company_came() {
            let Some(item) = self.lines.pop() else { break };
            if let Some(reason) = self.source.waits(S::line(&item)) {
                self.hold(S::line(&item), reason, &reason);
                self.put(item, Instant::now());
                continue;
            }
            match self.source.reserve(&item) {
                Ok(()) => {
                    messages += S::parts(&item);
                    together.push(item);
                }
                Err(e) => self.not_reserved(item, false, e).await,
            }
        }
        self.publish_all(together, false, under_way).await;
    }

    async fn send_one(&mut self, item: S::Item, is_try: bool, under_way: &mut UnderWay<S::Item>) {
        match self.source.reserve(&item) {
            Ok(()) => self.publish_all(vec![item], is_try, under_way).await,
            Err(e) => self.not_reserved(item, is_try, e).await,
        }
    }

    /// Tries one message of a held line.
    async fn try_line(&mut self, under_way: &mut UnderWay<S::Item>) {
        let Some(line) = self.lines.begin_try(Instant::now()) else { return };
        if let Some(reason) = self.source.waits(&line) {
            self.hold(&line, reason, &reason);
            return;
        }
        // A line that was paused says with its next message why it waits now.
        if self.lines.reason(&line) != Some(PAUSED) && !self.source.may_try(&line) {
            let reason = self.lines.reason(&line).unwrap_or(UNAVAILABLE);
            self.lines.hold(&line, reason, Instant::now());
            return;
        }
        let item = match self.lines.pop_of(&line) {
            Some(item) => Some(item),
            None => match self.source.claim_of(&line).await {
                Ok(item) => {
                    self.source.backlog().hold(item.as_ref().map_or(0, S::parts));
                    item
                }
                Err(e) => {
                    metrics::DB_ERRORS.inc(&[]);
                    let reason = self.lines.reason(&line).unwrap_or(UNAVAILABLE);
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

    async fn settle_all(&mut self, outcomes: Vec<Outcome<S::Item>>) {
        for outcome in outcomes {
            self.settle(outcome).await;
        }
    }

    async fn settle(&mut self, Outcome { mut item, is_try, results }: Outcome<S::Item>) {
        self.sent -= results.len();
        let (mut last, mut held, mut left) = (None, None, Vec::new());
        left.extend(results.len()..S::parts(&item));
        let mut published = 0;
        for (part, result) in results.into_iter().enumerate() {
            match result {
                Ok(ack) => {
                    if ack.duplicate {
                        metrics::DUPLICATES_SUPPRESSED.inc(&["publish"]);
                    }
                    published += 1;
                    last = Some(ack);
                }
                Err(e) => {
                    self.source.cancel_reservation(&item);
                    if e.is_of_the_message() {
                        self.refuse(&item, part, &e).await;
                    } else {
                        left.push(part);
                        held.get_or_insert(e);
                    }
                }
            }
        }
        metrics::RELAY_PUBLISHED.add(&[S::NAME], published as u64);
        self.source.backlog().let_go(published);
        match held {
            Some(e) => self.hold_for(S::line(&item), is_try, &e),
            // Nothing behind it waits for what can never be.
            None if is_try => self.reopen(S::line(&item)),
            None => {}
        }
        if left.is_empty() {
            self.source.settled(item, last).await;
        } else {
            left.sort_unstable();
            S::keep(&mut item, &left);
            self.put(item, Instant::now());
        }
    }

    /// There is no room for it in the stream, now or ever.
    async fn not_reserved(&mut self, item: S::Item, is_try: bool, e: publish::Error) {
        if e.is_of_the_message() {
            for part in 0..S::parts(&item) {
                self.refuse(&item, part, &e).await;
            }
            if is_try {
                self.reopen(S::line(&item));
            }
            self.source.settled(item, None).await;
        } else {
            self.hold_for(S::line(&item), is_try, &e);
            self.put(item, Instant::now());
        }
    }

    async fn refuse(&mut self, item: &S::Item, part: usize, e: &publish::Error) {
        warn!(
            lane = S::NAME,
            item = S::name(item, part),
            code = e.code(),
            error = %e,
            "a message that can never be published leaves the relay"
        );
        metrics::RELAY_REFUSED.inc(&[S::NAME, e.code()]);
        self.source.backlog().let_go(1);
        self.source.refused(item, part, e).await;
    }

    /// While NATS is unavailable the source waits as a whole; a line that was held before stays held.
    fn hold_for(&mut self, line: &str, is_try: bool, e: &publish::Error) {
        if self.nats.is_connected() {
            self.hold(line, e.code(), e);
        } else if is_try {
            let reason = self.lines.reason(line).unwrap_or(UNAVAILABLE);
            self.hold(line, reason, e);
        }
    }

    /// Puts an item that counts as held into its line; one that takes the place of itself counts once.
    fn put(&mut self, item: S::Item, since: Instant) {
        if let Some(same) = self.lines.insert(S::seq(&item), item, since) {
            self.source.backlog().let_go(S::parts(&same));
        }
    }

    fn hold(&mut self, line: &str, reason: &'static str, e: &dyn std::fmt::Display) {
        let was = self.lines.hold(line, reason, Instant::now());
        if was == Some(reason) {
            return;
        }
        self.source.backlog().close(line, reason);
        was.into_iter().for_each(|was| self.show(line, was));
        self.show(line, reason);
        self.log_held(line, reason, e);
    }

    fn reopen(&mut self, line: &str) {
        let Some(reason) = self.lines.reopen(line) else { return };
        debug!(lane = S::NAME, line, reason, "a queue continues");
        self.show(line, reason);
        self.source.backlog().reopen(line);
        self.scan_at = Instant::now();
    }

    /// How many lines are held for `reason` under the label of `line`.
    fn show(&self, line: &str, reason: &'static str) {
        let label = metrics::queue_label(S::queue_of(line));
        let same =
            |(other, why): &(&str, &'static str)| *why == reason && metrics::queue_label(S::queue_of(other)) == label;
        let n = self.lines.held().filter(same).count();
        metrics::RELAY_HELD.set(&[S::NAME, label, reason], n as f64);
    }

    /// A reason that took the place of another is news; the same again is, after a while.
    fn log_held(&mut self, line: &str, reason: &'static str, e: &dyn std::fmt::Display) {
        let is_old = |(of, at): &(&'static str, Instant)| *of != reason || at.elapsed() >= LOG_INTERVAL;
        if !self.logged.get(line).is_none_or(is_old) {
            return;
        }
        if self.logged.len() >= LOGGED_MAX {
            self.logged.retain(|_, (_, at)| at.elapsed() < LOG_INTERVAL);
        }
        if self.logged.len() < LOGGED_MAX {
            self.logged.insert(line.into(), (reason, Instant::now()));
        }
        if reason == PAUSED {
            info!(lane = S::NAME, line, "the queue is paused; accepted work waits in the database");
        } else {
            warn!(lane = S::NAME, line, reason, error = %e, "the relay is held; accepted work waits in the database");
        }
    }

    fn accept(&mut self, items: Vec<S::Item>) {
        let since = Instant::now();
        if self.lines.len() < QUEUE_MAX {
            for item in items {
                self.put(item, since);
            }
        } else {
            // They lie in the store; their claims run out and a scan finds them.
            self.source.backlog().let_go(items.iter().map(S::parts).sum());
        }
    }

    fn forget(&mut self, seq: i64) {
        if let Some(item) = self.lines.remove(seq) {
            self.source.backlog().let_go(S::parts(&item));
        }
    }

    fn held(&self) -> Vec<String> {
        self.lines.held().map(|(line, _)| line.to_owned()).collect()
    }

    async fn scan(&mut self) {
        self.scan_at = Instant::now() + SCAN_INTERVAL;
        let generation = self.source.backlog().generation();
        match self.source.claim(SCAN_LIMIT, self.held()).await {
            Ok(items) => {
                let since = Instant::now();
                // A claim may end early by bytes: only an empty one says that there is no more.
                let more = !items.is_empty();
                for item in items {
                    self.source.backlog().hold(S::parts(&item));
                    self.put(item, since);
                }
                if more {
                    self.scan_at = since;
                    return;
                }
                self.source.backlog().note_scanned(generation);
                if let Ok(Some(due)) = self.source.next_due(self.held()).await {
                    self.scan_at = self.scan_at.min(since + due.since(Micros::now()).max(Duration::from_millis(5)));
                }
            }
            Err(e) => {
                metrics::DB_ERRORS.inc(&[]);
                warn!(
                    lane = S::NAME,
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
        if let Some(limit) =
            S::FRESH.and_then(|fresh| Instant::now().checked_sub(fresh)).filter(|_| !self.is_disconnected)
        {
            back.extend(self.lines.take_older(limit));
        }
        if back.is_empty() {
            return;
        }
        let (n, parts) = (back.len(), back.iter().map(S::parts).sum());
        if let Err(e) = self.source.release(back).await {
            warn!(lane = S::NAME, error = &e as &dyn std::error::Error, "old claims are left to expire");
        }
        self.source.backlog().let_go(parts);
        if n > spilled {
            self.scan_at = Instant::now();
        }
    }
}

/// When the store is to be asked, once that is news.
async fn woken<S: Source>(source: &S) -> Micros {
    source.backlog().woken().await
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
