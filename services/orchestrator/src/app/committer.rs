//! Group commit: many submissions and changes share one transaction and one fsync.
//!
//! Owns the only path on which jobs are written. A caller is answered after the commit, never before. Urgent writes
//! (with a waiting caller) start a commit at once; lazy ones (marks without a waiting caller) gather first, then are
//! committed with others or separately. While a commit runs, the next group gathers. Senders of marks wait when there
//! are too many: a lost mark means a repeated publish.

use super::{Handoffs, JobWatchers, OutboxGauge};
use crate::caller::Caller;
use crate::deletions::Deletions;
use crate::error::Error;
use crate::metrics;
use crate::model::{JobError, NewJob, State};
use crate::store::{
    Changed, CommitContext, Committed, CreatedJob, EventMask, Group, OutboxRow, Outgoing, Owner, Park, Store, Subject,
    Submit, Submitted,
};
use crate::transition::{Backoff, Change, Ignored, ResultEffect};
use agentforge_audit::Entry;
use agentforge_message_id::{Attempt, JobId, Mission};
use agentforge_proto::bus::Rejected;
use agentforge_proto::time::Micros;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, warn};

/// Writes of one commit, at most.
const GROUP_MAX: usize = 512;
/// Urgent requests that may wait; beyond it senders wait.
const URGENT_QUEUE: usize = 4_096;
/// Marks of one commit, at most. A job leaves about four (its publish, and those of its events): a commit
/// takes as many along as the jobs of a full group leave, or they would pile up under load.
const MARKS_MAX: usize = 4 * GROUP_MAX;
/// Marks that ride along with the next commit; fewer wait for company. A commit that somebody waits for is
/// faster without, and the mark of a job that ended meanwhile writes nothing.
const MARKS_MIN: usize = 256;
/// How long a mark waits for company.
const LINGER: Duration = Duration::from_millis(100);
/// Marks that may wait in addition to those; beyond it their senders wait.
const LAZY_QUEUE: usize = 2 * MARKS_MAX;
/// Until marks that could not be stored are tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// What the committer needs to know.
#[derive(Clone, Debug)]
pub struct CommitterConfig {
    /// Waits before a failed attempt is published again, where the job has none of its own.
    pub backoff: Backoff,
    /// In whose name rows are claimed.
    pub owner: Owner,
    /// How long claims hold.
    pub claim_for: Duration,
    /// Which states are published as events.
    pub events: EventMask,
    /// Whose jobs these are.
    pub mission: Mission,
}

type Answer<T> = oneshot::Sender<Result<T, Error>>;
/// What became of changes, index by index.
type Changes = Vec<Result<Changed, Ignored>>;

enum Request {
    Submit(Box<NewJob>, Caller, Answer<Submitted>),
    Changes(Vec<(JobId, Change)>, Vec<Rejected>, Option<Caller>, Answer<Changes>),
    Entry(Box<Entry>, Answer<()>),
}

/// A mark that no caller waits for.
#[derive(Debug)]
pub enum Lazy {
    /// The PubAck of an attempt came.
    Queued(JobId, Attempt, i64, Micros),
    /// An attempt can never be published.
    Refused(JobId, Attempt, Box<JobError>, Micros),
    /// The PubAck of an outbox row came.
    OutboxSent(i64),
    /// A row of the outbox can never be published.
    OutboxParked(Park),
}

/// Cheap to clone; all clones feed one loop.
#[derive(Clone)]
pub struct Committer {
    urgent: mpsc::Sender<Request>,
    lazy: mpsc::Sender<Lazy>,
    config: Arc<CommitterConfig>,
}

/// The loop's side; give it to [`CommitLoop::run`].
pub struct CommitLoop {
    urgent: mpsc::Receiver<Request>,
    lazy: mpsc::Receiver<Lazy>,
    store: Arc<dyn Store>,
    config: CommitterConfig,
    watchers: JobWatchers,
    gauge: OutboxGauge,
    jobs: Handoffs<Outgoing>,
    outbox: Handoffs<OutboxRow>,
    orphans: Deletions,
}

/// Where the loop hands work on.
pub(crate) struct Outlets {
    pub(crate) watchers: JobWatchers,
    pub(crate) gauge: OutboxGauge,
    /// Claimed jobs, to the relay.
    pub(crate) jobs: Handoffs<Outgoing>,
    /// Claimed outbox rows, to the relay.
    pub(crate) outbox: Handoffs<OutboxRow>,
    /// Messages on `swarm_jobs` whose job is final: to be deleted.
    pub(crate) orphans: Deletions,
}

impl Committer {
    pub(crate) fn new(store: Arc<dyn Store>, config: CommitterConfig, outlets: Outlets) -> (Self, CommitLoop) {
        let (urgent, urgent_rx) = mpsc::channel(URGENT_QUEUE);
        let (lazy, lazy_rx) = mpsc::channel(LAZY_QUEUE);
        let Outlets { watchers, gauge, jobs, outbox, orphans } = outlets;
        let own = Arc::new(config.clone());
        let run =
            CommitLoop { urgent: urgent_rx, lazy: lazy_rx, store, config, watchers, gauge, jobs, outbox, orphans };
        (Self { urgent, lazy, config: own }, run)
    }

    /// How a commit outside of the loop is to be made.
    pub(crate) fn context(&self, now: Micros) -> CommitContext<'_> {
        let c = &self.config;
        let claim_until = now.plus(c.claim_for);
        CommitContext { now, backoff: &c.backoff, owner: &c.owner, claim_until, events: c.events, mission: &c.mission }
    }

    /// Stores a job that `caller` submits. Answers after the commit.
    ///
    /// # Errors
    /// `unavailable` when nothing was stored.
    pub async fn submit(&self, job: NewJob, caller: &Caller) -> Result<Submitted, Error> {
        self.ask(|answer| Request::Submit(Box::new(job), caller.clone(), answer)).await
    }

    /// Stores an entry of the audit log that is about no write. Answers after the commit.
    ///
    /// # Errors
    /// `unavailable` when it was not stored.
    pub async fn record(&self, entry: Entry) -> Result<(), Error> {
        self.ask(|answer| Request::Entry(Box::new(entry), answer)).await
    }

    /// Applies changes that `caller` asks for. Answers after the commit, index by index.
    ///
    /// # Errors
    /// `unavailable` when nothing was stored.
    pub async fn change_for(
        &self,
        caller: &Caller,
        changes: Vec<(JobId, Change)>,
    ) -> Result<Vec<Result<Changed, Ignored>>, Error> {
        self.ask(|answer| Request::Changes(changes, vec![], Some(caller.clone()), answer)).await
    }

    /// Applies changes that no caller asks for, and records messages that were not jobs. Answers after the commit, index by index.
    ///
    /// # Errors
    /// `unavailable` when nothing was stored.
    pub async fn change(
        &self,
        changes: Vec<(JobId, Change)>,
        rejects: Vec<Rejected>,
    ) -> Result<Vec<Result<Changed, Ignored>>, Error> {
        self.ask(|answer| Request::Changes(changes, rejects, None, answer)).await
    }

    /// Adds a mark; waits while there are too many. When the loop has ended, the next owner of the row's claim adds it
    /// again.
    pub async fn mark(&self, mark: Lazy) {
        if self.lazy.send(mark).await.is_err() {
            debug!("a mark arrived after the last commit; repeated when the claim expires");
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, Error> {
        let gone = || Error::new(crate::error::Code::Unavailable, "the orchestrator is stopping; nothing was stored");
        let (tx, rx) = oneshot::channel();
        self.urgent.send(request(tx)).await.map_err(|_| gone())?;
        rx.await.map_err(|_| gone())?
    }
}

/// What became of a commit.
enum Outcome {
    Written,
    /// Nothing is stored; the same may be stored later.
    Unavailable,
    /// Nothing is stored, and will not be.
    Refused,
}

/// One group being gathered: writes on one side, who waits for them on the other.
#[derive(Default)]
struct Gathered {
    group: Group,
    submit_answers: Vec<Answer<Submitted>>,
    change_answers: Vec<(usize, Answer<Changes>)>,
    entry_answers: Vec<Answer<()>>,
    lazy_from: usize,
}

impl CommitLoop {
    /// Runs until every [`Committer`] is dropped or `stop` fires and nothing waits.
    pub async fn run(mut self, stop: tokio_util::sync::CancellationToken) {
        let mut kept: Vec<Lazy> = Vec::new();
        let mut linger_until: Option<Instant> = None;
        let mut failing = false;
        loop {
            let mut gathered = Gathered::default();
            let timer = async {
                match linger_until {
                    Some(t) => tokio::time::sleep_until(t).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(r) = self.urgent.recv() => self.gather(&mut gathered, r),
                Some(l) = self.lazy.recv(), if kept.len() < MARKS_MAX => {
                    kept.push(l);
                    linger_until.get_or_insert_with(|| Instant::now() + LINGER);
                    if failing || kept.len() < MARKS_MIN {
                        continue;
                    }
                }
                () = timer => {}
                () = stop.cancelled() => {}
            }
            while gathered.group.len() < GROUP_MAX {
                let Ok(r) = self.urgent.try_recv() else { break };
                self.gather(&mut gathered, r);
            }
            while kept.len() < MARKS_MAX {
                let Ok(l) = self.lazy.try_recv() else { break };
                kept.push(l);
                linger_until.get_or_insert_with(|| Instant::now() + LINGER);
            }
            gathered.lazy_from = gathered.group.changes.len();
            let late = linger_until.is_some_and(|t| t <= Instant::now());
            let rode = late || !failing && kept.len() >= MARKS_MIN || stop.is_cancelled();
            if rode {
                Self::ride_along(&mut gathered, &kept);
            }
            if gathered.group.is_empty() {
                if stop.is_cancelled() {
                    return;
                }
                continue;
            }
            match self.commit(gathered).await {
                _ if !rode => {}
                Outcome::Unavailable if !stop.is_cancelled() => {
                    failing = true;
                    linger_until = Some(Instant::now() + RETRY_INTERVAL);
                }
                // Refused: a commit without them may do. Claims end, and the marks are made again.
                Outcome::Written | Outcome::Refused | Outcome::Unavailable => {
                    kept.clear();
                    (failing, linger_until) = (false, None);
                }
            }
        }
    }

    fn gather(&self, g: &mut Gathered, request: Request) {
        match request {
            Request::Submit(job, caller, answer) => {
                let backlog = self.jobs.backlog();
                let claim = backlog.may_claim() && backlog.reason(job.queue.as_str()).is_none();
                g.group.acts.push((caller, Subject::Submit(g.group.submits.len())));
                g.group.submits.push(Submit { job: *job, claim });
                g.submit_answers.push(answer);
            }
            Request::Entry(entry, answer) => {
                g.group.entries.push(*entry);
                g.entry_answers.push(answer);
            }
            Request::Changes(changes, rejects, caller, answer) => {
                g.change_answers.push((changes.len(), answer));
                if let Some(caller) = caller {
                    let first = g.group.changes.len();
                    let subjects = (first..first + changes.len()).map(Subject::Change);
                    g.group.acts.extend(subjects.map(|subject| (caller.clone(), subject)));
                }
                g.group.changes.extend(changes);
                g.group.rejects.extend(rejects);
            }
        }
    }

    fn ride_along(g: &mut Gathered, kept: &[Lazy]) {
        for l in kept {
            match l {
                &Lazy::Queued(id, attempt, stream_seq, at) => {
                    g.group.changes.push((id, Change::Queued { attempt, stream_seq, at }))
                }
                Lazy::Refused(id, attempt, error, at) => {
                    let change = Change::Refused { attempt: *attempt, error: error.clone(), at: *at };
                    g.group.changes.push((*id, change));
                }
                Lazy::OutboxSent(seq) => g.group.outbox_sent.push(*seq),
                Lazy::OutboxParked(park) => g.group.outbox_parked.push(park.clone()),
            }
        }
    }

    async fn commit(&mut self, g: Gathered) -> Outcome {
        let now = Micros::now();
        let Gathered { mut group, submit_answers, change_answers, entry_answers, lazy_from } = g;
        let claim_outbox = self.outbox.backlog().may_claim();
        group.claim_outbox = claim_outbox;
        let lazy_ids: Vec<JobId> = group.changes[lazy_from..].iter().map(|(id, _)| *id).collect();
        let lazy_seqs: Vec<i64> = group.changes[lazy_from..]
            .iter()
            .map(|(_, c)| if let Change::Queued { stream_seq, .. } = c { *stream_seq } else { 0 })
            .collect();
        let calls = (group.acts.len() + group.entries.len()) as u64;
        metrics::COMMIT_GROUP_SIZE.observe(&[], group.len() as f64);
        let claim_until = now.plus(self.config.claim_for);
        let ctx = CommitContext {
            now,
            backoff: &self.config.backoff,
            owner: &self.config.owner,
            claim_until,
            events: self.config.events,
            mission: &self.config.mission,
        };
        let begun = Instant::now();
        match self.store.commit(group, ctx).await {
            Ok(committed) => {
                metrics::DB_QUERY_DURATION.observe(&["commit"], begun.elapsed().as_secs_f64());
                metrics::AUDIT_CALLS.add(&[], calls);
                for a in entry_answers {
                    let _ = a.send(Ok(()));
                }
                self.hand_on(committed, submit_answers, change_answers, &lazy_ids, &lazy_seqs, claim_outbox, now);
                Outcome::Written
            }
            Err(e) => {
                metrics::DB_ERRORS.inc(&[]);
                warn!(error = &e as &dyn std::error::Error, "a group could not be committed; its callers get an error");
                let again = || Error::of_store(&e);
                for a in submit_answers {
                    let _ = a.send(Err(again()));
                }
                for (_, a) in change_answers {
                    let _ = a.send(Err(again()));
                }
                for a in entry_answers {
                    let _ = a.send(Err(again()));
                }
                if e.is_retryable() { Outcome::Unavailable } else { Outcome::Refused }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one step of one caller; a struct would only rename them")]
    fn hand_on(
        &mut self,
        committed: Committed,
        submit_answers: Vec<Answer<Submitted>>,
        change_answers: Vec<(usize, Answer<Changes>)>,
        lazy_ids: &[JobId],
        lazy_seqs: &[i64],
        claims_outbox: bool,
        now: Micros,
    ) {
        let Committed { submits, mut changes, results, rejects_new, outbox } = committed;
        for reason in rejects_new {
            metrics::DEAD_LETTERS.inc(&["unknown", "unknown", reason.as_str()]);
        }
        if !outbox.is_empty() {
            self.hand_on_outbox(outbox, claims_outbox);
        }
        self.hand_on_submits(submits, submit_answers, now);

        let asked: usize = change_answers.iter().map(|(n, _)| n).sum();
        for c in changes.iter().flatten() {
            self.note_change(c, &results, now);
        }
        // Marks come last in the group; a mark for a stopped job means an unneeded message.
        let marks = changes.split_off(asked.min(changes.len()));
        for ((mark, id), stream_seq) in marks.iter().zip(lazy_ids).zip(lazy_seqs) {
            // A number of 0: it was refused, and the stream has nothing of it.
            if matches!(mark, Err(Ignored::Stopped)) && *stream_seq != 0 {
                self.orphans.delete(*id, *stream_seq);
            }
        }
        let mut rest = changes.into_iter();
        for (n, answer) in change_answers {
            let _ = answer.send(Ok(rest.by_ref().take(n).collect()));
        }
    }

    fn hand_on_outbox(&self, rows: Vec<OutboxRow>, claimed: bool) {
        if claimed {
            let messages = rows.iter().map(|row| row.messages.len()).sum();
            self.outbox.hand_over(rows, messages);
        } else {
            // More than is kept in memory: they are found in the store.
            self.outbox.backlog().note_unclaimed();
            self.outbox.backlog().wake_at(Micros::now());
        }
    }

    fn hand_on_submits(&self, submits: Vec<Submitted>, answers: Vec<Answer<Submitted>>, now: Micros) {
        let mut outgoing = Vec::new();
        let (mut unclaimed, mut wake_at) = (false, None);
        for s in &submits {
            if let Submitted::Created(CreatedJob { seq, job, claimed }) = s {
                if *claimed {
                    self.gauge.add(&job.queue);
                    outgoing.push(first_attempt(*seq, job));
                } else if let Some(later) = job.run_at.filter(|at| *at > now) {
                    self.gauge.add_later();
                    wake_at = wake_at.map_or(Some(later), |at: Micros| Some(at.min(later)));
                } else {
                    self.gauge.add(&job.queue);
                    unclaimed |= self.jobs.backlog().note_unclaimed_of(job.queue.as_str());
                }
            }
        }
        if let Some(at) = wake_at {
            self.jobs.backlog().wake_at(at);
        }
        if unclaimed {
            self.jobs.backlog().wake_at(Micros::now());
        }
        let messages = outgoing.len();
        self.jobs.hand_over(outgoing, messages);
        for (s, a) in submits.into_iter().zip(answers) {
            let _ = a.send(Ok(s));
        }
    }

    fn note_change(&self, c: &Changed, results: &[(i64, ResultEffect)], now: Micros) {
        let (was, is) = (c.from == State::Accepted, c.job.state == State::Accepted);
        if was && !is {
            self.gauge.sub(&c.job.queue);
        } else if is && !was {
            // A retry waits its own time; nothing else waits for it.
            if c.job.available_at > now { self.gauge.add_later() } else { self.gauge.add(&c.job.queue) }
        }
        if is && (c.failed.is_some() || !was) {
            self.jobs.backlog().wake_at(c.job.available_at);
        }
        metrics::note_change(c);
        let result = || results.iter().find(|(seq, _)| *seq == c.job.seq).map(|(_, r)| r.clone());
        self.watchers.committed(&c.job, result);
    }
}

fn first_attempt(seq: i64, job: &NewJob) -> Outgoing {
    Outgoing { seq, attempt: Attempt::FIRST, republished: 0, deadline: job.deadline, spec: job.spec.clone() }
}

#[cfg(test)]
mod tests;
