//! Following a stream in order, forever: a push consumer without acknowledgements, watched and recreated.
//!
//! Owns order and completeness: what it gives is every message of the stream once, with a word where one is
//! missing because the stream no longer has it, or because the stream is another one. Relies on consumer
//! sequences and idle heartbeats to notice what it did not get. Never gives up.

use crate::{
    event::{Epoch, Mark},
    history,
    source::Source,
};
use agentforge_jetstream::{AckInfo, Nats};
use async_nats::{
    Message, StatusCode, Subscriber,
    jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, push},
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

/// The interval of the server's idle heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// After this long without a sign of life the consumer is recreated.
const SILENCE_MAX: Duration = Duration::from_secs(4);
/// Messages given at once.
const BATCH_MAX: usize = 256;
/// Bytes given at once, about.
const BATCH_BYTES: usize = 4 << 20;

/// What is followed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of the stream.
    pub stream: &'static str,
    /// The subjects that are delivered, with wildcards.
    pub filter: &'static str,
    /// Payloads are not needed.
    pub headers_only: bool,
    /// Between two tries while the stream cannot be followed.
    pub again: Duration,
}

/// A message of the stream.
#[derive(Clone, Debug)]
pub struct Tailed {
    /// Where it was published.
    pub subject: String,
    /// The message's sequence in the stream.
    pub seq: u64,
    /// When it was stored, in unix nanoseconds.
    pub stored_unix_ns: i128,
    /// The message's body; empty where only headers are asked for.
    pub payload: Bytes,
    /// The message's headers, where there are any.
    pub headers: Option<async_nats::HeaderMap>,
    /// Messages that waited behind it when it was sent: none, and it is the newest.
    pub pending: u64,
}

impl Tailed {
    /// Where it is in the stream, with the moment of its storage.
    pub fn mark(&self) -> Mark {
        Mark::of(self.seq, history::unix_ms(self.stored_unix_ns))
    }
}

/// What happened, in order.
#[derive(Debug)]
pub enum TailEvent {
    /// Following begins. The newest state of every subject comes first, as messages up to `head`.
    Began {
        /// The stream's incarnation.
        epoch: Epoch,
        /// Its newest sequence.
        head: u64,
        /// There is nothing to come before what is new.
        is_empty: bool,
    },
    /// As `Began`, and what was followed before is no longer there.
    Reset {
        /// The new incarnation.
        epoch: Epoch,
        /// Its newest sequence.
        head: u64,
        /// There is nothing to come before what is new.
        is_empty: bool,
    },
    /// Messages, at least one.
    Messages(Vec<Tailed>),
}

/// The stream and where in it we are.
#[derive(Clone, Debug)]
struct Position {
    epoch: Epoch,
    mark: Mark,
}

/// A tail of one stream.
pub struct Tail {
    nats: Nats,
    target: Target,
    source: Source,
    connected: watch::Receiver<bool>,
    place: Option<Position>,
    bound: Option<Bound>,
}

struct Bound {
    subscription: Subscriber,
    consumer_seq: u64,
    heard_at: Instant,
}

impl Tail {
    /// Follows nothing yet. `source` is notified whenever the stream is heard.
    pub fn new(nats: Nats, target: Target, source: Source) -> Self {
        let connected = nats.connected();
        Self { nats, target, source, connected, place: None, bound: None }
    }

    /// The next news. Waits for as long as it takes; `told` receives what keeps it from following. Can be dropped at
    /// any await: nothing that was taken is lost without being reported.
    pub async fn next(&mut self, told: impl Fn(Result<(), String>)) -> TailEvent {
        loop {
            if self.bound.is_none() {
                match self.bind().await {
                    Ok(Some(news)) => {
                        told(Ok(()));
                        return news;
                    }
                    Ok(None) => told(Ok(())),
                    Err(reason) => {
                        told(Err(reason));
                        sleep(self.target.again).await;
                        continue;
                    }
                }
            }
            match self.messages().await {
                Some(messages) => return TailEvent::Messages(messages),
                None => self.bound = None,
            }
        }
    }

    /// Creates a consumer that continues where we are. Returns the news if we are nowhere, or elsewhere.
    async fn bind(&mut self) -> Result<Option<TailEvent>, String> {
        let js = self.nats.jetstream();
        let stream = js.get_stream(self.target.stream).await.map_err(|e| e.to_string())?;
        let info = stream.cached_info();
        let (epoch, head) = (Epoch::of(info.created.unix_timestamp_nanos()), info.state.last_sequence);
        let place = self.place.clone();
        let (policy, news) = match &place {
            Some(place) if is_there(&self.nats, &self.target, place, &epoch, head).await? => {
                (DeliverPolicy::ByStartSequence { start_sequence: place.mark.seq + 1 }, None)
            }
            _ => {
                let is_empty = info.state.messages == 0;
                let news = match self.place {
                    None => TailEvent::Began { epoch: epoch.clone(), head, is_empty },
                    Some(_) => TailEvent::Reset { epoch: epoch.clone(), head, is_empty },
                };
                (DeliverPolicy::LastPerSubject, Some(news))
            }
        };
        let client = self.nats.client();
        let deliver_subject = client.new_inbox();
        let subscription = client.subscribe(deliver_subject.clone()).await.map_err(|e| e.to_string())?;
        let config = push::Config {
            deliver_subject,
            deliver_policy: policy,
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            filter_subject: self.target.filter.to_owned(),
            headers_only: self.target.headers_only,
            flow_control: true,
            idle_heartbeat: HEARTBEAT,
            max_deliver: 1,
            memory_storage: true,
            num_replicas: 1,
            ..Default::default()
        };
        js.create_consumer_on_stream(config, self.target.stream).await.map_err(|e| e.to_string())?;
        if news.is_some() {
            // What the newest states of all subjects leave out was never to come.
            self.place = Some(Position { epoch, mark: Mark::default() });
        }
        self.connected.mark_unchanged();
        self.source.heard();
        self.bound = Some(Bound { subscription, consumer_seq: 0, heard_at: Instant::now() });
        Ok(news)
    }

    /// The next messages; `None` when the consumer is to be recreated.
    async fn messages(&mut self) -> Option<Vec<Tailed>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        loop {
            let bound = self.bound.as_mut()?;
            let message = if batch.is_empty() {
                let deadline = bound.heard_at + SILENCE_MAX;
                tokio::select! {
                    message = timeout_at(deadline, bound.subscription.next()) => message.ok()??,
                    // A consumer may not have survived what broke the connection.
                    _ = self.connected.changed() => return None,
                }
            } else {
                match bound.subscription.next().now_or_never() {
                    Some(Some(message)) => message,
                    _ => return Some(batch),
                }
            };
            bound.heard_at = Instant::now();
            self.source.heard();
            match self.take(message).await {
                Taken::Message(message) => {
                    bytes += message.payload.len();
                    batch.push(message);
                    if batch.len() >= BATCH_MAX || bytes >= BATCH_BYTES {
                        return Some(batch);
                    }
                }
                Taken::Nothing => {}
                Taken::Lost => {
                    self.bound = None;
                    return (!batch.is_empty()).then_some(batch);
                }
            }
        }
    }

    async fn take(&mut self, message: Message) -> Taken {
        let (Some(bound), Some(place)) = (self.bound.as_mut(), self.place.as_mut()) else { return Taken::Lost };
        if message.status == Some(StatusCode::IDLE_HEARTBEAT) {
            if let Some(reply) = message.reply {
                // Flow control: the server waits for this before it sends on.
                let _ = self.nats.client().publish(reply, Bytes::new()).await;
                return Taken::Nothing;
            }
            let last = message.headers.as_ref().and_then(|h| history::number(h, "Nats-Last-Consumer"));
            return if last.is_none_or(|last: u64| last == bound.consumer_seq) { Taken::Nothing } else { Taken::Lost };
        }
        let Some(info) = message.reply.as_deref().and_then(AckInfo::parse) else { return Taken::Nothing };
        if info.consumer_seq != bound.consumer_seq + 1 {
            return Taken::Lost;
        }
        bound.consumer_seq = info.consumer_seq;
        place.mark = place.mark.max(Mark::of(info.stream_seq, history::unix_ms(info.stored_at_ns)));
        Taken::Message(Tailed {
            subject: message.subject.into_string(),
            seq: info.stream_seq,
            stored_unix_ns: info.stored_at_ns,
            payload: message.payload,
            headers: message.headers,
            pending: info.pending,
        })
    }
}

/// Whether the stream continues where we are. A server that lost its newest messages gives their sequences to others.
async fn is_there(nats: &Nats, target: &Target, place: &Position, epoch: &Epoch, head: u64) -> Result<bool, String> {
    if place.epoch != *epoch || place.mark.seq > head {
        return Ok(false);
    }
    history::knows(nats, target.stream, target.filter, place.mark).await.map_err(|e| e.to_string())
}

enum Taken {
    Message(Tailed),
    Nothing,
    Lost,
}
