//! Answers the fan-out when a client needs what is no longer in memory: one read of the stream at a time.
//!
//! A client asks again when it has written what it got, so a slow one costs no more than one batch. Reads
//! at once are bounded, and so are the requests that wait; see [`queue`].

use crate::{
    event::{Before, Epoch, Event, EventId, Mark, Notice},
    fanout::{Fanout, ReplayBatch, ReplayRequest, ReplayStart},
    history::{self, Batch, Begin, Error, holes},
    links::Signer,
    live::Live,
    metrics::REPLAYED,
    sanitise::sanitise,
};
use agentforge_jetstream::{
    Nats,
    subjects::{STREAM_TACTICAL, TACTICAL_FILTER},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

/// Reads at once.
const READS_AT_ONCE: usize = 32;
/// Requests that may wait, for each client that may be connected: a client has one, and one more is of no use any more
/// after a change of the stream, or because a client has left. What is beyond is refused; see `Worker::request`.
const WAITING_PER_CLIENT: usize = 2;
/// Messages of one read.
const MESSAGES: usize = 256;
/// Bytes of one read, about.
const BYTES: usize = 256 << 10;
/// How long a client waits for a stream that cannot be read.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The queue of requests where at most `clients_max` clients are connected.
pub fn queue(clients_max: usize) -> (mpsc::Sender<ReplayRequest>, mpsc::Receiver<ReplayRequest>) {
    mpsc::channel(clients_max.saturating_mul(WAITING_PER_CLIENT))
}

/// What a read needs.
#[derive(Clone)]
pub struct Replay {
    /// Where the stream is.
    pub nats: Nats,
    /// What the sequences belong to.
    pub live: Live,
    /// Signs the links to evidence in what is sent.
    pub signer: Signer,
    /// Gets the answers.
    pub hub: Fanout,
}

impl Replay {
    /// Answers until the stop.
    pub async fn run(self, mut wanted: mpsc::Receiver<ReplayRequest>, stop: CancellationToken) {
        let (permits, tasks) = (Arc::new(Semaphore::new(READS_AT_ONCE)), TaskTracker::new());
        loop {
            let one = tokio::select! {
                one = wanted.recv() => one,
                () = stop.cancelled() => return,
            };
            let Some(one) = one else { return };
            let permit = tokio::select! {
                permit = permits.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
                () = stop.cancelled() => return,
            };
            let (this, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move {
                tokio::select! {
                    found = this.answer(one.from) => this.hub.feed(one.client, found),
                    () = stop.cancelled() => {}
                }
                drop(permit);
            });
        }
    }

    async fn answer(&self, from: ReplayStart) -> Option<ReplayBatch> {
        let end = Instant::now() + PATIENCE;
        loop {
            // While the stream is being read again its sequences mean nothing.
            if let Some(epoch) = self.live.epoch() {
                match self.read(from, &epoch).await {
                    Ok(found) => return Some(found),
                    Err(error) => debug!(%error, "a client waits for the stream"),
                }
            }
            if Instant::now() >= end {
                return None;
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    async fn lookup(&self, from: ReplayStart, count: usize) -> Result<Batch, Error> {
        let begin = match from {
            ReplayStart::After(Mark { seq, .. }) => Begin::Seq(seq + 1),
            ReplayStart::Since(moment) => Begin::Time(moment),
        };
        history::read(&self.nats, STREAM_TACTICAL, TACTICAL_FILTER, begin, count, BYTES).await
    }

    async fn read(&self, from: ReplayStart, epoch: &Epoch) -> Result<ReplayBatch, Error> {
        let now = jiff::Timestamp::now().as_millisecond();
        if let ReplayStart::After(mark) = from
            && !history::knows(&self.nats, STREAM_TACTICAL, TACTICAL_FILTER, mark).await?
        {
            // What the client saw there is not what the stream has there.
            return Ok(ReplayBatch { events: vec![Arc::new(Event::reset(epoch, now))], after: 0, is_at_end: false });
        }
        let batch = self.lookup(from, MESSAGES).await?;
        let Some(first) = batch.messages.first().map(|message| message.seq) else {
            return self.at_end(from, epoch, now).await;
        };
        let mut after = match from {
            ReplayStart::After(Mark { seq, .. }) => seq,
            // What lies before the moment is not missing, unless the stream begins later than that.
            ReplayStart::Since(_) => first - 1,
        };
        let kept_from = match from {
            ReplayStart::After(Mark { seq, .. }) if first == seq + 1 => first,
            _ => self.bounds().await?.0,
        };
        let mut events: Vec<Arc<Event>> = Vec::with_capacity(batch.messages.len());
        if matches!(from, ReplayStart::Since(_)) && kept_from == first && first > 1 {
            let id = |seq| EventId::bare(epoch, seq);
            events.push(Arc::new(Event::gap(Notice::Expired, &id(1), &id(first - 1), first - 1, now)));
        }
        for message in batch.messages {
            events.extend(holes(after, message.seq, kept_from, epoch, now).into_iter().map(Arc::new));
            after = message.seq;
            let stored_at = jiff::Timestamp::from_nanosecond(message.stored_unix_ns).unwrap_or_default();
            // What is refused was counted when it came.
            if let Ok(change) = sanitise(&message.subject, &message.payload, stored_at) {
                let ms = stored_at.as_millisecond();
                let id = EventId { epoch: epoch.clone(), mark: Mark::of(message.seq, ms) };
                events.push(Arc::new(Event::of_change(change, Before::Unknown, &id, ms, &self.signer)));
                REPLAYED.inc(&[]);
            }
        }
        Ok(ReplayBatch { events, after, is_at_end: batch.is_at_end })
    }

    /// The stream has nothing behind where the client is.
    async fn at_end(&self, from: ReplayStart, epoch: &Epoch, now: i64) -> Result<ReplayBatch, Error> {
        let (first, last) = self.bounds().await?;
        let is_behind = match from {
            ReplayStart::After(Mark { seq, .. }) => seq < last,
            ReplayStart::Since(_) => true,
        };
        if is_behind && let Some(message) = self.lookup(from, 1).await?.messages.first() {
            // Something came in between; what is missing after that is really gone.
            let after = match from {
                ReplayStart::After(Mark { seq, .. }) => seq,
                ReplayStart::Since(_) => message.seq - 1,
            };
            return Ok(ReplayBatch { events: Vec::new(), after, is_at_end: false });
        }
        let id = |seq| EventId::bare(epoch, seq);
        let events = match from {
            // Of a stream that has nothing any more it is unknown whether what it had was of that time.
            ReplayStart::Since(moment) if first > last && last > 0 && moment < now => {
                vec![Event::gap(Notice::Expired, &id(1), &id(last), last, now)]
            }
            ReplayStart::Since(_) => Vec::new(),
            ReplayStart::After(Mark { seq, .. }) if seq > last => {
                // It saw what this stream never had: a server came back without its newest messages.
                vec![Event::gap(Notice::Reset, &id(last + 1), &id(seq), seq - last, now)]
            }
            ReplayStart::After(Mark { seq, .. }) => holes(seq, last + 1, first, epoch, now),
        };
        Ok(ReplayBatch { events: events.into_iter().map(Arc::new).collect(), after: last, is_at_end: true })
    }

    /// The first and the last sequence that the stream has.
    async fn bounds(&self) -> Result<(u64, u64), Error> {
        let failed = |reason| Error::Unavailable { stream: STREAM_TACTICAL.to_owned(), reason };
        let stream = self.nats.jetstream().get_stream(STREAM_TACTICAL).await.map_err(|e| failed(e.to_string()))?;
        let state = &stream.cached_info().state;
        Ok((state.first_sequence, state.last_sequence))
    }
}
