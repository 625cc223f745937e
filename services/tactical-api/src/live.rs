//! From the stream to the picture and to everybody who follows it.
//!
//! One task reads the tail in order, turns messages into events, keeps the picture and hands events to the
//! fan-out under one lock, so that a snapshot and what follows it always fit. What is refused is counted
//! and can be looked at.

use crate::{
    event::{Epoch, Event, EventId, Mark},
    fanout::{Fanout, Start},
    history,
    links::Signer,
    metrics,
    picture::{Due, Picture},
    sanitise::{Change, Rejection, sanitise},
    tail::{Tail, TailEvent, Tailed},
};
use jiff::Timestamp;
use serde::Serialize;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use utoipa::ToSchema;

/// Refused messages that can be looked at.
const RECENT_MAX: usize = 100;
/// Longest subject that is shown of them.
const SUBJECT_SHOWN: usize = 200;

/// A message that changed nothing.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Refused {
    /// When it was stored.
    pub stored_at: Timestamp,
    /// The sequence of the message in the stream.
    pub seq: u64,
    /// Where it was published.
    pub subject: String,
    /// Why, as in the metric.
    pub reason: &'static str,
    /// Why, in words.
    pub detail: String,
}

/// What a client asks to begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartRequest {
    /// What comes from now on.
    Live,
    /// The picture, and what comes.
    Snapshot,
    /// All behind an event.
    Id(EventId),
    /// What a client had is not known: all that there is.
    Unknown,
    /// Everything after a sequence of any stream.
    Seq(u64),
    /// All since a moment, in unix milliseconds.
    Since(i64),
}

/// The picture as it is shared. Clones share it.
#[derive(Clone, Debug)]
pub struct Live(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    hub: Fanout,
    signer: Signer,
}

#[derive(Debug, Default)]
struct State {
    /// `None` while the picture is not whole.
    epoch: Option<Epoch>,
    picture: Picture,
    refused: VecDeque<Refused>,
}

impl Live {
    /// An empty picture that is not ready.
    pub fn new(hub: Fanout, signer: Signer) -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), hub, signer }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream's incarnation; `None` while the picture is not whole.
    pub fn epoch(&self) -> Option<Epoch> {
        self.state().epoch.clone()
    }

    /// Messages that were refused lately, the newest first.
    pub fn refused(&self) -> Vec<Refused> {
        self.state().refused.iter().rev().cloned().collect()
    }

    /// States whose time is over.
    pub fn due(&self) -> Vec<Due> {
        self.state().picture.due(Timestamp::now().as_millisecond())
    }

    /// Forgets what is older than the stream keeps.
    pub fn age(&self, max_age: Duration) {
        self.state().picture.age(max_age, Timestamp::now().as_millisecond());
    }

    /// Forgets what the stream no longer has: somebody purged it, or it is full.
    pub fn forget_before(&self, first: u64) {
        self.state().picture.forget_before(first);
    }

    /// How a client starts, and a notice before everything else. `None` while the picture is not whole.
    pub fn start(&self, asked: StartRequest) -> Option<(Start, Option<Arc<Event>>)> {
        let state = self.state();
        let epoch = state.epoch.as_ref()?;
        let now = Timestamp::now().as_millisecond();
        Some(match asked {
            StartRequest::Live => (Start::Now, None),
            StartRequest::Seq(seq) => (Start::After(Mark::bare(seq)), None),
            StartRequest::Since(moment) => (Start::Since(moment), None),
            StartRequest::Id(id) if id.epoch == *epoch => (Start::After(id.mark), None),
            StartRequest::Id(_) | StartRequest::Unknown => {
                (Start::After(Mark::default()), Some(Arc::new(Event::reset(epoch, now))))
            }
            StartRequest::Snapshot => {
                let (events, seq) = state.picture.snapshot(&self.0.signer, now);
                (Start::Snapshot(events, seq), None)
            }
        })
    }

    /// Follows the tail until the stop. `told` receives what keeps it from following.
    pub async fn follow(self, mut tail: Tail, told: impl Fn(Result<(), String>), stop: CancellationToken) {
        let mut loading: Option<Loading> = None;
        loop {
            // Being connected to the stream is not enough: what was there before must have been read.
            let is_whole = loading.as_ref().is_some_and(|loading| loading.is_done);
            let of_tail = |outcome: Result<(), String>| {
                if is_whole || outcome.is_err() {
                    told(outcome);
                }
            };
            let news = tokio::select! {
                news = tail.next(of_tail) => news,
                () = stop.cancelled() => return,
            };
            match (news, &mut loading) {
                (TailEvent::Began { epoch, head, is_empty }, _) => {
                    loading = Some(self.load(epoch, head, is_empty, false));
                }
                (TailEvent::Reset { epoch, head, is_empty }, _) => {
                    warn!(%epoch, "the stream is another one; clients get a gap and everything in it");
                    loading = Some(self.load(epoch, head, is_empty, true));
                }
                (TailEvent::Messages(messages), Some(loading)) => self.take(messages, loading).await,
                // A tail begins before it gives messages.
                (TailEvent::Messages(_), None) => {}
            }
            if !is_whole && loading.as_ref().is_some_and(|loading| loading.is_done) {
                told(Ok(()));
            }
        }
    }

    fn load(&self, epoch: Epoch, head: u64, is_empty: bool, is_reset: bool) -> Loading {
        let mut state = self.state();
        state.epoch = None;
        state.picture.clear();
        let mut loading = Loading { epoch, head: Mark::default(), is_reset, is_done: false };
        if is_empty {
            loading.head = Mark::bare(head);
            state.picture.seen(head);
            self.begin(&mut state, &mut loading);
        }
        loading
    }

    async fn take(&self, messages: Vec<Tailed>, loading: &mut Loading) {
        let now = Timestamp::now().as_millisecond();
        let is_newest = messages.last().is_some_and(|message| message.pending == 0);
        {
            let mut state = self.state();
            let mut events = Vec::with_capacity(messages.len());
            for message in messages {
                // Before the picture is complete, only the newest state of each marker was asked for.
                if loading.is_done {
                    let missing = history::holes(loading.head.seq, message.seq, 1, &loading.epoch, now);
                    events.extend(missing.into_iter().map(Arc::new));
                }
                loading.head = loading.head.max(message.mark());
                events.extend(self.event(&mut state, message, &loading.epoch));
            }
            state.picture.seen(loading.head.seq);
            state.picture.report();
            if loading.is_done {
                self.0.hub.publish(&events, loading.head);
            } else if is_newest {
                self.begin(&mut state, loading);
            }
        }
        self.0.hub.has_room().await;
    }

    /// The picture is whole.
    fn begin(&self, state: &mut State, loading: &mut Loading) {
        loading.is_done = true;
        let (epoch, head) = (&loading.epoch, loading.head);
        if !loading.is_reset {
            self.0.hub.begin(epoch, head)
        } else {
            let notice = Event::reset(epoch, Timestamp::now().as_millisecond());
            self.0.hub.reset(epoch, head, &Arc::new(notice));
        }
        state.epoch = Some(epoch.clone());
        info!(%epoch, head = head.seq, "the picture is complete");
    }

    fn event(&self, state: &mut State, message: Tailed, epoch: &Epoch) -> Option<Arc<Event>> {
        let stored_at = Timestamp::from_nanosecond(message.stored_unix_ns).unwrap_or_default();
        match sanitise(&message.subject, &message.payload, stored_at) {
            Ok(change) => {
                if matches!(&change, Change::State(feature) if feature.names_foreign_evidence) {
                    metrics::WITHHELD.inc(&[]);
                }
                let before = state.picture.before(change.key());
                let id = EventId { epoch: epoch.clone(), mark: message.mark() };
                let event = Event::of_change(change, before, &id, stored_at.as_millisecond(), &self.0.signer);
                let event = Arc::new(event);
                state.picture.apply(&event);
                Some(event)
            }
            Err(rejection) => {
                state.refuse(&message, stored_at, rejection);
                None
            }
        }
    }
}

impl State {
    fn refuse(&mut self, message: &Tailed, stored_at: Timestamp, rejection: Rejection) {
        metrics::REJECTED.inc(&[rejection.as_str()]);
        if self.refused.len() >= RECENT_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back(Refused {
            stored_at,
            seq: message.seq,
            subject: message.subject.chars().take(SUBJECT_SHOWN).collect(),
            reason: rejection.as_str(),
            detail: rejection.to_string(),
        });
    }
}

/// How far the first reading is.
struct Loading {
    epoch: Epoch,
    /// The newest message that was looked at.
    head: Mark,
    is_reset: bool,
    is_done: bool,
}
