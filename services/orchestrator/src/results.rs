//! Takes workers' reports from `swarm_results` and commits them.
//!
//! Reports are gathered into batches; each is acknowledged some time after the commit that holds it. A report
//! that comes twice finds a final job or another attempt and is ignored: the fence is in `transition`.

use crate::app::App;
use crate::metrics;
use crate::transition::{Change, Ignored};
use agentforge_jetstream::consume::{Delivery, PullOptions, Puller};
use agentforge_jetstream::{Nats, subjects, trace, trace::Operation};
use agentforge_message_id::{JobId, Queue};
use agentforge_proto::bus::{ErrorClass, Finished, Outcome, Rejected, Report};
use agentforge_proto::time::Micros;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Span, debug, info_span, warn};

/// Reports held at once, waiting for their commit.
pub const IN_FLIGHT_MAX: usize = 2_048;
/// Reports of one batch.
const BATCH_MAX: usize = 256;
/// Batches that wait for their commit at once.
const BATCHES_MAX: usize = 8;
/// Acknowledgements wait for the next report, so that they travel with what it sends, and so that the stream is not
/// empty in between: the server deletes and recreates the file of a stream that runs empty, which costs it as much as
/// the message did. No longer than this.
const ACK_AFTER: Duration = Duration::from_millis(100);
/// Acknowledgements that wait, at most.
const ACKS_MAX: usize = 16;
/// A report that could not be committed comes back after this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a message on `swarm_results` means.
pub enum Meaning {
    /// A change to a job.
    Change(JobId, Box<Change>),
    /// A message that was not a job.
    Reject(Box<Rejected>),
}

/// Reads a report.
///
/// # Errors
/// What is wrong with the bytes.
pub fn read(payload: &[u8]) -> Result<Meaning, serde_json::Error> {
    Ok(match serde_json::from_slice::<Report>(payload)? {
        Report::Started(s) => Meaning::Change(s.job, Box::new(Change::Started(s))),
        Report::Finished(f) => Meaning::Change(f.job, Box::new(Change::Finished(Box::new(f)))),
        Report::Rejected(r) => Meaning::Reject(Box::new(r)),
    })
}

/// Takes results once their consumer is known to be there, until `stop` fires.
///
/// # Errors
/// When the puller ends without a stop.
pub async fn results_loop(
    app: App,
    nats: Nats,
    mut topology: watch::Receiver<bool>,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        is_ready = async { topology.wait_for(|ready| *ready).await.is_ok() } => if !is_ready {
            // The task that makes sure of it has ended, in a stop or with an error that it reports itself.
            stop.cancelled().await;
            return Ok(());
        },
    }
    let durable = subjects::orchestrator_durable(app.mission());
    let puller = Puller::start(nats, subjects::STREAM_RESULTS, durable, PullOptions::new("results", IN_FLIGHT_MAX));
    run(app, puller, stop).await
}

/// Runs until `stop` fires: then takes nothing new and settles what it holds.
///
/// # Errors
/// When the puller ends without a stop.
async fn run(app: App, mut puller: Puller, stop: CancellationToken) -> Result<(), anyhow::Error> {
    puller.grant(IN_FLIGHT_MAX);
    let mut commits = FuturesUnordered::new();
    let mut acks = Acks::default();
    loop {
        tokio::select! {
            biased;
            Some(Settled { slots, committed }) = commits.next(), if !commits.is_empty() => {
                puller.grant(slots);
                acks.keep(committed);
            }
            delivery = puller.next(), if commits.len() < BATCHES_MAX => match delivery {
                Some(first) => {
                    let batch = gather(first, &mut puller);
                    commits.push(commit(app.clone(), batch));
                    acks.send();
                }
                None if stop.is_cancelled() => break,
                None => anyhow::bail!("the loop that takes results from swarm_results has ended"),
            },
            () = acks.turn() => {}
            () = stop.cancelled() => break,
        }
    }
    puller.stop();
    while let Some(Settled { committed, .. }) = commits.next().await {
        acks.keep(committed);
    }
    acks.finish().await;
    Ok(())
}

/// What became of a batch.
struct Settled {
    /// Slots that are free again.
    slots: usize,
    /// To be acknowledged.
    committed: Vec<Delivery>,
}

/// Reports that are committed and not acknowledged.
#[derive(Default)]
struct Acks {
    waiting: Vec<Delivery>,
    due: Option<Instant>,
    /// Those that the client accepts; it may have no room while NATS is unavailable.
    sending: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Acks {
    fn keep(&mut self, committed: Vec<Delivery>) {
        self.waiting.extend(committed);
        if self.waiting.len() >= ACKS_MAX {
            self.send();
        } else if !self.waiting.is_empty() {
            self.due.get_or_insert_with(|| Instant::now() + ACK_AFTER);
        }
    }

    /// Sends those that wait.
    fn send(&mut self) {
        self.due = None;
        if self.waiting.is_empty() {
            return;
        }
        let deliveries = std::mem::take(&mut self.waiting);
        let send = async move {
            for d in deliveries {
                // Unacknowledged reports are redelivered and ignored.
                let _ = d.ack().await;
            }
        };
        let mut send = send.boxed();
        if (&mut send).now_or_never().is_none() {
            self.sending.push(send);
        }
    }

    /// Waits for what is to be done next, and does it.
    async fn turn(&mut self) {
        let due = self.due;
        let late = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = self.sending.next(), if !self.sending.is_empty() => {}
            () = late => self.send(),
        }
    }

    async fn finish(mut self) {
        self.send();
        while self.sending.next().await.is_some() {}
    }
}

/// The first report and what else is here already.
fn gather(first: Delivery, puller: &mut Puller) -> Vec<Delivery> {
    let mut batch = vec![first];
    while batch.len() < BATCH_MAX {
        let Some(d) = puller.try_next() else { break };
        batch.push(d);
    }
    batch
}

/// Commits a batch and settles every message in it but those that are committed.
async fn commit(app: App, batch: Vec<Delivery>) -> Settled {
    let slots = batch.len();
    let mut changes = Vec::with_capacity(batch.len());
    let mut rejects = Vec::new();
    let mut settle = Vec::with_capacity(batch.len());
    let mut spans = Vec::new();
    for d in batch {
        spans.extend(span_of(&d));
        match read(d.payload()) {
            Ok(Meaning::Change(id, change)) => changes.push((id, judged(&app, *change, d.subject()))),
            Ok(Meaning::Reject(r)) => rejects.push(*r),
            Err(e) => {
                metrics::REPORTS_INVALID.inc(&[]);
                warn!(error = %e, bytes = d.payload().len(), stream_seq = d.info().stream_seq, "a message on swarm_results is not a report; terminated");
                let _ = d.term("not a report").await;
                continue;
            }
        }
        settle.push(d);
    }
    let is_finished: Vec<bool> =
        changes.iter().map(|(_, c)| matches!(c, Change::Finished(_) | Change::ToolMissing { .. })).collect();
    let applied = app.apply_reports(changes, rejects).await;
    spans.iter().for_each(|span| span.in_scope(|| debug!(ok = applied.is_ok(), "the result was taken to the commit")));
    drop(spans);
    match applied {
        Ok(outcomes) => {
            for (outcome, finished) in outcomes.iter().zip(is_finished) {
                if let (Err(why), true) = (outcome, finished) {
                    note_ignored(*why);
                }
            }
        }
        Err(e) => {
            debug!(error = %e, "reports could not be committed; redelivered later");
            for d in settle.drain(..) {
                let _ = d.nak(Some(AGAIN_AFTER)).await;
            }
        }
    }
    Settled { slots, committed: settle }
}

/// A report as a change: one that no tool of this name is there is judged by what the other workers of the queue have.
fn judged(app: &App, change: Change, subject: &str) -> Change {
    let finished = match change {
        Change::Finished(f) if is_tool_missing(&f) => f,
        other => return other,
    };
    metrics::TOOLS_MISSING.inc(&[]);
    let queue = subject.rsplit('.').next().and_then(|name| Queue::new(name).ok());
    let announced = queue.map(|queue| app.queues().tools_of(&queue, Micros::now())).unwrap_or_default();
    Change::ToolMissing { finished, announced: Box::new(announced), grace: app.queues().tool_grace() }
}

fn is_tool_missing(f: &Finished) -> bool {
    matches!(&f.outcome, Outcome::Failed(failure) if failure.class == ErrorClass::ToolNotFound)
}

/// The commit as a part of the trace that the report came with, where that is sampled: a commit is of many
/// reports, and each of them has it in its own trace.
fn span_of(report: &Delivery) -> Option<Span> {
    let make = || {
        let request_id = trace::request_id(report.headers());
        let name = Operation::Process.span_name(report.subject());
        info_span!(parent: None, "commit", otel.name = name, otel.kind = "consumer", request_id)
    };
    let span = Some(trace::child_of(report.headers(), make)).filter(|span| !span.is_disabled())?;
    let id = format!("{}:{}", report.info().stream, report.info().stream_seq);
    trace::describe_message(&span, Operation::Process, report.subject(), id);
    Some(span)
}

fn note_ignored(why: Ignored) {
    metrics::DUPLICATES_SUPPRESSED.inc(&["result"]);
    if why == Ignored::Unknown {
        warn!("a result names a job that is not in this database; ignored");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rubbish_is_told_from_reports() {
        for bytes in [&b""[..], b"{", b"[]", b"{\"finished\":{}}", b"\xff\xfe", b"{\"started\":null}"] {
            assert!(read(bytes).is_err());
        }
        let started = br#"{"started":{"job":"01890a5d-ac96-774b-bcce-b302099a8057","attempt":1,"delivery":1,"worker":"w","at":1}}"#;
        assert!(matches!(read(started), Ok(Meaning::Change(_, c)) if matches!(*c, Change::Started(_))));
    }
}
