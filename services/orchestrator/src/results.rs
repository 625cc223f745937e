//! Takes workers' reports from `swarm_results` and commits them.
//!
//! Reports are gathered into batches; each is acknowledged some time after the commit that holds it. A report
//! that comes twice finds a final job or another attempt and is ignored: the fence is in `transition`.

use crate::app::App;
use crate::metrics;
use crate::reuse;
use crate::transition::{Change, Ignored};
use agentforge_jetstream::consume::{Delivery, PullOptions, Puller};
use agentforge_jetstream::{Nats, subjects, trace, trace::Operation};
use agentforge_message_id::{Attempt, JobId, Queue};
use agentforge_proto::bus::{
    Bundled, ErrorClass, Finished, Outcome, REPORTS, REPORTS_MAX, Rejected, Report, TASK_TOKEN,
};
use agentforge_proto::operation::REUSABLE;
use agentforge_proto::time::Micros;
use async_nats::{HeaderMap, HeaderValue};
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde_json::value::RawValue;
use std::sync::{Mutex, PoisonError};
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
/// Reports that are not believed are logged no more often than this.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// A report that could not be committed comes back after this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a message on `swarm_results` means.
pub enum Meaning {
    /// A change to a job.
    Change(JobId, Box<Change>),
    /// A message that was not a job.
    Reject(Box<Rejected>),
}

/// Why a message on `swarm_results` has no effect.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Bytes that are not a report.
    #[error("not a report")]
    NotAReport(#[from] serde_json::Error),
    /// A report about an attempt by someone who was not given that attempt, or not through that queue.
    #[error("no task token of the attempt")]
    Untrusted(&'static str),
    /// More in one message than any worker sends.
    #[error("{0} reports in one message, where at most {REPORTS_MAX} may be")]
    TooMany(usize),
}

/// A report as it came.
pub struct Reported {
    /// What it means, or why it has no effect.
    pub meaning: Result<Meaning, Refused>,
    /// Whether its result may be returned to equal operations.
    pub reusable: bool,
}

/// Reads the reports of a message, and believes what each says of a job only with the token that the attempt's message
/// had. A message that was not a job has no token, and its report changes no job.
///
/// One report is the payload by itself, its token a header; several are an array, each with its token.
pub fn read(app: &App, subject: &str, headers: Option<&HeaderMap>, payload: &[u8]) -> Vec<Reported> {
    let header = |name| headers.and_then(|headers| headers.get(name)).map(HeaderValue::as_str);
    if header(REPORTS).is_none() {
        let meaning = meaning_of(app, subject, header(TASK_TOKEN), payload);
        return vec![Reported { meaning, reusable: header(REUSABLE).is_some() }];
    }
    let refused = |why| vec![Reported { meaning: Err(why), reusable: false }];
    match serde_json::from_slice::<Vec<Bundled<&RawValue>>>(payload) {
        Err(e) => refused(Refused::NotAReport(e)),
        Ok(reports) if reports.len() > REPORTS_MAX => refused(Refused::TooMany(reports.len())),
        // One that a newer worker says in a way that is unknown here takes no other with it.
        Ok(reports) => reports
            .into_iter()
            .map(|one| Reported {
                meaning: meaning_of(app, subject, Some(&one.token), one.report.get().as_bytes()),
                reusable: one.reusable,
            })
            .collect(),
    }
}

fn meaning_of(app: &App, subject: &str, token: Option<&str>, report: &[u8]) -> Result<Meaning, Refused> {
    let (job, attempt, change) = match serde_json::from_slice::<Report>(report)? {
        Report::Started(s) => (s.job, s.attempt, Change::Started(s)),
        Report::Finished(f) => (f.job, f.attempt, Change::Finished(Box::new(f))),
        Report::Rejected(r) => return Ok(Meaning::Reject(Box::new(r))),
    };
    check(app, subject, job, attempt, token).map_err(Refused::Untrusted)?;
    Ok(Meaning::Change(job, Box::new(change)))
}

/// Queues that a wrong token is held against, to say what is wrong with it.
const QUEUES_COMPARED: usize = 64;

fn check(app: &App, subject: &str, job: JobId, attempt: Attempt, token: Option<&str>) -> Result<(), &'static str> {
    let token = token.ok_or("no_token")?;
    let is_of = |queue: &Queue| app.keys().is_token(app.mission(), queue, job, attempt, token);
    match queue_of(subject) {
        Some(queue) if is_of(&queue) => Ok(()),
        _ if app.queues().names(QUEUES_COMPARED).iter().any(is_of) => Err("other_queue"),
        _ => Err("wrong_token"),
    }
}

fn queue_of(subject: &str) -> Option<Queue> {
    subject.rsplit('.').next().and_then(|name| Queue::new(name).ok())
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
    let puller =
        Puller::start(nats.clone(), subjects::STREAM_RESULTS, durable, PullOptions::new("results", IN_FLIGHT_MAX));
    run(app, nats, puller, stop).await
}

/// Runs until `stop` fires: then takes nothing new and settles what it holds.
///
/// # Errors
/// When the puller ends without a stop.
async fn run(app: App, nats: Nats, mut puller: Puller, stop: CancellationToken) -> Result<(), anyhow::Error> {
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
                    commits.push(commit(app.clone(), nats.clone(), batch));
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

/// The first message and what else is here already, up to a batch of reports.
fn gather(first: Delivery, puller: &mut Puller) -> Vec<Delivery> {
    let mut reports = reports_of(&first);
    let mut batch = vec![first];
    while reports < BATCH_MAX {
        let Some(d) = puller.try_next() else { break };
        reports += reports_of(&d);
        batch.push(d);
    }
    batch
}

/// How many reports a message says that it has.
fn reports_of(d: &Delivery) -> usize {
    d.header(REPORTS).and_then(|n| n.parse().ok()).unwrap_or(1).clamp(1, REPORTS_MAX)
}

/// The reports of a batch, sorted by what they ask for.
#[derive(Default)]
struct Batch {
    changes: Vec<(JobId, Change)>,
    rejects: Vec<Rejected>,
    reusable: Vec<Finished>,
    spans: Vec<Span>,
    /// Messages with at least one report that is believed.
    settle: Vec<Delivery>,
}

impl Batch {
    /// Adds what a message says; one that says nothing that is believed is terminated.
    async fn add(&mut self, app: &App, d: Delivery) {
        self.spans.extend(span_of(&d));
        let mut refused = None;
        let mut believed = 0_usize;
        for Reported { meaning, reusable } in read(app, d.subject(), d.headers(), d.payload()) {
            match meaning {
                Ok(Meaning::Change(id, change)) => {
                    if let Change::Finished(finished) = &*change
                        && reusable
                    {
                        self.reusable.push(finished.as_ref().clone());
                    }
                    self.changes.push((id, judged(app, *change, d.subject())));
                    believed += 1;
                }
                Ok(Meaning::Reject(r)) => {
                    self.rejects.push(*r);
                    believed += 1;
                }
                Err(Refused::Untrusted(reason)) => {
                    note_refused(reason, &d);
                    refused = Some(reason);
                }
                Err(e @ (Refused::NotAReport(_) | Refused::TooMany(_))) => {
                    metrics::REPORTS_INVALID.inc(&[]);
                    warn!(error = %e, bytes = d.payload().len(), stream_seq = d.info().stream_seq, "a message on swarm_results is not a report; it has no effect");
                    refused.get_or_insert("not a report");
                }
            }
        }
        if believed > 0 {
            self.settle.push(d);
        } else {
            let _ = d.term(refused.unwrap_or("no reports")).await;
        }
    }
}

/// Commits a batch and settles every message in it but those that are committed.
async fn commit(app: App, nats: Nats, messages: Vec<Delivery>) -> Settled {
    let slots = messages.len();
    let mut batch = Batch::default();
    for d in messages {
        batch.add(&app, d).await;
    }
    let Batch { changes, rejects, reusable, spans, mut settle } = batch;
    join_all(reusable.iter().map(|finished| reuse::keep(&app, &nats, finished))).await;
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
    let announced = queue_of(subject).map(|queue| app.queues().tools_of(&queue, Micros::now())).unwrap_or_default();
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

/// Counts a report that is not believed. A client that sends many causes few lines in the log.
fn note_refused(reason: &'static str, report: &Delivery) {
    static LOGGED: Mutex<Option<Instant>> = Mutex::new(None);
    metrics::REPORTS_REFUSED.inc(&[reason]);
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    if logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
        *logged = Some(Instant::now());
        let (subject, stream_seq) = (report.subject(), report.info().stream_seq);
        warn!(reason, subject, stream_seq, "a report without the task token of its attempt has no effect");
    }
}

fn note_ignored(why: Ignored) {
    metrics::DUPLICATES_SUPPRESSED.inc(&["result"]);
    if why == Ignored::Unknown {
        warn!("a result names a job that is not in this database; ignored");
    }
}
